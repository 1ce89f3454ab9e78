package fabric

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gangway/topology"
	"gangway/topology/yamltree"
)

// Bounds on what lists of names expand to together.
const (
	maxLinks = 1 << 20
	maxPorts = 1 << 20
)

// own reads Gangway's own description. Its faults stop it: who writes a file by
// hand is told, not guessed at.
type own struct {
	f        topology.Fabric
	faults   []yamltree.Fault
	at       map[string]int // switches
	hostAt   map[string]bool
	linkAt   map[linkKey]yamltree.Place
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
	at    yamltree.Place
}

type statedPort struct {
	name string
	at   yamltree.Place
}

type statedName struct {
	child, parent string
	at            yamltree.Place
}

func (o *own) bad(at yamltree.Place, format string, args ...any) {
	o.faults = append(o.faults, yamltree.Fault{At: at, Message: fmt.Sprintf(format, args...)})
}

func (o *own) document(doc *yamltree.Node) {
	known := false
	for _, p := range doc.Pairs {
		switch p.Key {
		case "switches":
			known = true
			o.each(p, o.addSwitch)
		case "hosts":
			known = true
			o.each(p, o.addHosts)
		case "unnamed":
			o.each(p, func(n *yamltree.Node) {
				if port, ok := o.port(n); ok {
					o.f.Unnamed = append(o.f.Unnamed, port)
				}
			})
		case "blocks":
			known = true
			o.each(p, o.addBlock)
		case "block_sizes":
			o.each(p, func(n *yamltree.Node) {
				size := o.number(n, 1, maxHosts)
				if k := len(o.f.BlockSizes); k > 0 && size%o.f.BlockSizes[k-1] != 0 {
					o.bad(n.At, "block size %d is no multiple of %d before it", size, o.f.BlockSizes[k-1])
				}
				o.f.BlockSizes = append(o.f.BlockSizes, max(size, 1))
			})
		case "ignored":
			o.f.Ignored = o.number(p.Value, 0, math.MaxInt32)
		case "warnings":
			o.each(p, func(n *yamltree.Node) { o.f.Warnings = append(o.f.Warnings, o.text(n)) })
		case "summary", "domains", "rails": // of gangway's JSON: they follow from the rest
		default:
			o.bad(p.At, "the key %q is not known: a fabric has switches, hosts, unnamed, blocks, block_sizes, ignored", clip(p.Key))
		}
	}
	if !known {
		o.bad(doc.At, "no switches, hosts or blocks are given here")
	}
	o.finish()
}

func (o *own) each(p yamltree.Pair, do func(*yamltree.Node)) {
	switch p.Value.Kind {
	case yamltree.Null:
	case yamltree.Sequence:
		for _, n := range p.Value.Items {
			do(n)
		}
	default:
		o.bad(p.Value.At, "%s is a list, but this is %s", p.Key, p.Value.Kind)
	}
}

func (o *own) text(n *yamltree.Node) string {
	if n.Kind != yamltree.Scalar {
		o.bad(n.At, "expected a single value, found %s", n.Kind)
	}
	return n.Text
}

func (o *own) number(n *yamltree.Node, lo, hi int) int {
	v, err := strconv.Atoi(o.text(n))
	if err != nil || v < lo || v > hi {
		o.bad(n.At, "%q: expected a whole number from %d to %d", clip(n.Text), lo, hi)
		return lo
	}
	return v
}

func (o *own) gbps(n *yamltree.Node) *float64 {
	v, err := strconv.ParseFloat(o.text(n), 64)
	if err != nil || !(v > 0) || v > 1e6 {
		o.bad(n.At, "%q: expected a speed in Gbit/s, as 400", clip(n.Text))
		return nil
	}
	return &v
}

func (o *own) guid(n *yamltree.Node) string {
	s := strings.TrimPrefix(strings.ToLower(o.text(n)), "0x")
	if strings.Trim(s, "0123456789abcdef") != "" || s == "" || len(s) > 32 {
		o.bad(n.At, "%q: expected a GUID of 16 hexadecimal digits", clip(n.Text))
	}
	return s
}

// hostlist expands names, with a bound on all of a file.
func (o *own) hostlist(n *yamltree.Node) []string {
	names, err := topology.ExpandHosts(o.text(n))
	if err != nil {
		o.bad(n.At, "%v", err)
		return nil
	}
	if o.expanded += len(names); o.expanded > maxLinks {
		o.bad(n.At, "the lists of this file name more than %d hosts and switches", maxLinks)
		return nil
	}
	return names
}

// fields calls do for each key of a mapping; do says whether it knows the key.
func (o *own) fields(n *yamltree.Node, what, keys string, do func(p yamltree.Pair) bool) {
	if n.Kind != yamltree.Mapping {
		o.bad(n.At, "%s is a mapping (%s), but this is %s", what, keys, n.Kind)
		return
	}
	for _, p := range n.Pairs {
		if !do(p) {
			o.bad(p.At, "the key %q is not known: %s has %s", clip(p.Key), what, keys)
		}
	}
}

