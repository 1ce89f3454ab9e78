package sched

import (
	"cmp"
	"fmt"
	"slices"

	"gangway/launcher/job"
	"gangway/topology"
)

// Fabric is the network's tree of domains, made ready for placing gangs. It
// does not change; docs/decisions/031 has the objective.
type Fabric struct {
	leaves  []leaf
	domains []domain       // lowest level first, then in the tree's order
	of      map[string]int // host to leaf
}

// leaf is a leaf switch, or a set of leaves that the same hosts have, one a rail.
type leaf struct {
	name  string
	rails []string
	path  []int // ids of the domains that it is in, the root first
}

// domain is a part of the tree. The leaves below it are consecutive.
type domain struct {
	level       int
	first, last int // leaves [first, last)
}

// NewFabric prepares the tree. Domains without hosts are left out; a host that
// is named twice stays where it was named first. nil if the tree has no hosts.
func NewFabric(root topology.Domain) *Fabric {
	f := &Fabric{of: map[string]int{}}
	next := 0
	var walk func(d topology.Domain, path []int)
	walk = func(d topology.Domain, path []int) {
		path = append(slices.Clone(path), next)
		next++
		first := len(f.leaves)
		if len(d.Hosts) > 0 {
			for _, h := range d.Hosts {
				if _, named := f.of[h]; !named {
					f.of[h] = len(f.leaves)
				}
			}
			f.leaves = append(f.leaves, leaf{name: d.Name, rails: d.Leaves, path: path})
		}
		for _, c := range d.Children {
			walk(c, path)
		}
		if last := len(f.leaves); last > first {
			f.domains = append(f.domains, domain{max(d.Level, 0), first, last})
		}
	}
	walk(root, nil)
	if len(f.of) == 0 {
		return nil
	}
	slices.SortStableFunc(f.domains, func(a, b domain) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.first, b.first))
	})
	return f
}

// Leaf returns the name of the leaf, or set of leaves, that a host is on; "" if
// the fabric does not have the host.
func (f *Fabric) Leaf(host string) string {
	if f == nil {
		return ""
	}
	if l, ok := f.of[host]; ok {
		return f.leaves[l].name
	}
	return ""
}

// ground is the fabric as one gang sees it: which nodes each leaf has for it.
type ground struct {
	fabric *Fabric
	task   *job.TaskSpec
	name   func(int) string
	caps   []capacity
	nodes  [][]int // by leaf, the nodes that can take ranks, in the user's order
	weight []int   // by leaf, in the unit of want
	want   int     // nodes, or ranks if the gang has no number of nodes
	uneven bool    // nodes of a gang with a number of nodes may take any share
}

// newGround asks where a gang may go. Hosts that the fabric does not have get a
// leaf each, which is near nothing.
func newGround(f *Fabric, t *job.TaskSpec, name func(int) string, caps []capacity) *ground {
	g := &ground{fabric: f, task: t, name: name, caps: caps, nodes: make([][]int, len(f.leaves))}
	least := 1 // ranks that make a node count
	switch {
	case t.RanksPerNode > 0:
		g.want = (t.Ranks + t.RanksPerNode - 1) / t.RanksPerNode
		if least = t.Ranks % t.RanksPerNode; least == 0 {
			least = t.RanksPerNode
		}
	case t.Nodes > 0:
		g.want, least = t.Nodes, max(t.Ranks/t.Nodes, 1)
	default:
		g.want, least = t.Ranks, 0
	}
	for i, c := range caps {
		if c.most <= 0 {
			continue
		}
		if l, ok := f.of[name(i)]; ok {
			g.nodes[l] = append(g.nodes[l], i)
		} else {
			g.nodes = append(g.nodes, []int{i})
		}
	}
	g.weight = make([]int, len(g.nodes))
	for l, nodes := range g.nodes {
		for _, i := range nodes {
			switch c := caps[i]; {
			case least == 0:
				g.weight[l] += max(c.plain, 0)
			case c.most >= least:
				g.weight[l]++
			}
		}
	}
	return g
}

// share counts what leaves hold of ranks that share cores, which matters where
// the gang has no number of nodes.
func (g *ground) share() {
	if g.task.RanksPerNode > 0 || g.task.Nodes > 0 {
		return
	}
	for l, nodes := range g.nodes {
		g.weight[l] = 0
		for _, i := range nodes {
			g.weight[l] += g.caps[i].most
		}
	}
}

// place puts a gang under the lowest domain that holds it, the tightest of
// several, on as few leaves as can be. most limits the leaves; 0: any number. A
// gang with a number of nodes is spread evenly if that is possible at all, since
// the fullest node sets its pace.
func (g *ground) place(most int) []share {
	s := g.lowest(most)
	if s != nil || g.task.RanksPerNode > 0 || g.task.Nodes == 0 {
		return s
	}
	u := *g
	u.uneven = true
	u.weight = make([]int, len(g.nodes))
	for l, nodes := range g.nodes {
		u.weight[l] = len(nodes)
	}
	return u.lowest(most)
}

