package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// needs is a task that depends on others.
func needs(id string, on ...string) job.TaskSpec {
	t := job.TaskSpec{ID: id, Command: []string{"true"}}
	for _, s := range on {
		d, err := job.ParseDependency(s)
		if err != nil {
			panic(err)
		}
		t.DependsOn = append(t.DependsOn, d)
	}
	return t
}

func elements(t job.TaskSpec, n uint64) job.TaskSpec {
	t.Range = job.Range{Lo: 1, Hi: n + 1}
	return t
}

// begin submits tasks as a job that stays open.
func (w *world) begin(tasks ...job.TaskSpec) {
	w.t.Helper()
	w.apply(JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", KeepOpen: true, Tasks: tasks}})
}

func (w *world) uid(id string) string {
	w.t.Helper()
	s, ok := w.c.TaskByID("job", id)
	if !ok {
		w.t.Fatalf("there is no task %s", id)
	}
	return s.UID
}

// fails makes those tasks fail with a status; the others end well.
func fails(status map[string]int) func(Part) job.Result {
	return func(p Part) job.Result { return job.Result{Range: p.Range, ExitCode: status[p.Task.ID]} }
}

// ends lists how tasks ended: "a:ok b:failed(code)", or the state.
func (w *world) ends(ids ...string) string {
	var out []string
	for _, id := range ids {
		s := w.status(w.uid(id))
		text := string(s.State)
		switch {
		case s.State == job.TaskCompleted && s.Failed > 0:
			text = fmt.Sprintf("failed(%s)", s.Last.Reason.Code)
		case s.State == job.TaskCompleted:
			text = "ok"
		}
		out = append(out, id+":"+text)
	}
	return strings.Join(out, " ")
}

func (w *world) is(want string, ids ...string) {
	w.t.Helper()
	if got := w.ends(ids...); got != want {
		w.t.Fatalf("%s, want %s", got, want)
	}
}

// TestParentFails: dependants end with a reason that names the parent, and come
// back with it.
func TestParentFails(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.begin(needs("a"), needs("b", "a"), needs("c", "b"), needs("d"))
	w.serve(fails(map[string]int{"a": 3}))
	w.is("a:failed(rank) b:failed(parent) c:failed(parent) d:ok", "a", "b", "c", "d")
	for id, want := range map[string]string{
		"b": "it depends on a, which exited with 3; reactivate a to run both",
		"c": "it depends on b, which did not run: it depends on a, which exited with 3; reactivate a to run both",
	} {
		if got := w.status(w.uid(id)).Last.Reason.String(); got != want {
			t.Errorf("%s: %s", id, got)
		}
	}
	_, err := w.try(TaskReactivated{Task: w.uid("b")})
	if err == nil || !strings.Contains(err.Error(), "reactivate what it depends on") {
		t.Errorf("reactivated before its parent: %v", err)
	}
	w.apply(TaskReactivated{Task: w.uid("a")})
	w.is("a:active b:active c:active", "a", "b", "c")
	w.serve(good)
	w.is("a:ok b:ok c:ok", "a", "b", "c")
}

// TestTwoParents: a task comes back with the last of the parents that it ended for.
func TestTwoParents(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.begin(needs("a"), needs("b"), needs("c", "a", "b"))
	w.serve(fails(map[string]int{"a": 1, "b": 1}))
	w.is("a:failed(rank) b:failed(rank) c:failed(parent)", "a", "b", "c")
	w.apply(TaskReactivated{Task: w.uid("a")})
	w.serve(good)
	w.is("a:ok b:failed(rank) c:failed(parent)", "a", "b", "c")
	w.apply(TaskReactivated{Task: w.uid("b")})
	w.is("b:active c:active", "b", "c")
	w.serve(good)
	w.is("a:ok b:ok c:ok", "a", "b", "c")
}

// TestParentsOfArrays: what waits for elements starts when those have ended, what
// waits for all of an array when it has.
func TestParentsOfArrays(t *testing.T) {
	w := newWorld(t)
	w.fleet(8)
	w.begin(elements(needs("A"), 8), needs("three", "A_3"), needs("some", "A[2-4]"), needs("all", "A"))
	w.plan()
	a := w.only(w.uid("A"))
	p := a.Parts[0]
	w.apply(ShimReady{ID: a.ID, Node: p.Node})
	w.apply(ShimStarted{ID: a.ID, Node: p.Node})
	seq := uint64(0)
	result := func(lo, hi uint64, exit int) {
		seq++
		w.apply(CrewBlock{ID: a.ID, Node: p.Node, Seq: seq, Runs: []CrewRun{{Range: job.Range{Lo: lo, Hi: hi}, Attempt: 1}},
			Endings: []Ending{{Count: hi - lo, ExitCode: exit}}})
	}
	waits := func(want ...string) {
		t.Helper()
		var got []string
		for _, x := range w.c.View().Pending {
			got = append(got, x.Spec.ID)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
	waits()
	result(2, 4, 0)
	waits("three")
	result(4, 5, 1)
	waits("three")
	w.is("some:failed(parent) all:active", "some", "all")
	result(1, 2, 0)
	result(5, 9, 0)
	w.is("all:failed(parent) three:active", "all", "three")
	if got := w.status(w.uid("all")).Last.Reason.Detail; got != "it depends on A, of which 1 of 8 elements failed, A_4 first" {
		t.Error(got)
	}
	w.serve(good)
	w.apply(TaskReactivated{Task: w.uid("A")})
	w.serve(good)
	w.is("A:ok three:ok some:ok all:ok", "A", "three", "some", "all")
}

// TestExitActions: what a task's exit condition says of those that depend on it,
// and of its job.
func TestExitActions(t *testing.T) {
	exit := func(rules ...job.ExitRule) *job.ExitConditions { return &job.ExitConditions{Rules: rules} }
	rule := func(lo, hi int, a job.ExitAction) job.ExitRule { return job.ExitRule{Lo: lo, Hi: hi, ExitAction: a} }
	for _, c := range []struct {
		name   string
		exit   *job.ExitConditions
		status int
		want   string
		job    job.JobState
	}{
		{"satisfied", exit(rule(1, 9, job.ExitAction{Depend: job.DependSatisfy})), 3, "a:failed(rank) b:ok z:ok", job.JobActive},
		{"blocked by a success", exit(rule(0, 0, job.ExitAction{Depend: job.DependBlock})), 0, "a:ok b:failed(parent) z:ok", job.JobActive},
		{"not covered", exit(rule(4, 4, job.ExitAction{Depend: job.DependSatisfy})), 3, "a:failed(rank) b:failed(parent) z:ok", job.JobActive},
		{"job ended", exit(rule(3, 3, job.ExitAction{Job: job.JobTerminate, Depend: job.DependSatisfy})), 3, "a:failed(rank) b:failed(exit-action) z:failed(exit-action)", job.JobCompleted},
		{"job disabled", exit(rule(3, 3, job.ExitAction{Job: job.JobDisable, Depend: job.DependSatisfy})), 3, "a:failed(rank) b:active z:active", job.JobDisabled},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.fleet(1)
			a := needs("a")
			a.Exit = c.exit
			w.apply(JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", KeepOpen: true, ExitActions: true, Tasks: []job.TaskSpec{a, needs("b", "a"), needs("z")}}})
			w.serve(fails(map[string]int{"a": c.status}))
			w.is(c.want, "a", "b", "z")
			if s, _ := w.c.JobByID("job"); s.State != c.job {
				t.Errorf("the job is %s", s.State)
			}
		})
	}
}

// TestMaxFailures: one failure too many ends the job; those that ended for a parent
// or by request are none.
func TestMaxFailures(t *testing.T) {
	w := newWorld(t)
	w.fleet(1)
	most := 2
	w.apply(JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", MaxFailures: &most, KeepOpen: true,
		Tasks: []job.TaskSpec{needs("gone"), needs("a"), needs("b", "a"), elements(needs("C"), 9), needs("d")}}})
	w.apply(CancelRequested{Job: "jjjj", Task: w.uid("gone")})
	w.serve(fails(map[string]int{"a": 1, "C": 1}))
	s, _ := w.c.JobByID("job")
	if s.State != job.JobCompleted || s.Row.Cancel == nil || s.Row.Cancel.Code != job.FailFailures || s.Row.Cancel.Have != 3 {
		t.Fatalf("the job is %s: %+v", s.State, s.Row.Cancel)
	}
	w.is("a:failed(rank) b:failed(parent) C:failed(max-failures) d:failed(max-failures)", "a", "b", "C", "d")
	if n := w.status(w.uid("C")).Failed; n != 9 {
		t.Errorf("%d elements failed", n)
	}
}

