package fabric

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"gangway/topology"
)

// Bounds on what lists of names expand to together.
const (
	maxLinks = 1 << 20
	maxPorts = 1 << 20
)

// readYAML reads Gangway's own description, as YAML or as the JSON of `gangway
// fabric show`, and Slurm's topology.yaml, which is a list of topologies.
func readYAML(text, name string) (topology.Fabric, error) {
	var docs []*node
	var bad *fault
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		docs, bad = parseJSON(text)
	} else {
		docs, bad = parseYAML(text)
	}
	switch {
	case bad != nil:
		return topology.Fabric{}, bad.err(name, text)
	case len(docs) == 0:
		return topology.Fabric{}, fmt.Errorf("%s: the file is empty", name)
	case len(docs) > 1:
		return topology.Fabric{}, (&fault{docs[1].at, "a second document begins here: a file describes one fabric"}).err(name, text)
	}
	doc := docs[0]
	switch doc.kind {
	case sequence:
		return readSlurmYAML(doc, name)
	case mapping:
		o := own{at: map[string]int{}, hostAt: map[string]bool{}, linkAt: map[linkKey]place{}}
		o.document(doc)
		if len(o.faults) > 0 {
			return topology.Fabric{}, o.faults[0].err(name, text)
		}
		return o.f, nil
	}
	return topology.Fabric{}, (&fault{doc.at, "this is no description of a fabric: give what ibnetdiscover printed, a topology.conf, or YAML with switches and hosts"}).err(name, text)
}

// err words a fault with its place and the line itself.
func (b *fault) err(name, text string) error {
	n := 0
	for line := range strings.Lines(text) {
		if n++; n != b.at.line {
			continue
		}
		line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", " ")
		column := min(b.at.column, len([]rune(line))+1)
		if runes := []rune(line); len(runes) > 120 { // a window around the place
			from := max(0, column-60)
			line = string(runes[from:min(from+120, len(runes))])
			column -= from
		}
		margin := fmt.Sprintf("  %d | ", n)
		return fmt.Errorf("%s:%d:%d: %s\n%s%s\n%s^", name, b.at.line, b.at.column, b.message, margin, line, strings.Repeat(" ", len(margin)+column-1))
	}
	return fmt.Errorf("%s:%d:%d: %s", name, b.at.line, b.at.column, b.message)
}

// parseJSON reads a JSON document into nodes.
func parseJSON(text string) ([]*node, *fault) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	line, column, seen := 1, 1, int64(0)
	here := func() place {
		for _, c := range text[seen:d.InputOffset()] {
			if column++; c == '\n' {
				line, column = line+1, 1
			}
		}
		seen = d.InputOffset()
		return place{line, column}
	}
	fail := func(err error) *fault {
		var s *json.SyntaxError
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &fault{here(), "the JSON ends too early: is the file whole?"}
		}
		if errors.As(err, &s) {
			return &fault{here(), "the JSON can't be read: " + s.Error()}
		}
		return &fault{here(), "the JSON can't be read"}
	}
	var value func(depth int) (*node, *fault)
	value = func(depth int) (*node, *fault) {
		t, err := d.Token()
		if err != nil {
			return nil, fail(err)
		}
		at := here()
		if depth > maxDepth*4 { // domains nest as deep as a tree's switches
			return nil, &fault{at, "the nesting is too deep"}
		}
		switch t := t.(type) {
		case json.Delim:
			n := &node{kind: sequence, at: at}
			if t == '{' {
				n.kind = mapping
			}
			for d.More() {
				var p pair
				if n.kind == mapping {
					k, err := d.Token()
					if err != nil {
						return nil, fail(err)
					}
					p.key, _ = k.(string)
					p.at = here()
				}
				v, f := value(depth + 1)
				if f != nil {
					return nil, f
				}
				if n.kind == mapping {
					p.value = v
					n.pairs = append(n.pairs, p)
				} else {
					n.items = append(n.items, v)
				}
			}
			if _, err := d.Token(); err != nil {
				return nil, fail(err)
			}
			return n, nil
		case nil:
			return &node{kind: null, at: at}, nil
		}
		return &node{kind: scalar, at: at, text: fmt.Sprint(t)}, nil
	}
	n, f := value(0)
	if f != nil {
		return nil, f
	}
	if d.More() {
		return nil, &fault{here(), "something follows the document"}
	}
	return []*node{n}, nil
}

