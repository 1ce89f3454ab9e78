package launcher

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// traffic carries a running attempt's output, input and files between the
// shims and the terminal. What it holds is bounded by the shims' windows.
type traffic struct {
	run *run

	mu      sync.Mutex
	more    *sync.Cond
	queue   []outItem
	batch   []outItem // taken from the queue and being written
	stopped bool
	parts   map[partKey]*part
	id      string // attempt
	placed  *agents.Plan
	ranks   map[uint32]Place
	stdin   *feeder // from the first attempt on, if there is an input
	started bool
	discard bool       // nobody reads our output any more
	broken  chan error // the first write that failed
}

// partKey names a part of an attempt.
type partKey struct{ id, node string }

// part is one node's side of an attempt.
type part struct {
	next    uint64 // output taken over below this offset
	queued  uint64 // output below this offset is taken over or in the queue
	got     uint64 // bytes of output
	file    *os.File
	fileOff uint64

	// Asked for before the attempt was known here.
	credit    uint64 // of input
	wantsFile bool
	fileFrom  uint64
}

type outItem struct {
	node string
	id   string
	out  *wire.Output
	tell func() // set: a notice, in its place between the output
}

func newTraffic(r *run) *traffic {
	t := &traffic{run: r, parts: map[partKey]*part{}, ranks: map[uint32]Place{}, broken: make(chan error, 1)}
	t.more = sync.NewCond(&t.mu)
	return t
}

// attempt follows the attempt's state: a new one starts afresh.
func (t *traffic) attempt(rec *job.AttemptRow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec.ID != t.id {
		t.id = rec.ID
		t.closeFiles()
		t.ranks = map[uint32]Place{}
		for _, p := range rec.Parts {
			t.part(rec.ID, p.Node)
		}
		switch {
		case t.run.cfg.Stdin == nil || len(rec.Parts) == 0:
		case t.stdin == nil:
			t.stdin = newFeeder(t.run.cfg.Stdin, rec.Parts[0].Node, rec.ID, t.run.fleet)
		default:
			t.stdin.move(rec.Parts[0].Node, rec.ID)
		}
		// What its shims asked for before the news of it was here.
		for _, p := range rec.Parts {
			asked := t.part(rec.ID, p.Node)
			if t.stdin != nil && asked.credit > 0 {
				t.stdin.credit(rec.ID, asked.credit)
			}
			if asked.wantsFile {
				t.sendFile(p.Node, asked.fileFrom)
			}
		}
	}
	t.started = rec.State == job.AttemptRunning || rec.State == job.AttemptLaunching
	if rec.State == job.AttemptEnded {
		// Its nodes have nothing more to say: the rest is in the queue.
		t.put(outItem{tell: func() { t.whole(rec) }})
	}
}

// part returns a part, known or not: output may be here before the news of the
// attempt that it is of.
func (t *traffic) part(id, node string) *part {
	p := t.parts[partKey{id, node}]
	if p == nil {
		p = &part{}
		t.parts[partKey{id, node}] = p
	}
	return p
}

func (t *traffic) closeFiles() {
	for _, p := range t.parts {
		if p.file != nil {
			_ = p.file.Close()
			p.file = nil
		}
	}
}

// whole warns of output that an ended attempt wrote and that never came, as
// when a node dies: what is there may look complete.
func (t *traffic) whole(rec *job.AttemptRow) {
	t.mu.Lock()
	discarded := t.discard
	got := make([]uint64, len(rec.Parts))
	for i, p := range rec.Parts {
		got[i] = t.part(rec.ID, p.Node).got
		delete(t.parts, partKey{rec.ID, p.Node})
	}
	t.mu.Unlock()
	if discarded {
		return
	}
	for i, p := range rec.Parts {
		if text := shortfall(p, got[i]); text != "" {
			t.run.cfg.Out.Notice(p.Node, text, true)
		}
	}
}

