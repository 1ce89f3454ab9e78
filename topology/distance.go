package topology

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Distance returns how far two devices of the node are from each other. They
// are named GPUn (GPU.Index), as an HCA, as a network interface, or by PCI
// address. What a driver said (Node.Links) comes first; other pairs are derived:
// PIX, PXB and PHB from the PCI tree, NODE and SYS from NUMA nodes. Devices of
// one NUMA node whose host bridges are not known are NODE, the farthest that
// they can be. "" is unknown: no such device, or too little is known of it.
//
// The classes are those of nvidia-smi topo -m. Ports of one PCIe switch are one
// step apart: two devices below them are PIX.
func Distance(n Node, a, b string) Class {
	return newAtlas(n).distance(a, b)
}

// Compare orders classes, nearest first: X, NV# with more links before less,
// PIX, PXB, PHB, NODE, SYS, unknown and other words last.
func (c Class) Compare(o Class) int {
	return cmp.Or(cmp.Compare(c.rank(), o.rank()), cmp.Compare(o.NVLinks(), c.NVLinks()))
}

func (c Class) rank() int {
	order := []Class{ClassSelf, "NV", ClassXGMI, ClassPIX, ClassPXB, ClassPHB, ClassNODE, ClassSYS}
	if c.NVLinks() > 0 {
		c = "NV"
	}
	if i := slices.Index(order, c); i >= 0 {
		return i
	}
	return len(order)
}

// NVLinks returns the number of bonded NVLinks of NV#, else 0.
func (c Class) NVLinks() int {
	digits, ok := strings.CutPrefix(string(c), "NV")
	v, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil {
		return 0
	}
	return int(v)
}

// Proximity is how near cpus are to a device, nearest first.
type Proximity int

// What the nearest of the cpus shares with the device.
const (
	ProximityNUMA    Proximity = iota // a NUMA node, or they are among the device's own cpus
	ProximityPackage                  // a package
	ProximityMachine                  // only the machine
	ProximityUnknown                  // no such device, or nothing is known of where it is
)

// Near returns how near the nearest of the cpus is to a device, named as for
// Distance.
func Near(n Node, pus CPUSet, device string) Proximity {
	local, ok := newAtlas(n).cpus(device)
	if !ok || pus.IsEmpty() {
		return ProximityUnknown
	}
	if local.Overlaps(pus) {
		return ProximityNUMA
	}
	for _, p := range n.Packages {
		if p.CPUs.Overlaps(local) && p.CPUs.Overlaps(pus) {
			return ProximityPackage
		}
	}
	return ProximityMachine
}

// spot is where a device is.
type spot struct {
	name string   // GPUn or HCA name if it is one, as Links has it
	host string   // root bus; "" unknown
	path []string // itself, and the bridges above it, nearest first
	pci  string
	numa int // -1 unknown
	cpus CPUSet
	ok   bool
}

// atlas finds the devices of a node by their names.
type atlas struct {
	node  Node
	pci   map[string]PCIDevice
	names map[string]string // interface or other name → PCI address
	links map[[2]string]Class
	spots map[string]spot
}

func newAtlas(n Node) *atlas {
	a := &atlas{node: n, pci: map[string]PCIDevice{}, names: map[string]string{}, links: map[[2]string]Class{}, spots: map[string]spot{}}
	for _, d := range n.PCI {
		a.pci[d.Address] = d
		for _, name := range d.Names {
			a.names[name] = d.Address
		}
	}
	for _, l := range n.Links {
		if l.Class == "" {
			continue
		}
		// Two that contradict each other: the farther is the safer.
		for _, k := range [][2]string{{l.A, l.B}, {l.B, l.A}} {
			if old, ok := a.links[k]; !ok || old.Compare(l.Class) < 0 {
				a.links[k] = l.Class
			}
		}
	}
	return a
}

func gpuName(index int) string { return "GPU" + strconv.Itoa(index) }

// find looks a device up once.
func (a *atlas) find(name string) spot {
	s, ok := a.spots[name]
	if !ok {
		s = a.locate(name)
		a.spots[name] = s
	}
	return s
}

func (a *atlas) locate(name string) spot {
	for _, g := range a.node.GPUs {
		if gpuName(g.Index) == name {
			return a.spot(name, g.PCI, g.NUMA, g.CPUs)
		}
	}
	for _, h := range a.node.HCAs {
		if h.Name == name {
			return a.spot(name, h.PCI, h.NUMA, h.CPUs)
		}
	}
	for _, h := range a.node.HCAs {
		for _, p := range h.Ports {
			if p.Netdev != "" && p.Netdev == name {
				return a.spot(h.Name, h.PCI, h.NUMA, h.CPUs)
			}
		}
	}
	address, ok := a.names[name]
	if !ok {
		address = strings.ToLower(name)
		if _, ok = a.pci[address]; !ok && !a.holds(address) {
			return spot{}
		}
	}
	// The links know the device by its other name.
	for _, g := range a.node.GPUs {
		if g.PCI == address {
			return a.spot(gpuName(g.Index), g.PCI, g.NUMA, g.CPUs)
		}
	}
	for _, h := range a.node.HCAs {
		if h.PCI == address {
			return a.spot(h.Name, h.PCI, h.NUMA, h.CPUs)
		}
	}
	return a.spot("", address, -1, CPUSet{})
}

