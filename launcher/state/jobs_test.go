package state

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gangway/launcher/job"
)

// open submits a job that stays open, with one task for each id.
func (w *world) open(uid string, ids ...string) {
	w.t.Helper()
	spec := job.Spec{ID: "J-" + uid, KeepOpen: true}
	for _, id := range ids {
		spec.Tasks = append(spec.Tasks, job.TaskSpec{ID: id, Command: []string{"x"}})
	}
	w.apply(JobSubmitted{UID: uid, Spec: spec, Unique: true})
}

func (w *world) jobState(uid string) job.JobState {
	w.t.Helper()
	if j := w.c.jobs[uid]; j != nil {
		return j.state()
	}
	return "none"
}

func TestTasksAreAddedToAnOpenJob(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.open("abcd")
	if s := w.jobState("abcd"); s != job.JobActive {
		t.Fatalf("an empty open job is %s", s)
	}
	add := func(id string) error {
		_, err := w.try(TasksAdded{Job: "abcd", Tasks: []job.TaskSpec{{ID: id, Command: []string{"x"}}}})
		return err
	}
	if err := add("One"); err != nil {
		t.Fatal(err)
	}
	var exists *ExistsError
	if err := add("oNE"); !errors.As(err, &exists) {
		t.Errorf("an id that differs by its case: %v, want ExistsError", err)
	}
	if _, err := w.try(JobSubmitted{UID: "efgh", Spec: job.Spec{ID: "j-ABCD", KeepOpen: true}, Unique: true}); !errors.As(err, &exists) {
		t.Errorf("a second job of the id: %v, want ExistsError", err)
	}
	w.serve(good)
	if s, _ := w.c.TaskByID("j-abcd", "one"); s.State != job.TaskCompleted || s.Succeeded != 1 || s.LastAttempt == "" {
		t.Errorf("the task: %+v", s)
	}
	if s := w.jobState("abcd"); s != job.JobActive {
		t.Errorf("the job is %s after its tasks, want it open", s)
	}
	w.apply(CancelRequested{Job: "abcd"})
	if s := w.jobState("abcd"); s != job.JobCompleted {
		t.Errorf("terminated with nothing left, it is %s", s)
	}
	var closed *ClosedError
	if err := add("two"); !errors.As(err, &closed) || !strings.Contains(err.Error(), "completed") {
		t.Errorf("a task for a completed job: %v", err)
	}
}

func TestHeldJobs(t *testing.T) {
	for _, c := range []struct {
		running  HeldRunning
		held     job.JobState // right after
		attempts int          // of the task in the end
		good     bool
	}{
		{HeldWait, job.JobDisabling, 1, true},
		{HeldRequeue, job.JobDisabling, 2, true},
		{HeldTerminate, job.JobDisabling, 1, false},
	} {
		w := newWorld(t)
		w.fleet(4)
		w.open("abcd", "run")
		w.plan()
		a := w.only("abcd-0")
		w.apply(ShimReady{ID: a.ID, Node: "n1"})
		w.apply(ShimStarted{ID: a.ID, Node: "n1"})
		w.apply(JobHeld{Job: "abcd", On: true, Running: c.running})
		w.apply(TasksAdded{Job: "abcd", Tasks: []job.TaskSpec{{ID: "more", Command: []string{"x"}}}})
		if s := w.jobState("abcd"); s != c.held {
			t.Errorf("%s: the job is %s, want %s", c.running, s, c.held)
		}
		if n := len(w.planOnly()); n > 0 {
			t.Errorf("%s: %d tasks of a held job are placed", c.running, n)
		}
		r := job.Result{FirstRank: -1, Range: job.Range{Hi: 1}}
		if c.running != HeldWait { // it was told to end
			r.Signal, r.Failure = 15, &job.Reason{Code: job.FailCancelled}
		}
		w.apply(AttemptResult{ID: a.ID, Node: "n1", Result: r})
		if d := w.c.Desired("n1"); len(d) != 1 || d[0].Phase != PhaseForget {
			t.Errorf("%s: after its result the shim is not let go: %+v", c.running, d)
		}
		w.apply(ShimGone{ID: a.ID, Node: "n1"})
		if s := w.jobState("abcd"); s != job.JobDisabled {
			t.Errorf("%s: with nothing live the job is %s", c.running, s)
		}
		w.apply(JobHeld{Job: "abcd"})
		w.serve(good)
		s := w.status("abcd-0")
		if s.State != job.TaskCompleted || (s.Succeeded == 1) != c.good || int(job.AttemptNumber(s.LastAttempt)) != c.attempts {
			t.Errorf("%s: in the end %+v, want %d attempts, success %t", c.running, s, c.attempts, c.good)
		}
		if s := w.status("abcd-1"); s.Succeeded != 1 {
			t.Errorf("%s: what was added meanwhile: %+v", c.running, s)
		}
	}
}