// own reads Gangway's own description. Its faults stop it: who writes a file by
// hand is told, not guessed at.
type own struct {
	f        topology.Fabric
	faults   []fault
	at       map[string]int // switches
	hostAt   map[string]bool
	linkAt   map[linkKey]place
	links    []stated
	ports    []statedPort
	parents  []statedName
	expanded int
	nports   int
}

// linkKey is the cables of one speed between two switches, told by the first.
type linkKey struct {
	from, to string
	gbps     float64 // 0: not told
}

type stated struct {
	linkKey
	count int
	at    place
}

type statedPort struct {
	name string
	at   place
}

type statedName struct {
	child, parent string
	at            place
}

func (o *own) bad(at place, format string, args ...any) {
	o.faults = append(o.faults, fault{at, fmt.Sprintf(format, args...)})
}

func (o *own) document(doc *node) {
	known := false
	for _, p := range doc.pairs {
		switch p.key {
		case "switches":
			known = true
			o.each(p, o.addSwitch)
		case "hosts":
			known = true
			o.each(p, o.addHosts)
		case "unnamed":
			o.each(p, func(n *node) {
				if port, ok := o.port(n); ok {
					o.f.Unnamed = append(o.f.Unnamed, port)
				}
			})
		case "blocks":
			known = true
			o.each(p, o.addBlock)
		case "block_sizes":
			o.each(p, func(n *node) {
				size := o.number(n, 1, maxHosts)
				if k := len(o.f.BlockSizes); k > 0 && size%o.f.BlockSizes[k-1] != 0 {
					o.bad(n.at, "block size %d is no multiple of %d before it", size, o.f.BlockSizes[k-1])
				}
				o.f.BlockSizes = append(o.f.BlockSizes, max(size, 1))
			})
		case "ignored":
			o.f.Ignored = o.number(p.value, 0, math.MaxInt32)
		case "warnings":
			o.each(p, func(n *node) { o.f.Warnings = append(o.f.Warnings, o.text(n)) })
		case "summary", "domains", "rails": // of gangway's JSON: they follow from the rest
		default:
			o.bad(p.at, "the key %q is not known: a fabric has switches, hosts, unnamed, blocks, block_sizes, ignored", clip(p.key))
		}
	}
	if !known {
		o.bad(doc.at, "no switches, hosts or blocks are given here")
	}
	o.finish()
}

func (o *own) each(p pair, do func(*node)) {
	switch p.value.kind {
	case null:
	case sequence:
		for _, n := range p.value.items {
			do(n)
		}
	default:
		o.bad(p.value.at, "%s is a list, but this is %s", p.key, p.value.kind)
	}
}

func (o *own) text(n *node) string {
	if n.kind != scalar {
		o.bad(n.at, "expected a single value, found %s", n.kind)
	}
	return n.text
}

func (o *own) number(n *node, lo, hi int) int {
	v, err := strconv.Atoi(o.text(n))
	if err != nil || v < lo || v > hi {
		o.bad(n.at, "%q: expected a whole number from %d to %d", clip(n.text), lo, hi)
		return lo
	}
	return v
}

func (o *own) gbps(n *node) *float64 {
	v, err := strconv.ParseFloat(o.text(n), 64)
	if err != nil || !(v > 0) || v > 1e6 {
		o.bad(n.at, "%q: expected a speed in Gbit/s, as 400", clip(n.text))
		return nil
	}
	return &v
}

