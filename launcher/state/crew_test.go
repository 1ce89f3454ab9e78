package state

import (
	"slices"
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// crews returns the rows of a task's crews.
func (w *world) crews(task string) []job.AttemptRow {
	w.t.Helper()
	var out []job.AttemptRow
	for _, id := range w.status(task).Attempts {
		a, _ := w.c.Attempt(id)
		out = append(out, a)
	}
	return out
}

// counts are pending, preparing, running, succeeded and failed elements.
func (w *world) counts(task string) []uint64 {
	w.t.Helper()
	s := w.status(task)
	return []uint64{s.Pending, s.Preparing, s.Running, s.Succeeded, s.Failed}
}

func run(lo, hi uint64, attempt uint32) CrewRun {
	return CrewRun{Range: job.Range{Lo: lo, Hi: hi}, Attempt: attempt}
}

func success(n uint64) []Ending { return []Ending{{Count: n}} }

// array is an array that runs on two nodes of four cores.
func (w *world) array(retries int, n uint64) (task string, crews []job.AttemptRow) {
	w.t.Helper()
	w.fleet(4, 4)
	_, task = w.submit("abcd", job.TaskSpec{Range: job.Range{Lo: 1, Hi: n + 1}, Retries: retries})
	w.plan()
	for _, a := range w.crews(task) {
		w.apply(ShimReady{ID: a.ID, Node: a.Parts[0].Node})
		w.apply(ShimStarted{ID: a.ID, Node: a.Parts[0].Node})
	}
	return task, w.crews(task)
}

func TestCrewBlocks(t *testing.T) {
	w := newWorld(t)
	task, crews := w.array(1, 100)
	wantEqual(t, "crews", 2, len(crews))
	a := crews[0]
	wantEqual(t, "id", "abcd-0-1-1", a.ID)
	wantEqual(t, "slots", 4, a.Crew.Slots)
	wantEqual(t, "given", []job.Try{{Range: job.Range{Lo: 1, Hi: 5}, Attempt: 1}, {Range: job.Range{Lo: 9, Hi: 13}, Attempt: 1}}, a.Crew.Open)
	wantEqual(t, "counts", []uint64{92, 0, 8, 0, 0}, w.counts(task))
	w.c.attempts[a.ID].Crew.Back = []job.Range{{Lo: 12, Hi: 13}} // it was asked for
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Runs: []CrewRun{run(1, 5, 1), run(9, 11, 1)},
		Endings: []Ending{{Count: 2}, {Count: 1, ExitCode: 3}, {Count: 3}}, Returned: []CrewRun{run(12, 13, 1)}})
	wantEqual(t, "counts", []uint64{90, 0, 5, 5, 0}, w.counts(task)) // 3 and 12 are pending again
	s, _ := w.c.tasks[task].pending.find(job.Range{Lo: 3, Hi: 4})
	wantEqual(t, "failed", job.Try{Range: job.Range{Lo: 3, Hi: 4}, Attempt: 2, Retries: 1}, s)
	s, _ = w.c.tasks[task].pending.find(job.Range{Lo: 12, Hi: 13})
	wantEqual(t, "returned", job.Try{Range: job.Range{Lo: 12, Hi: 13}, Attempt: 2}, s)
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Runs: []CrewRun{run(11, 12, 1)}, Endings: success(1)}) // again
	wantEqual(t, "counts after a duplicate", []uint64{90, 0, 5, 5, 0}, w.counts(task))
	// Of elements that it no longer has; 11 it has.
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 2, Runs: []CrewRun{run(2, 5, 1), run(11, 13, 1)}, Endings: success(5),
		Costs: &job.Costs{Attempt: make([]uint32, 5), Start: []int64{1, 2, 3, 4, 5}, Wall: make([]uint64, 5), CPU: make([]uint64, 5), RSS: make([]uint64, 5)}})
	wantEqual(t, "counts", []uint64{90, 0, 4, 6, 0}, w.counts(task))
	last := w.log[len(w.log)-1]
	if last.Kind != TaskDone || last.Block == nil || !slices.Equal(last.Block.Costs.Start, []int64{4}) {
		t.Errorf("the costs of elements that are not its own were kept: %+v", last)
	}
	for name, bad := range map[string]CrewBlock{
		"missing": {Seq: 4}, "empty run": {Seq: 3, Runs: []CrewRun{run(5, 5, 1)}}, "no ends": {Seq: 3, Runs: []CrewRun{run(5, 6, 1)}},
		"order":    {Seq: 3, Runs: []CrewRun{run(5, 6, 1), run(4, 5, 1)}, Endings: success(2)},
		"overflow": {Seq: 3, Runs: []CrewRun{run(5, 6, 1)}, Endings: []Ending{{Count: 1<<64 - 1}, {Count: 2}}},
		"columns":  {Seq: 3, Runs: []CrewRun{run(5, 6, 1)}, Endings: success(1), Costs: &job.Costs{}},
	} {
		bad.ID, bad.Node = a.ID, "n1"
		if _, err := w.try(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	w.plan()
	wantEqual(t, "given the retried and returned", []job.Try{
		{Range: job.Range{Lo: 3, Hi: 4}, Attempt: 2, Retries: 1}, {Range: job.Range{Lo: 12, Hi: 13}, Attempt: 2}}, w.crews(task)[0].Crew.Open[:2])
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 100, 0}, w.counts(task))
	wantEqual(t, "last notice", JobEnded, w.log[len(w.log)-1].Kind)
}

