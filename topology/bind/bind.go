// Package bind maps the ranks of one node to its cpus, GPUs and HCAs. It is pure: the same
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
	Auto   Mode = "auto"   // what suits the node: memory first, as mpibind does
	Core   Mode = "core"   // whole cores of its own
	NUMA   Mode = "numa"   // the granted part of the NUMA node of its cores
	Socket Mode = "socket" // the granted part of the package of its cores
	GPU    Mode = "gpu"    // its GPUs, and the cores nearest to them
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

// Optimize says what decides how many ranks a NUMA node gets in mode auto.
type Optimize string

const (
	ByGPU Optimize = "gpu" // the GPUs near it; where there are none, its PUs
	ByCPU Optimize = "cpu" // its PUs
)

// ParseOptimize reads what to optimise for; "" is ByGPU.
func ParseOptimize(s string) (Optimize, error) {
	switch o := Optimize(s); o {
	case "":
		return ByGPU, nil
	case ByGPU, ByCPU:
		return o, nil
	}
	return "", fmt.Errorf("optimize %q: expected gpu or cpu", s)
}

// Request asks for the places of the ranks of one node.
type Request struct {
	Node topology.Node
	// Granted are the PUs that the scheduler gave to these ranks. When
	// oversubscribed, others may have been given them too.
	Granted topology.CPUSet
	// Mems narrows Granted to the PUs of these NUMA nodes; empty: all.
	Mems  topology.CPUSet
	Ranks int
	// CoresPerRank are whole cores for each rank. 0: in mode auto and gpu as
	// many as there are for it, else 1.
	CoresPerRank int
	Mode         Mode
	// Oversubscribe lets ranks share cores, and GPUs, when there are fewer
	// than they ask for.
	Oversubscribe bool

	// Threads a rank; 0: unset, a thread a core of the rank's.
	Threads int
	// SMT is the number of PUs to use of each core, at most what the cores
	// have; 0: unset, in mode auto 1, or more where threads need them; in the
	// other modes all.
	SMT      int
	Optimize Optimize // "" is ByGPU
	// NoGreedy keeps a rank of mode auto within one NUMA node when there are
	// fewer ranks than NUMA nodes.
	NoGreedy bool

	GPUs        []int // granted GPUs, as GPU.Index; nil: all of the node
	GPUsPerRank int   // 0: mode gpu one, shared when scarce; mode auto as they fall to the ranks
}

// Place is where one rank runs.
type Place struct {
	CPUs topology.CPUSet // PUs to bind to; empty: unbound
	// MemNodes are the NUMA nodes with memory at those cpus, ascending: where
	// memory is best taken from, not the only place it may come from.
	MemNodes []int
	// GPUs are the rank's: GPU.Index in decimal, or the UUID of a MIG instance.
	GPUs []string
	// NICs are the HCAs with an active port nearest to the rank's GPUs, or to
	// its cpus where it has none, nearest first, at most one a GPU.
	NICs []string
	// Threads is the number of threads that are the rank's share, at least 1: a
	// fitting OMP_NUM_THREADS.
	Threads int
}

