// Package bind maps the ranks of one node to its cpus. It is pure: the same
// request gives the same places.
package bind

import (
	"fmt"
	"slices"
	"strings"

	"gangway/topology"
)

// Mode says what a rank is bound to.
type Mode string

const (
	Auto   Mode = "auto"   // the best mode for the node: at present, Core
	Core   Mode = "core"   // whole cores of its own
	NUMA   Mode = "numa"   // the granted part of the NUMA node of its cores
	Socket Mode = "socket" // the granted part of the package of its cores
	GPU    Mode = "gpu"    // the cores next to its GPU
	None   Mode = "none"   // nothing
)

// ParseMode reads a mode's name; "" is Auto.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Auto, nil
	case Auto, Core, NUMA, Socket, GPU, None:
		return m, nil
	}
	return "", fmt.Errorf("binding %q: expected auto, core, numa, socket, gpu or none", s)
}

// Request asks for the places of the ranks of one node.
type Request struct {
	Node topology.Node
	// Granted are the PUs that the scheduler gave to these ranks. When
	// oversubscribed, others may have been given them too.
	Granted      topology.CPUSet
	Ranks        int
	CoresPerRank int // 0 is 1
	Mode         Mode
	// Oversubscribe lets ranks share cores when there are fewer than they ask for.
	Oversubscribe bool
}

// Place is where one rank runs.
type Place struct {
	CPUs topology.CPUSet // PUs to bind to; empty: unbound
	// MemNodes are the NUMA nodes with memory at those cpus, ascending: where
	// memory is best taken from, not the only place it may come from.
	MemNodes []int
	GPUs     []string // none yet
	// Threads is the number of cores that are the rank's share, at least 1: a
	// fitting OMP_NUM_THREADS.
	Threads int
}

// Map returns one place a rank, in rank order, which follows the order of the
// node's cores. Not oversubscribed, the ranks' cores are disjoint and lie
// within one NUMA node where that can be had (in modes numa and socket the
// sets are then widened and may meet). It fails when the granted cores are too
// few, when a granted PU is not an online PU of the node, and in mode gpu as
// long as no GPUs are known.
func Map(r Request) ([]Place, error) {
	mode, err := ParseMode(string(r.Mode))
	if err != nil {
		return nil, err
	}
	each := max(r.CoresPerRank, 1)
	host := r.Node.Hostname
	switch {
	case r.Ranks < 1:
		return nil, fmt.Errorf("bind ranks on %s: %d ranks, need at least 1", host, r.Ranks)
	case r.CoresPerRank < 0:
		return nil, fmt.Errorf("bind ranks on %s: %d cores a rank, need at least 1", host, r.CoresPerRank)
	case mode == GPU:
		return nil, fmt.Errorf("bind ranks on %s: no GPUs are known on the node; use another --bind mode", host)
	case mode == None:
		return slices.Repeat([]Place{{Threads: each}}, r.Ranks), nil
	}

	cores := r.Node.CoresWithin(r.Granted)
	var known topology.CPUSet
	for _, c := range cores {
		known = known.Union(c.PUs)
	}
	if lost := r.Granted.Minus(known); !lost.IsEmpty() {
		return nil, fmt.Errorf("bind ranks on %s: granted cpus %s are not online there; probe the node again", host, lost)
	}
	if len(cores) == 0 {
		return nil, fmt.Errorf("bind ranks on %s: no cpus were granted", host)
	}

	var blocks [][]topology.Core
	switch {
	case r.Ranks <= len(cores)/each:
		blocks = disjoint(cores, r.Ranks, each)
	case r.Oversubscribe:
		blocks = shared(cores, r.Ranks, each)
	default:
		return nil, fmt.Errorf("bind ranks on %s: %d ranks of %d cores need %d cores, %d are granted (cpus %s); use fewer ranks or --oversubscribe",
			host, r.Ranks, each, r.Ranks*each, len(cores), r.Granted)
	}
	places := make([]Place, r.Ranks)
	for i, b := range blocks {
		cpus := widen(r, mode, b)
		places[i] = Place{CPUs: cpus, MemNodes: memNodes(r.Node, cpus), Threads: len(b)}
	}
	return places, nil
}

