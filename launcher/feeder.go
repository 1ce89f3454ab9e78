package launcher

import (
	"io"
	"sync"

	"gangway/nodeagent/wire"
)

// feeder reads the user's stdin and sends it to the shim of rank 0 as far as
// the shim allows. Its reader can't be interrupted: a Read of a terminal
// blocks until the process ends, so stop does not wait for it.
type feeder struct {
	to sender

	mu       sync.Mutex
	more     *sync.Cond
	node, id string // part that is fed
	upto     uint64
	off      uint64 // of the next byte to send
	eof      bool   // there is no more to read
	ended    bool   // and the part was told so
	stopped  bool
	// kept is what was sent since keptAt: the shim has it for certain only
	// when its credit has moved a window past it.
	kept   []byte
	keptAt uint64
}

// sender carries messages to shims; agents.Fleet is one.
type sender interface {
	Send(node string, m *wire.ToShim)
}

// stdinWindow is at least how far ahead of rank 0's reading a shim gives credit.
const stdinWindow = 256 << 10

func newFeeder(r io.Reader, node, id string, to sender) *feeder {
	f := &feeder{node: node, id: id, to: to}
	f.more = sync.NewCond(&f.mu)
	go f.read(r)
	return f
}

// used reports whether some of the input was sent, so that another attempt
// can't have all of it.
func (f *feeder) used() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off > 0
}

// move feeds another part, of a new attempt. Once some of the input is used no
// part is fed any more: half an input is worse than none, and a program that
// waits for it does no harm until the attempt is ended.
func (f *feeder) move(node, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node, f.id, f.upto, f.ended = node, id, 0, false
	if f.off > 0 {
		f.stopped = true
	}
	f.more.Broadcast()
}

// credit lets the part named have input up to an offset.
func (f *feeder) credit(id string, upto uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id != id {
		return
	}
	f.upto = max(f.upto, upto)
	if f.upto > stdinWindow && f.upto-stdinWindow > f.keptAt {
		n := min(f.upto-stdinWindow-f.keptAt, uint64(len(f.kept)))
		f.kept = f.kept[n:]
		f.keptAt += n
	}
	f.more.Broadcast()
}

// again repeats what may have been lost with a node's session. The shim drops
// what it has already.
func (f *feeder) again(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == node && !f.stopped && (len(f.kept) > 0 || f.ended) {
		f.send(f.keptAt, f.kept)
	}
}

// send is called with the lock held, so that pieces leave in order.
func (f *feeder) send(at uint64, data []byte) {
	f.to.Send(f.node, &wire.ToShim{Id: f.id, M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{
		Offset: at, Data: append([]byte(nil), data...), Eof: f.ended}}})
}

func (f *feeder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.more.Broadcast()
}

// room waits until the part may have more, and returns how much; 0: stopped.
func (f *feeder) room() uint64 {
	for !f.stopped && (f.upto <= f.off || f.ended) {
		f.more.Wait()
	}
	if f.stopped {
		return 0
	}
	return f.upto - f.off
}

// read asks the user for bytes only when the shim has room for them: a gang
// that never reads leaves the user's stdin alone but for its first buffers.
func (f *feeder) read(r io.Reader) {
	buf := make([]byte, 32<<10)
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		room := f.room()
		if room == 0 {
			return
		}
		n := 0
		if !f.eof {
			f.mu.Unlock()
			m, err := r.Read(buf[:min(uint64(len(buf)), room)])
			f.mu.Lock()
			n, f.eof = m, err != nil
			// The attempt that it was read for may be over, and the next
			// one's part not there yet. Its first credit is a window, so
			// there is room for all.
			if f.room() == 0 {
				return
			}
		}
		if n == 0 && !f.eof {
			continue
		}
		at := f.off
		f.off += uint64(n)
		f.kept = append(f.kept, buf[:n]...)
		f.ended = f.eof
		f.send(at, buf[:n])
	}
}