func (o *own) guid(n *node) string {
	s := strings.TrimPrefix(strings.ToLower(o.text(n)), "0x")
	if strings.Trim(s, "0123456789abcdef") != "" || s == "" || len(s) > 32 {
		o.bad(n.at, "%q: expected a GUID of 16 hexadecimal digits", clip(n.text))
	}
	return s
}

// hostlist expands names, with a bound on all of a file.
func (o *own) hostlist(n *node) []string {
	names, err := topology.ExpandHosts(o.text(n))
	if err != nil {
		o.bad(n.at, "%v", err)
		return nil
	}
	if o.expanded += len(names); o.expanded > maxLinks {
		o.bad(n.at, "the lists of this file name more than %d hosts and switches", maxLinks)
		return nil
	}
	return names
}

// fields calls do for each key of a mapping; do says whether it knows the key.
func (o *own) fields(n *node, what, keys string, do func(p pair) bool) {
	if n.kind != mapping {
		o.bad(n.at, "%s is a mapping (%s), but this is %s", what, keys, n.kind)
		return
	}
	for _, p := range n.pairs {
		if !do(p) {
			o.bad(p.at, "the key %q is not known: %s has %s", clip(p.key), what, keys)
		}
	}
}

// named reads name (one, as it is) or names (a hostlist).
func (o *own) named(p pair, to *[]string) bool {
	switch p.key {
	case "name":
		*to = append(*to, o.text(p.value))
		if p.value.text == "" {
			o.bad(p.value.at, "a name is missing")
		}
	case "names":
		*to = append(*to, o.hostlist(p.value)...)
	default:
		return false
	}
	return true
}

func (o *own) addSwitch(n *node) {
	var names []string
	var s topology.Switch
	type link struct {
		to    []string
		count int
		gbps  *float64
		at    place
	}
	var links []link
	var parentAt place
	o.fields(n, "a switch", "name or names, guid, parent, links", func(p pair) bool {
		switch p.key {
		case "guid":
			s.GUID = o.guid(p.value)
		case "parent":
			s.Parent, parentAt = o.text(p.value), p.value.at
		case "level": // follows from the rest
		case "links":
			o.each(p, func(n *node) {
				l := link{count: 1, at: n.at}
				o.fields(n, "a link", "to or to_each, count, gbps", func(p pair) bool {
					switch p.key {
					case "to":
						l.to = append(l.to, o.text(p.value))
					case "to_each":
						l.to = append(l.to, o.hostlist(p.value)...)
					case "count":
						l.count = o.number(p.value, 1, 1<<16)
					case "gbps":
						l.gbps = o.gbps(p.value)
					default:
						return false
					}
					return true
				})
				if len(l.to) == 0 {
					o.bad(n.at, "the link does not say to which switch")
				}
				links = append(links, l)
			})
		default:
			return o.named(p, &names)
		}
		return true
	})
	if len(names) == 0 {
		o.bad(n.at, "the switch has no name")
	}
	if len(names) > 1 && s.GUID != "" {
		o.bad(n.at, "%d switches can't have one GUID", len(names))
	}
	for _, name := range names {
		if _, ok := o.at[name]; ok {
			o.bad(n.at, "switch %s stands here a second time", clip(name))
			return
		}
		o.at[name] = len(o.f.Switches)
		s := s
		s.Name = name
		o.f.Switches = append(o.f.Switches, s)
		if s.Parent != "" {
			o.parents = append(o.parents, statedName{name, s.Parent, parentAt})
		}
		for _, l := range links {
			if len(o.links)+len(l.to) > maxLinks {
				o.bad(l.at, "more than %d links", maxLinks)
				return
			}
			for _, to := range l.to {
				k := linkKey{from: name, to: to}
				if l.gbps != nil {
					k.gbps = *l.gbps
				}
				o.links = append(o.links, stated{k, l.count, l.at})
			}
		}
	}
}

