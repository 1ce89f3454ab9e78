package state

import (
	"fmt"
	"slices"
	"strings"

	"gangway/launcher/job"
)

// moved is a task of which elements ended, or are to be tried again.
type moved struct {
	task *taskState
	r    job.Range // all of them, and perhaps others
}

// ask is what the end of something asks for its whole job.
type ask struct {
	job  *jobState
	what job.JobAction
	why  job.Reason
}

// followed notes what a block may mean to other tasks and to the job; follow, at
// the end of the event, acts upon it.
func (t *change) followed(task *taskState, b job.BlockRow) {
	r := job.Range{Lo: ^uint64(0)}
	span := func(x job.Range) { r.Lo, r.Hi = min(r.Lo, x.Lo), max(r.Hi, x.Hi) }
	j := task.job
	for i := range b.Done {
		o := &b.Done[i]
		span(o.Range)
		if !j.row.Spec.ExitActions || task.spec.Exit == nil {
			continue
		}
		if what := task.spec.Exit.After(*o).Job; what == job.JobDisable || what == job.JobTerminate {
			t.asks = append(t.asks, ask{j, what, job.Reason{Code: job.FailExitAction,
				Detail: task.elementName(o.Lo) + " " + how(*o) + ", for which its exit condition says: " + string(what)}})
		}
	}
	for i := range b.Again {
		span(b.Again[i].Range)
	}
	if most := j.row.Spec.MaxFailures; most != nil && j.failed > uint64(*most) && j.row.Cancel == nil && len(b.Done) > 0 {
		t.asks = append(t.asks, ask{j, job.JobTerminate, job.Reason{Code: job.FailFailures, Want: uint64(*most), Have: j.failed,
			Detail: fmt.Sprintf("%d of its tasks have failed, and max-failures is %d", j.failed, *most)}})
	}
	t.moved = append(t.moved, moved{task, r})
	t.replan = t.replan || j.row.Spec.MaxRunning > 0
}

// follow ends and frees tasks for what has become of those that they depend on,
// and jobs for what their tasks' exit conditions say. One thing leads to another:
// it goes on until nothing moves.
func (t *change) follow() {
	for len(t.moved)+len(t.asks) > 0 {
		moves := t.moved
		t.moved = nil
		for _, m := range moves {
			m.task.heirs(m.r, func(l *link) { t.weigh(l) })
			t.gate(m.task)
		}
		if len(t.moved) > 0 {
			continue
		}
		asks := t.asks
		t.asks = nil
		for _, a := range asks {
			t.act(a)
		}
	}
}

// weigh brings a link up to date.
func (t *change) weigh(l *link) {
	was, now := l.state, l.weigh()
	if was == now {
		return
	}
	l.is(now)
	if was == linkLost && l.child.lost == 0 {
		t.revive(l.child)
	}
	t.gate(l.child)
}

// gate ends what waits for something that won't come, and lets go what waits for
// nothing any more.
func (t *change) gate(task *taskState) {
	if t.c.tasks[task.uid] != task {
		return
	}
	if task.lost > 0 && len(task.pending) > 0 {
		t.orphan(task, task.whyLost())
	}
	if task.unmet > 0 && len(task.live) > 0 { // what it depends on is to run again
		for _, a := range slices.Clone(task.live) {
			t.windDown(a)
		}
	}
	if task.place() {
		t.replan = true
	}
}

// orphan ends what has not begun of a task.
func (t *change) orphan(task *taskState, why job.Reason) {
	var done []job.Outcome
	for _, try := range task.pending {
		done = append(done, job.Outcome{Range: try.Range, ExitCode: exitFor(why.Code), Reason: &why})
	}
	if len(done) > 0 {
		t.block(task, "", done, nil, job.Outcome{})
		t.replan = true
	}
}

