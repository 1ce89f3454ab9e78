package state

import (
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// Change is what an event did.
type Change struct {
	Rows    []job.Row // to commit, in order; a nil value deletes
	Touched []string  // nodes whose Desired may have changed, sorted
	Replan  bool      // slots, nodes or pending work changed: Plan may decide anew
	Notices []Notice  // in order
}

// Notice tells what people and waiting clients want to hear.
type Notice struct {
	Kind    NoticeKind
	Job     string          // uid
	Task    string          // uid
	Attempt string          // id
	Node    string          // where it happened; "" if nowhere in particular
	Outcome *job.Outcome    // TaskDone: of these elements; TaskAgain: of the try before
	Record  *job.AttemptRow // AttemptState: the attempt as it is now
}

// NoticeKind says what a Notice tells.
type NoticeKind string

// The kinds of notices.
const (
	TaskDone     NoticeKind = "task-done"     // elements have their outcome
	TaskAgain    NoticeKind = "task-again"    // elements are pending again
	AttemptState NoticeKind = "attempt-state" // an attempt is in another state
	JobDone      NoticeKind = "job-done"      // every task of the job is completed
	JobEnded     NoticeKind = "job-ended"     // and nothing of it is left on any node
	NodeChanged  NoticeKind = "node"          // a node is in another state
)

// TaskStatus counts a task's elements.
type TaskStatus struct {
	UID, Job  string
	Spec      *job.TaskSpec // resolved; not to be changed
	State     job.TaskState
	Pending   uint64
	Preparing uint64
	Running   uint64
	Succeeded uint64
	Failed    uint64
	Attempts  []string     // ids of the living, by first index
	Last      *job.Outcome // the outcome that came last
}

// ImpossibleError refuses a task that none of the nodes could ever run.
type ImpossibleError struct {
	Task   string
	Reason job.Reason
}

func (e *ImpossibleError) Error() string { return "task " + e.Task + ": " + e.Reason.String() }

// Cluster is the state of a cluster. It is not safe for concurrent use.
type Cluster struct{}

// New returns an empty cluster.
func New(id string, epoch uint64) *Cluster { return &Cluster{} }

// Load rebuilds the cluster from all rows of a store, in any order.
func Load(rows []job.Row) (*Cluster, error) { return nil, nil }

// Apply takes an event in. On an error nothing has changed.
func (c *Cluster) Apply(e Event) (Change, error) { return Change{}, nil }

// View returns what the scheduler may look at until the next Apply.
func (c *Cluster) View() sched.View { return sched.View{} }

// Desired returns what shall live on the node, sorted by id.
func (c *Cluster) Desired(node string) []Part { return nil }

// Attempt returns a copy of a living attempt.
func (c *Cluster) Attempt(id string) (job.AttemptRow, bool) { return job.AttemptRow{}, false }

// Task returns the status of a task.
func (c *Cluster) Task(uid string) (TaskStatus, bool) { return TaskStatus{}, false }

// Job returns the row of a job and the uids of its tasks.
func (c *Cluster) Job(uid string) (row job.JobRow, tasks []string, ok bool) { return }

// Check returns the first broken invariant: a PU owned twice, a gang in parts,
// sums that differ, a state outside the tables, a view that lies.
func (c *Cluster) Check() error { return nil }

var _ time.Time
