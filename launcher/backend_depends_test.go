package launcher

import (
	"errors"
	"testing"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/job"
)

// TestDependenciesOfACollection: tasks may be added before those that they depend
// on; one that closes a cycle does not keep the others out. Explain says what a task
// waits for, and why it ended without having run.
func TestDependenciesOfACollection(t *testing.T) {
	b := bare(t)
	ann := as(t, "ann", auth.Submitter)
	if _, err := b.AddJob(ann, batchapi.NewJob{ID: "j", JobSettings: batchapi.JobSettings{Pool: "default"}, Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	task := func(id string, on ...string) job.TaskSpec {
		s := job.TaskSpec{ID: id, Command: []string{"x"}}
		for _, d := range on {
			s.DependsOn = append(s.DependsOn, job.Dependency{Task: d})
		}
		return s
	}
	added, errs, err := b.AddTasks(ann, "j", []job.TaskSpec{task("c", "b"), task("b", "a"), task("z", "z")})
	var wrong job.Problems
	if err != nil || errs[0] != nil || errs[1] != nil || !errors.As(errs[2], &wrong) || added[1].ID != "b" {
		t.Fatalf("%v %v", errs, err)
	}
	_, errs, err = b.AddTasks(ann, "j", []job.TaskSpec{task("a", "c"), task("y")})
	if err != nil || !errors.As(errs[0], &wrong) || errs[1] != nil {
		t.Fatalf("a cycle: %v %v", errs, err)
	}
	explain := func(id, want string, code job.Code) {
		t.Helper()
		e, err := b.Explain(ann, "j", id)
		if err != nil || e.Reason == nil || e.Reason.Code != code || e.Sentence != want {
			t.Errorf("%s: %v %+v %q", id, err, e.Reason, e.Sentence)
		}
	}
	explain("b", "waits for 1 of 1 tasks: a (not in the job yet)", job.WaitDepends)
	if _, errs, err := b.AddTasks(ann, "j", []job.TaskSpec{task("a")}); err != nil || errs[0] != nil {
		t.Fatalf("%v %v", errs, err)
	}
	explain("b", "waits for 1 of 1 tasks: a (active)", job.WaitDepends)
	if err := b.TerminateTask(ann, "j", "a", 0); err != nil {
		t.Fatal(err)
	}
	got, err := b.Task(ann, "j", "c")
	if err != nil || got.State != job.TaskCompleted || got.Run.Failure == nil || got.Run.Failure.Code != job.FailParent {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := b.ReactivateTask(ann, "j", "c", 0); err == nil {
		t.Error("c was reactivated, though what it depends on has failed")
	}
	if err := b.ReactivateTask(ann, "j", "a", 0); err != nil {
		t.Fatal(err)
	}
	explain("c", "waits for 1 of 1 tasks: b (active)", job.WaitDepends)
}
