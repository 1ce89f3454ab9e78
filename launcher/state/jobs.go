package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

func (e JobSubmitted) apply(c *Cluster, t *change) error {
	if !validUID(e.UID) {
		return fmt.Errorf("job uid %q: want 4 to 10 characters of a-z 0-9", e.UID)
	}
	if _, ok := c.jobs[e.UID]; ok {
		return fmt.Errorf("job uid %s is taken: submit again with another", e.UID)
	}
	if e.Unique && c.byID[strings.ToLower(e.Spec.ID)] != nil {
		return &ExistsError{What: "job", ID: e.Spec.ID}
	}
	check := e.Spec
	check.KeepOpen = check.KeepOpen || e.Open
	if err := job.Validate(check); err != nil {
		return err
	}
	if err := c.possible(e.Spec.ID, e.Spec.Tasks); err != nil {
		return err
	}
	tasks, err := job.Link(e.Spec.Tasks, job.Existing{}, false)
	if err != nil {
		return err
	}
	spec := e.Spec
	spec.Tasks = nil
	j := c.addJob(job.JobRow{UID: e.UID, Seq: t.next(), Spec: spec, Submitted: t.at})
	t.addTasks(j, tasks)
	return nil
}

// possible refuses tasks that no node of the cluster could ever run.
func (c *Cluster) possible(jobID string, tasks []job.TaskSpec) error {
	nodes := c.views()
	for _, task := range tasks {
		each, err := shapes(task)
		if err != nil {
			return err
		}
		for _, one := range each {
			r := sched.Impossible(one, nodes)
			if r == nil {
				r = sched.TooFewSwitches(one, nodes, c.fabric)
			}
			if r != nil {
				return &ImpossibleError{ID: task.ID, Task: jobID + "/" + one.ID, Reason: *r}
			}
		}
	}
	return nil
}

func validUID(s string) bool {
	if len(s) < 4 || len(s) > 10 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if b := s[i]; (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return false
		}
	}
	return true
}

// addTasks puts tasks in and the job where it belongs in the queue.
func (t *change) addTasks(j *jobState, tasks []job.TaskSpec) {
	for _, spec := range tasks {
		row := job.TaskRow{UID: job.TaskUID(j.row.UID, j.row.Next), Job: j.row.UID, Index: j.row.Next, Spec: spec, Created: t.at}
		j.row.Next++
		t.rows = append(t.rows, job.Encode(job.TableTask, row.UID, row))
		t.c.addTask(j, row)
		t.opened(j)
	}
	added := j.tasks[len(j.tasks)-len(tasks):]
	for _, task := range added {
		t.joined(task)
		task.connect()
	}
	for _, task := range added {
		t.moved = append(t.moved, moved{task: task}) // a parent may have failed already
	}
	t.jobChanged(j)
}

// opened counts one more task with work left.
func (t *change) opened(j *jobState) {
	if j.open++; j.open == 1 {
		t.c.queue(j)
	}
	t.replan = true
}

func (e TasksAdded) apply(c *Cluster, t *change) error {
	j, err := c.openJob(e.Job)
	if err != nil {
		return err
	}
	if err := job.ValidateTasks(e.Tasks); err != nil {
		return err
	}
	for _, task := range e.Tasks {
		if j.byID[strings.ToLower(task.ID)] != nil {
			return &ExistsError{What: "task", ID: task.ID}
		}
	}
	if err := c.possible(j.row.Spec.ID, e.Tasks); err != nil {
		return err
	}
	tasks, err := j.linked(e.Tasks, e.Later)
	if err != nil {
		return err
	}
	t.addTasks(j, tasks)
	return nil
}

func (c *Cluster) job(uid string) (*jobState, error) {
	if j, ok := c.jobs[uid]; ok {
		return j, nil
	}
	return nil, fmt.Errorf("there is no job with uid %s", uid)
}

// openJob returns a job that takes tasks.
func (c *Cluster) openJob(uid string) (*jobState, error) {
	j, err := c.job(uid)
	if err != nil {
		return nil, err
	}
	if s := j.state(); s != job.JobActive && s != job.JobDisabled && s != job.JobDisabling {
		return nil, &ClosedError{What: "job", ID: j.row.Spec.ID, State: string(s), Need: "active or disabled"}
	}
	return j, nil
}

