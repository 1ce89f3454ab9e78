package bind

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"gangway/topology"
)

// unit is what a rank can be given of a node's GPUs: a GPU, or an instance of
// one that is partitioned.
type unit struct {
	id   string
	cpus topology.CPUSet // granted PUs near it; empty: unknown, or none was granted
}

// units returns what may be dealt of the node's GPUs, by index. Of GPUs that
// were not named in the request, those near none of the granted cpus are left
// out, as if the rest of the machine did not exist.
func units(r Request, granted topology.CPUSet) ([]unit, error) {
	var out []unit
	gpus := slices.Clone(r.Node.GPUs)
	slices.SortStableFunc(gpus, func(a, b topology.GPU) int { return cmp.Compare(a.Index, b.Index) })
	seen := map[int]bool{}
	for _, g := range gpus {
		if r.GPUs != nil && !slices.Contains(r.GPUs, g.Index) || seen[g.Index] {
			continue
		}
		seen[g.Index] = true
		near := g.CPUs
		if near.IsEmpty() && g.NUMA >= 0 {
			for _, d := range r.Node.NUMA {
				if d.Index == g.NUMA {
					near = d.CPUs
				}
			}
		}
		cpus := near.Intersect(granted)
		if r.GPUs == nil && cpus.IsEmpty() && !near.IsEmpty() {
			continue
		}
		if !g.MIGMode {
			out = append(out, unit{id: strconv.Itoa(g.Index), cpus: cpus})
			continue
		}
		for _, m := range g.MIG {
			out = append(out, unit{id: m.UUID, cpus: cpus})
		}
	}
	for _, i := range r.GPUs {
		if !seen[i] {
			return nil, fmt.Errorf("bind ranks on %s: GPU %d was granted, which is not there; probe the node again", r.Node.Hostname, i)
		}
	}
	return out, nil
}

// dealWide deals the GPUs that are near several domains, or near nothing that
// is known, to the ranks of all those domains.
func dealWide(places []Place, doms []domain, gpus []unit) {
	groups := map[string][]unit{}
	var order []string
	dealt := map[string]bool{}
	for _, p := range places {
		for _, id := range p.GPUs {
			dealt[id] = true
		}
	}
	for _, u := range gpus {
		if dealt[u.id] || slices.ContainsFunc(doms, func(d domain) bool { return !u.cpus.IsEmpty() && d.cpus.Contains(u.cpus) }) {
			continue
		}
		key := u.cpus.String()
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], u)
	}
	for _, key := range order {
		var takers []int
		for i, p := range places {
			near := groups[key][0].cpus
			if near.IsEmpty() || slices.ContainsFunc(doms, func(d domain) bool { return d.cpus.Overlaps(near) && d.cpus.Overlaps(p.CPUs) }) {
				takers = append(takers, i)
			}
		}
		for i, c := range chunks(groups[key], len(takers)) {
			for _, u := range c {
				places[takers[i]].GPUs = append(places[takers[i]].GPUs, u.id)
			}
		}
	}
}

// noGPUs is the error of a request for GPUs that can't be had.
func noGPUs(r Request, have int) error {
	host := r.Node.Hostname
	switch {
	case have == 0 && len(r.Node.GPUs) == 0:
		return fmt.Errorf("bind ranks on %s: no GPUs are known on the node; use another --bind mode", host)
	case have == 0:
		return fmt.Errorf("bind ranks on %s: no GPUs were granted, or none is near the granted cpus", host)
	}
	return fmt.Errorf("bind ranks on %s: %d ranks of %d GPUs need %d GPUs, %d are there; use fewer ranks or --oversubscribe",
		host, r.Ranks, r.GPUsPerRank, r.Ranks*r.GPUsPerRank, have)
}

// chooseUnits gives every rank its GPUs when GPUs come first: in the order of
// the cores that they are near, so that neighbours in rank are neighbours on
// the machine, and spread over it when there are more GPUs than needed.
func chooseUnits(r Request, cores []topology.Core, gpus []unit) ([][]unit, error) {
	per := max(r.GPUsPerRank, 1)
	scarce := per > len(gpus)/r.Ranks
	if len(gpus) == 0 || per > len(gpus) || scarce && r.GPUsPerRank > 0 && !r.Oversubscribe {
		return nil, noGPUs(r, len(gpus))
	}
	position := map[int]int{}
	for i, c := range cores {
		for _, pu := range c.PUs.Slice() {
			position[pu] = i
		}
	}
	first := func(u unit) int {
		at := len(cores)
		for _, pu := range u.cpus.Slice() {
			at = min(at, position[pu])
		}
		return at
	}
	sorted := slices.Clone(gpus)
	slices.SortStableFunc(sorted, func(a, b unit) int { return cmp.Compare(first(a), first(b)) })
	out := make([][]unit, r.Ranks)
	if !scarce {
		for i, c := range chunks(sorted, r.Ranks) {
			out[i] = c[:per]
		}
		return out, nil
	}
	for i := range out {
		start := min(i*len(sorted)/r.Ranks, len(sorted)-per)
		out[i] = sorted[start : start+per]
	}
	return out, nil
}

