package launcher

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// taskView is a task with its living or last attempt.
type taskView struct {
	state.TaskStatus
	job     *state.JobStatus
	attempt *job.AttemptRow // nil: none lives
	past    *past           // of the last one, where none lives; nil: it has none
}

func viewOf(c *state.Cluster, j *state.JobStatus, s state.TaskStatus) taskView {
	v := taskView{TaskStatus: s, job: j}
	if len(s.Attempts) > 0 {
		if a, ok := c.Attempt(s.Attempts[0]); ok {
			v.attempt = &a
		}
	}
	return v
}

// living is a task with its attempt, unless that is history.
func (b *backend) living(ctx context.Context, c *state.Cluster, jobID, taskID string) (taskView, error) {
	j, err := b.jobByID(ctx, c, jobID)
	if err != nil {
		return taskView{}, err
	}
	s, ok := c.TaskByID(jobID, taskID)
	if !ok {
		return taskView{}, &batchapi.NotFound{Kind: batchapi.KindTask, ID: taskID}
	}
	return viewOf(c, &j, s), nil
}

func (b *backend) view(ctx context.Context, jobID, taskID string) (v taskView, err error) {
	err = b.read(ctx, func(c *state.Cluster) (err error) {
		v, err = b.living(ctx, c, jobID, taskID)
		return err
	})
	if err != nil {
		return v, err
	}
	one := []taskView{v}
	err = b.recall(one)
	return one[0], err
}

// taskVersion changes with whatever of a task a client can see, and only with it.
// a is the living attempt.
func taskVersion(s state.TaskStatus, a *job.AttemptRow) batchapi.Version {
	h := newVersion().text(s.UID).text(string(s.State)).time(s.Row.Changed).number(s.Version)
	if a != nil && s.State != job.TaskCompleted {
		h = h.text(a.ID).text(string(a.State))
	}
	if s.Row.Deleting {
		h = h.number(1)
	}
	return h.sum()
}

func (b *backend) taskOf(v *taskView) batchapi.Task {
	s, a, p := &v.TaskStatus, v.attempt, v.past
	if a != nil {
		p = pastOf(a)
	}
	out := batchapi.Task{ID: s.Row.Spec.ID, Spec: *s.Spec, Version: taskVersion(*s, a), State: s.State,
		Cursor: strconv.Itoa(s.Row.Index + 1),
		Times:  batchapi.Times{Created: s.Row.Created, Modified: s.Row.Created, StateAt: s.Row.Created},
	}
	if !s.Row.Changed.IsZero() {
		out.Times.Modified = s.Row.Changed
	}
	t := &out.Times
	switch {
	case s.State == job.TaskCompleted:
		t.StateAt, t.EndedAt, t.Prev = s.LastAt, s.LastAt, string(job.TaskActive)
		if p != nil && !p.started.IsZero() {
			t.Prev, t.PrevAt = string(job.TaskRunning), p.started
		}
	case a != nil && s.State == job.TaskRunning:
		t.StateAt, t.Prev, t.PrevAt = a.Started, string(job.TaskPreparing), a.Placed
	case a != nil && s.State == job.TaskPreparing:
		t.StateAt, t.Prev, t.PrevAt = a.Placed, string(job.TaskActive), s.Row.Created
	case !s.LastAt.IsZero(): // active again
		t.StateAt, t.Prev = s.LastAt, string(job.TaskRunning)
	}
	if t.Modified.Before(t.StateAt) {
		t.Modified = t.StateAt
	}
	if p != nil {
		t.StartedAt = p.started
		out.Retries, out.Requeues = int(p.retries), int(p.losses)
		if p.run.Node != "" {
			out.Run, out.Instances = b.placeRun(v, p.run), p.instances
		}
	}
	if s.State == job.TaskActive && s.Next != nil {
		out.Retries, out.Requeues = int(s.Next.Retries), int(s.Next.Losses)
	}
	if out.Retries > 0 {
		out.RetriedAt = s.LastAt
	}
	if out.Requeues > 0 {
		out.RequeueAt = s.LastAt
	}
	out.Run.Pool = b.pool
	if o := s.Last; o != nil && s.State == job.TaskCompleted {
		out.Run.Success, out.Run.Failure = howEnded(s)
		out.Run.Ended = s.LastAt
		if out.Run.Node != "" && !out.Run.Started.IsZero() {
			out.Run.Exit = exitOf(o.ExitCode, o.Signal)
		}
	}
	return out
}

