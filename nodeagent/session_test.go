package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// answers lets the agent handle what the launcher wants, and returns what it
// has to say to it.
func answers(a *agent, s *session, as *wire.Assignment) []*wire.AgentMessage {
	s.out = link.NewQueue[*wire.AgentMessage]()
	a.desired(s, &wire.Desired{Set: []*wire.Assignment{as}})
	s.out.Finish()
	var out []*wire.AgentMessage
	for m, ok := s.out.Take(); ok; m, ok = s.out.Take() {
		out = append(out, m)
	}
	return out
}

// TestEpochOfAnOrder: what decides is the epoch of who gives the order, not of
// who placed the attempt.
func TestEpochOfAnOrder(t *testing.T) {
	for _, c := range []struct {
		what                     string
		attempt, launcher, known uint64
		stale                    bool
	}{
		{"of this launcher", 3, 3, 3, false},
		{"placed by the launcher before", 2, 3, 3, false},
		{"from a launcher that was replaced", 2, 2, 3, true},
		{"of a launcher to come", 4, 3, 3, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := &agent{shims: map[string]*shim{}, epochs: map[string]uint64{"c": c.known}}
			s := &session{cluster: "c", epoch: c.launcher, shown: map[string]bool{}}
			// The cores are nonsense, so that nothing is started in any case.
			got := answers(a, s, &wire.Assignment{Id: "t-0-1", NodeDir: "/tmp/gangway-t-0-1", Cpus: "x", NodeCount: 1,
				Name: &wire.AttemptName{Cluster: "c", TaskUid: "t", Range: &wire.Range{Hi: 1}, Attempt: 1, Epoch: c.attempt}})
			if len(got) != 1 {
				t.Fatalf("%d answers, want a refusal: %v", len(got), got)
			}
			e := got[0].GetError()
			if stale := e.GetCode() == wire.ErrorCode_ERROR_STALE_EPOCH; stale != c.stale {
				t.Errorf("refused by %v %q, stale should be %v", e.GetCode(), e.GetMessage(), c.stale)
			}
			if !c.stale && strings.Contains(e.GetMessage(), "epoch") {
				t.Errorf("refused for its epoch: %s", e.GetMessage())
			}
		})
	}
}

// TestNothingBeginsTwice: the launcher was shown a shim that has ended since,
// and wants it as if it were there.
func TestNothingBeginsTwice(t *testing.T) {
	a := &agent{shims: map[string]*shim{}, epochs: map[string]uint64{}}
	s := &session{cluster: "c", epoch: 1, shown: map[string]bool{"t-0-1": true}}
	if got := answers(a, s, &wire.Assignment{Id: "t-0-1", Name: &wire.AttemptName{Cluster: "c"}}); len(got) > 0 {
		t.Errorf("it was tried again: %v", got)
	}
}

// TestAdoptedShim: how far a shim of an earlier agent is, is not known before it
// says so; that it runs must not be claimed.
func TestAdoptedShim(t *testing.T) {
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.save(entry{ID: "t-0-1", Cluster: "c", NodeDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody looks after it
	a := &agent{dir: dir, ctx: ctx, events: make(chan event), done: make(chan struct{}), shims: map[string]*shim{}, epochs: map[string]uint64{},
		cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	close(a.done)
	a.adopt(ctx)
	a.wg.Wait()
	inv := a.inventory(&session{cluster: "c", shown: map[string]bool{}})
	if len(inv.GetShims()) != 1 || inv.GetShims()[0].GetPhase() != wire.Phase_PHASE_UNSPECIFIED {
		t.Errorf("inventory %v: want one shim in an unknown phase", inv.GetShims())
	}
}

// TestOrdersWaitForTheShim: what a shim is told while it does not answer reaches
// it later, but for leases, which count from when they come.
func TestOrdersWaitForTheShim(t *testing.T) {
	a := &agent{shims: map[string]*shim{}, events: make(chan event), done: make(chan struct{}), cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	sh := &shim{e: entry{ID: "t-0-1"}, dialing: true}
	sh.send(&wire.ToShim{Id: "t-0-1", M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
	sh.lease(time.Minute)
	sh.dialled(a, nil, errors.New("it does not answer"))
	sh.send(&wire.ToShim{Id: "t-0-1", M: &wire.ToShim_End{End: &wire.End{}}})
	ours, theirs := net.Pipe()
	sh.dialled(a, ours, nil)
	for _, want := range []string{"launch", "end"} {
		f, err := link.ReadFrame(theirs)
		if err != nil {
			t.Fatal(err)
		}
		got := "another"
		switch {
		case f.GetTo().GetLaunch() != nil:
			got = "launch"
		case f.GetTo().GetEnd() != nil:
			got = "end"
		}
		if got != want {
			t.Errorf("the shim is told %s: %v, want %s", got, f, want)
		}
	}
	close(a.done)
	sh.disconnect()
	a.wg.Wait()
}

// TestOrdersOutliveTheConnection: what was written to a connection that broke is
// said again on the next.
func TestOrdersOutliveTheConnection(t *testing.T) {
	a := &agent{shims: map[string]*shim{}, events: make(chan event), done: make(chan struct{}), cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	sh := &shim{e: entry{ID: "t-0-1"}}
	dead, _ := net.Pipe()
	sh.attach(a, dead)
	_ = dead.Close()
	sh.send(&wire.ToShim{Id: "t-0-1", M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
	sh.send(&wire.ToShim{Id: "t-0-1", M: &wire.ToShim_End{End: &wire.End{Now: true}}})
	sh.lease(time.Minute)
	ours, theirs := net.Pipe()
	sh.dialled(a, ours, nil)
	for _, order := range []func(*wire.ToShim) bool{
		func(m *wire.ToShim) bool { return m.GetEnd() != nil }, func(m *wire.ToShim) bool { return m.GetForget() != nil },
	} {
		_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
		f, err := link.ReadFrame(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if !order(f.GetTo()) {
			t.Errorf("the shim is told %v, want the end and then to forget", f)
		}
	}
	close(a.done)
	sh.disconnect()
	a.wg.Wait()
}
