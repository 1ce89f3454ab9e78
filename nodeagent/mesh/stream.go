package mesh

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// The greeting of whoever dials: magic (4 bytes), kind (1), from, to (4 each,
// big endian), length of meta (2), meta. The answer: 0, or the length of a
// refusal (1 byte) and the refusal.
const (
	magic     = "GWM1"
	greetHead = 15
	kindStar  = 1
	kindPipe  = 2
	kindTree  = 3

	// MaxMeta is the longest meta of a stream in bytes.
	MaxMeta = 1<<16 - 1

	greetWait  = 5 * time.Second // for TLS and the greeting, see greetLimit
	maxPending = 256             // connections within it, and two for each node of a gang
)

// greetLimit is how long TLS and the greeting may take. The primary of a big
// gang shakes hands with all members at once.
func (m *Mesh) greetLimit() time.Duration {
	return greetWait + time.Duration(len(m.peers))*10*time.Millisecond
}

// stream is one end of a Stream.
type stream struct {
	*tls.Conn
	m    *Mesh
	peer int
}

// Close ends both directions.
func (s *stream) Close() error {
	s.m.mu.Lock()
	delete(s.m.peers[s.peer].streams, s)
	s.m.mu.Unlock()
	return s.Conn.Close()
}

// track makes tc a stream that ends with its peer and the mesh.
func (m *Mesh) track(peer int, tc *tls.Conn) (*stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[peer]
	switch {
	case m.closing:
		_ = tc.NetConn().Close()
		return nil, errDone
	case p.down != nil:
		_ = tc.NetConn().Close()
		return nil, fmt.Errorf("mesh: %s: %w", p, p.down)
	}
	s := &stream{tc, m, peer}
	p.streams[s] = struct{}{}
	return s, nil
}

// Open opens a stream to a peer, whose Handler.Stream gets meta (at most MaxMeta
// bytes). It returns when the peer has taken it. The caller closes it.
func (m *Mesh) Open(ctx context.Context, to int, meta []byte) (Stream, error) {
	m.mu.Lock()
	switch {
	case !m.ready || m.closing:
		m.mu.Unlock()
		return nil, errDone
	case to < 0 || to >= len(m.peers) || to == m.self:
		m.mu.Unlock()
		return nil, fmt.Errorf("mesh: no peer %d", to)
	case len(meta) > MaxMeta:
		m.mu.Unlock()
		return nil, fmt.Errorf("mesh: a stream's meta of %d bytes is more than %d", len(meta), MaxMeta)
	}
	p, down := m.peers[to].Peer, m.peers[to].down
	m.mu.Unlock()
	if down != nil {
		return nil, fmt.Errorf("mesh: %s: %w", p, down)
	}
	tc, err := m.dial(ctx, p, kindPipe, meta)
	if err != nil {
		return nil, fmt.Errorf("mesh: a stream to %s: %w", p, err)
	}
	s, err := m.track(to, tc)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// dial connects to a peer and greets it.
func (m *Mesh) dial(ctx context.Context, p Peer, kind byte, meta []byte) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, m.greetLimit())
	defer cancel()
	raw, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", netip.AddrPortFrom(p.Addr, p.Port).String())
	if err != nil {
		return nil, err
	}
	tc := tls.Client(raw, m.client)
	// Whatever ends first, the time, the caller's patience or the mesh, ends
	// the reads and writes below.
	done := make(chan struct{})
	stopped := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stopped()
	if !m.goIfOpen(func() {
		select {
		case <-m.stop:
			_ = raw.Close()
		case <-done:
		}
	}) {
		_ = raw.Close()
		return nil, errDone
	}
	defer close(done)
	if err := m.greet(tc, p, kind, meta); err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, err
	}
	if !stopped() { // ctx ended just now and took the connection along
		return nil, context.Cause(ctx)
	}
	return tc, nil
}

