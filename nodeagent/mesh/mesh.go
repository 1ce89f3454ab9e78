// Package mesh connects the shims of a gang for the gang's life: small control
// messages over a star whose centre is the primary (index 0), exchanges through a
// tree, and byte streams dialled directly between any two. Every connection is TLS 1.3 with the gang's
// key on both sides; strangers at the port are turned away and disturb nobody.
//
// A member whose connection ends is down at once; one that says nothing for
// Mesh.Silence is down then, for the network can't tell a dead host from a cut
// cable. The primary tells the others. What is down stays down.
package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gangway/nodeagent/wire/link"
)

// Reasons for Handler.Down.
var (
	ErrLeft   = errors.New("left the gang")                              // it called Close
	ErrClosed = errors.New("connection closed")                          // it ended without a word
	ErrSilent = errors.New("silent")                                     // no sign of life for Mesh.Silence
	ErrSlow   = errors.New("does not take what is sent to it")           // Mesh.Queue is full
	errDone   = errors.New("mesh: closed")                               // this mesh
	errJoined = errors.New("mesh: joined already or closed")             // this mesh
	errNoMesh = errors.New("mesh: listening on no address, has no peer") // this mesh
)

// MaxMessage is the longest message in bytes.
const MaxMessage = 4 << 20

// Peer is a member of the gang. Index 0 is the primary.
type Peer struct {
	Index int
	Name  string // for messages
	Addr  netip.Addr
	Port  uint16
}

func (p Peer) String() string {
	if p.Name == "" {
		return fmt.Sprintf("node %d (%s)", p.Index, p.Addr)
	}
	return fmt.Sprintf("%s (%s)", p.Name, p.Addr)
}

// Handler is told what happens. Its methods are called from several goroutines,
// but for one peer in order and one at a time; calls may come before Join
// returns, none comes after Close returned. Message and Down must not block for
// long (the peer would seem silent) and must not call Close.
type Handler interface {
	// Message brings a message; msg is the handler's to keep.
	Message(from int, msg []byte)
	// Down says, once a peer, that it is gone: ErrLeft, ErrClosed, ErrSilent or
	// ErrSlow. When the primary is down to a member, so is the mesh.
	Down(peer int, err error)
	// Stream serves a stream that peer from opened, on a goroutine of its own;
	// s is closed when it returns.
	Stream(from int, meta []byte, s Stream)
}

// Stream is a byte stream between two members. It breaks when the other end is
// down or either mesh is closed.
type Stream interface {
	net.Conn
	CloseWrite() error // the other end reads io.EOF and may go on writing
}

// Mesh is one member's end. The exported fields may be changed before Join, to
// the same values on every member.
type Mesh struct {
	Silence   time.Duration // 5 s: a peer without traffic for so long is down
	Heartbeat time.Duration // 1 s: between signs of life
	Queue     int           // 16 MiB: bytes kept for a peer that does not read
	FanOut    int           // 32: members next below one in the tree of Allgather, at least 1

	self           int
	server, client *tls.Config
	l              net.Listener // nil: the gang has one member

	stop   chan struct{} // closed when Close begins
	wg     sync.WaitGroup
	joined chan struct{} // closed when all have joined

	ex *exchange

	mu      sync.Mutex
	h       Handler
	peers   []*member // by index; nil before Join
	started bool      // Join was called
	ready   bool      // joined is closed
	closing bool
	pending []net.Conn // connections that have not said who they are, oldest first
}

// member is what this end knows of a peer.
type member struct {
	Peer
	c       *conn // control connection; between members and the primary only
	link    *conn // of the tree, between members that have no control connection
	down    error
	streams map[*stream]struct{}
}

// Listen prepares member self's end: it listens on a free port of addr. The zero
// Addr is for a gang of one, which needs no network. key has link.KeySize bytes.
func Listen(addr netip.Addr, key []byte, self int) (*Mesh, error) {
	m := &Mesh{
		Silence: 5 * time.Second, Heartbeat: time.Second, Queue: 16 << 20, FanOut: 32,
		self: self, ex: newExchange(), stop: make(chan struct{}), joined: make(chan struct{}),
	}
	if !addr.IsValid() {
		return m, nil
	}
	var err error
	if m.server, m.client, err = link.KeyTLS(key); err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	// Exchanges are bulk from the first byte on.
	m.server.DynamicRecordSizingDisabled, m.client.DynamicRecordSizingDisabled = true, true
	// The mesh has signs of life of its own, and no use of several paths.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		return nil, fmt.Errorf("mesh: no port on this node's data address %s: %w", addr, err)
	}
	m.l = l
	return m, nil
}

