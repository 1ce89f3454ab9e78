package launcher

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// elements is an array as its elements are listed: each as a task.
type elements struct {
	b     *backend
	job   *state.JobStatus
	task  state.TaskStatus
	now   state.Elements
	proto batchapi.Task // what all of them share
}

// hasElements reports whether a task is listed as its elements.
func hasElements(s *job.TaskSpec) bool { return s.Range.Len() > 1 }

func (b *backend) elementsOf(c *state.Cluster, j *state.JobStatus, s state.TaskStatus, window job.Range) *elements {
	e := &elements{b: b, job: j, task: s}
	e.now, _ = c.Elements(s.UID, window)
	e.proto = batchapi.Task{Spec: *s.Spec, Times: batchapi.Times{Created: s.Row.Created}}
	return e
}

// cursor is where a list goes on after an element.
func (e *elements) cursor(index uint64) string {
	return strconv.Itoa(e.task.Row.Index) + ":" + strconv.FormatUint(index+1, 10)
}

// elementCursor reads what cursor or Cursor of a task gives: the first task to
// list, by its place in the job, and its first element.
func elementCursor(s string) (task int, element uint64, err error) {
	first, second, both := strings.Cut(s, ":")
	n, err := cursor(first)
	if err == nil && both {
		element, err = cursor(cmp.Or(second, "?"))
	}
	return int(min(n, 1<<40)), element, err
}

// ended fills in a task that is an element that has ended.
func (e *elements) ended(t *batchapi.Task, x *history.Element) {
	t.State = job.TaskCompleted
	start, end := x.Start(), x.End()
	t.Times.StateAt, t.Times.EndedAt, t.Times.StartedAt = end, end, start
	t.Times.Prev, t.Times.PrevAt = string(job.TaskActive), time.Time{}
	if !start.IsZero() {
		t.Times.Prev, t.Times.PrevAt = string(job.TaskRunning), start
	}
	t.Run = batchapi.Run{Pool: e.b.pool, Node: x.Node, Started: start, Ended: end, Success: x.Outcome.Success, Failure: x.Outcome.Reason}
	if x.Measured {
		t.Run.Exit = exitOf(x.Outcome.ExitCode, x.Outcome.Signal)
	}
	t.Instances = 0
	if x.Node != "" {
		t.Instances = 1
	}
	e.tried(t, x.Attempt)
}

// tried says how often it was tried before.
func (e *elements) tried(t *batchapi.Task, attempt uint32) {
	t.Retries = int(max(attempt, 1) - 1)
	t.RetriedAt = time.Time{}
	if t.Retries > 0 {
		t.RetriedAt = t.Times.StateAt
	}
}

// waiting fills in a task that is an element of a try that waits.
func (e *elements) waiting(t *batchapi.Task, try *job.Try) {
	t.State = job.TaskActive
	t.Times.StateAt, t.Times.Prev, t.Times.PrevAt = e.task.Row.Created, "", time.Time{}
	t.Run, t.Instances = batchapi.Run{Pool: e.b.pool}, 0
	t.Retries, t.Requeues = int(try.Retries), int(try.Losses)
}

// live fills in a task that is an element of an attempt.
func (e *elements) live(t *batchapi.Task, r *state.ElementsRun) {
	e.waiting(t, &r.Try)
	a := r.Attempt
	if !r.Begun || len(a.Parts) == 0 {
		return
	}
	t.State, t.Times.Prev, t.Times.PrevAt, t.Times.StateAt = job.TaskPreparing, string(job.TaskActive), e.task.Row.Created, a.Placed
	t.Run.Node, t.Instances = a.Parts[0].Node, len(a.Parts)
	if !a.Started.IsZero() {
		// When this one began the crew does not tell before its end.
		t.State, t.Times.Prev, t.Times.PrevAt, t.Times.StateAt = job.TaskRunning, string(job.TaskPreparing), a.Placed, a.Started
		t.Run.Started, t.Times.StartedAt = a.Started, a.Started
	}
}

// named fills in what depends on the element itself.
func (e *elements) named(t *batchapi.Task, index uint64) {
	t.ID = job.ElementID(e.task.Row.Spec.ID, index)
	t.Cursor = e.cursor(index)
	t.Times.Modified = t.Times.StateAt
	if t.Times.Modified.Before(t.Times.Created) {
		t.Times.Modified = t.Times.Created
	}
	t.Version = newVersion().text(e.task.UID).number(index).text(string(t.State)).text(t.Run.Node).number(uint64(t.Retries)).time(t.Times.StateAt).sum()
	if t.Run.Node != "" {
		t.Run.Folder = job.TaskFolder(e.job.Row.Spec.ID, e.job.Row.UID, t.ID)
	}
}

