package state

import (
	"testing"

	"gangway/launcher/job"
)

// TestDestroyedNodeCanBeRemoved: what waits for a lost node has no lease, so that
// nothing but the removal of a node that was destroyed ends it.
func TestDestroyedNodeCanBeRemoved(t *testing.T) {
	w := newWorld(t)
	w.fleet(1, 1)
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "j",
		Tasks: []job.TaskSpec{{ID: "t", Command: []string{"x"}, OnNodeLoss: job.NodeLossWait}}}})
	w.plan()
	a := w.only(job.TaskUID("abcd", 0))
	node := a.Parts[0].Node
	w.apply(ShimReady{ID: a.ID, Node: node})
	w.apply(ShimStarted{ID: a.ID, Node: node})
	w.apply(NodeDrained{Node: node, On: true, Leave: true})
	refused := func(when string) {
		t.Helper()
		if _, err := w.try(NodeRemoved{Node: node}); err == nil {
			t.Fatalf("removed %s", when)
		}
	}
	refused("while it runs")
	w.apply(NodeLost{Node: node})
	refused("while its task waits for it")
	w.apply(CancelRequested{Job: "abcd"})
	if s := w.jobState("abcd"); s != job.JobTerminating {
		t.Fatalf("cancelled, the job is %s", s)
	}
	w.apply(NodeRemoved{Node: node})
	if s := w.jobState("abcd"); s != job.JobCompleted {
		t.Errorf("with the node gone, the job is %s", s)
	}
}
