package fabric

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// WriteYAML writes f as Gangway's own YAML, which Read gives back as it is.
func WriteYAML(w io.Writer, f topology.Fabric) error {
	b := bufio.NewWriter(w)
	if f.Ignored != 0 {
		fmt.Fprintf(b, "ignored: %d\n", f.Ignored)
	}
	list := func(key string, n int) {
		if n > 0 {
			fmt.Fprintf(b, "%s:\n", key)
		}
	}
	list("switches", len(f.Switches))
	for _, s := range f.Switches {
		fmt.Fprintf(b, "  - name: %s\n", quote(s.Name))
		if s.GUID != "" {
			fmt.Fprintf(b, "    guid: %s\n", quote(s.GUID))
		}
		if s.Parent != "" {
			fmt.Fprintf(b, "    parent: %s\n", quote(s.Parent))
		}
		if len(s.Links) > 0 {
			fmt.Fprintf(b, "    links:\n")
		}
		for _, l := range s.Links {
			fmt.Fprintf(b, "      - {to: %s, count: %d%s}\n", quote(l.To), l.Count, speed(l.Gbps))
		}
	}
	list("hosts", len(f.Hosts))
	for _, h := range f.Hosts {
		fmt.Fprintf(b, "  - name: %s\n", quote(h.Name))
		if len(h.Ports) > 0 {
			fmt.Fprintf(b, "    ports:\n")
		}
		for _, p := range h.Ports {
			fmt.Fprintf(b, "      - %s\n", portText(p))
		}
	}
	list("unnamed", len(f.Unnamed))
	for _, p := range f.Unnamed {
		fmt.Fprintf(b, "  - %s\n", portText(p))
	}
	list("blocks", len(f.Blocks))
	for _, x := range f.Blocks {
		fmt.Fprintf(b, "  - name: %s\n", quote(x.Name))
		if len(x.Hosts) > 0 {
			fmt.Fprintf(b, "    hosts:\n")
		}
		for _, h := range x.Hosts {
			fmt.Fprintf(b, "      - %s\n", quote(h))
		}
	}
	list("block_sizes", len(f.BlockSizes))
	for _, n := range f.BlockSizes {
		fmt.Fprintf(b, "  - %d\n", n)
	}
	list("warnings", len(f.Warnings))
	for _, s := range f.Warnings {
		fmt.Fprintf(b, "  - %s\n", quote(s))
	}
	return b.Flush()
}

// quote writes a string as JSON does, which YAML reads the same way.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return string(b)
}

func speed(g *float64) string {
	if g == nil {
		return ""
	}
	return ", gbps: " + strconv.FormatFloat(*g, 'f', -1, 64)
}

func portText(p topology.FabricPort) string {
	var b strings.Builder
	b.WriteByte('{')
	if p.HCA != "" {
		b.WriteString("hca: " + quote(p.HCA) + ", ")
	}
	if p.GUID != "" {
		b.WriteString("guid: " + quote(p.GUID) + ", ")
	}
	if p.Port != 0 {
		fmt.Fprintf(&b, "port: %d, ", p.Port)
	}
	b.WriteString("switch: " + quote(p.Switch))
	if p.SwitchPort != 0 {
		fmt.Fprintf(&b, ", switch_port: %d", p.SwitchPort)
	}
	return b.String() + speed(p.Gbps) + "}"
}

// WriteSlurmTree writes f as a topology.conf for Slurm's topology/tree. Slurm
// has one place for a node, so the tree is that of f.Domains(): a leaf set is
// one switch, named after its first leaf (set-leaf1), and the switches above that connect
// the same leaf sets are one. Names keep letters, digits, '.', '_' and '-'.
// Hosts without a port, which Slurm would refuse to know nothing of, are named
// in a comment. It fails if f has no host with a port.
func WriteSlurmTree(w io.Writer, f topology.Fabric) error {
	top := f.Domains()
	if len(top.Hosts) == 0 && len(top.Children) == 0 {
		return fmt.Errorf("the fabric has no host with a port: there is nothing to write for Slurm")
	}
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "# topology.conf for TopologyPlugin=topology/tree")
	placed, nodes, names := map[string]bool{}, slurmNames{}, slurmNames{}
	var write func(d topology.Domain) string
	write = func(d topology.Domain) string {
		name := names.domain(d.Name)
		if len(d.Children) == 0 {
			if name != d.Name {
				fmt.Fprintf(b, "# leaf set %s\n", comment(d.Name))
			}
			for _, h := range d.Hosts {
				placed[h] = true
			}
			fmt.Fprintf(b, "SwitchName=%s Nodes=%s\n", name, nodes.list(d.Hosts))
			return name
		}
		var below []string
		for _, c := range d.Children {
			below = append(below, write(c))
		}
		if d.Name != "" && name != d.Name {
			fmt.Fprintf(b, "# switches %s\n", comment(d.Name))
		}
		slices.SortFunc(below, topology.CompareNatural)
		fmt.Fprintf(b, "SwitchName=%s Switches=%s\n", name, foldSlurm(below))
		return name
	}
	write(top)
	writeUnplaced(b, f, placed)
	return b.Flush()
}

