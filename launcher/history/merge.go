package history

import (
	"errors"
	"slices"

	"gangway/launcher/job"
)

// Rows with fewer than fullRow elements are merged, up to about so many: what a
// page needs is then in few rows, and a row is read in well under a millisecond.
const (
	fullRow     = 4096
	enoughRow   = fullRow * 3 / 4
	maxRowBytes = 256 << 10
	manyRows    = 256 // are merged however few elements they have
	minGrowth   = 8   // a merge adds at least one in so many elements to its largest row
)

// Merge is rows to put in the place of others that say the same.
type Merge struct {
	Task string
	Drop []string // keys; the first row's is not among them: it is replaced
	Rows []job.Row
}

// Merge returns what to merge of a task, nil if there is nothing. final says that
// it has completed: then no small row is left to wait for more.
func (h *History) Merge(task string, final bool) (*Merge, error) {
	x := h.of(task)
	x.mu.Lock()
	err := h.refresh(x, task)
	groups := x.groups(final)
	x.mu.Unlock()
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	m := &Merge{Task: task}
	for _, g := range groups {
		rows, err := h.read(task, g)
		if errors.Is(err, errMoved) {
			h.Forget(task)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var blocks []job.BlockRow
		for i, r := range rows {
			more, err := r.DecodeBlocks()
			if err != nil {
				return nil, err
			}
			blocks = append(blocks, more...)
			if i > 0 {
				m.Drop = append(m.Drop, r.Key)
			}
		}
		m.Rows = append(m.Rows, job.EncodeBlocks(blocks))
	}
	return m, nil
}

// maxGroups bounds how much one merge holds in memory and commits at once.
const maxGroups = 16

// groups are the rows to merge with each other.
func (x *index) groups(final bool) [][]entry {
	var out [][]entry
	var g []entry
	var sum, largest, size uint64
	end := func() {
		worth := sum >= enoughRow || len(g) >= manyRows || final
		grows := final || sum-largest >= sum/minGrowth
		if len(g) > 1 && worth && grows && len(out) < maxGroups {
			out = append(out, g)
		}
		g, sum, largest, size = nil, 0, 0, 0
	}
	for _, e := range x.entries {
		n := uint64(e.done) + uint64(e.others)
		full := n >= enoughRow || uint64(e.bytes) >= maxRowBytes/2
		if full || sum+n > fullRow+enoughRow || size+uint64(e.bytes) > maxRowBytes {
			end()
		}
		if full {
			continue
		}
		g = append(g, e)
		sum, largest, size = sum+n, max(largest, n), size+uint64(e.bytes)
		if sum >= fullRow {
			end()
		}
	}
	end()
	return out
}

// Merged takes in that a merge is committed.
func (h *History) Merged(m *Merge) error {
	x := h.of(m.Task)
	x.mu.Lock()
	defer x.mu.Unlock()
	gone := make(map[string]bool, len(m.Drop))
	for _, k := range m.Drop {
		gone[k] = true
	}
	instead := make(map[string]entry, len(m.Rows))
	for _, r := range m.Rows {
		taken := x.taken
		e, err := x.read(r)
		x.taken = taken // it has them already
		if err != nil {
			return err
		}
		instead[r.Key] = e
	}
	x.entries = slices.DeleteFunc(x.entries, func(e entry) bool { return gone[job.BlockKey(m.Task, e.seq)] })
	for i := range x.entries {
		if e, ok := instead[job.BlockKey(m.Task, x.entries[i].seq)]; ok {
			x.entries[i] = e
		}
	}
	h.grown(x)
	return nil
}
