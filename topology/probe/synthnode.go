package probe

import (
	"cmp"
	"slices"

	"gangway/topology"
)

// node builds the machine.
func (s *synthetic) node() topology.Node {
	n := topology.Node{Hostname: "synthetic", Warnings: s.warnings}
	last := len(s.levels) - 1
	pus := s.levels[last].width
	os := s.levels[last].array
	if os == nil {
		os = make([]int, pus)
		for i := range os {
			os[i] = i
		}
	}
	// The sets of the objects of each level; an only child shares its parent's,
	// and PUs need none where there are cores.
	sets := make([][]topology.CPUSet, last+1)
	cores := slices.ContainsFunc(s.levels, func(l synthLevel) bool { return l.kind == "core" })
	for i, l := range s.levels {
		if i == last && cores {
			break
		}
		if i > 0 && l.arity == 1 {
			sets[i] = sets[i-1]
			continue
		}
		each := pus / l.width
		for k := range l.width {
			sets[i] = append(sets[i], topology.NewCPUSet(os[k*each:(k+1)*each]...))
		}
	}
	n.Online, n.Allowed = sets[0][0], sets[0][0]
	s.memory(&n, sets)
	near := numaOfPUs(n.NUMA)
	pkgOf := map[int]int{}
	for i, l := range s.levels {
		for k, cpus := range sets[i] {
			index := k
			if l.array != nil {
				index = l.array[k]
			}
			switch {
			case l.kind == "package":
				n.Packages = append(n.Packages, topology.Package{Index: index, CPUs: cpus})
				for _, pu := range cpus.Slice() {
					pkgOf[pu] = index
				}
			case l.kind == "cache" && l.content != 'i':
				size := cmp.Or(l.bytes, uint64(256<<10)<<(2*l.cache))
				if l.cache == 1 && l.bytes == 0 {
					size = 32 << 10
				}
				n.Caches = append(n.Caches, topology.Cache{Level: l.cache, Unified: l.content == 'u', Size: &size, CPUs: cpus})
			case l.kind == "core" || l.kind == "pu" && !cores:
				c := topology.Core{Index: index, Package: -1, NUMA: -1, PUs: cpus}
				if l.kind == "pu" {
					c.Index = cpus.First()
				}
				if p, ok := pkgOf[cpus.First()]; ok {
					c.Package = p
				}
				if d, ok := near[cpus.First()]; ok {
					c.NUMA = d
				}
				n.Cores = append(n.Cores, c)
			}
		}
	}
	s.dies(&n, sets, pkgOf)
	slices.SortStableFunc(n.Packages, func(a, b topology.Package) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortStableFunc(n.Cores, topology.CompareCores)
	slices.SortStableFunc(n.Caches, func(a, b topology.Cache) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.CPUs.First(), b.CPUs.First()))
	})
	return n
}

// dies adds the dies of packages that have several.
func (s *synthetic) dies(n *topology.Node, sets [][]topology.CPUSet, pkgOf map[int]int) {
	for i, l := range s.levels {
		if l.kind != "die" {
			continue
		}
		perPackage := l.width / max(len(n.Packages), 1)
		if perPackage < 2 {
			continue
		}
		for k, cpus := range sets[i] {
			index := k
			if l.array != nil {
				index = l.array[k]
			}
			pkg, ok := pkgOf[cpus.First()]
			if !ok {
				pkg = -1
			}
			n.Dies = append(n.Dies, topology.Die{Index: index, Package: pkg, CPUs: cpus})
		}
	}
}

// memory adds the NUMA nodes: a level of them, those in brackets, or one.
func (s *synthetic) memory(n *topology.Node, sets [][]topology.CPUSet) {
	total := uint64(0)
	add := func(index int, cpus topology.CPUSet, bytes uint64) {
		d := topology.NUMANode{Index: index, CPUs: cpus}
		if bytes > 0 {
			d.Memory = &bytes
			total += bytes
		}
		n.NUMA = append(n.NUMA, d)
	}
	for i, l := range s.levels {
		if l.kind != "numa" {
			continue
		}
		for k, cpus := range sets[i] {
			index := k
			if l.array != nil {
				index = l.array[k]
			}
			add(index, cpus, cmp.Or(l.bytes, 1<<30))
		}
	}
	if s.attached > 0 {
		deepest := 0
		for i, l := range s.levels {
			if len(l.attached) > 0 {
				deepest = i
			}
		}
		// They are numbered as a walk of the tree leaves their objects.
		next := 0
		var walk func(level, k int)
		walk = func(level, k int) {
			if level < deepest {
				each := s.levels[level+1].arity
				for c := k * each; c < (k+1)*each; c++ {
					walk(level+1, c)
				}
			}
			for _, a := range s.levels[level].attached {
				index := next
				if s.array != nil {
					index = s.array[next]
				}
				next++
				add(index, sets[level][k], a.bytes)
			}
		}
		walk(0, 0)
	}
	if len(n.NUMA) == 0 {
		add(0, n.Online, 1<<30)
	}
	slices.SortStableFunc(n.NUMA, func(a, b topology.NUMANode) int { return cmp.Compare(a.Index, b.Index) })
	if total > 0 {
		n.Memory.Total = &total
	}
}
