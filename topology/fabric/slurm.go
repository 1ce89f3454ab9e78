package fabric

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// slurmTree collects what Slurm's files say of switches and blocks, whichever of
// their syntaxes it is in.
type slurmTree struct {
	warner
	f        topology.Fabric
	switches map[string]int // index in f.Switches
	lines    []int          // of each switch
	children []childList
	hosts    map[string]int
	hostLine []int
	blocks   map[string]int // lines
	inBlock  map[string]string
	expanded int
}

type childList struct {
	parent int
	names  []string
	line   int
}

func newSlurmTree(file string) *slurmTree {
	return &slurmTree{warner: warner{file: file}, switches: map[string]int{}, hosts: map[string]int{},
		blocks: map[string]int{}, inBlock: map[string]string{}}
}

// expand reads a hostlist; what is wrong with it is a warning.
func (t *slurmTree) expand(line int, what, list string) []string {
	if t.expanded > maxHosts {
		t.at(line, "lists beyond the bound", "%s: the file names more than %d hosts and switches: left out", what, maxHosts)
		return nil
	}
	names, err := topology.ExpandHosts(list)
	if err != nil {
		t.at(line, "lists that can't be read", "%s: %v: the list is left out", what, err)
		return nil
	}
	t.expanded += len(names)
	return names
}

func (t *slurmTree) addSwitch(line int, name, nodes, switches string) {
	names := t.expand(line, "switch name", name)
	if len(names) != 1 {
		if len(names) > 1 {
			t.at(line, "lists of switches defined at once", "%q names %d switches: one line defines one", clip(name), len(names))
		}
		return
	}
	if i, ok := t.switches[name]; ok {
		t.at(line, "switches defined twice", "switch %s is defined a second time, first in line %d: this line is left out", clip(name), t.lines[i])
		return
	}
	i := len(t.f.Switches)
	t.switches[name] = i
	t.f.Switches = append(t.f.Switches, topology.Switch{Name: name})
	t.lines = append(t.lines, line)
	if nodes == "" && switches == "" {
		t.at(line, "switches with nothing below", "switch %s has neither nodes nor switches", clip(name))
	}
	if nodes != "" {
		for _, h := range t.expand(line, "nodes of switch "+clip(name), nodes) {
			if k, ok := t.hosts[h]; ok {
				t.at(line, "nodes under two switches", "node %s is under switch %s already, in line %d: a tree has one place for it, the first is used",
					clip(h), clip(t.f.Hosts[k].Ports[0].Switch), t.hostLine[k])
				continue
			}
			t.hosts[h] = len(t.f.Hosts)
			t.f.Hosts = append(t.f.Hosts, topology.FabricHost{Name: h, Ports: []topology.FabricPort{{Switch: name}}})
			t.hostLine = append(t.hostLine, line)
		}
	}
	if switches != "" {
		t.children = append(t.children, childList{i, t.expand(line, "switches of switch "+clip(name), switches), line})
	}
}

func (t *slurmTree) addBlock(line int, name, nodes string) {
	if names := t.expand(line, "block name", name); len(names) != 1 {
		if len(names) > 1 {
			t.at(line, "lists of blocks defined at once", "%q names %d blocks: one line defines one", clip(name), len(names))
		}
		return
	}
	if first, ok := t.blocks[name]; ok {
		t.at(line, "blocks defined twice", "block %s is defined a second time, first in line %d: this line is left out", clip(name), first)
		return
	}
	t.blocks[name] = line
	b := topology.Block{Name: name}
	if nodes == "" {
		t.at(line, "blocks without nodes", "block %s has no nodes", clip(name))
	} else {
		for _, h := range t.expand(line, "nodes of block "+clip(name), nodes) {
			if other, ok := t.inBlock[h]; ok {
				t.at(line, "nodes in two blocks", "node %s is in block %s already, in line %d: the first is used", clip(h), clip(other), t.blocks[other])
				continue
			}
			t.inBlock[h] = name
			b.Hosts = append(b.Hosts, h)
			if _, ok := t.hosts[h]; !ok {
				t.hosts[h] = len(t.f.Hosts)
				t.f.Hosts = append(t.f.Hosts, topology.FabricHost{Name: h})
				t.hostLine = append(t.hostLine, line)
			}
		}
	}
	t.f.Blocks = append(t.f.Blocks, b)
}

// setSizes takes the sizes of blocks and of their aggregates, in nodes.
func (t *slurmTree) setSizes(line int, words []string) {
	if t.f.BlockSizes != nil {
		t.at(line, "second sizes of blocks", "the sizes of blocks are given a second time: the first are used")
		return
	}
	var sizes []int
	for _, w := range words {
		n, err := strconv.Atoi(strings.TrimSpace(w))
		if err != nil || n < 1 || n > maxHosts {
			t.at(line, "sizes that can't be read", "block size %q: expected numbers of nodes, as in 4,8: no sizes are used", clip(w))
			return
		}
		if k := len(sizes); k > 0 && (n <= sizes[k-1] || n%sizes[k-1] != 0) {
			t.at(line, "sizes that don't nest", "block size %d is no multiple of %d before it: it is left out", n, sizes[k-1])
			continue
		}
		sizes = append(sizes, n)
	}
	t.f.BlockSizes = sizes
}

