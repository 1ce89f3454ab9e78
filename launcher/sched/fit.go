package sched

import (
	"cmp"
	"slices"

	"gangway/launcher/job"
)

// share is a number of ranks on the node of an index.
type share struct{ node, ranks int }

// capacity is how many ranks of a task a node takes; negative: the node is out
// of the question.
type capacity struct {
	plain int // each rank with cores of its own
	most  int // on shared cores, where the task allows it
}

// fit spreads one gang, or one element of a range, over nodes, in rank order; nil
// if it does not fit. names gives the nodes' names, for tasks that name theirs.
func fit(t *job.TaskSpec, names func(int) string, caps []capacity) []share {
	switch {
	case len(t.PerNode) > 0:
		return fitNamed(t, names, caps)
	case t.Kind == job.Single:
		return fitSizes(caps, 1, 1, 0, 0)
	case t.RanksPerNode > 0:
		rest := t.Ranks % t.RanksPerNode
		return fitSizes(caps, t.RanksPerNode, t.Ranks/t.RanksPerNode, rest, min(rest, 1))
	case t.Nodes > 0:
		if s := fitEven(t, caps); s != nil {
			return s
		}
		return fitUneven(t, caps)
	}
	return fitFill(t, caps)
}

func fitNamed(t *job.TaskSpec, names func(int) string, caps []capacity) []share {
	index := make(map[string]int, len(caps))
	for i := range caps {
		index[names(i)] = i
	}
	out := make([]share, 0, len(t.PerNode))
	for _, p := range t.PerNode {
		i, ok := index[p.Node]
		if !ok || caps[i].most < p.Ranks {
			return nil
		}
		out = append(out, share{i, p.Ranks})
	}
	return out
}

// fitSizes finds nodes for a number of big shares and of small ones, the first
// that will do. Giving a node a big share whenever one is left is never wrong:
// who can take a big one can take a small one as well.
func fitSizes(caps []capacity, big, bigs, small, smalls int) []share {
	out := make([]share, 0, bigs+smalls)
	for i, c := range caps {
		switch {
		case bigs > 0 && c.most >= big:
			out = append(out, share{i, big})
			bigs--
		case smalls > 0 && c.most >= small:
			out = append(out, share{i, small})
			smalls--
		}
		if bigs+smalls == 0 {
			return out
		}
	}
	return nil
}

// fitEven gives all nodes of a gang the same number of ranks, or some one more.
func fitEven(t *job.TaskSpec, caps []capacity) []share {
	small, big := t.Ranks/t.Nodes, t.Ranks%t.Nodes
	return fitSizes(caps, small+1, big, small, t.Nodes-big)
}

// fitUneven puts a gang that does not fit evenly on the nodes that can take
// most, in the user's order, the first of them as full as can be.
func fitUneven(t *job.TaskSpec, caps []capacity) []share {
	order := make([]int, 0, len(caps))
	for i, c := range caps {
		if c.most > 0 {
			order = append(order, i)
		}
	}
	if len(order) < t.Nodes {
		return nil
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(caps[b].most, caps[a].most) })
	order = order[:t.Nodes]
	slices.Sort(order)
	out, rest := make([]share, 0, t.Nodes), t.Ranks
	for k, i := range order {
		n := min(caps[i].most, rest-(t.Nodes-1-k)) // one at least for each that follows
		out = append(out, share{i, n})
		rest -= n
	}
	if rest > 0 {
		return nil
	}
	return out
}

// fitFill takes nodes in order, as many as it needs. If the ranks must share
// cores they are dealt in rounds: a node gets as many in each as it has cores
// for, so that all are loaded alike.
func fitFill(t *job.TaskSpec, caps []capacity) []share {
	given := make([]int, len(caps))
	rest := t.Ranks
	for i, c := range caps {
		given[i] = min(max(c.plain, 0), rest)
		rest -= given[i]
	}
	// Whole rounds first: there may be a million ranks on one core.
	for rest > 0 {
		round, rounds := 0, rest
		for i, c := range caps {
			if room := c.most - given[i]; room > 0 {
				step := max(c.plain, 1)
				round += step
				rounds = min(rounds, max(1, room/step))
			}
		}
		if round == 0 {
			return nil
		}
		rounds = max(1, min(rounds, rest/round))
		for i, c := range caps {
			if room := c.most - given[i]; room > 0 {
				n := min(room, rest, rounds*max(c.plain, 1))
				given[i] += n
				rest -= n
			}
		}
	}
	out := []share{}
	for i, n := range given {
		if n > 0 {
			out = append(out, share{i, n})
		}
	}
	return out
}

// smallest is the least number of ranks that a node must take to be of use to t.
func smallest(t *job.TaskSpec) int {
	if t.RanksPerNode > 0 && t.Ranks%t.RanksPerNode == 0 {
		return t.RanksPerNode
	}
	return 1
}