// TestCrewLost: what was given back counts no loss, what may have run does.
func TestCrewLost(t *testing.T) {
	w := newWorld(t)
	task, crews := w.array(0, 8)
	a := crews[0]
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Returned: []CrewRun{run(3, 5, 1)}})
	w.apply(ShimGone{ID: a.ID, Node: "n1", Why: "killed"})
	got := []job.Try(w.c.tasks[task].pending)
	wantEqual(t, "pending", []job.Try{
		{Range: job.Range{Lo: 1, Hi: 3}, Attempt: 2, Losses: 1, Avoid: []string{"n1"}}, {Range: job.Range{Lo: 3, Hi: 5}, Attempt: 2}}, got)
	// n2 has no free slot for what avoids n1, and is given it nonetheless: n1 is not.
	w.apply(CrewBlock{ID: crews[1].ID, Node: "n2", Seq: 1, Runs: []CrewRun{run(5, 9, 1)}, Endings: success(4)})
	w.plan()
	for _, b := range w.crews(task) {
		for _, try := range b.Crew.Open {
			if try.Lo < 3 && b.Parts[0].Node != "n2" {
				t.Errorf("elements %s that avoid n1 are there", try.Range)
			}
		}
	}
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 8, 0}, w.counts(task))
}

// TestDeadCrewGetsNoMore: what a crew gives back unasked tells that it ends. Its
// shim's end, which is told later, must not cost other elements a loss.
func TestDeadCrewGetsNoMore(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	_, task := w.submit("abcd", job.TaskSpec{Range: job.Range{Hi: 100}, OnNodeLoss: job.NodeLossFail})
	w.plan()
	a := w.crews(task)[0]
	w.apply(ShimReady{ID: a.ID, Node: "n1"})
	w.apply(ShimStarted{ID: a.ID, Node: "n1"})
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Runs: []CrewRun{run(0, 2, 1)}, Endings: success(2), Returned: []CrewRun{run(6, 8, 1)}})
	w.plan()
	w.apply(ShimGone{ID: a.ID, Node: "n1", Why: "killed"})
	wantEqual(t, "counts", []uint64{94, 0, 0, 2, 4}, w.counts(task)) // 2 to 5 ran
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 96, 4}, w.counts(task))
}