// lowest is place for one way to weigh the leaves.
func (g *ground) lowest(most int) []share {
	everywhere := domain{last: len(g.nodes), level: 1 << 30}
	type candidate struct {
		domain
		surplus int
	}
	var fitting []candidate
	for _, d := range append(slices.Clip(g.fabric.domains), everywhere) {
		sum := 0
		for _, w := range g.weight[d.first:d.last] {
			sum += w
		}
		if sum >= g.want {
			fitting = append(fitting, candidate{d, sum - g.want})
		}
	}
	slices.SortStableFunc(fitting, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.surplus, b.surplus))
	})
	for _, c := range fitting {
		if s := g.within(c.domain); s != nil && (most == 0 || g.leavesOf(s) <= most) {
			return s
		}
	}
	return nil
}

// within puts the gang below one domain.
func (g *ground) within(d domain) []share {
	if d.last-d.first == 1 {
		return g.fit([]int{d.first}, nil)
	}
	chosen, quota := g.choose(d)
	if s := g.fit(chosen, quota); s != nil {
		return g.fewer(d, chosen, s)
	}
	if s := g.fit(chosen, nil); s != nil {
		return g.fewer(d, chosen, s)
	}
	// The nodes of a leaf differ, and the sums did not see it.
	rest := make([]int, 0, d.last-d.first)
	for l := d.first; l < d.last; l++ {
		if g.weight[l] > 0 && !slices.Contains(chosen, l) {
			rest = append(rest, l)
		}
	}
	slices.SortStableFunc(rest, func(a, b int) int { return cmp.Compare(g.weight[b], g.weight[a]) })
	for _, l := range rest {
		chosen = append(chosen, l)
		if s := g.fit(chosen, nil); s != nil {
			return g.fewer(d, chosen, s)
		}
	}
	return nil
}

// choose picks leaves by their sums: the largest, near each other, until one
// leaf takes the rest; of those that do, the nearest and then the tightest.
// quota is how much of each is used.
func (g *ground) choose(d domain) (chosen []int, quota map[int]int) {
	quota = map[int]int{}
	for rest := g.want; rest > 0; {
		best := -1
		for l := d.first; l < d.last; l++ {
			if _, taken := quota[l]; taken || g.weight[l] == 0 {
				continue
			}
			if best < 0 || g.better(l, best, rest, chosen) {
				best = l
			}
		}
		if best < 0 {
			return chosen, nil
		}
		quota[best] = min(rest, g.weight[best])
		rest -= quota[best]
		chosen = append(chosen, best)
	}
	if g.task.Spread == job.SpreadBalance {
		g.level(chosen, quota)
	}
	return chosen, quota
}

// better reports whether leaf a is a better next choice than b, which comes
// before it in the tree.
func (g *ground) better(a, b, rest int, chosen []int) bool {
	wa, wb := g.weight[a], g.weight[b]
	fa, fb := wa >= rest, wb >= rest
	if fa != fb {
		return fa
	}
	if !fa && wa != wb {
		return wa > wb
	}
	da, db := 0, 0
	sa, sb := 0, 0
	for _, c := range chosen {
		da, db = da+g.apart(a, c), db+g.apart(b, c)
		sa, sb = sa+g.shared(a, c), sb+g.shared(b, c)
	}
	if da != db {
		return da < db
	}
	if sa != sb {
		return sa > sb
	}
	if g.task.Spread == job.SpreadBalance {
		return wa > wb
	}
	return fa && wa < wb
}

// apart is how far two leaves are from each other: the domains of the one that
// the other is not in.
func (g *ground) apart(a, b int) int {
	if max(a, b) >= len(g.fabric.leaves) {
		return 1 << 20
	}
	pa, pb := g.fabric.leaves[a].path, g.fabric.leaves[b].path
	n := 0
	for n < len(pa) && n < len(pb) && pa[n] == pb[n] {
		n++
	}
	return len(pa) - n
}

// shared is how many switches two leaf sets have in common: rails that need not
// go up.
func (g *ground) shared(a, b int) int {
	if max(a, b) >= len(g.fabric.leaves) {
		return 0
	}
	n := 0
	for _, r := range g.fabric.leaves[a].rails {
		if slices.Contains(g.fabric.leaves[b].rails, r) {
			n++
		}
	}
	return n
}

// level spreads the whole over the chosen leaves as evenly as their sizes let it.
func (g *ground) level(chosen []int, quota map[int]int) {
	rest := g.want
	order := slices.Clone(chosen)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(g.weight[a], g.weight[b]) })
	for k, l := range order {
		quota[l] = min(g.weight[l], rest/(len(order)-k))
		rest -= quota[l]
	}
}

