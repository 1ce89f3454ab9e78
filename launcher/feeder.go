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
	off     uint64 // of the next byte to read
	eof     bool
	stopped bool
	// kept is what was sent since keptAt: the shim has it for certain only
	// when its credit has moved a window past it.
	kept   []byte
	keptAt uint64
}

// stdinWindow is at least how far ahead of rank 0's reading a shim gives credit.
const stdinWindow = 256 << 10

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
	if f.upto > stdinWindow && f.upto-stdinWindow > f.keptAt {
		n := min(f.upto-stdinWindow-f.keptAt, uint64(len(f.kept)))
		f.kept = f.kept[n:]
		f.keptAt += n
	}
	f.more.Broadcast()
}

// again repeats what may have been lost with a session. The shim drops what it
// has already.
func (f *feeder) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.kept) > 0 || f.eof {
		f.send(f.keptAt, f.kept)
	}
}

// send is called with the lock held, so that pieces leave in order.
func (f *feeder) send(at uint64, data []byte) {
	f.fleet.Send(f.node, &wire.ToShim{Id: f.id, M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{
		Offset: at, Data: append([]byte(nil), data...), Eof: f.eof}}})
}

func (f *feeder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.more.Broadcast()
}

// read asks the user for bytes only when the shim has room for them: a gang
// that never reads leaves the user's stdin alone but for its first buffers.
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
		if f.stopped {
			f.mu.Unlock()
			return
		}
		at := f.off
		f.off += uint64(n)
		f.kept = append(f.kept, buf[:n]...)
		f.eof = err != nil
		if n > 0 || f.eof {
			f.send(at, buf[:n])
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}
