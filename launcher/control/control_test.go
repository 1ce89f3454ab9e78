package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	grace = 5 * time.Second
	lease = 10 * time.Second
)

// recorder is store, fleet and listener in one: what it is told is in order.
type recorder struct {
	mu    sync.Mutex
	began time.Time
	log   []string
	err   error // of the commits
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf("%v ", time.Since(r.began))+fmt.Sprintf(format, args...))
}

// take returns what was said since the last call, without the times when they
// are not asked for.
func (r *recorder) take(times bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.log
	r.log = nil
	for i := range out {
		if !times {
			_, out[i], _ = strings.Cut(out[i], " ")
		}
	}
	return out
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *recorder) Commit(rows []job.Row) error {
	attempts := 0
	for _, row := range rows {
		if row.Table == job.TableAttempt && row.Value != nil {
			attempts++
		}
	}
	r.add("commit %d attempts", attempts)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *recorder) Want(node string, parts []state.Part) { r.add("want %s %d", node, len(parts)) }

func (r *recorder) notice(n state.Notice) {
	if n.Kind == state.AttemptState && n.Record != nil {
		r.add("attempt %s", n.Record.State)
	}
}

type rig struct {
	*recorder
	ctl *Control
	end chan error
}

func start(t *testing.T) *rig {
	r := &recorder{began: time.Now()}
	g := &rig{recorder: r, end: make(chan error, 1)}
	g.ctl = New(Config{Cluster: state.New("test", 1), Store: r, Fleet: r, Log: slog.New(slog.DiscardHandler),
		Notice: r.notice, NodeGrace: grace, Lease: lease})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { g.end <- g.ctl.Run(ctx) }()
	t.Cleanup(func() { cancel(); synctest.Wait() })
	return g
}

func (g *rig) do(t *testing.T, what state.What) {
	t.Helper()
	if err := g.ctl.Do(t.Context(), what); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (g *rig) node(t *testing.T, name string) {
	t.Helper()
	n := topology.Node{Hostname: name}
	total := uint64(1 << 30)
	n.Memory.Total = &total
	n.Cores = []topology.Core{{PUs: topology.NewCPUSet(0)}}
	n.Online, n.Allowed = topology.NewCPUSet(0), topology.NewCPUSet(0)
	g.do(t, state.NodeAdded{Node: name})
	g.do(t, state.NodeUp{Node: name, Agent: "a", Boot: "b", Topology: n})
	g.do(t, state.Inventory{Node: name})
}

func (g *rig) submit(t *testing.T, uid string) {
	t.Helper()
	g.do(t, submitted(uid))
}

func submitted(uid string) state.JobSubmitted {
	return state.JobSubmitted{UID: uid, Spec: job.Spec{ID: uid, Session: true, Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}}}}}
}

func TestCommitThenTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.node(t, "n1")
		if log := g.take(false); !slices.Contains(log, "want n1 0") {
			t.Errorf("a new session is told that there is nothing: %q", log)
		}
		g.submit(t, "abcd")
		got := g.take(false)
		want := []string{"commit 0 attempts", "commit 1 attempts", "attempt placed", "want n1 1"}
		if !slices.Equal(got, want) {
			t.Errorf("said %q, want %q", got, want)
		}
	})
}

func TestRefusedEventHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		if err := g.ctl.Do(t.Context(), state.JobSubmitted{UID: "abcd"}); err == nil {
			t.Error("a job without tasks was taken")
		}
		g.ctl.Post(state.JobSubmitted{UID: "abcd"}) // logged
		g.node(t, "n1")                             // and the applier goes on
		if err := g.ctl.Do(t.Context(), state.NodeRemoved{Node: "n1"}); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedCommitIsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.node(t, "n1")
		g.take(false)
		full := errors.New("no space left")
		g.fail(full)
		if err := g.ctl.Do(t.Context(), submitted("abcd")); !errors.Is(err, full) {
			t.Errorf("answered %v, want the store's error", err)
		}
		if err := <-g.end; !errors.Is(err, full) || !strings.Contains(err.Error(), "nothing was acknowledged") {
			t.Errorf("Run returned %v", err)
		}
		if log := g.take(false); !slices.Equal(log, []string{"commit 0 attempts"}) {
			t.Errorf("effects after the failed commit: %q", log)
		}
		if err := g.ctl.Do(t.Context(), submitted("efgh")); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
		g.ctl.Post(submitted("ijkl")) // returns
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.node(t, "n1")
		g.submit(t, "abcd")
		g.node(t, "n2")
		g.began = time.Now()
		g.do(t, state.NodeDown{Node: "n1", Why: "test"})
		time.Sleep(grace - time.Second)
		synctest.Wait()
		g.take(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if log := g.take(false); len(log) == 0 {
			t.Error("a node out of reach for the grace was not given up")
		}
		time.Sleep(lease + lease/2)
		synctest.Wait()
		var again string
		for _, l := range g.take(true) {
			if strings.HasSuffix(l, " want n2 1") {
				again = l
			}
		}
		at, err := time.ParseDuration(strings.Fields(again + " ?")[0])
		if err != nil || at < lease+lease/2 || at > lease+lease/2+time.Second {
			t.Errorf("placed anew at %q, want it when the lease and its margin (%v) have lapsed", again, lease+lease/2)
		}
	})
}

