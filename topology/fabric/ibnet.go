package fabric

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// The output of ibnetdiscover (infiniband-diags) is records of nodes:
//
//	switchguid=0x…(…)
//	Switch	65 "S-<guid>"		# "<description>" enhanced port 0 lid 73 lmc 0
//	[1]	"H-<guid>"[1](<port guid>) 		# "<description>" lid 647 4xNDR
//	Ca	1 "H-<guid>"		# "<description>"
//	[1](<port guid>) 	"S-<guid>"[65]		# lid 193 lmc 0 "<description>" lid 73 4xNDR
//
// so each cable stands in both its ends' records. With -g, "[ext 7]" follows
// port numbers and lines with Chassis group records.

// ibNode is a switch (S), channel adapter (H) or router (R).
type ibNode struct {
	id      string // "S-…", as written
	desc    string
	line    int // of its record; 0: it is only another's neighbour
	seen    int // line of the first mention
	ignored bool
	ports   map[int]*ibCable
	linked  int  // links in its own record
	claimed bool // one of its links was given up for another
}

func (n *ibNode) kind() byte   { return n.id[0] }
func (n *ibNode) guid() string { return n.id[2:] }

// ibCable is a cable; a is the end whose record it was first found in.
type ibCable struct {
	a, b   *ibNode
	ap, bp int // ports
	line   int
	gbps   *float64
	both   bool // found in both ends' records
}

type ibReader struct {
	warner
	nodes  map[string]*ibNode
	order  []*ibNode
	cables []*ibCable
	speeds map[float64]*float64
}

func isIBRecord(line string) bool {
	_, ok := parseIBRecord(line)
	return ok
}

func isIBLink(line string) bool {
	_, ok := parseIBLink(line)
	return ok
}

// isIBPort recognises a line of ibnetdiscover -p: "CA 12 1 0x… 4x SDR …".
func isIBPort(line string) bool {
	w := strings.Fields(line)
	if len(w) < 5 || w[0] != "CA" && w[0] != "SW" && w[0] != "RT" {
		return false
	}
	_, err1 := strconv.Atoi(w[1])
	_, err2 := strconv.Atoi(w[2])
	return err1 == nil && err2 == nil && strings.HasPrefix(w[3], "0x")
}

// ibID checks a node's id.
func ibID(s string) bool {
	return len(s) > 2 && len(s) <= 34 && strings.IndexByte("SHR", s[0]) >= 0 && s[1] == '-' &&
		strings.Trim(s[2:], "0123456789abcdefABCDEF") == ""
}

type ibRecord struct{ id, desc string }

func parseIBRecord(line string) (ibRecord, bool) {
	kind, rest, ok := strings.Cut(strings.Replace(line, "\t", " ", 1), " ")
	if !ok || kind != "Switch" && kind != "Ca" && kind != "Rt" {
		return ibRecord{}, false
	}
	_, rest, ok = strings.Cut(rest, `"`)
	if !ok {
		return ibRecord{}, false
	}
	id, rest, ok := strings.Cut(rest, `"`)
	if !ok || !ibID(id) {
		return ibRecord{}, false
	}
	desc, _ := quoted(rest)
	return ibRecord{id, desc}, true
}

// quoted returns what stands between the first and the last quote behind '#',
// and the rest of the line: a description may have quotes of its own.
func quoted(s string) (text, rest string) {
	_, s, ok := strings.Cut(s, "#")
	i, j := strings.IndexByte(s, '"'), strings.LastIndexByte(s, '"')
	if !ok || i < 0 || j <= i {
		return "", s
	}
	return strings.TrimSpace(s[i+1 : j]), s[j+1:]
}

type ibLink struct {
	port, remotePort int
	id, desc         string
	gbps             float64 // 0: not told
}

