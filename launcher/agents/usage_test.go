package agents

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
)

// TestUsage: the last sample of a node is there, also when its session is over.
func TestUsage(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	if _, ok := w.fleet.UsageOf("n"); ok {
		t.Error("a sample before the first")
	}
	for _, v := range []float64{10, 20} {
		a.say(&wire.AgentMessage{M: &wire.AgentMessage_Usage{Usage: &wire.Usage{CpuPercent: proto.Float64(v), MemoryUsed: proto.Uint64(7)}}})
	}
	a.say(inventory()) // which is posted behind them
	next(t, w.posted, "claims")
	if v := w.fleet.Version("n"); v != "test" {
		t.Errorf("version %q", v)
	}
	a.cut()
	if _, ok := next(t, w.posted, "end of the session").(state.NodeDown); !ok {
		t.Fatal("the session goes on")
	}
	u, ok := w.fleet.UsageOf("n")
	if !ok || u.CPUPercent == nil || *u.CPUPercent != 20 || u.MemoryUsed == nil || *u.MemoryUsed != 7 || u.Load1 != nil || u.At.IsZero() {
		t.Errorf("usage %+v", u)
	}
	if all := w.fleet.Usage(); len(all) != 1 || all["n"] != u {
		t.Errorf("all: %v", all)
	}
	if _, ok := w.fleet.UsageOf("other"); ok || w.fleet.Version("other") != "" {
		t.Error("a node that is not there has news")
	}
}

func TestRetentionOf(t *testing.T) {
	for d, want := range map[int64]uint64{-1: 0, 0: 7 * 24 * 3600 * 1000, 1: 1, 2_000_000: 2} {
		if got := retentionOf(&job.TaskSpec{Retention: time.Duration(d)}); got != want {
			t.Errorf("retention of %d ns: %d ms, want %d", d, got, want)
		}
	}
}