// TestMaxRunning: no more of a job runs at once than it may, and its tasks go by
// their priority.
func TestMaxRunning(t *testing.T) {
	w := newWorld(t)
	w.fleet(8, 8)
	last, first := needs("last"), needs("first")
	last.Priority, first.Priority = -1, 7
	w.apply(JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", MaxRunning: 3, Tasks: []job.TaskSpec{last, elements(needs("A"), 10), first}}})
	d := w.plan()
	var got []string
	for _, p := range d.Place {
		got = append(got, fmt.Sprint(w.c.tasks[p.Task].spec.ID, " ", p.Slots))
	}
	if d := cmp.Diff([]string{"first 0", "A 2"}, got); d != "" {
		t.Error(d)
	}
	if r := w.plan().Waiting[0].Reason; r.Code != job.WaitRunning || r.String() != "3 tasks of its job run, and max-running is 3" {
		t.Errorf("%+v", r)
	}
	w.serve(func(p Part) job.Result {
		if n := w.c.jobs["jjjj"].running(); n > 3 {
			t.Fatalf("%d run", n)
		}
		return good(p)
	})
	w.is("first:ok A:ok last:ok", "first", "A", "last")
}

// TestBackoff: a retry waits as long as asked, keeps nobody else waiting, and goes
// elsewhere if it can.
func TestBackoff(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2)
	a := needs("a")
	a.CoresPerRank, a.Retries, a.Backoff, a.RetryElsewhere = 2, 2, 30*time.Second, true
	w.begin(a)
	fail := func() string {
		x := w.run(w.uid("a"))
		node := x.Parts[0].Node
		w.apply(AttemptResult{ID: x.ID, Node: node, Result: job.Result{Range: x.Try.Range, ExitCode: 1}})
		w.apply(ShimGone{ID: x.ID, Node: node})
		return node
	}
	if n := fail(); n != "n1" {
		t.Fatalf("it ran on %s", n)
	}
	at := w.now
	b := needs("b")
	b.CoresPerRank = 2
	w.apply(TasksAdded{Job: "jjjj", Tasks: []job.TaskSpec{b}})
	d := w.plan()
	if len(d.Place) != 1 || len(d.Waiting) != 1 || d.Waiting[0].Reason.Code != job.WaitBackoff ||
		!strings.HasPrefix(d.Waiting[0].Reason.Detail, "pauses until 2001-09-09T01:47:10Z before retry 1") {
		t.Fatalf("%+v", d)
	}
	if early := at.Add(30 * time.Second).Sub(d.WakeAt); early < 0 || early > 10*time.Millisecond {
		t.Fatalf("it wakes at %s", d.WakeAt)
	}
	w.now = d.WakeAt
	if n := fail(); n != "n2" {
		t.Errorf("the retry ran on %s", n)
	}
	if got := w.status(w.uid("a")).Next; got.Attempt != 3 || got.NotBefore.Sub(w.now) < 59*time.Second || !slices.Equal(got.Avoid, []string{"n1", "n2"}) {
		t.Errorf("the second retry: %+v", got)
	}
}

