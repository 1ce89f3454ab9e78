package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"syscall"

	"gangway/launcher"
	"gangway/launcher/agents"
	"gangway/launcher/job"
)

// sink prints a run: ranks' output as it is or labelled, or JSON lines.
type sink struct {
	app     *app
	label   bool
	verbose bool
	plan    bool // only the plan is printed
	mu      sync.Mutex
	tails   map[tailKey][]byte // unfinished lines, when labelling
	broken  bool               // stdout's reader went away
}

type tailKey struct {
	rank   int
	stderr bool
}

func newSink(a *app, f *runFlags, planOnly bool) *sink {
	return &sink{app: a, label: f.label, verbose: f.verbose, plan: planOnly, tails: map[tailKey][]byte{}}
}

func (s *sink) Output(node string, rank int, stderr bool, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.app.stdout
	if stderr {
		w = s.app.stderr
	}
	if s.app.json {
		name := "stdout"
		if stderr {
			name = "stderr"
		}
		return s.event(map[string]any{"type": "output", "node": node, "rank": rank, "stream": name, "data": string(data)})
	}
	if s.broken && !stderr {
		return nil
	}
	var err error
	if s.label && rank >= 0 {
		err = s.labelled(w, tailKey{rank, stderr}, data)
	} else {
		_, err = w.Write(data)
	}
	if err != nil && !stderr {
		s.broken = true
	}
	return err
}

// maxLine bounds an unfinished line that waits for its end.
const maxLine = 64 << 10

func (s *sink) labelled(w io.Writer, k tailKey, data []byte) error {
	prefix := fmt.Sprintf("[%d] ", k.rank)
	buf := append(s.tails[k], data...)
	var out bytes.Buffer
	for {
		i := bytes.IndexByte(buf, '\n')
		if i < 0 && len(buf) <= maxLine {
			break
		}
		if i < 0 {
			i = len(buf) - 1
		}
		out.WriteString(prefix)
		out.Write(bytes.TrimSuffix(buf[:i+1], []byte("\n")))
		out.WriteByte('\n')
		buf = buf[i+1:]
	}
	s.tails[k] = append([]byte(nil), buf...)
	if out.Len() == 0 {
		return nil
	}
	_, err := w.Write(out.Bytes())
	return err
}

// flush writes lines that never got their end.
func (s *sink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]tailKey, 0, len(s.tails))
	for k, t := range s.tails {
		if len(t) > 0 {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].rank < keys[j].rank })
	for _, k := range keys {
		w := s.app.stdout
		if k.stderr {
			w = s.app.stderr
		}
		fmt.Fprintf(w, "[%d] %s\n", k.rank, s.tails[k])
		delete(s.tails, k)
	}
}

// event prints one JSON line.
func (s *sink) event(v any) error { return json.NewEncoder(s.app.stdout).Encode(v) }

// say prints a line of gangway's own; the application's stdout stays clean.
func (s *sink) say(format string, args ...any) {
	fmt.Fprintf(s.app.stderr, "gangway: "+format+"\n", args...)
}

func (s *sink) Notice(node, text string, warning bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan && s.app.json {
		return
	}
	if s.app.json {
		_ = s.event(map[string]any{"type": "notice", "node": node, "text": text, "warning": warning})
		return
	}
	if !warning && !s.verbose {
		return
	}
	if node != "" {
		text = node + ": " + text
	}
	s.say("%s", text)
}

func (s *sink) Waiting(r job.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.app.json {
		_ = s.event(map[string]any{"type": "waiting", "reason": r})
		return
	}
	s.say("waiting: %s", r)
}

func (s *sink) Placed(rec job.AttemptRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan {
		return
	}
	if s.app.json {
		_ = s.event(map[string]any{"type": "placed", "attempt": rec.ID, "parts": rec.Parts})
		return
	}
	if s.verbose {
		for _, p := range rec.Parts {
			s.say("%s: ranks %d-%d on cpus %s", p.Node, p.FirstRank, p.FirstRank+p.Ranks-1, p.CPUs)
		}
	}
}

func (s *sink) Planned(node string, p agents.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan || s.app.json || !s.verbose {
		return
	}
	s.say("%s: %s", node, planLine(p))
}

func planLine(p agents.Plan) string {
	switch p.Via {
	case "direct":
		return "gangway starts the ranks itself"
	case "primary":
		return "the command runs once, on the first node"
	}
	return fmt.Sprintf("%s %s, started by %s", p.MPI, p.MPIVersion, p.MPILauncher)
}

// finish prints the end and returns the exit status as an error.
func (a *app) finish(f *runFlags, s *sink, res launcher.RunResult, planOnly bool) error {
	if res.Broken != nil {
		if errors.Is(res.Broken, syscall.EPIPE) {
			return &statusError{code: exitSignal + int(syscall.SIGPIPE)} // as any writer to a closed pipe
		}
		return fmt.Errorf("the output can't be written, so the job was ended: %w", res.Broken)
	}
	s.flush()
	out := res.Outcome
	if planOnly && out.Success {
		return a.printPlan(res)
	}
	code := exitStatus(out)
	if a.json {
		if err := s.event(map[string]any{"type": "result", "status": code, "outcome": out, "plan": res.Plan, "ranks": places(res)}); err != nil {
			return err
		}
	} else if out.Reason != nil {
		s.say("%s", withNode(*out.Reason))
		if out.Reason.Hint != "" {
			fmt.Fprintf(a.stderr, "  %s\n", out.Reason.Hint)
		}
	}
	if code == exitOK {
		return nil
	}
	return &statusError{code: code}
}

// withNode is a reason's sentence, with its node in front unless it is named.
func withNode(r job.Reason) string {
	if len(r.Nodes) == 1 && !strings.Contains(r.Detail, r.Nodes[0].Node) {
		return r.Nodes[0].Node + ": " + r.Detail
	}
	return r.Detail
}

// exitTimeLimit is what timeout(1) exits with.
const exitTimeLimit = 124

func exitStatus(o job.Outcome) int {
	if o.Success {
		return exitOK
	}
	if r := o.Reason; r != nil {
		switch r.Code {
		case job.FailNotFound:
			return exitNotFound
		case job.FailNotExecutable:
			return exitNotExecutable
		case job.FailTimeLimit:
			return exitTimeLimit
		case job.FailCancelled:
			switch {
			case strings.Contains(r.Detail, "SIGINT"):
				return exitSignal + 2
			case strings.Contains(r.Detail, "SIGTERM"):
				return exitSignal + 15
			case strings.Contains(r.Detail, "SIGHUP"):
				return exitSignal + 1
			case strings.Contains(r.Detail, "SIGQUIT"):
				return exitSignal + 3
			}
			return exitFailed
		case job.FailRank, job.FailMemory, job.FailMPIRun:
		default:
			return exitFailed
		}
	}
	switch {
	case o.Signal > 0:
		return exitSignal + o.Signal
	case o.ExitCode != 0:
		return o.ExitCode
	}
	return exitFailed
}

func places(res launcher.RunResult) []launcher.Place {
	out := make([]launcher.Place, 0, len(res.Ranks))
	for _, p := range res.Ranks {
		if p.GPUs == nil {
			p.GPUs = []string{}
		}
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Rank < out[j].Rank })
	return out
}
