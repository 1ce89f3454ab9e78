package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scriptTime bounds one script on a node: an automounted home and a login shell
// that loads modules take seconds.
const scriptTime = 30 * time.Second

// cleanTime bounds the tidying up after a failure.
const cleanTime = 2 * time.Second

// bridge runs the program on a node, bringing it there first when it is missing
// or differs, and returns the stream to it.
func (p *sshPool) bridge(ctx context.Context, node string, c *client) (*stream, error) {
	in := &installer{pool: p, node: node, client: c}
	in.script = script{mark: "gw:" + rand.Text()[:12], suffix: strings.ToLower(rand.Text()[:12]), args: p.cfg.Args, env: p.cfg.Env, binaries: p.binaries, helper: p.helper.ready()}
	for _, b := range p.binaries {
		d, err := b.digest()
		if err != nil {
			return nil, &Error{Node: node, Kind: Config, Msg: err.Error(), Err: err}
		}
		in.script.digests = append(in.script.digests, d)
	}
	return in.run(ctx)
}

// installer is one attempt to get the program running on a node.
type installer struct {
	pool   *sshPool
	node   string
	client *client
	script script
	why    []string // what kept directories from being used
	full   bool     // one of them for lack of room
}

func (in *installer) run(ctx context.Context) (*stream, error) {
	s, err := in.rounds(ctx)
	if err != nil && in.client.lost(in.node) == nil {
		// A script that was cut off may have left a file; a caller that gave up
		// waits this moment longer.
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		in.ask(brief, cleanScript, "", "")
	}
	return s, err
}

func (in *installer) rounds(ctx context.Context) (*stream, error) {
	// Each round ends with the program running, with a directory less to try,
	// or with another node's upload waited for.
	for rounds := len(in.pool.nodes) + 4; rounds > 0; rounds-- {
		s, replies, err := in.ask(ctx, findScript+prepareScript, "", "")
		if s != nil || err != nil {
			return s, err
		}
		if in.gaveHelper(ctx, replies) {
			continue
		}
		temp := ""
		for _, r := range replies {
			switch r.word {
			case "arch":
				return nil, in.wrongArch(r.rest)
			case "put":
				temp = r.rest
			case "full":
				in.tooFull(r.rest)
			case "skip":
				in.note(r.rest)
			}
		}
		if temp == "" {
			return nil, in.nowhere()
		}
		s, err = in.place(ctx, temp)
		if s != nil || err != nil {
			return s, err
		}
	}
	return nil, in.nowhere()
}

// place uploads into the prepared file and runs the result. It returns neither a
// stream nor an error when the node is to be looked at anew.
func (in *installer) place(ctx context.Context, temp string) (*stream, error) {
	dir := path.Dir(temp)
	b, ok := in.script.pick(temp)
	if !ok {
		return nil, in.fail("the node answered with an unknown file, %q", temp)
	}
	u := in.pool.uploads.announce(path.Base(temp))
	var outcome error
	defer func() { in.pool.uploads.done(u, outcome) }()

	s, replies, err := in.ask(ctx, checkScript, dir, temp)
	if s != nil || err != nil {
		outcome = err
		return s, err
	}
	if in.gaveHelper(ctx, replies) {
		return nil, nil
	}
	var parts []string
	for _, r := range replies {
		if r.word == "part" {
			parts = append(parts, r.rest)
		}
	}
	if first := in.pool.uploads.before(u, parts); first != nil {
		// A home that several nodes share: one upload is enough.
		in.discard(ctx, dir, temp)
		in.pool.uploads.done(u, nil)
		select {
		case <-first.finished:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var full *fullError
		if errors.As(first.err, &full) {
			in.pass(dir, full.text)
			in.full = true
		}
		return nil, nil
	}

	sent := in.send(ctx, b, temp)
	if sent == nil {
		s, replies, err = in.ask(ctx, finishScript, dir, temp)
		if s != nil || err != nil {
			outcome = err
			return s, err
		}
		if in.gaveHelper(ctx, replies) {
			return nil, nil
		}
		sent = errors.New("what arrived differs from what was sent")
		if len(replies) == 0 || replies[0].word != "bad" {
			sent = errors.New("the node gave no answer")
		}
	}
	outcome = sent
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if lost := in.client.lost(in.node); lost != nil {
		return nil, lost
	}
	free, why := in.discard(ctx, dir, temp)
	need := needKiB(b.size)
	if why == "" && (strings.Contains(sent.Error(), "No space left") || strings.Contains(sent.Error(), "uota exceeded")) {
		why = sent.Error()
	}
	text := ""
	switch {
	case why != "":
		text = fmt.Sprintf("%s: %s are needed: %s", dir, size(need), why)
	case free >= 0 && free < need:
		text = fmt.Sprintf("%s: %s free, %s needed", dir, size(free), size(need))
	default:
		in.pass(dir, fmt.Sprintf("%s: the upload of %s failed: %v", dir, size(need), sent))
		return nil, nil
	}
	outcome = &fullError{text}
	in.full = true
	in.pass(dir, text)
	return nil, nil
}

// fullError tells those who waited for an upload into the same directory that
// theirs would fail too.
type fullError struct{ text string }

func (e *fullError) Error() string { return e.text }

// pass excludes a directory from the next round.
func (in *installer) pass(dir, why string) {
	in.script.passed = append(in.script.passed, dir)
	in.note(why)
}

// note remembers why a directory can't be used, once: rounds repeat themselves.
func (in *installer) note(why string) {
	if !slices.Contains(in.why, why) {
		in.why = append(in.why, why)
	}
}

// tooFull reads "KIB DIR".
func (in *installer) tooFull(rest string) {
	kib, dir, _ := strings.Cut(rest, " ")
	free, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		free = -1
	}
	need := int64(0)
	for _, b := range in.pool.binaries {
		need = max(need, needKiB(b.size))
	}
	in.full = true
	in.note(fmt.Sprintf("%s: %s free, %s needed", dir, size(free), size(need)))
}

