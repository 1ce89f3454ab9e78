package pool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// stream is a command on a node: an exec channel.
type stream struct {
	node    string
	client  *client
	channel ssh.Channel
	out     *bufio.Reader
	stderr  tail

	mu     sync.Mutex
	status string // how the command ended, when badly
	exited bool   // an exit status or signal came
	atEOF  bool
	over   bool          // closed on this side
	closed chan struct{} // closed when the peer has said all it will
}

// start runs a command line, which the account's login shell reads.
func (c *client) start(ctx context.Context, node, command string) (*stream, error) {
	return c.session(ctx, node, "exec", command)
}

// session opens a channel and asks for a command ("exec") or a subsystem on it.
func (c *client) session(ctx context.Context, node, request, arg string) (*stream, error) {
	type opened struct {
		ch   ssh.Channel
		reqs <-chan *ssh.Request
		err  error
	}
	// Opening waits for the peer; ctx must be able to end the wait, and all
	// that could be closed is the connection, which others use too.
	got := make(chan opened)
	if !c.spawn(func() {
		ch, reqs, err := c.OpenChannel("session", nil)
		if err == nil {
			ok, e := ch.SendRequest(request, true, ssh.Marshal(struct{ Arg string }{arg}))
			if err = e; err == nil && !ok {
				err = errors.New("refused by the host")
			}
		}
		select {
		case got <- opened{ch, reqs, err}:
		case <-ctx.Done():
			if ch != nil {
				c.spawn(func() { ssh.DiscardRequests(reqs) })
				ch.Close()
			}
		}
	}) {
		return nil, c.lost(node)
	}
	var o opened
	select {
	case o = <-got:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if o.err != nil {
		if o.ch != nil {
			c.spawn(func() { ssh.DiscardRequests(o.reqs) })
			o.ch.Close()
		}
		if lost := c.lost(node); lost != nil {
			return nil, lost
		}
		return nil, &Error{Node: node, Kind: Install, Err: o.err, Msg: fmt.Sprintf("can't open an ssh session for %s %q: %v", request, arg, o.err),
			Fix: "does sshd there allow sessions (MaxSessions, ForceCommand)?"}
	}
	s := &stream{node: node, client: c, channel: o.ch, out: bufio.NewReaderSize(o.ch, 32<<10), closed: make(chan struct{})}
	quiet := make(chan struct{})
	if !c.spawn(func() {
		defer close(quiet)
		io.Copy(&s.stderr, o.ch.Stderr())
	}) {
		close(quiet)
	}
	if !c.spawn(func() {
		defer close(s.closed)
		for r := range o.reqs {
			s.ended(r)
			if r.WantReply {
				r.Reply(false, nil)
			}
		}
		<-quiet
	}) {
		close(s.closed)
	}
	return s, nil
}

// ended notes the command's exit status or signal.
func (s *stream) ended(r *ssh.Request) {
	text := ""
	switch r.Type {
	case "exit-status":
		var m struct{ Status uint32 }
		if ssh.Unmarshal(r.Payload, &m) == nil && m.Status != 0 {
			text = fmt.Sprintf("remote command on %s: exit status %d", s.node, m.Status)
		}
	case "exit-signal":
		var m struct {
			Signal  string
			Core    bool
			Message string
			Lang    string
		}
		if ssh.Unmarshal(r.Payload, &m) == nil {
			text = fmt.Sprintf("remote command on %s: killed by signal %s", s.node, m.Signal)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exited = s.exited || strings.HasPrefix(r.Type, "exit-")
	if text != "" {
		s.status = text
	}
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if err != nil {
		s.atEnd()
	}
	return n, s.explain(err)
}

// atEnd notes that the output has ended, so that an exit status is to come.
func (s *stream) atEnd() {
	s.mu.Lock()
	s.atEOF = true
	s.mu.Unlock()
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.channel.Write(p)
	return n, s.explain(err)
}

// settleTime is how long it may take until it is known why a stream ended.
const settleTime = 200 * time.Millisecond

// explain tells a broken connection from a command that ended: below both are
// io.EOF, and the connection's end is known only a moment after its streams'.
func (s *stream) explain(err error) error {
	if err == nil {
		return nil
	}
	limit := time.After(settleTime)
	select {
	case <-s.closed:
	case <-s.client.ended:
	case <-limit:
	}
	s.mu.Lock()
	known := s.exited || s.over
	s.mu.Unlock()
	if !known {
		select {
		case <-s.client.ended:
		case <-limit:
		}
	}
	if lost := s.client.lost(s.node); lost != nil {
		return lost
	}
	return err
}

// statusTime is how long an exit status may come after the end of the output.
const statusTime = time.Second

func (s *stream) Stderr() string {
	s.mu.Lock()
	wait := s.atEOF
	s.mu.Unlock()
	if wait {
		select {
		case <-s.closed:
		case <-time.After(statusTime):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return join(s.stderr.String(), s.status)
}

// Close ends the stream; the command sees the end of its input.
func (s *stream) Close() error {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if err := s.channel.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// bannerLimit is how much a login shell may print before the script's first
// word, in bytes.
const bannerLimit = 64 << 10

// reply is one line that a script said: a word and the rest.
type reply struct{ word, rest string }

// next reads the script's next line, passing over what else is printed: login
// shells greet even where nobody reads it.
func (s *stream) next(mark string) (reply, error) {
	var junk strings.Builder
	for junk.Len() < bannerLimit {
		line, err := s.out.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			junk.Write(line)
			continue
		}
		if err != nil {
			junk.Write(line)
			s.atEnd()
			return reply{}, s.silent(err, junk.String())
		}
		rest, ok := strings.CutPrefix(strings.TrimRight(string(line), "\r\n"), mark+" ")
		if !ok {
			junk.Write(line)
			continue
		}
		word, rest, _ := strings.Cut(rest, " ")
		return reply{word, rest}, nil
	}
	return reply{}, &Error{Node: s.node, Kind: Install, Msg: "the login shell prints without end", Fix: "make its start-up files quiet for shells that are not interactive"}
}

// silent is the error for a script that ended without a word.
func (s *stream) silent(err error, junk string) error {
	if lost := s.client.lost(s.node); lost != nil {
		return lost
	}
	said := strings.TrimSpace(junk + "\n" + s.Stderr())
	if len(said) > 400 {
		said = said[len(said)-400:]
	}
	if said == "" {
		said = "nothing was printed"
	}
	return &Error{Node: s.node, Kind: Install, Err: err,
		Msg: fmt.Sprintf("the account's shell does not run commands (%s)", said),
		Fix: fmt.Sprintf("check that `ssh %s true` works", s.node)}
}
