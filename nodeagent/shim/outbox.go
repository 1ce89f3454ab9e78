package shim

import (
	"sync"

	"gangway/nodeagent/wire"
)

// window is how much output may be unacknowledged, in bytes of memory, before the
// ranks' pipes are read no further, and chunkSize the longest piece of output.
// The launcher may hold as much of every node of a gang: of a big one each node
// gets a part of gangWindow, at least leastWindow.
const (
	window      = 8 << 20
	gangWindow  = 256 << 20
	leastWindow = 256 << 10
	chunkSize   = 64 << 10
	// chunkCost is what a piece takes besides its bytes: one that writes a byte
	// at a time would fill the memory with them otherwise.
	chunkCost = 256
)

// windowFor is the window of each node of a gang.
func windowFor(nodes uint32) int {
	return min(window, max(leastWindow, gangWindow/int(max(nodes, 1))))
}

// outbox keeps everything that the launcher has not acknowledged, so that a
// new agent can be told all of it again: the messages of the attempt's life,
// whole, and the output from the last acknowledged offset. Readers of the
// ranks' pipes write to it, the writer of the agent's connection reads from
// it: it is the one place of the shim with a lock.
type outbox struct {
	id   string
	name *wire.AttemptName
	most int // of held

	mu     sync.Mutex
	change *sync.Cond

	phase  wire.Phase
	msgs   []*wire.FromShim // in order; never forgotten before the end
	credit uint64           // stdin's; only the latest matters

	blocks  []crewBlock // of a crew, not acknowledged
	dropped int         // number of blocks dropped from the front, ever

	chunks []*wire.Output // ordered by offset
	first  int            // number of chunks dropped from the front, ever
	end    uint64         // length of the output sequence
	acked  uint64
	held   int  // memory of chunks
	open   int  // readers that have not finished
	closed bool // nothing will be read any more: writers must not wait
}

func newOutbox(id string, name *wire.AttemptName) *outbox {
	o := &outbox{id: id, name: name, phase: wire.Phase_PHASE_PREPARING, most: window}
	o.change = sync.NewCond(&o.mu)
	return o
}

func (o *outbox) say(m *wire.FromShim) {
	m.Id, m.Name = o.id, o.name
	o.mu.Lock()
	defer o.mu.Unlock()
	o.msgs = append(o.msgs, m)
	o.change.Broadcast()
}

// crewBlock is a block, and how many chunks of output there were before it.
type crewBlock struct {
	b     *wire.Block
	after int // counts from the first chunk ever
}

// block sends a crew's block, behind the output that there is: who has read it has
// read what its elements wrote.
func (o *outbox) block(b *wire.Block) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocks = append(o.blocks, crewBlock{b, o.first + len(o.chunks)})
	o.change.Broadcast()
}

// ackBlocks drops the blocks up to and with seq.
func (o *outbox) ackBlocks(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.blocks) > 0 && o.blocks[0].b.GetSeq() <= seq {
		o.blocks[0] = crewBlock{}
		o.blocks = o.blocks[1:]
		o.dropped++
	}
	o.change.Broadcast()
}

func (o *outbox) setPhase(p wire.Phase) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.phase = p
	o.change.Broadcast()
}

func (o *outbox) setCredit(upto uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.credit = max(o.credit, upto)
	o.change.Broadcast()
}

// write appends output, waiting while the window is full. data must not be
// changed afterwards.
func (o *outbox) write(rank int32, stream wire.Stream, data []byte, eof bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cost := cap(data) + chunkCost // the buffer lives as long as what is used of it
	for len(data) > 0 && o.held+cost > o.most && !o.closed {
		o.change.Wait()
	}
	o.chunks = append(o.chunks, &wire.Output{Offset: o.end, Stream: stream, Rank: rank, Data: data, Eof: eof})
	o.end += uint64(len(data))
	o.held += cost
	o.change.Broadcast()
}

func (o *outbox) ack(offset uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset <= o.acked || offset > o.end {
		return
	}
	o.acked = offset
	n := 0
	for n < len(o.chunks) {
		c := o.chunks[n]
		// An end of stream that lies at the acknowledged offset may have
		// been lost with an agent: it has no bytes that prove otherwise.
		if past := c.Offset + uint64(len(c.Data)); past > offset || c.Eof && past == offset {
			break
		}
		o.held -= cap(c.Data) + chunkCost
		o.chunks[n] = nil
		n++
	}
	o.chunks = o.chunks[n:]
	o.first += n
	o.change.Broadcast()
}

// close lets everybody go who waits.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.change.Broadcast()
}

// reader registers a reader of a pipe; its end is told by done.
func (o *outbox) reader() (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.open--
		o.change.Broadcast()
	}
}

// drained waits until all readers have finished and returns the length of the
// output sequence.
func (o *outbox) drained() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.open > 0 && !o.closed {
		o.change.Wait()
	}
	return o.end
}

// cursor is one connection's place in an outbox.
type cursor struct {
	o      *outbox
	phase  wire.Phase
	msg    int
	chunk  int // counts from the first chunk ever
	credit uint64
	block  int  // counts from the first block ever
	gone   bool // the connection has ended; guarded by o.mu
}

func (o *outbox) cursor() *cursor {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &cursor{o: o, chunk: o.first, block: o.dropped}
}

// stop ends next.
func (c *cursor) stop() {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	c.gone = true
	c.o.change.Broadcast()
}

// next waits for what the connection has not been sent yet, the shim's state
// first; nil when it was stopped. Messages go before output, so that what prepares or ends an attempt
// is not stuck behind megabytes of it; the result alone comes after all of it.
func (c *cursor) next() *wire.Frame {
	o := c.o
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if c.gone {
			return nil
		}
		if c.phase != o.phase {
			c.phase = o.phase
			return &wire.Frame{M: &wire.Frame_State{State: &wire.ShimState{Id: o.id, Name: o.name, Phase: o.phase}}}
		}
		if c.chunk < o.first {
			c.chunk = o.first
		}
		i := c.chunk - o.first
		if c.block < o.dropped {
			c.block = o.dropped
		}
		blocks := c.block - o.dropped
		switch {
		case c.msg < len(o.msgs) && (o.msgs[c.msg].GetResult() == nil || i >= len(o.chunks) && blocks >= len(o.blocks)):
			c.msg++
			return &wire.Frame{M: &wire.Frame_From{From: o.msgs[c.msg-1]}}
		case blocks < len(o.blocks) && c.chunk >= o.blocks[blocks].after:
			c.block++
			return o.frame(&wire.FromShim{M: &wire.FromShim_Block{Block: o.blocks[blocks].b}})
		case c.credit < o.credit:
			c.credit = o.credit
			return o.frame(&wire.FromShim{M: &wire.FromShim_StdinCredit{StdinCredit: &wire.StdinCredit{Upto: o.credit}}})
		case i < len(o.chunks):
			c.chunk++
			return o.frame(&wire.FromShim{M: &wire.FromShim_Output{Output: o.chunks[i]}})
		}
		o.change.Wait()
	}
}

func (o *outbox) frame(m *wire.FromShim) *wire.Frame {
	m.Id, m.Name = o.id, o.name
	return &wire.Frame{M: &wire.Frame_From{From: m}}
}
