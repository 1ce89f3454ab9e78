package history

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/bits"
	"slices"
	"time"

	"gangway/launcher/job"
)

// Element is one execution of an array's element.
type Element struct {
	Index     uint64
	Attempt   uint32 // its number; 0: not said
	AttemptID string // of the attempt that ran it; "": none did
	Node      string // "": not said
	At        time.Time
	Outcome   job.Outcome // without a range
	Ended     bool        // false: it is to be tried again, and Outcome may say nothing
	Cost      job.Cost
	Measured  bool   // Cost is known
	Last      string // line on stderr; only of Attempts
}

// Start is when it began, zero if that is not known.
func (e *Element) Start() time.Time {
	if !e.Measured {
		return time.Time{}
	}
	return time.UnixMicro(e.Cost.Start).UTC()
}

// End is when it ended: by the node's clock, or else when that became known.
func (e *Element) End() time.Time {
	if !e.Measured {
		return e.At
	}
	return time.UnixMicro(e.Cost.Start + int64(min(e.Cost.Wall, longest))).UTC()
}

// Span is what is known of elements before all of them are looked at: they ended
// in the same way on the same node.
type Span struct {
	job.Range                // their indices are in it
	Success      bool        //
	Code, Signal int         //
	Reason       *job.Reason // if Exact
	Exact        bool        // Reason is said
	Node         string
	From, To     time.Time // they began and ended between
}

// Query asks for elements that ended.
type Query struct {
	From  uint64 // first index
	Limit int    // how many at most
	// May says which of a span's elements are wanted; nil: those that Match wants.
	May func(*Span) Answer
	// Match says of an element whether it is wanted, and keeps none; nil: yes.
	Match func(*Element) bool
}

// Answer says which of some elements are wanted.
type Answer int

// The answers.
const (
	None  Answer = iota
	Some         // perhaps some: each has to be looked at
	Every        // all of them
)

// readAtOnce is how many rows are read at once: few at first, as a page needs few.
const readAtOnce = 8

// errMoved reports rows that were merged while they were looked for.
var errMoved = errors.New("rows were merged meanwhile")

