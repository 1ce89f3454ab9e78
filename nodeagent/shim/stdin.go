package shim

import (
	"os"
	"sync"

	"gangway/nodeagent/wire"
)

// stdinWindow is how far the launcher may send ahead of what rank 0 has read.
const stdinWindow = 256 << 10

// stdin carries the launcher's stdin to the one process that reads it. Pieces
// carry offsets, so that what a new agent sends again is dropped.
type stdin struct {
	mu     sync.Mutex
	more   *sync.Cond
	box    *outbox
	buf    []byte
	next   uint64 // offset of the next byte to come
	eof    bool
	closed bool
}

func newStdin(box *outbox) *stdin {
	s := &stdin{box: box}
	s.more = sync.NewCond(&s.mu)
	return s
}

// put takes a piece. What lies beyond the credit is dropped: a launcher that
// ignores it can't make the shim grow, and is told nothing but the credit.
func (s *stdin) put(m *wire.Stdin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := m.GetData()
	if m.GetOffset() > s.next || s.closed {
		return
	}
	if skip := s.next - m.GetOffset(); skip <= uint64(len(data)) {
		data = data[skip:]
	} else {
		data = nil
	}
	if len(s.buf)+len(data) > 2*stdinWindow {
		return
	}
	s.buf = append(s.buf, data...)
	s.next += uint64(len(data))
	if m.GetEof() && m.GetOffset()+uint64(len(m.GetData())) == s.next {
		s.eof = true
	}
	s.more.Signal()
}

// run writes to w until the end of stdin, then closes it. When nobody reads
// w any more the rest is taken and dropped.
func (s *stdin) run(w *os.File) {
	defer w.Close()
	broken := false
	written := uint64(0)
	s.box.setCredit(stdinWindow)
	for {
		s.mu.Lock()
		for len(s.buf) == 0 && !s.eof && !s.closed {
			s.more.Wait()
		}
		data := s.buf
		s.buf = nil
		over := s.closed || s.eof && len(data) == 0
		s.mu.Unlock()
		if over {
			return
		}
		if !broken {
			_, err := w.Write(data)
			broken = err != nil
			if broken {
				_ = w.Close()
			}
		}
		written += uint64(len(data))
		s.box.setCredit(written + stdinWindow)
	}
}

func (s *stdin) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.more.Broadcast()
}
