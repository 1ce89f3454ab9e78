package fabric

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"gangway/topology"
)

// Summary counts what a fabric has.
type Summary struct {
	Leaves  int `json:"leaves"`
	Spines  int `json:"spines"`          // one level above the leaves
	Cores   int `json:"cores,omitempty"` // higher
	Apart   int `json:"apart,omitempty"` // switches that are connected to no leaf
	Hosts   int `json:"hosts"`
	Ports   int `json:"ports"`             // of hosts
	Unnamed int `json:"unnamed,omitempty"` // ports of HCAs whose description names no host
	Ignored int `json:"ignored,omitempty"` // aggregation nodes
	Sets    int `json:"leaf_sets"`
	Blocks  int `json:"blocks,omitempty"`
	Rails   int `json:"rails,omitempty"` // 0: not rail-optimised
}

// Document is a fabric with what follows from it: `gangway fabric show --json`.
// Read reads it too.
type Document struct {
	topology.Fabric
	Summary Summary         `json:"summary"`
	Domains topology.Domain `json:"domains"`
	Rails   []topology.Rail `json:"rails,omitempty"`
}

// Describe works out what follows from f.
func Describe(f topology.Fabric) Document {
	d := Document{Fabric: f, Domains: f.Domains(), Rails: f.Rails()}
	s := &d.Summary
	for _, w := range f.Switches {
		switch {
		case w.Level < 0:
			s.Apart++
		case w.Level == 0:
			s.Leaves++
		case w.Level == 1:
			s.Spines++
		default:
			s.Cores++
		}
	}
	for _, h := range f.Hosts {
		s.Ports += len(h.Ports)
	}
	s.Hosts, s.Unnamed, s.Ignored, s.Rails, s.Blocks = len(f.Hosts), len(f.Unnamed), f.Ignored, len(d.Rails), len(f.Blocks)
	s.Sets = countSets(d.Domains)
	return d
}

func countSets(d topology.Domain) int {
	n := 0
	if len(d.Hosts) > 0 {
		n = 1
	}
	for _, c := range d.Children {
		n += countSets(c)
	}
	return n
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// String is the summary in one line.
func (s Summary) String() string {
	var out []string
	add := func(n int, one, many string) {
		if n > 0 {
			out = append(out, count(n, one, many))
		}
	}
	add(s.Leaves, "leaf", "leaves")
	add(s.Spines, "spine", "spines")
	add(s.Cores, "core switch", "core switches")
	add(s.Apart, "switch without hosts below", "switches without hosts below")
	add(s.Blocks, "block", "blocks")
	out = append(out, count(s.Hosts, "host", "hosts"))
	if s.Ports > s.Hosts {
		out[len(out)-1] += fmt.Sprintf(" on %d ports", s.Ports)
	}
	add(s.Rails, "rail", "rails")
	add(s.Unnamed, "port of an unnamed host", "ports of unnamed hosts")
	if s.Ignored > 0 {
		out = append(out, count(s.Ignored, "aggregation node", "aggregation nodes")+" ignored")
	}
	return strings.Join(out, ", ")
}

// Render draws d as text: a summary, the rails, the tree of switches with the
// hosts below each leaf set, each switch's links, and the warnings.
func Render(w io.Writer, d Document) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, d.Summary)
	if len(d.Rails) > 0 {
		fmt.Fprintln(b, "\nRails")
		for _, r := range d.Rails {
			fmt.Fprintf(b, "  rail %d  %-16s %s\n", r.Index, strings.Join(r.HCAs, ", "), foldList(r.Leaves))
			if len(r.Strays) > 0 {
				fmt.Fprintf(b, "          cabled differently: %s\n", some(r.Strays, 6))
			}
		}
	}
	if d.Summary.Sets > 0 {
		fmt.Fprintln(b, "\nHosts")
		renderDomain(b, d.Domains, "  ", "  ")
	}
	var loose []string
	for _, h := range d.Hosts {
		if len(h.Ports) == 0 && len(d.Blocks) == 0 {
			loose = append(loose, h.Name)
		}
	}
	if len(loose) > 0 {
		fmt.Fprintf(b, "  without a port: %s\n", foldList(loose))
	}
	renderSwitches(b, d)
	if len(d.Warnings) > 0 {
		fmt.Fprintln(b, "\nWarnings")
		for _, s := range d.Warnings {
			fmt.Fprintf(b, "  %s\n", printable(s))
		}
	}
	return b.Flush()
}