// holds reports whether a GPU or HCA is at the address; the PCI tree may lack it.
func (a *atlas) holds(address string) bool {
	return address != "" &&
		(slices.ContainsFunc(a.node.GPUs, func(g GPU) bool { return g.PCI == address }) ||
			slices.ContainsFunc(a.node.HCAs, func(h HCA) bool { return h.PCI == address }))
}

// spot completes what the device says of itself with what the PCI tree knows.
func (a *atlas) spot(name, address string, numa int, cpus CPUSet) spot {
	s := spot{name: name, pci: address, numa: numa, cpus: cpus, ok: true}
	d, ok := a.pci[address]
	for ok {
		if s.numa < 0 {
			s.numa = d.NUMA
		}
		if s.cpus.IsEmpty() {
			s.cpus = d.CPUs
		}
		if s.host == "" {
			s.host = d.Host
		}
		s.path = append(s.path, d.Address)
		// A tree that was read wrongly may have a cycle: it tells nothing.
		if slices.Contains(s.path, d.Parent) {
			s.path, s.host = nil, ""
			break
		}
		parent := d.Parent
		if d, ok = a.pci[parent]; !ok && parent != "" {
			s.path = append(s.path, parent)
		}
	}
	if s.numa < 0 {
		s.numa = a.numaOf(s.cpus)
	}
	return s
}

// numaOf returns the NUMA node that has all of the cpus, -1 for none.
func (a *atlas) numaOf(cpus CPUSet) int {
	var found []int
	for _, d := range a.node.NUMA {
		if !cpus.IsEmpty() && d.CPUs.Contains(cpus) {
			found = append(found, d.Index)
		}
		// One node that has cpus: everything is near it.
		if cpus.IsEmpty() && !d.CPUs.IsEmpty() {
			found = append(found, d.Index)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return -1
}

// cpus returns the cpus near a device: firmware that knows no better calls all
// of a machine's near, so its NUMA node's are taken out of them.
func (a *atlas) cpus(name string) (CPUSet, bool) {
	s := a.find(name)
	for _, d := range a.node.NUMA {
		if !s.ok || d.Index != s.numa {
			continue
		}
		if both := d.CPUs.Intersect(s.cpus); !both.IsEmpty() {
			return both, true
		}
		if s.cpus.IsEmpty() {
			return d.CPUs, !d.CPUs.IsEmpty()
		}
	}
	return s.cpus, s.ok && !s.cpus.IsEmpty()
}

func (a *atlas) distance(x, y string) Class {
	p, q := a.find(x), a.find(y)
	if p.ok && q.ok {
		x, y = cmp.Or(p.name, x), cmp.Or(q.name, y)
	}
	if x == y {
		if p.ok || len(a.links) > 0 && a.linked(x) {
			return ClassSelf
		}
		return ""
	}
	if c, ok := a.links[[2]string{x, y}]; ok {
		return c
	}
	if !p.ok || !q.ok {
		return ""
	}
	return between(p, q)
}

func (a *atlas) linked(name string) bool {
	return slices.ContainsFunc(a.node.Links, func(l Link) bool { return l.A == name || l.B == name })
}

func between(p, q spot) Class {
	if p.pci != "" && q.pci != "" {
		if p.pci == q.pci {
			return ClassSelf
		}
		if slot(p.pci) == slot(q.pci) {
			return ClassPIX // functions of one device
		}
		for up, bridge := range p.path {
			down := slices.Index(q.path, bridge)
			switch {
			case down < 0:
			case up <= 2 && down <= 2: // at most a port of the switch between
				return ClassPIX
			default:
				return ClassPXB
			}
		}
		if p.host != "" && p.host == q.host {
			return ClassPHB
		}
	}
	switch {
	case p.numa < 0 || q.numa < 0:
		if !p.cpus.IsEmpty() && !q.cpus.IsEmpty() && !p.cpus.Overlaps(q.cpus) {
			return ClassSYS
		}
		return ""
	case p.numa == q.numa:
		return ClassNODE
	}
	return ClassSYS
}

// slot is a PCI address without the function.
func slot(address string) string {
	s, _, _ := strings.Cut(address, ".")
	return s
}
