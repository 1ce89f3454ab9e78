package launcher

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/launcher/agents"
	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
	"gangway/topology"
)

// nodeUp is how a node of one core comes.
func nodeUp(name string) []state.What {
	total := uint64(1 << 30)
	n := topology.Node{Hostname: name, Memory: topology.Memory{Total: &total}, Cores: []topology.Core{{PUs: topology.NewCPUSet(0)}},
		Online: topology.NewCPUSet(0), Allowed: topology.NewCPUSet(0)}
	return []state.What{state.NodeAdded{Node: name}, state.NodeUp{Node: name, Agent: "a", Boot: "b", Topology: n}, state.Inventory{Node: name}}
}

// ending is how an attempt of one part runs to its end.
func ending(a *job.AttemptRow, node string, r job.Result) []state.What {
	r.Range = a.Try.Range
	return []state.What{state.ShimReady{ID: a.ID, Node: node}, state.ShimStarted{ID: a.ID, Node: node},
		state.AttemptResult{ID: a.ID, Node: node, Result: r}, state.ShimGone{ID: a.ID, Node: node}}
}

// must applies events.
func must(t *testing.T, b *backend, events ...state.What) {
	t.Helper()
	for _, what := range events {
		if err := b.do(t.Context(), what); err != nil {
			t.Fatalf("%T: %v", what, err)
		}
	}
}

// runs lets the task "t" of a job run to its end on a node.
func runs(t *testing.T, b *backend, jobID, node string, r job.Result) {
	t.Helper()
	// What was asked for is placed before the applier looks at its next event.
	v, err := b.view(t.Context(), jobID, "t")
	if err != nil || v.attempt == nil {
		t.Fatalf("task t of %s has no attempt: %+v, %v", jobID, v, err)
	}
	must(t, b, ending(v.attempt, node, r)...)
}

// Files are asked of a node that is away (try again), and of one that was removed
// (they are not there any more).
func TestFilesOfARemovedNode(t *testing.T) {
	b := bare(t)
	b.fleet = agents.New(agents.Config{Log: slog.New(slog.DiscardHandler)})
	must(t, b, nodeUp("n1")...)
	url := apiOf(t, b)
	if _, err := b.submit(t.Context(), job.Spec{ID: "j", Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}}}}); err != nil {
		t.Fatal(err)
	}
	runs(t, b, "j", "n1", job.Result{})
	paths := []string{"/jobs/j/tasks/t/files/stdout.txt", "/jobs/j/tasks/t/files", "/gangway/v1/jobs/j/tasks/t/files/stdout.txt", "/pools/default/nodes/n1/files", "/pools/default/nodes/n1/files/a"}
	ask := func(status int, code string) {
		t.Helper()
		for _, p := range paths {
			if got, out := send(t, "GET", url+p, "", nil); got != status || out["code"] != code {
				t.Errorf("%s: %d %v, want %d %s", p, got, out, status, code)
			}
		}
	}
	ask(503, "ServerBusy")
	must(t, b, state.NodeDrained{Node: "n1", On: true, Leave: true}, state.NodeRemoved{Node: "n1"})
	ask(404, "NodeNotFound")
	if got, out := send(t, "DELETE", url+paths[0], "", nil); got != 404 || out["code"] != "NodeNotFound" {
		t.Errorf("deleting: %d %v", got, out)
	}
}

// What is kept of an attempt that has just ended, and what the history tells of it
// later, is the same; and a task that has only history behind it can be changed.
func TestTasksWithHistory(t *testing.T) {
	b := bare(t)
	b.fleet = agents.New(agents.Config{Log: slog.New(slog.DiscardHandler)})
	must(t, b, nodeUp("n1")...)
	url := apiOf(t, b)
	if _, err := b.submit(t.Context(), job.Spec{ID: "j", KeepOpen: true, Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}}}}); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 9, 0, 0, 5, time.UTC)
	runs(t, b, "j", "n1", job.Result{ExitCode: 3, Start: at, End: at.Add(time.Minute), Ranks: []job.RankExit{{LastStderr: "no\n"}}})
	list := func() batchapi.Task {
		t.Helper()
		all, err := b.Tasks(t.Context(), "j", batchapi.TaskQuery{Limit: 10})
		if err != nil || len(all) != 1 {
			t.Fatalf("%d tasks, %v", len(all), err)
		}
		return all[0]
	}
	rows := b.history
	b.history = store.NewMemory() // which knows nothing
	kept := list()
	b.history, b.recalled = rows, recalled{}
	if read := list(); !cmp.Equal(kept, read, cmpopts.EquateEmpty()) || len(b.recalled.young) != 1 {
		t.Errorf("kept and read differ:\n%s", cmp.Diff(kept, read))
	}
	b.recalled = recalled{}
	if err := b.readAhead(t.Context()); err != nil || len(b.recalled.young) != 1 {
		t.Errorf("read ahead: %d attempts, %v", len(b.recalled.young), err)
	}
	if kept.Run.Node != "n1" || !kept.Run.Started.Equal(at) || kept.Run.Exit == nil || *kept.Run.Exit != 3 || kept.Run.Folder == "" {
		t.Errorf("%+v", kept.Run)
	}
	x, err := b.Explain(t.Context(), "j", "t")
	if err != nil || len(x.Autopsy) != 1 || x.Autopsy[0].Stderr[0] != "no" {
		t.Errorf("explained: %+v, %v", x, err)
	}

	must(t, b, state.NodeDrained{Node: "n1", On: true}) // so that it waits
	if status, out := send(t, "POST", url+"/jobs/j/tasks/t/reactivate", "", nil); status != 204 {
		t.Fatalf("reactivating: %d %v", status, out)
	}
	_, seen := send(t, "GET", url+"/jobs/j/tasks/t", "", nil)
	if seen["state"] != "active" {
		t.Fatalf("%v", seen)
	}
	for _, headers := range [][]string{{"If-Match: " + seen["eTag"].(string)}, nil} {
		if status, out := send(t, "PUT", url+"/jobs/j/tasks/t", `{"constraints":{"maxTaskRetryCount":2}}`, nil, headers...); status != 200 {
			t.Errorf("%v: %d %v", headers, status, out)
		}
	}
}
