package launcher

import (
	"testing"

	"gangway/launcher/agents"
	"gangway/nodeagent/wire"
)

// A node whose connection comes and goes repeats what nobody has taken: the queue
// of a reader that has stopped keeps one copy of it.
func TestRepeatedOutputIsQueuedOnce(t *testing.T) {
	rec := &recorder{first: make(chan struct{})}
	tr := newTraffic(&run{cfg: RunConfig{Out: rec}, fleet: agents.New(agents.Config{})})
	const pieces, size = 8, 1000
	for range 50 { // connections
		for i := range pieces {
			tr.FromShim("n1", &wire.FromShim{Id: "a", M: &wire.FromShim_Output{Output: &wire.Output{Offset: uint64(i * size), Data: make([]byte, size)}}})
		}
	}
	if len(tr.queue) != pieces {
		t.Errorf("%d pieces in the queue, want %d", len(tr.queue), pieces)
	}
	tr.stop()
	tr.print()
	if got := rec.out.Len(); got != pieces*size {
		t.Errorf("%d bytes printed, want %d", got, pieces*size)
	}
}