// gpuFirst gives every rank its GPUs and then the free cores nearest to them.
func gpuFirst(r Request, granted topology.CPUSet, gpus []unit) ([]Place, error) {
	cores := inTreeOrder(r.Node, granted)
	if r.CoresPerRank > 0 && r.Ranks > len(cores)/r.CoresPerRank && !r.Oversubscribe {
		return nil, tooFew(r, len(cores))
	}
	chosen, err := chooseUnits(r, cores, gpus)
	if err != nil {
		return nil, err
	}
	near := make([]topology.CPUSet, r.Ranks)
	for i, us := range chosen {
		for _, u := range us {
			near[i] = near[i].Union(u.cpus)
		}
	}
	need := coresNearGPUs(r, cores, near)
	taken := make([]bool, len(cores))
	got := make([][]topology.Core, r.Ranks)
	// All ranks get the nearest cores before any gets farther ones.
	free := len(cores)
	for _, reach := range reaches(r.Node) {
		for i := range got {
			if free == 0 {
				break
			}
			wide := reach(near[i])
			for j, c := range cores {
				if len(got[i]) == need[i] {
					break
				}
				if !taken[j] && (wide.IsEmpty() || c.PUs.Overlaps(wide)) {
					taken[j] = true
					free--
					got[i] = append(got[i], c)
				}
			}
		}
	}
	places := make([]Place, r.Ranks)
	shared, nearest := map[string]int{}, map[string][]topology.Core{}
	for i := range places {
		if len(got[i]) == 0 { // more ranks than cores
			key := near[i].String()
			if nearest[key] == nil {
				if nearest[key] = inTreeOrder(r.Node, near[i]); len(nearest[key]) == 0 {
					nearest[key] = cores
				}
			}
			at := nearest[key]
			for range need[i] {
				got[i] = append(got[i], at[shared[key]%len(at)])
				shared[key]++
			}
		}
		places[i] = fromCores(r, got[i])
		for _, u := range chosen[i] {
			places[i].GPUs = append(places[i].GPUs, u.id)
		}
	}
	return places, nil
}

// reaches are ever wider surroundings of a set of PUs: itself, its NUMA nodes,
// its packages, everything (empty).
func reaches(n topology.Node) []func(topology.CPUSet) topology.CPUSet {
	grow := func(cpus topology.CPUSet, sets []topology.CPUSet) topology.CPUSet {
		out := cpus
		for _, s := range sets {
			if s.Overlaps(cpus) {
				out = out.Union(s)
			}
		}
		return out
	}
	var numa, packages []topology.CPUSet
	for _, d := range n.NUMA {
		numa = append(numa, d.CPUs)
	}
	for _, p := range n.Packages {
		packages = append(packages, p.CPUs)
	}
	return []func(topology.CPUSet) topology.CPUSet{
		func(c topology.CPUSet) topology.CPUSet { return c },
		func(c topology.CPUSet) topology.CPUSet { return grow(c, numa) },
		func(c topology.CPUSet) topology.CPUSet { return grow(c, packages) },
		func(topology.CPUSet) topology.CPUSet { return topology.CPUSet{} },
	}
}

// coresNearGPUs is how many cores each rank is to have: what it asked for, else
// an even part of those that are nearest to its GPUs.
func coresNearGPUs(r Request, cores []topology.Core, near []topology.CPUSet) []int {
	need := make([]int, r.Ranks)
	same := map[string]int{}
	for _, s := range near {
		same[s.String()]++
	}
	claims := make([]int, len(cores)) // ranks that are near each core
	for _, s := range near {
		key := s.String()
		if same[key] == 0 {
			continue
		}
		for i, c := range cores {
			if s.IsEmpty() || s.Overlaps(c.PUs) {
				claims[i] += same[key]
			}
		}
		same[key] = 0 // counted
	}
	parts := map[string]int{}
	for i, s := range near {
		if need[i] = r.CoresPerRank; need[i] > 0 {
			need[i] = min(need[i], len(cores))
			continue
		}
		key := s.String()
		if _, ok := parts[key]; !ok {
			sum := 0.0
			for j, c := range cores {
				if s.IsEmpty() || s.Overlaps(c.PUs) {
					sum += 1 / float64(claims[j])
				}
			}
			parts[key] = int(sum + 1e-6)
		}
		need[i] = max(parts[key], 1)
	}
	return need
}

// nearUnits deals GPUs to ranks that have their cpus: each takes the nearest
// that are free, all ranks the nearest before any a farther one.
func nearUnits(r Request, places []Place, gpus []unit) error {
	per := r.GPUsPerRank
	if len(gpus) == 0 && per == 0 {
		return nil
	}
	if per > len(gpus) || per > 0 && per > len(gpus)/r.Ranks && !r.Oversubscribe {
		return noGPUs(r, len(gpus))
	}
	want := share(len(gpus), r.Ranks)
	if per > 0 {
		want = slices.Repeat([]int{per}, r.Ranks)
	}
	users := make([]int, len(gpus))
	for _, reach := range reaches(r.Node) {
		for i := range places {
			wide := reach(places[i].CPUs)
			for j, u := range gpus {
				if len(places[i].GPUs) < want[i] && users[j] == 0 && (wide.IsEmpty() || u.cpus.Overlaps(wide)) {
					users[j]++
					places[i].GPUs = append(places[i].GPUs, u.id)
				}
			}
		}
	}
	for i := range places { // scarce: shared with those that have the fewest users
		for len(places[i].GPUs) < max(want[i], 1) {
			best, bestKey := -1, [2]int{}
			for j, u := range gpus {
				far := 1
				if u.cpus.Overlaps(places[i].CPUs) {
					far = 0
				}
				if key := [2]int{far, users[j]}; !slices.Contains(places[i].GPUs, u.id) && (best < 0 || slices.Compare(key[:], bestKey[:]) < 0) {
					best, bestKey = j, key
				}
			}
			if best < 0 {
				break
			}
			users[best]++
			places[i].GPUs = append(places[i].GPUs, gpus[best].id)
		}
	}
	return nil
}