// page lists elements from an index on.
func (e *elements) page(ctx context.Context, from uint64, q *batchapi.TaskQuery, limit int) ([]batchapi.Task, error) {
	p := elementPage{elements: e, q: q, limit: limit, seen: map[uint64]bool{}}
	if err := p.ended(ctx, from); err != nil {
		return nil, err
	}
	if err := p.open(ctx, from); err != nil {
		return nil, err
	}
	slices.SortFunc(p.out, func(a, b listed) int { return cmp.Compare(a.index, b.index) })
	p.out = p.out[:min(limit, len(p.out))]
	tasks := make([]batchapi.Task, len(p.out))
	fill := e.filled()
	for i := range p.out {
		tasks[i] = p.out[i].task
		fill(&tasks[i], p.out[i].index)
	}
	return tasks, nil
}

// listed is an element of a page.
type listed struct {
	index uint64
	task  batchapi.Task
}

type elementPage struct {
	*elements
	q     *batchapi.TaskQuery
	limit int
	out   []listed
	seen  map[uint64]bool
}

// wants reports whether states are asked for that fit.
func (p *elementPage) wants(s ...job.TaskState) bool {
	return len(p.q.States) == 0 || slices.ContainsFunc(s, func(x job.TaskState) bool { return slices.Contains(p.q.States, x) })
}

// ended adds those that have ended.
func (p *elementPage) ended(ctx context.Context, from uint64) error {
	if !p.wants(job.TaskCompleted) || p.task.Succeeded+p.task.Failed == 0 {
		return nil
	}
	if p.task.Spec.Elementwise() {
		return p.endedAlone(ctx, from)
	}
	q := history.Query{From: from, Limit: p.limit}
	sample := p.proto
	if p.q.May != nil {
		span := batchapi.Span{Array: p.task.Row.Spec.ID, Sample: &sample}
		q.May = func(s *history.Span) history.Answer {
			p.elements.ended(&sample, &history.Element{Node: s.Node, Measured: true, Attempt: 1,
				Outcome: job.Outcome{Success: s.Success, ExitCode: s.Code, Signal: s.Signal, Reason: s.Reason}})
			span.Range, span.Exact, span.From, span.To = s.Range, s.Exact, s.From, s.To
			if s.Exact && s.Node == "" { // nothing was started: an exit may not be said
				return history.Some
			}
			return history.Answer(p.q.May(&span))
		}
	}
	if p.q.Match != nil {
		one := p.proto
		q.Match = func(x *history.Element) bool {
			p.elements.ended(&one, x)
			p.named(&one, x.Index)
			return p.q.Match(&one)
		}
	}
	found, err := p.b.elementsPast.Page(ctx, p.task.UID, q)
	if err != nil {
		return err
	}
	p.out = make([]listed, len(found))
	for i := range found {
		p.out[i] = listed{found[i].Index, p.proto}
		p.elements.ended(&p.out[i].task, &found[i])
		p.named(&p.out[i].task, found[i].Index)
		p.seen[found[i].Index] = true
	}
	return nil
}

// endedAlone adds those that have ended of an array whose elements are attempts of
// their own: how they ran is in the history of attempts.
func (p *elementPage) endedAlone(ctx context.Context, from uint64) error {
	for len(p.out) < p.limit {
		found, err := p.b.elementsPast.Page(ctx, p.task.UID, history.Query{From: from, Limit: p.limit})
		if err != nil || len(found) == 0 {
			return err
		}
		views := make([]taskView, len(found))
		for i := range found {
			views[i].LastAttempt = found[i].AttemptID
		}
		if err := p.b.recall(views); err != nil {
			return err
		}
		for i := range found {
			one := p.proto
			p.endedAs(&one, &found[i], views[i].past)
			p.named(&one, found[i].Index)
			p.seen[found[i].Index] = true
			if p.q.Match == nil || p.q.Match(&one) {
				p.out = append(p.out, listed{found[i].Index, one})
			}
		}
		from = found[len(found)-1].Index + 1
		if len(found) < p.limit {
			return nil
		}
	}
	return nil
}

