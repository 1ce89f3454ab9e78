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

// Bounds on what a topology file can make the probe do.
const (
	maxNCCLText    = 16 << 20 // bytes
	maxNCCLDevices = 4096
	maxNCCLDepth   = 64
)

// ReadNCCL reads a topology file of NCCL, as NCCL_TOPO_FILE gives and
// NCCL_TOPO_DUMP_FILE writes it: <system> with a <cpu> for each NUMA node and
// its PCI tree. Clouds ship them for machines whose sysfs does not show the
// tree. The format is NCCL's, which has no other description than its source.
//
// GPUs have the file's number, else their place by PCI address, which is how
// the driver numbers them. Adapters have the names that NCCL found; those
// without one are named by their PCI address. The file tells no cores: each cpu
// of an affinity mask is one. It fails on what is no such file; all else that
// can't be understood is a warning with the line.
func ReadNCCL(in io.Reader) (topology.Node, error) {
	p := &ncclParser{
		lines: newLineCounter(io.LimitReader(in, maxNCCLText)),
		numa:  -1,
		seen:  map[string]int{},
	}
	p.node.OS = "linux"
	dec := xml.NewDecoder(p.lines)
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		p.line = p.lines.at(dec.InputOffset())
		if err != nil {
			if !p.system {
				return topology.Node{}, fmt.Errorf("topology file of NCCL, line %d: %w", p.line, err)
			}
			p.warn("%v; the rest is not read", err)
			break
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := p.start(t); err != nil {
				return topology.Node{}, err
			}
		case xml.EndElement:
			p.end(t.Name.Local)
		}
	}
	if !p.system {
		return topology.Node{}, errors.New("topology file of NCCL: expected the element <system>")
	}
	return p.finish(), nil
}

type ncclParser struct {
	lines  *lineCounter
	line   int
	node   topology.Node
	system bool
	numa   int // of the <cpu> around; -1: none
	cpus   topology.CPUSet
	open   []string       // addresses of the <pci> around
	depth  int            // of elements
	seen   map[string]int // address → index in node.PCI
	gpus   []ncclGPU
	nets   []ncclNet
}

type ncclGPU struct {
	address string
	dev     int // -1: not said
	links   []ncclLink
}

type ncclLink struct {
	target string
	count  int
}

type ncclNet struct {
	address, name, guid string
	port                int
	mbps                int
}

func (p *ncclParser) warn(format string, args ...any) {
	if len(p.node.Warnings) < maxWarnings {
		p.node.Warnings = append(p.node.Warnings, fmt.Sprintf("line %d: ", p.line)+fmt.Sprintf(format, args...))
	}
}

func (p *ncclParser) start(t xml.StartElement) error {
	if p.depth++; p.depth > maxNCCLDepth {
		return fmt.Errorf("topology file of NCCL, line %d: elements more than %d deep", p.line, maxNCCLDepth)
	}
	attrs := map[string]string{}
	for _, a := range t.Attr {
		attrs[a.Name.Local] = strings.TrimSpace(a.Value)
	}
	if !p.system && t.Name.Local != "system" {
		return fmt.Errorf("topology file of NCCL, line %d: expected the element <system>, found <%s>", p.line, clip(t.Name.Local))
	}
	switch t.Name.Local {
	case "system":
		p.system = true
		if v := attrs["version"]; v != "" && v != "1" && v != "2" {
			p.warn("version %q of the format is not known: read as version 1", clip(v))
		}
	case "cpu":
		p.cpu(attrs)
	case "pci":
		return p.pci(attrs)
	case "gpu":
		if at := p.above(); at != "" {
			g := ncclGPU{address: at, dev: p.number(attrs, "dev", -1)}
			p.gpus = append(p.gpus, g)
		}
	case "nvlink":
		if n := len(p.gpus); n > 0 && p.above() == p.gpus[n-1].address && len(p.gpus[n-1].links) < maxNCCLDevices {
			p.gpus[n-1].links = append(p.gpus[n-1].links, ncclLink{strings.ToLower(attrs["target"]), p.number(attrs, "count", 0)})
		}
	case "net":
		if at := p.above(); at != "" && len(p.nets) < maxNCCLDevices {
			p.nets = append(p.nets, ncclNet{at, attrs["name"], attrs["guid"], p.number(attrs, "port", 1), p.number(attrs, "speed", 0)})
		}
	}
	return nil
}

func (p *ncclParser) end(name string) {
	p.depth--
	switch name {
	case "cpu":
		p.numa, p.cpus = -1, topology.CPUSet{}
	case "pci":
		if len(p.open) > 0 {
			p.open = p.open[:len(p.open)-1]
		}
	}
}

