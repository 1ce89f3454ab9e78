package crew

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
)

// A crew's spool has three kinds of records:
//
//	what it was given      Frame.to with Work; more than one add up
//	what it is about to start   Frame.from with a Block of number 0
//	results and returns    Frame.from with a numbered Block; an empty one keeps the
//	                       number of the last, where all are acknowledged
//
// An element is recorded before it may run, so what was given and never begun has
// not run, and may be given back when the crew is found dead. Blocks that the
// launcher has acknowledged are dropped whenever the file is begun anew.

// Limits of what is not acknowledged: beyond these the crew starts nothing.
const (
	mostUnacked      = 24 << 20 // bytes of blocks
	mostUnackedCount = 1 << 20  // elements in them
	// rewriteAt is how much of the file may be of no use, in bytes.
	rewriteAt = 4 << 20
)

// ledger is what a crew must not forget. Its methods may be called from several
// goroutines.
type ledger struct {
	id   string
	name *wire.AttemptName
	j    *spool.Journal

	mu       sync.Mutex
	first    []*wire.Frame // that stay
	given    set           // without a block
	begun    set           // of given, what was about to start
	blocks   []*wire.Block
	sizes    []int // of blocks, encoded
	bytes    int   // their sum
	elements uint64
	seq      uint64 // of the last block
	kept     int64  // size of the file when it was begun
}

func newLedger(dir, id string, name *wire.AttemptName) (*ledger, error) {
	j, err := spool.OpenJournal(dir, id)
	if err != nil {
		return nil, err
	}
	return &ledger{id: id, name: name, j: j, given: set{}, begun: set{}}, nil
}

func givenFrame(id string, runs []*wire.Run) *wire.Frame {
	return &wire.Frame{M: &wire.Frame_To{To: &wire.ToShim{Id: id, M: &wire.ToShim_Work{Work: &wire.Work{Runs: runs}}}}}
}

func (l *ledger) blockFrame(b *wire.Block) *wire.Frame {
	return &wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: l.id, Name: l.name, M: &wire.FromShim_Block{Block: b}}}}
}

// record adds a record that stays.
func (l *ledger) record(f *wire.Frame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = append(l.first, f)
	return l.j.Append(f)
}

// give records what the crew was given.
func (l *ledger) give(runs []*wire.Run) error {
	bare := make([]*wire.Run, 0, len(runs))
	for _, r := range runs {
		bare = append(bare, &wire.Run{Range: r.GetRange(), Attempt: r.GetAttempt()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given.addRuns(bare)
	for part := range slices.Chunk(bare, runsOfRecord) {
		if err := l.j.Append(givenFrame(l.id, part)); err != nil {
			return err
		}
	}
	return nil
}

// begin records what is about to be started.
func (l *ledger) begin(runs []*wire.Run) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun.addRuns(runs)
	return l.j.Append(l.blockFrame(&wire.Block{Runs: runs}))
}

// commit numbers a block and makes it durable. After an error it is not in the
// spool and has no number.
func (l *ledger) commit(b *wire.Block) error {
	l.mu.Lock()
	b.Seq = l.seq + 1
	f := l.blockFrame(b)
	size := proto.Size(b)
	if err := l.j.Append(f); err != nil {
		l.mu.Unlock()
		return err
	}
	l.mu.Unlock()
	err := l.j.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	// Whether it could be synced or not, its number is taken now: it may be read.
	l.seq = b.GetSeq()
	for _, s := range []set{l.given, l.begun} {
		s.removeRuns(b.GetRuns())
		s.removeRuns(b.GetReturned())
	}
	l.blocks, l.sizes = append(l.blocks, b), append(l.sizes, size)
	l.bytes += size
	l.elements += length(b.GetRuns())
	return err
}

// ack drops the blocks up to and with seq.
func (l *ledger) ack(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.blocks) > 0 && l.blocks[0].GetSeq() <= seq {
		l.bytes -= l.sizes[0]
		l.elements -= length(l.blocks[0].GetRuns())
		l.blocks[0] = nil
		l.blocks, l.sizes = l.blocks[1:], l.sizes[1:]
	}
}

// full says whether more than enough waits for an acknowledgement.
func (l *ledger) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes > mostUnacked || l.elements > mostUnackedCount
}