// endedAs is ended with what is known of the attempt.
func (e *elements) endedAs(t *batchapi.Task, x *history.Element, was *past) {
	e.ended(t, x)
	if was == nil || was.run.Node == "" {
		return
	}
	r := &t.Run
	r.Node, r.Started, t.Instances = was.run.Node, was.run.Started, was.instances
	t.Times.StartedAt = r.Started
	if !r.Started.IsZero() {
		t.Times.Prev, t.Times.PrevAt = string(job.TaskRunning), r.Started
		r.Exit = exitOf(x.Outcome.ExitCode, x.Outcome.Signal)
	}
	t.Retries, t.Requeues = int(was.retries), int(was.losses)
}

// open adds those that have not ended.
func (p *elementPage) open(ctx context.Context, from uint64) error {
	type run struct {
		job.Range
		fill func(*batchapi.Task)
		is   job.TaskState
	}
	var runs []run
	for i := range p.now.Pending {
		try := &p.now.Pending[i]
		runs = append(runs, run{try.Range, func(t *batchapi.Task) { p.waiting(t, try) }, job.TaskActive})
	}
	for i := range p.now.Live {
		r := &p.now.Live[i]
		probe := p.proto
		p.live(&probe, r)
		runs = append(runs, run{r.Range, func(t *batchapi.Task) { p.live(t, r) }, probe.State})
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.Lo, b.Lo) })
	n := 0
	for _, r := range runs {
		if r.Hi <= from || !p.wants(r.is) {
			continue
		}
		if n >= p.limit {
			break
		}
		one := p.proto
		r.fill(&one)
		r.Lo = max(r.Lo, from)
		if err := p.each(ctx, r.Range, &one, &n); err != nil {
			return err
		}
	}
	return nil
}

// each adds the elements of a run that differ in nothing but their names, until n
// is the limit. Halves that the filter has no use for are not looked at.
func (p *elementPage) each(ctx context.Context, r job.Range, one *batchapi.Task, n *int) error {
	answer := batchapi.Some
	if p.q.May != nil {
		answer = p.q.May(&batchapi.Span{Array: p.task.Row.Spec.ID, Range: r, Sample: one, Exact: true})
	}
	if answer == batchapi.None {
		return nil
	}
	if answer == batchapi.Some && p.q.May != nil && r.Len() > 64 {
		if err := ctx.Err(); err != nil {
			return err
		}
		middle := r.Lo + r.Len()/2
		if err := p.each(ctx, job.Range{Lo: r.Lo, Hi: middle}, one, n); err != nil || *n >= p.limit {
			return err
		}
		return p.each(ctx, job.Range{Lo: middle, Hi: r.Hi}, one, n)
	}
	for i := r.Lo; i < r.Hi && *n < p.limit; i++ {
		if p.seen[i] {
			continue // it has ended since
		}
		p.named(one, i)
		if answer == batchapi.Every || p.q.Match == nil || p.q.Match(one) {
			p.out = append(p.out, listed{i, *one})
			*n++
		}
	}
	return nil
}

// oneElement is an element of an array with all that ran of it.
type oneElement struct {
	*elements
	index uint64
	past  []history.Element // oldest first
	one   batchapi.Task
}

// element finds an element by the ids of its job and its own; nil: it is none.
func (b *backend) element(ctx context.Context, jobID, taskID string) (*oneElement, error) {
	var out *oneElement
	err := b.read(ctx, func(c *state.Cluster) error {
		if _, plain := c.TaskByID(jobID, taskID); plain {
			return nil
		}
		s, index, ok := c.ElementByID(jobID, taskID)
		if !ok || !hasElements(s.Spec) {
			return nil
		}
		j, err := b.jobByID(ctx, c, jobID)
		if err != nil {
			return err
		}
		out = &oneElement{elements: b.elementsOf(c, &j, s, job.Range{Lo: index, Hi: index + 1}), index: index}
		return nil
	})
	if err != nil || out == nil {
		return nil, err
	}
	if out.past, err = b.elementsPast.Attempts(out.task.UID, out.index); err != nil {
		return nil, err
	}
	t := out.proto
	switch {
	case len(out.now.Live) > 0:
		out.live(&t, &out.now.Live[0])
	case len(out.now.Pending) > 0:
		out.waiting(&t, &out.now.Pending[0])
	default:
		for i := len(out.past) - 1; i >= 0; i-- {
			if x := &out.past[i]; x.Ended {
				one := []taskView{{TaskStatus: state.TaskStatus{LastAttempt: x.AttemptID}}}
				if out.task.Spec.Elementwise() {
					if err := b.recall(one); err != nil {
						return nil, err
					}
				}
				out.endedAs(&t, x, one[0].past)
				break
			}
		}
	}
	out.named(&t, out.index)
	out.filled()(&t, out.index)
	out.one = t
	return out, nil
}

