package probe

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Kinds of OSDev, as version 3 numbers them: bits. Earlier versions have an
// ordinal.
const (
	osStorage = 1 << iota
	osMemory
	osGPU
	osCoprocessor
	osNetwork
	osOpenFabrics
	osDMA
)

// osKind reads osdev_type.
func (h *hwlocFile) osKind(o *hwlocObject) int {
	v, err := strconv.Atoi(o.attrs["osdev_type"])
	if err != nil || v < 0 {
		h.warn(o.line, "osdev_type %q of %s: expected a number", clip(o.attrs["osdev_type"]), clip(o.attrs["name"]))
		return 0
	}
	if h.version >= 3 {
		return v
	}
	ordinals := []int{osStorage, osGPU, osNetwork, osOpenFabrics, osDMA, osCoprocessor, osMemory}
	if v >= len(ordinals) {
		return 0
	}
	return ordinals[v]
}

// hwlocOS is an OSDev with where it is.
type hwlocOS struct {
	*hwlocObject
	name string
	kind int
	pci  string // address of the device it is on; "": none
	numa int
	cpus topology.CPUSet
}

// devices finds bridges, PCI devices and what the operating system has on them.
func (h *hwlocFile) devices(n *topology.Node) {
	var all []hwlocOS
	at := map[string]int{} // PCI address to its place in n.PCI
	var walk func(o *hwlocObject, host, parent, pci string, numa int, cpus topology.CPUSet)
	walk = func(o *hwlocObject, host, parent, pci string, numa int, cpus topology.CPUSet) {
		if !o.isIO() && o.kind != "NUMANode" || o.kind == "NUMANode" && h.version == 1 {
			// Devices of the whole machine are those whose place is unknown,
			// but for a machine with one memory.
			numa, cpus = h.place(n, o)
		}
		switch o.kind {
		case "Bridge", "PCIDev":
			if o.attrs["bridge_type"] == "0-1" {
				// bridge_pci is 0000:[00-06]
				domain, buses, _ := strings.Cut(o.attrs["bridge_pci"], ":[")
				first, _, ok := strings.Cut(buses, "-")
				if ok {
					host = domain + ":" + first
				}
				break
			}
			d, ok := h.pciDevice(o)
			if !ok {
				break
			}
			if _, twice := at[d.Address]; twice {
				h.warn(o.line, "PCI device %s is there twice", d.Address)
				if o.kind == "PCIDev" {
					pci = d.Address // what is on it is at that address, whichever it is
				}
				break
			}
			d.Host, d.Parent, d.NUMA, d.CPUs = host, parent, numa, cpus
			at[d.Address] = len(n.PCI)
			n.PCI = append(n.PCI, d)
			if o.kind == "Bridge" {
				parent = d.Address
			} else {
				pci = d.Address
			}
		case "OSDev":
			x := hwlocOS{hwlocObject: o, name: o.attrs["name"], kind: h.osKind(o), pci: pci, numa: numa, cpus: cpus}
			if x.name == "" {
				h.warn(o.line, "an OSDev without a name")
				break
			}
			all = append(all, x)
			if pci != "" {
				n.PCI[at[pci]].Names = append(n.PCI[at[pci]].Names, x.name)
			}
		}
		for _, c := range o.children {
			walk(c, host, parent, pci, numa, cpus)
		}
	}
	walk(h.root, "", "", "", -1, topology.CPUSet{})
	slices.SortStableFunc(n.PCI, func(a, b topology.PCIDevice) int {
		return cmp.Or(cmp.Compare(len(a.Address), len(b.Address)), strings.Compare(a.Address, b.Address))
	})
	h.gpus(n, all)
	h.fabrics(n, all)
	for _, x := range all {
		if x.kind&osNetwork != 0 {
			i := topology.Interface{Name: x.name, Kind: "ethernet"}
			if strings.Count(x.infos["Address"], ":") == 19 {
				i.Kind = "infiniband" // 20 octets
			}
			n.Interfaces = append(n.Interfaces, i)
		}
	}
	slices.SortStableFunc(n.Interfaces, func(a, b topology.Interface) int { return compareNatural(a.Name, b.Name) })
}

// place returns the NUMA node, -1 if not one, and the PUs near what hangs from
// an object.
func (h *hwlocFile) place(n *topology.Node, o *hwlocObject) (int, topology.CPUSet) {
	numa := -1
	domains := 0
	for _, d := range n.NUMA {
		switch {
		case d.CPUs.IsEmpty():
		case o.cpus.IsEmpty():
		case d.CPUs.Contains(o.cpus):
			if numa < 0 || d.Index < numa {
				numa = d.Index
			}
			domains = 1
		case d.CPUs.Overlaps(o.cpus):
			domains += 2
		}
	}
	if o == h.root && domains != 1 && len(n.NUMA) > 0 {
		return -1, topology.CPUSet{}
	}
	return numa, o.cpus
}

