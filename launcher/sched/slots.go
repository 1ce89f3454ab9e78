package sched

import (
	"math"
	"slices"

	"gangway/launcher/job"
	"gangway/topology"
)

// slots is what a node has left while a plan is made.
type slots struct {
	node    *Node
	free    []topology.CPUSet // cores that nobody has, in binding order
	soft    []topology.CPUSet // cores that only foreign shared holds have
	memory  uint64            // bytes left; meaningless if the node's is unknown
	gpus    []uint32
	blocked bool // a task further ahead waits for this node
	blocker int  // that task's index in Pending
}

// left returns what the node has beside the holds that keep counts.
func left(n *Node, keep func(Hold) bool) *slots {
	s := &slots{node: n, memory: n.Memory}
	var hard, shared topology.CPUSet
	var gpus []uint32
	for _, h := range n.Holds {
		if !keep(h) {
			continue
		}
		if h.Foreign && h.Shared {
			shared = shared.Union(h.CPUs)
		} else {
			hard = hard.Union(h.CPUs)
		}
		s.memory -= min(s.memory, h.Memory)
		gpus = append(gpus, h.GPUs...)
	}
	if hard.IsEmpty() && shared.IsEmpty() { // as of most nodes: share the list
		s.free = n.Cores[:len(n.Cores):len(n.Cores)]
	}
	for _, core := range n.Cores[len(s.free):] {
		switch {
		case core.Overlaps(hard):
		case core.Overlaps(shared):
			s.soft = append(s.soft, core)
		default:
			s.free = append(s.free, core)
		}
	}
	for _, g := range n.GPUs {
		if !slices.Contains(gpus, g) {
			s.gpus = append(s.gpus, g)
		}
	}
	return s
}

func everyHold(Hold) bool  { return true }
func ownHolds(h Hold) bool { return !h.Foreign }
func noHold(Hold) bool     { return false }

// resource is a set of what a capacity takes into account.
type resource int

const (
	cores resource = 1 << iota
	gpus
	memory
	everything = cores | gpus | memory
)

// plain is how many ranks of t fit, each with cores of its own.
func (s *slots) plain(t *job.TaskSpec, count resource) int {
	n := math.MaxInt32
	if count&cores != 0 {
		have := len(s.free)
		if t.Oversubscribe {
			have += len(s.soft)
		}
		n = have / t.CoresPerRank
	}
	if count&gpus != 0 && t.GPUsPerRank > 0 {
		n = min(n, len(s.gpus)/t.GPUsPerRank)
	}
	if count&memory != 0 && t.MemPerRank > 0 && s.node.Memory > 0 {
		n = int(min(uint64(n), s.memory/t.MemPerRank))
	}
	return n
}

// most is how many ranks of t fit, on shared cores if t allows that: ranks
// share only a node that has all its cores left for them.
func (s *slots) most(t *job.TaskSpec, count resource) int {
	have := len(s.free) + len(s.soft)
	if t.Oversubscribe && have > 0 && have == len(s.node.Cores) {
		n := s.plain(t, count&^cores)
		switch {
		case t.Kind != job.Single:
		case t.AtOnce > 0:
			n = min(n, t.AtOnce)
		default: // elements share a core only with themselves
			n = min(n, max(1, have/t.CoresPerRank))
		}
		return n
	}
	return s.plain(t, count)
}

// take gives n ranks, or elements, of t their share and keeps it from others.
func (s *slots) take(t *job.TaskSpec, n int) Part {
	p := Part{Node: s.node.Name, Ranks: n, Memory: uint64(n) * t.MemPerRank, Shared: t.Oversubscribe}
	want := n * t.CoresPerRank
	if t.Oversubscribe {
		want = min(want, len(s.node.Cores))
	}
	// A core that no one has comes before one that another launcher shares.
	own := min(want, len(s.free))
	for _, c := range s.free[:own] {
		p.CPUs = p.CPUs.Union(c)
	}
	for _, c := range s.soft[:want-own] {
		p.CPUs = p.CPUs.Union(c)
	}
	s.free, s.soft = s.free[own:], s.soft[want-own:]
	s.memory -= min(s.memory, p.Memory)
	if g := n * t.GPUsPerRank; g > 0 {
		p.GPUs = slices.Clone(s.gpus[:g])
		s.gpus = s.gpus[g:]
	}
	return p
}
