package batchapi

import (
	"context"
	"encoding/json"
	"time"

	"gangway/launcher/job"
	"gangway/topology"
)

// Backend is the launcher as this package needs it. Methods may be called from
// many goroutines at once; what they return is the caller's to keep.
//
// Ids keep their case but are unique without regard to it: every id given here
// is looked up that way, and results hold the id as it was first given. The
// element i of an array A is the task "A_i" in every method.
//
// A method that changes an object takes the version that the caller has seen: 0
// means any; another value makes it fail with Stale when the object has changed
// since. The comparison and the change are one step.
//
// Errors that callers can mend are of this package's types NotFound, Conflict,
// Invalid, Stale and Unavailable, perhaps wrapped, or job.Problems; any other
// error is an internal one, and its text does not reach the client. Who may do
// what is decided by the Handler before the call.
type Backend interface {
	PoolBackend
	JobBackend
	TaskBackend
	FileBackend
}

// PoolBackend is what pools and nodes are asked for.
type PoolBackend interface {
	Pools(ctx context.Context) ([]Pool, error)
	Pool(ctx context.Context, pool string) (Pool, error)
	// ResizePool changes how many of the pool's nodes are in use. A pool whose
	// machines are fixed answers Conflict.
	ResizePool(ctx context.Context, pool string, seen Version, r Resize) error
	// StopResize ends a resize that is under way; Conflict if none is.
	StopResize(ctx context.Context, pool string, seen Version) error
	// RemoveNodes takes nodes out of the pool.
	RemoveNodes(ctx context.Context, pool string, seen Version, nodes []string, what Deallocation) error

	Nodes(ctx context.Context, pool string) ([]Node, error)
	Node(ctx context.Context, pool, node string) (Node, error)
	// DisableScheduling places nothing more on the node and does with what runs
	// there as what says; it returns once this is durable, not once it is done.
	DisableScheduling(ctx context.Context, pool, node string, what Deallocation) error
	EnableScheduling(ctx context.Context, pool, node string) error
}

// JobBackend is what jobs are asked for. The transitional states (disabling,
// enabling, terminating, deleting) are durable before a method returns: clients
// poll, and take any other state for success.
type JobBackend interface {
	// AddJob adds a job without tasks; Conflict with CodeJobExists if the id is taken.
	AddJob(ctx context.Context, j NewJob) (Job, error)
	Job(ctx context.Context, id string) (Job, error)
	// Jobs returns up to q.Limit jobs after q.After, in an order that restarts
	// keep. Fewer than q.Limit is the end.
	Jobs(ctx context.Context, q JobQuery) ([]Job, error)
	UpdateJob(ctx context.Context, id string, seen Version, s JobSettings) error
	DisableJob(ctx context.Context, id string, seen Version, what DisableTasks) error
	EnableJob(ctx context.Context, id string, seen Version) error
	// TerminateJob ends the job's tasks and completes it. Terminating a job that
	// is completed or on its way there is a Conflict.
	TerminateJob(ctx context.Context, id string, seen Version, reason string) error
	DeleteJob(ctx context.Context, id string, seen Version) error
	// Summary is what the ends of a job's tasks come to.
	Summary(ctx context.Context, id string) (Summary, error)
}

// TaskBackend is what tasks are asked for.
type TaskBackend interface {
	// AddTasks adds tasks to a job, each for itself: errs[i] belongs to tasks[i]
	// (Conflict with CodeTaskExists if the id is taken), and added[i] holds the task if
	// errs[i] is nil. err is the failure of the whole: no such job, a job that
	// takes no more tasks.
	AddTasks(ctx context.Context, jobID string, tasks []job.TaskSpec) (added []Task, errs []error, err error)
	Task(ctx context.Context, jobID, taskID string) (Task, error)
	// Tasks returns up to q.Limit tasks after q.After, in an order that restarts
	// keep. Fewer than q.Limit is the end.
	Tasks(ctx context.Context, jobID string, q TaskQuery) ([]Task, error)
	// UpdateTask replaces a task's specification; its ID and Command are as before.
	// Of a task that has been placed only Retries, TimeLimit, Retention and API may differ,
	// and of an array never Range: Conflict otherwise.
	UpdateTask(ctx context.Context, jobID, taskID string, seen Version, s job.TaskSpec) error
	TerminateTask(ctx context.Context, jobID, taskID string, seen Version) error
	// ReactivateTask makes a task that completed active again with its retries
	// unused; Conflict if it has not completed, or has succeeded.
	ReactivateTask(ctx context.Context, jobID, taskID string, seen Version) error
	// DeleteTask ends the task if need be and forgets it and its files.
	DeleteTask(ctx context.Context, jobID, taskID string, seen Version) error
	TaskCounts(ctx context.Context, jobID string) (Counts, error)
	// Subtasks returns what runs on a gang's nodes other than the first, in node
	// order; none for other tasks.
	Subtasks(ctx context.Context, jobID, taskID string) ([]Subtask, error)
	// Attempts returns all that ran of a task, the first one first.
	Attempts(ctx context.Context, jobID, taskID string) ([]Attempt, error)
	// Explain says why a task waits or failed.
	Explain(ctx context.Context, jobID, taskID string) (Explanation, error)
	// Autopsy reports on the attempt with the number, from 1, or on the last that
	// failed if it is 0; NotFound of KindAutopsy if there is none.
	Autopsy(ctx context.Context, jobID, taskID string, attempt uint32) (Autopsy, error)
}