// TestCrewWindsDown: a drained node, a job that is held, and a task ahead take
// back at once what is not begun.
func TestCrewWindsDown(t *testing.T) {
	for name, event := range map[string]func(w *world) What{
		"drained": func(*world) What { return NodeDrained{Node: "n1", On: true} },
		"held":    func(*world) What { return JobHeld{Job: "abcd", On: true, Running: HeldWait} },
		"behind": func(*world) What {
			first := gang(2, 4)
			first.ID, first.Command = "g", []string{"x"}
			return JobSubmitted{UID: "frst", Spec: job.Spec{ID: "first", Priority: 1, Tasks: []job.TaskSpec{first}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			task, crews := w.array(0, 100)
			w.apply(event(w))
			d := w.plan()
			a := w.crews(task)[0]
			if !a.Crew.Last || ranges(a.Crew.Back).len() != 8 {
				t.Fatalf("%+v", a.Crew)
			}
			if slices.ContainsFunc(d.Orders, func(o sched.Order) bool { return o.ID == a.ID && len(o.Give) > 0 }) {
				t.Errorf("it is given more: %+v", d.Orders)
			}
			// Two were begun before it heard of it.
			w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Returned: []CrewRun{run(3, 5, 1), run(9, 13, 1)}})
			w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 2, Runs: []CrewRun{run(1, 3, 1)}, Endings: success(2)})
			w.apply(AttemptResult{ID: crews[0].ID, Node: "n1"})
			w.apply(ShimGone{ID: crews[0].ID, Node: "n1"})
			w.apply(NodeDrained{Node: "n1"})
			w.apply(JobHeld{Job: "abcd"})
			w.serve(good)
			wantEqual(t, "counts", []uint64{0, 0, 0, 100, 0}, w.counts(task))
		})
	}
}

// TestCrewNotYetLaunched: it was told of nothing, so nothing is waited for.
func TestCrewNotYetLaunched(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	_, task := w.submit("abcd", job.TaskSpec{Range: job.Range{Hi: 100}})
	w.plan()
	w.apply(JobHeld{Job: "abcd", On: true, Running: HeldWait})
	wantEqual(t, "counts", []uint64{100, 0, 0, 0, 0}, w.counts(task))
	w.apply(JobHeld{Job: "abcd"})
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 100, 0}, w.counts(task))
}

// TestTail: what a slow node holds goes to those that have nothing left.
func TestTail(t *testing.T) {
	w := newWorld(t)
	task, crews := w.array(0, 16)
	fast, slow := crews[0], crews[1]
	now := w.now
	w.apply(CrewBlock{ID: fast.ID, Node: "n1", Seq: 1, Runs: []CrewRun{run(1, 5, 1), run(9, 13, 1)}, Endings: success(8)})
	w.now = now.Add(time.Second)
	d := w.plan()
	wantEqual(t, "orders", []sched.Order{{ID: slow.ID, Back: 4}}, d.Orders)
	w.apply(CrewBlock{ID: slow.ID, Node: "n2", Seq: 1, Returned: []CrewRun{run(13, 17, 1)}})
	w.plan()
	wantEqual(t, "given", []job.Try{{Range: job.Range{Lo: 13, Hi: 17}, Attempt: 2}}, w.crews(task)[0].Crew.Open)
	w.apply(CrewBlock{ID: fast.ID, Node: "n1", Seq: 2, Runs: []CrewRun{run(13, 17, 2)}, Endings: success(4)})
	w.plan()
	wantEqual(t, "the fast one ends", true, w.crews(task)[0].Crew.Last)
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 16, 0}, w.counts(task))
}

// TestRate: a crew is given about a second's work ahead, and more is granted
// before it has run out.
func TestRate(t *testing.T) {
	w := newWorld(t)
	w.every = 0
	w.fleet(4)
	_, task := w.submit("abcd", job.TaskSpec{Range: job.Range{Hi: 1_000_000}})
	w.plan()
	a := w.crews(task)[0]
	w.apply(ShimReady{ID: a.ID, Node: "n1"})
	for i := range uint64(200) { // a thousand a second
		a = w.crews(task)[0]
		w.now = w.now.Add(9 * time.Millisecond)
		first := a.Crew.Open[0]
		n := min(10, first.Len())
		w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: i + 1, Runs: []CrewRun{run(first.Lo, first.Lo+n, first.Attempt)}, Endings: success(n)})
		w.plan()
	}
	if n := tries(w.crews(task)[0].Crew.Open).len(); n < 450 || n > 1300 {
		t.Errorf("a crew that does 1,000 elements a second has %d", n)
	}
	wantEqual(t, "asked back", 0, len(w.crews(task)[0].Crew.Back))
}

