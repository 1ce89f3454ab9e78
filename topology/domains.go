package topology

import (
	"slices"
	"strconv"
	"strings"
)

// Domains is the fabric as sets of hosts that are near each other. The top is
// everything; a domain without children is a leaf set: hosts whose ports go to
// the same leaves. A host some of whose ports are missing counts to the one
// larger set that has all its leaves. Above them stands what the switches of
// each level connect, as far as that is more than the level below; where the
// file states a tree, its switches; where it states blocks, the aggregates that
// the sizes form. Hosts without a port, or in no block where there are blocks,
// are in no domain. A fabric of one leaf
// set is that; one without any is the zero Domain.
func (f Fabric) Domains() Domain {
	switch {
	case len(f.Blocks) > 0:
		return f.blockDomains()
	case slices.ContainsFunc(f.Switches, func(s Switch) bool { return s.Parent != "" }):
		return f.treeDomains()
	}
	return f.linkDomains()
}

// top is everything, of domains in any order.
func top(all []Domain) Domain {
	switch len(all) {
	case 0:
		return Domain{}
	case 1:
		return all[0]
	}
	return parent("", all)
}

func parent(name string, children []Domain) Domain {
	d := Domain{Name: name, Children: children}
	for _, c := range children {
		d.Level = max(d.Level, c.Level+1)
	}
	slices.SortStableFunc(d.Children, func(a, b Domain) int { return CompareNatural(a.Name, b.Name) })
	return d
}

func (f Fabric) blockDomains() Domain {
	var all []Domain
	for _, b := range f.Blocks {
		if len(b.Hosts) > 0 {
			all = append(all, Domain{Name: b.Name, Hosts: slices.Clone(b.Hosts)})
		}
	}
	// Aggregates are runs of consecutive blocks, as many as their size holds.
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = d.Name
	}
	run := 1
	for i := 1; i < len(f.BlockSizes) && len(all) > 1 && f.BlockSizes[0] > 0; i++ {
		per := f.BlockSizes[i] / f.BlockSizes[0]
		if per <= run || per%run != 0 {
			continue
		}
		var up []Domain
		for k := 0; k < len(all); k += per / run {
			some := all[k:min(k+per/run, len(all))]
			if len(some) == 1 {
				up = append(up, some[0])
				continue
			}
			d := parent("", slices.Clone(some))
			d.Name = foldNames(names[k*run : min(k*run+per, len(names))])
			up = append(up, d)
		}
		all, run = up, per
	}
	return top(all)
}

// treeDomains follows the parents that the file states.
func (f Fabric) treeDomains() Domain {
	at := f.switchIndex()
	hosts := make([][]string, len(f.Switches))
	for _, h := range f.Hosts {
		for _, p := range h.Ports {
			if i, ok := at[p.Switch]; ok { // a tree has one place for a host
				hosts[i] = append(hosts[i], h.Name)
				break
			}
		}
	}
	// Children are finished before parents: count down what is missing.
	waits := make([]int, len(f.Switches))
	for _, s := range f.Switches {
		if j, ok := at[s.Parent]; ok {
			waits[j]++
		}
	}
	children := make([][]Domain, len(f.Switches))
	var ready []int
	for i := range f.Switches {
		if waits[i] == 0 {
			ready = append(ready, i)
		}
	}
	var roots []Domain
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		s := f.Switches[i]
		below := children[i]
		leaf := Domain{Name: s.Name, Hosts: hosts[i]}
		var d Domain
		switch {
		case len(below) == 0:
			d = leaf
		case len(leaf.Hosts) > 0:
			d = parent(s.Name, append(below, leaf))
		default:
			d = parent(s.Name, below)
		}
		j, ok := at[s.Parent]
		empty := len(d.Hosts) == 0 && len(d.Children) == 0
		switch {
		case ok && !empty:
			children[j] = append(children[j], d)
		case !empty:
			roots = append(roots, d)
		}
		if ok {
			if waits[j]--; waits[j] == 0 {
				ready = append(ready, j)
			}
		}
	}
	return top(roots)
}

// leafSet is hosts whose ports go to the same leaves.
type leafSet struct {
	leaves []int // indices of switches, ascending
	hosts  []string
}

// leafSets groups hosts by their leaves; sets that are part of exactly one
// largest set join it.
func (f Fabric) leafSets(at map[string]int) []*leafSet {
	var all []*leafSet
	byKey := map[string]*leafSet{}
	for _, h := range f.Hosts {
		var leaves []int
		for _, p := range h.Ports {
			if i, ok := at[p.Switch]; ok {
				leaves = append(leaves, i)
			}
		}
		slices.Sort(leaves)
		if leaves = slices.Compact(leaves); len(leaves) == 0 {
			continue
		}
		var key strings.Builder
		for _, i := range leaves {
			key.WriteString(strconv.Itoa(i) + " ")
		}
		s := byKey[key.String()]
		if s == nil {
			s = &leafSet{leaves: leaves}
			byKey[key.String()] = s
			all = append(all, s)
		}
		s.hosts = append(s.hosts, h.Name)
	}
	slices.SortStableFunc(all, func(a, b *leafSet) int { return len(b.leaves) - len(a.leaves) })
	var kept []*leafSet
	of := map[int][]*leafSet{} // the largest sets of each leaf
	for _, s := range all {
		var super *leafSet
		n := 0
		for _, t := range of[s.leaves[0]] {
			if len(t.leaves) > len(s.leaves) && includes(t.leaves, s.leaves) {
				super = t
				n++
			}
		}
		if n == 1 {
			super.hosts = append(super.hosts, s.hosts...)
			continue
		}
		kept = append(kept, s)
		if n == 0 {
			for _, i := range s.leaves {
				of[i] = append(of[i], s)
			}
		}
	}
	for _, s := range kept {
		slices.SortFunc(s.hosts, CompareNatural)
	}
	return kept
}