// pciDevice reads a device or bridge: pci_busid 0000:01:00.0, pci_type
// "0302 [10de:1db8] [10de:131d] a1 00" (class, device, subsystem, revision and,
// from version 3, programming interface).
func (h *hwlocFile) pciDevice(o *hwlocObject) (topology.PCIDevice, bool) {
	d := topology.PCIDevice{Address: strings.ToLower(o.attrs["pci_busid"])}
	if !regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`).MatchString(d.Address) {
		h.warn(o.line, "pci_busid %q of a %s: expected an address such as 0000:3b:00.0", clip(d.Address), o.kind)
		return d, false
	}
	var class, sub, subVendor, revision, prog uint32
	var vendor, device uint16
	got, _ := fmt.Sscanf(o.attrs["pci_type"], "%x [%x:%x] [%x:%x] %x %x", &class, &vendor, &device, &subVendor, &sub, &revision, &prog)
	if got < 3 || class > 0xffff {
		h.warn(o.line, "pci_type %q of %s: expected class and device such as 0302 [10de:1db8]", clip(o.attrs["pci_type"]), d.Address)
		return d, false
	}
	if got == 7 {
		class = class<<8 | prog&0xff
	} else {
		class <<= 8
	}
	d.Class, d.Vendor, d.Device = class, vendor, device
	return d, true
}

// gpuName is what a compute library calls a GPU.
type gpuName struct {
	name   *regexp.Regexp
	vendor string // "": that of the PCI device
}

// gpuNames has the most absolute names first: NVML and RSMI count all GPUs, CUDA
// and OpenCL those that were visible.
func gpuNames() []gpuName {
	return []gpuName{
		{regexp.MustCompile(`^nvml([0-9]{1,4})$`), "nvidia"},
		{regexp.MustCompile(`^cuda([0-9]{1,4})$`), "nvidia"},
		{regexp.MustCompile(`^rsmi([0-9]{1,4})$`), "amd"},
		{regexp.MustCompile(`^ze([0-9]{1,4})$`), "intel"},
		{regexp.MustCompile(`^opencl[0-9]{1,4}d([0-9]{1,4})$`), ""},
	}
}

func vendorName(id uint16) string {
	switch id {
	case 0x10de:
		return "nvidia"
	case 0x1002:
		return "amd"
	case 0x8086:
		return "intel"
	}
	return ""
}

// gpus finds the GPUs. Several names may be of one; for each vendor the kind of
// name counts that most of its devices have.
func (h *hwlocFile) gpus(n *topology.Node, all []hwlocOS) {
	type named struct {
		hwlocOS
		index int
	}
	pci := map[string]topology.PCIDevice{}
	for _, d := range n.PCI {
		pci[d.Address] = d
	}
	byVendor := map[string][][]named{}
	details := map[string]map[string]string{} // infos by PCI address
	names := gpuNames()
	for _, x := range all {
		if x.pci != "" && x.kind&(osGPU|osCoprocessor) != 0 {
			if details[x.pci] == nil {
				details[x.pci] = map[string]string{}
			}
			for k, v := range x.infos {
				details[x.pci][k] = v
			}
		}
		if t, ok := x.infos["OpenCLDeviceType"]; ok && t != "GPU" {
			continue
		}
		for i, g := range names {
			m := g.name.FindStringSubmatch(x.name)
			if m == nil {
				continue
			}
			vendor := cmp.Or(g.vendor, vendorName(pci[x.pci].Vendor))
			if vendor == "" {
				break
			}
			index, _ := strconv.Atoi(m[1])
			if byVendor[vendor] == nil {
				byVendor[vendor] = make([][]named, len(names))
			}
			byVendor[vendor][i] = append(byVendor[vendor][i], named{x, index})
			break
		}
	}
	for _, vendor := range []string{"nvidia", "amd", "intel"} {
		var best []named
		for _, list := range byVendor[vendor] {
			if len(list) > len(best) {
				best = list
			}
		}
		for _, x := range best {
			g := topology.GPU{Index: x.index, Vendor: vendor, PCI: x.pci, NUMA: x.numa, CPUs: x.cpus}
			infos := x.infos
			if x.pci != "" {
				infos = details[x.pci]
			}
			g.Name = cmp.Or(infos["GPUModel"], infos["LevelZeroModel"])
			g.UUID = cmp.Or(infos["NVIDIAUUID"], infos["AMDUUID"], infos["LevelZeroUUID"])
			for _, key := range []string{"CUDAGlobalMemorySize", "RSMIVRAMSize", "OpenCLGlobalMemorySize", "LevelZeroHBMSize"} {
				if v, err := strconv.ParseUint(infos[key], 10, 50); err == nil && v > 0 {
					v <<= 10 // in kiB
					g.Memory = &v
					break
				}
			}
			n.GPUs = append(n.GPUs, g)
		}
		if len(best) == 0 {
			h.unnamedGPUs(n, vendor)
		}
	}
	seen := map[int]bool{}
	twice := false
	for _, g := range n.GPUs {
		twice = twice || seen[g.Index]
		seen[g.Index] = true
	}
	if twice {
		slices.SortStableFunc(n.GPUs, func(a, b topology.GPU) int { return strings.Compare(a.PCI, b.PCI) })
		for i := range n.GPUs {
			n.GPUs[i].Index = i
		}
		h.warnings = append(h.warnings, "hwloc XML: several GPUs have one number; they are numbered by PCI address")
	}
	slices.SortStableFunc(n.GPUs, func(a, b topology.GPU) int { return cmp.Compare(a.Index, b.Index) })
}

// unnamedGPUs finds a vendor's GPUs that no compute library has named, in the
// order of their PCI addresses.
func (h *hwlocFile) unnamedGPUs(n *topology.Node, vendor string) {
	deviceMemory := slices.ContainsFunc(n.NUMA, func(d topology.NUMANode) bool { return d.CPUs.IsEmpty() && d.Memory != nil })
	next := 0
	for _, d := range n.PCI {
		display := d.Class>>16 == 0x03 || d.Class>>8 == 0x1200
		if !display || vendorName(d.Vendor) != vendor {
			continue
		}
		render := slices.ContainsFunc(d.Names, func(s string) bool { return strings.HasPrefix(s, "renderD") })
		switch {
		case vendor == "amd" && render, vendor == "nvidia" && deviceMemory && d.Class>>8 != 0x0300:
			n.GPUs = append(n.GPUs, topology.GPU{Index: next, Vendor: vendor, PCI: d.Address, NUMA: d.NUMA, CPUs: d.CPUs})
			next++
		case vendor == "nvidia" || d.Class>>8 != 0x0300:
			h.warnings = append(h.warnings, fmt.Sprintf("hwloc XML: %s is a display device or accelerator (%04x:%04x) that no CUDA, NVML, RSMI or Level Zero device names; it does not count as a GPU",
				d.Address, d.Vendor, d.Device))
		}
	}
}

// fabrics reads the OpenFabrics devices: NodeGUID, Port1State, Port1LID,
// Port1GID0, ...
func (h *hwlocFile) fabrics(n *topology.Node, all []hwlocOS) {
	port := regexp.MustCompile(`^Port([0-9]{1,3})(State|LID|GID[0-9]{1,5})$`)
	states := []string{"", "DOWN", "INIT", "ARMED", "ACTIVE"} // enum ibv_port_state
	for _, x := range all {
		if x.kind&osOpenFabrics == 0 {
			continue
		}
		if slices.ContainsFunc(n.HCAs, func(o topology.HCA) bool { return o.Name == x.name }) {
			h.warn(x.line, "HCA %s is there twice", clip(x.name))
			continue
		}
		a := topology.HCA{Name: x.name, PCI: x.pci, NUMA: x.numa, CPUs: x.cpus,
			NodeGUID: strings.ReplaceAll(strings.ToLower(x.infos["NodeGUID"]), ":", "")}
		ports := map[int]*topology.HCAPort{}
		gids := map[int][][2]string{}
		var numbers []int
		for key, value := range x.infos {
			m := port.FindStringSubmatch(key)
			if m == nil {
				continue
			}
			number, _ := strconv.Atoi(m[1])
			p := ports[number]
			if p == nil {
				p = &topology.HCAPort{Number: number}
				ports[number] = p
				numbers = append(numbers, number)
			}
			switch m[2] {
			case "State":
				if v, err := strconv.Atoi(value); err == nil && v > 0 && v < len(states) {
					p.State = states[v]
				}
			case "LID":
				if v, err := strconv.ParseUint(value, 0, 32); err == nil {
					lid := uint32(v)
					p.LID = &lid
				}
			default:
				gids[number] = append(gids[number], [2]string{m[2], value})
			}
		}
		slices.Sort(numbers)
		for _, number := range numbers {
			slices.SortFunc(gids[number], func(a, b [2]string) int { return compareNatural(a[0], b[0]) })
			for _, g := range gids[number] {
				ports[number].GIDs = append(ports[number].GIDs, g[1])
			}
			a.Ports = append(a.Ports, *ports[number])
		}
		n.HCAs = append(n.HCAs, a)
	}
	slices.SortStableFunc(n.HCAs, func(a, b topology.HCA) int { return compareNatural(a.Name, b.Name) })
}

// compareNatural orders names with numbers as numbers: mlx5_2 before mlx5_10.
func compareNatural(a, b string) int {
	digits := func(s string) int {
		k := 0
		for k < len(s) && s[k] >= '0' && s[k] <= '9' {
			k++
		}
		return k
	}
	for a != "" && b != "" {
		i, j := digits(a), digits(b)
		if i == 0 || j == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, y := strings.TrimLeft(a[:i], "0"), strings.TrimLeft(b[:j], "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y), cmp.Compare(i, j)); c != 0 {
			return c
		}
		a, b = a[i:], b[j:]
	}
	return cmp.Compare(len(a), len(b))
}

// hwlocArch is GOARCH for the kernel's word.
func hwlocArch(s string) string {
	switch s {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i486", "i586", "i686":
		return "386"
	}
	return s
}
