package bind

import (
	"cmp"
	"slices"
	"strconv"

	"gangway/topology"
)

// chooseNICs gives every rank the HCAs nearest to its GPUs, one a GPU, or the one
// nearest to its cpus; of equally near ones that which has been given out least.
// Only HCAs with an active port count, and of those only the ones for the job:
// not Ethernet where there is InfiniBand or Omni-Path, and none known to be
// slower than another.
func chooseNICs(n topology.Node, places []Place) {
	hcas := usableHCAs(n)
	if len(hcas) == 0 {
		return
	}
	// Ranks share GPUs and cpus: what is near them is worked out once.
	ranked := map[string][]candidate{}
	uses := make([]int, len(hcas))
	for i := range places {
		p := &places[i]
		var from [][]candidate
		for _, id := range p.GPUs {
			g, ok := gpuOf(n, id)
			if !ok {
				continue
			}
			name := "GPU" + strconv.Itoa(g.Index)
			if ranked[name] == nil {
				ranked[name] = rank(hcas, func(a, b topology.HCA) int {
					return topology.Distance(n, name, a.Name).Compare(topology.Distance(n, name, b.Name))
				})
			}
			from = append(from, ranked[name])
		}
		if len(from) == 0 {
			key := p.CPUs.String()
			if ranked[key] == nil {
				ranked[key] = rank(hcas, func(a, b topology.HCA) int {
					return cmp.Compare(cpusToHCA(n, p.CPUs, a), cpusToHCA(n, p.CPUs, b))
				})
			}
			from = append(from, ranked[key])
		}
		for _, near := range from {
			best := near[0].hca
			for _, c := range near {
				if c.class == near[0].class && uses[c.hca] < uses[best] {
					best = c.hca
				}
			}
			uses[best]++
			if !slices.Contains(p.NICs, hcas[best].Name) {
				p.NICs = append(p.NICs, hcas[best].Name)
			}
		}
	}
}

// candidate is an HCA, by its place in a list; equally near ones have one class.
type candidate struct{ hca, class int }

// rank sorts HCAs, the nearest first, as compare has it.
func rank(hcas []topology.HCA, compare func(a, b topology.HCA) int) []candidate {
	out := make([]candidate, len(hcas))
	for i := range out {
		out[i].hca = i
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return compare(hcas[a.hca], hcas[b.hca]) })
	for i := 1; i < len(out); i++ {
		out[i].class = out[i-1].class
		if compare(hcas[out[i-1].hca], hcas[out[i].hca]) != 0 {
			out[i].class++
		}
	}
	return out
}

func usableHCAs(n topology.Node) []topology.HCA {
	type adapter struct {
		hca      topology.HCA
		ethernet bool
		gbps     float64 // 0: unknown
	}
	var all []adapter
	fabric := false
	for _, h := range n.HCAs {
		c := adapter{hca: h, ethernet: true}
		active := false
		for _, p := range h.Ports {
			if p.State != "ACTIVE" {
				continue
			}
			active = true
			c.ethernet = c.ethernet && p.LinkLayer == "Ethernet"
			if p.Gbps != nil {
				c.gbps = max(c.gbps, *p.Gbps)
			}
		}
		if active {
			all = append(all, c)
			fabric = fabric || !c.ethernet
		}
	}
	fastest := 0.0
	for _, c := range all {
		if !fabric || !c.ethernet {
			fastest = max(fastest, c.gbps)
		}
	}
	var out []topology.HCA
	for _, c := range all {
		if (!fabric || !c.ethernet) && (c.gbps == 0 || c.gbps >= fastest) {
			out = append(out, c.hca)
		}
	}
	return out
}

func gpuOf(n topology.Node, id string) (topology.GPU, bool) {
	for _, g := range n.GPUs {
		if strconv.Itoa(g.Index) == id ||
			slices.ContainsFunc(g.MIG, func(m topology.MIG) bool { return m.UUID == id }) {
			return g, true
		}
	}
	return topology.GPU{}, false
}

// cpusToHCA is 0 near, 1 in the same NUMA nodes, 2 in the same packages, else 3.
func cpusToHCA(n topology.Node, cpus topology.CPUSet, h topology.HCA) int {
	near := h.CPUs
	if near.IsEmpty() {
		for _, d := range n.NUMA {
			if d.Index == h.NUMA {
				near = d.CPUs
			}
		}
	}
	for i, reach := range reaches(n) {
		if reach(cpus).Overlaps(near) {
			return i
		}
	}
	return 3
}
