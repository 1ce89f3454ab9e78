package probe

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Bounds on XML, far above any machine's.
const (
	maxHwlocDepth   = 256
	maxHwlocObjects = 1 << 20
	maxPU           = 65535
)

// ReadHwlocXML reads a machine from the XML that hwloc exports, as lstopo does:
// version 1 (no version attribute on <topology>; NUMA nodes are above the cores
// they hold), 2 and 3 (NUMA nodes are memory children beside them). The format
// is hwloc's hwloc2.dtd.
//
// GPUs are those that a compute library named: CUDA, NVML, RSMI, Level Zero or
// OpenCL devices. Where a file has none of an AMD GPU, as version 1 seldom has,
// its DRM render node tells it; of an NVIDIA GPU only memory that has become a
// NUMA node tells that it is driven for computing, as nouveau makes DRM nodes too.
//
// What hwloc does not know stays unknown: link widths of PCI, addresses and state
// of network interfaces. What can't be understood is left out with a warning that
// names the line; of damaged XML what came before the damage is kept. It fails on
// other formats and versions, and when not one PU was read.
func ReadHwlocXML(in io.Reader) (topology.Node, error) {
	h := &hwlocFile{}
	err := h.parse(in)
	if h.version == 0 {
		if err == nil {
			err = errors.New("no <topology> element")
		}
		return topology.Node{Warnings: h.warnings}, fmt.Errorf("hwloc XML: %w", err)
	}
	if err != nil {
		if h.pus == 0 {
			return topology.Node{Warnings: h.warnings}, fmt.Errorf("hwloc XML: %w", err)
		}
		h.warnings = append(h.warnings, fmt.Sprintf("hwloc XML: %v; its rest is lost", err))
	}
	if h.pus == 0 || h.root == nil {
		return topology.Node{Warnings: h.warnings}, errors.New("hwloc XML: it has no PUs")
	}
	return h.node(), nil
}

// hwlocObject is an <object>.
type hwlocObject struct {
	kind     string
	line     int
	index    int // os_index, -1 without
	attrs    map[string]string
	infos    map[string]string
	parent   *hwlocObject
	children []*hwlocObject
	cpus     topology.CPUSet // PUs below; of NUMA nodes and what is below them, near
}

// hwlocFile is the XML while it is read.
type hwlocFile struct {
	version  int // major; 0: no <topology> yet
	root     *hwlocObject
	kinds    []*hwlocObject // <cpukind>
	objects  int
	pus      int
	seen     map[int]bool // PUs
	online   *topology.CPUSet
	warnings []string
	dropped  int
}

func (h *hwlocFile) warn(line int, format string, args ...any) {
	if len(h.warnings) < maxWarnings {
		h.warnings = append(h.warnings, fmt.Sprintf("hwloc XML line %d: ", line)+fmt.Sprintf(format, args...))
		return
	}
	h.dropped++
	h.warnings = append(h.warnings[:maxWarnings], fmt.Sprintf("and %d more warnings", h.dropped))
}

// parse reads the elements into a tree. Its error is that of the XML or of the
// bounds.
func (h *hwlocFile) parse(in io.Reader) error {
	d := xml.NewDecoder(in)
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // all facts are ASCII
	h.seen = map[int]bool{}
	var stack []*hwlocObject // nil: an element without facts
	for {
		t, err := d.Token()
		line, _ := d.InputPos()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // names the line
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(stack) >= maxHwlocDepth {
				return fmt.Errorf("line %d: elements nested %d deep", line, maxHwlocDepth)
			}
			o, err := h.start(t, line, stack)
			if err != nil {
				return err
			}
			stack = append(stack, o)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		}
	}
}

