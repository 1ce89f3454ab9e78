package state

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// fail runs a gang to its end, by the autopsy that its primary makes.
func (w *world) fail(task string, d *job.Autopsy) job.AttemptRow {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	a := w.run(task)
	for i, p := range a.Parts {
		r := job.Result{Range: a.Try.Range, ExitCode: 1, FirstRank: -1, Failure: &job.Reason{Code: job.FailCancelled}}
		if i == 0 {
			r.Failure, r.Autopsy = &job.Reason{Code: job.FailRank}, d
		}
		w.apply(AttemptResult{ID: a.ID, Node: p.Node, Result: r})
	}
	for _, p := range a.Parts {
		w.apply(ShimGone{ID: a.ID, Node: p.Node})
	}
	return a
}

func (w *world) draining(name string) bool {
	n, ok := w.c.Node(name)
	return ok && n.Row.Draining
}

func killedOn(node string) *job.Autopsy {
	return &job.Autopsy{Death: job.DeathKilled, Rank: 1, Node: node, How: "killed from outside", Suspects: []job.Suspect{{Node: node, Why: "killed there"}}}
}

func retried(nodes, retries int) job.TaskSpec {
	g := gang(nodes, 1)
	g.Retries = retries
	return g
}

func TestSuspectsAreAvoidedThenDrained(t *testing.T) {
	w := newWorld(t)
	w.c.SetDrainAfter(3)
	w.fleet(2, 2, 2, 2)
	_, task := w.submit("jobx", retried(2, 9))
	w.fail(task, killedOn("n2"))
	second := w.fail(task, killedOn("n2")) // a part there or not, it names who was not in it
	for _, p := range second.Parts {
		if p.Node == "n2" {
			t.Fatal("the suspect is in the next try")
		}
	}
	if n, _ := w.c.Node("n2"); len(n.Row.Guilt) != 1 {
		t.Errorf("counted %+v: it had no part in the second", n.Row.Guilt)
	}
	if !slices.Contains(second.Try.Avoid, "n2") {
		t.Errorf("avoids %v", second.Try.Avoid)
	}
}

func TestGuiltDrainsOnce(t *testing.T) {
	w := newWorld(t)
	w.c.SetDrainAfter(3)
	w.fleet(2, 2)
	for i, uid := range []string{"joba", "jobb", "jobc"} {
		_, task := w.submit(uid, retried(2, 0))
		w.fail(task, killedOn("n2"))
		if got := w.draining("n2"); got != (i == 2) {
			t.Fatalf("after %d guilty attempts draining is %t", i+1, got)
		}
	}
	n, _ := w.c.Node("n2")
	if !strings.Contains(n.Row.DrainedFor, "suspected 3 times") || !strings.Contains(n.Row.DrainedFor, "killed there") || n.View.Why != n.Row.DrainedFor {
		t.Errorf("says %q, to the scheduler %q", n.Row.DrainedFor, n.View.Why)
	}
	w.apply(NodeDrained{Node: "n2"})
	if n, _ := w.c.Node("n2"); n.Row.Draining || len(n.Row.Guilt) > 0 || n.Row.DrainedFor != "" {
		t.Errorf("resumed: %+v", n.Row)
	}
	_, task := w.submit("jobd", retried(2, 0))
	w.fail(task, killedOn("n2"))
	if w.draining("n2") {
		t.Error("drained again by the first guilt after it was resumed")
	}
}

func TestNoDrain(t *testing.T) {
	for name, c := range map[string]struct {
		after int
		nodes []int
		pause time.Duration
		d     *job.Autopsy
	}{
		"never":             {0, []int{2, 2, 2}, 0, killedOn("n1")},
		"a day between":     {3, []int{2, 2, 2}, 25 * time.Hour, killedOn("n1")},
		"the only one":      {3, []int{2}, 0, killedOn("n1")},
		"the program's own": {3, []int{2, 2, 2}, 0, &job.Autopsy{Death: job.DeathExit, Rank: 0, Node: "n1", How: "ended with status 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.c.SetDrainAfter(c.after)
			w.fleet(c.nodes...)
			for _, uid := range []string{"joba", "jobb", "jobc", "jobd", "jobe"} {
				if name == "the program's own" {
					uid += "x"
				}
				_, task := w.submit(uid, retried(1, 0))
				w.fail(task, c.d)
				w.now = w.now.Add(c.pause)
			}
			if w.draining("n1") {
				t.Error("drained")
			}
		})
	}
}

