package agents

import (
	"net"
	"strings"
	"testing"
)

// TestAcceptRefusesAKeptNode: an agent that joins under the name of a node that
// the launcher connects to must not take the node's place.
func TestAcceptRefusesAKeptNode(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if err := w.fleet.Accept(t.Context(), "n", ours); err == nil || !strings.Contains(err.Error(), "--hosts") {
		t.Errorf("accepted: %v", err)
	}
	if _, err := theirs.Write([]byte("x")); err == nil {
		t.Error("the connection is open still")
	}
	w.fleet.Want("n", nil)
	if d := a.hear().GetDesired(); !d.GetFull() {
		t.Errorf("the node's own session got %v", d)
	}
}

// TestForgetEndsKeep: a node that was removed is not connected to again.
func TestForgetEndsKeep(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	w.fleet.Forget("n")
	w.kept.Wait()
	for {
		if _, err := a.stream.Receive(); err != nil {
			break // heartbeats may come before
		}
	}
	select {
	case what := <-w.posted:
		t.Errorf("posted %+v of a node that is no longer there", what)
	default:
	}
}
