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
type NodeAdded struct{ Node string }

// NodeUp reports a session with the node's agent. GPUs are the indices that
// tasks may be given. The node takes work once its Inventory, which follows, is
// in: only then is it known what others hold there.
type NodeUp struct {
	Node     string
	Agent    string // the agent process's life
	Boot     string // the kernel's
	Topology topology.Node
	GPUs     []uint32
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
	Node        string
	SessionOnly bool // proof only for jobs that hold the launcher's lease
	Why         string
}

// NodeDrained starts or stops draining a node.
type NodeDrained struct {
	Node string
	On   bool
}

// NodeRemoved forgets a node; it is an error while an attempt has a part there.
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
	UID  string
	Spec job.Spec
}

// CancelRequested asks for the end of a job, or of one of its tasks. It is no
// error when there is nothing left to end.
type CancelRequested struct {
	Job    string // uid
	Task   string // uid; "": all
	Reason job.Reason
	Now    bool // without the kill grace
}

// Placed carries out placements of a Decision. It is an error, and changes
// nothing, if one of them no longer fits. Random feeds the gangs' mesh keys.
type Placed struct {
	Place  []sched.Placement
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
// before it, the part is lost.
type ShimGone struct {
	ID, Node string
	Why      string
}
