package state

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/topology"
)

func gang(nodes, ppn int) job.TaskSpec {
	return job.TaskSpec{Kind: job.Gang, Nodes: nodes, RanksPerNode: ppn, OnNodeLoss: job.NodeLossFail}
}

// kinds returns the kinds of the notices since the last call, with the state of
// attempts.
func (w *world) kinds() []string {
	var out []string
	for _, n := range w.log {
		k := string(n.Kind)
		if n.Kind == AttemptState {
			k = string(n.Record.State)
		}
		out = append(out, k)
	}
	w.log = nil
	return out
}

func wantEqual(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func (w *world) wantPhases(id string, want ...Phase) {
	w.t.Helper()
	var got []Phase
	for i := range want {
		got = append(got, w.phase(nodeName(i), id))
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Fatalf("phases of %s (-want +got):\n%s", id, d)
	}
}

func (w *world) free(node int) int {
	n := w.c.order[node].view
	taken := topology.CPUSet{}
	for _, h := range n.Holds {
		taken = taken.Union(h.CPUs)
	}
	free := 0
	for _, c := range n.Cores {
		if !c.Overlaps(taken) {
			free++
		}
	}
	return free
}

func TestGangLife(t *testing.T) {
	w := newWorld(t)
	w.fleet(4, 4)
	w.kinds()
	_, task := w.submit("abcd", gang(2, 2))
	w.plan()
	a := w.only(task)
	wantEqual(t, "id", "abcd-0-0-1", a.ID)
	w.wantPhases(a.ID, PhasePrepare, PhasePrepare)
	parts := slices.Concat(w.c.Desired("n1"), w.c.Desired("n2"))
	for i, p := range parts {
		if p.NodeIndex != i || p.NodeCount != 2 || p.FirstRank != 2*i || p.Ranks != 2 || p.Total != 4 || len(p.MeshKey) != 32 ||
			p.CPUs.String() != "0-1,4-5" || p.Interface != "eth0" || p.Epoch != 1 || p.Attempt != 1 || !p.Session {
			t.Errorf("part %d: %+v", i, p)
		}
	}
	w.apply(ShimReady{ID: a.ID, Node: "n2", MeshPort: 22})
	w.wantPhases(a.ID, PhasePrepare, PhasePrepare)
	ch := w.apply(ShimReady{ID: a.ID, Node: "n1", MeshPort: 11})
	wantEqual(t, "touched", []string{"n1", "n2"}, ch.Touched)
	w.wantPhases(a.ID, PhaseLaunch, PhaseLaunch)
	peers := w.c.Desired("n2")[0].Peers
	if len(peers) != 2 || peers[0].Port != 11 || peers[1].Port != 22 || peers[1].Address.String() != "10.0.0.2" ||
		peers[1].Hostname != "host-10.0.0.2" || peers[1].FirstRank != 2 || peers[0].Node != "n1" {
		t.Errorf("peers %+v", peers)
	}
	w.apply(LaunchPlanned{ID: a.ID, Node: "n1", Plan: []byte(`{"argv":["mpirun"]}`)})
	w.apply(ShimStarted{ID: a.ID, Node: "n1"})
	wantEqual(t, "state", job.TaskRunning, w.status(task).State)
	w.apply(AttemptResult{ID: a.ID, Node: "n2"})
	w.wantPhases(a.ID, PhaseLaunch, PhaseForget)
	w.apply(ShimGone{ID: a.ID, Node: "n2"})
	wantEqual(t, "free on n2", 4, w.free(1))
	wantEqual(t, "free on n1", 2, w.free(0))
	wantEqual(t, "state", job.TaskRunning, w.status(task).State)
	w.apply(AttemptResult{ID: a.ID, Node: "n1"})
	wantEqual(t, "state", job.TaskCompleted, w.status(task).State)
	wantEqual(t, "free on n1, before its shim has gone", 2, w.free(0))
	w.wantPhases(a.ID, PhaseForget)
	w.apply(ShimGone{ID: a.ID, Node: "n1"})
	wantEqual(t, "notices", []string{"placed", "preparing", "ready", "launching", "planned", "running", "task-done", "job-done",
		"ending", "ended", "job-ended"}, w.kinds())
	if s := w.status(task); !s.Last.Success || s.Succeeded != 1 {
		t.Errorf("status %+v", s)
	}
	if _, ok := w.rows["autopsy/"+a.ID]; !ok {
		t.Error("the ended attempt's record is not kept")
	}
	for _, late := range []What{ShimReady{ID: a.ID, Node: "n1"}, ShimStarted{ID: a.ID, Node: "n1"}, ShimGone{ID: a.ID, Node: "n1"},
		AttemptResult{ID: a.ID, Node: "n1"}, AttemptRefused{ID: a.ID, Node: "n1"}, LaunchPlanned{ID: a.ID, Node: "n1"}} {
		if ch := w.apply(late); len(ch.Rows)+len(ch.Notices)+len(ch.Touched) > 0 {
			t.Errorf("late %T did something: %+v", late, ch)
		}
	}
}

// TestEnds runs a gang of two nodes into each way of ending and looks at the
// outcome, at what the other part is told, and at when slots are free.
func TestEnds(t *testing.T) {
	fail := func(c job.Code) *job.Reason { return &job.Reason{Code: c, Detail: "detail"} }
	result := func(node string, r job.Result) func(id string) What {
		return func(id string) What { return AttemptResult{ID: id, Node: node, Result: r} }
	}
	cases := []struct {
		name    string
		spec    func(*job.TaskSpec)
		running bool
		events  []func(id string) What
		exit    int
		signal  int
		code    job.Code
		node    string  // named by the reason
		phases  []Phase // of both nodes, after the events
		again   bool    // pending at once
		decided bool
	}{
		{name: "not ready", events: []func(string) What{func(id string) What {
			return ShimReady{ID: id, Node: "n2", Failure: fail(job.FailNotFound)}
		}}, exit: 127, code: job.FailNotFound, node: "n2", phases: []Phase{PhaseEnd, PhaseEnd}, decided: true},
		{name: "not executable", events: []func(string) What{func(id string) What {
			return ShimReady{ID: id, Node: "n1", Failure: fail(job.FailNotExecutable)}
		}}, exit: 126, code: job.FailNotExecutable, node: "n1", phases: []Phase{PhaseEnd, PhaseEnd}, decided: true},
		{name: "agent could not", events: []func(string) What{func(id string) What {
			return AttemptRefused{ID: id, Node: "n2", Failure: *fail(job.FailDisk)}
		}}, exit: 125, code: job.FailDisk, node: "n2", phases: []Phase{PhaseEnd, 0}, decided: true},
		{name: "rank on primary", running: true, events: []func(string) What{
			result("n1", job.Result{ExitCode: 3, Failure: fail(job.FailRank)}),
		}, exit: 3, code: job.FailRank, node: "n1", phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
		{name: "rank elsewhere, primary has the verdict", running: true, events: []func(string) What{
			result("n2", job.Result{ExitCode: 9, Failure: fail(job.FailRank)}),
			result("n1", job.Result{ExitCode: 3, Failure: fail(job.FailRank)}),
		}, exit: 3, code: job.FailRank, phases: []Phase{PhaseForget, PhaseForget}, decided: true},
		{name: "rank elsewhere, primary still ends", running: true, events: []func(string) What{
			result("n2", job.Result{Signal: 11}),
		}, phases: []Phase{PhaseEnd, PhaseForget}},
		{name: "rank elsewhere, primary only an echo", running: true, events: []func(string) What{
			result("n2", job.Result{Signal: 11, Failure: fail(job.FailRank)}),
			result("n1", job.Result{ExitCode: 143, Failure: fail(job.FailCancelled)}),
		}, signal: 11, code: job.FailRank, node: "n2", phases: []Phase{PhaseForget, PhaseForget}, decided: true},
		{name: "rank elsewhere, primary lost", running: true, events: []func(string) What{
			result("n2", job.Result{ExitCode: 7}),
			func(id string) What { return ShimGone{ID: id, Node: "n1"} },
		}, exit: 7, code: job.FailRank, node: "n2", phases: []Phase{0, PhaseForget}, decided: true},
		{name: "shim killed", running: true, events: []func(string) What{
			func(id string) What { return ShimGone{ID: id, Node: "n2", Why: "killed"} },
		}, phases: []Phase{PhaseEnd, 0}},
		{name: "shim killed, mesh noticed", running: true, events: []func(string) What{
			result("n1", job.Result{ExitCode: 125, Failure: fail(job.FailPeerLost)}),
			func(id string) What { return ShimGone{ID: id, Node: "n2", Why: "killed"} },
		}, exit: 125, code: job.FailPeerLost, phases: []Phase{PhaseForget, 0}, decided: true},
		{name: "primary's shim killed", running: true, events: []func(string) What{
			func(id string) What { return ShimGone{ID: id, Node: "n1", Why: "killed"} },
		}, exit: 125, code: job.FailShimLost, node: "n1", phases: []Phase{0, PhaseEnd}, decided: true},
		{name: "checks fail for a primary that is gone", running: true, spec: func(s *job.TaskSpec) { s.OnNodeLoss = job.NodeLossRequeue }, events: []func(string) What{
			result("n2", job.Result{ExitCode: 125, Failure: fail(job.FailPreflight)}),
			func(id string) What { return ShimGone{ID: id, Node: "n1", Why: "killed"} },
		}, phases: []Phase{0, PhaseForget}},
		{name: "node lost", running: true, events: []func(string) What{
			func(string) What { return NodeDown{Node: "n2", Why: "timeout"} },
			func(string) What { return NodeLost{Node: "n2", Why: "timeout"} },
			result("n1", job.Result{ExitCode: 125, Failure: fail(job.FailPeerLost)}),
		}, exit: 125, code: job.FailNodeLost, node: "n2", phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
		{name: "primary's node lost", running: true, events: []func(string) What{
			func(string) What { return NodeLost{Node: "n1", Why: "timeout"} },
		}, exit: 125, code: job.FailNodeLost, node: "n1", phases: []Phase{PhaseEnd, PhaseEnd}, decided: true},
		{name: "time limit", running: true, spec: func(s *job.TaskSpec) { s.Retries = 3 }, events: []func(string) What{
			result("n1", job.Result{Signal: 15, Failure: fail(job.FailTimeLimit)}),
		}, signal: 15, code: job.FailTimeLimit, phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
		{name: "retry", running: true, spec: func(s *job.TaskSpec) { s.Retries = 1 }, events: []func(string) What{
			result("n1", job.Result{ExitCode: 3}),
		}, phases: []Phase{PhaseForget, PhaseEnd}, again: true},
		{name: "cancelled before launch", events: []func(string) What{
			func(string) What { return CancelRequested{Job: "abcd"} },
		}, exit: 125, code: job.FailCancelled, phases: []Phase{PhaseEnd, PhaseEnd}, decided: true},
		{name: "cancelled, no retry", running: true, spec: func(s *job.TaskSpec) { s.Retries = 5 }, events: []func(string) What{
			func(string) What { return CancelRequested{Job: "abcd", Now: true} },
			result("n1", job.Result{Signal: 15, Failure: fail(job.FailCancelled)}),
		}, signal: 15, code: job.FailCancelled, phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
		{name: "cancelled, exits by itself, no retry", running: true, spec: func(s *job.TaskSpec) { s.Retries = 5 }, events: []func(string) What{
			func(string) What { return CancelRequested{Job: "abcd", Task: "abcd-0"} },
			result("n1", job.Result{ExitCode: 4}),
		}, exit: 4, code: job.FailRank, phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
		{name: "cancelled while it waits for proof", running: true, spec: func(s *job.TaskSpec) { s.OnNodeLoss = "" }, events: []func(string) What{
			func(string) What { return NodeLost{Node: "n1"} },
			func(string) What { return CancelRequested{Job: "abcd"} },
		}, exit: 125, code: job.FailCancelled, phases: []Phase{PhaseEnd, PhaseEnd}, decided: true},
		{name: "refused, then cancelled", spec: func(s *job.TaskSpec) { s.OnNodeLoss = "" }, events: []func(string) What{
			func(id string) What { return AttemptRefused{ID: id, Node: "n2", Claimed: true} },
			func(string) What { return CancelRequested{Job: "abcd"} },
		}, exit: 125, code: job.FailCancelled, phases: []Phase{PhaseEnd, 0}, decided: true},
		{name: "done before the cancel took hold", running: true, events: []func(string) What{
			func(string) What { return CancelRequested{Job: "abcd"} },
			result("n1", job.Result{}),
		}, phases: []Phase{PhaseForget, PhaseEnd}, decided: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.fleet(2, 2)
			spec := gang(2, 2)
			if c.spec != nil {
				c.spec(&spec)
			}
			_, task := w.submit("abcd", spec)
			var a job.AttemptRow
			if c.running {
				a = w.run(task)
			} else {
				w.plan()
				a = w.only(task)
			}
			for _, e := range c.events {
				w.apply(e(a.ID))
			}
			w.wantPhases(a.ID, c.phases...)
			s := w.status(task)
			wantEqual(t, "decided", c.decided, s.State == job.TaskCompleted)
			wantEqual(t, "pending again", c.again, s.Pending == 1)
			if c.decided {
				o := s.Last
				wantEqual(t, "exit and signal", []int{c.exit, c.signal}, []int{o.ExitCode, o.Signal})
				var code job.Code
				if o.Reason != nil {
					code = o.Reason.Code
					if c.node != "" && (len(o.Reason.Nodes) != 1 || o.Reason.Nodes[0].Node != c.node) {
						t.Errorf("the reason names %+v, not %s", o.Reason.Nodes, c.node)
					}
				}
				wantEqual(t, "code", c.code, code)
			}
			for i, ph := range c.phases {
				if f := w.free(i); (ph == 0) != (f == 2) {
					t.Errorf("%d cores are free on %s in phase %d", f, nodeName(i), ph)
				}
			}
			for _, n := range []string{"n1", "n2"} {
				w.apply(NodeGone{Node: n})
			}
			w.heal2()
			if s := w.status(task); s.State != job.TaskCompleted || len(s.Attempts) > 0 {
				t.Errorf("in the end: %+v", s)
			}
		})
	}
}

func (w *world) heal2() {
	w.t.Helper()
	for i := range w.c.order {
		w.up(i, 2)
	}
	w.serve(good)
}

// TestFirstFailureStands: of several failures the first decides, and only an
// end that can't wait is without grace.
func TestFirstFailureStands(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2, 2)
	_, task := w.submit("abcd", gang(3, 2))
	a := w.run(task)
	w.apply(AttemptResult{ID: a.ID, Node: "n2", Result: job.Result{ExitCode: 7}})
	wantEqual(t, "end without grace", false, w.c.Desired("n3")[0].EndNow)
	w.apply(AttemptResult{ID: a.ID, Node: "n3", Result: job.Result{ExitCode: 9}})
	w.apply(ShimGone{ID: a.ID, Node: "n1"})
	wantEqual(t, "exit", 7, w.status(task).Last.ExitCode)

	_, task = w.submit("efgh", gang(1, 1))
	a = w.run(task)
	p := func() Part {
		for _, p := range w.c.Desired("n1") {
			if p.ID == a.ID {
				return p
			}
		}
		t.Fatal("no part")
		return Part{}
	}
	w.apply(CancelRequested{Job: "efgh", Reason: job.Reason{Detail: "first"}})
	wantEqual(t, "end", []any{false, "first"}, []any{p().EndNow, p().End.Detail})
	w.apply(CancelRequested{Job: "efgh", Reason: job.Reason{Detail: "second"}, Now: true})
	wantEqual(t, "end", []any{true, "first"}, []any{p().EndNow, p().End.Detail})
}

func TestRetriesCount(t *testing.T) {
	w := newWorld(t)
	w.fleet(2)
	_, task := w.submit("abcd", job.TaskSpec{Kind: job.Gang, Ranks: 1, Retries: 2})
	var ids []string
	w.serve(func(p Part) job.Result {
		ids = append(ids, p.ID)
		return job.Result{ExitCode: int(p.Attempt)}
	})
	wantEqual(t, "attempts", []string{"abcd-0-0-1", "abcd-0-0-2", "abcd-0-0-3"}, ids)
	wantEqual(t, "last exit", 3, w.status(task).Last.ExitCode)
}

func TestRefusalIsNoRetry(t *testing.T) {
	w := newWorld(t)
	w.fleet(2)
	_, task := w.submit("abcd", job.TaskSpec{Kind: job.Gang, Ranks: 2})
	for i := range 4 {
		w.plan()
		a := w.only(task)
		w.apply(AttemptRefused{ID: a.ID, Node: "n1", Claimed: true})
		s := w.status(task)
		if s.Pending != 1 || len(s.Attempts) != 0 {
			t.Fatalf("after refusal %d: %+v", i+1, s)
		}
		try := w.c.View().Pending[0].Try
		if try.Attempt != uint32(i+2) || try.Retries != 0 || try.Losses != 0 || len(try.Avoid) > 0 {
			t.Fatalf("next try %+v", try)
		}
		d := w.plan()
		if len(d.Place) > 0 || !d.WakeAt.Equal(w.now.Add(refusalPause(uint32(i+1)))) {
			t.Fatalf("after refusal %d: wakes at %v, now %v, places %v", i+1, d.WakeAt, w.now, d.Place)
		}
		w.now = d.WakeAt
	}
	w.apply(NodeClaims{Node: "n1", Claims: []job.Claim{{ID: "x", Who: "bob", CPUs: topology.NewCPUSet(1, 3)}}})
	d := w.plan()
	if len(d.Waiting) != 1 || d.Waiting[0].Reason.Code != job.WaitClaimed || !strings.Contains(d.Waiting[0].Reason.String(), "bob") {
		t.Fatalf("waiting: %+v", d.Waiting)
	}
	w.apply(NodeClaims{Node: "n1"})
	w.serve(good)
	wantEqual(t, "state", job.TaskCompleted, w.status(task).State)
}

// TestRequeueWaitsForProof: the next try of a lost gang is not placed while
// anything of the old one may be alive, and leaves the lost node out.
func TestRequeueWaitsForProof(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2, 2)
	spec := gang(2, 2)
	spec.OnNodeLoss = job.NodeLossRequeue
	_, task := w.submit("abcd", spec)
	a := w.run(task)
	w.apply(NodeDown{Node: "n2", Why: "timeout"})
	wantEqual(t, "state while the session is only cut", job.AttemptRunning, w.only(task).State)
	w.apply(NodeLost{Node: "n2", Why: "timeout"})
	w.apply(AttemptResult{ID: a.ID, Node: "n1", Result: job.Result{ExitCode: 125, Failure: &job.Reason{Code: job.FailPeerLost}}})
	w.apply(ShimGone{ID: a.ID, Node: "n1"})
	if s := w.status(task); s.Pending != 0 || s.State == job.TaskCompleted {
		t.Fatalf("before the proof: %+v", s)
	}
	w.apply(NodeGone{Node: "n2", Leases: SessionLeases, Why: "lease"})
	if s := w.status(task); s.Pending != 1 {
		t.Fatalf("after the proof: %+v", s)
	}
	w.up(1, 2)
	w.plan()
	b := w.only(task)
	wantEqual(t, "attempt and nodes", []any{uint32(2), "n1", "n3"}, []any{b.Try.Attempt, b.Parts[0].Node, b.Parts[1].Node})
	for range maxLosses + 1 {
		b := w.run(task)
		w.apply(ShimGone{ID: b.ID, Node: b.Parts[0].Node, Why: "killed"})
		w.apply(AttemptResult{ID: b.ID, Node: b.Parts[1].Node, Result: job.Result{Failure: &job.Reason{Code: job.FailCancelled}}})
		w.apply(ShimGone{ID: b.ID, Node: b.Parts[1].Node})
		if w.status(task).State == job.TaskCompleted {
			break
		}
	}
	if s := w.status(task); s.Failed != 1 || s.Last.Reason.Code != job.FailShimLost {
		t.Fatalf("a program that kills its shims: %+v", s)
	}
}

func TestNodeLossWait(t *testing.T) {
	for _, back := range []string{"running", "dead"} {
		t.Run(back, func(t *testing.T) {
			w := newWorld(t)
			w.fleet(2, 2)
			spec := gang(2, 2)
			spec.OnNodeLoss = job.NodeLossWait
			_, task := w.submit("abcd", spec)
			a := w.run(task)
			w.apply(NodeLost{Node: "n1"})
			wantEqual(t, "state", job.AttemptLost, w.only(task).State)
			w.wantPhases(a.ID, PhaseLaunch, PhaseLaunch)
			inv := Inventory{Node: "n1"}
			if back == "running" {
				inv.Shims = []Shim{{ID: a.ID, Phase: ShimRunning}}
			}
			w.apply(NodeUp{Node: "n1", Topology: machine(2, 8<<30, "10.0.0.1")})
			w.apply(inv)
			if back == "running" {
				wantEqual(t, "state", job.AttemptRunning, w.only(task).State)
			} else {
				wantEqual(t, "state", job.AttemptEnding, w.only(task).State)
			}
			w.serve(good)
			wantEqual(t, "state", job.TaskCompleted, w.status(task).State)
			wantEqual(t, "success", true, w.status(task).Last.Success)
		})
	}
}

// TestAgentRestart: a node's agent comes back with some of its shims.
func TestAgentRestart(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	_, seen := w.submit("seen", gang(1, 1))
	a := w.run(seen)
	_, fresh := w.submit("frsh", gang(1, 1))
	w.plan()
	b := w.only(fresh)
	w.apply(NodeDown{Node: "n1"})
	if d := w.plan(); len(d.Place) > 0 {
		t.Fatal("work for a node without a session")
	}
	w.up(0, 4) // with an empty inventory
	if s := w.status(seen); s.State != job.TaskCompleted || s.Last.Reason.Code != job.FailShimLost {
		t.Errorf("what was seen and is not there any more: %+v", s)
	}
	wantEqual(t, "what the node was never told", PhasePrepare, w.phase("n1", b.ID))
	if _, ok := w.c.Attempt(a.ID); ok {
		t.Error("the lost attempt lives on")
	}
}

func TestNoSharedNetwork(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2)
	w.apply(NodeUp{Node: "n2", Topology: machine(2, 8<<30, "10.9.0.1")})
	w.apply(Inventory{Node: "n2"})
	_, task := w.submit("abcd", gang(2, 1))
	w.plan()
	s := w.status(task)
	if s.State != job.TaskCompleted || s.Last.Reason.Code != job.FailNoNetwork || !strings.Contains(s.Last.Reason.String(), "n2") {
		t.Errorf("%+v", s.Last)
	}
	wantEqual(t, "last notice", JobEnded, w.log[len(w.log)-1].Kind)
}

func TestNodesComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2)
	w.kinds()
	w.apply(Restarted{Epoch: 2})
	if d := w.plan(); len(d.Place) > 0 || w.c.Epoch() != 2 {
		t.Fatal("work for nodes whose sessions went with the old launcher")
	}
	w.up(0, 2)
	w.apply(NodeRemoved{Node: "n2"})
	wantEqual(t, "notices", []string{"node", "node", "node", "node"}, w.kinds())
	_, task := w.submit("abcd", gang(1, 2))
	w.plan()
	wantEqual(t, "epoch of an attempt", uint64(2), w.only(task).Epoch)
}