// howEnded is how a task that has ended did so. The element of an array that ended last
// says nothing of the others, unless none could run for what the task depends on.
func howEnded(s *state.TaskStatus) (ok bool, why *job.Reason) {
	o, n := s.Last, s.Spec.Range.Len()
	switch {
	case n < 2, o.Reason != nil && o.Reason.Code == job.FailParent && s.Failed == n:
		return o.Success, o.Reason
	case s.Failed == 0:
		return true, nil
	}
	return false, &job.Reason{Code: job.FailRank, Detail: fmt.Sprintf("%d of its %d elements failed", s.Failed, n)}
}

// exitOf is an exit status as a shell would show it.
func exitOf(code, signal int) *int {
	if signal != 0 {
		code = 128 + signal
	}
	return &code
}

// partRun is how one part of an attempt runs; started is when the attempt did.
func partRun(p *job.PartRow, started time.Time) batchapi.Run {
	r := batchapi.Run{Node: p.Node, Started: started}
	if len(p.Results) > 0 {
		res := &p.Results[len(p.Results)-1]
		r.Started, r.Ended = res.Start, res.End
		r.Exit, r.Success, r.Failure = exitOf(res.ExitCode, res.Signal), res.Success(), res.Failure
	} else if p.Failure != nil {
		r.Failure = p.Failure
	}
	return r
}

// placeRun adds where its files are.
func (b *backend) placeRun(v *taskView, r batchapi.Run) batchapi.Run {
	r.Pool = b.pool
	r.Folder = job.TaskFolder(v.job.Row.Spec.ID, v.job.Row.UID, v.Row.Spec.ID)
	return r
}

func (b *backend) AddTasks(ctx context.Context, jobID string, tasks []job.TaskSpec) ([]batchapi.Task, []error, error) {
	errs := make([]error, len(tasks))
	var uid string
	var good []job.TaskSpec
	err := b.read(ctx, func(c *state.Cluster) error {
		j, err := b.jobByID(ctx, c, jobID)
		if err != nil {
			return err
		}
		uid = j.Row.UID
		// Each for itself: one event takes all or none.
		seen := map[string]bool{}
		for i, t := range tasks {
			id := strings.ToLower(t.ID)
			if _, ok := c.TaskByID(jobID, t.ID); ok || seen[id] {
				errs[i] = stopping(&state.ExistsError{What: "task", ID: t.ID})
				continue
			}
			seen[id] = true
			if err := job.ValidateTasks([]job.TaskSpec{t}); err != nil {
				errs[i] = err
				continue
			}
			if err := c.Possible(j.Row.Spec.ID, t); err != nil {
				errs[i] = stopping(err)
				continue
			}
			good = append(good, t)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if len(good) > 0 {
		if err := b.do(ctx, state.TasksAdded{Job: uid, Tasks: good, Later: true}); err != nil {
			var c *batchapi.Conflict
			var wrong job.Problems
			if !errors.As(err, &wrong) && (!errors.As(err, &c) || c.Code != batchapi.CodeTaskExists) {
				return nil, nil, err
			}
			// Someone added one of them just now, or one depends on what it can't: one by
			// one tells which.
			for i, t := range tasks {
				if errs[i] == nil {
					errs[i] = b.do(ctx, state.TasksAdded{Job: uid, Tasks: []job.TaskSpec{t}, Later: true})
				}
			}
		}
	}
	added := make([]batchapi.Task, len(tasks))
	for i, t := range tasks {
		if errs[i] == nil {
			if added[i], errs[i] = b.Task(ctx, jobID, t.ID); errs[i] != nil {
				errs[i] = nil // added, and deleted again by another
				added[i] = batchapi.Task{ID: t.ID, Spec: t}
			}
		}
	}
	return added, errs, nil
}

func (b *backend) Task(ctx context.Context, jobID, taskID string) (batchapi.Task, error) {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return batchapi.Task{}, err
		}
		return x.one, nil
	}
	v, err := b.view(ctx, jobID, taskID)
	if err != nil {
		return batchapi.Task{}, err
	}
	return b.taskOf(&v), nil
}

// changeTask decides on an event for a task that is still at the version seen,
// and applies it, in one step.
func (b *backend) changeTask(ctx context.Context, jobID, taskID string, seen batchapi.Version, what func(taskView) (state.What, error)) error {
	return b.do(ctx, state.Decided(func(c *state.Cluster) (state.What, error) {
		v, err := b.living(ctx, c, jobID, taskID)
		if err != nil {
			return nil, err
		}
		if seen != 0 && seen != taskVersion(v.TaskStatus, v.attempt) {
			return nil, batchapi.Stale{}
		}
		return what(v)
	}))
}

// sameWork says whether two specifications differ in no more than what may change
// while an attempt runs.
func sameWork(a, b job.TaskSpec) bool {
	for _, s := range []*job.TaskSpec{&a, &b} {
		*s = s.Resolve()
		s.Retries, s.TimeLimit, s.Retention, s.API = 0, 0, 0, nil
	}
	// As rows: what was stored and read again has no empty lists.
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func (b *backend) UpdateTask(ctx context.Context, jobID, taskID string, seen batchapi.Version, s job.TaskSpec) error {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return err
		}
		return wholeArray(x, "changed")
	}
	return b.changeTask(ctx, jobID, taskID, seen, func(v taskView) (state.What, error) {
		api := s.API
		if api == nil {
			api = json.RawMessage("null")
		}
		change := state.TaskChanged{Task: v.UID, Retries: &s.Retries, TimeLimit: &s.TimeLimit, Retention: &s.Retention, API: &api}
		if !sameWork(v.Row.Spec, s) {
			change.Spec = &s
		}
		return change, nil
	})
}

