package sched

import (
	"fmt"
	"slices"

	"gangway/launcher/job"
)

// TooFewSwitches returns why a gang will never find a place on as few leaves as
// it asks for, with no end of the wait; nil if it may, or if a node is not known
// well enough to tell. The task must be resolved.
func TooFewSwitches(t job.TaskSpec, nodes []*Node, f *Fabric) *job.Reason {
	unknown := slices.ContainsFunc(nodes, func(n *Node) bool { return !n.Known })
	if f == nil || unknown || t.Switches == 0 || t.SwitchesWait > 0 || len(t.PerNode) > 0 {
		return nil
	}
	g := idle(f, &t, nodes)
	if g.place(t.Switches) != nil {
		return nil
	}
	best := g.place(0)
	if best == nil {
		return nil
	}
	least := g.leavesOf(best)
	return &job.Reason{Code: job.Impossible, Want: uint64(t.Switches), Have: uint64(least),
		Detail: fmt.Sprintf("%s can never be on at most %s: with all nodes idle it takes %d", shape(&t), leafSwitches(t.Switches), least),
		Hint:   fmt.Sprintf("ask for --switches %d, or give the wish a time: --switches %d@10m", least, t.Switches)}
}

// idle is where a gang could go if nothing else ran.
func idle(f *Fabric, t *job.TaskSpec, nodes []*Node) *ground {
	return newGround(f, t, func(i int) string { return nodes[i].Name },
		capacities(len(nodes), func(i int) *slots { return left(nodes[i], noHold) }, t, everything))
}

// hopeless are the nodes that a gang that wants one leaf switch can't use,
// because their leaf is too small for it. nil: none.
func (p *planner) hopeless(t *job.TaskSpec) map[int]bool {
	if p.fabric == nil || t.Switches != 1 || len(t.PerNode) > 0 {
		return nil
	}
	g := idle(p.fabric, t, p.nodes)
	out := map[int]bool{}
	for l, nodes := range g.nodes {
		u := *g
		u.uneven = t.RanksPerNode == 0 && t.Nodes > 0
		if g.fit([]int{l}, nil) == nil && (!u.uneven || u.fit([]int{l}, nil) == nil) {
			for _, i := range nodes {
				out[i] = true
			}
		}
	}
	return out
}

func leafSwitches(n int) string {
	if n == 1 {
		return "1 leaf switch"
	}
	return fmt.Sprintf("%d leaf switches", n)
}
