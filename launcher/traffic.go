package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
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
	stopped bool
	parts   map[string]*part // living parts by node
	id      string           // attempt
	placed  *agents.Plan
	ranks   map[uint32]Place
	stdin   *feeder
	by      string // signal that interrupted
	started bool
	discard bool       // nobody reads our output any more
	broken  chan error // the first write that failed
}

// part is one node's side of the attempt.
type part struct {
	next    uint64 // output taken over below this offset
	file    *os.File
	fileOff uint64
}

type outItem struct {
	node string
	id   string
	out  *wire.Output
	tell func() // set: a notice, in its place between the output
}

func newTraffic(r *run) *traffic {
	t := &traffic{run: r, parts: map[string]*part{}, ranks: map[uint32]Place{}, broken: make(chan error, 1)}
	t.more = sync.NewCond(&t.mu)
	return t
}

// attempt follows the attempt's state: a new one starts afresh.
func (t *traffic) attempt(rec *job.AttemptRow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec.ID != t.id {
		t.id, t.started = rec.ID, false
		t.parts = map[string]*part{}
		t.ranks = map[uint32]Place{}
		for _, p := range rec.Parts {
			t.parts[p.Node] = &part{}
		}
		if t.run.cfg.Stdin != nil && len(rec.Parts) > 0 {
			t.stdin = newFeeder(t.run.cfg.Stdin, rec.Parts[0].Node, rec.ID, t.run.fleet)
		}
	}
	t.started = rec.State == job.AttemptRunning || rec.State == job.AttemptLaunching
}

func (t *traffic) running() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started
}

func (t *traffic) interruptedBy(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by = name
}

func (t *traffic) interrupter() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.by
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
	for node := range t.parts {
		t.run.fleet.Send(node, &wire.ToShim{Id: t.id, M: &wire.ToShim_Signal{Signal: &wire.Signal{Number: int32(n)}}})
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
		t.put(outItem{node: node, id: m.GetId(), out: x.Output})
	case *wire.FromShim_Notice:
		t.put(outItem{tell: func() { t.run.cfg.Out.Notice(node, x.Notice.GetText(), x.Notice.GetWarning()) }})
	case *wire.FromShim_Ready:
		for _, r := range x.Ready.GetRanks() {
			t.ranks[r.GetRank()] = Place{Rank: int(r.GetRank()), Node: node, CPUs: r.GetCpus(), GPUs: r.GetGpus(), Threads: int(r.GetThreads())}
		}
	case *wire.FromShim_Plan:
		p := agents.PlanOf(x.Plan)
		t.placed = &p
		t.put(outItem{tell: func() { t.run.cfg.Out.Planned(node, p) }})
	case *wire.FromShim_StdinCredit:
		if t.stdin != nil && t.stdin.id == m.GetId() {
			t.stdin.credit(x.StdinCredit.GetUpto())
		}
	case *wire.FromShim_FileAck:
		// The first one, at offset 0, asks for the file.
		if x.FileAck.GetError() == "" {
			t.sendFile(node, x.FileAck.GetOffset())
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
	for _, it := range t.queue {
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
	if t.stdin != nil && t.stdin.node == node {
		t.stdin.again()
	}
	if p := t.parts[node]; p != nil && p.file != nil {
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
		t.queue = nil
		stopped := t.stopped
		t.mu.Unlock()
		for _, it := range batch {
			if it.tell != nil {
				it.tell()
				continue
			}
			t.write(it)
		}
		if stopped && len(batch) == 0 {
			return
		}
	}
}

func (t *traffic) write(it outItem) {
	t.mu.Lock()
	p := t.parts[it.node]
	current := p != nil && t.id == it.id
	var skip uint64
	end := it.out.GetOffset() + uint64(len(it.out.GetData()))
	drop := t.discard
	if current {
		// After a reconnection the shim repeats what it has no receipt for.
		skip = min(max(p.next, it.out.GetOffset())-it.out.GetOffset(), uint64(len(it.out.GetData())))
		p.next = max(p.next, end)
	}
	t.mu.Unlock()
	if data := it.out.GetData()[skip:]; len(data) > 0 && !drop {
		if err := t.run.cfg.Out.Output(it.node, int(it.out.GetRank()), it.out.GetStream() == wire.Stream_STREAM_STDERR, data); err != nil {
			select {
			case t.broken <- err:
			default: // the first one decides
			}
		}
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
	for _, p := range t.parts {
		if p.file != nil {
			_ = p.file.Close()
			p.file = nil
		}
	}
}

// fileChunk is how much of a program travels at once; the next chunk follows
// the acknowledgement of the last, so a slow node holds up nobody.
const fileChunk = 1 << 20

func (t *traffic) sendFile(node string, off uint64) {
	p := t.parts[node]
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
