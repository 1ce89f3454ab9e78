package state

import (
	"strings"
	"testing"

	"gangway/launcher/job"
)

// TestUnreadResult: what may have finished is not run again by itself; what was
// lost for certain is.
func TestUnreadResult(t *testing.T) {
	for name, c := range map[string]struct {
		unread, cut bool
		again       bool
	}{
		"lost":                      {again: true},
		"unread":                    {unread: true},
		"lost, the node given up":   {cut: true, again: true},
		"unread, the node given up": {unread: true, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fleet(1)
			_, task := w.submit("abcd", job.TaskSpec{Kind: job.Single})
			w.plan()
			a := w.only(task)
			w.apply(ShimReady{ID: a.ID, Node: "n1"})
			w.apply(ShimStarted{ID: a.ID, Node: "n1"})
			if c.cut {
				w.apply(NodeDown{Node: "n1"})
				w.apply(NodeLost{Node: "n1"})
			}
			w.apply(ShimGone{ID: a.ID, Node: "n1", Why: "its result can't be read: io", Unread: c.unread})
			s := w.status(task)
			if again := s.State != job.TaskCompleted; again != c.again {
				t.Fatalf("%+v: again %t, want %t", s, again, c.again)
			}
			if c.unread && !c.cut {
				if s.Last == nil || s.Last.Reason == nil || s.Last.Reason.Code != job.FailShimLost || !strings.Contains(s.Last.Reason.String(), "can't be read: io") {
					t.Errorf("it says %+v", s.Last)
				}
			}
		})
	}
}
