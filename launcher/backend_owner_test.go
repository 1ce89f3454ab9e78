package launcher

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

type noFleet struct{}

func (noFleet) Want(string, []state.Part) {}

// A request of bob's has passed the API's look at his job; by the time that the
// backend looks the job of that id is ann's.
func TestAnothersJobUnderAnIDThatWasMine(t *testing.T) {
	rows := store.NewMemory()
	if err := rows.Begin(1); err != nil {
		t.Fatal(err)
	}
	ctl := control.New(control.Config{Cluster: state.New("abcdefgh", 1), Store: rows, Fleet: noFleet{}, Log: slog.New(slog.DiscardHandler)})
	life, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ctl.Run(life) }()
	defer func() { stop(); <-ended }()
	b := &backend{ctl: ctl, history: rows, pool: "default", life: life}
	as := func(name string, r auth.Role) context.Context {
		return batchapi.WithPrincipal(t.Context(), batchapi.Principal{Name: name, Role: r})
	}
	ann, bob, ops := as("ann", auth.Submitter), as("bob", auth.Submitter), as("ops", auth.Admin)
	task := []job.TaskSpec{{ID: "t", Command: []string{"x"}}}
	if _, err := b.submit(ann, job.Spec{ID: "nightly", Owner: "ann", User: "ann", KeepOpen: true, Tasks: task}); err != nil {
		t.Fatal(err)
	}
	files := batchapi.FileRoot{Job: "nightly", Task: "t"}
	for what, do := range map[string]func(context.Context) error{
		"get":       func(c context.Context) error { _, err := b.Job(c, "nightly"); return err },
		"add tasks": func(c context.Context) error { _, _, err := b.AddTasks(c, "Nightly", task); return err },
		"tasks": func(c context.Context) error {
			_, err := b.Tasks(c, "nightly", batchapi.TaskQuery{Limit: 1})
			return err
		},
		"task":       func(c context.Context) error { _, err := b.Task(c, "nightly", "t"); return err },
		"counts":     func(c context.Context) error { _, err := b.TaskCounts(c, "nightly"); return err },
		"explain":    func(c context.Context) error { _, err := b.Explain(c, "nightly", "t"); return err },
		"read":       func(c context.Context) error { _, err := b.ReadFile(c, files, "stdout.txt", 0, 1); return err },
		"terminate":  func(c context.Context) error { return b.TerminateTask(c, "nightly", "t", 0) },
		"disable":    func(c context.Context) error { return b.DisableJob(c, "nightly", 0, batchapi.DisableWait) },
		"delete job": func(c context.Context) error { return b.DeleteJob(c, "nightly", 0) },
	} {
		var no *batchapi.NotFound
		if err := do(bob); !errors.As(err, &no) || no.Kind != batchapi.KindJob {
			t.Errorf("%s: %v, want that there is no such job", what, err)
		}
	}
	if _, err := b.Task(ops, "nightly", "t"); err != nil {
		t.Errorf("an administrator: %v", err)
	}
	if j, err := b.Job(ann, "nightly"); err != nil || j.State != batchapi.JobActive {
		t.Errorf("the owner: state %s, %v", j.State, err)
	}
}