// A GPU that broke under an attempt speaks against its node.
func TestBrokenGPU(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2, 2)
	g := retried(2, 1)
	g.GPUsPerRank = 1
	_, task := w.submit("joba", g)
	a := w.run(task)
	bad := a.Parts[1]
	left := slices.DeleteFunc([]uint32{0, 1}, func(id uint32) bool { return slices.Contains(bad.GPUs, id) })
	w.apply(NodeProbed{Node: bad.Node, Topology: machine(2, 8<<30, "10.0.0.2"), GPUs: left})
	for i, p := range a.Parts {
		r := job.Result{Range: a.Try.Range, ExitCode: 1, FirstRank: 1}
		if i == 0 {
			r.Autopsy = &job.Autopsy{Death: job.DeathExit, Rank: 1, Node: bad.Node, How: "ended with status 1"}
		}
		w.apply(AttemptResult{ID: a.ID, Node: p.Node, Result: r})
	}
	for _, p := range a.Parts {
		w.apply(ShimGone{ID: a.ID, Node: p.Node})
	}
	if n, _ := w.c.Node(bad.Node); len(n.Row.Guilt) != 1 || !strings.Contains(n.Row.Guilt[0].Why, "gone or broken") {
		t.Errorf("%+v", n.Row.Guilt)
	}
	if s := w.status(task); s.Next == nil || !slices.Contains(s.Next.Avoid, bad.Node) {
		t.Errorf("next %+v", s.Next)
	}
}

// Half of the nodes stay, whatever speaks against them.
func TestHalfStays(t *testing.T) {
	w := newWorld(t)
	w.c.SetDrainAfter(1)
	w.fleet(2, 2, 2, 2)
	for _, uid := range []string{"joba", "jobb", "jobc", "jobd"} {
		_, task := w.submit(uid, retried(2, 0))
		w.plan()
		w.fail(task, killedOn(w.only(task).Parts[0].Node))
	}
	drained := 0
	for _, n := range w.c.Nodes() {
		if n.Row.Draining {
			drained++
		}
	}
	if drained != 2 {
		t.Errorf("%d of 4 nodes are drained", drained)
	}
}

// Gangs of several nodes that begin to fail on the same one, one job after the
// other, make it a suspect; one that ends well there clears it.
func TestHabit(t *testing.T) {
	crash := &job.Autopsy{Death: job.DeathCrash, Rank: 1, Node: "n2", How: "segmentation fault"}
	guilt := func(w *world) int { n, _ := w.c.Node("n2"); return len(n.Row.Guilt) }
	t.Run("three jobs", func(t *testing.T) {
		w := newWorld(t)
		w.fleet(2, 2)
		for _, uid := range []string{"joba", "jobb", "jobc"} {
			if guilt(w) != 0 {
				t.Fatal("suspected too early")
			}
			_, task := w.submitAs(uid, retried(2, 0))
			w.fail(task, crash)
		}
		if guilt(w) != 1 {
			t.Error("not suspected")
		}
	})
	t.Run("one job thrice", func(t *testing.T) {
		w := newWorld(t)
		w.fleet(2, 2)
		_, task := w.submit("joba", retried(2, 5))
		for range 4 {
			w.fail(task, crash)
		}
		if guilt(w) != 0 {
			t.Error("suspected for a program's own fault")
		}
	})
	t.Run("a success between", func(t *testing.T) {
		w := newWorld(t)
		w.fleet(2, 2)
		for _, uid := range []string{"joba", "jobb", "jobc", "jobd"} {
			_, task := w.submitAs(uid, retried(2, 0))
			if uid == "jobc" {
				w.now = w.now.Add(time.Minute)
				a := w.run(task)
				for _, p := range a.Parts {
					w.apply(AttemptResult{ID: a.ID, Node: p.Node, Result: job.Result{Range: a.Try.Range, FirstRank: -1}})
				}
				for _, p := range a.Parts {
					w.apply(ShimGone{ID: a.ID, Node: p.Node})
				}
				continue
			}
			w.fail(task, crash)
		}
		if guilt(w) != 0 {
			t.Error("suspected though an attempt ended well there")
		}
	})
}

// submitAs is submit with an id of the job's own.
func (w *world) submitAs(uid string, t job.TaskSpec) (string, string) {
	w.t.Helper()
	t.ID, t.Command = "t", []string{"true"}
	w.apply(JobSubmitted{UID: uid, Spec: job.Spec{ID: uid, Tasks: []job.TaskSpec{t}, Session: true}})
	return uid, job.TaskUID(uid, 0)
}

// A node that goes down with many attempts is guilty once.
func TestOneLossCountsOnce(t *testing.T) {
	w := newWorld(t)
	w.c.SetDrainAfter(2)
	w.fleet(4, 4, 4, 4)
	for _, uid := range []string{"joba", "jobb", "jobc"} {
		_, task := w.submit(uid, job.TaskSpec{Kind: job.Single, Ranks: 1, OnNodeLoss: job.NodeLossFail})
		w.run(task)
	}
	w.apply(NodeLost{Node: "n1", Why: "silent"})
	w.apply(NodeGone{Node: "n1", Why: "its leases have lapsed"})
	if n, _ := w.c.Node("n1"); len(n.Row.Guilt) != 1 || n.Row.Draining || sched.NodeState(n.Row.State) != sched.NodeLost {
		t.Errorf("%+v", n.Row)
	}
}