// FileBackend reads and deletes files that tasks left on nodes. Paths are
// relative, cleaned, with forward slashes, and never leave their root.
type FileBackend interface {
	// ListFiles returns what is in the folder path ("" is the root): one level, or
	// everything below it. Names are relative to the root.
	ListFiles(ctx context.Context, root FileRoot, path string, recursive bool) ([]File, error)
	StatFile(ctx context.Context, root FileRoot, path string) (File, error)
	// ReadFile returns up to n bytes from offset off; fewer only at the file's
	// present end. n is at most MaxRead.
	ReadFile(ctx context.Context, root FileRoot, path string, off int64, n int) ([]byte, error)
	// DeleteFile deletes a file, or a folder: one that is not empty only if recursive,
	// Conflict otherwise.
	DeleteFile(ctx context.Context, root FileRoot, path string, recursive bool) error
}

// MaxRead is the most bytes that ReadFile is asked for at once.
const MaxRead = 1 << 20

// Version counts the changes to an object; it becomes its ETag. 0 is no version.
type Version uint64

// Times are an object's history. Zero times are unknown.
type Times struct {
	Created   time.Time
	Modified  time.Time // when the version last changed
	StateAt   time.Time // when it entered its state
	Prev      string    // the state before; "" if there was none
	PrevAt    time.Time
	StartedAt time.Time
	EndedAt   time.Time
}

// Pool is a set of nodes.
type Pool struct {
	ID       string
	Version  Version
	Times    Times
	State    string // active, deleting
	Alloc    string // steady, resizing, stopping
	AllocAt  time.Time
	Nodes    int // in it now
	Target   int // asked for
	Slots    int // cores of its smallest node
	SlotsMax int // cores of its largest node
	Errors   []Failure
}

// Resize is a change of a pool's size. Nil counts stay as they are.
type Resize struct {
	Dedicated   *int
	LowPriority *int
	Timeout     time.Duration // 0: the default
	What        Deallocation
}

// Deallocation says what becomes of the tasks on a node that is taken away or
// closed for new work.
type Deallocation string

// The choices of a Deallocation; "" is DeallocateRequeue.
const (
	DeallocateRequeue    Deallocation = "requeue"        // end them; they start anew elsewhere
	DeallocateTerminate  Deallocation = "terminate"      // end them for good
	DeallocateCompletion Deallocation = "taskcompletion" // let them finish
)

// Node is a machine of a pool.
type Node struct {
	ID         string
	State      string // a Batch node state: idle, running, offline, unusable, unknown, …
	StateAt    time.Time
	Scheduling bool // tasks may be placed there
	BootedAt   time.Time
	JoinedAt   time.Time
	Address    string
	Cores      int
	Memory     uint64 // bytes
	Running    int    // tasks
	RunSlots   int    // cores in use by tasks
	TotalRun   int
	TotalOK    int
	Agent      string // version of the agent
	Errors     []Failure
	Usage      *job.Usage     // the last sample; nil: none
	Recent     []NodeTask     // running, or lately finished
	Topology   *topology.Node // as its agent probed it; nil: never seen. Not to be changed.
}

// NodeTask is a task on a node, as the node's entry lists it.
type NodeTask struct {
	Job, Task string
	Subtask   int // 0: the primary
	State     job.TaskState
	Run       Run
}

// JobState is a job's state as Azure Batch names it.
type JobState string

// The states of a job.
const (
	JobActive      JobState = "active"
	JobDisabling   JobState = "disabling"
	JobDisabled    JobState = "disabled"
	JobEnabling    JobState = "enabling"
	JobTerminating JobState = "terminating"
	JobCompleted   JobState = "completed"
	JobDeleting    JobState = "deleting"
)

// DisableTasks says what becomes of a disabled job's running tasks.
type DisableTasks string

// The choices of DisableTasks.
const (
	DisableRequeue   DisableTasks = "requeue"
	DisableTerminate DisableTasks = "terminate"
	DisableWait      DisableTasks = "wait"
)

// JobSettings are what may change of a job after it was added.
type JobSettings struct {
	Pool     string // "" only where the launcher has one pool
	Priority int
	// TimeLimit counts from the job's creation; then its tasks are ended and it
	// completes with reason MaxWallClockTimeExpiry. 0: none.
	TimeLimit time.Duration
	Retries   int  // default of the job's tasks; -1: no limit
	AutoEnd   bool // complete once all its tasks have; not before it has had one
	// MaxRunning is job.Spec's. ExitActions too; it can't change.
	MaxRunning  int
	ExitActions bool
	// API is what only the API's clients read, kept as it is: job.Spec.API.
	API json.RawMessage
}