// shortfall says what is missing of a part's output, of which got bytes came;
// "": nothing that is known of.
func shortfall(p job.PartRow, got uint64) string {
	whose := fmt.Sprintf("output of %s on node %s", p.RankText(), p.Node)
	if len(p.Results) == 0 {
		if p.Started {
			return whose + " may be incomplete: the node was lost before it had confirmed all of it"
		}
		return ""
	}
	var end uint64
	for _, r := range p.Results {
		end = max(end, r.OutputEnd)
	}
	switch {
	case end <= got:
		return ""
	case end == got+1:
		return whose + " is incomplete: 1 byte is missing"
	}
	return fmt.Sprintf("%s is incomplete: %d bytes are missing", whose, end-got)
}

// inputRead reports whether a shim was sent some of the user's input, which
// can't be read again.
func (t *traffic) inputRead() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stdin != nil && t.stdin.used()
}

func (t *traffic) running() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started
}

func (t *traffic) plan() (*agents.Plan, map[uint32]Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.placed, t.ranks
}

// signal sends a signal to every rank.
func (t *traffic) signal(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.parts {
		if k.id != t.id {
			continue
		}
		t.run.fleet.Send(k.node, &wire.ToShim{Id: t.id, M: &wire.ToShim_Signal{Signal: &wire.Signal{Number: int32(n)}}})
	}
}

// FromShim is called by the sessions.
func (t *traffic) FromShim(node string, m *wire.FromShim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch x := m.GetM().(type) {
	case *wire.FromShim_Output:
		if t.discard {
			t.ack(node, m.GetId(), x.Output)
			break
		}
		// After a reconnection the shim repeats what it has no receipt for; a
		// reader that is slow must not make the queue hold it once more.
		p, end := t.part(m.GetId(), node), x.Output.GetOffset()+uint64(len(x.Output.GetData()))
		if len(x.Output.GetData()) > 0 && end <= p.queued {
			if end <= p.next {
				t.ack(node, m.GetId(), x.Output) // the first receipt was lost
			}
			break
		}
		p.queued = max(p.queued, end)
		t.put(outItem{node: node, id: m.GetId(), out: x.Output})
	case *wire.FromShim_Notice:
		t.put(outItem{tell: func() { t.run.cfg.Out.Notice(node, x.Notice.GetText(), x.Notice.GetWarning()) }})
	case *wire.FromShim_Ready:
		for _, r := range x.Ready.GetRanks() {
			t.ranks[r.GetRank()] = placeOf(node, r)
		}
	case *wire.FromShim_Plan:
		p := agents.PlanOf(x.Plan)
		t.placed = &p
		// Every node was ready before: their ranks are known.
		ranks := slices.SortedFunc(maps.Values(t.ranks), func(a, b Place) int { return cmp.Compare(a.Rank, b.Rank) })
		t.put(outItem{tell: func() { t.run.cfg.Out.Planned(node, p, ranks) }})
	case *wire.FromShim_StdinCredit:
		upto := x.StdinCredit.GetUpto()
		if m.GetId() != t.id {
			p := t.part(m.GetId(), node)
			p.credit = max(p.credit, upto)
		} else if t.stdin != nil {
			t.stdin.credit(m.GetId(), upto)
		}
	case *wire.FromShim_FileAck:
		// The first one, at offset 0, asks for the file.
		switch {
		case x.FileAck.GetError() != "":
		case m.GetId() == t.id:
			t.sendFile(node, x.FileAck.GetOffset())
		default:
			p := t.part(m.GetId(), node)
			p.wantsFile, p.fileFrom = true, x.FileAck.GetOffset()
		}
	}
}

func (t *traffic) put(it outItem) {
	t.queue = append(t.queue, it)
	t.more.Signal()
}

func (t *traffic) ack(node, id string, o *wire.Output) {
	t.run.fleet.Send(node, &wire.ToShim{Id: id, M: &wire.ToShim_OutputAck{OutputAck: &wire.OutputAck{
		Offset: o.GetOffset() + uint64(len(o.GetData()))}}})
}

