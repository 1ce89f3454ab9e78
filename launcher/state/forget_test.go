package state

import (
	"testing"

	"gangway/launcher/job"
)

// TestDecidedWithoutTheNode: what is settled while the shim may still live is
// ended there, not only forgotten.
func TestDecidedWithoutTheNode(t *testing.T) {
	for name, policy := range map[string]job.NodeLoss{"preparing": "", "lost": job.NodeLossWait} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fleet(1)
			_, task := w.submit("abcd", job.TaskSpec{Kind: job.Single, OnNodeLoss: policy})
			w.plan()
			a := w.only(task)
			if policy != "" {
				w.apply(ShimReady{ID: a.ID, Node: "n1"})
				w.apply(ShimStarted{ID: a.ID, Node: "n1"})
				w.apply(NodeDown{Node: "n1"})
				w.apply(NodeLost{Node: "n1"})
			}
			w.apply(CancelRequested{Job: "abcd"})
			if s := w.status(task); s.State != job.TaskCompleted {
				t.Fatalf("cancelled: %+v", s)
			}
			p := w.c.Desired("n1")[0]
			if p.Phase != PhaseForget || p.End.Code != job.FailCancelled {
				t.Fatalf("wanted in phase %d, end %q: the shim would live on", p.Phase, p.End.Code)
			}
			w.apply(AttemptResult{ID: a.ID, Node: "n1", Result: job.Result{ExitCode: 143}})
			if p := w.c.Desired("n1")[0]; p.Phase != PhaseForget || p.End.Code != "" {
				t.Errorf("after its result: phase %d, end %q", p.Phase, p.End.Code)
			}
		})
	}
}