// start takes an element in and returns its object, if it is one.
func (h *hwlocFile) start(t xml.StartElement, line int, stack []*hwlocObject) (*hwlocObject, error) {
	attrs := make(map[string]string, len(t.Attr))
	for _, a := range t.Attr {
		attrs[a.Name.Local] = a.Value
	}
	if h.version == 0 {
		if t.Name.Local != "topology" {
			return nil, fmt.Errorf("line %d: expected <topology>, found <%s>", line, clip(t.Name.Local))
		}
		version := cmp.Or(attrs["version"], "1.0")
		major, _, _ := strings.Cut(version, ".")
		v, err := strconv.Atoi(major)
		if err != nil || v < 1 || v > 3 {
			return nil, fmt.Errorf("version %q is not known: expected 1, 2 or 3; export it again with lstopo --export-xml-flags v2", clip(version))
		}
		h.version = v
		return nil, nil
	}
	var parent *hwlocObject
	if len(stack) > 0 {
		parent = stack[len(stack)-1]
	}
	switch t.Name.Local {
	case "info":
		if parent != nil && attrs["name"] != "" {
			if parent.infos == nil {
				parent.infos = map[string]string{}
			}
			parent.infos[attrs["name"]] = attrs["value"]
		}
	case "cpukind":
		o := &hwlocObject{kind: "cpukind", line: line, attrs: attrs}
		h.kinds = append(h.kinds, o)
		return o, nil
	case "object":
		if h.objects++; h.objects > maxHwlocObjects {
			return nil, fmt.Errorf("line %d: more than %d objects", line, maxHwlocObjects)
		}
		return h.object(attrs, line, parent), nil
	}
	return nil, nil
}

// object adds an object to the tree; nil if it can't be used.
func (h *hwlocFile) object(attrs map[string]string, line int, parent *hwlocObject) *hwlocObject {
	o := &hwlocObject{kind: attrs["type"], line: line, index: -1, attrs: attrs, parent: parent}
	if s, ok := attrs["os_index"]; ok {
		v, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			h.warn(line, "os_index %q of a %s: expected a number", clip(s), clip(o.kind))
		} else {
			o.index = int(v)
		}
	}
	switch {
	case o.kind == "":
		h.warn(line, "an object without a type")
		return nil
	case parent == nil && h.root != nil:
		h.warn(line, "%s outside the machine", clip(o.kind))
		return nil
	case parent == nil:
		h.root = o
		if s, ok := attrs["online_cpuset"]; ok {
			if set, ok := h.set(line, "online_cpuset", s); ok {
				h.online = &set
			}
		}
	}
	if o.kind == "PU" {
		switch {
		case o.index < 0 || o.index > maxPU:
			h.warn(line, "a PU with os_index %q: expected 0 to %d", clip(attrs["os_index"]), maxPU)
			return nil
		case h.seen[o.index]:
			h.warn(line, "PU %d is there twice", o.index)
			return nil
		case h.online != nil && !h.online.Has(o.index):
			return nil
		}
		h.seen[o.index] = true
		h.pus++
	}
	if parent != nil {
		parent.children = append(parent.children, o)
	}
	return o
}

// set reads a set of PUs or nodes: words as in 0xf0000000,,0x0. A set without
// end, which begins with 0xf...f, is unknown: ok=false.
func (h *hwlocFile) set(line int, name, s string) (topology.CPUSet, bool) {
	if s == "" || strings.HasPrefix(s, "0xf...f") {
		return topology.CPUSet{}, false
	}
	words := strings.Split(s, ",")
	for i, w := range words {
		words[i] = cmp.Or(strings.TrimPrefix(w, "0x"), "0")
	}
	set, err := topology.ParseCPUMask(strings.Join(words, ","))
	if err != nil {
		h.warn(line, "%s %q: expected words such as 0x0000000f,0xffffffff", name, clip(s))
		return set, false
	}
	return set, true
}

// isIO reports whether an object is a device or a bridge, or no part of the
// machine at all; it has no PUs of its own.
func (o *hwlocObject) isIO() bool {
	switch o.kind {
	case "Bridge", "PCIDev", "OSDev", "Misc":
		return true
	}
	return false
}

// node makes the model of the tree.
func (h *hwlocFile) node() topology.Node {
	n := topology.Node{Hostname: h.root.infos["HostName"], Kernel: h.root.infos["OSRelease"],
		OS: strings.ToLower(h.root.infos["OSName"]), Arch: hwlocArch(h.root.infos["Architecture"])}
	h.count(h.root)
	n.Online = h.root.cpus
	n.Allowed = n.Online
	if s, ok := h.set(h.root.line, "allowed_cpuset", h.root.attrs["allowed_cpuset"]); ok {
		n.Allowed = n.Online.Intersect(s)
	}
	if s, ok := h.set(h.root.line, "allowed_nodeset", h.root.attrs["allowed_nodeset"]); ok {
		n.AllowedMems = s
	}
	h.memory(&n, h.root)
	near := numaOfPUs(n.NUMA)
	h.cpuSide(&n, h.root, -1, near)
	h.dies(&n)
	h.cpuKinds(&n)
	h.devices(&n)
	slices.SortStableFunc(n.Packages, func(a, b topology.Package) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortStableFunc(n.NUMA, func(a, b topology.NUMANode) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortStableFunc(n.Cores, topology.CompareCores)
	slices.SortStableFunc(n.Caches, func(a, b topology.Cache) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.CPUs.First(), b.CPUs.First()))
	})
	n.Warnings = h.warnings
	return n
}