// giveUp drops all output from now on, so that a reader that is stuck does not
// keep the nodes' processes waiting.
func (t *traffic) giveUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.discard = true
	// The batch too: the write that hangs may be of its first.
	for _, it := range slices.Concat(t.batch, t.queue) {
		if it.out != nil {
			t.ack(it.node, it.id, it.out)
		}
	}
	t.queue = nil
	t.more.Broadcast()
}

func (t *traffic) gaveUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.discard
}

// sessionUp repeats what may have been lost with the node's last session.
func (t *traffic) sessionUp(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stdin != nil {
		t.stdin.again(node)
	}
	if p := t.parts[partKey{t.id, node}]; p != nil && p.file != nil {
		t.sendFile(node, p.fileOff)
	}
}

// print writes queued output until stop; it acknowledges what was written.
func (t *traffic) print() {
	for {
		t.mu.Lock()
		for len(t.queue) == 0 && !t.stopped {
			t.more.Wait()
		}
		batch := t.queue
		t.queue, t.batch = nil, batch
		stopped := t.stopped
		t.mu.Unlock()
		for i, it := range batch {
			if it.tell != nil {
				it.tell()
			} else {
				t.write(it)
			}
			// What has a receipt makes room for more.
			t.mu.Lock()
			batch[i] = outItem{}
			t.mu.Unlock()
		}
		if stopped && len(batch) == 0 {
			return
		}
	}
}

func (t *traffic) write(it outItem) {
	t.mu.Lock()
	p := t.part(it.id, it.node)
	size := uint64(len(it.out.GetData()))
	drop := t.discard
	// After a reconnection the shim repeats what it has no receipt for.
	skip := min(max(p.next, it.out.GetOffset())-it.out.GetOffset(), size)
	p.next = max(p.next, it.out.GetOffset()+size)
	p.got += size - skip
	t.mu.Unlock()
	if data := it.out.GetData()[skip:]; len(data) > 0 && !drop {
		if err := t.run.cfg.Out.Output(it.node, int(it.out.GetRank()), it.out.GetStream() == wire.Stream_STREAM_STDERR, data); err != nil {
			select {
			case t.broken <- err:
			default: // the first one decides
			}
		}
	}
	if e, ok := t.run.cfg.Out.(EndSink); ok && it.out.GetEof() && it.out.GetRank() >= 0 && !drop {
		e.OutputEnd(int(it.out.GetRank()), it.out.GetStream() == wire.Stream_STREAM_STDERR)
	}
	t.ack(it.node, it.id, it.out)
}

// stop lets print write what is there and end.
func (t *traffic) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.more.Broadcast()
	if t.stdin != nil {
		t.stdin.stop()
	}
	t.closeFiles()
}

// fileChunk is how much of a program travels at once; the next chunk follows
// the acknowledgement of the last, so a slow node holds up nobody.
const fileChunk = 1 << 20

func (t *traffic) sendFile(node string, off uint64) {
	p := t.parts[partKey{t.id, node}]
	if p == nil {
		return
	}
	p.fileOff = off
	fail := func(err error) {
		t.run.fleet.Send(node, &wire.ToShim{Id: t.id, M: &wire.ToShim_File{File: &wire.FileChunk{
			Name: "program", Error: fmt.Sprintf("reading %s: %v", t.run.cfg.Program, err)}}})
	}
	if p.file == nil {
		f, err := os.Open(t.run.cfg.Program)
		if err != nil {
			fail(err)
			return
		}
		p.file = f
	}
	fi, err := p.file.Stat()
	if err != nil {
		fail(err)
		return
	}
	if off > 0 && off >= uint64(fi.Size()) {
		_ = p.file.Close()
		p.file = nil
		return
	}
	buf := make([]byte, fileChunk)
	n, err := p.file.ReadAt(buf, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		fail(err)
		return
	}
	t.run.fleet.Send(node, &wire.ToShim{Id: t.id, M: &wire.ToShim_File{File: &wire.FileChunk{
		Name: fi.Name(), Mode: uint32(fi.Mode().Perm()), Offset: off, Data: buf[:n], Last: off+uint64(n) >= uint64(fi.Size())}}})
}
