package topology

import (
	"fmt"
	"slices"
	"strings"
)

// hang puts the PCI tree, GPUs and HCAs where they are near.
func hang(root *object, n Node) {
	numa := map[int]CPUSet{}
	for _, d := range n.NUMA {
		numa[d.Index] = d.CPUs
	}
	near := func(cpus CPUSet, node int) *object {
		if cpus = cpus.Intersect(root.cpus); cpus.IsEmpty() {
			cpus = numa[node]
		}
		return root.holder(cpus)
	}
	at := map[string]*object{}
	var order []*object
	for _, d := range n.PCI {
		if at[d.Address] != nil {
			continue
		}
		o := &object{kind: kindPCI, name: "PCI", id: shortAddress(d.Address), attrs: []string{pciClass(d.Class)}, pci: d}
		if d.Bridge() {
			o = &object{kind: kindBridge, name: "PCIBridge", pci: d}
		}
		at[d.Address] = o
		order = append(order, o)
	}
	left := osDevices(n, at)
	type bridge struct {
		host string
		at   *object
	}
	hosts := map[bridge]*object{}
	for _, o := range order {
		if parent := at[o.pci.Parent]; parent != nil && !circular(at, o.pci) {
			parent.devices = append(parent.devices, o)
			continue
		}
		where := near(o.pci.CPUs, o.pci.NUMA)
		key := bridge{o.pci.Host, where}
		if hosts[key] == nil {
			hosts[key] = &object{kind: kindHost, name: "HostBridge"}
			where.devices = append(where.devices, hosts[key])
		}
		hosts[key].devices = append(hosts[key].devices, o)
	}
	for _, d := range left {
		where := near(d.cpus, d.numa)
		where.devices = append(where.devices, d.object)
	}
}

// circular reports whether the bridges above d never end, or above all that is
// sensible.
func circular(at map[string]*object, d PCIDevice) bool {
	for range 64 {
		o := at[d.Parent]
		if o == nil {
			return false
		}
		d = o.pci
	}
	return true
}

// loose is a device whose place in the PCI tree is unknown.
type loose struct {
	object *object
	cpus   CPUSet
	numa   int
}

// osDevices names what is on the PCI devices and returns what is on none.
func osDevices(n Node, at map[string]*object) []loose {
	var left []loose
	known := map[string]bool{}
	put := func(address string, o *object, cpus CPUSet, numa int) {
		if p := at[address]; p != nil {
			p.devices = append(p.devices, o)
			return
		}
		left = append(left, loose{o, cpus, numa})
	}
	gpus := map[string]bool{}
	for _, g := range n.GPUs {
		o := &object{kind: kindGPU, name: "GPU", id: fmt.Sprintf("%q", gpuDeviceName(g)),
			attrs: []string{g.Name, memoryText(g.Memory, ""), migCount(g), g.Health.Problem}, grey: g.Health.Problem != ""}
		o.lines = []string{g.Name, memoryText(g.Memory, ""), migCount(g), g.Health.Problem}
		gpus[g.PCI] = true
		put(g.PCI, o, g.CPUs, g.NUMA)
	}
	for _, h := range n.HCAs {
		o := &object{kind: kindHCA, name: "OpenFabrics", id: fmt.Sprintf("%q", h.Name)}
		for _, p := range h.Ports {
			s := strings.TrimSpace(p.State + " " + gbpsText(p.Gbps))
			if len(h.Ports) > 1 {
				s = strings.TrimSpace(fmt.Sprintf("port %d %s", p.Number, s))
			}
			o.attrs = append(o.attrs, s)
		}
		o.lines = o.attrs
		known[h.Name] = true
		put(h.PCI, o, h.CPUs, h.NUMA)
	}
	nets := map[string]Interface{}
	for _, i := range n.Interfaces {
		nets[i.Name] = i
	}
	for _, d := range n.PCI {
		done := map[string]bool{}
		for _, name := range d.Names {
			if known[name] || done[name] {
				continue
			}
			done[name] = true
			o := &object{kind: kindDevice, name: deviceKind(d, name, gpus[d.Address]), id: fmt.Sprintf("%q", name)}
			if i, ok := nets[name]; ok {
				o.name = "Net"
				if i.SpeedMbps != nil {
					o.attrs = []string{speedText(*i.SpeedMbps)}
					o.lines = o.attrs
				}
			}
			if o.name != "" && at[d.Address].pci.Address == d.Address {
				at[d.Address].devices = append(at[d.Address].devices, o)
			}
		}
	}
	return left
}

