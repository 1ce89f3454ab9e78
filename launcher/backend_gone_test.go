package launcher

import (
	"log/slog"
	"testing"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/topology"
)

// oneCore adds a node of one core that is up.
func oneCore(t *testing.T, b *backend, name string) {
	t.Helper()
	total := uint64(1 << 30)
	n := topology.Node{Hostname: name, Memory: topology.Memory{Total: &total}, Cores: []topology.Core{{PUs: topology.NewCPUSet(0)}},
		Online: topology.NewCPUSet(0), Allowed: topology.NewCPUSet(0)}
	for _, what := range []state.What{state.NodeAdded{Node: name}, state.NodeUp{Node: name, Agent: "a", Boot: "b", Topology: n}, state.Inventory{Node: name}} {
		if err := b.do(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
}

// runs lets the task "t" of a job run to its end on a node, and returns its attempt.
func runs(t *testing.T, b *backend, jobID, node string) string {
	t.Helper()
	// What was asked for is placed before the applier looks at its next event.
	v, err := b.view(t.Context(), jobID, "t")
	if err != nil || v.attempt == nil {
		t.Fatalf("task t of %s has no attempt: %+v, %v", jobID, v, err)
	}
	id := v.attempt.ID
	for _, what := range []state.What{state.ShimReady{ID: id, Node: node}, state.ShimStarted{ID: id, Node: node},
		state.AttemptResult{ID: id, Node: node, Result: job.Result{Range: v.attempt.Try.Range}}, state.ShimGone{ID: id, Node: node}} {
		if err := b.do(t.Context(), what); err != nil {
			t.Fatalf("%T: %v", what, err)
		}
	}
	return id
}

// Files are asked of a node that is away (try again), and of one that was removed
// (they are not there any more).
func TestFilesOfARemovedNode(t *testing.T) {
	b := bare(t)
	b.fleet = agents.New(agents.Config{Log: slog.New(slog.DiscardHandler)})
	oneCore(t, b, "n1")
	url := apiOf(t, b)
	if _, err := b.submit(t.Context(), job.Spec{ID: "j", Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}}}}); err != nil {
		t.Fatal(err)
	}
	runs(t, b, "j", "n1")
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
	if err := b.do(t.Context(), state.NodeDrained{Node: "n1", On: true, Leave: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.do(t.Context(), state.NodeRemoved{Node: "n1"}); err != nil {
		t.Fatal(err)
	}
	ask(404, "NodeNotFound")
	if got, out := send(t, "DELETE", url+paths[0], "", nil); got != 404 || out["code"] != "NodeNotFound" {
		t.Errorf("deleting: %d %v", got, out)
	}
}
