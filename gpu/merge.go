package gpu

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Merge puts what was found into the model of the node, in place of what it had of
// GPUs. Where the driver does not say what a GPU is near to, the PCI tree does; near
// CPUs are those that are online.
func Merge(n *topology.Node, r Result) {
	n.GPUs = slices.Clone(r.GPUs)
	n.Links = slices.Clone(r.Links)
	n.Warnings = append(slices.Clone(n.Warnings), r.Warnings...)
	for i := range n.GPUs {
		g := &n.GPUs[i]
		if d, ok := deviceOf(n.PCI, g.PCI); ok {
			if g.NUMA < 0 {
				g.NUMA = d.NUMA
			}
			if g.CPUs.IsEmpty() {
				g.CPUs = d.CPUs
			}
		}
		if g.NUMA >= 0 && len(n.NUMA) > 0 {
			k := slices.IndexFunc(n.NUMA, func(x topology.NUMANode) bool { return x.Index == g.NUMA })
			switch {
			case k < 0:
				n.Warnings = append(n.Warnings, fmt.Sprintf("GPU %d %s: it is said to be near the NUMA node %d, which is not there", g.Index, g.PCI, g.NUMA))
				g.NUMA = -1
			case g.CPUs.IsEmpty():
				g.CPUs = n.NUMA[k].CPUs
			}
		}
		if !n.Online.IsEmpty() {
			g.CPUs = g.CPUs.Intersect(n.Online)
		}
		if g.NUMA < 0 && !g.CPUs.IsEmpty() {
			// The one NUMA node that has all of them.
			for _, x := range n.NUMA {
				if g.CPUs.Minus(x.CPUs).IsEmpty() {
					g.NUMA = x.Index
					break
				}
			}
		}
	}
	slices.SortStableFunc(n.GPUs, func(a, b topology.GPU) int {
		return cmp.Or(-cmp.Compare(a.Vendor, b.Vendor), cmp.Compare(a.Index, b.Index))
	})
}

// deviceOf finds a device; the partitions of a GPU have the functions after its own.
func deviceOf(pci []topology.PCIDevice, addr string) (topology.PCIDevice, bool) {
	if addr == "" {
		return topology.PCIDevice{}, false
	}
	first := addr[:len(addr)-1] + "0"
	var found topology.PCIDevice
	ok := false
	for _, d := range pci {
		if d.Address == addr {
			return d, true
		}
		if d.Address == first {
			found, ok = d, true
		}
	}
	return found, ok
}

// Locate adds to the model the PCI devices of the GPUs that it lacks, as far as
// /sys knows what they are near to.
func Locate(n *topology.Node, sys fs.FS, r Result) {
	if sys == nil {
		return
	}
	for _, g := range r.GPUs {
		if _, ok := deviceOf(n.PCI, g.PCI); ok || g.PCI == "" {
			continue
		}
		addr := g.PCI
		if _, err := fs.Stat(sys, path.Join("bus/pci/devices", addr)); err != nil {
			addr = addr[:len(addr)-1] + "0"
		}
		if d, ok := pciDevice(sys, addr); ok {
			n.PCI = append(slices.Clone(n.PCI), d)
		}
	}
	slices.SortFunc(n.PCI, func(a, b topology.PCIDevice) int { return strings.Compare(a.Address, b.Address) })
}

// Lost compares two results of one machine and names the GPUs that were there
// and are not any more. Only results of a driver that answered can be compared.
func Lost(before, after Result) []string {
	if before.Source == "" || after.Source == "" {
		return nil
	}
	var out []string
	for _, g := range before.GPUs {
		same := func(x topology.GPU) bool {
			if g.UUID != "" && x.UUID != "" {
				return x.UUID == g.UUID
			}
			return x.PCI == g.PCI
		}
		told := slices.ContainsFunc(after.Warnings, func(w string) bool { return g.PCI != "" && strings.Contains(w, g.PCI) })
		if !slices.ContainsFunc(after.GPUs, same) && !told {
			out = append(out, LostWarning(g.Index, g.PCI, "it was there before"))
		}
	}
	return out
}

// compareLinks orders links by the numbers of their ends.
func compareLinks(a, b topology.Link) int {
	key := func(s string) (string, int) {
		name := strings.TrimRight(s, "0123456789")
		v, _ := strconv.Atoi(s[len(name):])
		return name, v
	}
	a1, a2 := key(a.A)
	b1, b2 := key(b.A)
	a3, a4 := key(a.B)
	b3, b4 := key(b.B)
	return cmp.Or(cmp.Compare(a1, b1), cmp.Compare(a2, b2), cmp.Compare(a3, b3), cmp.Compare(a4, b4))
}