func (m *Mesh) greet(tc *tls.Conn, p Peer, kind byte, meta []byte) error {
	if err := tc.Handshake(); err != nil {
		return err
	}
	b := append([]byte(magic), kind)
	b = binary.BigEndian.AppendUint32(b, uint32(m.self))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Index))
	b = binary.BigEndian.AppendUint16(b, uint16(len(meta)))
	if _, err := tc.Write(append(b, meta...)); err != nil {
		return err
	}
	var n [1]byte
	if _, err := io.ReadFull(tc, n[:]); err != nil {
		return fmt.Errorf("no answer to the greeting: %w", err)
	}
	if n[0] == 0 {
		return nil
	}
	why := make([]byte, n[0])
	if _, err := io.ReadFull(tc, why); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	return fmt.Errorf("refused: %s", why)
}

// accept takes connections until the listener is closed.
func (m *Mesh) accept() {
	for {
		c, err := m.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, or the connection was gone already.
			select {
			case <-m.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		m.mu.Lock()
		if m.closing {
			m.mu.Unlock()
			_ = c.Close()
			return
		}
		// A member greets within milliseconds: who has waited longest is no
		// member.
		if len(m.pending) >= maxPending+2*len(m.peers) {
			_ = m.pending[0].Close()
			m.pending = m.pending[1:]
		}
		m.pending = append(m.pending, c)
		m.wg.Go(func() { m.welcome(c) })
		m.mu.Unlock()
	}
}

// settle takes c off the list of strangers.
func (m *Mesh) settle(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range m.pending {
		if p == c {
			m.pending = append(m.pending[:i:i], m.pending[i+1:]...)
			return
		}
	}
}

// welcome finds out who dialled and serves it.
func (m *Mesh) welcome(raw net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(m.greetLimit()))
	tc := tls.Server(raw, m.server)
	kind, from, meta, err := m.greeted(tc)
	m.settle(raw)
	if err != nil {
		_ = raw.Close()
		return
	}
	if why := m.refusal(kind, from); why != "" {
		_, _ = tc.Write(append([]byte{byte(len(why))}, why...))
		_ = tc.Close()
		return
	}
	if _, err := tc.Write([]byte{0}); err != nil {
		_ = raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	switch kind {
	case kindStar:
		m.welcomeStar(from, tc)
		return
	case kindTree:
		m.attachLink(from, tc)
		return
	}
	s, err := m.track(from, tc)
	if err != nil {
		return
	}
	defer s.Close()
	m.h.Stream(from, meta, s)
}

func (m *Mesh) greeted(tc *tls.Conn) (kind byte, from int, meta []byte, err error) {
	if err := tc.Handshake(); err != nil {
		return 0, 0, nil, err
	}
	var h [greetHead]byte
	if _, err := io.ReadFull(tc, h[:]); err != nil {
		return 0, 0, nil, err
	}
	from = int(binary.BigEndian.Uint32(h[5:]))
	to := int(binary.BigEndian.Uint32(h[9:]))
	if string(h[:4]) != magic || to != m.self || from == m.self || from >= len(m.peers) {
		return 0, 0, nil, errors.New("malformed greeting")
	}
	meta = make([]byte, binary.BigEndian.Uint16(h[13:]))
	_, err = io.ReadFull(tc, meta)
	return h[4], from, meta, err
}

// refusal says why a greeting is not accepted, in less than 256 bytes.
func (m *Mesh) refusal(kind byte, from int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closing:
		return "the gang is ending"
	case m.peers[from].down != nil:
		return "this node counts as lost"
	case kind == kindStar && m.self != 0:
		return "not the primary"
	case kind == kindStar && m.ready:
		return "this node has joined already"
	case kind == kindTree && (m.self == 0 || m.ex.parentOf(from) != m.self):
		return "no such link in the tree"
	case kind != kindStar && kind != kindPipe && kind != kindTree:
		return "unknown kind of connection"
	}
	return ""
}

// welcomeStar makes tc a member's control connection. A member dials anew when
// its first connection broke, which this end may not have noticed yet.
func (m *Mesh) welcomeStar(from int, tc *tls.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing || m.ready {
		_ = tc.NetConn().Close()
		return
	}
	if old := m.peers[from].c; old != nil {
		old.fail(errors.New("replaced"))
	}
	m.attach(from, tc)
	for _, p := range m.peers[1:] {
		if p.c == nil || p.c.cause() != nil {
			return
		}
	}
	m.spread(frame(fGo, 0, toAll, nil))
	m.ready = true
	close(m.joined)
}