func TestCrewReactivated(t *testing.T) {
	w := newWorld(t)
	task, _ := w.array(1, 20)
	open := true
	w.apply(JobChanged{Job: "abcd", KeepOpen: &open})
	w.serve(func(Part) job.Result { return job.Result{ExitCode: 1} })
	wantEqual(t, "counts", []uint64{0, 0, 0, 0, 20}, w.counts(task))
	tried := w.c.tasks[task].tried
	w.apply(TaskReactivated{Task: task})
	for _, try := range w.c.tasks[task].pending {
		if try.Attempt <= tried || tried < 2 {
			t.Errorf("attempt %d after %d", try.Attempt, tried)
		}
	}
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 20, 0}, w.counts(task))
}

// TestCrewCancelled: everything ends with the reason, what was begun and what was
// not.
func TestCrewCancelled(t *testing.T) {
	w := newWorld(t)
	task, crews := w.array(3, 100)
	w.apply(CancelRequested{Job: "abcd"})
	a := crews[0]
	w.apply(CrewBlock{ID: a.ID, Node: "n1", Seq: 1, Runs: []CrewRun{run(1, 5, 1)},
		Endings: []Ending{{Count: 4, ExitCode: 143, Failure: &job.Reason{Code: job.FailCancelled}}}, Returned: []CrewRun{run(9, 13, 1)}})
	w.serve(good)
	wantEqual(t, "counts", []uint64{0, 0, 0, 0, 100}, w.counts(task))
	wantEqual(t, "why", job.FailCancelled, w.status(task).Last.Reason.Code)
}

// BenchmarkCrewBlock is the cost of one block of 4,096 successes.
func BenchmarkCrewBlock(b *testing.B) {
	w, _ := millions(b, job.MaxArray)
	w.c.Apply(Event{At: w.now, What: Placed{Place: w.planOnly()}})
	var a *attempt
	seq, lo := uint64(0), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if a == nil || a.open() < 4096 {
			b.StopTimer()
			task := w.c.tasks["abcd-0"]
			if a == nil || len(task.pending) == 0 {
				w, _ = millions(b, job.MaxArray)
				w.c.Apply(Event{At: w.now, What: Placed{Place: w.planOnly()}})
				task = w.c.tasks["abcd-0"]
				a, seq = task.live[0], 0
				w.c.Apply(Event{At: w.now, What: ShimStarted{ID: a.ID, Node: a.Parts[0].Node}})
			}
			first := task.pending[0]
			first.Hi = min(first.Hi, first.Lo+65536)
			a.Crew.Open, lo = []job.Try{first}, first.Lo
			task.pending = task.pending.remove(first.Range)
			b.StartTimer()
		}
		seq++
		n := min(4096, a.open())
		what := CrewBlock{ID: a.ID, Node: a.Parts[0].Node, Seq: seq, Runs: []CrewRun{run(lo, lo+n, 1)}, Endings: success(n)}
		if _, err := w.c.Apply(Event{At: w.now, What: what}); err != nil {
			b.Fatal(err)
		}
		lo += n
	}
}

// BenchmarkPlanCrews is the cost of a plan with 64 crews that run, of which one
// is to be given more, and ten million elements that wait.
func BenchmarkPlanCrews(b *testing.B) {
	w, task := millions(b, job.MaxArray)
	if _, err := w.c.Apply(Event{At: w.now, What: Placed{Place: w.planOnly()}}); err != nil {
		b.Fatal(err)
	}
	for _, a := range w.c.tasks[task].live {
		if _, err := w.c.Apply(Event{At: w.now, What: ShimStarted{ID: a.ID, Node: a.Parts[0].Node}}); err != nil {
			b.Fatal(err)
		}
		a.pace = pace{done: 1 << 30, rate: 20_000, news: w.now}
	}
	d := sched.Plan(w.now, w.c.View(), sched.Policy{})
	if _, err := w.c.Apply(Event{At: w.now, What: Placed{Orders: d.Orders}}); err != nil || len(d.Orders) != 64 {
		b.Fatal(err, len(d.Orders))
	}
	one := w.c.tasks[task].live[0]
	one.Crew.Open = one.Crew.Open[:1]
	b.ReportAllocs()
	for b.Loop() {
		if d := sched.Plan(w.now, w.c.View(), sched.Policy{}); len(d.Orders) != 1 {
			b.Fatal(len(d.Orders))
		}
	}
}