// deviceKind is lstopo's word for a name on a device; "" if the name is but
// another one of a device that is drawn.
func deviceKind(d PCIDevice, name string, gpu bool) string {
	switch d.Class >> 16 {
	case 0x01:
		return "Block"
	case 0x02:
		return "Net"
	case 0x03, 0x0b, 0x12:
		if gpu || strings.HasPrefix(name, "control") || strings.HasPrefix(name, "render") || strings.HasPrefix(name, "opencl") {
			return ""
		}
		if d.Class>>16 != 0x03 {
			return "CoProc"
		}
		return "GPU"
	}
	return "Device"
}

// gpuDeviceName is the GPU's name in the world of its driver.
func gpuDeviceName(g GPU) string {
	switch g.Vendor {
	case "nvidia":
		return fmt.Sprintf("cuda%d", g.Index)
	case "amd":
		return fmt.Sprintf("rsmi%d", g.Index)
	}
	return fmt.Sprintf("gpu%d", g.Index)
}

func migCount(g GPU) string {
	switch {
	case len(g.MIG) == 1:
		return "1 MIG instance"
	case len(g.MIG) > 1:
		return fmt.Sprintf("%d MIG instances", len(g.MIG))
	case g.MIGMode:
		return "no MIG instance"
	}
	return ""
}

// shortAddress leaves out the domain 0000, as lspci does.
func shortAddress(s string) string { return strings.TrimPrefix(s, "0000:") }

// pciClass is a class in lspci's words, in short.
func pciClass(class uint32) string {
	switch class >> 8 {
	case 0x0100:
		return "SCSI"
	case 0x0101:
		return "IDE"
	case 0x0104:
		return "RAID"
	case 0x0106:
		return "SATA"
	case 0x0107:
		return "SAS"
	case 0x0108:
		return "NVMExp"
	case 0x0200:
		return "Ethernet"
	case 0x0207, 0x0c06:
		return "InfiniBand"
	case 0x0208:
		return "Fabric"
	case 0x0300:
		return "VGA"
	case 0x0302:
		return "3D"
	case 0x0380:
		return "Display"
	case 0x0502:
		return "CXLMem"
	case 0x0680:
		return "Bridge"
	case 0x0b40:
		return "Co-Processor"
	case 0x1200:
		return "ProcAccel"
	}
	switch class >> 16 {
	case 0x01:
		return "Storage"
	case 0x02:
		return "Network"
	case 0x03:
		return "Display"
	case 0x0b:
		return "Processor"
	}
	return fmt.Sprintf("class %04x", class>>8)
}

