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
	PhaseForget        // its result is durable, or was decided without it: then End says why
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
	JobUID    string
	User      string // whom the task runs as; "": the agent's user
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
	RankList  string     // as job.PartRow.RankList
	Total     int        // ranks of the attempt
	Address   netip.Addr // this node's, on the network that the attempt's nodes share
	Interface string
	MeshKey   []byte // 32 bytes, the attempt's

	Crew *Crew // nil: it is no crew; not to be changed

	Phase  Phase
	Peers  []Peer     // PhaseLaunch: every node of the attempt, in rank order
	End    job.Reason // PhaseEnd, and PhaseForget of what may still run
	EndNow bool       // with End: without the kill grace
}

// Crew is what a crew shall do, and what of it is known.
type Crew struct {
	Slots int
	Seq   uint64         // of Work
	Work  []job.Try      // in the order to start them
	Back  []job.Try      // what it may have beside, and shall give back unless it has begun it
	Last  bool           // nothing will follow
	Block uint64         // up to this number its blocks are committed
	Sweep *job.CrewSweep // nil: nothing varies
}

// Same reports whether a crew that was told o need not be told anything.
func (c *Crew) Same(o *Crew) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Seq == o.Seq && c.Last == o.Last && c.Block == o.Block
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
	RankList  string
	CPUs      topology.CPUSet
}

// Difference is how to get from one Desired of a node to the next.
type Difference struct {
	Set    []Part   // new ones, and those in another phase
	Remove []string // ids no longer wanted
}

// Desired returns what shall live on the node, sorted by id. A node that has
// nothing of a part wanted in PhaseEnd answers with ShimGone.
func (c *Cluster) Desired(name string) []Part {
	n, ok := c.nodes[name]
	if !ok {
		return nil
	}
	out := make([]Part, 0, len(n.live))
	for _, a := range n.live {
		i, _ := a.part(name)
		out = append(out, c.desired(a, i))
	}
	return out
}

func (c *Cluster) desired(a *attempt, i int) Part {
	p, task := &a.Parts[i], a.task
	total := 0
	for k := range a.Parts {
		total += a.Parts[k].Ranks
	}
	d := Part{
		ID: a.ID, Cluster: c.meta.Cluster, TaskUID: task.uid, Range: a.Try.Range, Attempt: a.Try.Attempt, Epoch: a.Epoch,
		Node: p.Node, JobID: task.job.row.Spec.ID, JobUID: task.job.row.UID, User: task.job.row.Spec.User, Session: task.job.row.Spec.Session, Task: a.runs(),
		NodeIndex: i, NodeCount: len(a.Parts),
		CPUs: p.CPUs, Memory: p.Memory, GPUs: p.GPUs, Shared: p.Shared,
		FirstRank: p.FirstRank, Ranks: p.Ranks, RankList: p.RankList, Total: total,
		Address: address(p), Interface: p.Interface, MeshKey: a.MeshKey,
	}
	d.Crew = a.orders()
	switch {
	case a.recorded(i):
		d.Phase = PhaseForget
		if a.End != nil && len(p.Results) == 0 { // decided without the node, which may not know
			d.End, d.EndNow = *a.End, a.EndNow
		}
	case a.End != nil:
		d.Phase, d.End, d.EndNow = PhaseEnd, *a.End, a.EndNow
	case a.launched():
		d.Phase, d.Peers = PhaseLaunch, c.peers(a)
	default:
		d.Phase = PhasePrepare
	}
	return d
}

// orders is what a crew shall do; nil for other attempts.
func (a *attempt) orders() *Crew {
	r := a.Crew
	if r == nil {
		return nil
	}
	out := &Crew{Sweep: a.task.crewSweep(), Slots: r.Slots, Seq: r.Seq, Work: r.Wanted(), Last: r.Last, Block: r.Block}
	if len(r.Back) > 0 {
		for _, t := range r.Open {
			out.Back = append(out.Back, tries{t}.within(r.Back)...)
		}
	}
	return out
}

func (c *Cluster) peers(a *attempt) []Peer {
	out := make([]Peer, len(a.Parts))
	for i := range a.Parts {
		p := &a.Parts[i]
		out[i] = Peer{Index: i, Node: p.Node, Address: address(p), Port: p.MeshPort, Interface: p.Interface,
			FirstRank: p.FirstRank, Ranks: p.Ranks, RankList: p.RankList, CPUs: p.CPUs}
		if n := c.nodes[p.Node]; n != nil && n.topo != nil {
			out[i].Hostname = n.topo.Hostname
		}
	}
	return out
}

// address is the zero Addr for a part that has none.
func address(p *job.PartRow) netip.Addr {
	a, _ := netip.ParseAddr(p.Address)
	return a
}

// Delta compares two results of Desired for the same node. What is gone from
// the node is in Remove too: removing it again does no harm.
func Delta(old, new []Part) Difference {
	var d Difference
	i := 0
	for _, p := range new {
		for i < len(old) && old[i].ID < p.ID {
			d.Remove = append(d.Remove, old[i].ID)
			i++
		}
		if i < len(old) && old[i].ID == p.ID {
			same := old[i].Phase == p.Phase && old[i].EndNow == p.EndNow && p.Crew.Same(old[i].Crew)
			i++
			if same {
				continue
			}
		}
		d.Set = append(d.Set, p)
	}
	for ; i < len(old); i++ {
		d.Remove = append(d.Remove, old[i].ID)
	}
	return d
}