func TestReactivation(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.open("abcd", "t")
	var closed *ClosedError
	if _, err := w.try(TaskReactivated{Task: "abcd-0"}); !errors.As(err, &closed) {
		t.Errorf("an active task: %v, want ClosedError", err)
	}
	w.plan()
	a := w.only("abcd-0")
	w.apply(ShimReady{ID: a.ID, Node: "n1"})
	w.apply(AttemptResult{ID: a.ID, Node: "n1", Result: job.Result{Range: job.Range{Hi: 1}, ExitCode: 3, FirstRank: -1}})
	w.apply(ShimGone{ID: a.ID, Node: "n1"})
	if s := w.status("abcd-0"); s.Failed != 1 {
		t.Fatalf("%+v", s)
	}
	w.apply(TaskReactivated{Task: "abcd-0"})
	if s := w.status("abcd-0"); s.State != job.TaskActive || s.Failed != 0 {
		t.Fatalf("reactivated: %+v", s)
	}
	w.serve(good)
	if s := w.status("abcd-0"); s.Succeeded != 1 || s.LastAttempt == a.ID {
		t.Errorf("in the end: %+v", s)
	}
	if _, err := w.try(TaskReactivated{Task: "abcd-0"}); !errors.As(err, &closed) {
		t.Errorf("a task that succeeded: %v, want ClosedError", err)
	}
}

// TestReactivationWaitsForTheEnd: a task that failed because its node was lost may
// still run there.
func TestReactivationWaitsForTheEnd(t *testing.T) {
	w := newWorld(t)
	w.fleet(1, 1)
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "j", KeepOpen: true, Session: true,
		Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}, OnNodeLoss: job.NodeLossFail}}}})
	task := job.TaskUID("abcd", 0)
	w.plan()
	a := w.only(task)
	w.apply(ShimReady{ID: a.ID, Node: a.Parts[0].Node})
	w.apply(NodeLost{Node: a.Parts[0].Node})
	if s := w.status(task); s.Failed != 1 {
		t.Fatalf("lost: %+v", s)
	}
	var closed *ClosedError
	if _, err := w.try(TaskReactivated{Task: task}); !errors.As(err, &closed) {
		t.Fatalf("reactivated while it may run: %v, want ClosedError", err)
	}
	w.apply(NodeGone{Node: a.Parts[0].Node})
	w.apply(TaskReactivated{Task: task})
	w.plan()
	if b := w.only(task); b.ID == a.ID {
		t.Errorf("attempt %s twice", b.ID)
	}
}

func TestDeletedIsForgottenOnceNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.open("abcd", "one", "two")
	w.open("abce", "other")
	w.plan()
	a := w.only("abcd-0")
	w.apply(TaskDeleted{Task: "abcd-0"})
	if _, ok := w.c.TaskByID("J-abcd", "one"); !ok {
		t.Error("a task was forgotten while its attempt lives")
	}
	w.apply(ShimGone{ID: a.ID, Node: "n1"})
	if _, ok := w.c.TaskByID("J-abcd", "one"); ok {
		t.Error("the task is still there")
	}
	w.apply(JobDeleted{Job: "abcd"})
	if s := w.jobState("abcd"); s != job.JobDeleting {
		t.Errorf("the job is %s while an attempt lives", s)
	}
	w.serve(good)
	if s := w.jobState("abcd"); s != "none" {
		t.Errorf("the job is %s, want it forgotten", s)
	}
	for key := range w.rows {
		if strings.Contains(key, "/abcd") {
			t.Errorf("row %s is left", key)
		}
	}
	if s := w.status("abce-0"); s.State != job.TaskCompleted {
		t.Errorf("another job's task: %+v", s)
	}
	w.open("abcf") // the id of a deleted job may be used again
	w.apply(JobSubmitted{UID: "zzzz", Spec: job.Spec{ID: "J-abcd", KeepOpen: true}, Unique: true})
}

func TestOverdueJobs(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "a", KeepOpen: true, MaxTime: time.Hour}})
	w.apply(JobSubmitted{UID: "efgh", Spec: job.Spec{ID: "b", KeepOpen: true}})
	uids, next := w.c.Overdue(w.now)
	if len(uids) > 0 || !next.After(w.now.Add(59*time.Minute)) {
		t.Errorf("at once: %v, next %v", uids, next)
	}
	if uids, _ := w.c.Overdue(w.now.Add(time.Hour)); len(uids) != 1 || uids[0] != "abcd" {
		t.Errorf("after an hour: %v", uids)
	}
}

func TestPriorityMovesAJob(t *testing.T) {
	w := newWorld(t)
	w.fleet(1)
	w.open("abcd", "t")
	w.open("efgh", "t")
	high := 5
	w.apply(JobChanged{Job: "efgh", Priority: &high})
	if p := w.planOnly(); len(p) != 1 || p[0].Task != "efgh-0" {
		t.Errorf("placed first: %+v", p)
	}
	too := 5000
	if _, err := w.try(JobChanged{Job: "efgh", Priority: &too}); err == nil {
		t.Error("a priority out of range was taken")
	}
}
