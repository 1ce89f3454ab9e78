package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"gangway/launcher/agents"
	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

type noFleet struct{}

func (noFleet) Want(string, []state.Part) {}

// as is the context of a request of somebody.
func as(t *testing.T, name string, r auth.Role) context.Context {
	return batchapi.WithPrincipal(t.Context(), batchapi.Principal{Name: name, Role: r})
}

// bare is a backend without nodes.
func bare(t *testing.T) *backend {
	rows := store.NewMemory()
	if err := rows.Begin(1); err != nil {
		t.Fatal(err)
	}
	b := &backend{history: rows, elementsPast: history.New(rows), pool: "default", fleet: agents.New(agents.Config{Log: slog.New(slog.DiscardHandler)})}
	b.ctl = control.New(control.Config{Cluster: state.New("abcdefgh", 1), Store: rows, Fleet: noFleet{}, Log: slog.New(slog.DiscardHandler), Notice: b.ended})
	life, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.ctl.Run(life) }()
	t.Cleanup(func() { stop(); <-ended })
	b.life = life
	return b
}

// A request of bob's has passed the API's look at his job; by the time that the
// backend looks the job of that id is ann's.
func TestAnothersJobUnderAnIDThatWasMine(t *testing.T) {
	b := bare(t)
	ann, bob, ops := as(t, "ann", auth.Submitter), as(t, "bob", auth.Submitter), as(t, "ops", auth.Admin)
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
		"autopsy":    func(c context.Context) error { _, err := b.Autopsy(c, "nightly", "t", 0); return err },
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

// An array is taken however it comes in, and costs its row alone.
func TestArraysAreTaken(t *testing.T) {
	b := bare(t)
	ann := as(t, "ann", auth.Submitter)
	if _, err := b.AddJob(ann, batchapi.NewJob{ID: "j", JobSettings: batchapi.JobSettings{Pool: "default"}, Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	array := job.TaskSpec{ID: "a", Kind: job.Single, Ranks: 1, Command: []string{"true"}, Range: job.Range{Lo: 1, Hi: 1_000_001}}
	if _, errs, err := b.AddTasks(ann, "j", []job.TaskSpec{array}); err != nil || errs[0] != nil {
		t.Errorf("by Batch: %v, %v", errs, err)
	}
	if _, err := b.submitSpec(ann, batchapi.Principal{Name: "ann"}, job.Spec{ID: "k", Tasks: []job.TaskSpec{array}}); err != nil {
		t.Errorf("by gangway submit: %v", err)
	}
	must(t, b, state.Decided(func(c *state.Cluster) (state.What, error) {
		if n := c.Counts().Pending; n != 2_000_000 {
			t.Errorf("%d elements wait", n)
		}
		return nil, nil
	}))
}

// What holds the cores that bob's tasks wait for is not his business.
func TestReasonsNameNoOthersTasks(t *testing.T) {
	b := bare(t)
	must(t, b, nodeUp("n1")...)
	ann, bob, ops := as(t, "ann", auth.Submitter), as(t, "bob", auth.Submitter), as(t, "ops", auth.Admin)
	tasks := []job.TaskSpec{{ID: "t1", Command: []string{"x"}}, {ID: "t2", Command: []string{"x"}}}
	for _, s := range []job.Spec{{ID: "merger", Owner: "ann", Tasks: tasks}, {ID: "mine", Owner: "bob", Tasks: tasks}} {
		if _, err := b.submit(ann, s); err != nil {
			t.Fatal(err)
		}
	}
	said := func(ctx context.Context, task string) string {
		e, err := b.Explain(ctx, "mine", task)
		if err != nil || e.Reason == nil {
			t.Fatalf("%s: %+v, %v", task, e, err)
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	all := ""
	for _, task := range []string{"t1", "t2"} {
		all += said(ops, task)
		if s := said(bob, task); strings.Contains(s, "merger") {
			t.Errorf("bob is told %s", s)
		}
	}
	if !strings.Contains(all, "merger") {
		t.Errorf("an administrator is told %s", all)
	}
}
