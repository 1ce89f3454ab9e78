package mesh

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A frame on a control connection: kind (1 byte), from, to, length (4 bytes
// each, big endian), payload.
const (
	fBeat  = iota // a sign of life
	fData         // a message
	fGo           // primary: all have joined
	fAbort        // primary: they won't; payload says why
	fDown         // primary: member from is down; payload is one byte of reason
	fBye          // the sender leaves in order
	fHead         // bytes of an exchange follow: round (4 bytes), their number (8)
	fChunk        // some of them
	fBroke        // the sender can't go on with the exchange; payload says why
)

const (
	frameHead = 13
	toAll     = 1<<32 - 1
)

var errAborted = errors.New("mesh: the primary gave up")

func frame(kind, from, to int, payload []byte) []byte {
	b := make([]byte, frameHead, frameHead+len(payload))
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(from))
	binary.BigEndian.PutUint32(b[5:], uint32(to))
	binary.BigEndian.PutUint32(b[9:], uint32(len(payload)))
	return append(b, payload...)
}

// readHead reads a frame up to its payload of n bytes.
func readHead(r io.Reader) (kind, from, to, n int, err error) {
	var h [frameHead]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, 0, 0, 0, err
	}
	size := binary.BigEndian.Uint32(h[9:])
	if h[0] > fBroke || size > MaxMessage {
		return 0, 0, 0, 0, fmt.Errorf("malformed frame: kind %d, %d bytes", h[0], size)
	}
	return int(h[0]), int(binary.BigEndian.Uint32(h[1:])), int(binary.BigEndian.Uint32(h[5:])), int(size), nil
}

// readFrame reads one frame.
func readFrame(r io.Reader) (kind, from, to int, payload []byte, err error) {
	kind, from, to, n, err := readHead(r)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	payload = make([]byte, n)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, 0, 0, nil, err
	}
	return kind, from, to, payload, nil
}

func reasons() []error { return []error{ErrClosed, ErrLeft, ErrSilent, ErrSlow} }

func encodeDown(why error) []byte {
	for i, r := range reasons() {
		if errors.Is(why, r) {
			return []byte{byte(i)}
		}
	}
	return []byte{0}
}

func decodeDown(b []byte) error {
	if r := reasons(); len(b) == 1 && int(b[0]) < len(r) {
		return r[b[0]]
	}
	return ErrClosed
}

// item is something to write.
type item struct {
	b    []byte
	bulk bool // of an exchange: it has a limit of its own, see conn.putBulk
}

// conn is a control connection or a link of the tree: a queue with a limit, a
// goroutine that writes and one that reads.
type conn struct {
	tc    *tls.Conn
	limit int
	wake  chan struct{} // something is queued, or the end has come
	room  chan struct{} // bulk has shrunk, or the end has come
	ended chan struct{} // closed when the reading goroutine has ended

	mu     sync.Mutex
	queue  []item
	size   int       // bytes of messages that wait
	bulk   int       // bytes of exchanges that wait
	err    error     // why it ended, first reason
	last   bool      // the queue's last frame is the goodbye
	lastBy time.Time // limit for writing it
}

// attach makes tc the control connection with a peer. m.mu is held.
func (m *Mesh) attach(peer int, tc *tls.Conn) *conn {
	c := m.newConn(tc)
	m.peers[peer].c = c
	m.wg.Go(func() { c.write(m.Heartbeat, m.Silence, frame(fBeat, m.self, peer, nil)) })
	m.wg.Go(func() { m.read(peer, c) })
	return c
}

func (m *Mesh) newConn(tc *tls.Conn) *conn {
	return &conn{tc: tc, limit: m.Queue, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), ended: make(chan struct{})}
}

// put queues a frame. Beyond the limit the connection ends: the peer does not
// read.
func (c *conn) put(f []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.last {
		return
	}
	if c.size+len(f) > c.limit {
		c.failLocked(fmt.Errorf("%w: %d bytes are waiting", ErrSlow, c.size))
		return
	}
	c.queue = append(c.queue, item{b: f})
	c.size += len(f)
	c.poke()
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// drained wakes who waits for room.
func (c *conn) drained() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// bulkWindow is how many bytes of an exchange wait for a peer, at most, before
// the next are queued: a connection is busy with them for no long time, and what
// is not yet written costs no more memory.
const bulkWindow = 256 << 10

// putBulk queues a frame of an exchange when there is room, without a copy of
// body. One goroutine at a time may call it and flush.
func (c *conn) putBulk(head, body []byte) error {
	if err := c.shrunk(bulkWindow); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.last {
		return errDone
	}
	c.queue = append(c.queue, item{head, true}, item{body, true})
	c.bulk += len(head) + len(body)
	c.poke()
	return nil
}

// flush waits until no byte that putBulk queued is still needed.
func (c *conn) flush() error { return c.shrunk(0) }

// shrunk waits until at most n bytes of exchanges wait.
func (c *conn) shrunk(n int) error {
	for {
		c.mu.Lock()
		err, bulk := c.err, c.bulk
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if bulk <= n {
			return nil
		}
		<-c.room
	}
}

// finish queues the last frame.
func (c *conn) finish(f []byte, by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.last {
		return
	}
	c.queue = append(c.queue, item{b: f})
	c.last, c.lastBy = true, by
	_ = c.tc.SetWriteDeadline(by) // one that hangs already hangs no longer
	c.poke()
}

// fail ends the connection; the first reason stays.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
		c.queue, c.size, c.bulk = nil, 0, 0
		_ = c.tc.NetConn().Close()
		c.poke()
		c.drained()
	}
}

