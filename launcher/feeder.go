package launcher

import (
	"io"
	"sync"

	"gangway/launcher/agents"
	"gangway/nodeagent/wire"
)

// feeder reads the user's stdin and sends it to the shim of rank 0 as far as
// the shim allows. Its reader can't be interrupted: a Read of a terminal
// blocks until the process ends, so stop does not wait for it.
type feeder struct {
	node, id string
	fleet    *agents.Fleet

	mu      sync.Mutex
	more    *sync.Cond
	upto    uint64
	off     uint64
	stopped bool
}

func newFeeder(r io.Reader, node, id string, fleet *agents.Fleet) *feeder {
	f := &feeder{node: node, id: id, fleet: fleet}
	f.more = sync.NewCond(&f.mu)
	go f.read(r)
	return f
}

func (f *feeder) credit(upto uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.upto = max(f.upto, upto)
	f.more.Broadcast()
}

func (f *feeder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.more.Broadcast()
}

// read asks the user for bytes only when the shim has room for them: a gang
// that never reads leaves the user's stdin alone but for one buffer.
func (f *feeder) read(r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		f.mu.Lock()
		for f.upto <= f.off && !f.stopped {
			f.more.Wait()
		}
		room := f.upto - f.off
		stopped := f.stopped
		f.mu.Unlock()
		if stopped {
			return
		}
		n, err := r.Read(buf[:min(uint64(len(buf)), room)])
		f.mu.Lock()
		stopped = f.stopped
		at := f.off
		f.off += uint64(n)
		f.mu.Unlock()
		if stopped {
			return
		}
		if n > 0 || err != nil {
			f.fleet.Send(f.node, &wire.ToShim{Id: f.id, M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{
				Offset: at, Data: append([]byte(nil), buf[:n]...), Eof: err != nil}}})
		}
		if err != nil {
			return
		}
	}
}