// NewJob is a job to add.
type NewJob struct {
	ID string
	JobSettings
	Owner    string // the principal's name
	NodeUser string // whom its tasks run as; "": the agent's own user
}

// Job is a job as it stands.
type Job struct {
	NewJob
	Version Version
	Times   Times
	State   JobState
	Reason  string // why it was terminated
	Cursor  string // for JobQuery.After
}

// JobQuery asks for a page of jobs.
type JobQuery struct {
	Owner string // only this principal's; "": all
	After string // the Cursor of the last job seen; "": from the start
	Limit int    // 1 to 1000
}

// TaskQuery asks for a page of tasks.
type TaskQuery struct {
	After string // the Cursor of the last task seen; "": from the start
	Limit int    // 1 to 1000
	// States limits the answer to tasks in one of them; empty: all. It is a hint:
	// an answer with other tasks is filtered again.
	States []job.TaskState
	// May and Match are the list's filter, nil if it has none. Of an array, elements
	// that they do not want must be left out; of other tasks, that is done again.
	May   func(*Span) Answer
	Match func(*Task) bool
}

// Task is a task, or one element of an array.
type Task struct {
	ID        string // an element's is "A_i"
	Spec      job.TaskSpec
	Version   Version
	Times     Times
	State     job.TaskState
	Run       Run
	Instances int // nodes of Run; 0: not placed
	Retries   int // used
	RetriedAt time.Time
	Requeues  int // after the loss of a node
	RequeueAt time.Time
	Cursor    string // for TaskQuery.After
}

// Run is how a task, or one node's part of it, ran and ended.
type Run struct {
	Node    string // "": not placed
	Pool    string
	Folder  string // of its files on the node, relative to the node's root
	Started time.Time
	Ended   time.Time
	Exit    *int // nil until it ended, or if nothing was started
	Success bool // of a completed task
	Failure *job.Reason
}

// Subtask is a gang's part on a node other than the first.
type Subtask struct {
	Index   int    // from 1
	State   string // preparing, running, completed
	StateAt time.Time
	Prev    string
	PrevAt  time.Time
	Run     Run
}

// Counts are a job's tasks by state, and the cores that they ask for. Running
// holds those that prepare too.
type Counts struct {
	Tasks, Slots StateCounts
}

// StateCounts counts by state; Completed is Succeeded + Failed.
type StateCounts struct {
	Active    uint64 `json:"active"`
	Running   uint64 `json:"running"`
	Completed uint64 `json:"completed"`
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`
}

// Explanation is why a task is where it is.
type Explanation struct {
	State    job.TaskState `json:"state"`
	Reason   *job.Reason   `json:"reason,omitempty"`
	Sentence string        `json:"sentence"`          // the reason in words
	StartAt  time.Time     `json:"startAt,omitzero"`  // when it can start at the latest, if that is known
	Autopsy  []RankEnd     `json:"autopsy,omitempty"` // of a gang that failed: who ended first comes first
	Death    string        `json:"death,omitempty"`   // of a gang whose last attempt failed: what it died of, in a line
}

// Autopsy is the report on a failed attempt, with what the launcher did about
// the nodes that it suspects.
type Autopsy struct {
	job.Report
	Attempts []uint32     `json:"attempts"`          // of the task, that there are reports on
	Actions  []NodeAction `json:"actions,omitempty"` // for each suspect
}

// NodeAction is what was done about a suspected node.
type NodeAction struct {
	Node     string `json:"node"`
	LeftOut  bool   `json:"leftOut,omitempty"`  // of the task's next attempt
	Draining bool   `json:"draining,omitempty"` // takes no work now
	Why      string `json:"why,omitempty"`      // it was drained by the launcher
	Guilty   int    `json:"guilty,omitempty"`   // attempts that speak against it, within a day
}

// RankEnd is how one rank of a gang ended.
type RankEnd struct {
	Rank   int      `json:"rank"`
	Node   string   `json:"node"`
	Exit   int      `json:"exit"`
	Signal int      `json:"signal,omitempty"`
	Stderr []string `json:"stderr,omitempty"` // its last lines
}

// FileRoot is where a path starts: a task's folder, or a node's.
type FileRoot struct {
	Job, Task  string // a task's; its first node's if it is a gang
	Instance   int    // of a gang's task: which of its nodes, 0 is the first
	Pool, Node string // a node's
}

// File is a file or folder on a node.
type File struct {
	Name     string // relative to its root
	Dir      bool
	Size     int64
	Modified time.Time
	Created  time.Time // zero: unknown
	Mode     uint32    // permission bits and type, as in st_mode
}

// Failure is an error of a pool or a node.
type Failure struct {
	Code, Message string
}