func (b *backend) TerminateTask(ctx context.Context, jobID, taskID string, seen batchapi.Version) error {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return err
		}
		return b.terminateElement(ctx, x, seen)
	}
	return b.changeTask(ctx, jobID, taskID, seen, func(v taskView) (state.What, error) {
		if v.State == job.TaskCompleted {
			return nil, &batchapi.Conflict{Code: batchapi.CodeTaskCompleted, Message: "task " + v.Row.Spec.ID + " has completed already"}
		}
		return state.CancelRequested{Job: v.job.Row.UID, Task: v.UID, Reason: job.Reason{Code: job.FailCancelled, Detail: "the task was terminated"}}, nil
	})
}

func (b *backend) ReactivateTask(ctx context.Context, jobID, taskID string, seen batchapi.Version) error {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return err
		}
		return b.changeElement(ctx, x, seen, state.TaskReactivated{Task: x.task.UID, Element: &x.index})
	}
	return b.changeTask(ctx, jobID, taskID, seen, func(v taskView) (state.What, error) {
		return state.TaskReactivated{Task: v.UID}, nil
	})
}

func (b *backend) DeleteTask(ctx context.Context, jobID, taskID string, seen batchapi.Version) error {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return err
		}
		return wholeArray(x, "deleted")
	}
	return b.changeTask(ctx, jobID, taskID, seen, func(v taskView) (state.What, error) {
		return state.TaskDeleted{Task: v.UID}, nil
	})
}

func (b *backend) TaskCounts(ctx context.Context, jobID string) (out batchapi.Counts, err error) {
	err = b.read(ctx, func(c *state.Cluster) error {
		j, err := b.jobByID(ctx, c, jobID)
		if err != nil {
			return err
		}
		c.EachTask(j.Row.UID, 0, func(s state.TaskStatus) bool {
			cores := uint64(s.Spec.CoresPerRank * max(s.Spec.Ranks, 1))
			for _, x := range []struct {
				to   *batchapi.StateCounts
				unit uint64
			}{{&out.Tasks, 1}, {&out.Slots, cores}} {
				x.to.Active += s.Pending * x.unit
				x.to.Running += (s.Preparing + s.Running) * x.unit
				x.to.Succeeded += s.Succeeded * x.unit
				x.to.Failed += s.Failed * x.unit
				x.to.Completed += (s.Succeeded + s.Failed) * x.unit
			}
			return true
		})
		return nil
	})
	return out, err
}

func (b *backend) Subtasks(ctx context.Context, jobID, taskID string) ([]batchapi.Subtask, error) {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		return nil, err // it is no gang
	}
	v, err := b.view(ctx, jobID, taskID)
	if err != nil {
		return nil, err
	}
	a, err := b.whole(v)
	if err != nil || a == nil {
		return nil, err
	}
	var out []batchapi.Subtask
	for i := range a.Parts {
		p := &a.Parts[i]
		if i == 0 {
			continue
		}
		s := batchapi.Subtask{Index: i, State: "preparing", StateAt: a.Placed, Run: b.placeRun(&v, partRun(p, a.Started))}
		switch {
		case len(p.Results) > 0 || p.Gone:
			s.State, s.Prev, s.StateAt = "completed", "running", cmp.Or(s.Run.Ended, v.LastAt)
		case p.Started:
			s.State, s.Prev, s.StateAt = "running", "preparing", a.Started
		}
		out = append(out, s)
	}
	return out, nil
}