// TestNodeBootedAgain: what a node was sent before it was booted again may have
// begun there, though nothing was heard of it; it is not sent a second time.
func TestNodeBootedAgain(t *testing.T) {
	for _, policy := range []job.NodeLoss{job.NodeLossRequeue, job.NodeLossFail, job.NodeLossWait} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			w.fleet(4)
			_, task := w.submit("abcd", job.TaskSpec{OnNodeLoss: policy})
			w.plan()
			first := w.only(task)
			w.apply(NodeDown{Node: "n1"})
			w.apply(NodeUp{Node: "n1", Boot: "c", Topology: machine(4, 8<<30, "10.0.0.1")})
			w.apply(Inventory{Node: "n1"})
			if _, ok := w.c.Attempt(first.ID); ok {
				t.Fatal("the attempt of before the boot lives on")
			}
			w.plan()
			if policy == job.NodeLossFail {
				wantEqual(t, "reason", job.FailNodeLost, w.status(task).Last.Reason.Code)
				return
			}
			if again := w.only(task); again.ID == first.ID {
				t.Errorf("attempt %s is sent a second time", again.ID)
			}
			w.serve(good)
			wantEqual(t, "success", true, w.status(task).Last.Success)
		})
	}
}

// TestLeaseLapsed: a single task's shim ended it by itself, before its node was
// given up.
func TestLeaseLapsed(t *testing.T) {
	for _, policy := range []job.NodeLoss{job.NodeLossRequeue, job.NodeLossFail} {
		for _, told := range []bool{false, true} {
			t.Run(string(policy), func(t *testing.T) {
				w := newWorld(t)
				w.fleet(4)
				_, task := w.submit("abcd", job.TaskSpec{OnNodeLoss: policy})
				a := w.run(task)
				if told { // the result comes after the node was given up
					w.apply(NodeLost{Node: "n1"})
					w.up(0, 4)
				}
				if _, live := w.c.Attempt(a.ID); !live {
					return
				}
				w.apply(AttemptResult{ID: a.ID, Node: "n1", Result: job.Result{ExitCode: 125, Failure: &job.Reason{Code: job.FailLease}}})
				wantEqual(t, "phase", PhaseForget, w.phase("n1", a.ID))
				w.apply(ShimGone{ID: a.ID, Node: "n1"})
				if policy == job.NodeLossFail {
					wantEqual(t, "state", job.TaskCompleted, w.status(task).State)
					return
				}
				w.plan()
				wantEqual(t, "attempt", uint32(2), w.only(task).Try.Attempt)
				wantEqual(t, "losses", uint32(1), w.only(task).Try.Losses)
				w.serve(good)
				wantEqual(t, "success", true, w.status(task).Last.Success)
			})
		}
	}
}