// TestLongerLeaseOfTheLastLauncher: a node that is silent since an earlier launcher
// holds work for as long as that one has let it.
func TestLongerLeaseOfTheLastLauncher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{began: time.Now()}
		cluster := state.New("test", 1)
		total := uint64(1 << 30)
		one := topology.NewCPUSet(0)
		topo := topology.Node{Memory: topology.Memory{Total: &total}, Cores: []topology.Core{{PUs: one}}, Online: one, Allowed: one}
		c := New(Config{Cluster: cluster, Store: r, Fleet: r, Log: slog.New(slog.DiscardHandler), Notice: r.notice, NodeGrace: grace, Lease: 10 * lease})
		rd := &round{touched: map[string]bool{}}
		for _, what := range []state.What{state.NodeAdded{Node: "n1"}, state.NodeUp{Node: "n1", Lease: 10 * lease, Topology: topo},
			state.Inventory{Node: "n1"}, submitted("abcd")} {
			if err := c.apply(what, rd); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.plan(rd); err != nil {
			t.Fatal(err)
		}
		g := &rig{recorder: r, end: make(chan error, 1), ctl: New(Config{Cluster: cluster, Store: r, Fleet: r,
			Log: slog.New(slog.DiscardHandler), Notice: r.notice, NodeGrace: grace, Lease: lease})}
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		go func() { g.end <- g.ctl.Run(ctx) }()
		live := func() (n int) {
			if err := g.ctl.Read(ctx, func(c *state.Cluster) { n = len(c.Nodes()[0].Attempts) }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		g.do(t, state.Restarted{Epoch: 2})
		time.Sleep(15*lease - time.Second)
		if live() != 1 {
			t.Error("what the earlier launcher's lease still covers was given up")
		}
		time.Sleep(2 * time.Second)
		if live() != 0 {
			t.Error("after its lease it was not given up")
		}
	})
}

func TestReturnInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.node(t, "n1")
		g.do(t, state.NodeDown{Node: "n1", Why: "test"})
		time.Sleep(grace - time.Second)
		g.do(t, state.NodeUp{Node: "n1", Agent: "a", Boot: "b"})
		g.take(false)
		time.Sleep(3 * lease)
		synctest.Wait()
		if log := g.take(false); len(log) > 0 {
			t.Errorf("a node that came back in time: %q", log)
		}
	})
}

func TestPlanUntilNothingChanges(t *testing.T) {
	r := &recorder{}
	c := New(Config{Cluster: state.New("test", 1), Store: r, Fleet: r, Log: slog.New(slog.DiscardHandler), Notice: r.notice})
	rd := &round{touched: map[string]bool{}}
	total := uint64(1 << 30)
	one := topology.NewCPUSet(0)
	for _, what := range []state.What{
		state.NodeAdded{Node: "n1"},
		state.NodeUp{Node: "n1", Topology: topology.Node{Memory: topology.Memory{Total: &total}, Cores: []topology.Core{{PUs: one}}, Online: one, Allowed: one}},
		state.Inventory{Node: "n1"}, submitted("abcd"), submitted("efgh"),
	} {
		if err := c.apply(what, rd); err != nil {
			t.Fatal(err)
		}
	}
	at, err := c.plan(rd)
	if err != nil || !at.IsZero() {
		t.Fatalf("plan: %v, %v; want to be woken by events alone", at, err)
	}
	if rd.replan {
		t.Error("the placement asked for another plan and got none")
	}
	if w := c.Waiting(); len(w) != 1 {
		t.Errorf("waiting: %v, want the second job", w)
	}
}