// count sets the PUs of every object. What an object's PUs are is told by those
// below it: the cpuset attribute of some versions has offline ones too.
func (h *hwlocFile) count(o *hwlocObject) topology.CPUSet {
	if o.kind == "PU" {
		o.cpus = topology.NewCPUSet(o.index)
	}
	for _, c := range o.children {
		if below := h.count(c); o.cpus.IsEmpty() {
			o.cpus = below
		} else if !below.IsEmpty() {
			o.cpus = o.cpus.Union(below)
		}
	}
	return o.cpus
}

// memory finds the NUMA nodes and the PUs near them.
func (h *hwlocFile) memory(n *topology.Node, o *hwlocObject) {
	if o.kind == "NUMANode" {
		switch {
		case o.index < 0 || o.index > maxPU:
			h.warn(o.line, "a NUMA node with os_index %q: expected 0 to %d", clip(o.attrs["os_index"]), maxPU)
		case slices.ContainsFunc(n.NUMA, func(d topology.NUMANode) bool { return d.Index == o.index }):
			h.warn(o.line, "NUMA node %d is there twice", o.index)
		default:
			d := topology.NUMANode{Index: o.index, CPUs: h.nearMemory(n, o)}
			if v, err := strconv.ParseUint(o.attrs["local_memory"], 10, 64); err == nil {
				d.Memory = &v
			}
			n.NUMA = append(n.NUMA, d)
		}
	}
	for _, c := range o.children {
		h.memory(n, c)
	}
	if o != h.root {
		return
	}
	if len(n.NUMA) == 0 && h.version == 1 && len(h.warnings) == 0 {
		// Version 1 has no NUMA node where the kernel said nothing of any:
		// the machine's memory is that of all of it.
		d := topology.NUMANode{CPUs: n.Online}
		if v, err := strconv.ParseUint(o.attrs["local_memory"], 10, 64); err == nil && v > 0 {
			d.Memory = &v
		}
		n.NUMA = append(n.NUMA, d)
	}
	total := uint64(0)
	for _, d := range n.NUMA {
		if d.Memory != nil {
			total += *d.Memory
		}
	}
	if total > 0 {
		n.Memory.Total = &total
	}
}

// nearMemory returns the PUs of a NUMA node.
func (h *hwlocFile) nearMemory(n *topology.Node, o *hwlocObject) topology.CPUSet {
	if h.version > 1 && o.cpus.IsEmpty() {
		if s, ok := h.set(o.line, "cpuset", o.attrs["cpuset"]); ok {
			return s.Intersect(n.Online)
		}
		for up := o.parent; up != nil; up = up.parent {
			if !up.cpus.IsEmpty() {
				return up.cpus
			}
		}
	}
	// Version 1 has the fast memory of Knights Landing beside the node that it
	// belongs to, without PUs.
	if o.cpus.IsEmpty() && o.infos["Type"] == "MCDRAM" && o.parent != nil {
		for _, c := range o.parent.children {
			if c.kind == "NUMANode" && !c.cpus.IsEmpty() {
				return c.cpus
			}
		}
	}
	return o.cpus
}

// numaOfPUs maps PUs to the NUMA node that they are nearest to: of those that
// have them the one with the fewest, then the lowest.
func numaOfPUs(nodes []topology.NUMANode) map[int]int {
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b topology.NUMANode) int {
		return cmp.Or(cmp.Compare(a.CPUs.Count(), b.CPUs.Count()), cmp.Compare(a.Index, b.Index))
	})
	out := map[int]int{}
	for _, d := range sorted {
		for _, pu := range d.CPUs.Slice() {
			if _, ok := out[pu]; !ok {
				out[pu] = d.Index
			}
		}
	}
	return out
}

