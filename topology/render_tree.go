package topology

import (
	"cmp"
	"fmt"
	"slices"
)

// kind is what an object of the drawn tree is.
type kind string

const (
	kindMachine kind = "machine"
	kindPackage kind = "package"
	kindDie     kind = "die"
	kindGroup   kind = "group" // cores of a NUMA node that nothing else holds together
	kindNUMA    kind = "numa"
	kindCache   kind = "cache"
	kindCore    kind = "core"
	kindPU      kind = "pu"
	kindHost    kind = "hostbridge"
	kindBridge  kind = "bridge"
	kindPCI     kind = "pci"
	kindDevice  kind = "device" // as the operating system calls it, GPUs and HCAs apart
	kindGPU     kind = "gpu"
	kindHCA     kind = "hca"
)

// object is a node of the drawn tree.
type object struct {
	kind  kind
	name  string // Package, L3, PCI, Net
	id    string // P#0, 3b:00.0, "eth0"; "" none
	attrs []string
	grey  bool // not to be used by the process
	lines []string
	pci   PCIDevice // of kindPCI and kindBridge

	cpus CPUSet
	rank int // order of objects that hold the same cpus, outermost first

	memory   []*object // NUMA nodes
	children []*object // what has cpus
	devices  []*object // what hangs here

	text string // shape, once it was asked for
}

// label is the object in words; plain leaves out what tells it from its like.
func (o *object) label(plain bool) string {
	s := o.name
	if o.id != "" && !plain {
		s += " " + o.id
	}
	return s + notes(o.attrs...)
}

// folds reports whether the object may share its line with its only child.
func (o *object) folds() bool { return o.kind == kindCache || o.kind == kindCore || o.kind == kindPU }

// below lists what hangs below the object in the order of the text.
func (o *object) below() []*object {
	return slices.Concat(o.memory, o.children, o.devices)
}

// drawing nests what the node has: what holds cpus by the cpus, devices by the
// PCI tree.
func drawing(n Node) *object {
	root := &object{kind: kindMachine, name: "Machine", id: n.Hostname, cpus: n.Online,
		attrs: []string{memoryText(n.Memory.Total, "total"), memoryText(n.Memory.Available, "available")}}
	all := holders(n)
	slices.SortStableFunc(all, func(a, b *object) int {
		return cmp.Or(cmp.Compare(b.cpus.Count(), a.cpus.Count()), cmp.Compare(a.rank, b.rank),
			cmp.Compare(a.cpus.First(), b.cpus.First()))
	})
	for _, o := range all {
		root.insert(o)
	}
	root.sort()
	for _, d := range n.NUMA {
		at := root
		if !d.CPUs.IsEmpty() {
			at = root.holder(d.CPUs)
		}
		at.memory = append(at.memory, numaObject(n, d))
	}
	hang(root, n)
	return root
}

// holders are the objects with cpus; a group for each NUMA node whose cpus
// nothing else holds.
func holders(n Node) []*object {
	var all []*object
	for _, p := range n.Packages {
		all = append(all, &object{kind: kindPackage, name: "Package", id: osIndex(p.Index), cpus: p.CPUs, rank: 1})
	}
	for _, d := range n.Dies {
		all = append(all, &object{kind: kindDie, name: "Die", id: osIndex(d.Index), cpus: d.CPUs, rank: 2})
	}
	for _, c := range n.Caches {
		name := fmt.Sprintf("L%d", c.Level)
		if !c.Unified {
			name += "d"
		}
		all = append(all, &object{kind: kindCache, name: name, attrs: []string{memoryText(c.Size, "")}, cpus: c.CPUs, rank: 100 - c.Level})
	}
	known := []CPUSet{n.Online}
	for _, o := range all {
		known = append(known, o.cpus)
	}
	for _, d := range n.NUMA {
		if !d.CPUs.IsEmpty() && !slices.ContainsFunc(known, d.CPUs.Equal) {
			known = append(known, d.CPUs)
			all = append(all, &object{kind: kindGroup, name: "Group", cpus: d.CPUs, rank: 3})
		}
	}
	kinds := map[int]string{}
	for _, k := range n.CPUKinds {
		for _, pu := range k.CPUs.Slice() {
			kinds[pu] = k.Name
		}
	}
	for _, c := range n.Cores {
		id := ""
		if c.Index >= 0 {
			id = osIndex(c.Index)
		}
		all = append(all, &object{kind: kindCore, name: "Core", id: id, attrs: []string{kinds[c.PUs.First()]}, cpus: c.PUs, rank: 101})
		for _, pu := range c.PUs.Slice() {
			o := &object{kind: kindPU, name: "PU", id: osIndex(pu), cpus: NewCPUSet(pu), rank: 102}
			if !n.Allowed.Has(pu) {
				o.grey, o.attrs = true, []string{"not allowed"}
			}
			all = append(all, o)
		}
	}
	return slices.DeleteFunc(all, func(o *object) bool { return o.cpus.IsEmpty() })
}

func osIndex(i int) string { return fmt.Sprintf("P#%d", i) }

func (o *object) insert(child *object) {
	for first := child.cpus.First(); ; {
		i := slices.IndexFunc(o.children, func(c *object) bool {
			return c.kind != kindPU && c.cpus.Has(first) && c.cpus.Contains(child.cpus)
		})
		if i < 0 {
			o.children = append(o.children, child)
			return
		}
		o = o.children[i]
	}
}

func (o *object) sort() {
	slices.SortStableFunc(o.children, func(x, y *object) int { return cmp.Compare(x.cpus.First(), y.cpus.First()) })
	for _, c := range o.children {
		c.sort()
	}
}

// holder is the smallest object above the cores that has all of cpus, the
// outermost of those that have the same.
func (o *object) holder(cpus CPUSet) *object {
	if cpus.IsEmpty() {
		return o
	}
	best := o
	for {
		i := slices.IndexFunc(o.children, func(c *object) bool {
			return c.kind != kindCore && c.kind != kindPU && c.cpus.Contains(cpus)
		})
		if i < 0 {
			return best
		}
		// The machine itself is left for its only package, as lstopo does.
		if c := o.children[i]; !c.cpus.Equal(o.cpus) || best.kind == kindMachine {
			best = c
		}
		o = o.children[i]
	}
}

func numaObject(n Node, d NUMANode) *object {
	o := &object{kind: kindNUMA, name: "NUMANode", id: osIndex(d.Index), attrs: []string{memoryText(d.Memory, "")}}
	for _, h := range d.HugePages {
		if h.Total > 0 {
			o.attrs = append(o.attrs, fmt.Sprintf("%d of %d huge pages of %s free", h.Free, h.Total, sizeText(h.PageBytes)))
		}
	}
	if !n.AllowedMems.IsEmpty() && !n.AllowedMems.Has(d.Index) {
		o.grey = true
		o.attrs = append(o.attrs, "not allowed")
	}
	return o
}