// includes says whether ascending all has every element of ascending some.
func includes(all, some []int) bool {
	for _, x := range some {
		i, ok := slices.BinarySearch(all, x)
		if !ok {
			return false
		}
		all = all[i+1:]
	}
	return true
}

// linkDomains joins leaf sets level by level: those that share leaves, those
// whose leaves are linked, those that the first level above connects, and so on.
func (f Fabric) linkDomains() Domain {
	at := f.switchIndex()
	sets := f.leafSets(at)
	joined := newUnion(len(f.Switches) + len(sets)) // switches first, then sets
	domains := make([]Domain, len(sets))            // of each group, at one of its sets
	var groups []int                                // sets that hold a domain
	for k, s := range sets {
		domains[k] = Domain{Name: f.names(s.leaves), Hosts: s.hosts}
		if len(s.leaves) > 1 {
			for _, i := range s.leaves {
				domains[k].Leaves = append(domains[k].Leaves, f.Switches[i].Name)
			}
		}
		groups = append(groups, k)
		for _, i := range s.leaves {
			joined.join(i, len(f.Switches)+k)
		}
	}
	highest := 0
	type link struct{ a, b int }
	up := map[int][]link{} // from level n-1 to n
	along := map[int][]link{}
	members := map[int][]int{} // switches of a level
	for i, s := range f.Switches {
		if s.Level < 0 {
			continue
		}
		highest = max(highest, s.Level)
		members[s.Level] = append(members[s.Level], i)
		for _, l := range s.Links {
			j, ok := at[l.To]
			switch {
			case !ok:
			case f.Switches[j].Level == s.Level:
				along[s.Level] = append(along[s.Level], link{i, j})
			case f.Switches[j].Level == s.Level-1:
				up[s.Level] = append(up[s.Level], link{i, j})
			}
		}
	}
	// regroup makes a domain of the groups that have become one.
	regroup := func(level int) {
		together := map[int][]int{}
		var order []int
		for _, k := range groups {
			r := joined.find(len(f.Switches) + k)
			if together[r] == nil {
				order = append(order, r)
			}
			together[r] = append(together[r], k)
		}
		if len(order) == len(groups) {
			return
		}
		by := map[int][]int{}
		for _, i := range members[level] {
			r := joined.find(i)
			by[r] = append(by[r], i)
		}
		groups = groups[:0]
		for _, r := range order {
			some := together[r]
			groups = append(groups, some[0])
			if len(some) == 1 {
				continue
			}
			children := make([]Domain, len(some))
			for n, k := range some {
				children[n] = domains[k]
			}
			domains[some[0]] = parent(f.names(by[r]), children)
		}
	}
	regroup(0)
	for level := 0; level <= highest; level++ {
		for _, l := range up[level] {
			joined.join(l.a, l.b)
		}
		regroup(level)
		for _, l := range along[level] {
			joined.join(l.a, l.b)
		}
		regroup(level)
	}
	all := make([]Domain, len(groups))
	for n, k := range groups {
		all[n] = domains[k]
	}
	return top(all)
}

// names folds the names of switches.
func (f Fabric) names(switches []int) string {
	names := make([]string, len(switches))
	for n, i := range switches {
		names[n] = f.Switches[i].Name
	}
	slices.SortFunc(names, CompareNatural)
	return foldNames(names)
}

// foldNames writes names as a hostlist with "+" in place of commas; what is too
// long to read is cut, which leaves the first: it is in no other set's name of
// the same level.
func foldNames(names []string) string {
	const most = 4
	var parts []string
	rest := names
	for len(rest) > 0 && len(parts) < most {
		g := newHostGroup(rest[0])
		n := 1
		for n < len(rest) && g.add(rest[n]) {
			n++
		}
		parts = append(parts, g.String())
		rest = rest[n:]
	}
	if len(rest) > 0 {
		parts = append(parts, strconv.Itoa(len(rest))+" more")
	}
	return strings.Join(parts, "+")
}

// union is sets of numbers that are joined.
type union []int

func newUnion(n int) union {
	u := make(union, n)
	for i := range u {
		u[i] = i
	}
	return u
}

func (u union) find(i int) int {
	for u[i] != i {
		u[i] = u[u[i]]
		i = u[i]
	}
	return i
}

func (u union) join(i, j int) { u[u.find(i)] = u.find(j) }