// cpuSide finds packages, caches and cores.
func (h *hwlocFile) cpuSide(n *topology.Node, o *hwlocObject, pkg int, near map[int]int) {
	core := func(index int) {
		numa, ok := near[o.cpus.First()]
		if !ok {
			numa = -1
		}
		n.Cores = append(n.Cores, topology.Core{Index: index, Package: pkg, NUMA: numa, PUs: o.cpus})
	}
	level, instructions, isCache := o.cache()
	switch {
	case o.cpus.IsEmpty():
		return
	case o.kind == "Package" || o.kind == "Socket":
		if pkg = o.index; pkg < 0 {
			pkg = len(n.Packages)
		}
		n.Packages = append(n.Packages, topology.Package{Index: pkg, CPUs: o.cpus})
	case isCache && !instructions:
		c := topology.Cache{Level: level, Unified: o.attrs["cache_type"] == "0", CPUs: o.cpus}
		if v, err := strconv.ParseUint(o.attrs["cache_size"], 10, 64); err == nil && v > 0 {
			c.Size = &v
		}
		n.Caches = append(n.Caches, c)
	case o.kind == "Core":
		index := o.index
		if index < 0 {
			index = len(n.Cores)
		}
		core(index)
	case o.kind == "PU" && !o.within("Core"):
		core(o.index)
	}
	for _, c := range o.children {
		if !c.isIO() {
			h.cpuSide(n, c, pkg, near)
		}
	}
}

// cache reads what cache an object is: version 1 has it in attributes, later
// ones in the type, L3Cache or L1iCache.
func (o *hwlocObject) cache() (level int, instructions, ok bool) {
	s, ok := strings.CutSuffix(o.kind, "Cache")
	if !ok || o.kind == "MemCache" {
		return 0, false, false
	}
	if s == "" {
		s = "L" + o.attrs["depth"]
	}
	instructions = o.attrs["cache_type"] == "2" || strings.HasSuffix(s, "i")
	s, ok = strings.CutPrefix(strings.TrimSuffix(s, "i"), "L")
	level, err := strconv.Atoi(s)
	return level, instructions, ok && err == nil && level >= 1 && level <= 9
}

func (o *hwlocObject) within(kind string) bool {
	for up := o.parent; up != nil; up = up.parent {
		if up.kind == kind {
			return true
		}
	}
	return false
}

// dies finds the dies of packages that have several.
func (h *hwlocFile) dies(n *topology.Node) {
	perPackage := map[int]int{}
	var found []topology.Die
	var walk func(o *hwlocObject, pkg int)
	walk = func(o *hwlocObject, pkg int) {
		switch o.kind {
		case "Package", "Socket":
			pkg = o.index
		case "Die":
			if !o.cpus.IsEmpty() {
				index := o.index
				if index < 0 {
					index = perPackage[pkg]
				}
				found = append(found, topology.Die{Index: index, Package: pkg, CPUs: o.cpus})
				perPackage[pkg]++
			}
		}
		for _, c := range o.children {
			walk(c, pkg)
		}
	}
	walk(h.root, -1)
	for _, d := range found {
		if perPackage[d.Package] > 1 {
			n.Dies = append(n.Dies, d)
		}
	}
	slices.SortStableFunc(n.Dies, func(a, b topology.Die) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Index, b.Index), cmp.Compare(a.CPUs.First(), b.CPUs.First()))
	})
}

// cpuKinds reads the kinds of cores, which hwloc has in rising order of
// performance; one kind is no hybrid machine.
func (h *hwlocFile) cpuKinds(n *topology.Node) {
	var out []topology.CPUKind
	for i, o := range h.kinds {
		cpus, ok := h.set(o.line, "cpuset", o.attrs["cpuset"])
		if cpus = cpus.Intersect(n.Online); !ok || cpus.IsEmpty() {
			continue
		}
		k := topology.CPUKind{Name: "kind" + strconv.Itoa(i), CPUs: cpus}
		switch o.infos["CoreType"] {
		case "IntelCore":
			k.Name = "performance"
		case "IntelAtom":
			k.Name = "efficiency"
		}
		if v, err := strconv.Atoi(o.infos["FrequencyMaxMHz"]); err == nil && v > 0 {
			k.MaxMHz = &v
		}
		out = append(out, k)
	}
	if len(out) > 1 {
		n.CPUKinds = out
	}
}
