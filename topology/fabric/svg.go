package fabric

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"

	"gangway/topology"
)

// Sizes of the picture, in pixels of its own coordinates.
const (
	svgChar = 7.3 // width of a character: monospace of 12 px
	svgLine = 18.0
	svgPad  = 8.0
	svgGap  = 10.0
)

// svgColours are fills by rail, then round again.
func svgColour(rail int) string {
	return [...]string{"#cfe2f3", "#d9ead3", "#fff2cc", "#f4cccc", "#d9d2e9", "#d0e0e3", "#fce5cd", "#ead1dc"}[rail%8]
}

// svgBox is a rectangle with text and others in it, in the manner of lstopo.
type svgBox struct {
	w, h     float64
	title    string
	tip      string
	fill     string
	children []svgPlaced
}

type svgPlaced struct {
	x, y float64
	box  *svgBox
}

// WriteSVG draws d as nested boxes, as lstopo draws a machine: a box for what
// the same switches connect, in it the leaf sets with their leaves, coloured by
// rail, and their hosts; hosts with fewer ports than most of their set are
// dashed. It is one file of plain shapes and text.
func WriteSVG(w io.Writer, d Document) error {
	p := painter{d: d, facts: facts(d.Fabric), rail: map[string]int{}, ports: map[string]int{}}
	for _, r := range d.Rails {
		for _, l := range r.Leaves {
			p.rail[l] = r.Index
		}
	}
	p.leaves = map[string][]string{}
	for _, h := range d.Hosts {
		p.ports[h.Name] = len(h.Ports)
		for _, x := range h.Ports {
			p.leaves[h.Name] = append(p.leaves[h.Name], x.Switch)
		}
	}
	root := p.domain(d.Domains)
	summary := d.Summary.String()
	width := math.Max(root.w, textWidth(summary)) + 2*svgGap
	height := root.h + svgLine + 3*svgGap
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" font-weight="bold">%s</text>`+"\n", svgGap, svgGap+13, escape(summary))
	root.paint(b, svgGap, svgLine+2*svgGap)
	fmt.Fprintln(b, "</svg>")
	return b.Flush()
}

type painter struct {
	d      Document
	facts  map[string]*switchFacts
	rail   map[string]int
	ports  map[string]int      // of hosts
	leaves map[string][]string // of hosts
}

func textWidth(s string) float64 { return float64(len([]rune(s)))*svgChar + 2*svgPad }

func textBox(title, fill string) *svgBox {
	return &svgBox{w: textWidth(title), h: svgLine + 4, title: title, fill: fill}
}

// domain is the box of a domain.
func (p *painter) domain(d topology.Domain) *svgBox {
	if len(d.Children) == 0 {
		return p.leafSet(d)
	}
	name := d.Name
	if name == "" {
		name = "parts that are not connected"
	}
	box := &svgBox{title: fmt.Sprintf("%s  %s", name, count(countHosts(d), "host", "hosts")), fill: "#f5f5f5"}
	var switches, below []*svgBox
	for _, s := range expandName(d.Name) {
		if x := p.facts[s]; x != nil {
			c := textBox(s+" "+cableText(x), "#dddddd")
			switches = append(switches, c)
		}
	}
	for _, c := range d.Children {
		below = append(below, p.domain(c))
	}
	cols := math.Ceil(math.Sqrt(float64(len(below)) * 1.6 * aspect(below)))
	if len(below) <= 4 {
		cols = float64(len(below))
	}
	rows, w := flow(below, int(cols), math.Inf(1))
	heads, _ := flow(switches, 0, math.Max(w, 600))
	box.stack(heads, rows)
	return box
}

// aspect is how much higher than wide boxes are, so that the whole gets a shape
// that fits a screen.
func aspect(boxes []*svgBox) float64 {
	var w, h float64
	for _, b := range boxes {
		w, h = w+b.w, h+b.h
	}
	return math.Max(h/w, 0.05)
}

// cableText is a switch's cables in short: ↑ up, ↓ down, ↔ across.
func cableText(x *switchFacts) string {
	var out []string
	for _, c := range []struct {
		sign string
		c    cables
	}{{"↑", x.up}, {"↔", x.side}, {"↓", x.down}} {
		if c.c.count > 0 {
			out = append(out, fmt.Sprintf("%s%d/%d", c.sign, c.c.count, c.c.to))
		}
	}
	return strings.Join(out, " ")
}