// WriteSlurmBlocks writes f as a topology.conf for Slurm's topology/block: a
// leaf set is a block. Where f states no sizes, the base size is that of the
// smallest block with which Slurm's rules hold, and one aggregate is all blocks.
func WriteSlurmBlocks(w io.Writer, f topology.Fabric) error {
	var leaves []topology.Domain
	var walk func(d topology.Domain)
	walk = func(d topology.Domain) {
		if len(d.Hosts) > 0 {
			leaves = append(leaves, d)
		}
		for _, c := range d.Children {
			walk(c)
		}
	}
	walk(f.Domains())
	if len(leaves) == 0 {
		return fmt.Errorf("the fabric has no host with a port: there is nothing to write for Slurm")
	}
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "# topology.conf for TopologyPlugin=topology/block")
	placed, nodes, names := map[string]bool{}, slurmNames{}, slurmNames{}
	sizes := f.BlockSizes
	base := len(leaves[0].Hosts)
	for _, d := range leaves {
		name := names.domain(d.Name)
		if name != d.Name {
			fmt.Fprintf(b, "# leaf set %s\n", comment(d.Name))
		}
		for _, h := range d.Hosts {
			placed[h] = true
		}
		base = min(base, len(d.Hosts))
		fmt.Fprintf(b, "BlockName=%s Nodes=%s\n", name, nodes.list(d.Hosts))
	}
	if len(sizes) == 0 {
		sizes = []int{base}
		// Aggregates are powers of two of blocks; the last is all of them.
		if n := 1; len(leaves) > 1 {
			for n*2 <= len(leaves) {
				n *= 2
			}
			sizes = append(sizes, base*n)
		}
	}
	words := make([]string, len(sizes))
	for i, n := range sizes {
		words[i] = strconv.Itoa(n)
	}
	fmt.Fprintf(b, "BlockSizes=%s\n", strings.Join(words, ","))
	writeUnplaced(b, f, placed)
	return b.Flush()
}

func writeUnplaced(w io.Writer, f topology.Fabric, placed map[string]bool) {
	var out []string
	for _, h := range f.Hosts {
		if !placed[h.Name] {
			out = append(out, slurmName(h.Name))
		}
	}
	if len(out) > 0 {
		fmt.Fprintf(w, "# without a port: %s\n", foldSlurm(out))
	}
}

// comment keeps foreign text within one comment.
func comment(s string) string {
	return strings.TrimRight(printable(strings.Join(strings.Fields(s), " ")), `\`)
}

// slurmNames gives out names that Slurm takes, each once.
type slurmNames map[string]bool

func (used slurmNames) give(name, fallback string) string {
	if name = slurmName(name); name == "" {
		name = fallback
	}
	unique := name
	for n := 2; used[unique]; n++ {
		unique = name + "-" + strconv.Itoa(n)
	}
	used[unique] = true
	return unique
}

// domain names a domain after its first switch.
func (used slurmNames) domain(name string) string {
	first, _, more := strings.Cut(name, "+")
	if strings.Contains(first, "[") {
		if l, err := topology.ExpandHosts(first); err == nil {
			first, more = l[0], true
		}
	}
	if more {
		// In front, so that a number at the end stays there, where Slurm folds it.
		first = "set-" + first
	}
	return used.give(first, "all")
}

// list is the hostlist of hosts.
func (used slurmNames) list(hosts []string) string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = used.give(h, "host")
	}
	return foldSlurm(out)
}

// foldSlurm writes names as a hostlist in Slurm's way, which takes a range at
// the end of a name only.
func foldSlurm(names []string) string {
	prefix := func(s string) string { return strings.TrimRight(s, "0123456789") }
	var out []string
	for i := 0; i < len(names); {
		j := i + 1
		for p := prefix(names[i]); j < len(names) && len(p) < len(names[i]) && len(p) < len(names[j]) && prefix(names[j]) == p; j++ {
		}
		out = append(out, topology.CompactHosts(names[i:j]))
		i = j
	}
	return strings.Join(out, ",")
}

// slurmName replaces what would mean something else in a hostlist.
func slurmName(s string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '-'
	}, s), "-")
}
