package mesh

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// linkGrace is how long the end of a link waits for the primary's word on the
// member at its other end: that names the right node and reason.
const linkGrace = 500 * time.Millisecond

var errTwice = errors.New("mesh: two exchanges at once")

// Allgather is a collective: every member calls it the same number of times, one
// call at a time, and gets all members' parts, one after the other in the order
// of their indices. It blocks until all have called it. All parts together may
// have MaxExchange bytes, less 8 for each member. The result is the caller's.
//
// It works once Join has returned. When a member is lost, or leaves before the
// others have its part, all members' calls return an error, this one and all
// further ones. Members that leave after their own call has returned do no harm.
func (m *Mesh) Allgather(part []byte) ([]byte, error) {
	x := m.ex
	if !x.calling.TryLock() {
		return nil, errTwice
	}
	defer x.calling.Unlock()
	m.mu.Lock()
	ok := m.ready && !m.closing
	m.mu.Unlock()
	if !ok {
		return nil, errDone
	}
	if len(part) > MaxExchange-entryHead {
		err := fmt.Errorf("mesh: a part of %d bytes is more than an exchange may have, %d", len(part), MaxExchange-entryHead)
		m.breakExchange(err)
		return nil, err
	}
	if err := x.cause(); err != nil {
		return nil, err
	}
	if x.size == 1 {
		return append([]byte{}, part...), nil
	}
	whole, err := m.allgather(part)
	if err != nil {
		m.breakExchange(err)
		return nil, err
	}
	x.round++
	return whole, nil
}

func (m *Mesh) allgather(part []byte) ([]byte, error) {
	x := m.ex
	up, err := m.linkUp()
	if err != nil {
		return nil, err
	}
	entry := make([]byte, entryHead, entryHead+len(part))
	binary.BigEndian.PutUint32(entry, uint32(m.self))
	binary.BigEndian.PutUint32(entry[4:], uint32(len(part)))
	bodies := [][]byte{append(entry, part...)}
	total := len(bodies[0])
	first, end := x.children()
	for i := first; i < end; i++ {
		b, _, err := x.await(i, -1)
		if err != nil {
			return nil, err
		}
		x.take(i)
		bodies = append(bodies, b.buf)
		if total += len(b.buf); total > MaxExchange {
			return nil, fmt.Errorf("mesh: an exchange of more than %d bytes", MaxExchange)
		}
	}
	var in *inbox
	if m.self == 0 {
		whole, err := assemble(x.size, bodies)
		if err != nil {
			return nil, err
		}
		in = &inbox{buf: whole, got: len(whole)}
	} else {
		if err := m.sendUp(up, bodies, total); err != nil {
			return nil, err
		}
		if in, _, err = x.await(x.parentOf(m.self), 0); err != nil {
			return nil, err
		}
	}
	if err := m.passDown(in, first, end); err != nil {
		return nil, err
	}
	if m.self != 0 {
		x.take(x.parentOf(m.self))
	}
	return in.buf, nil
}

// sendUp sends the parts of this member's subtree to its parent.
func (m *Mesh) sendUp(up *conn, bodies [][]byte, total int) error {
	err := up.putBulk(m.ex.headFrame(total), nil)
	for _, b := range bodies {
		for len(b) > 0 && err == nil {
			n := min(len(b), chunkSize)
			err = up.putBulk(m.ex.chunkHead(n), b[:n])
			b = b[n:]
		}
	}
	return m.named(m.ex.parentOf(m.self), err)
}