func parseIBLink(line string) (ibLink, bool) {
	var l ibLink
	port, rest, ok := bracket(line)
	if !ok {
		return l, false
	}
	l.port = port
	head, rest, ok := strings.Cut(rest, `"`)
	if !ok || strings.ContainsRune(head, '#') {
		return l, false
	}
	l.id, rest, ok = strings.Cut(rest, `"`)
	if !ok || !ibID(l.id) {
		return l, false
	}
	if l.remotePort, rest, ok = bracket(rest); !ok {
		return l, false
	}
	var tail string
	l.desc, tail = quoted(rest)
	for _, w := range strings.Fields(tail) {
		if g, ok := linkGbps(w); ok {
			l.gbps = g
			break
		}
	}
	return l, true
}

// bracket reads "[n]" at the start.
func bracket(s string) (n int, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, "[")
	if !ok {
		return 0, s, false
	}
	num, rest, ok := strings.Cut(s, "]")
	n, err := strconv.Atoi(num)
	return n, rest, ok && err == nil && n >= 0 && n <= 1<<16
}

func readIB(text, name string) (topology.Fabric, error) {
	r := &ibReader{warner: warner{file: name}, nodes: map[string]*ibNode{}, speeds: map[float64]*float64{}}
	r.lines(text)
	r.checkLinks()
	return r.fabric()
}

func (r *ibReader) lines(text string) {
	var node *ibNode
	n := 0
	for line := range strings.Lines(text) {
		n++
		whole := strings.HasSuffix(line, "\n")
		line = strings.TrimSpace(cleanLine(line))
		key, _, isKey := strings.Cut(line, "=")
		switch {
		case line == "", line[0] == '#':
		case isKey && key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz") == "":
			node = nil // vendid= and the like begin the next record
		case line[0] == '[':
			l, ok := parseIBLink(line)
			switch {
			case !ok && !whole:
				r.at(n, "cut", "the file ends in the middle of a line: it is cut off")
			case !ok:
				r.at(n, "links that can't be read", "not a link of ibnetdiscover: %q", clip(line))
			case node == nil:
				r.at(n, "links outside a record", "a link outside the record of a switch or host: %q", clip(line))
			default:
				r.link(node, l, n)
			}
		default:
			rec, ok := parseIBRecord(line)
			switch {
			case ok:
				node = r.record(rec, n)
			case !whole:
				r.at(n, "cut", "the file ends in the middle of a line: it is cut off")
			case strings.HasPrefix(line, "Chassis "), strings.HasPrefix(line, "Spine "), strings.HasPrefix(line, "Line "), strings.HasPrefix(line, "Non-Chassis"):
			default:
				r.at(n, "lines that can't be read", "not a line of ibnetdiscover: %q", clip(line))
			}
		}
	}
}

func (r *ibReader) node(id string, line int) *ibNode {
	id = id[:2] + strings.ToLower(id[2:])
	n := r.nodes[id]
	if n == nil {
		n = &ibNode{id: id, seen: line, ports: map[int]*ibCable{}}
		r.nodes[id] = n
		r.order = append(r.order, n)
	}
	return n
}

func (r *ibReader) record(rec ibRecord, line int) *ibNode {
	n := r.node(rec.id, line)
	if n.line > 0 {
		r.at(line, "GUIDs with two records", "%s has a second record, the first is in line %d: their links are taken together", rec.id, n.line)
		if n.desc != rec.desc && rec.desc != "" && n.desc != "" {
			r.at(line, "GUIDs with two descriptions", "%s is called %q here and %q in line %d: two devices with one GUID, or a name that was changed; the first is used",
				rec.id, clip(rec.desc), clip(n.desc), n.line)
		}
		return n
	}
	n.line = line
	if rec.desc != "" {
		n.desc = rec.desc
	}
	return n
}