// change decides on an event for an element that is still at the version seen.
func (b *backend) changeElement(ctx context.Context, x *oneElement, seen batchapi.Version, what state.What) error {
	if seen != 0 && seen != x.one.Version {
		return batchapi.Stale{}
	}
	return b.do(ctx, what)
}

// wholeArray refuses what can be done to arrays only.
func wholeArray(x *oneElement, what string) error {
	return &batchapi.Conflict{Code: batchapi.CodeWrongState, Message: "task " + x.one.ID + " is an element of array " + x.task.Row.Spec.ID + ": only the whole array can be " + what}
}

func (b *backend) terminateElement(ctx context.Context, x *oneElement, seen batchapi.Version) error {
	switch {
	case x.one.State == job.TaskCompleted:
		return &batchapi.Conflict{Code: batchapi.CodeTaskCompleted, Message: "task " + x.one.ID + " has completed already"}
	case len(x.now.Pending) == 0:
		return &batchapi.Conflict{Code: batchapi.CodeWrongState, Message: "task " + x.one.ID + " is with a crew on " + nodesOf(x.now.Live[0].Attempt) +
			": only its whole array " + x.task.Row.Spec.ID + " can be ended"}
	}
	return b.changeElement(ctx, x, seen, state.ElementCancelled{Task: x.task.UID, Index: x.index,
		Reason: job.Reason{Code: job.FailCancelled, Detail: "the task was terminated"}})
}

// Attempts implements batchapi.Backend.
func (b *backend) Attempts(ctx context.Context, jobID, taskID string) ([]batchapi.Attempt, error) {
	x, err := b.element(ctx, jobID, taskID)
	if err != nil {
		return nil, err
	}
	if x == nil {
		return b.plainAttempts(ctx, jobID, taskID)
	}
	var out []batchapi.Attempt
	for i := range x.past {
		out = append(out, attemptOf(&x.past[i]))
	}
	for i := range x.now.Live {
		if r := &x.now.Live[i]; r.Begun {
			out = append(out, batchapi.Attempt{Number: r.Try.Attempt, Node: nodesOf(r.Attempt)})
		}
	}
	return out, nil
}

func attemptOf(x *history.Element) batchapi.Attempt {
	a := batchapi.Attempt{Number: x.Attempt, Node: x.Node, Started: x.Start(), Ended: x.End(), Signal: x.Outcome.Signal, Reason: x.Outcome.Reason, Line: x.Last}
	if x.Measured {
		a.Wall, a.CPU, a.Memory = float64(x.Cost.Wall)/1e6, float64(x.Cost.CPU)/1e6, x.Cost.RSS<<10
	}
	if x.Measured && (x.Ended || x.Outcome != (job.Outcome{})) {
		a.Exit = exitOf(x.Outcome.ExitCode, x.Outcome.Signal)
	}
	if x.Ended {
		a.Result = "failure"
		if x.Outcome.Success {
			a.Result = "success"
		}
	}
	return a
}

// plainAttempts tells of a task that is no element: of its living or last attempt.
func (b *backend) plainAttempts(ctx context.Context, jobID, taskID string) ([]batchapi.Attempt, error) {
	v, err := b.view(ctx, jobID, taskID)
	if err != nil {
		return nil, err
	}
	a, err := b.whole(v)
	if err != nil || a == nil || len(a.Parts) == 0 {
		return nil, err
	}
	r := partRun(&a.Parts[0], a.Started)
	out := batchapi.Attempt{Number: a.Try.Attempt, Node: r.Node, Started: r.Started, Ended: r.Ended, Exit: r.Exit, Reason: r.Failure}
	if !r.Started.IsZero() && !r.Ended.IsZero() {
		out.Wall = r.Ended.Sub(r.Started).Seconds()
		out.Result = "failure"
		if r.Success {
			out.Result = "success"
		}
	}
	return []batchapi.Attempt{out}, nil
}