// Map returns one place a rank, in rank order, which follows the order of the
// node's cores.
//
// In mode auto it is the map of LLNL's mpibind within the granted cpus: fewer
// ranks than NUMA nodes divide the whole grant (unless NoGreedy), otherwise a
// rank stays in one NUMA node and gets one PU each of the largest objects that
// there are enough of; without CoresPerRank more ranks than PUs share them.
// Where that would leave a rank without the cores it asked for, it is mode core.
// In mode core ranks have whole cores, within one NUMA node where that can be
// had; in numa and socket the sets are then widened and may meet. In mode gpu,
// and in auto with GPUsPerRank, a rank gets its GPUs first and then the free
// cores nearest to them. Not oversubscribed, ranks that asked for cores have them
// to themselves, and GPUs asked for by number likewise.
//
// It fails when the granted cores or GPUs are too few, when a granted PU is not
// an online PU of the node, and when the node has no cores of SMT PUs.
func Map(r Request) ([]Place, error) {
	mode, err := check(r)
	if err != nil {
		return nil, err
	}
	granted, err := grant(r, mode)
	if err != nil {
		return nil, err
	}
	gpus, err := units(r, granted)
	if err != nil {
		return nil, err
	}
	var places []Place
	switch {
	case mode == None:
		places = slices.Repeat([]Place{{Threads: max(r.Threads, r.CoresPerRank, 1)}}, r.Ranks)
	case mode == GPU || mode == Auto && r.GPUsPerRank > 0:
		if places, err = gpuFirst(r, granted, gpus); err != nil {
			return nil, err
		}
	case mode == Auto:
		places, err = auto(r, granted, gpus)
	default:
		places, err = byCores(r, mode, granted)
	}
	if err != nil {
		return nil, err
	}
	for i := range places {
		places[i].MemNodes = memNodes(r.Node, r.Mems, places[i].CPUs)
	}
	if places[0].GPUs == nil && (mode != None || r.GPUsPerRank > 0) && mode != Auto {
		if err := nearUnits(r, places, gpus); err != nil {
			return nil, err
		}
	}
	chooseNICs(r.Node, places)
	return places, nil
}

// check refuses what can't be mapped whatever the grant.
func check(r Request) (Mode, error) {
	mode, err := ParseMode(string(r.Mode))
	if err != nil {
		return "", err
	}
	if _, err := ParseOptimize(string(r.Optimize)); err != nil {
		return "", err
	}
	host := r.Node.Hostname
	switch {
	case r.Ranks < 1:
		return "", fmt.Errorf("bind ranks on %s: %d ranks, need at least 1", host, r.Ranks)
	case r.CoresPerRank < 0:
		return "", fmt.Errorf("bind ranks on %s: %d cores a rank, need at least 1", host, r.CoresPerRank)
	case r.Threads < 0:
		return "", fmt.Errorf("bind ranks on %s: %d threads a rank, need at least 1", host, r.Threads)
	case r.GPUsPerRank < 0:
		return "", fmt.Errorf("bind ranks on %s: %d GPUs a rank, need at least 1", host, r.GPUsPerRank)
	}
	width := 1
	for _, c := range r.Node.Cores {
		width = max(width, c.PUs.Count())
	}
	if r.SMT < 0 || r.SMT > width {
		return "", fmt.Errorf("bind ranks on %s: %d PUs a core, the cores have 1 to %d", host, r.SMT, width)
	}
	return mode, nil
}

// grant returns the granted PUs, those of Mems only.
func grant(r Request, mode Mode) (topology.CPUSet, error) {
	host, granted := r.Node.Hostname, r.Granted
	if mode != None {
		var known topology.CPUSet
		for _, c := range r.Node.CoresWithin(granted) {
			known = known.Union(c.PUs)
		}
		if lost := granted.Minus(known); !lost.IsEmpty() {
			return granted, fmt.Errorf("bind ranks on %s: granted cpus %s are not online there; probe the node again", host, lost)
		}
	}
	if !r.Mems.IsEmpty() {
		var near topology.CPUSet
		for _, d := range r.Node.NUMA {
			if r.Mems.Has(d.Index) {
				near = near.Union(d.CPUs)
			}
		}
		granted = granted.Intersect(near)
	}
	if granted.IsEmpty() && mode != None {
		if !r.Granted.IsEmpty() {
			return granted, fmt.Errorf("bind ranks on %s: none of the granted cpus %s is near the NUMA nodes %s", host, r.Granted, r.Mems)
		}
		return granted, fmt.Errorf("bind ranks on %s: no cpus were granted", host)
	}
	return granted, nil
}

func tooFew(r Request, cores int) error {
	each := max(r.CoresPerRank, 1)
	return fmt.Errorf("bind ranks on %s: %d ranks of %d cores need %d cores, %d are granted (cpus %s); use fewer ranks or --oversubscribe",
		r.Node.Hostname, r.Ranks, each, r.Ranks*each, cores, r.Granted)
}