func (r *ibReader) link(n *ibNode, l ibLink, line int) {
	m := r.node(l.id, line)
	n.linked++
	// A record's own description comes later or has come: it wins in record.
	if m.desc == "" && m.line == 0 {
		m.desc = l.desc
	}
	if n == m {
		r.at(line, "links to oneself", "port %d of %s is linked to itself: left out", l.port, n.id)
		return
	}
	x, y := n.ports[l.port], m.ports[l.remotePort]
	if x != nil && x == y {
		if x.a == m && x.ap == l.remotePort {
			x.both = true
		}
		if x.gbps == nil && l.gbps > 0 {
			x.gbps = r.speed(l.gbps)
		}
		return
	}
	if x != nil || y != nil {
		old, at, port := x, n, l.port
		if old == nil {
			old, at, port = y, m, l.remotePort
		}
		n.claimed, m.claimed = true, true
		r.at(line, "ports with two links", "port %d of %s has another link in line %d: that one is used", port, at.id, old.line)
		return
	}
	c := &ibCable{a: n, ap: l.port, b: m, bp: l.remotePort, line: line}
	if l.gbps > 0 {
		c.gbps = r.speed(l.gbps)
	}
	n.ports[l.port], m.ports[l.remotePort] = c, c
	r.cables = append(r.cables, c)
}

// speed shares one value between all links that have it.
func (r *ibReader) speed(gbps float64) *float64 {
	p := r.speeds[gbps]
	if p == nil {
		p = &gbps
		r.speeds[gbps] = p
	}
	return p
}

// checkLinks reports what one end tells and the other does not.
func (r *ibReader) checkLinks() {
	missing, example := 0, (*ibNode)(nil)
	for _, n := range r.order {
		if n.line == 0 && n.kind() != 'R' {
			if missing++; example == nil {
				example = n
			}
		}
		if n.line > 0 && n.linked == 0 {
			r.at(n.line, "records without a link", "%s (%q) has no link: its port is down, or the file is cut off here", n.id, clip(n.desc))
		}
	}
	if missing > 0 {
		r.at(example.seen, "", "%s links but no record of their own, %s first: is the file whole?", count(missing, "node has", "nodes have"), example.id)
	}
	for _, c := range r.cables {
		if !c.both && c.b.line > 0 && !c.b.claimed {
			r.at(c.line, "links told by one end", "the link from %s[%d] to %s[%d] is not in the record of the latter, line %d", c.a.id, c.ap, c.b.id, c.bp, c.b.line)
		}
	}
}

// fabric makes the model of what was read.
func (r *ibReader) fabric() (topology.Fabric, error) {
	var f topology.Fabric
	for _, n := range r.order {
		if n.kind() == 'H' && isAggregation(n.desc) {
			n.ignored = true
			f.Ignored++
		}
	}
	names := r.switchNames()
	links := map[*ibNode]map[topology.SwitchLink]int{}
	join := func(n, to *ibNode, gbps *float64) {
		if links[n] == nil {
			links[n] = map[topology.SwitchLink]int{}
		}
		links[n][topology.SwitchLink{To: names[to], Gbps: gbps}]++
	}
	ports := map[*ibNode][]topology.FabricPort{}
	for _, c := range r.cables {
		a, b, ap, bp := c.a, c.b, c.ap, c.bp
		if a.kind() == 'H' {
			a, b, ap, bp = b, a, bp, ap
		}
		switch {
		case a.ignored || b.ignored:
		case a.kind() == 'S' && b.kind() == 'S':
			join(a, b, c.gbps)
			join(b, a, c.gbps)
		case a.kind() == 'S' && b.kind() == 'H':
			ports[b] = append(ports[b], topology.FabricPort{GUID: b.guid(), Port: bp, Switch: names[a], SwitchPort: ap, Gbps: c.gbps})
		default:
			r.at(c.line, "links without a switch", "the link from %s to %s joins no switch with a switch or host: left out", c.a.id, c.b.id)
		}
	}
	for _, n := range r.order {
		if n.kind() != 'S' {
			continue
		}
		s := topology.Switch{Name: names[n], GUID: n.guid()}
		for l, count := range links[n] {
			l.Count = count
			s.Links = append(s.Links, l)
		}
		f.Switches = append(f.Switches, s)
	}
	r.hosts(&f, ports)
	f.Warnings = r.warnings()
	if len(f.Switches) == 0 {
		last := 0
		for _, n := range r.order {
			last = max(last, n.seen)
		}
		return f, fmt.Errorf("%s: no switch up to its last record: the file is cut off, run ibnetdiscover again", r.place(last))
	}
	return f, nil
}

