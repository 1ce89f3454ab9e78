package bind

import (
	"cmp"
	"slices"

	"gangway/topology"
)

// share cuts n things into parts as even as can be, the larger parts first.
func share(n, parts int) []int {
	out := make([]int, parts)
	for i := range out {
		out[i] = n / parts
		if i < n%parts {
			out[i]++
		}
	}
	return out
}

// chunks deals things to takers in order: neighbours stay together, earlier
// takers get what is left over; fewer things than takers are shared, likewise
// in order. No things: nil for every taker.
func chunks[T any](things []T, takers int) [][]T {
	out := make([][]T, takers)
	switch {
	case len(things) == 0:
	case len(things) >= takers:
		at := 0
		for i, n := range share(len(things), takers) {
			out[i] = things[at : at+n : at+n]
			at += n
		}
	default:
		at := 0
		for i, n := range share(takers, len(things)) {
			for range n {
				out[at] = things[i : i+1 : i+1]
				at++
			}
		}
	}
	return out
}

// deal is chunks of PUs, as sets.
func deal(pus []int, takers int) []topology.CPUSet {
	out := make([]topology.CPUSet, takers)
	for i, c := range chunks(pus, takers) {
		out[i] = topology.NewCPUSet(c...)
	}
	return out
}

// containers maps every PU to the first PU of the set it is in.
func containers(sets []topology.CPUSet) map[int]int {
	out := map[int]int{}
	for _, s := range sets {
		pus := s.Slice()
		for _, pu := range pus {
			out[pu] = pus[0]
		}
	}
	return out
}

// levels are the sets of each kind of object above the cores, outermost first.
func levels(n topology.Node) [][]topology.CPUSet {
	var packages, dies []topology.CPUSet
	for _, p := range n.Packages {
		packages = append(packages, p.CPUs)
	}
	for _, d := range n.Dies {
		dies = append(dies, d.CPUs)
	}
	byLevel := map[int][]topology.CPUSet{}
	for _, c := range n.Caches {
		byLevel[c.Level] = append(byLevel[c.Level], c.CPUs)
	}
	out := [][]topology.CPUSet{packages, dies}
	var order []int
	for level := range byLevel {
		order = append(order, level)
	}
	slices.Sort(order)
	slices.Reverse(order)
	for _, level := range order {
		out = append(out, byLevel[level])
	}
	return out
}

// inTreeOrder returns the cores with PUs in cpus, those PUs only, as a walk of
// the machine's tree meets them: package by package, NUMA node by NUMA node,
// cache by cache, each in the order of its lowest PU. It is hwloc's order, which
// the numbers of the cores need not follow.
func inTreeOrder(n topology.Node, cpus topology.CPUSet) []topology.Core {
	above := levels(n)
	var numa []topology.CPUSet
	for _, d := range n.NUMA {
		numa = append(numa, d.CPUs)
	}
	above = slices.Insert(above, 1, numa)
	var maps []map[int]int
	for _, sets := range above {
		maps = append(maps, containers(sets))
	}
	type placed struct {
		core topology.Core
		key  []int
	}
	var all []placed
	for _, c := range n.Cores {
		first := c.PUs.First()
		if c.PUs = c.PUs.Intersect(cpus); c.PUs.IsEmpty() {
			continue
		}
		p := placed{core: c}
		for _, m := range maps {
			at, ok := m[first]
			if !ok {
				at = first
			}
			p.key = append(p.key, at)
		}
		p.key = append(p.key, first)
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(slices.Compare(a.key, b.key), topology.CompareCores(a.core, b.core))
	})
	out := make([]topology.Core, len(all))
	for i, p := range all {
		out[i] = p.core
	}
	return out
}

// domain is a NUMA node as far as it was granted.
type domain struct {
	cpus  topology.CPUSet
	cores []topology.Core // in tree order
}

// domains cuts granted cpus by NUMA nodes, in tree order. Of nodes with the same
// cpus (the fast and the slow memory of Knights Landing, a GPU's memory beside
// its CPU's) the lowest counts, or ranks of one would sit on those of the other;
// nodes without cpus hold no ranks. What is in no node is a domain of its own.
func domains(n topology.Node, granted, mems topology.CPUSet) []domain {
	nodes := slices.Clone(n.NUMA)
	slices.SortStableFunc(nodes, func(a, b topology.NUMANode) int { return cmp.Compare(a.Index, b.Index) })
	var taken topology.CPUSet
	var sets []topology.CPUSet
	for _, d := range nodes {
		cpus := d.CPUs.Intersect(granted)
		if cpus.IsEmpty() || taken.Overlaps(cpus) || !mems.IsEmpty() && !mems.Has(d.Index) {
			continue
		}
		taken = taken.Union(cpus)
		sets = append(sets, cpus)
	}
	if rest := granted.Minus(taken); !rest.IsEmpty() {
		sets = append(sets, rest)
	}
	// Cores in tree order tell the order of the domains too.
	out := make([]domain, len(sets))
	of := map[int]int{}
	for i, s := range sets {
		out[i].cpus = s
		for _, pu := range s.Slice() {
			of[pu] = i
		}
	}
	var order []int
	for _, c := range inTreeOrder(n, granted) {
		i := of[c.PUs.First()]
		if len(out[i].cores) == 0 {
			order = append(order, i)
		}
		c.PUs = c.PUs.Intersect(out[i].cpus)
		out[i].cores = append(out[i].cores, c)
	}
	sorted := make([]domain, len(order))
	for i, at := range order {
		sorted[i] = out[at]
	}
	return sorted
}