// above is the address of the <pci> around, "" without one that counts.
func (p *ncclParser) above() string {
	if len(p.open) == 0 {
		return ""
	}
	return p.open[len(p.open)-1]
}

func (p *ncclParser) number(attrs map[string]string, name string, without int) int {
	s := attrs[name]
	if s == "" {
		return without
	}
	v, err := strconv.ParseInt(s, 0, 32)
	if err != nil || v < -1 {
		p.warn("%s: expected a number, found %q", name, clip(s))
		return without
	}
	return int(v)
}

func (p *ncclParser) cpu(attrs map[string]string) {
	p.numa = p.number(attrs, "numaid", -1)
	if p.numa > 1<<16 {
		p.warn("numaid: NUMA node %d is out of range", p.numa)
		p.numa = -1
	}
	if s := attrs["affinity"]; s != "" {
		set, err := topology.ParseCPUMask(s)
		if err != nil {
			p.warn("affinity: %v", err)
		}
		p.cpus = set
	}
	if s := attrs["arch"]; p.node.Arch == "" {
		p.node.Arch = map[string]string{"x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64", "ppc64": "ppc64le"}[s]
	}
	if p.numa < 0 {
		return
	}
	for _, d := range p.node.NUMA {
		if d.Index == p.numa {
			p.warn("a second <cpu> of NUMA node %d", p.numa)
			return
		}
		if both := d.CPUs.Intersect(p.cpus); !both.IsEmpty() {
			p.warn("cpus %s are in NUMA nodes %d and %d; the first is taken", both, d.Index, p.numa)
			p.cpus = p.cpus.Minus(both)
		}
	}
	p.node.NUMA = append(p.node.NUMA, topology.NUMANode{Index: p.numa, CPUs: p.cpus})
}

func (p *ncclParser) pci(attrs map[string]string) error {
	address, ok := lowerAddress(attrs["busid"])
	if !ok {
		p.warn("busid: expected a PCI address such as 0001:00:00.0, found %q", clip(attrs["busid"]))
		p.open = append(p.open, "")
		return nil
	}
	if _, twice := p.seen[address]; twice {
		p.warn("a second device at %s; the first is taken", address)
		p.open = append(p.open, "")
		return nil
	}
	if len(p.node.PCI) == maxNCCLDevices {
		return fmt.Errorf("topology file of NCCL, line %d: more than %d devices", p.line, maxNCCLDevices)
	}
	d := topology.PCIDevice{Address: address, Parent: p.above(), NUMA: p.numa, CPUs: p.cpus}
	hex := func(name string, bits int) uint64 {
		s := attrs[name]
		if s == "" {
			return 0
		}
		v, err := strconv.ParseUint(s, 0, bits)
		if err != nil {
			p.warn("%s: expected a hexadecimal number, found %q", name, clip(s))
			return 0
		}
		return v
	}
	d.Class = uint32(hex("class", 24))
	d.Vendor, d.Device = uint16(hex("vendor", 16)), uint16(hex("device", 16))
	if f := strings.Fields(attrs["link_speed"]); len(f) > 0 {
		v, err := strconv.ParseFloat(f[0], 64)
		switch {
		case err == nil && v > 0 && v < 1e6:
			d.LinkGTs = v
		case f[0] != "Unknown":
			p.warn("link_speed: expected a speed such as 16 GT/s, found %q", clip(attrs["link_speed"]))
		}
	}
	if v := p.number(attrs, "link_width", 0); v > 0 && v <= 64 {
		d.LinkWidth = v
	}
	p.seen[address] = len(p.node.PCI)
	p.node.PCI = append(p.node.PCI, d)
	p.open = append(p.open, address)
	return nil
}

// finish makes GPUs, adapters and cores of what was read.
func (p *ncclParser) finish() topology.Node {
	n := &p.node
	slices.SortFunc(n.PCI, func(a, b topology.PCIDevice) int { return cmp.Compare(a.Address, b.Address) })
	slices.SortFunc(n.NUMA, func(a, b topology.NUMANode) int { return cmp.Compare(a.Index, b.Index) })
	for _, d := range n.NUMA {
		n.Online = n.Online.Union(d.CPUs)
		for _, pu := range d.CPUs.Slice() {
			n.Cores = append(n.Cores, topology.Core{Index: -1, Package: -1, NUMA: d.Index, PUs: topology.NewCPUSet(pu)})
		}
		n.AllowedMems = n.AllowedMems.Add(d.Index)
	}
	n.Allowed = n.Online
	p.makeGPUs()
	p.makeHCAs()
	return *n
}