// Page returns elements of a task that ended and were not reactivated since, by
// index.
func (h *History) Page(ctx context.Context, task string, q Query) ([]Element, error) {
	for {
		out, err := h.page(ctx, task, q)
		if !errors.Is(err, errMoved) {
			return out, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h.Forget(task)
	}
}

func (h *History) page(ctx context.Context, task string, q Query) ([]Element, error) {
	if q.Limit <= 0 {
		return nil, nil
	}
	entries, taken, err := h.find(task, func(x *index, e *entry) bool {
		return e.done > 0 && e.hi > q.From && (q.May == nil || x.may(e, q.May))
	})
	if err != nil {
		return nil, err
	}
	p := pager{Query: q, taken: taken, bound: math.MaxUint64}
	for n := readAtOnce; len(entries) > 0; n *= 2 {
		k := min(n, len(entries), 128)
		if p.trim(); entries[0].lo >= p.bound {
			break
		}
		for 1 < k && entries[k-1].lo >= p.bound {
			k--
		}
		rows, err := h.read(task, entries[:k])
		if err != nil {
			return nil, err
		}
		entries = entries[k:]
		for _, r := range rows {
			if err := p.row(r); err != nil {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	p.trim()
	return p.out, nil
}

// read reads rows, in the order of the entries.
func (h *History) read(task string, entries []entry) ([]job.Row, error) {
	keys := make([]string, len(entries))
	for i := range entries {
		keys[i] = job.BlockKey(task, entries[i].seq)
	}
	found, err := h.rows.GetAll(job.TableBlock, keys)
	if err != nil {
		return nil, err
	}
	out := make([]job.Row, len(keys))
	for i, k := range keys {
		v, ok := found[k]
		// A row that was merged into the first of them has that one's key.
		if !ok || len(v) != int(entries[i].bytes) {
			return nil, errMoved
		}
		out[i] = job.Row{Table: job.TableBlock, Key: k, Value: v}
	}
	return out, nil
}

// may asks for each way in which an element of the row may have ended on each
// node; where these are very many, or not all known, the row is looked at.
func (x *index) may(e *entry, may func(*Span) Answer) bool {
	if (e.nodes|e.exits)>>63 != 0 || bits.OnesCount64(e.nodes)*bits.OnesCount64(e.exits) > 256 {
		return true
	}
	s := Span{Range: job.Range{Lo: e.lo, Hi: e.hi}, From: time.UnixMicro(e.from), To: time.UnixMicro(e.to)}
	for n := e.nodes; n != 0; n &= n - 1 {
		s.Node = x.nodes[bits.TrailingZeros64(n)]
		for k := e.exits; k != 0; k &= k - 1 {
			way := x.exits[bits.TrailingZeros64(k)]
			s.Success, s.Code, s.Signal = way.success, way.code, way.signal
			if may(&s) != None {
				return true
			}
		}
	}
	return false
}

// pager collects the first elements that a query wants.
type pager struct {
	Query
	taken []takenBack
	bound uint64 // of indices: enough are below
	out   []Element
	in    job.BlockReader
	b     job.BlockRow
	one   Element // that is looked at
}

// trim keeps the first ones.
func (p *pager) trim() {
	slices.SortFunc(p.out, func(a, b Element) int { return cmp.Compare(a.Index, b.Index) })
	if len(p.out) >= p.Limit {
		p.out = p.out[:p.Limit]
		p.bound = p.out[p.Limit-1].Index
	}
}

func (p *pager) row(r job.Row) error {
	if err := p.in.Open(r); err != nil {
		return err
	}
	for p.in.Next(&p.b) {
		if err := p.block(); err != nil {
			return err
		}
		if len(p.out) >= 2*p.Limit+1024 {
			p.trim()
		}
	}
	return p.in.Err()
}

func (p *pager) block() error {
	b := &p.b
	var costs *job.CostReader
	var span Span
	at := places{again: b.Again}
	got, highest := 0, uint64(0)
	for i := range b.Done {
		o := &b.Done[i]
		pos := at.of(o.Range)
		lo, hi := max(o.Lo, p.From), min(o.Hi, p.bound)
		if lo >= hi {
			continue
		}
		answer := Some
		if costs == nil {
			var err error
			if costs, err = p.in.Costs(); err != nil {
				return err
			}
			if p.May != nil {
				from, to := costs.Span()
				if costs.Len() == 0 {
					from, to = b.At.UnixMicro(), b.At.UnixMicro()
				}
				span = Span{Exact: true, Node: b.Node, From: time.UnixMicro(from), To: time.UnixMicro(to)}
			}
		}
		if p.May != nil {
			span.Range = job.Range{Lo: lo, Hi: hi}
			span.Success, span.Code, span.Signal, span.Reason = o.Success, o.ExitCode, o.Signal, o.Reason
			if answer = p.May(&span); answer == None {
				continue
			}
		}
		e := &p.one
		*e = Element{AttemptID: b.Attempt, Node: b.Node, At: b.At, Outcome: *o, Ended: true}
		e.Outcome.Range = job.Range{}
		for x := lo; x < hi; x++ {
			if len(p.taken) > 0 && back(p.taken, b.Seq, x) {
				continue
			}
			e.Index = x
			e.measure(costs, pos+x-o.Lo)
			if answer == Every || p.Match == nil || p.Match(e) {
				p.out = append(p.out, *e)
				highest = max(highest, x)
				if got++; got == p.Limit { // there are enough that are not above it
					p.bound = min(p.bound, highest+1)
					hi = min(hi, p.bound)
				}
			}
		}
	}
	return nil
}

// measure adds what it cost.
func (e *Element) measure(costs *job.CostReader, pos uint64) {
	if pos < uint64(costs.Len()) {
		e.Cost, e.Measured = costs.At(int(pos)), true
		e.Attempt = e.Cost.Attempt
	} else {
		e.Cost, e.Measured = job.Cost{}, false
		e.Attempt = job.AttemptNumber(e.AttemptID)
	}
}

// places tells where the costs of a block's runs of elements begin: they are in
// the order of the elements of its outcomes and tries together.
type places struct {
	again []job.Try
	pos   uint64
}

// of returns the place of the first element of an outcome's run. It is asked for
// all of them in order.
func (p *places) of(r job.Range) uint64 {
	for len(p.again) > 0 && p.again[0].Lo < r.Lo {
		p.pos += p.again[0].Len()
		p.again = p.again[1:]
	}
	at := p.pos
	p.pos += r.Len()
	return at
}

// Attempts returns all executions of an element, the first one first, with their
// last lines.
func (h *History) Attempts(task string, index uint64) ([]Element, error) {
	for {
		out, err := h.attempts(task, index)
		if !errors.Is(err, errMoved) {
			return out, err
		}
		h.Forget(task)
	}
}

func (h *History) attempts(task string, element uint64) ([]Element, error) {
	entries, _, err := h.find(task, func(_ *index, e *entry) bool { return e.lo <= element && element < e.hi })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
	var out []Element
	var in job.BlockReader
	var b job.BlockRow
	for part := range slices.Chunk(entries, 128) {
		rows, err := h.read(task, part)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if err := in.Open(r); err != nil {
				return nil, err
			}
			for in.Next(&b) {
				e, ok, err := find(&in, &b, element)
				if err != nil {
					return nil, err
				}
				if ok {
					out = append(out, e)
				}
			}
			if err := in.Err(); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// find returns what a block says of an element's execution.
func find(in *job.BlockReader, b *job.BlockRow, index uint64) (e Element, ok bool, err error) {
	has := func(r job.Range) bool { return r.Lo <= index && index < r.Hi }
	var pos uint64
	below := func(r job.Range) { pos += min(max(index, r.Lo), r.Hi) - r.Lo }
	e = Element{Index: index, AttemptID: b.Attempt, Node: b.Node, At: b.At}
	for _, o := range b.Done {
		below(o.Range)
		if has(o.Range) {
			e.Outcome, e.Ended, ok = o, true, true
		}
	}
	for _, t := range b.Again {
		below(t.Range)
		ok = ok || has(t.Range) && b.Attempt != ""
	}
	if !ok {
		return e, false, nil
	}
	for _, o := range b.Was {
		if has(o.Range) {
			e.Outcome = o
		}
	}
	e.Outcome.Range = job.Range{}
	costs, err := in.Costs()
	if err != nil {
		return e, false, err
	}
	if e.measure(costs, pos); !e.Ended && !e.Measured {
		return e, false, nil // given back unstarted
	}
	last, err := in.Last()
	for _, l := range last {
		if l.Index == index {
			e.Last = l.Text
		}
	}
	return e, true, err
}