func (c *Cluster) task(uid string) (*taskState, error) {
	if t, ok := c.tasks[uid]; ok {
		return t, nil
	}
	return nil, fmt.Errorf("there is no task with uid %s", uid)
}

func (e JobChanged) apply(c *Cluster, t *change) error {
	j, err := c.openJob(e.Job)
	if err != nil {
		return err
	}
	spec := j.row.Spec
	if e.Priority != nil {
		spec.Priority = *e.Priority
	}
	if e.KeepOpen != nil {
		spec.KeepOpen = *e.KeepOpen
	}
	if e.MaxTime != nil {
		spec.MaxTime = *e.MaxTime
	}
	if e.Retries != nil {
		spec.Retries = *e.Retries
	}
	if e.MaxRunning != nil {
		spec.MaxRunning = *e.MaxRunning
	}
	if e.API != nil {
		spec.API = bytes.Clone(*e.API)
	}
	check := spec
	check.KeepOpen = true // its tasks are elsewhere
	if err := job.Validate(check); err != nil {
		return err
	}
	j.row.Spec, j.row.Changed = spec, t.at
	if j.open > 0 {
		c.unqueue(j)
		c.queue(j)
		t.replan = true
	}
	t.jobChanged(j)
	t.jobEnded(j)
	return nil
}

func (e JobHeld) apply(c *Cluster, t *change) error {
	j, err := c.openJob(e.Job)
	if err != nil {
		return err
	}
	if e.On {
		t.hold(j, e.Running, "its job was disabled")
		return nil
	}
	j.row.Held, j.row.Changed = false, t.at
	t.jobChanged(j)
	t.replan = true
	return nil
}

// hold disables a job.
func (t *change) hold(j *jobState, how HeldRunning, why string) {
	j.row.Held, j.row.Changed = true, t.at
	t.jobChanged(j)
	t.replan = true
	for _, task := range slices.Clone(j.tasks) {
		for _, a := range slices.Clone(task.live) {
			t.evict(a, how, why)
			t.windDown(a)
		}
	}
}

// evict does with an attempt as asked; "" and HeldWait leave it alone.
func (t *change) evict(a *attempt, how HeldRunning, why string) {
	switch {
	case how == HeldTerminate:
		t.cancelAttempt(a, job.Reason{Code: job.FailCancelled, Detail: why}, false)
	case how == HeldRequeue && a.Cancel == nil && a.End == nil && !a.settled():
		t.end(a, job.Reason{Code: job.FailRequeued, Detail: why}, false)
		t.settle(a)
	}
}

func (e CancelRequested) apply(c *Cluster, t *change) error {
	j, err := c.job(e.Job)
	if err != nil {
		return err
	}
	tasks := j.tasks
	if e.Task != "" {
		i := slices.IndexFunc(tasks, func(x *taskState) bool { return x.uid == e.Task })
		if i < 0 {
			return fmt.Errorf("job %s has no task with uid %s", j.row.Spec.ID, e.Task)
		}
		tasks = tasks[i : i+1]
	}
	why := e.Reason
	if why.Code == "" {
		why.Code = job.FailCancelled
	}
	if e.Task == "" {
		t.cancelJob(j, why, e.Now)
		return nil
	}
	for _, task := range slices.Clone(tasks) {
		t.cancelTask(task, why, e.Now)
	}
	t.jobEnded(j)
	return nil
}

// cancelJob ends a job and all its tasks.
func (t *change) cancelJob(j *jobState, why job.Reason, now bool) {
	if j.row.Cancel == nil && j.row.Ended.IsZero() {
		j.row.Cancel, j.row.Changed = &why, t.at
		t.jobChanged(j)
	}
	for _, task := range slices.Clone(j.tasks) {
		t.cancelTask(task, why, now)
	}
	t.jobEnded(j)
}

// cancelTask ends what a task has left to do.
func (t *change) cancelTask(task *taskState, why job.Reason, now bool) {
	var done []job.Outcome
	for _, try := range task.pending {
		done = append(done, job.Outcome{Range: try.Range, ExitCode: exitFor(why.Code), Reason: &why})
	}
	if len(done) > 0 {
		t.block(task, "", done, nil, job.Outcome{})
		t.replan = true
	}
	for _, a := range slices.Clone(task.live) {
		t.cancelAttempt(a, why, now)
	}
}

