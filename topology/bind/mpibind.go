package bind

import (
	"cmp"
	"slices"

	"gangway/topology"
)

// The algorithm is that of LLNL's mpibind (E. A. León, "mpibind: A memory-centric
// affinity algorithm for hybrid applications", MEMSYS 2017), as its published
// results have it. Memory comes first: ranks are dealt to NUMA nodes by what the
// nodes have to compute with; within a node they spread over the highest level
// of the tree that has an object for each worker, a worker being a thread of a
// rank, so that workers share as few caches as can be.

// mpibind places the ranks. gpus are the units it may deal.
func mpibind(r Request, granted topology.CPUSet, threads int, gpus []unit) []Place {
	doms := domains(r.Node, granted, r.Mems)
	places := make([]Place, r.Ranks)
	if !r.NoGreedy && r.Ranks < len(doms) {
		// Fewer ranks than NUMA nodes: the whole machine is theirs. The
		// published results give every PU a thread here, whatever was asked.
		at := 0
		for i, n := range share(len(doms), r.Ranks) {
			for _, d := range doms[at : at+n] {
				places[i].CPUs = places[i].CPUs.Union(d.cpus)
			}
			at += n
			places[i].Threads = places[i].CPUs.Count()
			for _, u := range gpus {
				if u.cpus.Overlaps(places[i].CPUs) && places[i].CPUs.Contains(u.cpus) {
					places[i].GPUs = append(places[i].GPUs, u.id)
				}
			}
		}
	} else {
		at := 0
		for i, n := range ranksPerDomain(r.Ranks, weights(doms, gpus, r.Optimize)) {
			if n == 0 {
				continue
			}
			spread(r.Node, doms[i], places[at:at+n], threads, r.SMT)
			var near []string
			for _, u := range gpus {
				if u.cpus.Overlaps(doms[i].cpus) && doms[i].cpus.Contains(u.cpus) {
					near = append(near, u.id)
				}
			}
			for j, c := range chunks(near, n) {
				places[at+j].GPUs = slices.Clone(c)
			}
			at += n
		}
	}
	dealWide(places, doms, gpus)
	return places
}

// weights are what decides how many ranks a domain gets.
func weights(doms []domain, gpus []unit, by Optimize) []int {
	out := make([]int, len(doms))
	total := 0
	if by != ByCPU {
		for i, d := range doms {
			for _, u := range gpus {
				if u.cpus.IsEmpty() || u.cpus.Overlaps(d.cpus) {
					out[i]++
					total++
				}
			}
		}
	}
	if total == 0 {
		for i, d := range doms {
			out[i] = d.cpus.Count()
		}
	}
	return out
}

// ranksPerDomain divides ranks in proportion to weights: whole shares first,
// then one each to the largest remainders, earlier domains first.
func ranksPerDomain(ranks int, weights []int) []int {
	total := 0
	for _, w := range weights {
		total += w
	}
	out := make([]int, len(weights))
	order := make([]int, len(weights))
	left := ranks
	for i, w := range weights {
		out[i] = ranks * w / total
		left -= out[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(ranks*weights[b]%total, ranks*weights[a]%total)
	})
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

// spread places ranks within a domain. threads 0: a core's worth each, or with
// smt a PU's.
func spread(n topology.Node, d domain, places []Place, threads, smt int) {
	width := d.cores[0].PUs.Count() // PUs of a core; of a hybrid machine, of its first
	if threads <= 0 {
		workers := len(d.cores)
		switch {
		case smt >= width:
			workers = d.cpus.Count()
		case smt > 1:
			workers *= smt
		}
		threads = max(workers/len(places), 1)
	}
	workers := threads * len(places)
	objects, isCore := []topology.CPUSet(nil), false
	if smt == 0 {
		objects = enough(n, d, workers)
	}
	if objects == nil {
		isCore = true
		for _, c := range d.cores {
			objects = append(objects, c.PUs)
		}
	}
	each := 1
	switch {
	case smt > 0:
		each = smt
	case isCore:
		for each < width && len(objects)*each < workers {
			each++
		}
	}
	for i := range objects {
		pus := objects[i].Slice()
		objects[i] = topology.NewCPUSet(pus[:min(each, len(pus))]...)
	}
	if len(objects) >= len(places) {
		for i, c := range chunks(objects, len(places)) {
			places[i].Threads = threads
			for _, o := range c {
				places[i].CPUs = places[i].CPUs.Union(o)
			}
		}
		return
	}
	// Ranks share an object: its PUs are divided before they are shared.
	at := 0
	for i, k := range share(len(places), len(objects)) {
		for _, cpus := range deal(objects[i].Slice(), k) {
			places[at] = Place{CPUs: cpus, Threads: threads}
			at++
		}
	}
}

// enough returns the objects of the highest level within a domain, but for
// cores, that has as many as there are workers; nil if none has.
func enough(n topology.Node, d domain, workers int) []topology.CPUSet {
	if workers <= 1 {
		return []topology.CPUSet{d.cpus}
	}
	if workers > len(d.cores) {
		return nil
	}
	position := map[int]int{}
	for i, c := range d.cores {
		for _, pu := range c.PUs.Slice() {
			position[pu] = i
		}
	}
	var best []topology.CPUSet
	for _, sets := range levels(n) {
		var in []topology.CPUSet
		for _, s := range sets {
			if s = s.Intersect(d.cpus); !s.IsEmpty() {
				in = append(in, s)
			}
		}
		if len(in) >= workers && len(in) <= len(d.cores) && (best == nil || len(in) < len(best)) {
			best = in
		}
	}
	slices.SortStableFunc(best, func(a, b topology.CPUSet) int {
		return cmp.Compare(position[a.First()], position[b.First()])
	})
	return best
}
