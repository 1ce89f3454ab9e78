package launcher

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/batchapi"
)

// Why a node is not there is told until it is.
func TestUnreachedNodesSayWhy(t *testing.T) {
	var u unreached
	u.failed("n1", errors.New("no route to host"))
	u.failed("n1", errors.New("connection refused"))
	u.failed("n3", errors.New("no route to host"))
	u.connected("n3")
	for _, c := range []struct {
		node, state string
		want        []batchapi.Failure
	}{
		{"n1", "starting", []batchapi.Failure{{Code: "NodeUnreachable", Message: "connection refused"}}},
		{"n1", "unknown", []batchapi.Failure{{Code: "NodeUnreachable", Message: "connection refused"}}},
		{"n1", "idle", nil},
		{"n2", "starting", nil},
		{"n3", "unknown", nil},
	} {
		n := batchapi.Node{ID: c.node, State: c.state}
		u.tell(&n)
		if d := cmp.Diff(c.want, n.Errors); d != "" {
			t.Errorf("%s %s: %s", c.node, c.state, d)
		}
	}
}
