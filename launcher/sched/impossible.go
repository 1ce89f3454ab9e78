package sched

import (
	"fmt"
	"slices"
	"strings"

	"gangway/launcher/job"
)

// Impossible returns why the task can't run on the nodes even when they are
// idle, with the largest shape that could; nil if it can, or if a node is not
// known well enough to tell. The task must be resolved.
func Impossible(t job.TaskSpec, nodes []*Node) *job.Reason {
	if len(nodes) == 0 { // some may be added yet
		return nil
	}
	name := func(i int) string { return nodes[i].Name }
	for _, p := range t.PerNode {
		if !slices.ContainsFunc(nodes, func(n *Node) bool { return n.Name == p.Node }) {
			return &job.Reason{Code: job.Impossible, Detail: "there is no node named " + p.Node,
				Hint: "the nodes are " + named(nodes)}
		}
	}
	if t.Nodes > len(nodes) {
		return &job.Reason{Code: job.Impossible, Want: uint64(t.Nodes), Have: uint64(len(nodes)),
			Detail: fmt.Sprintf("needs %s, but there are %d in all", count(t.Nodes, "node"), len(nodes)),
			Hint:   "ask for at most " + count(len(nodes), "node")}
	}
	if slices.ContainsFunc(nodes, func(n *Node) bool { return !n.Known }) {
		return nil
	}
	if t.Kind == job.Single && len(t.PerNode) == 0 { // the first node that can is enough, of thousands
		for _, n := range nodes {
			if left(n, noHold).most(&t, everything) > 0 {
				return nil
			}
		}
	}
	idle := make([]*slots, len(nodes))
	for i, n := range nodes {
		idle[i] = left(n, noHold)
	}
	at := func(i int) *slots { return idle[i] }
	if fit(&t, name, capacities(len(nodes), at, &t, everything)) != nil {
		return nil
	}
	r := &job.Reason{Code: job.Impossible, Want: uint64(t.Ranks) * uint64(t.CoresPerRank)}
	shared := t
	shared.Oversubscribe = true
	caps := capacities(len(nodes), at, &t, everything)
	var hints []string
	if best := largest(&t, caps); best != "" {
		hints = append(hints, "the largest that fits is "+best)
	}
	if fit(&shared, name, capacities(len(nodes), at, &shared, everything)) != nil {
		hints = append(hints, "add --oversubscribe to share cores")
	}
	for i, s := range idle {
		r.Have += uint64(len(s.node.Cores))
		if lack := lacks(&t, s, caps[i], r); lack != "" {
			r.Nodes = append(r.Nodes, job.NodeShort{Node: s.node.Name, Detail: lack})
		}
	}
	r.Detail = shape(&t) + " can never fit"
	r.Hint = strings.Join(hints, "; ")
	return r
}

// lacks says what an idle node has of what the task wants there.
func lacks(t *job.TaskSpec, s *slots, c capacity, r *job.Reason) string {
	want := 1
	switch k := slices.IndexFunc(t.PerNode, func(p job.NodeRanks) bool { return p.Node == s.node.Name }); {
	case k >= 0:
		want = t.PerNode[k].Ranks
	case len(t.PerNode) > 0:
		return ""
	case t.RanksPerNode > 0:
		want = t.RanksPerNode
	case t.Kind == job.Gang:
		want = t.Ranks // whatever it has is of interest
	}
	if c.most >= want {
		return ""
	}
	parts := []string{count(len(s.node.Cores), "core")}
	if t.GPUsPerRank > 0 {
		parts = append(parts, count(len(s.node.GPUs), "GPU"))
	}
	if t.MemPerRank > 0 && s.node.Memory > 0 {
		parts = append(parts, job.Bytes(s.node.Memory))
	}
	return "has " + strings.Join(parts, ", ")
}

// largest is the biggest gang of the task's kind that fits on idle nodes: no
// more nodes, and no more ranks on each, than were asked for. "": none.
func largest(t *job.TaskSpec, caps []capacity) string {
	most := make([]int, 0, len(caps))
	sum := 0
	for _, c := range caps {
		if c.most > 0 {
			most = append(most, c.most)
			sum += c.most
		}
	}
	slices.Sort(most)
	slices.Reverse(most)
	switch {
	case len(most) == 0 || t.Kind == job.Single || len(t.PerNode) > 0:
		return ""
	case t.RanksPerNode > 0:
		nodes, ranks := 0, 0
		for i, m := range most {
			k, p := i+1, min(m, t.RanksPerNode) // k nodes take p ranks each
			if t.Nodes > 0 && k > t.Nodes {
				break
			}
			if k*p > nodes*ranks {
				nodes, ranks = k, p
			}
		}
		return count(nodes, "node") + " × " + count(ranks, "rank")
	case t.Nodes > 0:
		sum = 0
		most = most[:min(len(most), t.Nodes)]
		for _, m := range most {
			sum += m
		}
	}
	return count(min(sum, t.Ranks), "rank") + " on " + count(len(most), "node")
}

func named(nodes []*Node) string {
	names := make([]string, 0, 8)
	for i, n := range nodes {
		if i == 8 {
			return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", len(nodes)-i)
		}
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}
