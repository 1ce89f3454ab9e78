// Package history finds the results of arrays in a store: a million of them, by
// index, node, exit status or time, without an object for each. It keeps a small
// index of the rows of blocks, reads of the rows what a question needs, and merges
// small rows into larger ones.
package history

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"

	"gangway/launcher/job"
)

// Rows are where blocks are kept; launcher/store documents the methods.
type Rows interface {
	GetAll(table job.Table, keys []string) (map[string][]byte, error)
	Scan(table job.Table, from string, limit int) ([]job.Row, error)
}

// maxEntries bounds the index: about 25 MiB. Tasks that were asked for least
// lately are left out, and indexed again when they are asked for.
const maxEntries = 1 << 18

// History answers questions about the past of arrays. It is safe for concurrent
// use.
type History struct {
	rows Rows

	mu    sync.Mutex
	tasks map[string]*index
	clock uint64
	total int // entries
}

// New returns a History of the blocks in a store.
func New(rows Rows) *History { return &History{rows: rows, tasks: map[string]*index{}} }

// index is what is known of a task's rows.
type index struct {
	mu      sync.Mutex
	used    uint64 // History.clock when it was asked for; of History.mu
	counted int    // entries that History.total has; of History.mu
	dropped bool   // it is no longer History's; of History.mu

	entries []entry // by seq
	last    uint64  // highest number of a block that is in it
	nodes   []string
	exits   []exit
	taken   []takenBack // outcomes that a reactivation took back, by seq
}

// entry is one row.
type entry struct {
	seq, last    uint64 // of its first and last block
	lo, hi       uint64 // all of its elements are between
	done, others uint32 // elements that ended, and that are tried again
	bytes        uint32
	bad          uint32
	from, to     int64  // unix microseconds: they began and ended between
	nodes, exits uint64 // sets of what index.nodes and index.exits have; bit 63: others too
}

// exit is how an element ended, but for the reason.
type exit struct {
	success      bool
	code, signal int
}

type takenBack struct {
	seq uint64
	job.Range
}

// bitOf returns the bit of a value in a set, whose values are added as they come.
func bitOf[T comparable](all *[]T, v T) uint64 {
	i := slices.Index(*all, v)
	if i < 0 {
		if len(*all) == 63 {
			return 1 << 63
		}
		i = len(*all)
		*all = append(*all, v)
	}
	return 1 << i
}

// of returns the index of a task, for the caller to lock.
func (h *History) of(task string) *index {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.tasks[task]
	if x == nil {
		x = &index{}
		h.tasks[task] = x
	}
	h.clock++
	x.used = h.clock
	return x
}

// grown accounts for an index that is locked by the caller.
func (h *History) grown(x *index) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.dropped {
		return
	}
	h.total += len(x.entries) - x.counted
	x.counted = len(x.entries)
	for h.total > maxEntries && len(h.tasks) > 1 {
		var oldest string
		least := uint64(math.MaxUint64)
		for task, y := range h.tasks {
			if y != x && y.used < least {
				oldest, least = task, y.used
			}
		}
		if oldest == "" {
			return
		}
		h.drop(oldest)
	}
}

func (h *History) drop(task string) {
	if x := h.tasks[task]; x != nil {
		h.total -= x.counted
		x.counted, x.dropped = 0, true
		delete(h.tasks, task)
	}
}

// Forget drops what is indexed of a task.
func (h *History) Forget(task string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(task)
}

// refresh takes in the rows that are new. The caller has locked x.
func (h *History) refresh(x *index, task string) error {
	// Mostly there are none: the first scan must not read much of the next task.
	for limit := 1; ; limit = min(limit*8, 512) {
		rows, err := h.rows.Scan(job.TableBlock, job.BlockKey(task, x.last+1), limit)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if !strings.HasPrefix(r.Key, task+"/") {
				h.grown(x)
				return nil
			}
			e, err := x.read(r)
			if err != nil {
				return err
			}
			x.entries = append(x.entries, e)
			x.last = e.last
		}
		if len(rows) < limit {
			h.grown(x)
			return nil
		}
	}
}

// read makes the entry of a row.
func (x *index) read(r job.Row) (entry, error) {
	e := entry{lo: math.MaxUint64, from: math.MaxInt64, to: math.MinInt64, bytes: uint32(len(r.Value))}
	var in job.BlockReader
	if err := in.Open(r); err != nil {
		return e, err
	}
	var b job.BlockRow
	for first := true; in.Next(&b); first = false {
		if first {
			e.seq = b.Seq
		}
		e.last = b.Seq
		for i := range b.Done {
			o := &b.Done[i]
			e.lo, e.hi = min(e.lo, o.Lo), max(e.hi, o.Hi)
			e.done += uint32(o.Len())
			if !o.Success {
				e.bad += uint32(o.Len())
			}
			e.exits |= bitOf(&x.exits, exit{o.Success, o.ExitCode, o.Signal})
		}
		for _, t := range b.Again {
			e.lo, e.hi = min(e.lo, t.Lo), max(e.hi, t.Hi)
			e.others += uint32(t.Len())
			if b.Attempt == "" {
				x.taken = append(x.taken, takenBack{b.Seq, t.Range})
			}
		}
		if len(b.Done) == 0 {
			continue
		}
		e.nodes |= bitOf(&x.nodes, b.Node)
		costs, err := in.Costs()
		if err != nil {
			return e, err
		}
		at := b.At.UnixMicro()
		if costs.Len() > 0 {
			from, to := costs.Span()
			e.from, e.to = min(e.from, from), max(e.to, to)
		} else {
			e.from, e.to = min(e.from, at), max(e.to, at)
		}
	}
	return e, in.Err()
}

// back reports whether an outcome with the block's number was taken back later.
func back(taken []takenBack, seq, element uint64) bool {
	for i := len(taken) - 1; i >= 0 && taken[i].seq > seq; i-- {
		if taken[i].Lo <= element && element < taken[i].Hi {
			return true
		}
	}
	return false
}

// find returns copies of the entries that want lets through, by their first
// element, and what was taken back.
func (h *History) find(task string, want func(*index, *entry) bool) ([]entry, []takenBack, error) {
	x := h.of(task)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := h.refresh(x, task); err != nil {
		return nil, nil, err
	}
	var out []entry
	for i := range x.entries {
		if e := &x.entries[i]; want(x, e) {
			out = append(out, *e)
		}
	}
	slices.SortStableFunc(out, func(a, b entry) int { return cmp.Compare(a.lo, b.lo) })
	return out, slices.Clone(x.taken), nil
}

// Warm indexes a task ahead of the first question.
func (h *History) Warm(task string) error {
	x := h.of(task)
	x.mu.Lock()
	defer x.mu.Unlock()
	return h.refresh(x, task)
}