// auto is mpibind, as long as it gives every rank the cores it asked for.
func auto(r Request, granted topology.CPUSet, gpus []unit) ([]Place, error) {
	each := r.CoresPerRank
	threads := r.Threads
	if threads == 0 {
		threads = each
	}
	fits := each == 0 || r.Ranks <= len(r.Node.CoresWithin(granted))/each
	if !fits && !r.Oversubscribe {
		return nil, tooFew(r, len(r.Node.CoresWithin(granted)))
	}
	places := mpibind(r, granted, threads, gpus)
	if each == 0 {
		return places, nil
	}
	var used topology.CPUSet
	for i := range places {
		cores := r.Node.CoresWithin(places[i].CPUs)
		if fits && (len(cores) < each || used.Overlaps(wholeCores(cores, r.Node))) {
			blocks, err := byCores(r, Core, granted)
			if err != nil {
				return nil, err
			}
			return blocks, nearUnits(r, blocks, gpus)
		}
		used = used.Union(wholeCores(cores, r.Node))
		places[i].Threads = threads
		if r.Threads == 0 { // the cores were asked for, the threads follow
			places[i].Threads = min(threads, places[i].CPUs.Count())
		}
	}
	return places, nil
}

// wholeCores returns all PUs of the cores that cores are a part of.
func wholeCores(cores []topology.Core, n topology.Node) topology.CPUSet {
	var part, out topology.CPUSet
	for _, c := range cores {
		part = part.Union(c.PUs)
	}
	for _, c := range n.Cores {
		if c.PUs.Overlaps(part) {
			out = out.Union(c.PUs)
		}
	}
	return out
}

// byCores is the modes core, numa and socket.
func byCores(r Request, mode Mode, granted topology.CPUSet) ([]Place, error) {
	cores := r.Node.CoresWithin(granted)
	each := max(r.CoresPerRank, 1)
	var blocks [][]topology.Core
	switch {
	case r.Ranks <= len(cores)/each:
		blocks = disjoint(cores, r.Ranks, each)
	case r.Oversubscribe:
		blocks = shared(cores, r.Ranks, each)
	default:
		return nil, tooFew(r, len(cores))
	}
	places := make([]Place, r.Ranks)
	for i, b := range blocks {
		places[i] = fromCores(r, b)
		if mode != Core {
			places[i].CPUs = widen(r.Node, granted, mode, b)
		}
	}
	return places, nil
}

// fromCores is the place of a rank that has cores.
func fromCores(r Request, cores []topology.Core) Place {
	p := Place{Threads: r.Threads}
	var pus []int
	for _, c := range cores {
		all := c.PUs.Slice()
		if r.SMT > 0 {
			all = all[:min(r.SMT, len(all))]
		}
		pus = append(pus, all...)
	}
	p.CPUs = topology.NewCPUSet(pus...)
	if p.Threads == 0 {
		p.Threads = max(len(cores), 1)
		if r.SMT > 1 {
			p.Threads = p.CPUs.Count()
		}
	}
	return p
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

// widen returns the granted PUs that share the NUMA nodes, or packages, of a
// block of cores.
func widen(n topology.Node, granted topology.CPUSet, mode Mode, block []topology.Core) topology.CPUSet {
	var cpus topology.CPUSet
	for _, c := range block {
		cpus = cpus.Union(c.PUs)
		switch mode {
		case NUMA:
			for _, d := range n.NUMA {
				if d.Index == c.NUMA {
					cpus = cpus.Union(d.CPUs.Intersect(granted))
				}
			}
		case Socket:
			for _, p := range n.Packages {
				if p.Index == c.Package {
					cpus = cpus.Union(p.CPUs.Intersect(granted))
				}
			}
		}
	}
	return cpus
}

// memNodes returns the NUMA nodes at cpus that have memory the process may use,
// of mems only if there are any.
func memNodes(n topology.Node, mems, cpus topology.CPUSet) []int {
	var out []int
	for _, d := range n.NUMA {
		empty := d.Memory != nil && *d.Memory == 0
		barred := !n.AllowedMems.IsEmpty() && !n.AllowedMems.Has(d.Index) || !mems.IsEmpty() && !mems.Has(d.Index)
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
	if len(p.NICs) > 0 {
		s += " nics " + strings.Join(p.NICs, ",")
	}
	return s + fmt.Sprintf(" threads %d", p.Threads)
}
