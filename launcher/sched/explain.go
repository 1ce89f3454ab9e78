package sched

import (
	"fmt"
	"slices"
	"strings"

	"gangway/launcher/job"
)

// explain says why w does not start on what is left.
func (p *planner) explain(w *Pending) job.Reason {
	t := w.Spec
	if r := Impossible(*t, p.nodes); r != nil {
		return *r
	}
	usable := func(n *Node) bool {
		return n.State == NodeUp && n.Known && !n.Draining && !(n.NoCrews && t.Crewed())
	}
	beside := func(keep func(Hold) bool, also func(i int) bool) []capacity {
		return capacities(len(p.nodes), func(i int) *slots {
			if !usable(p.nodes[i]) || !also(i) {
				return nil
			}
			return left(p.nodes[i], keep)
		}, t, everything)
	}
	any := func(int) bool { return true }
	if fit(t, p.name, beside(noHold, any)) == nil {
		return p.nodesShort(t, usable)
	}
	// What was placed in this very plan is taken too, so ask the slots.
	blocked := func(count resource) []capacity {
		return capacities(len(p.nodes), func(i int) *slots {
			if !usable(p.nodes[i]) {
				return nil
			}
			return p.at(i)
		}, t, count)
	}
	if p.head != nil && fit(t, p.name, blocked(everything)) != nil {
		return p.behind()
	}
	if fit(t, p.name, blocked(cores)) == nil {
		if fit(t, p.name, beside(ownHolds, any)) != nil && p.foreign() {
			return p.short(t, job.WaitClaimed, usable)
		}
		return p.short(t, job.WaitCores, usable)
	}
	if fit(t, p.name, blocked(cores|gpus)) == nil {
		return p.short(t, job.WaitGPUs, usable)
	}
	if fit(t, p.name, blocked(everything)) == nil && t.MemPerRank > 0 {
		return p.short(t, job.WaitMemory, usable)
	}
	return p.short(t, job.WaitCores, usable) // the rest of a range: one fits, or a node is avoided
}

func (p *planner) foreign() bool {
	return slices.ContainsFunc(p.nodes, func(n *Node) bool {
		return slices.ContainsFunc(n.Holds, func(h Hold) bool { return h.Foreign })
	})
}

// nodesShort names the nodes that would have to come up.
func (p *planner) nodesShort(t *job.TaskSpec, usable func(*Node) bool) job.Reason {
	r := job.Reason{Code: job.WaitNodes}
	for _, n := range p.nodes {
		if usable(n) {
			r.Have++
			continue
		}
		if len(t.PerNode) > 0 && !slices.ContainsFunc(t.PerNode, func(x job.NodeRanks) bool { return x.Node == n.Name }) {
			continue
		}
		what := "is " + string(n.State)
		if n.State == NodeUp {
			what = "is draining"
			if n.NoCrews && t.Crewed() && !n.Draining {
				what = "has an agent too old for arrays: it is renewed when its jobs have ended"
			}
		}
		if n.Why != "" {
			what += " (" + n.Why + ")"
		}
		r.Nodes = append(r.Nodes, job.NodeShort{Node: n.Name, Detail: what})
	}
	r.Want = uint64(max(t.Nodes, 1))
	r.Detail = fmt.Sprintf("waits for nodes: needs %s, %d up", shape(t), r.Have)
	return r
}

// short counts one resource, in all and per node.
func (p *planner) short(t *job.TaskSpec, code job.Code, usable func(*Node) bool) job.Reason {
	per := uint64(t.CoresPerRank)
	have := func(s *slots) uint64 { return uint64(len(s.free)) }
	of := func(s *slots) uint64 { return uint64(len(s.node.Cores)) }
	switch code {
	case job.WaitMemory:
		per = t.MemPerRank
		have = func(s *slots) uint64 { return s.memory }
		of = func(s *slots) uint64 { return s.node.Memory }
	case job.WaitGPUs:
		per = uint64(t.GPUsPerRank)
		have = func(s *slots) uint64 { return uint64(len(s.gpus)) }
		of = func(s *slots) uint64 { return uint64(len(s.node.GPUs)) }
	}
	r := job.Reason{Code: code, Want: uint64(t.Ranks) * per}
	all := uint64(0)
	for i, n := range p.nodes {
		if !usable(n) {
			continue
		}
		s := p.at(i)
		short := job.NodeShort{Node: n.Name, Have: have(s), Want: of(s)}
		switch {
		case len(t.PerNode) > 0:
			k := slices.IndexFunc(t.PerNode, func(x job.NodeRanks) bool { return x.Node == n.Name })
			if k < 0 {
				continue
			}
			short.Want = uint64(t.PerNode[k].Ranks) * per
		case t.RanksPerNode > 0:
			short.Want = uint64(t.RanksPerNode) * per
		}
		if t.Oversubscribe && (code == job.WaitCores || code == job.WaitClaimed) {
			short.Want = min(short.Want, of(s)) // ranks share a core only with each other
		}
		r.Have += short.Have
		all += of(s)
		if code == job.WaitClaimed {
			short.Detail = holders(n, func(h Hold) bool { return h.Foreign })
		} else if short.Have < short.Want {
			short.Detail = holders(n, everyHold)
		}
		r.Nodes = append(r.Nodes, short)
	}
	if t.Oversubscribe && (code == job.WaitCores || code == job.WaitClaimed) {
		r.Want = min(r.Want, all)
	}
	return r
}

// holders names two of those who hold something on the node.
func holders(n *Node, keep func(Hold) bool) string {
	var who []string
	more := 0
	for _, h := range n.Holds {
		if !keep(h) || slices.Contains(who, h.Who) {
			continue
		}
		if len(who) == 2 {
			more++
			continue
		}
		who = append(who, h.Who)
	}
	if len(who) == 0 {
		return ""
	}
	s := "(held by " + strings.Join(who, ", ")
	if more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s + ")"
}

// shape writes what a task asks for: "2 nodes × 4 ranks × 2 cores".
func shape(t *job.TaskSpec) string {
	var parts []string
	even := t.Kind == job.Gang && t.RanksPerNode > 0 && t.Ranks%t.RanksPerNode == 0
	if even {
		parts = append(parts, count(t.Ranks/t.RanksPerNode, "node"), count(t.RanksPerNode, "rank"))
	} else {
		parts = append(parts, count(t.Ranks, "rank"))
	}
	if t.CoresPerRank > 1 || t.Kind == job.Single {
		parts = append(parts, count(t.CoresPerRank, "core"))
	}
	if t.GPUsPerRank > 0 {
		parts = append(parts, count(t.GPUsPerRank, "GPU"))
	}
	if t.MemPerRank > 0 {
		parts = append(parts, job.Bytes(t.MemPerRank))
	}
	s := strings.Join(parts, " × ")
	switch {
	case len(t.PerNode) > 0:
		return s + ", spread as listed,"
	case t.Kind == job.Gang && !even && t.Nodes > 0:
		return s + " on " + count(t.Nodes, "node")
	case t.Kind == job.Gang && !even && t.RanksPerNode > 0:
		return s + fmt.Sprintf(", %d per node,", t.RanksPerNode)
	}
	return s
}

func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
