package state

import (
	"encoding/json"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

// Event is something that happened, at a time.
type Event struct {
	At   time.Time
	What What
}

// What is one of the events of this package. News of an attempt that is not, or
// no longer, there is not an error: it changes nothing.
type What interface {
	apply(c *Cluster, t *change) error
}

// Restarted opens an epoch: a new launcher took the data set over. Every node
// is out of reach until its agent is back.
type Restarted struct{ Epoch uint64 }

// NodeAdded makes a node known by name, after those already there.
type NodeAdded struct {
	Node  string
	Again bool // it may be there already
}

// NodeUp reports a session with the node's agent, which renews leases for Lease
// each time. GPUs are the indices that
// tasks may be given. The node takes work once its Inventory, which follows, is
// in: only then is it known what others hold there.
type NodeUp struct {
	Node     string
	Agent    string // the agent process's life
	Boot     string // the kernel's
	Lease    time.Duration
	Topology topology.Node
	GPUs     []uint32
	NoCrews  bool // the agent's protocol has no crews
}

// NodeDown reports that the session with the node's agent is gone. What runs
// there goes on.
type NodeDown struct{ Node, Why string }

// NodeLost gives a silent node up, after control's patience: on-node-loss
// decides what becomes of its attempts. Slots stay taken.
type NodeLost struct{ Node, Why string }

// NodeGone is the proof that nothing of this cluster can be left on the node: it
// was rebooted or destroyed, or the leases of what it held have lapsed.
type NodeGone struct {
	Node   string
	Leases Leases
	Why    string
}

// Leases says for which attempts the end of a lease is the proof.
type Leases int

// The attempts concerned.
const (
	AllAttempts    Leases = iota // the node is gone, whatever it held
	SessionLeases                // jobs that end with the launcher
	RequeuedLeases               // those, and tasks that don't wait for a lost node
)

// NodeDrained starts or stops draining a node. Running says what becomes of
// what runs there; requeued work goes elsewhere. Leave marks a node that is to be
// removed once it is empty.
type NodeDrained struct {
	Node    string
	On      bool
	Leave   bool
	Running HeldRunning
}

// NodeRemoved forgets a node; it is an error while an attempt has a part there,
// unless the node is lost and the attempt was cancelled.
type NodeRemoved struct{ Node string }

// Inventory is everything that lives on a node, at the start of a session: what
// was seen there and is not in it is gone.
type Inventory struct {
	Node   string
	Shims  []Shim
	Claims []job.Claim // of other launchers
}

// Shim is one shim of an Inventory.
type Shim struct {
	ID    string
	Phase ShimPhase
}

// ShimPhase is how far a shim says it is.
type ShimPhase int

// The phases of a shim, in order.
const (
	ShimPreparing ShimPhase = iota + 1
	ShimReadyPhase
	ShimRunning
	ShimEnding
	ShimEnded // its result waits in the spool
)

// NodeClaims replaces what other launchers hold on the node.
type NodeClaims struct {
	Node   string
	Claims []job.Claim
}

// JobSubmitted is a new job. UID is random, 4 to 10 characters of a-z 0-9, never
// used before in this cluster. A job that can never run is an error of type
// *ImpossibleError; one that is wrong in itself, Validate's.
type JobSubmitted struct {
	UID    string
	Spec   job.Spec
	Unique bool // an id that another job has, whatever its case, is an *ExistsError
	Open   bool // it may have no tasks yet
}

// TasksAdded puts tasks into a job that is open. All are added or none; a task
// that can never run is an *ImpossibleError, an id that is taken an
// *ExistsError.
type TasksAdded struct {
	Job   string // uid
	Tasks []job.TaskSpec
	Later bool // what they depend on may be added later
}

// JobChanged changes what its fields are not nil for.
type JobChanged struct {
	Job      string // uid
	Priority *int
	KeepOpen *bool
	MaxTime  *time.Duration
	Retries  *int
	// MaxRunning is job.Spec's; 0: no limit.
	MaxRunning *int
	API        *json.RawMessage
}

// JobHeld disables a job, so that nothing more of it is placed, or enables it
// again. Running says what becomes of what runs.
type JobHeld struct {
	Job     string // uid
	On      bool
	Running HeldRunning
}

// HeldRunning says what becomes of the running tasks of a job that is disabled.
type HeldRunning string

// What becomes of them.
const (
	HeldWait      HeldRunning = "wait"      // they run to their end
	HeldRequeue   HeldRunning = "requeue"   // they end, and start anew when the job is enabled
	HeldTerminate HeldRunning = "terminate" // they end for good
)

// JobDeleted ends a job and forgets it, with all its history, once nothing of
// it is left on any node.
type JobDeleted struct{ Job string } // uid

// TaskChanged changes what its fields are not nil for; it concerns attempts to
// come.
type TaskChanged struct {
	Task      string // uid
	Retries   *int
	TimeLimit *time.Duration
	Retention *time.Duration
	API       *json.RawMessage
	// Spec takes the place of the rest, of a task no attempt of which runs and none
	// of whose elements has ended; its ID, Command and Range are as before. One
	// that can never run is an *ImpossibleError.
	Spec *job.TaskSpec
}

// TaskReactivated tries the failed elements of a completed task again, with all
// their retries; or one element that failed, whatever the others do.
type TaskReactivated struct {
	Task    string  // uid
	Element *uint64 // its index; nil: all
}

// TaskDeleted ends a task and forgets it once nothing of it is left.
type TaskDeleted struct{ Task string } // uid

// CancelRequested asks for the end of a job, or of one of its tasks. It is no
// error when there is nothing left to end.
type CancelRequested struct {
	Job    string // uid
	Task   string // uid; "": all
	Reason job.Reason
	Now    bool // without the kill grace
}

// ExistsError refuses an id that is taken.
type ExistsError struct{ What, ID string }

func (e *ExistsError) Error() string { return e.What + " " + e.ID + " is there already" }

// ClosedError refuses a change of a job or task whose state does not allow it.
type ClosedError struct {
	What, ID string
	State    string
	Need     string // what it would have to be
}

func (e *ClosedError) Error() string {
	return e.What + " " + e.ID + " is " + e.State + ": it would have to be " + e.Need
}

// Placed carries out placements and orders of a Decision. It is an error, and changes
// nothing, if one of them no longer fits. Random feeds the gangs' mesh keys.
type Placed struct {
	Place  []sched.Placement
	Orders []sched.Order
	Random [32]byte
}

// ShimReady is a part's answer to PhasePrepare.
type ShimReady struct {
	ID, Node string
	MeshPort uint16
	Failure  *job.Reason // set: it can't be launched
}

// LaunchPlanned is what the primary runs, or would run, as JSON.
type LaunchPlanned struct {
	ID, Node string
	Plan     json.RawMessage
}

// ShimStarted reports a part's first process.
type ShimStarted struct{ ID, Node string }

// AttemptRefused is an agent's refusal of a part. Claimed: another launcher was
// faster; the attempt is placed anew, which is no retry. Otherwise it fails for
// Failure.
type AttemptRefused struct {
	ID, Node string
	Claimed  bool
	Failure  job.Reason
}

// AttemptResult is a part's final record, for a range of single tasks perhaps
// of some of its elements only. A second one for the same elements is dropped.
type AttemptResult struct {
	ID, Node string
	Result   job.Result
}

// ShimGone reports that nothing of a part is left on its node. Without a result
// before it, the part is lost. Unread: its node may have a result and can't read
// it, so what it ran may have finished and is not run again.
type ShimGone struct {
	ID, Node string
	Why      string
	Unread   bool
}

// Decided is an event that is made when its turn comes, of the state as it is
// then: nothing can change between the look and the change. Its error is the
// event's; nil changes nothing. A client that has seen a version changes no
// other one with it.
type Decided func(*Cluster) (What, error)

func (e Decided) apply(c *Cluster, t *change) error {
	what, err := e(c)
	if err != nil || what == nil {
		return err
	}
	return what.apply(c, t)
}