// hosts groups the HCAs by the host that their description names.
func (r *ibReader) hosts(f *topology.Fabric, ports map[*ibNode][]topology.FabricPort) {
	at := map[string]int{}
	unset, first := 0, 0
	type hcaPort struct {
		host, hca string
	}
	owner := map[hcaPort]*ibNode{}
	for _, n := range r.order {
		if n.kind() != 'H' || n.ignored {
			continue
		}
		host, hca := hostAndHCA(n.desc)
		for i := range ports[n] {
			ports[n][i].HCA = hca
		}
		if host == "" {
			if unset++; unset == 1 {
				first = cmp.Or(n.line, n.seen)
			}
			f.Unnamed = append(f.Unnamed, ports[n]...)
			continue
		}
		if hca != "" {
			if o := owner[hcaPort{host, hca}]; o != nil {
				r.at(cmp.Or(n.line, n.seen), "HCAs of one name", "%s has two HCAs called %s, the other in line %d: two machines with one name?", clip(host), clip(hca), cmp.Or(o.line, o.seen))
			} else {
				owner[hcaPort{host, hca}] = n
			}
		}
		i, ok := at[host]
		if !ok {
			i = len(f.Hosts)
			at[host] = i
			f.Hosts = append(f.Hosts, topology.FabricHost{Name: host})
			if isNameless(host) {
				r.at(cmp.Or(n.line, n.seen), "hosts without a name", "a host calls itself %s: give it a name, and rdma-ndd will tell the subnet manager", host)
			}
		}
		f.Hosts[i].Ports = append(f.Hosts[i].Ports, ports[n]...)
	}
	if unset > 0 {
		r.at(first, "", "%s a description that names no host, this one first: %s", count(unset, "HCA has", "HCAs have"), unnamedOn(f.Unnamed))
	}
}

// unnamedOn says where ports without a host are, so that they can be found.
func unnamedOn(ports []topology.FabricPort) string {
	count := map[string]int{}
	var switches []string
	for _, p := range ports {
		if count[p.Switch]++; count[p.Switch] == 1 {
			switches = append(switches, p.Switch)
		}
	}
	slices.SortFunc(switches, topology.CompareNatural)
	var out []string
	for i, s := range switches {
		if i == 3 && len(switches) > 4 {
			return strings.Join(out, ", ") + fmt.Sprintf(" and on %d switches more; set them with rdma-ndd", len(switches)-i)
		}
		out = append(out, fmt.Sprintf("%d on %s", count[s], s))
	}
	if len(out) == 0 {
		return "not linked; set it with rdma-ndd"
	}
	return strings.Join(out, ", ") + "; set them with rdma-ndd"
}

// switchNames gives every switch a name of its own: the shortest form of its
// description that no other has, or its id.
func (r *ibReader) switchNames() map[*ibNode]string {
	names := map[*ibNode]string{}
	forms := map[*ibNode][]string{}
	for _, n := range r.order {
		if n.kind() == 'S' {
			forms[n] = append(switchNames(n.desc), n.id)
			if len(forms[n]) == 1 {
				r.at(cmp.Or(n.line, n.seen), "switches without a name", "the description of %s does not name it: %q", n.id, clip(n.desc))
			}
		}
	}
	for depth := 0; ; depth++ {
		count := map[string]int{}
		for n, f := range forms {
			names[n] = f[min(depth, len(f)-1)]
			count[names[n]]++
		}
		again := false
		for n, f := range forms {
			if count[names[n]] == 1 || len(f) == 1 {
				forms[n] = []string{names[n]}
			} else {
				again = true
			}
		}
		if !again {
			return names
		}
		if depth > 3 { // a description that is another's id
			for n := range forms {
				names[n] = n.id
			}
			return names
		}
	}
}