func (b *backend) Explain(ctx context.Context, jobID, taskID string) (batchapi.Explanation, error) {
	if x, err := b.element(ctx, jobID, taskID); x != nil || err != nil {
		if err != nil {
			return batchapi.Explanation{}, err
		}
		return b.explainElement(ctx, jobID, x)
	}
	v, err := b.view(ctx, jobID, taskID)
	if err != nil {
		return batchapi.Explanation{}, err
	}
	e := batchapi.Explanation{State: v.State}
	switch {
	case v.State == job.TaskCompleted && v.Last != nil:
		ok, why := howEnded(&v.TaskStatus)
		if e.Reason = why; ok {
			e.Sentence = "it has ended well"
		}
		a, err := b.whole(v)
		if err != nil {
			return e, err
		}
		e.Autopsy, e.Death = autopsy(a), death(&v, a)
	case v.State == job.TaskActive && v.job.Row.Held:
		e.Reason = &job.Reason{Code: job.WaitHeld, Detail: "its job is disabled", Hint: "enable the job"}
	case v.State == job.TaskActive:
		if err := b.read(ctx, func(c *state.Cluster) error { e.Reason = c.Waits(v.UID); return nil }); err != nil {
			return e, err
		}
		for _, w := range b.ctl.Waiting() {
			if w.Task == v.UID && e.Reason == nil {
				r := w.Reason
				e.Reason = &r
				break
			}
		}
		if e.Reason == nil {
			e.Sentence = "it is about to be placed"
		}
		if a, err := b.whole(v); err == nil { // of the try before; waiting does not depend on it
			e.Death = death(&v, a)
		}
	case v.attempt != nil:
		e.Sentence = "it is " + string(v.attempt.State) + " on " + nodesOf(v.attempt)
	}
	if who, asked := batchapi.PrincipalOf(ctx); asked && who.Role < batchapi.Admin && e.Reason != nil {
		r := unnamed(*e.Reason)
		e.Reason = &r
	}
	if e.Reason != nil && e.Sentence == "" {
		e.Sentence = e.Reason.String()
	}
	return e, nil
}

// unnamed is why a task waits without the names of those that it waits for: they
// may be other users'.
func unnamed(r job.Reason) job.Reason {
	if r.Code == job.WaitQueue {
		r.Detail = "waits behind another task, which is next for these nodes"
	}
	r.Nodes = slices.Clone(r.Nodes)
	for i, n := range r.Nodes {
		if strings.HasPrefix(n.Detail, "(held by ") {
			r.Nodes[i].Detail = "(held by others)"
		}
	}
	return r
}

func nodesOf(a *job.AttemptRow) string {
	names := make([]string, len(a.Parts))
	for i, p := range a.Parts {
		names[i] = p.Node
	}
	return strings.Join(names, ",")
}

// death is what a gang's attempt died of, in a line; "" if it did not.
func death(v *taskView, a *job.AttemptRow) string {
	if a == nil || v.Spec.Kind != job.Gang {
		return ""
	}
	if d := a.Diagnose(); d != nil {
		return d.Headline()
	}
	return ""
}

// autopsy lists how a gang's ranks ended, the one that failed first in front.
func autopsy(a *job.AttemptRow) []batchapi.RankEnd {
	if a == nil || len(a.Parts) == 0 || len(a.Parts[0].Results) == 0 || a.Parts[0].Results[0].Success() {
		return nil
	}
	res := a.Parts[0].Results[0]
	nodeOf := func(rank int) string {
		for i := range a.Parts {
			if p := &a.Parts[i]; p.HasRank(rank) {
				return p.Node
			}
		}
		return ""
	}
	var out []batchapi.RankEnd
	for _, r := range res.Ranks {
		e := batchapi.RankEnd{Rank: r.Rank, Node: nodeOf(r.Rank), Exit: r.ExitCode, Signal: r.Signal}
		if r.LastStderr != "" {
			e.Stderr = strings.Split(strings.TrimRight(r.LastStderr, "\n"), "\n")
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(x, y batchapi.RankEnd) int {
		return cmp.Compare(order(x.Rank, res.FirstRank), order(y.Rank, res.FirstRank))
	})
	return out
}

func order(rank, first int) int {
	if rank == first {
		return 0
	}
	return 1
}