// nowhere is the error when no directory can be used.
func (in *installer) nowhere() error {
	e := &Error{Node: in.node, Kind: Install, Msg: "there is no place for the program: " + strings.Join(in.why, "; "),
		Fix: "make one of these directories usable"}
	if in.full {
		e.Msg = "disk full: " + e.Msg
		e.Fix = "make room in one of these directories"
	}
	return e
}

func (in *installer) wrongArch(arch string) error {
	var have []string
	for _, b := range in.pool.binaries {
		what := "another system"
		if len(b.machines) > 0 {
			what = b.machines[0]
		}
		have = append(have, fmt.Sprintf("%s is for %s", b.path, what))
	}
	return in.withFix(fmt.Sprintf("the node is %s, but %s", arch, strings.Join(have, ", ")),
		fmt.Sprintf("build gangway for %s and name it with --agent-binary", arch))
}

func (in *installer) fail(format string, args ...any) error {
	return &Error{Node: in.node, Kind: Install, Msg: fmt.Sprintf(format, args...)}
}

func (in *installer) withFix(msg, fix string) error {
	return &Error{Node: in.node, Kind: Install, Msg: msg, Fix: fix}
}

// ask runs a script and gathers its replies. A stream is returned when the
// script has become the program.
func (in *installer) ask(ctx context.Context, body, dir, temp string) (*stream, []reply, error) {
	s, stop, err := in.open(ctx, body, dir, temp)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	replies, err := in.replies(ctx, s)
	if err == nil && replies[len(replies)-1].word == "run" {
		if !stop() {
			return nil, nil, in.late(ctx)
		}
		return s, nil, nil
	}
	s.Close()
	return nil, replies, err
}

// open starts sh on the node and gives it a script; stop ends the watch of the
// time limit over it.
func (in *installer) open(ctx context.Context, body, dir, temp string) (s *stream, stop func() bool, err error) {
	limited, cancel := context.WithTimeout(ctx, scriptTime)
	s, err = in.client.start(limited, in.node, "exec sh")
	if err != nil {
		cancel()
		if limited.Err() != nil {
			err = in.late(ctx)
		}
		return nil, nil, err
	}
	watch := context.AfterFunc(limited, func() { s.channel.Close() })
	stop = func() bool {
		ok := watch()
		cancel()
		return ok
	}
	if _, err = io.WriteString(s, in.script.build(body, dir, temp)); err != nil {
		// What the shell said before it closed its input says more.
		if _, e := s.next(in.script.mark); e != nil {
			err = e
		}
		stop()
		s.Close()
		return nil, nil, err
	}
	return s, stop, nil
}

func (in *installer) late(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if lost := in.client.lost(in.node); lost != nil {
		return lost
	}
	return &Error{Node: in.node, Kind: Unreachable, Msg: fmt.Sprintf("the account's shell did not answer in %v", scriptTime),
		Fix: fmt.Sprintf("does `ssh %s true` end? is the home's file server up?", in.node)}
}

// replies reads up to the word that ends a script's answers.
func (in *installer) replies(ctx context.Context, s *stream) ([]reply, error) {
	var list []reply
	for {
		r, err := s.next(in.script.mark)
		if err != nil {
			if e := in.late(ctx); !isLate(e) {
				return nil, e
			}
			return nil, err
		}
		list = append(list, r)
		switch r.word {
		case "run", "arch", "put", "bad", "free", "end", "ready", "helper":
			return list, nil
		}
	}
}

// isLate reports whether late could say no more than that time ran out.
func isLate(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == Unreachable
}

// discard removes a temporary file and returns the room in its directory in
// KiB, -1 when unknown, and why nothing more could be written, if so. It does
// what it can: the node may be gone.
func (in *installer) discard(ctx context.Context, dir, temp string) (free int64, why string) {
	free = -1
	_, replies, _ := in.ask(ctx, discardScript, dir, temp)
	for _, r := range replies {
		switch r.word {
		case "skip":
			why = r.rest
		case "free":
			if n, err := strconv.ParseInt(r.rest, 10, 64); err == nil {
				free = n
			}
		}
	}
	return free, why
}

// size words a number of KiB.
func size(kib int64) string {
	switch {
	case kib < 0:
		return "an unknown size"
	case kib < 1024:
		return fmt.Sprintf("%d KiB", kib)
	}
	return fmt.Sprintf("%.1f MiB", float64(kib)/1024)
}