func (p *ncclParser) makeGPUs() {
	n := &p.node
	dev := map[string]int{}
	for _, g := range p.gpus {
		dev[g.address] = g.dev
	}
	numbered := true
	taken := map[int]bool{}
	var found []topology.PCIDevice
	for _, d := range n.PCI {
		v, said := dev[d.Address]
		if !said && (d.Class>>8 != 0x0302 && d.Class>>8 != 0x0300 && d.Class>>8 != 0x0380 || d.Vendor != 0 && d.Vendor != vendorNVIDIA && d.Vendor != vendorAMD) {
			continue
		}
		if !said || v < 0 || taken[v] {
			numbered = false
		}
		taken[v] = true
		found = append(found, d)
	}
	names := map[string]string{}
	for i, d := range found {
		g := topology.GPU{Index: i, Vendor: "nvidia", PCI: d.Address, NUMA: d.NUMA, CPUs: d.CPUs}
		if numbered {
			g.Index = dev[d.Address]
		}
		if d.Vendor == vendorAMD {
			g.Vendor = "amd"
		}
		n.GPUs = append(n.GPUs, g)
		names[d.Address] = "GPU" + strconv.Itoa(g.Index)
	}
	slices.SortFunc(n.GPUs, func(a, b topology.GPU) int { return cmp.Compare(a.Index, b.Index) })
	for _, g := range p.gpus {
		for _, l := range g.links {
			// Links to switches are not to a GPU: their target is a bridge.
			if a, b := names[g.address], names[l.target]; a != "" && b != "" && a < b && l.count > 0 {
				n.Links = append(n.Links, topology.Link{A: a, B: b, Class: topology.Class("NV" + strconv.Itoa(l.count))})
			}
		}
	}
}

const (
	vendorNVIDIA = 0x10de
	vendorAMD    = 0x1002
)

func (p *ncclParser) makeHCAs() {
	n := &p.node
	named := map[string]bool{}
	for _, t := range p.nets {
		d := n.PCI[slices.IndexFunc(n.PCI, func(d topology.PCIDevice) bool { return d.Address == t.address })]
		if t.name == "" || strings.ContainsAny(t.name, " \t\r\n") || len(t.name) > 64 {
			continue
		}
		named[t.address] = true
		port := topology.HCAPort{Number: max(t.port, 1)}
		if t.mbps > 0 {
			gbps := float64(t.mbps) / 1000
			port.Gbps = &gbps
		}
		if i := slices.IndexFunc(n.HCAs, func(h topology.HCA) bool { return h.Name == t.name }); i >= 0 {
			if !slices.ContainsFunc(n.HCAs[i].Ports, func(q topology.HCAPort) bool { return q.Number == port.Number }) {
				n.HCAs[i].Ports = append(n.HCAs[i].Ports, port)
			}
			continue
		}
		h := topology.HCA{Name: t.name, PCI: d.Address, NUMA: d.NUMA, CPUs: d.CPUs, Ports: []topology.HCAPort{port}}
		if guid := strings.TrimPrefix(t.guid, "0x"); len(guid) <= 16 && hexDigits(guid) && strings.Trim(guid, "0") != "" {
			h.NodeGUID = strings.Repeat("0", 16-len(guid)) + strings.ToLower(guid)
		}
		n.HCAs = append(n.HCAs, h)
	}
	for _, d := range n.PCI {
		if (d.Class>>8 == 0x0207 || d.Class>>8 == 0x0c06) && !named[d.Address] {
			n.HCAs = append(n.HCAs, topology.HCA{Name: d.Address, PCI: d.Address, NUMA: d.NUMA, CPUs: d.CPUs})
		}
	}
	slices.SortFunc(n.HCAs, func(a, b topology.HCA) int { return compareNatural(a.Name, b.Name) })
	for _, h := range n.HCAs {
		i := slices.IndexFunc(n.PCI, func(d topology.PCIDevice) bool { return d.Address == h.PCI })
		if h.Name != h.PCI {
			n.PCI[i].Names = append(n.PCI[i].Names, h.Name)
		}
	}
}

// lineCounter counts the lines of what passes through it.
type lineCounter struct {
	in    io.Reader
	ends  []int64 // offsets of line ends, past the last one asked for
	read  int64
	lines int
}

func newLineCounter(in io.Reader) *lineCounter { return &lineCounter{in: in, lines: 1} }

func (l *lineCounter) Read(b []byte) (int, error) {
	n, err := l.in.Read(b)
	for i, c := range b[:n] {
		if c == '\n' {
			l.ends = append(l.ends, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// at returns the line of an offset; offsets must not fall.
func (l *lineCounter) at(offset int64) int {
	passed := 0
	for passed < len(l.ends) && l.ends[passed] < offset {
		passed++
	}
	l.lines += passed
	l.ends = l.ends[passed:]
	return l.lines
}