// TestParentsComeLater: with Later, tasks may be added before what they depend on;
// what would never start is refused.
func TestParentsComeLater(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.begin()
	add := func(later bool, tasks ...job.TaskSpec) error {
		_, err := w.try(TasksAdded{Job: "jjjj", Tasks: tasks, Later: later})
		return err
	}
	if err := add(false, needs("x", "y")); err == nil || !strings.Contains(err.Error(), `tasks[0].depends-on[0]: "y" is not there: the job has no such task`) {
		t.Errorf("unknown: %v", err)
	}
	if err := add(true, needs("b", "a", "R_2"), needs("c", "b")); err != nil {
		t.Fatal(err)
	}
	w.serve(good)
	w.is("b:active c:active", "b", "c")
	for _, bad := range []job.TaskSpec{needs("a", "c"), elements(needs("R", "b"), 4)} {
		if err := add(true, bad); err == nil || !strings.Contains(err.Error(), "a cycle of tasks") {
			t.Errorf("a cycle through %s: %v", bad.ID, err)
		}
	}
	if err := add(true, needs("a")); err != nil {
		t.Fatal(err)
	}
	if r := w.c.Waits(w.uid("b")); r == nil || r.Code != job.WaitDepends || r.Detail != "waits for 2 of 2 tasks: a (active), R_2 (not in the job yet)" {
		t.Errorf("it waits: %+v", r)
	}
	w.serve(good)
	w.is("a:ok b:active", "a", "b")
	if err := add(true, needs("R")); err != nil {
		t.Fatal(err)
	}
	w.serve(good)
	w.is("R:ok b:active", "R", "b") // it has no element 2
	w.apply(TaskDeleted{Task: w.uid("R")})
	if err := add(true, elements(needs("R"), 4)); err != nil {
		t.Fatal(err)
	}
	w.serve(good)
	w.is("R:ok b:ok c:ok", "R", "b", "c")
}