// named reads name (one, as it is) or names (a hostlist).
func (o *own) named(p yamltree.Pair, to *[]string) bool {
	switch p.Key {
	case "name":
		*to = append(*to, o.text(p.Value))
		if p.Value.Text == "" {
			o.bad(p.Value.At, "a name is missing")
		}
	case "names":
		*to = append(*to, o.hostlist(p.Value)...)
	default:
		return false
	}
	return true
}

func (o *own) addSwitch(n *yamltree.Node) {
	var names []string
	var s topology.Switch
	type link struct {
		to    []string
		count int
		gbps  *float64
		at    yamltree.Place
	}
	var links []link
	var parentAt yamltree.Place
	o.fields(n, "a switch", "name or names, guid, parent, links", func(p yamltree.Pair) bool {
		switch p.Key {
		case "guid":
			s.GUID = o.guid(p.Value)
		case "parent":
			s.Parent, parentAt = o.text(p.Value), p.Value.At
		case "level": // follows from the rest
		case "links":
			o.each(p, func(n *yamltree.Node) {
				l := link{count: 1, at: n.At}
				o.fields(n, "a link", "to or to_each, count, gbps", func(p yamltree.Pair) bool {
					switch p.Key {
					case "to":
						l.to = append(l.to, o.text(p.Value))
					case "to_each":
						l.to = append(l.to, o.hostlist(p.Value)...)
					case "count":
						l.count = o.number(p.Value, 1, 1<<16)
					case "gbps":
						l.gbps = o.gbps(p.Value)
					default:
						return false
					}
					return true
				})
				if len(l.to) == 0 {
					o.bad(n.At, "the link does not say to which switch")
				}
				links = append(links, l)
			})
		default:
			return o.named(p, &names)
		}
		return true
	})
	if len(names) == 0 {
		o.bad(n.At, "the switch has no name")
	}
	if len(names) > 1 && s.GUID != "" {
		o.bad(n.At, "%d switches can't have one GUID", len(names))
	}
	for _, name := range names {
		if _, ok := o.at[name]; ok {
			o.bad(n.At, "switch %s stands here a second time", clip(name))
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

func (o *own) port(n *yamltree.Node) (topology.FabricPort, bool) {
	var port topology.FabricPort
	o.fields(n, "a port", "hca, guid, port, switch, switch_port, gbps", func(p yamltree.Pair) bool {
		switch p.Key {
		case "hca":
			port.HCA = o.text(p.Value)
		case "guid":
			port.GUID = o.guid(p.Value)
		case "port":
			port.Port = o.number(p.Value, 0, 1<<16)
		case "switch":
			port.Switch = o.text(p.Value)
			o.ports = append(o.ports, statedPort{port.Switch, p.Value.At})
		case "switch_port":
			port.SwitchPort = o.number(p.Value, 0, 1<<16)
		case "gbps":
			port.Gbps = o.gbps(p.Value)
		default:
			return false
		}
		return true
	})
	if port.Switch == "" && n.Kind == yamltree.Mapping {
		o.bad(n.At, "the port does not say on which switch it is")
	}
	return port, port.Switch != ""
}

func (o *own) addHosts(n *yamltree.Node) {
	var names []string
	var ports []topology.FabricPort
	o.fields(n, "a host", "name or names, ports, or switch", func(p yamltree.Pair) bool {
		switch {
		case p.Key == "switch":
			ports = append(ports, topology.FabricPort{Switch: o.text(p.Value)})
			o.ports = append(o.ports, statedPort{p.Value.Text, p.Value.At})
		case p.Key == "ports" && p.Value.Kind == yamltree.Mapping: // HCA: switch
			for _, q := range p.Value.Pairs {
				ports = append(ports, topology.FabricPort{HCA: q.Key, Switch: o.text(q.Value)})
				o.ports = append(o.ports, statedPort{q.Value.Text, q.Value.At})
			}
		case p.Key == "ports":
			o.each(p, func(n *yamltree.Node) {
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
		o.bad(n.At, "the host has no name")
	}
	if o.nports += len(names) * len(ports); o.nports > maxPorts {
		o.bad(n.At, "more than %d ports of hosts", maxPorts)
		return
	}
	for _, name := range names {
		if o.hostAt[name] {
			o.bad(n.At, "host %s stands here a second time", clip(name))
			return
		}
		o.hostAt[name] = true
		o.f.Hosts = append(o.f.Hosts, topology.FabricHost{Name: name, Ports: append([]topology.FabricPort(nil), ports...)})
	}
}

func (o *own) addBlock(n *yamltree.Node) {
	var b topology.Block
	o.fields(n, "a block", "name, hosts", func(p yamltree.Pair) bool {
		switch {
		case p.Key == "name":
			b.Name = o.text(p.Value)
		case p.Key == "hosts" && p.Value.Kind == yamltree.Scalar:
			b.Hosts = append(b.Hosts, o.hostlist(p.Value)...)
		case p.Key == "hosts":
			o.each(p, func(n *yamltree.Node) { b.Hosts = append(b.Hosts, o.text(n)) })
		default:
			return false
		}
		return true
	})
	if b.Name == "" {
		o.bad(n.At, "the block has no name")
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
				o.bad(yamltree.Place{Line: 1, Column: 1}, "host %q is in two blocks", clip(h))
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
