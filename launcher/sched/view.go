// Package sched decides which pending work starts where. Plan is a pure
// function of the time, what is known of the nodes and what waits: the same
// input gives the same decision, and it says why the rest waits.
//
// A slot is a whole core with all its PUs. A gang gets all its slots at once or
// none. An array of single tasks is run by crews, one a placement, which are given
// elements ahead of their rate. Order is
// priority, then submission; nothing that could delay a waiting task starts
// before it.
package sched

import (
	"time"

	"gangway/launcher/job"
	"gangway/topology"
)

// NodeState is what the launcher knows of a node.
type NodeState string

// The states of a node.
const (
	NodeConnecting NodeState = "connecting" // no session yet, or again
	NodeUp         NodeState = "up"
	NodeLost       NodeState = "lost" // given up until it comes back
)

// Node is a node as the scheduler sees it.
type Node struct {
	Name     string
	State    NodeState
	Draining bool              // finishes what it has, takes nothing new
	Why      string            // not up: what is known, for people
	NoCrews  bool              // its agent is too old to run arrays
	Known    bool              // its topology is known; Cores, Memory and GPUs mean something
	Cores    []topology.CPUSet // the usable cores, each with its PUs, in binding order
	Memory   uint64            // bytes that tasks may have; 0: unknown and not counted
	GPUs     []uint32
	Holds    []Hold // what is taken, in a fixed order
}

// Hold is what one attempt has on a node.
type Hold struct {
	ID      string // attempt, or claim of another launcher
	Who     string // for people
	Foreign bool   // another launcher's
	CPUs    topology.CPUSet
	Memory  uint64 // bytes
	GPUs    []uint32
	Shared  bool // foreign and own shared holds may have the same cores; two own ones may not
}

// Pending is a run of elements of one task that wait for a place; of an array
// that crews run, all of them.
type Pending struct {
	Task string        // uid
	Job  string        // its job's uid
	Name string        // for people: job/task
	Spec *job.TaskSpec // resolved
	// At gives the resolved specification of an element, where each is placed by
	// itself; Spec is the first one's then. nil: all are as Spec.
	At       func(index uint64) *job.TaskSpec
	Priority int
	Since    time.Time // when the task was submitted
	Try      job.Try
	Tries    []job.Try // of an array that crews run: all that waits, by index; Try is the first. None: Try alone
}

// View is all that Plan looks at.
type View struct {
	Nodes   []*Node   // in the user's order, which is the order of ranks
	Fabric  *Fabric   // the network between the nodes; nil: not known, all are as near
	Pending []Pending // by priority, highest first, then submission, then index
	Crews   []Crew    // of tasks that may run, in the order of Pending; those that are wound down are not among them
	// Room is how many tasks and elements of a job may still start, by its uid;
	// jobs that are not in it have no limit.
	Room map[string]Room
}

// Room is a job's limit on what of it runs at once.
type Room struct{ Most, Left int }

// Policy holds the scheduler's choices. The zero value is the default: priority,
// then submission, no backfill.
type Policy struct{}

// Placement gives a run of elements their slots.
type Placement struct {
	Task  string // uid
	Try   job.Try
	Parts []Part    // in rank order; a single task or a range of them has one
	Slots int       // of a crew: elements at once; 0: it is none
	Tries []job.Try // of a crew: all that it is given, in the order to start them; Try is the first
}

// Part is one node's share of a Placement.
type Part struct {
	Node      string
	FirstRank int
	Ranks     int             // of a gang; 1 for each element of a range
	CPUs      topology.CPUSet // PUs of whole cores
	Memory    uint64          // bytes; 0: not limited
	GPUs      []uint32
	Shared    bool // oversubscribed: fewer cores than asked, or held with others' shared
}

// Waiting says why a run of elements waits.
type Waiting struct {
	Task   string // uid
	Range  job.Range
	Reason job.Reason
}

// Decision is what Plan decided.
type Decision struct {
	Place   []Placement
	Orders  []Order   // to crews
	Waiting []Waiting // in the order of View.Pending
	WakeAt  time.Time // plan again then, though nothing else changes; zero: no need
}