// leafSet is the box of a leaf set: its leaves, then its hosts.
func (p *painter) leafSet(d topology.Domain) *svgBox {
	box := &svgBox{title: count(len(d.Hosts), "host", "hosts"), fill: "white"}
	seen := map[string]bool{}
	most := 0
	widest := 0.0
	for _, h := range d.Hosts {
		most = max(most, p.ports[h])
		widest = math.Max(widest, textWidth(h))
		for _, l := range p.leaves[h] {
			seen[l] = true
		}
	}
	var leaves, hosts []*svgBox
	for _, s := range p.d.Switches { // in natural order
		x := p.facts[s.Name]
		if !seen[s.Name] {
			continue
		}
		label := s.Name + " " + cableText(x)
		fill := "#dddddd"
		if r, ok := p.rail[s.Name]; ok {
			label, fill = fmt.Sprintf("rail %d %s", r, label), svgColour(r)
		}
		if x.unnamed > 0 {
			label += fmt.Sprintf(" +%d unnamed", x.unnamed)
		}
		leaves = append(leaves, textBox(label, fill))
	}
	if len(leaves) == 0 {
		box.title = d.Name + "  " + box.title
	}
	for _, h := range d.Hosts {
		c := textBox(h, "#ffffff")
		c.w = widest
		if p.ports[h] < most {
			c.fill = "dashed"
			c.tip = fmt.Sprintf("%s: %d of %d ports", h, p.ports[h], most)
		}
		hosts = append(hosts, c)
	}
	heads, w := flow(leaves, 1, math.Inf(1))
	for _, l := range leaves {
		l.w = w
	}
	cols := int(math.Max((w+svgGap/2)/(widest+svgGap/2), math.Sqrt(float64(len(hosts))*svgLine*2/widest)))
	grid, _ := flow(hosts, max(cols, 1), math.Inf(1))
	box.stack(heads, grid)
	return box
}

// flow sets boxes in rows of at most cols (0: any number) and at most width;
// it returns them placed from 0,0 and the width used.
func flow(boxes []*svgBox, cols int, width float64) ([]svgPlaced, float64) {
	var out []svgPlaced
	var x, y, row, used float64
	n := 0
	for _, b := range boxes {
		if n > 0 && (cols > 0 && n == cols || x+b.w > width) {
			x, y, row, n = 0, y+row+svgGap/2, 0, 0
		}
		out = append(out, svgPlaced{x, y, b})
		x += b.w + svgGap/2
		row = math.Max(row, b.h)
		used = math.Max(used, x-svgGap/2)
		n++
	}
	return out, used
}

// stack puts groups of placed boxes below the title and each other, and sizes b.
func (b *svgBox) stack(groups ...[]svgPlaced) {
	b.w, b.h = textWidth(b.title), svgPad+svgLine
	for _, g := range groups {
		bottom := b.h
		for _, c := range g {
			c.x, c.y = c.x+svgPad, c.y+b.h
			b.children = append(b.children, c)
			b.w = math.Max(b.w, c.x+c.box.w+svgPad)
			bottom = math.Max(bottom, c.y+c.box.h)
		}
		if len(g) > 0 {
			b.h = bottom + svgPad
		}
	}
}

func (b *svgBox) paint(w io.Writer, x, y float64) {
	fill, dash := b.fill, ""
	if fill == "dashed" {
		fill, dash = "#fff8e1", ` stroke-dasharray="4 2"`
	}
	fmt.Fprintf(w, `<g><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="%s" stroke="#555"%s/>`, x, y, b.w, b.h, fill, dash)
	fmt.Fprintf(w, `<text x="%.1f" y="%.1f">%s</text>`, x+svgPad, y+15, escape(b.title))
	if b.tip != "" {
		fmt.Fprintf(w, `<title>%s</title>`, escape(b.tip))
	}
	fmt.Fprintln(w, "</g>")
	for _, c := range b.children {
		c.box.paint(w, x+c.x, y+c.y)
	}
}

// escape makes text safe inside XML, whatever a device called itself.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(printable(s))) // a Builder takes all
	return b.String()
}

// expandName takes the folded names of switches apart again; nil if they were
// cut short.
func expandName(name string) []string {
	var out []string
	for _, part := range strings.Split(name, "+") {
		l, err := topology.ExpandHosts(part)
		if err != nil {
			return nil
		}
		out = append(out, l...)
	}
	return out
}