// disjoint cuts cores into blocks of each. Filling the cores in order is what
// people expect to see; where that would put more blocks across NUMA nodes
// than needed, every NUMA node is first filled by itself.
func disjoint(cores []topology.Core, ranks, each int) [][]topology.Core {
	var inOrder [][]topology.Core
	for i := range ranks {
		inOrder = append(inOrder, cores[i*each:(i+1)*each])
	}
	byNode := perNUMA(cores, ranks, each)
	if straddling(byNode) < straddling(inOrder) {
		return byNode
	}
	return inOrder
}

func perNUMA(cores []topology.Core, ranks, each int) [][]topology.Core {
	var blocks [][]topology.Core
	var left []topology.Core
	for len(cores) > 0 {
		n := 1
		for n < len(cores) && cores[n].NUMA == cores[0].NUMA {
			n++
		}
		group := cores[:n]
		for ; len(group) >= each && len(blocks) < ranks; group = group[each:] {
			blocks = append(blocks, group[:each])
		}
		left = append(left, group...)
		cores = cores[n:]
	}
	for ; len(blocks) < ranks; left = left[each:] {
		blocks = append(blocks, left[:each])
	}
	// Ranks follow the order of the cores: neighbours in rank talk most.
	slices.SortFunc(blocks, func(a, b []topology.Core) int { return topology.CompareCores(a[0], b[0]) })
	return blocks
}

// straddling counts the blocks with cores of more than one NUMA node.
func straddling(blocks [][]topology.Core) int {
	n := 0
	for _, b := range blocks {
		if b[0].NUMA != b[len(b)-1].NUMA {
			n++
		}
	}
	return n
}

// shared spreads the ranks evenly over too few cores: neighbours share.
func shared(cores []topology.Core, ranks, each int) [][]topology.Core {
	each = min(each, len(cores))
	blocks := make([][]topology.Core, ranks)
	for i := range blocks {
		start := min(i*len(cores)/ranks, len(cores)-each)
		blocks[i] = cores[start : start+each]
	}
	return blocks
}

// widen returns the PUs of a block, and in modes numa and socket those of the
// granted PUs that share its NUMA nodes or packages.
func widen(r Request, mode Mode, block []topology.Core) topology.CPUSet {
	var cpus topology.CPUSet
	for _, c := range block {
		cpus = cpus.Union(c.PUs)
		switch mode {
		case NUMA:
			for _, n := range r.Node.NUMA {
				if n.Index == c.NUMA {
					cpus = cpus.Union(n.CPUs.Intersect(r.Granted))
				}
			}
		case Socket:
			for _, p := range r.Node.Packages {
				if p.Index == c.Package {
					cpus = cpus.Union(p.CPUs.Intersect(r.Granted))
				}
			}
		}
	}
	return cpus
}

// memNodes returns the NUMA nodes at cpus that have memory the process may use.
func memNodes(n topology.Node, cpus topology.CPUSet) []int {
	var out []int
	for _, d := range n.NUMA {
		empty := d.Memory != nil && *d.Memory == 0
		barred := !n.AllowedMems.IsEmpty() && !n.AllowedMems.Has(d.Index)
		if d.CPUs.Overlaps(cpus) && !empty && !barred {
			out = append(out, d.Index)
		}
	}
	slices.Sort(out)
	return out
}

// String describes a place in one line, as in "cpus 0-3 numa 0 threads 4".
func (p Place) String() string {
	if p.CPUs.IsEmpty() {
		return fmt.Sprintf("unbound threads %d", p.Threads)
	}
	s := "cpus " + p.CPUs.String()
	if len(p.MemNodes) > 0 {
		s += " numa " + topology.NewCPUSet(p.MemNodes...).String()
	}
	if len(p.GPUs) > 0 {
		s += " gpus " + strings.Join(p.GPUs, ",")
	}
	return s + fmt.Sprintf(" threads %d", p.Threads)
}