func (t *change) cancelAttempt(a *attempt, why job.Reason, now bool) {
	if a.Cancel == nil {
		a.Cancel = &why
		t.changed(a)
	}
	t.end(a, why, now)
	if a.Requeue { // its elements only waited for the end of this attempt
		a.Requeue = false
		t.leave(a, outcomeOfReason(*a.Cancel))
	}
	t.settle(a)
}

func (e JobDeleted) apply(c *Cluster, t *change) error {
	j, err := c.job(e.Job)
	if err != nil {
		return err
	}
	if j.row.Deleting {
		return nil
	}
	j.row.Deleting, j.row.Changed = true, t.at
	why := job.Reason{Code: job.FailCancelled, Detail: "its job was deleted"}
	if j.row.Cancel == nil {
		j.row.Cancel = &why
	}
	t.jobChanged(j)
	for _, task := range slices.Clone(j.tasks) {
		t.cancelTask(task, why, false)
	}
	t.jobEnded(j)
	return nil
}

func (e TaskChanged) apply(c *Cluster, t *change) error {
	task, err := c.task(e.Task)
	if err != nil {
		return err
	}
	if task.row.Deleting || task.completed() {
		return &ClosedError{What: "task", ID: task.spec.ID, State: string(job.TaskCompleted), Need: "not completed"}
	}
	spec := task.row.Spec
	if e.Spec != nil {
		if len(task.live) > 0 || task.good.len()+task.bad.len() > 0 {
			return &ClosedError{What: "task", ID: spec.ID, State: string(job.TaskRunning), Need: "waiting, to be given other resources"}
		}
		was := task.spec
		spec = *e.Spec
		if now := spec.Resolve(); now.ID != was.ID || now.Range != was.Range || !slices.Equal(now.Command, was.Command) {
			return fmt.Errorf("task %s: its id, command and elements can't change", was.ID)
		}
		if err := c.possible(task.job.row.Spec.ID, []job.TaskSpec{spec}); err != nil {
			return err
		}
	}
	if e.Retries != nil {
		spec.Retries = *e.Retries
	}
	if e.TimeLimit != nil {
		spec.TimeLimit = *e.TimeLimit
	}
	if e.Retention != nil {
		spec.Retention = *e.Retention
	}
	if e.API != nil {
		spec.API = bytes.Clone(*e.API)
	}
	if err := job.ValidateTasks([]job.TaskSpec{spec}); err != nil {
		return err
	}
	spec.DependsOn = task.row.Spec.DependsOn // it may be linked to others already
	task.unplace()
	resolved := spec.Resolve()
	task.row.Spec, task.row.Changed, task.spec = spec, t.at, &resolved
	task.expand()
	task.sweep = nil
	task.place()
	t.taskChanged(task)
	t.replan = true
	return nil
}