func (o *own) port(n *node) (topology.FabricPort, bool) {
	var port topology.FabricPort
	o.fields(n, "a port", "hca, guid, port, switch, switch_port, gbps", func(p pair) bool {
		switch p.key {
		case "hca":
			port.HCA = o.text(p.value)
		case "guid":
			port.GUID = o.guid(p.value)
		case "port":
			port.Port = o.number(p.value, 0, 1<<16)
		case "switch":
			port.Switch = o.text(p.value)
			o.ports = append(o.ports, statedPort{port.Switch, p.value.at})
		case "switch_port":
			port.SwitchPort = o.number(p.value, 0, 1<<16)
		case "gbps":
			port.Gbps = o.gbps(p.value)
		default:
			return false
		}
		return true
	})
	if port.Switch == "" && n.kind == mapping {
		o.bad(n.at, "the port does not say on which switch it is")
	}
	return port, port.Switch != ""
}

func (o *own) addHosts(n *node) {
	var names []string
	var ports []topology.FabricPort
	o.fields(n, "a host", "name or names, ports, or switch", func(p pair) bool {
		switch {
		case p.key == "switch":
			ports = append(ports, topology.FabricPort{Switch: o.text(p.value)})
			o.ports = append(o.ports, statedPort{p.value.text, p.value.at})
		case p.key == "ports" && p.value.kind == mapping: // HCA: switch
			for _, q := range p.value.pairs {
				ports = append(ports, topology.FabricPort{HCA: q.key, Switch: o.text(q.value)})
				o.ports = append(o.ports, statedPort{q.value.text, q.value.at})
			}
		case p.key == "ports":
			o.each(p, func(n *node) {
				if port, ok := o.port(n); ok {
					ports = append(ports, port)
				}
			})
		default:
			return o.named(p, &names)
		}
		return true
	})
	if len(names) == 0 {
		o.bad(n.at, "the host has no name")
	}
	if o.nports += len(names) * len(ports); o.nports > maxPorts {
		o.bad(n.at, "more than %d ports of hosts", maxPorts)
		return
	}
	for _, name := range names {
		if o.hostAt[name] {
			o.bad(n.at, "host %s stands here a second time", clip(name))
			return
		}
		o.hostAt[name] = true
		o.f.Hosts = append(o.f.Hosts, topology.FabricHost{Name: name, Ports: append([]topology.FabricPort(nil), ports...)})
	}
}

func (o *own) addBlock(n *node) {
	var b topology.Block
	o.fields(n, "a block", "name, hosts", func(p pair) bool {
		switch {
		case p.key == "name":
			b.Name = o.text(p.value)
		case p.key == "hosts" && p.value.kind == scalar:
			b.Hosts = append(b.Hosts, o.hostlist(p.value)...)
		case p.key == "hosts":
			o.each(p, func(n *node) { b.Hosts = append(b.Hosts, o.text(n)) })
		default:
			return false
		}
		return true
	})
	if b.Name == "" {
		o.bad(n.at, "the block has no name")
	}
	o.f.Blocks = append(o.f.Blocks, b)
}

// finish checks that names lead somewhere and gives both ends their links.
func (o *own) finish() {
	for _, p := range o.ports {
		if _, ok := o.at[p.name]; !ok {
			o.bad(p.at, "switch %q is not among the switches", clip(p.name))
			return
		}
	}
	inBlock := map[string]bool{}
	for _, b := range o.f.Blocks {
		for _, h := range b.Hosts {
			if inBlock[h] {
				o.bad(place{1, 1}, "host %q is in two blocks", clip(h))
				return
			}
			inBlock[h] = true
			if !o.hostAt[h] {
				o.hostAt[h] = true
				o.f.Hosts = append(o.f.Hosts, topology.FabricHost{Name: h})
			}
		}
	}
	counts := map[linkKey]int{}
	for _, l := range o.links {
		switch _, ok := o.at[l.to]; {
		case !ok:
			o.bad(l.at, "switch %q is not among the switches", clip(l.to))
			return
		case l.to == l.from:
			o.bad(l.at, "switch %q is linked to itself", clip(l.to))
			return
		}
		if counts[l.linkKey] != 0 {
			o.bad(l.at, "the link from %q to %q stands twice", clip(l.from), clip(l.to))
			return
		}
		if n := counts[linkKey{l.to, l.from, l.gbps}]; n != 0 && n != l.count {
			o.bad(l.at, "%q tells a count of %d to %q, which tells %d back", clip(l.from), l.count, clip(l.to), n)
			return
		}
		counts[l.linkKey] = l.count
	}
	done := map[linkKey]bool{}
	add := func(k linkKey, n int) {
		if done[k] {
			return
		}
		done[k] = true
		l := topology.SwitchLink{To: k.to, Count: n}
		if k.gbps > 0 {
			l.Gbps = &k.gbps
		}
		s := &o.f.Switches[o.at[k.from]]
		s.Links = append(s.Links, l)
	}
	for _, l := range o.links {
		add(l.linkKey, l.count)
		add(linkKey{l.to, l.from, l.gbps}, l.count)
	}
	o.checkParents()
}

