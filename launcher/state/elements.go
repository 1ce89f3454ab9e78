package state

import (
	"fmt"
	"slices"
	"strings"

	"gangway/launcher/job"
)

// Elements are an array's elements as they are now, by what is true of them.
type Elements struct {
	Good, Bad []job.Range // succeeded, failed for good; sorted
	Pending   []job.Try   // by index
	Live      []ElementsRun
}

// ElementsRun are elements that an attempt has.
type ElementsRun struct {
	job.Try
	Attempt *job.AttemptRow // its own copy, without what Try says
	Begun   bool            // they are being run, as far as is known; false: they wait in a crew
}

// Elements returns what is known of an array's elements with indices in window.
func (c *Cluster) Elements(uid string, window job.Range) (Elements, bool) {
	t, ok := c.tasks[uid]
	if !ok {
		return Elements{}, false
	}
	e := Elements{Good: t.good.within(window), Bad: t.bad.within(window)}
	for _, try := range t.pending {
		if cutTo(&try.Range, window) {
			e.Pending = append(e.Pending, try)
		}
	}
	for _, a := range t.live {
		add := func(row *job.AttemptRow, try job.Try, begun bool) {
			if cutTo(&try.Range, window) {
				e.Live = append(e.Live, ElementsRun{Try: try, Attempt: row, Begun: begun})
			}
		}
		row := a.AttemptRow
		row.Parts, row.Crew, row.Settled = slices.Clone(row.Parts), nil, nil
		if a.Crew == nil {
			for _, r := range a.unsettled() {
				try := a.Try
				try.Range = r
				add(&row, try, true)
			}
			continue
		}
		free := uint64(a.Crew.Slots) // a crew begins them in order
		for _, try := range a.Crew.Open {
			if n := min(free, try.Len()); n > 0 {
				first := try
				first.Hi = first.Lo + n
				add(&row, first, true)
				try.Lo += n
				free -= n
			}
			add(&row, try, false)
		}
	}
	slices.SortFunc(e.Live, func(x, y ElementsRun) int {
		if x.Lo < y.Lo {
			return -1
		}
		return 1
	})
	return e, true
}

// cutTo leaves of r what is in window; false: nothing.
func cutTo(r *job.Range, window job.Range) bool {
	r.Lo, r.Hi = max(r.Lo, window.Lo), min(r.Hi, window.Hi)
	return r.Lo < r.Hi
}

// within returns the part of the set that is in window, as a copy.
func (s ranges) within(window job.Range) []job.Range {
	var out []job.Range
	for _, r := range s[s.after(window.Lo):] {
		if !cutTo(&r, window) {
			break
		}
		out = append(out, r)
	}
	return out
}

// ElementByID finds an array of a job and the index of its element by both ids,
// whatever their case: the element i of A is "A_i".
func (c *Cluster) ElementByID(jobID, id string) (TaskStatus, uint64, bool) {
	array, index, ok := job.ParseElement(id)
	if !ok {
		return TaskStatus{}, 0, false
	}
	j := c.byID[strings.ToLower(jobID)]
	if j == nil {
		return TaskStatus{}, 0, false
	}
	t := j.byID[strings.ToLower(array)]
	if t == nil || t.spec.Range.Len() < 2 || index < t.spec.Range.Lo || index >= t.spec.Range.Hi {
		return TaskStatus{}, 0, false
	}
	return t.status(), index, true
}

// BlocksMerged puts rows with blocks of a task in the place of others, which say
// the same. Of a task that is no longer there it changes nothing.
type BlocksMerged struct {
	Task string // uid
	Drop []string
	Rows []job.Row
}

func (e BlocksMerged) apply(c *Cluster, t *change) error {
	if c.tasks[e.Task] == nil {
		return nil
	}
	for _, key := range e.Drop {
		if !strings.HasPrefix(key, e.Task+"/") {
			return fmt.Errorf("merged blocks of task %s: row %s is not its own", e.Task, key)
		}
		t.rows = append(t.rows, job.Row{Table: job.TableBlock, Key: key})
	}
	for _, r := range e.Rows {
		if r.Table != job.TableBlock || !strings.HasPrefix(r.Key, e.Task+"/") || r.Value == nil {
			return fmt.Errorf("merged blocks of task %s: row %s/%s is not its own", e.Task, r.Table, r.Key)
		}
	}
	t.rows = append(t.rows, e.Rows...)
	return nil
}

// ElementCancelled ends an element that no attempt has.
type ElementCancelled struct {
	Task   string // uid
	Index  uint64
	Reason job.Reason
}

func (e ElementCancelled) apply(c *Cluster, t *change) error {
	task, err := c.task(e.Task)
	if err != nil {
		return err
	}
	one := job.Range{Lo: e.Index, Hi: e.Index + 1}
	if !slices.ContainsFunc(task.pending, func(x job.Try) bool { return x.Lo <= one.Lo && one.Hi <= x.Hi }) {
		return &ClosedError{What: "task", ID: job.ElementID(task.spec.ID, e.Index), State: string(job.TaskRunning), Need: "waiting: only its whole array can be ended"}
	}
	why := e.Reason
	t.block(task, "", []job.Outcome{{Range: one, ExitCode: exitFor(why.Code), Reason: &why}}, nil, job.Outcome{})
	t.replan = true
	t.jobEnded(task.job)
	return nil
}