func (e TaskReactivated) apply(c *Cluster, t *change) error {
	task, err := c.task(e.Task)
	if err != nil {
		return err
	}
	if _, err := c.openJob(task.job.row.UID); err != nil {
		return err
	}
	bad := task.bad
	if e.Element != nil {
		bad = bad.within(job.Range{Lo: *e.Element, Hi: *e.Element + 1})
		if task.row.Deleting || len(bad) == 0 {
			return &ClosedError{What: "task", ID: job.ElementID(task.spec.ID, *e.Element), State: "not one that failed", Need: "completed, and failed"}
		}
	} else if task.row.Deleting || !task.completed() || len(bad) == 0 {
		state := "not completed"
		if task.completed() {
			state = "completed without a failure"
		}
		return &ClosedError{What: "task", ID: task.spec.ID, State: state, Need: "completed, and failed"}
	}
	if task.lost > 0 {
		return &ClosedError{What: "task", ID: task.spec.ID, State: "completed: " + task.whyLost().Detail,
			Need: "free to start: reactivate what it depends on, which brings it back too"}
	}
	for _, a := range task.live { // it would run twice at once
		for _, p := range a.Parts {
			if p.Cut && !p.Gone && len(p.Results) == 0 {
				return &ClosedError{What: "task", ID: task.spec.ID, State: "completed, but may still run on " + p.Node + ", which is lost",
					Need: "gone from there: the node must come back, or its lease lapse"}
			}
		}
	}
	again := make([]job.Try, len(bad))
	for i, r := range bad {
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
	return nil
}

func (e TaskDeleted) apply(c *Cluster, t *change) error {
	task, err := c.task(e.Task)
	if err != nil {
		return err
	}
	if task.row.Deleting {
		return nil
	}
	task.row.Deleting, task.row.Changed = true, t.at
	t.taskChanged(task)
	t.cancelTask(task, job.Reason{Code: job.FailCancelled, Detail: "it was deleted"}, false)
	t.taskEnded(task)
	return nil
}

// taskEnded forgets a task that is to be deleted once nothing of it is left.
func (t *change) taskEnded(task *taskState) {
	if !task.row.Deleting || len(task.live) > 0 || !task.completed() || t.c.tasks[task.uid] != task {
		return
	}
	t.unlink(task)
	t.forget(task)
	j := task.job
	t.notice(Notice{Kind: TaskForgotten, Job: j.row.UID, Task: task.uid, Folder: job.TaskFolder(j.row.Spec.ID, j.row.UID, task.spec.ID), Elements: task.elements != nil})
	j.tasks = slices.DeleteFunc(j.tasks, func(x *taskState) bool { return x == task })
}

// forget removes a task and its history; the caller takes it out of its job.
func (t *change) forget(task *taskState) {
	delete(t.c.tasks, task.uid)
	delete(task.job.byID, strings.ToLower(task.spec.ID))
	task.job.failed -= task.bad.len() - task.spared.len()
	delete(t.tasks, task.uid)
	t.after = append(t.after,
		job.Row{Table: job.TableTask, Key: task.uid},
		job.Row{Table: job.TableBlock, Key: task.uid + "/", Prefix: true},
		job.Row{Table: job.TableAutopsy, Key: task.uid + "-", Prefix: true})
}

// jobEnded says so once nothing of a job that is done is left: all its tasks,
// of which there was one at least, have completed, and it was told to end or is
// not kept open for more.
func (t *change) jobEnded(j *jobState) {
	if j.open > 0 || j.live > 0 || (j.row.Spec.KeepOpen || j.row.Next == 0) && j.row.Cancel == nil {
		return
	}
	if j.row.Ended.IsZero() {
		j.row.Ended = t.at
		t.jobChanged(j)
		t.notice(Notice{Kind: JobEnded, Job: j.row.UID})
	}
	if !j.row.Deleting || t.c.jobs[j.row.UID] != j {
		return
	}
	for _, task := range slices.Clone(j.tasks) {
		t.forget(task)
	}
	j.tasks = nil
	delete(t.c.jobs, j.row.UID)
	t.c.byAge = slices.DeleteFunc(t.c.byAge, func(x *jobState) bool { return x == j })
	id := strings.ToLower(j.row.Spec.ID)
	delete(t.c.byID, id)
	for _, x := range t.c.byAge { // ids of jobs need not be unique
		if strings.ToLower(x.row.Spec.ID) == id {
			t.c.byID[id] = x
		}
	}
	delete(t.jobs, j.row.UID)
	t.after = append(t.after, job.Row{Table: job.TableJob, Key: j.row.UID})
	t.notice(Notice{Kind: JobForgotten, Job: j.row.UID, Folder: job.Folder(j.row.Spec.ID, j.row.UID)})
}

func (j *jobState) state() job.JobState {
	switch {
	case j.row.Deleting:
		return job.JobDeleting
	case !j.row.Ended.IsZero():
		return job.JobCompleted
	case j.row.Cancel != nil:
		return job.JobTerminating
	case j.row.Held && j.live > 0:
		return job.JobDisabling
	case j.row.Held:
		return job.JobDisabled
	}
	return job.JobActive
}

// Overdue returns the uids of jobs that have reached their time limit and were
// not yet told to end, in the order of submission, and when the next one will.
func (c *Cluster) Overdue(now time.Time) (uids []string, next time.Time) {
	for _, j := range c.byAge {
		d := j.row.Spec.MaxTime
		if d == 0 || j.row.Cancel != nil || !j.row.Ended.IsZero() {
			continue
		}
		switch end := j.row.Submitted.Add(d); {
		case !end.After(now):
			uids = append(uids, j.row.UID)
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	return uids, next
}