// checkParents refuses parents that are not there or form a circle.
func (o *own) checkParents() {
	state := make([]int, len(o.f.Switches)) // 0: not seen, else the walk that saw it
	for walk, p := range o.parents {
		if _, ok := o.at[p.parent]; !ok {
			o.bad(p.at, "switch %q is not among the switches", clip(p.parent))
			return
		}
		for i := o.at[p.child]; state[i] == 0 || state[i] == walk+1; {
			if state[i] == walk+1 {
				o.bad(p.at, "switch %q is below itself: the parents form a circle", clip(o.f.Switches[i].Name))
				return
			}
			state[i] = walk + 1
			j, ok := o.at[o.f.Switches[i].Parent]
			if !ok {
				break
			}
			i = j
		}
	}
}

// readSlurmYAML reads Slurm's topology.yaml, as topology.yaml(5) describes it:
// the default topology, else the first that is a tree or of blocks.
func readSlurmYAML(doc *node, name string) (topology.Fabric, error) {
	t := newSlurmTree(name)
	var chosen *node
	for _, n := range doc.items {
		if n.kind != mapping || n.get("topology") == nil {
			t.at(n.at.line, "items that are no topology", "this is no topology of Slurm's topology.yaml: left out")
			continue
		}
		if n.get("tree") == nil && n.get("block") == nil {
			continue
		}
		if d := n.get("cluster_default"); chosen == nil || d != nil && strings.EqualFold(d.text, "true") {
			if chosen != nil {
				t.at(chosen.at.line, "other topologies", "topology %s is not the cluster's default: left out", clip(chosen.get("topology").text))
			}
			chosen = n
			if d != nil && strings.EqualFold(d.text, "true") {
				break
			}
		} else {
			t.at(n.at.line, "other topologies", "topology %s is not the cluster's default: left out", clip(n.get("topology").text))
		}
	}
	if chosen == nil {
		return topology.Fabric{}, fmt.Errorf("%s: no topology with a tree or blocks is there", name)
	}
	str := func(n *node) string {
		if n == nil || n.kind != scalar {
			return ""
		}
		return n.text
	}
	for _, n := range chosen.get("tree").get("switches").list() {
		if str(n.get("switch")) == "" {
			t.at(n.at.line, "switches without a name", "a switch without a name: left out")
			continue
		}
		t.addSwitch(n.at.line, str(n.get("switch")), str(n.get("nodes")), str(n.get("children")))
	}
	block := chosen.get("block")
	for _, n := range block.get("blocks").list() {
		if str(n.get("block")) == "" {
			t.at(n.at.line, "blocks without a name", "a block without a name: left out")
			continue
		}
		t.addBlock(n.at.line, str(n.get("block")), str(n.get("nodes")))
	}
	if sizes := block.get("block_sizes"); sizes != nil {
		var words []string
		for _, n := range sizes.list() {
			words = append(words, str(n))
		}
		t.setSizes(sizes.at.line, words)
	}
	return t.finish()
}

// get returns a mapping's value, nil if there is none.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// list returns a list's items.
func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	return n.items
}
