package state

import (
	"slices"
	"sort"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

// TaskStatus is a task as it is now; its elements are counted.
type TaskStatus struct {
	UID, Job  string
	Row       job.TaskRow   // as submitted; not to be changed
	Spec      *job.TaskSpec // resolved; not to be changed
	State     job.TaskState
	Pending   uint64
	Preparing uint64
	Running   uint64
	Succeeded uint64
	Failed    uint64
	Attempts  []string     // ids of the living, by first index
	Next      *job.Try     // the first that waits for a place, or nil
	Last      *job.Outcome // the outcome that came last

	LastAttempt string    // id of the attempt that had it; "": it never ran
	LastAt      time.Time // when it came
	Version     uint64    // grows with each outcome
}

// JobStatus is a job as it is now.
type JobStatus struct {
	Row   job.JobRow // without tasks; not to be changed
	State job.JobState
	Tasks int
	Live  int // attempts that have not ended
}

// Counts are the elements of tasks, as TaskStatus counts them.
type Counts struct{ Pending, Preparing, Running, Succeeded, Failed uint64 }

// NodeStatus is a node as it is now.
type NodeStatus struct {
	Row      job.NodeRow
	Topology *topology.Node // nil: never seen; not to be changed
	Attempts []string       // ids of the living with a part here
	View     sched.Node     // what the scheduler sees; not to be changed
}

// Task returns the status of a task.
func (c *Cluster) Task(uid string) (TaskStatus, bool) {
	t, ok := c.tasks[uid]
	if !ok {
		return TaskStatus{}, false
	}
	return t.status(), true
}

func (t *taskState) status() TaskStatus {
	s := TaskStatus{UID: t.uid, Job: t.job.row.UID, Row: t.row, Spec: t.spec, Last: t.last,
		Pending: t.pending.len(), Succeeded: t.good.len(), Failed: t.bad.len(),
		LastAttempt: t.lastAttempt, LastAt: t.at, Version: t.seq}
	if len(t.pending) > 0 {
		s.Next = &t.pending[0]
	}
	for _, a := range t.live {
		open := a.Try.Len() - ranges(a.Settled).len()
		if a.Crew != nil { // what it was given ahead waits as well
			all := a.open()
			open = min(all, uint64(a.Crew.Slots))
			s.Pending += all - open
		}
		if a.Started.IsZero() {
			s.Preparing += open
		} else {
			s.Running += open
		}
		s.Attempts = append(s.Attempts, a.ID)
	}
	switch {
	case t.completed():
		s.State = job.TaskCompleted
	case s.Running > 0:
		s.State = job.TaskRunning
	case s.Preparing > 0:
		s.State = job.TaskPreparing
	default:
		s.State = job.TaskActive
	}
	return s
}

// Job returns the row of a job and the uids of its tasks.
func (c *Cluster) Job(uid string) (row job.JobRow, tasks []string, ok bool) {
	j, ok := c.jobs[uid]
	if !ok {
		return row, nil, false
	}
	for _, t := range j.tasks {
		tasks = append(tasks, t.uid)
	}
	return j.row, tasks, true
}

// JobByID returns the latest job with the id, whatever its case.
func (c *Cluster) JobByID(id string) (JobStatus, bool) {
	j := c.byID[strings.ToLower(id)]
	if j == nil {
		return JobStatus{}, false
	}
	return j.status(), true
}

// Jobs returns all jobs in the order of submission.
func (c *Cluster) Jobs() []JobStatus {
	out := make([]JobStatus, len(c.byAge))
	for i, j := range c.byAge {
		out[i] = j.status()
	}
	return out
}

func (j *jobState) status() JobStatus {
	return JobStatus{Row: j.row, State: j.state(), Tasks: len(j.tasks), Live: j.live}
}

// Counts adds up all tasks of all jobs.
func (c *Cluster) Counts() Counts {
	var n Counts
	for _, t := range c.tasks {
		s := t.status()
		n.Pending += s.Pending
		n.Preparing += s.Preparing
		n.Running += s.Running
		n.Succeeded += s.Succeeded
		n.Failed += s.Failed
	}
	return n
}

// TaskByID returns the task of a job by both ids, whatever their case.
func (c *Cluster) TaskByID(jobID, id string) (TaskStatus, bool) {
	if j := c.byID[strings.ToLower(jobID)]; j != nil {
		if t := j.byID[strings.ToLower(id)]; t != nil {
			return t.status(), true
		}
	}
	return TaskStatus{}, false
}

// EachTask calls f with the job's tasks in the order in which they were added,
// beginning with index from, for as long as it returns true.
func (c *Cluster) EachTask(uid string, from int, f func(TaskStatus) bool) {
	j := c.jobs[uid]
	if j == nil {
		return
	}
	i := sort.Search(len(j.tasks), func(i int) bool { return j.tasks[i].row.Index >= from })
	for i < len(j.tasks) && f(j.tasks[i].status()) {
		i++
	}
}

// Nodes returns all nodes in the user's order.
func (c *Cluster) Nodes() []NodeStatus {
	out := make([]NodeStatus, len(c.order))
	for i, n := range c.order {
		out[i] = n.status()
	}
	return out
}

// Node returns a node by name.
func (c *Cluster) Node(name string) (NodeStatus, bool) {
	n, ok := c.nodes[name]
	if !ok {
		return NodeStatus{}, false
	}
	return n.status(), true
}

func (n *node) status() NodeStatus {
	s := NodeStatus{Row: n.row, Topology: n.topo, View: n.view}
	s.Row.Claims = slices.Clone(n.row.Claims)
	for _, a := range n.live {
		s.Attempts = append(s.Attempts, a.ID)
	}
	return s
}

// Possible returns an *ImpossibleError if no node could ever run the task.
func (c *Cluster) Possible(jobID string, task job.TaskSpec) error {
	return c.possible(jobID, []job.TaskSpec{task})
}