// linkText is what a PCIe link carries in each direction, in 10^9 bytes/s: the
// transfers of its lanes less the encoding's share; "" unknown.
func linkText(d PCIDevice) string {
	if d.LinkGTs <= 0 || d.LinkWidth <= 0 {
		return ""
	}
	share := 128.0 / 130
	if d.LinkGTs <= 5 {
		share = 0.8
	}
	v := d.LinkGTs * float64(d.LinkWidth) * share / 8
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func gbpsText(v *float64) string {
	if v == nil {
		return ""
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", *v), ".0") + "Gb/s"
}

// renderGPUs lists the GPUs with what the tree has no room for.
func (t *textWriter) renderGPUs(list []GPU) {
	if len(list) == 0 {
		return
	}
	t.line(0, "GPUs")
	for _, g := range list {
		fields := []string{fmt.Sprintf("GPU%d", g.Index), g.Vendor, g.Name, memoryText(g.Memory, ""), shortAddress(g.PCI), numaWords(g.NUMA)}
		if g.Driver != "" {
			fields = append(fields, "driver "+g.Driver)
		}
		t.line(1, words(fields...)+notes(healthWords(g.Health)...))
		if g.MIGMode && len(g.MIG) == 0 {
			t.line(2, "MIG: no instance, it can't be used")
		}
		for _, m := range g.MIG {
			t.line(2, words(fmt.Sprintf("MIG %d", m.Index), m.Profile, memoryText(m.Memory, ""), m.UUID))
		}
	}
}

// healthWords are what should be known of a GPU's state before it is used.
func healthWords(h Health) []string {
	var out []string
	if h.Problem != "" {
		out = append(out, "do not use: "+h.Problem)
	}
	for _, c := range []struct {
		n    *uint64
		what string
	}{{h.Corrected, "corrected ECC errors"}, {h.Uncorrected, "uncorrected ECC errors"}, {h.RetiredPages, "retired pages or rows"}} {
		if c.n != nil && *c.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", *c.n, c.what))
		}
	}
	if h.RemapPending != nil && *h.RemapPending {
		out = append(out, "repair needs a reset")
	}
	if h.RemapFailed != nil && *h.RemapFailed {
		out = append(out, "repair failed")
	}
	if len(h.XIDs) > 0 {
		out = append(out, "XID "+strings.Trim(strings.Join(strings.Fields(fmt.Sprint(h.XIDs)), ", "), "[]"))
	}
	if len(h.Throttle) > 0 {
		out = append(out, "throttled: "+strings.Join(h.Throttle, ", "))
	}
	if h.TemperatureC != nil {
		out = append(out, fmt.Sprintf("%d°C", *h.TemperatureC))
	}
	return out
}

func (t *textWriter) renderHCAs(list []HCA) {
	if len(list) == 0 {
		return
	}
	t.line(0, "Host channel adapters")
	for _, h := range list {
		fields := []string{h.Name, h.Type, h.Board}
		if h.Firmware != "" {
			fields = append(fields, "firmware "+h.Firmware)
		}
		t.line(1, words(append(fields, shortAddress(h.PCI), numaWords(h.NUMA))...))
		for _, p := range h.Ports {
			rate := p.Rate
			if rate == "" {
				rate = gbpsText(p.Gbps)
			}
			fields := []string{fmt.Sprintf("port %d", p.Number), p.State, p.PhysState, p.LinkLayer, rate}
			if p.LID != nil && *p.LID != 0 {
				fields = append(fields, fmt.Sprintf("lid %d", *p.LID))
			}
			t.line(2, words(append(fields, p.Netdev)...))
		}
	}
}

func numaWords(i int) string {
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("NUMA %d", i)
}

// words joins what is not empty.
func words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), " ")
}

// renderDistances prints the matrix of GPUs and HCAs in columns as narrow as
// they can be; what has no room goes below.
func (t *textWriter) renderDistances(m DistanceMatrix) {
	if len(m.Devices) < 2 {
		return
	}
	t.line(0, "Distances (nvidia-smi topo -m's words; gangway probe --matrix has cpus and legend)")
	rows := make([]string, len(m.Devices))
	heads := make([]string, len(m.Devices))
	nics, wide := 0, 0
	var legend []string
	for i, d := range m.Devices {
		rows[i], heads[i] = d.Name, "G"+strings.TrimPrefix(d.Name, "GPU")
		if d.NIC {
			rows[i], heads[i] = fmt.Sprintf("NIC%d", nics), fmt.Sprintf("N%d", nics)
			legend = append(legend, rows[i]+" "+d.Name)
			nics++
		}
		wide = max(wide, len(rows[i]))
	}
	if (wide+1)*(len(rows)+1)+2 <= renderColumns {
		heads = rows
	}
	cols := 4
	for _, s := range heads {
		cols = max(cols, len(s))
	}
	blocks := (len(rows)*(cols+1)-1)/(renderColumns-3-wide) + 1
	per := (len(rows) + blocks - 1) / blocks
	for from := 0; from < len(rows); from += per {
		to := min(from+per, len(rows))
		text := fmt.Sprintf("%-*s", wide, "")
		for _, s := range heads[from:to] {
			text += fmt.Sprintf(" %-*s", cols, s)
		}
		t.raw(1, text)
		for i, s := range rows {
			text = fmt.Sprintf("%-*s", wide, s)
			for j := from; j < to; j++ {
				text += fmt.Sprintf(" %-*s", cols, strings.TrimSpace(cell(m, i, j)))
			}
			t.raw(1, text)
		}
	}
	if len(legend) > 0 {
		t.line(1, strings.Join(legend, ", "))
	}
}
