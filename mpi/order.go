package mpi

import (
	"fmt"
	"slices"
	"strings"

	"gangway/topology"
)

// checkOrder refuses an order that does not give every node as many ranks as it
// has.
func (l Layout) checkOrder() error {
	if l.Order == nil {
		return nil
	}
	left := make([]int, len(l.Nodes))
	for i, n := range l.Nodes {
		left[i] = n.Ranks
	}
	for rank, i := range l.Order {
		if i < 0 || i >= len(left) || left[i] == 0 {
			return fmt.Errorf("rank %d of the gang is on node %d, which does not have it", rank, i)
		}
		left[i]--
	}
	if len(l.Order) != l.Ranks() {
		return fmt.Errorf("%d of the gang's %d ranks have a node", len(l.Order), l.Ranks())
	}
	return nil
}

// blockwise reports whether ranks follow each other node by node, in the nodes'
// order: what every launcher does with a hostfile by itself.
func (l Layout) blockwise() bool { return slices.IsSorted(l.Order) }

// inTurn reports whether rank r is on node r modulo the number of nodes.
func (l Layout) inTurn() bool {
	for r, i := range l.Order {
		if i != r%len(l.Nodes) {
			return false
		}
	}
	return true
}

// inRounds reports whether the ranks are dealt in rounds, as counts allow.
func (l Layout) inRounds() bool {
	counts := make([]int, len(l.Nodes))
	for i, n := range l.Nodes {
		counts[i] = n.Ranks
	}
	for i, ranks := range topology.DealRanks(counts) {
		for _, r := range ranks {
			if l.Order[r] != i {
				return false
			}
		}
	}
	return true
}

// runs is a hostfile with one line for ranks that follow each other on a node.
// Intel's Hydra takes lines of one host for one host. MPICH's starts a proxy for
// each line, whose ranks don't see those of another as neighbours: everything
// runs, but not through shared memory.
func (l Layout) runs(line func(string, int) string) string {
	var b strings.Builder
	for r := 0; r < len(l.Order); {
		n := 1
		for r+n < len(l.Order) && l.Order[r+n] == l.Order[r] {
			n++
		}
		b.WriteString(line(l.hostName(l.Order[r]), n) + "\n")
		r += n
	}
	return b.String()
}

// hydraOrder is the hostfile and what else MPICH's and Intel's Hydra need to
// give the ranks the layout's order. MPICH deals them in turn when told -ppn 1,
// without regard to the counts of the hostfile; with the same option Intel's
// keeps to the blocks.
func (out *Launch) hydraOrder(f Facts, l Layout) {
	switch {
	case l.blockwise():
	case f.Launcher.Flavour == MPICH && l.inTurn():
		out.Argv = append(out.Argv, "-ppn", "1")
	default:
		out.Files[0].Content = l.runs(hydraLine)
	}
}

// ompiOrder returns the mapping policy for the layout's order. PRRTE's sequential
// mapper takes the hostfile's lines one by one, whatever their counts, and knows
// lines of one host for one host. ORTE's does not find the primary by its
// address; its mapping by node leaves out nodes whose slots are used up, as
// dealing in rounds does.
func (out *Launch) ompiOrder(f Facts, l Layout) string {
	switch {
	case l.blockwise():
		return "slot"
	case f.Launcher.Version.Major < 5 && l.inRounds():
		return "node"
	}
	out.Files[0].Content = l.runs(nodefileLine)
	return "seq"
}

// msmpiOrder: how MS-MPI takes repeated hosts is not known to us.
func (l Layout) msmpiOrder() error {
	if l.blockwise() {
		return nil
	}
	return fmt.Errorf("ranks are dealt to the nodes in rounds, which MS-MPI's mpiexec was never seen to do: leave the distribution at block")
}
