package bind

import (
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
	uses := make([]int, len(hcas))
	for i := range places {
		p := &places[i]
		var from []func(topology.HCA) int
		for _, id := range p.GPUs {
			if g, ok := gpuOf(n, id); ok {
				from = append(from, func(h topology.HCA) int { return gpuToHCA(n, g, h) })
			}
		}
		if len(from) == 0 {
			from = append(from, func(h topology.HCA) int { return cpusToHCA(n, p.CPUs, h) })
		}
		for _, far := range from {
			best := -1
			var bestKey []int
			for j, h := range hcas {
				if key := []int{far(h), uses[j], j}; best < 0 || slices.Compare(key, bestKey) < 0 {
					best, bestKey = j, key
				}
			}
			uses[best]++
			if !slices.Contains(p.NICs, hcas[best].Name) {
				p.NICs = append(p.NICs, hcas[best].Name)
			}
		}
	}
}

func usableHCAs(n topology.Node) []topology.HCA {
	type candidate struct {
		hca      topology.HCA
		ethernet bool
		gbps     float64 // 0: unknown
	}
	var all []candidate
	fabric := false
	for _, h := range n.HCAs {
		c := candidate{hca: h, ethernet: true}
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

// gpuToHCA ranks how far an HCA is from a GPU: the fewer, the nearer.
func gpuToHCA(n topology.Node, g topology.GPU, h topology.HCA) int {
	if g.PCI != "" && h.PCI != "" {
		a, b := pciPath(n, g.PCI), pciPath(n, h.PCI)
		common := 0
		for common < min(len(a), len(b)) && a[len(a)-1-common] == b[len(b)-1-common] {
			common++
		}
		if common > 0 && len(a) > 0 && len(b) > 0 {
			// Bridges between them: the lower the bridge they share, the fewer.
			return min(len(a)+len(b)-2*common, 90)
		}
	}
	if g.NUMA >= 0 && g.NUMA == h.NUMA {
		return 91
	}
	return 91 + cpusToHCA(n, g.CPUs, h)
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

// pciPath lists the bridges above a device, the nearest first.
func pciPath(n topology.Node, address string) []string {
	parent := map[string]string{}
	for _, d := range n.PCI {
		parent[d.Address] = d.Parent
	}
	var out []string
	for at := parent[address]; at != "" && len(out) < 64; at = parent[at] {
		out = append(out, at)
	}
	return out
}
