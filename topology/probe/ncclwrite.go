package probe

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"gangway/topology"
)

// WriteNCCL writes a topology file for NCCL_TOPO_FILE, which tells NCCL of
// virtual machines what their sysfs hides: NUMA nodes with their cpus, and the
// PCI tree of the GPUs and adapters. NVLinks are left to NCCL, which asks the
// driver. It returns the writer's error.
func WriteNCCL(w io.Writer, n topology.Node) error {
	var b strings.Builder
	b.WriteString("<system version=\"1\">\n")
	below := map[string][]topology.PCIDevice{}
	known := map[string]bool{}
	for _, d := range n.PCI {
		known[d.Address] = true
	}
	for _, d := range n.PCI {
		if !known[d.Parent] || d.Parent == d.Address {
			d.Parent = ""
		}
		below[d.Parent] = append(below[d.Parent], d)
	}
	wanted := ncclWanted(n)
	for _, node := range n.NUMA {
		fmt.Fprintf(&b, "  <cpu numaid=\"%d\" affinity=\"%s\"%s>\n", node.Index, maskText(node.CPUs), archText(n.Arch))
		for _, d := range below[""] {
			if d.NUMA == node.Index {
				writeNCCLDevice(&b, n, d, below, wanted, 2)
			}
		}
		b.WriteString("  </cpu>\n")
	}
	b.WriteString("</system>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// ncclWanted are the addresses of GPUs and adapters, and of the bridges above.
func ncclWanted(n topology.Node) map[string]bool {
	parents := map[string]string{}
	for _, d := range n.PCI {
		parents[d.Address] = d.Parent
	}
	wanted := map[string]bool{}
	mark := func(address string) {
		for ; address != "" && !wanted[address]; address = parents[address] {
			wanted[address] = true
		}
	}
	for _, g := range n.GPUs {
		mark(g.PCI)
	}
	for _, h := range n.HCAs {
		mark(h.PCI)
	}
	return wanted
}

func writeNCCLDevice(b *strings.Builder, n topology.Node, d topology.PCIDevice, below map[string][]topology.PCIDevice, wanted map[string]bool, depth int) {
	if !wanted[d.Address] || depth > maxNCCLDepth {
		return
	}
	indent := strings.Repeat("  ", depth)
	fmt.Fprintf(b, "%s<pci busid=\"%s\" class=\"0x%06x\"", indent, d.Address, d.Class)
	if d.Vendor != 0 {
		fmt.Fprintf(b, " vendor=\"0x%04x\" device=\"0x%04x\"", d.Vendor, d.Device)
	}
	if d.LinkGTs > 0 {
		fmt.Fprintf(b, " link_speed=\"%.1f GT/s PCIe\"", d.LinkGTs)
	}
	if d.LinkWidth > 0 {
		fmt.Fprintf(b, " link_width=\"%d\"", d.LinkWidth)
	}
	b.WriteString(">\n")
	for _, g := range n.GPUs {
		if g.PCI == d.Address {
			fmt.Fprintf(b, "%s  <gpu dev=\"%d\"/>\n", indent, g.Index)
		}
	}
	for _, h := range n.HCAs {
		if h.PCI != d.Address || h.Name == h.PCI {
			continue
		}
		fmt.Fprintf(b, "%s  <nic>\n", indent)
		for _, p := range h.Ports {
			var name strings.Builder
			_ = xml.EscapeText(&name, []byte(h.Name)) // a Builder does not fail
			fmt.Fprintf(b, "%s    <net name=\"%s\" port=\"%d\"", indent, name.String(), p.Number)
			if p.Gbps != nil {
				fmt.Fprintf(b, " speed=\"%.0f\"", *p.Gbps*1000)
			}
			if h.NodeGUID != "" {
				fmt.Fprintf(b, " guid=\"0x%s\"", h.NodeGUID)
			}
			b.WriteString("/>\n")
		}
		fmt.Fprintf(b, "%s  </nic>\n", indent)
	}
	for _, k := range below[d.Address] {
		writeNCCLDevice(b, n, k, below, wanted, depth+1)
	}
	fmt.Fprintf(b, "%s</pci>\n", indent)
}

func archText(goarch string) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64", "ppc64le": "ppc64"}[goarch]
	if arch == "" {
		return ""
	}
	return fmt.Sprintf(" arch=%q", arch)
}

// maskText is the kernel's mask format, the highest word first.
func maskText(c topology.CPUSet) string {
	words := []uint32{0}
	for _, pu := range c.Slice() {
		for len(words) <= pu/32 {
			words = append(words, 0)
		}
		words[pu/32] |= 1 << (pu % 32)
	}
	var parts []string
	for i := range words {
		parts = append(parts, fmt.Sprintf("%08x", words[len(words)-1-i]))
	}
	return strings.Join(parts, ",")
}
