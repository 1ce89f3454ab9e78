package state

import (
	"cmp"
	"fmt"
	"slices"

	"gangway/launcher/job"
	"gangway/topology"
)

// Load rebuilds the cluster from all rows of a store, in any order. The sessions
// of its nodes are as they were when the last row was written: apply Restarted
// next.
func Load(rows []job.Row) (*Cluster, error) {
	c := New("", 0)
	var jobs []job.JobRow
	var tasks []job.TaskRow
	var blocks []job.Row
	var attempts []job.AttemptRow
	parts := map[string]job.PartRow{}
	topologies := map[string]*topology.Node{}
	for _, r := range rows {
		var err error
		switch r.Table {
		case job.TableMeta:
			err = r.Decode(&c.meta)
		case job.TableJob:
			jobs, err = decode(jobs, r)
		case job.TableTask:
			tasks, err = decode(tasks, r)
		case job.TableBlock:
			blocks = append(blocks, r)
		case job.TableAttempt:
			attempts, err = decode(attempts, r)
		case job.TablePart:
			var p job.PartRow
			err = r.Decode(&p)
			parts[r.Key] = p
		case job.TableNode:
			n := &node{}
			err = r.Decode(&n.row)
			c.nodes[r.Key] = n
			c.order = append(c.order, n)
		case job.TableTopology:
			topo := &topology.Node{}
			err = r.Decode(topo)
			topologies[r.Key] = topo
		case job.TableAutopsy: // history
		default:
			err = fmt.Errorf("row %s/%s is of a table that this version does not know: use the version that wrote it, or a newer one", r.Table, r.Key)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.meta.Cluster == "" && len(rows) > 0 {
		return nil, fmt.Errorf("the data set has rows but not the one that names its cluster; restore it from a backup")
	}
	slices.SortFunc(jobs, func(a, b job.JobRow) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, row := range jobs {
		c.addJob(row)
	}
	slices.SortFunc(tasks, func(a, b job.TaskRow) int { return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Index, b.Index)) })
	for _, row := range tasks {
		j, ok := c.jobs[row.Job]
		if !ok {
			return nil, fmt.Errorf("task %s is of job %s, which is not there; restore the data set from a backup", row.UID, row.Job)
		}
		c.addTask(j, row)
	}
	slices.SortFunc(blocks, job.CompareRows) // those of a task by number
	histories := map[*taskState]*history{}
	var in job.BlockReader
	var b job.BlockRow // one for all: there may be very many
	for _, r := range blocks {
		if err := in.Open(r); err != nil {
			return nil, err
		}
		for in.Next(&b) { // without what they cost: that is for readers of history
			t, ok := c.tasks[b.Task]
			if !ok {
				return nil, fmt.Errorf("block %d is of task %s, which is not there; restore the data set from a backup", b.Seq, b.Task)
			}
			h := histories[t]
			if h == nil {
				h = &history{}
				histories[t] = h
			}
			h.take(t, b)
		}
		if err := in.Err(); err != nil {
			return nil, err
		}
	}
	for t, h := range histories {
		h.settle(t)
	}
	slices.SortFunc(c.order, func(a, b *node) int { return cmp.Compare(a.row.Seq, b.row.Seq) })
	for name, n := range c.nodes {
		if topo := topologies[name]; topo != nil {
			n.setTopology(topo)
		}
	}
	slices.SortFunc(attempts, func(a, b job.AttemptRow) int { return cmp.Compare(a.ID, b.ID) })
	for _, row := range attempts {
		t, ok := c.tasks[row.Task]
		if !ok {
			return nil, fmt.Errorf("attempt %s is of task %s, which is not there; restore the data set from a backup", row.ID, row.Task)
		}
		for i := range row.Nodes {
			p, ok := parts[job.PartKey(row.ID, i)]
			if !ok {
				return nil, fmt.Errorf("attempt %s has %d parts, of which number %d is missing; restore the data set from a backup", row.ID, row.Nodes, i)
			}
			row.Parts = append(row.Parts, p)
		}
		a := &attempt{AttemptRow: row, task: t}
		c.addAttempt(a)
		for _, r := range a.unsettled() {
			t.pending = t.pending.remove(r)
		}
	}
	c.connectAll()
	for _, n := range c.order {
		n.refresh()
	}
	for _, row := range jobs {
		j := c.jobs[row.UID]
		j.open = 0
		for _, t := range j.tasks {
			if !t.completed() {
				j.open++
			}
		}
		if j.open > 0 {
			c.queue(j)
		}
	}
	return c, nil
}

func decode[T any](to []T, r job.Row) ([]T, error) {
	var v T
	if err := r.Decode(&v); err != nil {
		return nil, err
	}
	return append(to, v), nil
}

// history gathers what a task's blocks say. Elements end once and for all but
// for those that are reactivated, so their outcomes may be put together at the
// end: one by one, blocks that came out of order would move all that is behind
// them each time.
type history struct{ good, bad []job.Range }

// take notes a block; blocks come in order.
func (h *history) take(t *taskState, b job.BlockRow) {
	if b.Attempt == "" && len(b.Again) > 0 { // a reactivation takes outcomes back
		h.settle(t)
		t.take(b)
		h.good, h.bad = t.good, t.bad
		return
	}
	for i := range b.Done {
		o := &b.Done[i]
		if o.Success {
			h.good = extend(h.good, o.Range)
		} else {
			h.bad = extend(h.bad, o.Range)
		}
		t.mark(o)
	}
	if n := len(b.Done); n > 0 {
		last := b.Done[n-1]
		t.last = &last
	}
	for _, try := range b.Again {
		t.pending = t.pending.remove(try.Range).put(try)
	}
	t.note(b)
}

// settle is where all blocks have led to.
func (h *history) settle(t *taskState) {
	t.good, t.bad = union(h.good), union(h.bad)
	for _, r := range union(slices.Concat(t.good, t.bad)) {
		t.pending = t.pending.remove(r)
	}
}

// extend appends r, or makes the last range longer if r begins where it ends.
func extend(s []job.Range, r job.Range) []job.Range {
	if n := len(s); n > 0 && s[n-1].Hi == r.Lo {
		s[n-1].Hi = r.Hi
		return s
	}
	return append(s, r)
}

// union sorts and joins ranges, in place.
func union(s []job.Range) ranges {
	slices.SortFunc(s, func(a, b job.Range) int { return cmp.Compare(a.Lo, b.Lo) })
	out := s[:0]
	for _, r := range s {
		if n := len(out); n > 0 && r.Lo <= out[n-1].Hi {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
		} else if r.Len() > 0 {
			out = append(out, r)
		}
	}
	return slices.Clone(ranges(out)) // mostly far fewer
}