// Port is the listener's port, 0 without one.
func (m *Mesh) Port() uint16 {
	if m.l == nil {
		return 0
	}
	return uint16(m.l.Addr().(*net.TCPAddr).Port)
}

// Join connects this member with the gang, once. It returns when all peers have
// joined, or names those that had not when ctx ended. peers includes this
// member. After an error the mesh is good for Close only.
func (m *Mesh) Join(ctx context.Context, peers []Peer, h Handler) error {
	all := make([]*member, len(peers))
	for _, p := range peers {
		if p.Index < 0 || p.Index >= len(peers) || all[p.Index] != nil {
			return fmt.Errorf("mesh: peers are not numbered 0 to %d, each once", len(peers)-1)
		}
		all[p.Index] = &member{Peer: p, streams: map[*stream]struct{}{}}
	}
	if m.self < 0 || m.self >= len(all) {
		return fmt.Errorf("mesh: this member's number %d is not among %d peers", m.self, len(all))
	}
	if len(all) > 1 && m.l == nil {
		return errNoMesh
	}
	m.mu.Lock()
	if m.started || m.closing {
		m.mu.Unlock()
		return errJoined
	}
	m.started, m.peers, m.h = true, all, h
	m.ex.place(m.self, len(all), max(1, m.FanOut))
	m.mu.Unlock()
	if len(all) == 1 {
		m.setReady()
		return nil
	}
	if !m.goIfOpen(m.accept) {
		return errDone
	}
	if m.self != 0 {
		return m.joinStar(ctx)
	}
	select {
	case <-m.joined:
		return nil
	case <-m.stop:
		return errDone
	case <-ctx.Done():
	}
	err := fmt.Errorf("mesh: %s did not join: %w; look at the node, and whether a firewall keeps it from TCP port %d of %s",
		m.missing(), context.Cause(ctx), m.Port(), m.peers[0])
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready { // the last one came just now
		return nil
	}
	for _, p := range all {
		if p.c != nil {
			p.c.put(frame(fAbort, m.self, p.Index, []byte(err.Error())))
		}
	}
	return err
}

func (m *Mesh) missing() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, p := range m.peers[1:] {
		if p.c == nil {
			names = append(names, p.String())
		}
	}
	return strings.Join(names, ", ")
}

// joinStar dials the primary until all have joined.
func (m *Mesh) joinStar(ctx context.Context) error {
	primary := m.peers[0]
	last := errors.New("no answer")
	pause := 20 * time.Millisecond
	for {
		c, err := m.dialStar(ctx)
		if err == nil {
			select {
			case <-m.joined:
				return nil
			case <-m.stop:
				return errDone
			case <-c.ended:
				if err = c.cause(); errors.Is(err, errAborted) {
					return err
				}
			case <-ctx.Done():
				return fmt.Errorf("mesh: joined the primary %s, but not all others did: %w", primary, context.Cause(ctx))
			}
		}
		if ctx.Err() == nil {
			last = err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause = min(2*pause, 500*time.Millisecond)
		case <-m.stop:
			t.Stop()
			return errDone
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("mesh: the primary %s, TCP port %d, was not reached: %w (last: %w)",
				primary, primary.Port, context.Cause(ctx), last)
		}
	}
}

func (m *Mesh) dialStar(ctx context.Context) (*conn, error) {
	tc, err := m.dial(ctx, m.peers[0].Peer, kindStar, nil)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		_ = tc.NetConn().Close()
		return nil, errDone
	}
	return m.attach(0, tc), nil
}

// setReady lets Join return.
func (m *Mesh) setReady() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready {
		m.ready = true
		close(m.joined)
	}
}

