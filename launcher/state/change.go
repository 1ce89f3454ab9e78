package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"gangway/launcher/job"
)

// change collects what an event does while it is applied.
type change struct {
	c          *Cluster
	at         time.Time
	seq, epoch uint64 // before the event
	rows       []job.Row
	after      []job.Row       // deletions, behind everything else
	jobs       map[string]bool // to be written
	tasks      map[string]bool // to be written
	attempts   map[string]bool // to be written
	parts      map[partOf]bool // to be written
	nodes      map[string]bool // to be written
	topologies map[string]bool
	views      map[string]bool // nodes whose view is stale
	touched    map[string]bool
	replan     bool
	notices    []Notice
	moved      []moved // and not yet followed
	asks       []ask
}

// partOf names a part of an attempt.
type partOf struct {
	id    string
	index int
}

func mark[K comparable](set *map[K]bool, key K) {
	if *set == nil {
		*set = map[K]bool{}
	}
	(*set)[key] = true
}

// next returns a number never given out before.
func (t *change) next() uint64 {
	t.c.meta.Seq++
	return t.c.meta.Seq
}

// jobChanged notes that a job is to be written.
func (t *change) jobChanged(j *jobState) { mark(&t.jobs, j.row.UID) }

// taskChanged notes that a task is to be written.
func (t *change) taskChanged(x *taskState) { mark(&t.tasks, x.uid) }

// changed notes that an attempt is to be written, without its parts.
func (t *change) changed(a *attempt) { mark(&t.attempts, a.ID) }

// part notes that a part of an attempt is to be written.
func (t *change) part(a *attempt, i int) { mark(&t.parts, partOf{a.ID, i}) }

// touch notes that all nodes of an attempt may have something else to do.
func (t *change) touch(a *attempt) {
	for _, p := range a.Parts {
		mark(&t.touched, p.Node)
	}
}

// nodeChanged notes that a node is to be written.
func (t *change) nodeChanged(n *node) {
	mark(&t.nodes, n.row.Name)
	mark(&t.views, n.row.Name)
	t.replan = true
}

// freed notes that the holds on a node changed.
func (t *change) freed(name string) {
	mark(&t.views, name)
	mark(&t.touched, name)
	t.replan = true
}

func (t *change) notice(n Notice) { t.notices = append(t.notices, n) }

// become moves an attempt along the one table of transitions.
func (t *change) become(a *attempt, s job.AttemptState) {
	if a.State == s {
		return
	}
	if !a.State.MayBecome(s) {
		panic(fmt.Sprintf("state: attempt %s can't go from %s to %s", a.ID, a.State, s))
	}
	a.State = s
	t.changed(a)
	switch s {
	case job.AttemptRunning:
		if a.Started.IsZero() {
			a.Started = t.at
		}
	case job.AttemptEnded:
		a.Ended = t.at
	}
	row := a.copy()
	t.notice(Notice{Kind: AttemptState, Job: a.task.job.row.UID, Task: a.task.uid, Attempt: a.ID, Record: &row})
}

// block stores outcomes of elements, or their new tries after the outcome was.
func (t *change) block(task *taskState, attemptID string, done []job.Outcome, again []job.Try, was job.Outcome) {
	t.keep(task, job.BlockRow{Task: task.uid, Attempt: attemptID, Done: done, Again: again}, was)
}

// keep is block for one that is made but for its number and time.
func (t *change) keep(task *taskState, b job.BlockRow, was job.Outcome) {
	for _, try := range b.Again {
		o := was
		o.Range = try.Range
		t.notice(Notice{Kind: TaskAgain, Job: task.job.row.UID, Task: task.uid, Attempt: b.Attempt, Node: b.Node, Outcome: &o, Block: &b})
	}
	t.keepQuiet(task, b)
}