// fit spreads the gang over leaves, in the tree's order. quota limits the nodes
// of each; without a number of nodes the last leaf chosen comes last, and takes
// what is left.
func (g *ground) fit(chosen []int, quota map[int]int) []share {
	ordered := slices.Clone(chosen)
	if g.task.RanksPerNode > 0 || g.task.Nodes > 0 {
		slices.Sort(ordered)
	} else {
		quota = nil
	}
	var list []int
	var caps []capacity
	for _, l := range ordered {
		nodes := g.nodes[l]
		if quota != nil {
			nodes = g.largest(nodes, quota[l])
		}
		for _, i := range nodes {
			list = append(list, i)
			caps = append(caps, g.caps[i])
		}
	}
	var out []share
	switch {
	case g.uneven:
		out = fitUneven(g.task, caps)
	case g.task.RanksPerNode == 0 && g.task.Nodes > 0:
		out = fitEven(g.task, caps)
	default:
		out = fit(g.task, func(i int) string { return g.name(list[i]) }, caps)
	}
	for k := range out {
		out[k].node = list[out[k].node]
	}
	return out
}

// largest returns the n nodes that take most, in their order.
func (g *ground) largest(nodes []int, n int) []int {
	if n >= len(nodes) {
		return nodes
	}
	enough := g.task.RanksPerNode
	switch {
	case g.uneven:
		enough = g.task.Ranks
	case enough == 0:
		enough = (g.task.Ranks + g.task.Nodes - 1) / g.task.Nodes
	}
	out := slices.Clone(nodes)
	slices.SortStableFunc(out, func(a, b int) int {
		return cmp.Compare(min(g.caps[b].most, enough), min(g.caps[a].most, enough))
	})
	out = out[:n]
	slices.Sort(out)
	return out
}

// fewest and tries bound the search for fewer leaves than the sums led to.
const (
	fewest = 12
	tries  = 4096
)

// fewer looks for a choice of fewer leaves, which there can only be where the
// nodes of a leaf differ.
func (g *ground) fewer(d domain, chosen []int, found []share) []share {
	have := g.leavesOf(found)
	var all []int
	for l := d.first; l < d.last; l++ {
		if g.weight[l] > 0 {
			all = append(all, l)
		}
	}
	slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(g.weight[b], g.weight[a]) })
	bound, sum := 0, 0
	for sum < g.want && bound < len(all) {
		sum += g.weight[all[bound]]
		bound++
	}
	if have <= bound || len(all) > fewest {
		return found
	}
	left := tries
	for k := bound; k < have; k++ {
		var pick func(from int, set []int) []share
		pick = func(from int, set []int) []share {
			if len(set) == k {
				if left--; left < 0 {
					return nil
				}
				return g.fit(set, nil)
			}
			for i := from; i < len(all) && left >= 0; i++ {
				if s := pick(i+1, append(slices.Clip(set), all[i])); s != nil {
					return s
				}
			}
			return nil
		}
		if s := pick(0, nil); s != nil {
			return s
		}
	}
	return found
}

// leavesOf counts the leaves that shares are on.
func (g *ground) leavesOf(shares []share) int {
	seen := map[int]bool{}
	other := 0
	for _, s := range shares {
		if l, ok := g.fabric.of[g.name(s.node)]; ok {
			seen[l] = true
		} else {
			other++
		}
	}
	return len(seen) + other
}

// spread finds the nodes of a gang, by the fabric if there is one, and why it
// had better wait for others.
func (p *planner) spread(w *Pending, caps []capacity) ([]share, *job.Reason) {
	t := w.Spec
	if p.fabric == nil || len(t.PerNode) > 0 {
		return fit(t, p.name, caps), nil
	}
	g := newGround(p.fabric, t, p.name, caps)
	shares := g.place(0)
	if shares == nil && t.Oversubscribe {
		g.share()
		shares = g.place(0)
	}
	if shares == nil {
		return fit(t, p.name, caps), nil // no sum held it
	}
	if t.Switches == 0 {
		return shares, nil
	}
	n := g.leavesOf(shares)
	if n <= t.Switches {
		return shares, nil
	}
	if s := g.place(t.Switches); s != nil { // higher up, on fewer leaves
		return s, nil
	}
	until := w.Since.Add(t.SwitchesWait)
	if t.SwitchesWait > 0 && !p.now.Before(until) {
		return shares, nil
	}
	if r := TooFewSwitches(*t, p.nodes, p.fabric); r != nil {
		return nil, r
	}
	r := job.Reason{Code: job.WaitSwitches, Want: uint64(t.Switches), Have: uint64(n),
		Detail: fmt.Sprintf("waits for a place on at most %s; what is free now is on %d", leafSwitches(t.Switches), n)}
	if t.SwitchesWait > 0 {
		r.Detail += ", which it takes from " + until.Format("2006-01-02 15:04:05 MST") + " on"
		p.wake(until)
	}
	return nil, &r
}
