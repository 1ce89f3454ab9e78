package state

import (
	"net/netip"

	"gangway/launcher/job"
	"gangway/topology"
)

// Phase is what a node shall do with its part of an attempt.
type Phase int

// The phases a part is wanted in, in order.
const (
	PhasePrepare Phase = iota + 1
	PhaseLaunch        // Peers are set
	PhaseEnd           // End says why
	PhaseForget        // its result is durable
)

// Part is one node's part of an attempt, as Desired wants it: what a
// wire.Assignment needs from the scheduler.
type Part struct {
	ID      string // the attempt's, the same on all its nodes
	Cluster string
	TaskUID string
	Range   job.Range
	Attempt uint32
	Epoch   uint64

	Node      string
	JobID     string
	Session   bool
	Task      *job.TaskSpec // resolved; not to be changed
	NodeIndex int           // 0 is the primary
	NodeCount int
	CPUs      topology.CPUSet
	Memory    uint64 // bytes
	GPUs      []uint32
	Shared    bool
	FirstRank int
	Ranks     int        // on this node
	Total     int        // ranks of the attempt
	Address   netip.Addr // this node's, on the network that the attempt's nodes share
	Interface string
	MeshKey   []byte // 32 bytes, the attempt's

	Phase  Phase
	Peers  []Peer     // PhaseLaunch: every node of the attempt, in rank order
	End    job.Reason // PhaseEnd
	EndNow bool       // PhaseEnd: without the kill grace
}

// Peer is one node of a gang as the others reach it.
type Peer struct {
	Index     int
	Node      string
	Hostname  string
	Address   netip.Addr
	Port      uint16
	Interface string
	FirstRank int
	Ranks     int
	CPUs      topology.CPUSet
}

// Difference is how to get from one Desired of a node to the next.
type Difference struct {
	Set    []Part   // new ones, and those in another phase
	Remove []string // ids no longer wanted
}

// Delta compares two results of Desired for the same node.
func Delta(old, new []Part) Difference { return Difference{} }