// keepQuiet is keep without a word on what is pending again.
func (t *change) keepQuiet(task *taskState, b job.BlockRow) {
	b.Seq, b.At = t.next(), t.at
	t.rows = append(t.rows, job.EncodeBlock(b))
	open := !task.completed()
	task.take(b)
	t.followed(task, b)
	for i := range b.Done {
		t.notice(Notice{Kind: TaskDone, Job: task.job.row.UID, Task: task.uid, Attempt: b.Attempt, Node: b.Node, Outcome: &b.Done[i], Block: &b})
	}
	t.replan = t.replan || len(b.Again) > 0
	if open && task.completed() {
		for _, a := range task.live {
			t.windDown(a) // it has nothing left
		}
		j := task.job
		if j.open--; j.open == 0 {
			t.c.unqueue(j)
			t.notice(Notice{Kind: JobDone, Job: j.row.UID})
		}
		t.taskEnded(task)
		t.jobEnded(j)
	}
}

// take counts a block in; history does so for many at once.
func (t *taskState) take(b job.BlockRow) {
	for i := range b.Done {
		o := &b.Done[i]
		t.pending = t.pending.remove(o.Range)
		if o.Success {
			t.good = t.good.add(o.Range)
		} else {
			t.bad = t.bad.add(o.Range)
		}
		t.mark(o)
		t.last = o
	}
	for _, try := range b.Again {
		t.unmark(try.Range)
		t.bad = t.bad.remove(try.Range)
		t.pending = t.pending.remove(try.Range).put(try)
	}
	t.note(b)
}

// note keeps what a block says of the task as a whole.
func (t *taskState) note(b job.BlockRow) {
	for _, try := range b.Again {
		if t.spec.Crewed() { // a crew's elements may be in higher attempts than its id says
			t.tried = max(t.tried, try.Attempt)
		}
		t.tried = max(t.tried, try.Attempt-1)
	}
	t.seq, t.at = b.Seq, b.At
	if b.Attempt != "" {
		t.lastAttempt = b.Attempt
		t.tried = max(t.tried, job.AttemptNumber(b.Attempt))
	}
}

// finish writes what has changed and brings the views up to date.
func (t *change) finish() Change {
	c := t.c
	out := Change{Rows: t.rows, Replan: t.replan, Notices: t.notices}
	for _, uid := range slices.Sorted(maps.Keys(t.jobs)) {
		out.Rows = append(out.Rows, job.Encode(job.TableJob, uid, c.jobs[uid].row))
	}
	for _, uid := range slices.Sorted(maps.Keys(t.tasks)) {
		out.Rows = append(out.Rows, job.Encode(job.TableTask, uid, c.tasks[uid].row))
	}
	for _, id := range slices.Sorted(maps.Keys(t.attempts)) {
		if a, ok := c.attempts[id]; ok {
			row := a.AttemptRow
			row.Parts = nil
			out.Rows = append(out.Rows, job.Encode(job.TableAttempt, id, row))
		} else {
			out.Rows = append(out.Rows, job.Row{Table: job.TableAttempt, Key: id})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(t.parts), func(x, y partOf) int {
		return cmp.Or(cmp.Compare(x.id, y.id), cmp.Compare(x.index, y.index))
	}) {
		if a, ok := c.attempts[k.id]; ok {
			out.Rows = append(out.Rows, job.Encode(job.TablePart, job.PartKey(k.id, k.index), a.Parts[k.index]))
		} else {
			out.Rows = append(out.Rows, job.Row{Table: job.TablePart, Key: job.PartKey(k.id, k.index)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.topologies)) {
		if n, ok := c.nodes[name]; ok {
			out.Rows = append(out.Rows, job.Encode(job.TableTopology, name, n.topo))
		} else {
			out.Rows = append(out.Rows, job.Row{Table: job.TableTopology, Key: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		if n, ok := c.nodes[name]; ok {
			out.Rows = append(out.Rows, job.Encode(job.TableNode, name, n.row))
		} else {
			out.Rows = append(out.Rows, job.Row{Table: job.TableNode, Key: name})
		}
	}
	for name := range t.views {
		if n, ok := c.nodes[name]; ok {
			n.refresh()
		}
	}
	out.Rows = append(out.Rows, t.after...)
	if t.seq != c.meta.Seq || t.epoch != c.meta.Epoch || t.seq == 0 && len(out.Rows) > 0 {
		out.Rows = append(out.Rows, job.Encode(job.TableMeta, "meta", c.meta))
	}
	out.Touched = slices.Sorted(maps.Keys(t.touched))
	return out
}
