package state

import (
	"testing"

	"gangway/launcher/job"
)

// TestNodeProbed: GPUs come and go while a node is up; what runs keeps its own.
func TestNodeProbed(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	submit := func(uid string) {
		w.submit(uid, job.TaskSpec{Command: []string{"x"}, Ranks: 1, CoresPerRank: 1, GPUsPerRank: 1})
	}
	gpus := func(g ...uint32) {
		w.apply(NodeProbed{Node: "n1", Topology: machine(4, 8<<30, "10.0.0.1"), GPUs: g})
	}
	submit("aaaa")
	if d := w.plan(); len(d.Place) != 1 || d.Place[0].Parts[0].GPUs[0] != 0 {
		t.Fatalf("%+v", d.Place)
	}
	gpus(0) // the other is broken
	submit("bbbb")
	if d := w.plan(); len(d.Place) != 0 {
		t.Errorf("a broken GPU was given out: %+v", d.Place)
	}
	gpus(65536) // the one in use is gone, a new one is there
	if d := w.plan(); len(d.Place) != 1 || d.Place[0].Parts[0].GPUs[0] != 65536 {
		t.Errorf("%+v", d.Place)
	}
	if _, err := w.try(NodeProbed{Node: "n9"}); err == nil {
		t.Error("an unknown node was probed")
	}
	w.apply(NodeAdded{Node: "n2"})
	if _, err := w.try(NodeProbed{Node: "n2"}); err == nil {
		t.Error("a node that was never up was probed again")
	}
}
