package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// MaxExchange is how many bytes all parts of one Allgather may have together,
// with entryHead for each.
const MaxExchange = 256 << 20

// chunkSize is how many bytes of an exchange one frame carries.
const chunkSize = 128 << 10

// entryHead is what precedes a part on its way to the primary: the member's
// index and the part's length, 4 bytes each, big endian.
const entryHead = 8

// exchange is the state of Allgather at one member. Member i's parent in the
// tree is (i-1)/fanOut. Parts go up the tree, whole subtrees at a time, and all
// parts together come down, passed on while they arrive.
//
// A member sends its parts of round r+1 when it has all of round r, so from
// each neighbour no more than one message is under way to it: that bounds what
// is kept.
type exchange struct {
	calling sync.Mutex // held by the running call

	self, size, fanOut int
	round              uint32

	mu   sync.Mutex
	cond *sync.Cond
	in   map[int]*inbox // what a neighbour sent or is sending, until it is taken
	gone map[int]error  // who left in order
	err  error          // why there will be no further exchange

	broken chan struct{} // closed when err is set
}

// inbox is what one neighbour sends in one round. Bytes before got don't change
// any more.
type inbox struct {
	round uint32
	buf   []byte
	got   int
}

func newExchange() *exchange {
	x := &exchange{in: map[int]*inbox{}, gone: map[int]error{}, broken: make(chan struct{})}
	x.cond = sync.NewCond(&x.mu)
	return x
}

func (x *exchange) place(self, size, fanOut int) { x.self, x.size, x.fanOut = self, size, fanOut }

func (x *exchange) parentOf(i int) int { return (i - 1) / x.fanOut }

// children are the members next below this one.
func (x *exchange) children() (first, end int) {
	first = x.self*x.fanOut + 1
	return min(first, x.size), min(first+x.fanOut, x.size)
}

// neighbour says whether bytes of an exchange may come from peer.
func (x *exchange) neighbour(peer int) bool {
	first, end := x.children()
	return x.self != 0 && peer == x.parentOf(x.self) || peer >= first && peer < end
}

// cause is why there will be no further exchange, or nil.
func (x *exchange) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// fail ends this exchange and all further ones at this member; the first reason
// stays. It reports whether this was the first.
func (x *exchange) fail(err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return false
	}
	x.err = err
	x.in = map[int]*inbox{}
	close(x.broken)
	x.cond.Broadcast()
	return true
}

// down notes that a member is gone. One that left in order is missed only where
// something is still to come from it.
func (x *exchange) down(peer int, err error, left bool) {
	if !left {
		x.fail(err)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone[peer] == nil {
		x.gone[peer] = err
		x.cond.Broadcast()
	}
}

// head prepares for what a neighbour announces.
func (x *exchange) head(peer int, payload []byte) error {
	if len(payload) != 12 || !x.neighbour(peer) {
		return fmt.Errorf("%w (it sent an exchange that makes no sense)", ErrClosed)
	}
	n := binary.BigEndian.Uint64(payload[4:])
	if n > MaxExchange {
		return fmt.Errorf("%w (it announced an exchange of %d bytes)", ErrClosed, n)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return nil
	}
	if x.in[peer] != nil {
		return fmt.Errorf("%w (it sent two exchanges at once)", ErrClosed)
	}
	x.in[peer] = &inbox{round: binary.BigEndian.Uint32(payload), buf: make([]byte, n)}
	x.cond.Broadcast()
	return nil
}

// chunk reads n bytes that a neighbour sends.
func (x *exchange) chunk(peer int, r io.Reader, n int) error {
	x.mu.Lock()
	b, err := x.in[peer], x.err
	x.mu.Unlock()
	if err != nil { // nobody waits for them any more
		_, err := io.CopyN(io.Discard, r, int64(n))
		return err
	}
	if b == nil || n > len(b.buf)-b.got {
		return errors.New("it sent more of an exchange than it had announced")
	}
	if _, err := io.ReadFull(r, b.buf[b.got:b.got+n]); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	b.got += n
	x.cond.Broadcast()
	return nil
}

// await waits until at least n bytes have come from peer in this round, or all
// when n is negative; n of 0 waits for the announcement.
func (x *exchange) await(peer, n int) (*inbox, int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		b := x.in[peer]
		switch {
		case x.err != nil:
			return nil, 0, x.err
		case b != nil && b.round != x.round:
			return nil, 0, fmt.Errorf("mesh: member %d is in exchange %d, this one in %d: the members don't call as often as each other", peer, b.round, x.round)
		case b != nil && b.got >= n && (n >= 0 || b.got == len(b.buf)):
			return b, b.got, nil
		case x.gone[peer] != nil && (b == nil || b.got < len(b.buf)):
			return nil, 0, x.gone[peer]
		}
		x.cond.Wait()
	}
}

// take removes what has come from peer.
func (x *exchange) take(peer int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.in, peer)
}

// headFrame announces n bytes.
func (x *exchange) headFrame(n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, x.round)
	return frame(fHead, x.self, 0, binary.BigEndian.AppendUint64(b, uint64(n)))
}

// chunkHead is the head of a frame whose payload of n bytes is sent from where
// it lies.
func (x *exchange) chunkHead(n int) []byte {
	b := frame(fChunk, x.self, 0, nil)
	binary.BigEndian.PutUint32(b[9:], uint32(n))
	return b
}

// assemble puts the parts of all members in order. bodies are own and the
// children's entries.
func assemble(size int, bodies [][]byte) ([]byte, error) {
	parts := make([][]byte, size)
	seen := make([]bool, size)
	count, total := 0, 0
	for _, b := range bodies {
		for len(b) > 0 {
			if len(b) < entryHead {
				return nil, errors.New("mesh: malformed parts of an exchange")
			}
			i, n := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint32(b[4:]))
			if b = b[entryHead:]; uint64(i) >= uint64(size) || seen[i] || n > len(b) {
				return nil, fmt.Errorf("mesh: malformed parts of an exchange: member %d, %d bytes", i, n)
			}
			parts[i], seen[i], b = b[:n], true, b[n:]
			count++
			total += n
		}
	}
	if count != size {
		return nil, fmt.Errorf("mesh: the exchange has the parts of %d of %d members", count, size)
	}
	whole := make([]byte, 0, total)
	for _, p := range parts {
		whole = append(whole, p...)
	}
	return whole, nil
}