// passDown waits for all parts and passes them on to the children meanwhile.
func (m *Mesh) passDown(in *inbox, first, end int) error {
	errs := make([]error, end-first+1)
	var wg sync.WaitGroup
	for i := first; i < end; i++ {
		wg.Go(func() { errs[i-first] = m.sendDown(in, i) })
	}
	if m.self != 0 {
		_, _, errs[end-first] = m.ex.await(m.ex.parentOf(m.self), -1)
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sendDown passes all parts on to a child. One that left in order has what it
// wanted.
func (m *Mesh) sendDown(in *inbox, child int) error {
	err := m.passOn(in, child)
	if errors.Is(err, ErrLeft) {
		return nil
	}
	return m.named(child, err)
}

func (m *Mesh) passOn(in *inbox, child int) error {
	c := m.linkOf(child)
	if c == nil { // its part came over it
		return ErrClosed
	}
	if err := c.putBulk(m.ex.headFrame(len(in.buf)), nil); err != nil {
		return err
	}
	for sent := 0; sent < len(in.buf); {
		got := len(in.buf)
		if m.self != 0 {
			var err error
			if _, got, err = m.ex.await(m.ex.parentOf(m.self), sent+1); err != nil {
				return err
			}
		}
		n := min(got-sent, chunkSize)
		if err := c.putBulk(m.ex.chunkHead(n), in.buf[sent:sent+n]); err != nil {
			return err
		}
		sent += n
	}
	return c.flush()
}

// named is err with the name of the member that it is about, or the reason why
// the exchange ended at this member, which says more.
func (m *Mesh) named(peer int, err error) error {
	if err == nil {
		return nil
	}
	t := time.NewTimer(linkGrace)
	defer t.Stop()
	select {
	case <-m.ex.broken:
		return m.ex.cause()
	case <-t.C:
	}
	return fmt.Errorf("mesh: the link with %s: %w", m.peers[peer], err)
}

// linkOf is the connection for exchanges with a neighbour: a member and the
// primary have one anyway.
func (m *Mesh) linkOf(peer int) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[peer]; m.self != 0 && peer != 0 {
		return p.link
	}
	return m.peers[peer].c
}

// linkUp returns the connection with the parent, and makes it if need be: gangs
// that exchange nothing do without.
func (m *Mesh) linkUp() (*conn, error) {
	if m.self == 0 {
		return nil, nil
	}
	parent := m.ex.parentOf(m.self)
	if c := m.linkOf(parent); c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*m.greetLimit())
	defer cancel()
	pause := 20 * time.Millisecond
	for {
		m.mu.Lock()
		down := m.peers[parent].down
		m.mu.Unlock()
		if down != nil {
			return nil, fmt.Errorf("mesh: %s: %w", m.peers[parent], down)
		}
		tc, err := m.dial(ctx, m.peers[parent].Peer, kindTree, nil)
		if err == nil {
			if c := m.attachLink(parent, tc); c != nil {
				return c, nil
			}
			err = errDone
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause = min(2*pause, 500*time.Millisecond)
			continue
		case <-m.ex.broken:
			err = m.ex.cause()
		case <-ctx.Done():
			err = fmt.Errorf("mesh: no link with %s, TCP port %d: %w", m.peers[parent], m.peers[parent].Port, err)
		}
		t.Stop()
		return nil, err
	}
}

// attachLink makes tc the link with a neighbour that is not the primary; nil
// when the mesh is closing. A child that dials anew gave up on its first
// connection before it had used it, which this end may not have noticed yet.
func (m *Mesh) attachLink(peer int, tc *tls.Conn) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[peer]
	if m.closing || p.down != nil {
		_ = tc.NetConn().Close()
		return nil
	}
	if p.link != nil {
		p.link.fail(errors.New("replaced"))
	}
	c := m.newConn(tc)
	p.link = c
	m.wg.Go(func() { c.write(m.Heartbeat, m.Silence, frame(fBeat, m.self, peer, nil)) })
	m.wg.Go(func() {
		heard := m.readAll(peer, c)
		close(c.ended)
		m.mu.Lock()
		lost := p.link == c
		if lost && !heard && peer > m.self { // a child that never used it dials again
			p.link, lost = nil, false
		}
		m.mu.Unlock()
		if lost {
			m.linkLost(peer, c.cause())
		}
	})
	return c
}

// linkLost ends the exchange for all when a link broke and the primary has no
// explanation.
func (m *Mesh) linkLost(peer int, why error) {
	err := fmt.Errorf("mesh: the link with %s: %w", m.peers[peer], why)
	m.mu.Lock()
	left := errors.Is(m.peers[peer].down, ErrLeft)
	m.mu.Unlock()
	if left || errors.Is(why, ErrLeft) {
		m.ex.down(peer, err, true)
		return
	}
	t := time.NewTimer(linkGrace)
	defer t.Stop()
	select {
	case <-t.C:
		m.breakExchange(err)
	case <-m.ex.broken:
	case <-m.stop:
	}
}

// breakExchange ends this and all further exchanges at all members. The links
// end too: should the primary be gone, that is how the others hear of it.
func (m *Mesh) breakExchange(err error) {
	first := m.ex.fail(err)
	m.mu.Lock()
	if first && m.ready && !m.closing {
		why := err.Error()
		f := frame(fBroke, m.self, toAll, []byte(why[:min(len(why), 1<<10)]))
		if m.self == 0 {
			m.spread(f)
		} else if p := m.peers[0]; p.down == nil {
			p.c.put(f)
		}
	}
	m.mu.Unlock()
	m.endLinks(err)
}

// endLinks ends the links of the tree.
func (m *Mesh) endLinks(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return // Close ends them, when they are empty
	}
	for _, p := range m.peers {
		if p.link != nil {
			p.link.fail(err)
		}
	}
}

// otherBroke handles the news that member from can't go on.
func (m *Mesh) otherBroke(peer, from int, why []byte) error {
	if from < 0 || from >= len(m.peers) || m.self == 0 && from != peer || m.self != 0 && peer != 0 {
		return fmt.Errorf("%w (it sent news in the name of %d)", ErrClosed, from)
	}
	err := fmt.Errorf("%s says: %s", m.peers[from], why)
	if m.self == 0 && m.ex.fail(err) {
		m.mu.Lock()
		m.spread(frame(fBroke, from, toAll, why), from)
		m.mu.Unlock()
	} else {
		m.ex.fail(err)
	}
	return nil
}
