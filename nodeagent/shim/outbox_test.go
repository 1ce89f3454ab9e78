package shim

import (
	"sync"
	"testing"
	"time"

	"gangway/nodeagent/wire"
)

// Whatever the pieces' size, a launcher that takes nothing stops their writers
// before they fill the memory, and all goes on when it does.
func TestOutboxIsBounded(t *testing.T) {
	for _, size := range []int{1, 100, chunkSize/4 + 1, chunkSize} {
		o := newOutbox("id", nil)
		o.most = 1 << 20
		const pieces = 5000
		buf := make([]byte, chunkSize)
		var wg sync.WaitGroup
		wg.Go(func() {
			for range pieces {
				data := buf[:size] // its buffer stays whole
				if size < chunkSize/4 {
					data = make([]byte, size)
				}
				o.write(0, wire.Stream_STREAM_STDOUT, data, false)
			}
		})
		held := func() (int, uint64) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.held, o.end
		}
		deadline := time.Now().Add(60 * time.Second)
		for end := uint64(0); end < uint64(pieces*size); {
			h, e := held()
			if h > o.most {
				t.Fatalf("pieces of %d bytes: %d bytes held", size, h)
			}
			if e == end && h > o.most-chunkSize-chunkCost-1 || e == uint64(pieces*size) {
				o.ack(e)
				end = e
			} else {
				end = min(e, uint64(pieces*size)-1)
			}
			if time.Now().After(deadline) {
				t.Fatalf("pieces of %d bytes: stuck at %d with %d held", size, e, h)
			}
		}
		wg.Wait()
		if h, e := held(); h != 0 || e != uint64(pieces*size) {
			t.Errorf("pieces of %d bytes: %d held of %d at the end", size, h, e)
		}
	}
}

func TestWindows(t *testing.T) {
	for nodes, want := range map[uint32]int{0: window, 1: window, 32: window, 64: 4 << 20, 1024: leastWindow, 1 << 20: leastWindow} {
		if got := windowFor(nodes); got != want {
			t.Errorf("%d nodes: %d, not %d", nodes, got, want)
		}
	}
}