// revive brings back what ended for a parent that is active again.
func (t *change) revive(task *taskState) {
	if len(task.orphan) == 0 || task.row.Deleting || task.job.row.Cancel != nil || task.job.row.Deleting || !task.job.row.Ended.IsZero() {
		return
	}
	again := make([]job.Try, len(task.orphan))
	for i, r := range task.orphan {
		again[i] = job.Try{Range: r, Attempt: task.tried + 1}
	}
	was := job.Outcome{}
	if task.last != nil {
		was = *task.last
	}
	if task.completed() {
		t.opened(task.job)
	}
	t.block(task, "", nil, again, was)
}

// act carries out what the end of a task asks for its job.
func (t *change) act(a ask) {
	j := a.job
	if t.c.jobs[j.row.UID] != j || j.row.Cancel != nil || j.row.Deleting || !j.row.Ended.IsZero() {
		return
	}
	if a.what == job.JobTerminate {
		t.cancelJob(j, a.why, false)
		return
	}
	if !j.row.Held {
		t.hold(j, HeldRequeue, a.why.Detail)
	}
}

// elementName names a task, or an element of an array, for people.
func (t *taskState) elementName(index uint64) string {
	if t.spec.Range.Len() < 2 {
		return t.spec.ID
	}
	return fmt.Sprintf("%s_%d", t.spec.ID, index)
}

// how words an outcome in a sentence about its task.
func how(o job.Outcome) string {
	if o.Success {
		return "ended well"
	}
	if o.Reason != nil && o.Reason.Code != job.FailRank {
		return "failed: " + shorter(o.Reason.String())
	}
	if o.Signal != 0 {
		return fmt.Sprintf("was ended by signal %d", o.Signal)
	}
	return fmt.Sprintf("exited with %d", o.ExitCode)
}

// maxQuoted bounds what one task's reason says of another's, in bytes.
const maxQuoted = 300