func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// next takes what is queued. deadline is for writing it.
func (c *conn) next(silence time.Duration) (frames []item, last bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames, c.queue = c.queue, nil
	by := time.Now().Add(silence)
	if c.last {
		by = c.lastBy
	}
	_ = c.tc.SetWriteDeadline(by)
	return frames, c.last, c.err
}

// write sends what is queued, and a beat when it is time, until the end.
func (c *conn) write(heartbeat, silence time.Duration, beat []byte) {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		tick := false
		select {
		case <-c.wake:
		case <-t.C:
			tick = true
		}
		frames, last, err := c.next(silence)
		if err != nil {
			return
		}
		if tick && !last {
			frames = append(frames, item{b: beat})
		}
		for _, f := range frames {
			// Frames count as waiting until they are written.
			if err := c.writeAll(f, silence); err != nil {
				if err = ended(err); err == ErrSilent {
					err = ErrSlow
				}
				c.fail(err)
				return
			}
		}
		if last {
			_ = c.tc.CloseWrite()
			return
		}
	}
}

// writeAll writes f in pieces: as long as some get through the peer is slow, not
// silent.
func (c *conn) writeAll(f item, silence time.Duration) error {
	counted := f.bulk || f.b[0] != fBeat && f.b[0] != fBye
	for rest := f.b; len(rest) > 0; {
		n := min(len(rest), 64<<10)
		if _, err := c.tc.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
		c.mu.Lock()
		switch {
		case c.err != nil:
		case f.bulk:
			c.bulk -= n
			c.drained()
		case counted:
			c.size -= n
		}
		if !c.last {
			_ = c.tc.SetWriteDeadline(time.Now().Add(silence))
		}
		c.mu.Unlock()
	}
	return nil
}

// alive reads from a connection and gives up after silence.
type alive struct {
	c       net.Conn
	silence time.Duration
}

func (a alive) Read(b []byte) (int, error) {
	for {
		start := time.Now()
		if err := a.c.SetReadDeadline(start.Add(a.silence)); err != nil {
			return 0, err
		}
		n, err := a.c.Read(b)
		// If it was this process that slept (stopped, or starved of CPU), the
		// silence proves nothing: look again at what arrived meanwhile.
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && time.Since(start) > a.silence+a.silence/4 {
			continue
		}
		return n, err
	}
}

// ended names the reason behind an error of the network.
func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrSilent
	}
	return fmt.Errorf("%w (%w)", ErrClosed, err)
}

// read handles what comes from a peer until its connection ends, and then says
// that the peer is down.
func (m *Mesh) read(peer int, c *conn) {
	m.readAll(peer, c)
	close(c.ended)
	m.mu.Lock()
	p := m.peers[peer]
	current, ready := p.c == c, m.ready
	if current && !ready {
		p.c = nil // it will dial again
	}
	m.mu.Unlock()
	if current && ready {
		m.markDown(peer, c.cause())
	}
}

// readAll handles what comes until the connection ends, and says whether
// anything came.
func (m *Mesh) readAll(peer int, c *conn) (heard bool) {
	r := bufio.NewReaderSize(alive{c.tc, m.Silence}, 16<<10)
	for {
		kind, from, to, n, err := readHead(r)
		if err == nil && kind == fChunk {
			// The many bytes go straight to where they are needed.
			err = m.ex.chunk(peer, r, n)
		} else if err == nil {
			payload := make([]byte, n)
			if _, err = io.ReadFull(r, payload); err == nil {
				if err := m.handle(peer, kind, from, to, payload); err != nil {
					c.fail(err)
					return true
				}
			}
		}
		if err != nil {
			c.fail(ended(err))
			return heard
		}
		heard = true
	}
}

// handle does what a frame says; an error ends the connection.
func (m *Mesh) handle(peer, kind, from, to int, payload []byte) error {
	switch kind {
	case fBye:
		return ErrLeft
	case fBeat:
		return nil
	case fData:
		return m.deliver(peer, from, to, payload)
	case fHead:
		return m.ex.head(peer, payload)
	case fBroke:
		return m.otherBroke(peer, from, payload)
	}
	if m.self == 0 || peer != 0 {
		return fmt.Errorf("%w (it sent what only a primary may)", ErrClosed)
	}
	switch kind {
	case fGo:
		m.setReady()
	case fAbort:
		return fmt.Errorf("%w: %s", errAborted, payload)
	case fDown:
		if from >= 0 && from < len(m.peers) && from != m.self {
			m.markDown(from, decodeDown(payload))
		}
	}
	return nil
}

// deliver hands a message to the handler, or on.
func (m *Mesh) deliver(peer, from, to int, payload []byte) error {
	if from < 0 || from >= len(m.peers) || m.self == 0 && from != peer {
		return fmt.Errorf("%w (it sent a message in the name of %d)", ErrClosed, from)
	}
	if m.self == 0 && to != 0 {
		m.mu.Lock()
		f := frame(fData, from, to, payload)
		if to == toAll {
			m.spread(f, from)
		} else if to < len(m.peers) && m.peers[to].c != nil && m.peers[to].down == nil {
			m.peers[to].c.put(f)
		}
		m.mu.Unlock()
	}
	if to != m.self && to != toAll {
		return nil
	}
	m.mu.Lock()
	h, closing := m.h, m.closing
	m.mu.Unlock()
	if !closing {
		h.Message(from, payload)
	}
	return nil
}
