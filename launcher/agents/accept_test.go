package agents

import (
	"context"
	"net"
	"strings"
	"testing"

	"gangway/launcher/state"
)

// TestAcceptRefusesAKeptNode: an agent that joins under the name of a node that
// the launcher connects to must not take the node's place.
func TestAcceptRefusesAKeptNode(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	ours, theirs := net.Pipe()
	refused := make(chan error, 1)
	w.kept.Go(func() { refused <- w.fleet.Accept(t.Context(), "n", ours) })
	w.kept.Go(func() { w.conns <- theirs })
	b := w.agent()
	b.say(b.hello())
	if m := b.hear().GetWelcome(); !strings.Contains(m.GetError(), "--hosts") {
		t.Errorf("the second agent hears %v", m)
	}
	b.cut()
	if err := next(t, refused, "refusal"); err == nil || !strings.Contains(err.Error(), "--hosts") {
		t.Errorf("accepted: %v", err)
	}
	w.fleet.Want("n", nil)
	if d := a.hear().GetDesired(); !d.GetFull() {
		t.Errorf("the node's own session got %v", d)
	}
}

// TestReserve: a name is taken before Keep has begun.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	w.fleet.Reserve("n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := w.fleet.reserve("n"); !n.kept {
		t.Error("it is not kept")
	}
	w.fleet.Keep(ctx, "n") // ends at once
	if n := w.fleet.nodes["n"]; !n.kept || n.hangUp == nil {
		t.Errorf("kept is another: %+v", n)
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

// TestForgetEndsAccept: of a node that was removed nothing more is told, and one
// that comes back under its name is not taken for down.
func TestForgetEndsAccept(t *testing.T) {
	w := newWorld(t)
	connect := func() <-chan error {
		ours, theirs := net.Pipe()
		ended := make(chan error, 1)
		w.kept.Go(func() { ended <- w.fleet.Accept(t.Context(), "n", ours) })
		w.kept.Go(func() { w.conns <- theirs })
		w.begin()
		return ended
	}
	first := connect()
	w.fleet.Forget("n")
	second := connect()
	<-first
	select {
	case what := <-w.posted:
		t.Errorf("posted %+v of a node that was removed", what)
	default:
	}
	w.fleet.Forget("n")
	<-second
}

// TestFolders: what a node has of this cluster's jobs is told once a session.
func TestFolders(t *testing.T) {
	w := newWorld(t)
	told := make(chan []string, 2)
	w.fleet.cfg.Folders = func(_ string, f []string) { told <- f }
	ours, theirs := net.Pipe()
	w.kept.Go(func() { _ = w.fleet.Accept(t.Context(), "n", ours) })
	w.kept.Go(func() { w.conns <- theirs })
	a := w.agent()
	a.say(a.hello())
	a.hear()
	inv := inventory()
	inv.GetInventory().Folders = []string{"workitems/a/job-1"}
	a.say(inv)
	if got := next(t, told, "folders"); len(got) != 1 || got[0] != "workitems/a/job-1" {
		t.Errorf("told %q", got)
	}
	a.say(inventory()) // of changed claims
	for range 3 {
		if _, ok := next(t, w.posted, "news").(state.NodeClaims); ok {
			break
		}
	}
	if len(told) > 0 {
		t.Errorf("told again: %q", <-told)
	}
	w.fleet.Forget("n")
}