func shorter(s string) string {
	if len(s) > maxQuoted {
		return strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return s
}

// whyLost says which parent a task will wait for in vain.
func (t *taskState) whyLost() job.Reason {
	for _, l := range t.needs {
		if l.state == linkLost {
			return l.why()
		}
	}
	return job.Reason{Code: job.FailParent}
}

// why names a parent that does not satisfy, and what became of it.
func (l *link) why() job.Reason {
	p := l.parent
	r := job.Reason{Code: job.FailParent, Hint: "reactivate " + p.spec.ID + " to run both"}
	first, n, only := l.want.Hi, uint64(0), p.spec.Range.Len() == 1
	count := func(set ranges, well bool) {
		for i := set.after(l.want.Lo); i < len(set) && set[i].Lo < l.want.Hi; i++ {
			x := job.Range{Lo: max(set[i].Lo, l.want.Lo), Hi: min(set[i].Hi, l.want.Hi)}
			bad := p.flip.count(x)
			if !well {
				bad = x.Len() - bad
			}
			if n += bad; bad == 0 || x.Lo >= first {
				continue
			}
			first = x.Lo
			if well {
				first = max(x.Lo, p.flip[p.flip.after(x.Lo)].Lo)
			} else if gap := p.flip.missing(x); len(gap) > 0 {
				first = gap[0].Lo
			}
		}
	}
	count(p.good, true)
	count(p.bad, false)
	switch {
	case p.row.Deleting:
		r.Detail, r.Hint = "it depends on "+p.spec.ID+", which was deleted", ""
	case only && p.last != nil && p.last.Reason != nil && p.last.Reason.Code == job.FailParent:
		r.Detail = "it depends on " + p.spec.ID + ", which did not run: " + shorter(p.last.Reason.Detail)
		r.Hint = p.last.Reason.Hint // the first that failed is the one to mend
	case only && p.last != nil:
		r.Detail = "it depends on " + p.spec.ID + ", which " + how(*p.last)
	default:
		r.Detail = fmt.Sprintf("it depends on %s, of which %d of %d elements failed, %s first", p.spec.ID, n, l.want.Len(), p.elementName(first))
	}
	return r
}

// unlink lets those go that depend on a task that is forgotten. Rows must not
// name it any more: a later task of that id is another.
func (t *change) unlink(task *taskState) {
	task.leave(task.needs)
	task.unplace()
	for _, l := range slices.Concat(task.whole, task.some) {
		child := l.child
		if l.dead || t.c.tasks[child.uid] != child {
			continue
		}
		l.is(l.weigh())
		if l.state != linkMet {
			t.orphan(child, l.why())
			l.is(linkMet) // nothing of it waits any more
		}
		if t.c.tasks[child.uid] == child {
			t.forgo(child, l)
			t.moved = append(t.moved, moved{task: child})
		}
	}
}

// forgo takes a satisfied dependency out of a task's specification, or all if they
// are: then none matters any more, and it is done once for all of them.
func (t *change) forgo(child *taskState, l *link) {
	keep := []*link{}
	spec, row := *child.spec, &child.row.Spec
	var deps []job.Dependency
	if child.unmet > 0 {
		for i, x := range child.needs {
			if x != l {
				keep, deps = append(keep, x), append(deps, spec.DependsOn[i])
			}
		}
		l.dead = true
	} else {
		child.leave(child.needs)
	}
	child.needs = keep
	spec.DependsOn, row.DependsOn = deps, deps
	child.spec = &spec
	t.taskChanged(child)
}

// joined gives tasks that are new to their job to those that wait for them.
func (t *change) joined(task *taskState) {
	j := task.job
	id := strings.ToLower(task.spec.ID)
	waiting := slices.Clone(j.wanted[id])
	for _, l := range waiting {
		child := l.child
		if l.dead || l.parent != nil {
			continue
		}
		i := slices.Index(child.needs, l)
		d := child.spec.DependsOn[i]
		some := job.Range{}
		if !strings.EqualFold(d.Task, task.spec.ID) {
			_, n, _ := job.Element(d.Task)
			some = job.Range{Lo: n, Hi: n + 1}
			if task.spec.Range.Len() < 2 || !task.spec.Range.Contains(some) {
				continue
			}
		}
		j.unwant(l)
		// The row says from now on which task it was.
		spec := *child.spec
		spec.DependsOn = slices.Clone(spec.DependsOn)
		spec.DependsOn[i] = job.Dependency{Task: task.spec.ID, Range: some}
		child.spec, child.row.Spec.DependsOn = &spec, spec.DependsOn
		t.taskChanged(child)
		l.join(task, some)
	}
}

// linked returns tasks that are to be added with their dependencies resolved.
func (j *jobState) linked(tasks []job.TaskSpec, later bool) ([]job.TaskSpec, error) {
	out, err := job.Link(tasks, job.Existing{
		Find: func(id string) (string, job.Range, bool) {
			if t := j.byID[strings.ToLower(id)]; t != nil && !t.row.Deleting {
				return t.spec.ID, t.spec.Range, true
			}
			return "", job.Range{}, false
		},
		All: func(yield func(string) bool) {
			for _, t := range j.tasks {
				if !t.row.Deleting && !yield(t.spec.ID) {
					return
				}
			}
		},
	}, later)
	if err == nil {
		err = j.closesCycle(out)
	}
	return out, err
}

// closesCycle refuses tasks that depend on what already waits for them: those of
// the job may wait for tasks that it does not have yet.
func (j *jobState) closesCycle(tasks []job.TaskSpec) error {
	if len(j.wanted) == 0 {
		return nil
	}
	index := make(map[string]int, len(tasks))
	for i := range tasks {
		index[strings.ToLower(tasks[i].ID)] = i
	}
	// known finds the task that a dependency would mean.
	known := func(id string) string {
		id = strings.ToLower(id)
		array, _, ok := job.Element(id)
		if _, is := index[id]; is || !ok || j.byID[id] != nil {
			return id
		}
		return array
	}
	needs := func(id string) []string {
		deps := []job.Dependency(nil)
		if i, ok := index[id]; ok {
			deps = tasks[i].DependsOn
		} else if t := j.byID[id]; t != nil && !t.completed() {
			deps = t.spec.DependsOn
		}
		out := make([]string, len(deps))
		for i, d := range deps {
			out[i] = known(d.Task)
		}
		return out
	}
	type step struct {
		id   string
		left []string
	}
	done := map[string]bool{} // false: on the way there
	for i := range tasks {
		stack := []step{{strings.ToLower(tasks[i].ID), nil}}
		stack[0].left = needs(stack[0].id)
		if _, seen := done[stack[0].id]; seen {
			continue
		}
		done[stack[0].id] = false
		for len(stack) > 0 {
			s := &stack[len(stack)-1]
			if len(s.left) == 0 {
				done[s.id] = true
				stack = stack[:len(stack)-1]
				continue
			}
			next := s.left[0]
			s.left = s.left[1:]
			switch over, seen := done[next]; {
			case !seen:
				done[next] = false
				stack = append(stack, step{next, needs(next)})
			case !over:
				return job.Problems{{Field: fmt.Sprintf("tasks[%d].depends-on", i),
					Text: fmt.Sprintf("a cycle of tasks that wait for each other: %s already waits, through others, for %s", next, tasks[i].ID)}}
			}
		}
	}
	return nil
}

// connectAll makes the links of all tasks after a start.
func (c *Cluster) connectAll() {
	for _, j := range c.byAge {
		for _, t := range j.tasks {
			t.connect()
		}
		for _, t := range j.tasks {
			t.place()
		}
	}
}

// checkKin compares what is kept of a job's dependencies with what follows from
// its rows.
func (j *jobState) checkKin() error {
	var failed uint64
	for _, t := range j.tasks {
		failed += t.bad.len() - t.spared.len()
		unmet, lost := 0, 0
		for i, l := range t.needs {
			if l.dead || l.child != t || l.state != l.weigh() {
				return fmt.Errorf("task %s: what it needs of %s is kept wrong", t.uid, t.spec.DependsOn[i])
			}
			if p := l.parent; p != nil && j.byID[strings.ToLower(t.spec.DependsOn[i].Task)] != p {
				return fmt.Errorf("task %s: waits for another than %s", t.uid, t.spec.DependsOn[i])
			}
			if l.parent == nil && j.byID[strings.ToLower(t.spec.DependsOn[i].Task)] != nil {
				return fmt.Errorf("task %s: waits for %s as if it were not there", t.uid, t.spec.DependsOn[i])
			}
			if l.state != linkMet {
				unmet++
			}
			if l.state == linkLost {
				lost++
			}
		}
		switch {
		case len(t.needs) != len(t.spec.DependsOn) || unmet != t.unmet || lost != t.lost:
			return fmt.Errorf("task %s: counts %d open dependencies, %d of them lost, has %d and %d", t.uid, t.unmet, t.lost, unmet, lost)
		case lost > 0 && len(t.pending) > 0:
			return fmt.Errorf("task %s: waits for what has failed", t.uid)
		case t.queued != (unmet == 0 && !t.completed()) || t.queued != slices.Contains(j.ready, t):
			return fmt.Errorf("task %s: may start: %t, kept otherwise", t.uid, unmet == 0)
		case len(t.orphan) > 0 && len(t.bad.missing(t.orphan[0])) > 0 || len(t.spared) > 0 && len(t.bad.missing(t.spared[0])) > 0:
			return fmt.Errorf("task %s: ended for a parent, and did not fail", t.uid)
		}
	}
	if failed != j.failed || !slices.IsSortedFunc(j.ready, compareTasks) {
		return fmt.Errorf("job %s: counts %d failures, has %d", j.row.UID, j.failed, failed)
	}
	return nil
}
