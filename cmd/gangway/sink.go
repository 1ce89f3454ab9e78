package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"syscall"

	"gangway/launcher"
	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// sink prints a run: ranks' output as it is or labelled, or JSON lines.
type sink struct {
	fabric   *sched.Fabric // nil: not known
	app      *app
	verbose  bool
	bindings bool   // where ranks are bound is printed
	plan     bool   // only the plan is printed
	checks   string // --preflight
	notes    bool   // also notices that warn of nothing
	labels   bool
	out      outputStream
	err      outputStream
}

func newSink(a *app, f *runFlags, planOnly bool) *sink {
	return &sink{app: a, labels: f.label, verbose: f.verbose, bindings: f.reportBindings, plan: planOnly, notes: f.preflight == "full", checks: f.preflight,
		out: outputStream{w: a.stdout}, err: outputStream{w: a.stderr}}
}

func (s *sink) Output(node string, rank int, stderr bool, data []byte) error {
	to, name := &s.out, "stdout"
	if stderr {
		to, name = &s.err, "stderr"
	}
	if s.app.json {
		return s.event(map[string]any{"type": "output", "node": node, "rank": rank, "stream": name, "data": string(data)})
	}
	if s.labels && rank >= 0 {
		return to.labelled(rank, data)
	}
	return to.plain(data)
}

// event prints one JSON line.
func (s *sink) event(v any) error { return s.out.plain(eventLine(v)) }

// eventLine is v as a line of JSON. What is printed are maps of strings,
// numbers and rows, which can't fail.
func eventLine(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		b = fmt.Appendf(nil, `{"type":"error","error":%q}`, err.Error())
	}
	return append(b, '\n')
}

// say prints a line of gangway's own; the application's stdout stays clean.
func (s *sink) say(format string, args ...any) {
	// Where it can't be written there is nobody to tell.
	_ = s.err.plain(fmt.Appendf(nil, "gangway: "+format+"\n", args...))
}

func (s *sink) Notice(node, text string, warning bool) {
	if s.plan && s.app.json {
		return
	}
	if s.app.json {
		_ = s.event(map[string]any{"type": "notice", "node": node, "text": text, "warning": warning})
		return
	}
	if !warning && !s.verbose && !s.notes {
		return
	}
	if node != "" {
		text = node + ": " + text
	}
	s.say("%s", text)
}

func (s *sink) Waiting(r job.Reason) {
	if s.app.json {
		_ = s.event(map[string]any{"type": "waiting", "reason": r})
		return
	}
	s.say("waiting: %s", r)
}

func (s *sink) Placed(rec job.AttemptRow) {
	if s.plan {
		return
	}
	if s.app.json {
		_ = s.event(map[string]any{"type": "placed", "attempt": rec.ID, "parts": rec.Parts})
		return
	}
	if s.verbose {
		for _, p := range rec.Parts {
			s.say("%s: %s on cpus %s", p.Node, p.RankText(), p.CPUs)
		}
	}
}

func (s *sink) Planned(node string, p agents.Plan, ranks []launcher.Place) {
	if s.plan {
		return
	}
	if s.verbose && !s.app.json {
		s.say("%s: %s", node, planLine(p))
	}
	switch {
	case !s.bindings:
	case s.app.json:
		_ = s.event(map[string]any{"type": "bindings", "ranks": ranks})
	case p.Via == "primary":
		s.say("the command places its ranks itself")
	default:
		for _, r := range ranks {
			s.say("%s", r)
		}
	}
}

func planLine(p agents.Plan) string {
	switch p.Via {
	case "pmi":
		return strings.TrimSpace(fmt.Sprintf("%s %s", p.MPI, p.MPIVersion)) + ", its ranks started without an mpirun"
	case "direct":
		return "gangway starts the ranks itself"
	case "primary":
		return "the command runs once, on the first node"
	}
	return fmt.Sprintf("%s %s, started by %s", p.MPI, p.MPIVersion, p.MPILauncher)
}

// finish prints the end and returns the exit status as an error.
func (a *app) finish(f *runFlags, s *sink, res launcher.RunResult, planOnly bool) error {
	// Standard error may still be read, whatever became of the output.
	_ = s.out.last(nil)
	_ = s.err.last(nil)
	if res.Broken != nil {
		if errors.Is(res.Broken, syscall.EPIPE) {
			return &statusError{code: exitSignal + int(syscall.SIGPIPE)} // as any writer to a closed pipe
		}
		return fmt.Errorf("the output can't be written, so the job was ended: %w", res.Broken)
	}
	out := res.Outcome
	if planOnly && out.Success {
		return a.printPlan(res, s.fabric, s.checks)
	}
	code := exitStatus(out)
	if a.json {
		if err := s.out.last(eventLine(map[string]any{"type": "result", "status": code, "outcome": out, "plan": res.Plan, "ranks": places(res)})); err != nil {
			return err
		}
	} else if out.Reason != nil {
		text := fmt.Appendf(nil, "gangway: %s\n", withNode(*out.Reason))
		if out.Reason.Hint != "" {
			text = fmt.Appendf(text, "  %s\n", out.Reason.Hint)
		}
		_ = s.err.last(text)
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
			if r.Signal > 0 {
				return exitSignal + r.Signal
			}
			return exitFailed
		case job.FailRank, job.FailMemory, job.FailMPIRun, job.FailInput:
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
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Rank < out[j].Rank })
	return out
}
