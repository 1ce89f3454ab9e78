package state

import (
	"fmt"
	"slices"

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
	if err := job.Validate(e.Spec); err != nil {
		return err
	}
	nodes := c.views()
	for _, task := range e.Spec.Tasks {
		if r := sched.Impossible(task.Resolve(), nodes); r != nil {
			return &ImpossibleError{Task: e.Spec.ID + "/" + task.ID, Reason: *r}
		}
	}
	j := c.addJob(job.JobRow{UID: e.UID, Seq: t.next(), Spec: e.Spec, Submitted: t.at})
	c.queue(j)
	t.rows = append(t.rows, job.Encode(job.TableJob, e.UID, j.row))
	t.replan = true
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

func (e CancelRequested) apply(c *Cluster, t *change) error {
	j, ok := c.jobs[e.Job]
	if !ok {
		return fmt.Errorf("there is no job with uid %s", e.Job)
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
	if e.Task == "" && j.row.Cancel == nil && j.open > 0 {
		j.row.Cancel = &why
		t.rows = append(t.rows, job.Encode(job.TableJob, j.row.UID, j.row))
	}
	for _, task := range tasks {
		var done []job.Outcome
		for _, try := range task.pending {
			done = append(done, job.Outcome{Range: try.Range, ExitCode: exitFor(why.Code), Reason: &why})
		}
		if len(done) > 0 {
			t.block(task, "", done, nil, job.Outcome{})
			t.replan = true
		}
		for _, a := range slices.Clone(task.live) {
			if a.Cancel == nil {
				a.Cancel = &why
				t.changed(a)
			}
			t.end(a, why, e.Now)
			if a.Requeue { // its elements only waited for the end of this attempt
				a.Requeue = false
				t.decide(a, ranges(a.Settled).missing(a.Try.Range), outcomeOfReason(*a.Cancel))
			}
			t.settle(a)
		}
	}
	return nil
}
