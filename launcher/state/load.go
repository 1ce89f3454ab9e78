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
	var b job.BlockRow                       // one for all: there may be very many
	for _, r := range blocks {
		if err := r.DecodeBlock(&b); err != nil {
			return nil, err
		}
		t, ok := c.tasks[b.Task]
		if !ok {
			return nil, fmt.Errorf("block %d is of task %s, which is not there; restore the data set from a backup", b.Seq, b.Task)
		}
		t.take(b)
		if t.last != nil && len(b.Done) > 0 {
			last := *t.last
			t.last = &last
		}
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
		for _, r := range ranges(a.Settled).missing(a.Try.Range) {
			t.pending = t.pending.remove(r)
		}
	}
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