// finish links switches to their parents and returns the fabric.
func (t *slurmTree) finish() (topology.Fabric, error) {
	linked := map[[2]int]bool{}
	for _, c := range t.children {
		up := &t.f.Switches[c.parent]
		for _, name := range c.names {
			i, ok := t.switches[name]
			switch {
			case !ok:
				t.at(c.line, "switches that are not defined", "switch %s is below %s but defined nowhere: left out", clip(name), clip(up.Name))
				continue
			case i == c.parent || t.under(c.parent, i):
				t.at(c.line, "switches in a circle", "switch %s is below %s, which is below %s itself: this link of the circle is left out", clip(name), clip(up.Name), clip(name))
				continue
			case linked[[2]int{c.parent, i}]:
				continue
			}
			down := &t.f.Switches[i]
			if down.Parent != "" {
				t.at(c.line, "switches below two", "switch %s is below %s already: a tree has one place for it, the first is used", clip(name), clip(down.Parent))
				continue
			}
			linked[[2]int{c.parent, i}] = true
			down.Parent = up.Name
			down.Links = append(down.Links, topology.SwitchLink{To: up.Name, Count: 1})
			up.Links = append(up.Links, topology.SwitchLink{To: down.Name, Count: 1})
		}
	}
	roots := 0
	hasTree := false
	for _, s := range t.f.Switches {
		if s.Parent == "" {
			roots++
		} else {
			hasTree = true
		}
	}
	if hasTree && roots > 1 {
		t.at(0, "", "%d switches have none above them: the tree is in parts that are not connected", roots)
	}
	if len(t.f.Blocks) > 0 && len(t.f.Switches) > 0 {
		t.at(0, "", "the file has switches and blocks: Slurm reads the ones its TopologyPlugin says; blocks are used here")
	}
	if t.f.BlockSizes != nil && len(t.f.Blocks) == 0 {
		t.at(0, "", "sizes of blocks are given, but no block")
	}
	t.f.Warnings = t.warnings()
	if len(t.f.Switches) == 0 && len(t.f.Blocks) == 0 {
		why := "no switch and no block is defined there"
		if len(t.f.Warnings) > 0 {
			why += "; " + t.f.Warnings[0]
		}
		return t.f, fmt.Errorf("%s: %s", t.file, why)
	}
	return t.f, nil
}

// under says whether switch i is below switch above, by the parents so far,
// which form no circle.
func (t *slurmTree) under(i, above int) bool {
	for p := t.f.Switches[i].Parent; p != ""; p = t.f.Switches[i].Parent {
		if i = t.switches[p]; i == above {
			return true
		}
	}
	return false
}

// readSlurm reads topology.conf as topology.conf(5) describes it.
func readSlurm(text, name string) (topology.Fabric, error) {
	t := newSlurmTree(name)
	for _, l := range joinLines(text) {
		if words := strings.Fields(l.text); strings.EqualFold(words[0], "include") {
			return topology.Fabric{}, fmt.Errorf("%s: the file includes another: put what it includes in its place", t.place(l.no))
		}
		keys := map[string]string{}
		var order []string
		for _, w := range slurmWords(l.text) {
			k, v, ok := strings.Cut(w, "=")
			lower := strings.ToLower(strings.TrimSpace(k))
			switch {
			case !ok:
				t.at(l.no, "words that can't be read", "%q: expected Key=value", clip(w))
				continue
			case !slices.Contains([]string{"switchname", "nodes", "switches", "linkspeed", "blockname", "blocksizes"}, lower):
				t.at(l.no, "keys that are not known", "the key %s is not known: left out", clip(k))
				continue
			}
			if _, ok := keys[lower]; ok {
				t.at(l.no, "keys that stand twice", "%s stands twice: the first is used", clip(k))
				continue
			}
			keys[lower] = v
			order = append(order, lower)
		}
		has := func(k string) bool { return slices.Contains(order, k) }
		switch {
		case has("switchname"):
			t.addSwitch(l.no, keys["switchname"], keys["nodes"], keys["switches"])
		case has("blockname"):
			t.addBlock(l.no, keys["blockname"], keys["nodes"])
		case has("blocksizes"):
		case len(order) > 0:
			t.at(l.no, "lines without a name", "the line names no switch and no block: it is left out")
		}
		if has("blocksizes") {
			t.setSizes(l.no, strings.Split(keys["blocksizes"], ","))
		}
	}
	return t.finish()
}

type confLine struct {
	no   int // where it begins
	text string
}

// joinLines drops comments, joins lines that end in a backslash, and leaves out
// empty ones.
func joinLines(text string) []confLine {
	var out []confLine
	var b strings.Builder
	start, n := 0, 0
	flush := func() {
		if s := strings.TrimSpace(b.String()); s != "" {
			out = append(out, confLine{start, s})
		}
		b.Reset()
		start = 0
	}
	for line := range strings.Lines(text) {
		n++
		if start == 0 {
			start = n
		}
		line, _, _ = strings.Cut(cleanLine(line), "#")
		line = strings.TrimRight(line, " \t")
		if more, ok := strings.CutSuffix(line, `\`); ok {
			b.WriteString(more)
			continue
		}
		b.WriteString(line)
		flush()
	}
	flush()
	return out
}

// slurmWords cuts a line into Key=value words; blanks around '=' and inside
// quotes belong to the word.
func slurmWords(s string) []string {
	var out []string
	var b strings.Builder
	quotes := false
	flush := func() {
		if b.Len() > 0 {
			out = append(out, b.String())
			b.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		blank := c == ' ' || c == '\t'
		switch {
		case c == '"':
			quotes = !quotes
		case blank && !quotes:
			rest := strings.TrimLeft(s[i:], " \t")
			w := b.String()
			if strings.HasPrefix(rest, "=") || w != "" && w[len(w)-1] == '=' {
				i = len(s) - len(rest) - 1
				continue
			}
			flush()
		default:
			b.WriteByte(c)
		}
	}
	flush()
	return out
}