// Send sends msg to one peer, not to itself. It doesn't wait for the network; an
// error means that the peer is down or the message can't be sent at all. Between
// two members, nil says only that the primary will pass it on.
func (m *Mesh) Send(to int, msg []byte) error {
	if len(msg) > MaxMessage {
		return fmt.Errorf("mesh: a message of %d bytes is more than %d", len(msg), MaxMessage)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready || m.closing {
		return errDone
	}
	if to < 0 || to >= len(m.peers) || to == m.self {
		return fmt.Errorf("mesh: no peer %d", to)
	}
	via := m.peers[to]
	if via.down == nil && m.self != 0 {
		via = m.peers[0]
	}
	if via.down != nil {
		return fmt.Errorf("mesh: %s: %w", via, via.down)
	}
	via.c.put(frame(fData, m.self, to, msg))
	return nil
}

// Broadcast sends msg to every other member that is not down.
func (m *Mesh) Broadcast(msg []byte) error {
	if len(msg) > MaxMessage {
		return fmt.Errorf("mesh: a message of %d bytes is more than %d", len(msg), MaxMessage)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready || m.closing {
		return errDone
	}
	if len(m.peers) == 1 {
		return nil
	}
	if p := m.peers[0]; m.self != 0 && p.down != nil {
		return fmt.Errorf("mesh: %s: %w", p, p.down)
	}
	m.spread(frame(fData, m.self, toAll, msg))
	return nil
}

// spread puts f on every control connection but from's. m.mu is held.
func (m *Mesh) spread(f []byte, except ...int) {
	for _, p := range m.peers {
		if p.c != nil && p.down == nil && !slices.Contains(except, p.Index) {
			p.c.put(f)
		}
	}
}

// markDown notes that a peer is gone and tells the others and the handler.
// Repetitions do nothing.
func (m *Mesh) markDown(peer int, why error) {
	m.mu.Lock()
	p := m.peers[peer]
	if m.closing || p.down != nil {
		m.mu.Unlock()
		return
	}
	p.down = why
	if p.c != nil {
		p.c.fail(why)
	}
	if p.link != nil && !errors.Is(why, ErrLeft) { // one that left sends the rest
		p.link.fail(why)
	}
	// A link may still bring what a member sent before it left; its end counts.
	if left := errors.Is(why, ErrLeft); !left || p.link == nil || p.link.cause() != nil {
		m.ex.down(peer, fmt.Errorf("mesh: %s: %w", p, why), left)
	}
	for s := range p.streams {
		_ = s.NetConn().Close()
	}
	if m.self == 0 {
		m.spread(frame(fDown, peer, toAll, encodeDown(why)), peer)
	}
	h := m.h
	m.mu.Unlock()
	h.Down(peer, why)
}

// closeWait is how long Close waits for what is queued to reach the peers.
const closeWait = time.Second

// Close says goodbye, sends what is queued as far as that takes no longer than
// a second, ends all connections and streams, and waits for the mesh's
// goroutines: for the Handler's running calls too.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		m.wg.Wait()
		return nil
	}
	m.closing = true
	close(m.stop)
	if m.l != nil {
		_ = m.l.Close()
	}
	for _, c := range m.pending {
		_ = c.Close()
	}
	var conns []*conn
	for _, p := range m.peers {
		for s := range p.streams {
			_ = s.NetConn().Close()
		}
		for _, c := range []*conn{p.c, p.link} {
			if c != nil {
				c.finish(frame(fBye, m.self, toAll, nil), time.Now().Add(closeWait))
				conns = append(conns, c)
			}
		}
	}
	m.mu.Unlock()
	m.ex.fail(errDone)
	// A connection closed with unread bytes is reset, and the goodbye with it:
	// wait until the peer has closed too.
	limit := time.NewTimer(closeWait)
	defer limit.Stop()
	late := false
	for _, c := range conns {
		if !late {
			select {
			case <-c.ended:
			case <-limit.C:
				late = true
			}
		}
		c.fail(errDone)
	}
	m.wg.Wait()
	return nil
}

// goIfOpen runs f on a goroutine that Close waits for.
func (m *Mesh) goIfOpen(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	m.wg.Go(f)
	return true
}