// TestParentIsDeleted: what depends on a deleted task ends, unless that had done
// what it was needed for; a later task of that name is another.
func TestParentIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.fleet(1)
	w.begin(needs("a"), needs("b", "a"), needs("x"), needs("c", "a", "x"))
	w.apply(TaskDeleted{Task: w.uid("x")})
	w.is("a:active b:active c:failed(parent)", "a", "b", "c")
	if got := w.status(w.uid("c")).Last.Reason.String(); got != "it depends on x, which was deleted" {
		t.Error(got)
	}
	first := true
	w.serve(func(p Part) job.Result {
		if first { // a has ended well
			first = false
			defer w.apply(TasksAdded{Job: "jjjj", Tasks: []job.TaskSpec{needs("d", "a", "b")}})
		}
		return good(p)
	})
	w.apply(TasksAdded{Job: "jjjj", Tasks: []job.TaskSpec{needs("e", "a")}})
	w.apply(TaskDeleted{Task: w.uid("a")})
	w.apply(TasksAdded{Job: "jjjj", Tasks: []job.TaskSpec{needs("a")}})
	w.serve(fails(map[string]int{"a": 1}))
	w.is("a:failed(rank) b:ok d:ok e:ok", "a", "b", "d", "e")
}

// TestChain: a chain of a thousand tasks needs a plan for each, and no more.
func TestChain(t *testing.T) {
	w := newWorld(t)
	w.every = 250
	w.fleet(2)
	const n = 1000
	tasks := make([]job.TaskSpec, n)
	for i := range tasks {
		tasks[i] = needs(fmt.Sprintf("t%d", i))
		if i > 0 {
			tasks[i].DependsOn = []job.Dependency{{Task: fmt.Sprintf("t%d", i-1)}}
		}
	}
	if _, err := w.c.Apply(Event{At: w.now, What: JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", Tasks: tasks}}}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		d := sched.Plan(w.now, w.c.View(), sched.Policy{})
		if len(d.Place) != 1 || d.Place[0].Task != job.TaskUID("jjjj", i) {
			t.Fatalf("step %d: %+v", i, d)
		}
		node := d.Place[0].Parts[0].Node
		id := job.AttemptID(d.Place[0].Task, 0, 1)
		for _, what := range []What{Placed{Place: d.Place}, ShimReady{ID: id, Node: node}, ShimStarted{ID: id, Node: node},
			AttemptResult{ID: id, Node: node}, ShimGone{ID: id, Node: node}} {
			ch, err := w.c.Apply(Event{At: w.now, What: what})
			if _, last := what.(AttemptResult); err != nil || last && !ch.Replan {
				t.Fatalf("step %d: %T: %v", i, what, err)
			}
		}
	}
	if s, _ := w.c.JobByID("job"); s.State != job.JobCompleted {
		t.Fatalf("the job is %s", s.State)
	}
}

// TestFan: a task that depends on an array of a million is one link, and so is an
// end that ten thousand wait for.
func TestFan(t *testing.T) {
	w := newWorld(t)
	w.every = 0
	w.fleet(2)
	tasks := []job.TaskSpec{elements(needs("A"), 1_000_000), needs("merge", "A")}
	for i := range 10_000 {
		tasks = append(tasks, needs(fmt.Sprintf("t%d", i), "A_"+fmt.Sprint(1+i%5)))
	}
	if _, err := w.c.Apply(Event{At: w.now, What: JobSubmitted{UID: "jjjj", Spec: job.Spec{ID: "job", Tasks: tasks}}}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.c.tasks[w.uid("A")].whole); n != 1 {
		t.Fatalf("%d links", n)
	}
	if _, err := w.c.Apply(Event{At: w.now, What: CancelRequested{Job: "jjjj", Task: w.uid("A")}}); err != nil {
		t.Fatal(err)
	}
	if s, _ := w.c.JobByID("job"); s.State != job.JobCompleted {
		t.Fatalf("the job is %s", s.State)
	}
	if err := w.c.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestRandomPlans: whatever tasks depend on each other and however they end, every
// one starts after its parents, comes to an end, and has a reason if it did not run.
func TestRandomPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.every = 7
		w.fleet(2, 3)
		n := rapid.IntRange(1, 14).Draw(t, "tasks")
		var tasks []job.TaskSpec
		for i := range n {
			task := needs(fmt.Sprintf("t%d", i))
			task.Priority = rapid.IntRange(-1, 1).Draw(t, "priority")
			task.Retries = rapid.IntRange(0, 1).Draw(t, "retries")
			task.Backoff = time.Duration(rapid.IntRange(0, 3).Draw(t, "backoff")) * time.Second
			task.RetryElsewhere = rapid.Bool().Draw(t, "elsewhere")
			if rapid.Bool().Draw(t, "array") {
				task = elements(task, uint64(rapid.IntRange(2, 5).Draw(t, "n")))
			}
			if rapid.IntRange(0, 3).Draw(t, "exit") == 0 {
				task.Exit = &job.ExitConditions{Rules: []job.ExitRule{{Lo: 0, Hi: 1, ExitAction: job.ExitAction{
					Depend: rapid.SampledFrom([]job.DependAction{job.DependSatisfy, job.DependBlock}).Draw(t, "depend")}}}}
			}
			for k := range i {
				if rapid.IntRange(0, 2).Draw(t, "needs") > 0 {
					continue
				}
				d := job.Dependency{Task: tasks[k].ID}
				if r := tasks[k].Range; r.Len() > 1 && rapid.Bool().Draw(t, "some") {
					d.Range.Lo = uint64(rapid.IntRange(int(r.Lo), int(r.Hi)-1).Draw(t, "lo"))
					d.Range.Hi = uint64(rapid.IntRange(int(d.Range.Lo)+1, int(r.Hi)).Draw(t, "hi"))
				}
				task.DependsOn = append(task.DependsOn, d)
			}
			tasks = append(tasks, task)
		}
		spec := job.Spec{ID: "job", KeepOpen: true, Tasks: rapid.Permutation(tasks).Draw(t, "order"), MaxRunning: rapid.IntRange(0, 3).Draw(t, "running")}
		if rapid.IntRange(0, 4).Draw(t, "limited") == 0 {
			most := rapid.IntRange(0, 4).Draw(t, "failures")
			spec.MaxFailures = &most
		}
		w.apply(JobSubmitted{UID: "jjjj", Spec: spec})
		satisfied := func(d job.Dependency) bool {
			p := w.c.tasks[w.uid(d.Task)]
			r := d.Range
			if r == (job.Range{}) {
				r = p.spec.Range
			}
			return (&link{parent: p, want: r}).weigh() == linkMet
		}
		play := func() {
			w.serve(func(p Part) job.Result {
				for _, d := range p.Task.DependsOn {
					if !satisfied(d) {
						t.Fatalf("%s runs before %s", p.Task.ID, d)
					}
				}
				return job.Result{Range: p.Range, ExitCode: rapid.IntRange(0, 2).Draw(t, "exit") % 2}
			})
			for _, task := range tasks {
				s := w.status(w.uid(task.ID))
				if s.State != job.TaskCompleted {
					t.Fatalf("%s is %s and nothing moves: %v", task.ID, s.State, w.c.Waits(s.UID))
				}
				if s.Failed > 0 && s.LastAttempt == "" && (s.Last.Reason == nil || s.Last.Reason.Detail == "") {
					t.Fatalf("%s did not run and has no reason: %+v", task.ID, s.Last)
				}
			}
		}
		play()
		for range rapid.IntRange(0, 3).Draw(t, "again") {
			task := rapid.SampledFrom(tasks).Draw(t, "task")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				_, _ = w.try(TaskReactivated{Task: w.uid(task.ID)})
			case 1:
				_, _ = w.try(CancelRequested{Job: "jjjj", Task: w.uid(task.ID), Reason: job.Reason{Detail: "asked"}})
			default:
				_, _ = w.try(TaskReactivated{Task: w.uid(task.ID)})
				_, _ = w.try(CancelRequested{Job: "jjjj", Task: w.uid(rapid.SampledFrom(tasks).Draw(t, "other").ID), Reason: job.Reason{Detail: "asked"}})
			}
		}
		play()
		for _, task := range rapid.Permutation(tasks).Draw(t, "deleted") {
			w.apply(TaskDeleted{Task: w.uid(task.ID)})
		}
	})
}