// tidy begins the file anew when most of it is of no use. It is called by the
// goroutine that commits.
func (l *ledger) tidy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.j.Size() < l.kept+int64(l.bytes)+rewriteAt {
		return nil
	}
	frames := slices.Clone(l.first)
	for part := range slices.Chunk(l.given.runs(), runsOfRecord) {
		frames = append(frames, givenFrame(l.id, part))
	}
	for part := range slices.Chunk(l.begun.runs(), runsOfRecord) {
		frames = append(frames, l.blockFrame(&wire.Block{Runs: part}))
	}
	for _, b := range l.blocks {
		frames = append(frames, l.blockFrame(b))
	}
	if len(l.blocks) == 0 && l.seq > 0 { // what is told after a death must be numbered behind it
		frames = append(frames, l.blockFrame(&wire.Block{Seq: l.seq}))
	}
	if err := l.j.Rewrite(frames...); err != nil {
		return err
	}
	l.kept = l.j.Size() - int64(l.bytes)
	return nil
}

// finished is what blocks that are not acknowledged say.
func (l *ledger) finished() set {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := set{}
	for _, b := range l.blocks {
		s.addRuns(b.GetRuns())
		s.addRuns(b.GetReturned())
	}
	return s
}

// result records the crew's end.
func (l *ledger) result(m *wire.FromShim) error {
	if err := l.j.Append(&wire.Frame{M: &wire.Frame_From{From: m}}); err != nil {
		return err
	}
	return l.j.Sync()
}

// runsOfRecord bounds a record's length: a run takes 40 bytes at most.
const runsOfRecord = 100_000

// Found is what a dead crew's spool says.
type Found struct {
	Blocks   []*wire.Block // in order; the first are perhaps acknowledged already
	Returned *wire.Block   // numbered after them: what was given and never begun; nil: nothing
}

// Recover reads the records of a crew that is no more. told is the last Work that
// it was sent, which it may not have read; nil: none is known. A spool whose blocks
// are not numbered as a crew numbers them is an error, with what came before.
func Recover(records []*wire.Frame, told *wire.Work) (Found, error) {
	var out Found
	given, begun, done := set{}, set{}, set{}
	var last uint64 // number of a block
	for i, f := range records {
		if w := f.GetTo().GetWork(); w != nil {
			given.addRuns(sane(w.GetRuns()))
			continue
		}
		b := f.GetFrom().GetBlock()
		switch {
		case b == nil:
			continue
		case b.GetSeq() == 0:
			begun.addRuns(sane(b.GetRuns()))
			continue
		}
		if last > 0 && b.GetSeq() != last+1 {
			return out, fmt.Errorf("record %d: block %d follows block %d", i+1, b.GetSeq(), last)
		}
		if last = b.GetSeq(); len(b.GetRuns())+len(b.GetReturned()) == 0 {
			continue // of the acknowledged ones only the number was kept
		}
		out.Blocks = append(out.Blocks, b)
		done.addRuns(sane(b.GetRuns()))
		done.addRuns(sane(b.GetReturned()))
	}
	given.addRuns(sane(told.GetRuns()))
	gone := done
	gone.addRuns(begun.runs())
	if rest := given.without(gone); len(rest) > 0 {
		out.Returned = &wire.Block{Seq: last + 1, Returned: sorted(rest)}
	}
	return out, nil
}

// sane drops runs that hold nothing.
func sane(runs []*wire.Run) []*wire.Run {
	return slices.DeleteFunc(slices.Clone(runs), func(r *wire.Run) bool { return r.GetRange().GetLo() >= r.GetRange().GetHi() })
}