func renderDomain(w io.Writer, d topology.Domain, first, rest string) {
	name := printable(d.Name)
	if name == "" {
		name = "(parts that are not connected)"
	}
	if len(d.Children) == 0 {
		fmt.Fprintf(w, "%s%s  %s: %s\n", first, name, count(len(d.Hosts), "host", "hosts"), foldList(d.Hosts))
		return
	}
	fmt.Fprintf(w, "%s%s  %s\n", first, name, count(countHosts(d), "host", "hosts"))
	for i, c := range d.Children {
		if i < len(d.Children)-1 {
			renderDomain(w, c, rest+"├─ ", rest+"│  ")
		} else {
			renderDomain(w, c, rest+"└─ ", rest+"   ")
		}
	}
}

func countHosts(d topology.Domain) int {
	n := len(d.Hosts)
	for _, c := range d.Children {
		n += countHosts(c)
	}
	return n
}

// switchFacts is what is told of one switch.
type switchFacts struct {
	hosts, unnamed int
	up, side, down cables
}

// cables is a switch's cables in one direction.
type cables struct{ to, count int }

func (c *cables) add(n int) { c.to++; c.count += n }

func (c cables) text(dir string) string {
	if c.count == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s to %s", count(c.count, "cable", "cables"), dir, count(c.to, "switch", "switches"))
}

func facts(f topology.Fabric) map[string]*switchFacts {
	out := make(map[string]*switchFacts, len(f.Switches))
	level := make(map[string]int, len(f.Switches))
	for _, s := range f.Switches {
		out[s.Name], level[s.Name] = &switchFacts{}, s.Level
	}
	for _, s := range f.Switches {
		x := out[s.Name]
		to := map[string]int{}
		for _, l := range s.Links {
			to[l.To] += l.Count
		}
		for name, n := range to {
			switch {
			case level[name] > s.Level:
				x.up.add(n)
			case level[name] < s.Level:
				x.down.add(n)
			default:
				x.side.add(n)
			}
		}
	}
	for _, h := range f.Hosts {
		var seen []string
		for _, p := range h.Ports {
			if x := out[p.Switch]; x != nil && !slices.Contains(seen, p.Switch) {
				x.hosts++
				seen = append(seen, p.Switch)
			}
		}
	}
	for _, p := range f.Unnamed {
		if x := out[p.Switch]; x != nil {
			x.unnamed++
		}
	}
	return out
}

func renderSwitches(w io.Writer, d Document) {
	if len(d.Switches) == 0 {
		return
	}
	all := slices.Clone(d.Switches)
	slices.SortStableFunc(all, func(a, b topology.Switch) int { return b.Level - a.Level })
	width := 0
	for _, s := range all {
		width = max(width, len(printable(s.Name)))
	}
	of := facts(d.Fabric)
	fmt.Fprintln(w, "\nSwitches")
	for _, s := range all {
		x := of[s.Name]
		var parts []string
		for _, p := range []string{x.up.text("up"), x.side.text("across"), x.down.text("down")} {
			if p != "" {
				parts = append(parts, p)
			}
		}
		if x.hosts > 0 {
			parts = append(parts, count(x.hosts, "host", "hosts"))
		}
		if x.unnamed > 0 {
			parts = append(parts, count(x.unnamed, "unnamed port", "unnamed ports"))
		}
		fmt.Fprintf(w, "  %-7s %-*s  %s\n", levelName(s.Level), width, printable(s.Name), strings.Join(parts, ", "))
	}
}

func levelName(level int) string {
	switch level {
	case -1:
		return "apart"
	case 0:
		return "leaf"
	case 1:
		return "spine"
	}
	return fmt.Sprintf("level %d", level)
}

// foldList writes names as a hostlist.
func foldList(names []string) string {
	return strings.ReplaceAll(printable(topology.CompactHosts(names)), ",", ", ")
}

func some(names []string, most int) string {
	if len(names) <= most {
		return printable(strings.Join(names, ", "))
	}
	return printable(strings.Join(names[:most], ", ")) + fmt.Sprintf(" and %d more", len(names)-most)
}

// printable replaces what would act on a terminal; names come from devices.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
