package topology

import (
	"math"
	"slices"
)

// Sizes of the picture, in pixels of its own coordinates.
const (
	svgChar = 6.7 // width of a character: monospace of 11 px
	svgLine = 15.0
	svgPad  = 6.0
	svgGap  = 6.0
	svgKnot = 8.0 // a bridge
)

// svgBox is an object with its place in its parent. Bridges are knots of a
// tree: what hangs on them is beside them, not in them; likewise what caches
// serve is below their bar.
type svgBox struct {
	o          *object
	x, y, w, h float64 // with all that belongs to it
	bar        float64 // height of the rectangle, if it isn't all of h
	top        float64 // where the rectangle begins
	anchor     float64 // where a wire from the left meets it
	fill       string
	lines      []string
	tip        string
	wires      []svgWire
	kids       []*svgBox

	bars    []*svgBox // NUMA nodes, each as wide as the box, or side by side
	abreast int       // how many bars are beside each other
	grid    []*svgBox // what has cpus, in columns
	cols    int
	beside  []*svgBox // devices
	inset   float64   // of the kids
}

type svgWire struct {
	x1, y1, x2, y2 float64
	text           string
}

// svgFill are lstopo's colours.
func svgFill(k kind) string {
	switch k {
	case kindPackage, kindDevice:
		return "#dedede"
	case kindDie:
		return "#eeeeee"
	case kindNUMA:
		return "#efdfde"
	case kindCore:
		return "#bebebe"
	case kindPCI:
		return "#bed295"
	case kindGPU:
		return "#f3e3a2"
	case kindHCA:
		return "#cfe2f3"
	}
	return "#ffffff"
}

func textWidth(s string) float64 { return float64(len([]rune(s)))*svgChar + 2*svgPad }

// longest are the most characters of a line in a box.
const longest = 34

// planner lays a machine out. What is of one kind has one width, whatever its
// number: what is built alike then looks alike.
type planner struct {
	wide map[string]float64 // by kind and name
}

// layout sizes the machine and places all that belongs to it.
func layout(root *object) *svgBox {
	p := planner{map[string]float64{}}
	p.measure(root)
	return p.box(root)
}

func (p *planner) measure(o *object) {
	key := string(o.kind) + o.name
	p.wide[key] = max(p.wide[key], textWidth(svgTitle(o)))
	for _, c := range o.children {
		p.measure(c)
	}
}

// svgTitle is the text at the top of what has cpus or memory.
func svgTitle(o *object) string {
	switch o.kind {
	case kindPU:
		return o.id
	case kindNUMA, kindCache, kindMachine:
		return shorten(o.label(false), 70)
	}
	return shorten(o.label(false), longest)
}

// box sizes an object and places all that belongs to it.
func (p *planner) box(o *object) *svgBox {
	switch o.kind {
	case kindHost, kindBridge:
		return p.bridge(o)
	case kindPCI, kindDevice, kindGPU, kindHCA:
		return p.device(o)
	}
	b := &svgBox{o: o, fill: svgFill(o.kind), tip: o.label(false), inset: svgPad, lines: []string{svgTitle(o)}}
	b.w, b.h = max(textWidth(b.lines[0]), p.wide[string(o.kind)+o.name]), svgLine+5
	if o.kind == kindPU {
		b.w = max(b.w, 36)
		return b
	}
	if o.kind == kindNUMA {
		return b
	}
	if o.kind == kindCache {
		b.bar, b.inset = b.h, 0
		if len(o.children) == 0 && len(o.devices) == 0 {
			return b
		}
	}
	y := b.h + 2
	if o.kind == kindCache {
		y = b.h + svgGap/2
	}
	right := b.w
	// Memory of its own kind beside the cores' (GPUs', CXL) comes by the dozen.
	b.abreast = min(max(len(o.memory)/2, 1), 4)
	for i := 0; i < len(o.memory); i += b.abreast {
		x, high := b.inset, 0.0
		for _, m := range o.memory[i:min(i+b.abreast, len(o.memory))] {
			k := p.box(m)
			k.x, k.y = x, y
			x += k.w + svgGap/2
			high = max(high, k.h)
			b.bars = append(b.bars, k)
		}
		y += high + svgGap/2
		right = max(right, x-svgGap/2+b.inset)
	}
	for _, c := range o.children {
		b.grid = append(b.grid, p.box(c))
	}
	w, h := b.arrange(y)
	right = max(right, w+2*b.inset)
	bottom := y + h
	if len(o.devices) > 0 {
		x := right - b.inset + svgGap
		if len(b.grid)+len(b.bars) == 0 {
			x = b.inset
		}
		for _, d := range o.devices {
			b.beside = append(b.beside, p.box(d))
		}
		dw, dh := stack(b.beside, x, y, max(h, 300))
		right = max(right, x+dw+b.inset)
		bottom = max(bottom, y+dh)
	}
	grown := right - b.w
	b.w, b.h = right, bottom+b.inset
	if grown > 0 || len(b.grid)+len(b.bars) > 0 {
		b.fit()
	}
	b.kids = slices.Concat(b.bars, b.grid, b.beside)
	return b
}

// arrange puts the grid's boxes into as many columns as give a good shape,
// from y on, and returns the size of the grid.
func (b *svgBox) arrange(y float64) (w, h float64) {
	n := len(b.grid)
	if n == 0 {
		return 0, 0
	}
	ratio := 1.7
	if b.o.kind == kindCore {
		ratio = 1.1
	}
	best := math.Inf(1)
	for cols := 1; cols <= min(n, 64); cols++ {
		w, h := b.place(cols, 0)
		rows := (n + cols - 1) / cols
		score := math.Abs(math.Log(w/h/ratio)) + 6*float64(rows*cols-n)/float64(n)
		if score < best {
			best, b.cols = score, cols
		}
	}
	return b.place(b.cols, y)
}

func (b *svgBox) place(cols int, y float64) (w, h float64) {
	gap := svgGap
	if b.o.kind == kindCore {
		gap = svgGap / 3
	}
	wide := make([]float64, cols)
	for i, k := range b.grid {
		wide[i%cols] = max(wide[i%cols], k.w)
	}
	h = -gap
	for i := 0; i < len(b.grid); i += cols {
		row := b.grid[i:min(i+cols, len(b.grid))]
		high, x := 0.0, b.inset
		for j, k := range row {
			k.x, k.y = x, y+h+gap
			x += wide[j] + gap
			high = max(high, k.h)
		}
		h += high + gap
	}
	for _, v := range wide {
		w += v + gap
	}
	return w - gap, h
}

// stack puts boxes below each other, in further columns beyond a height.
func stack(list []*svgBox, x, y, height float64) (w, h float64) {
	cx, cy, wide := x, y, 0.0
	for _, k := range list {
		if cy > y && cy+k.h > y+height {
			cx, cy, wide = cx+wide+2*svgGap, y, 0
		}
		k.x, k.y = cx, cy
		cy += k.h + svgGap
		wide = max(wide, k.w)
		w, h = max(w, cx+wide-x), max(h, cy-svgGap-y)
	}
	return w, h
}

// fit makes columns and bars as wide as the room that the box has for them, and
// frames of a row as high as the highest.
func (b *svgBox) fit() {
	room := b.w - 2*b.inset
	for _, d := range b.beside {
		room = min(room, d.x-svgGap-b.inset)
	}
	for i := 0; i < len(b.bars); i += b.abreast {
		row := b.bars[i:min(i+b.abreast, len(b.bars))]
		used := svgGap / 2 * float64(len(row)-1)
		for _, k := range row {
			used += k.w
		}
		more, x := max(room-used, 0)/float64(len(row)), b.inset
		for _, k := range row {
			k.x = x
			k.widen(more)
			x += k.w + svgGap/2
		}
	}
	if len(b.grid) == 0 {
		return
	}
	wide := make([]float64, b.cols)
	left := make([]float64, b.cols)
	used := 0.0
	for i, k := range b.grid {
		c := i % b.cols
		wide[c], left[c] = max(wide[c], k.w), k.x
		used = max(used, k.x+wide[c]-b.inset)
	}
	more := max(room-used, 0) / float64(b.cols)
	for i, k := range b.grid {
		c := i % b.cols
		k.x = left[c] + more*float64(c)
		k.widen(wide[c] + more - k.w)
	}
	for i := 0; i < len(b.grid); i += b.cols {
		row := b.grid[i:min(i+b.cols, len(b.grid))]
		high := 0.0
		for _, k := range row {
			high = max(high, k.h)
		}
		for _, k := range row {
			k.heighten(high - k.h)
		}
	}
}

// widen gives the box more room: its columns share it, its devices move.
func (b *svgBox) widen(by float64) {
	if by <= 0 {
		return
	}
	b.w += by
	if len(b.grid)+len(b.bars) > 0 {
		for _, d := range b.beside {
			d.x += by
		}
	}
	b.fit()
}

// heighten makes a frame reach down as far as its neighbours do.
func (b *svgBox) heighten(by float64) {
	if by <= 0 {
		return
	}
	b.h += by
	if b.o.kind == kindCache && len(b.grid) > 0 {
		rows := (len(b.grid) + b.cols - 1) / b.cols
		if rows == 1 {
			for _, k := range b.grid {
				k.heighten(by)
			}
		}
	}
}

// bridge draws a bridge as a knot, what hangs on it as a tree to the right.
func (p *planner) bridge(o *object) *svgBox {
	b := &svgBox{o: o, fill: svgFill(o.kind), tip: words(o.label(false), o.pci.Address), bar: svgKnot}
	b.w, b.h = svgKnot, svgKnot
	reach := 2 * svgGap
	for _, d := range o.devices {
		k := p.box(d)
		b.kids = append(b.kids, k)
		if s := linkText(d.pci); s != "" {
			reach = max(reach, svgGap+textWidth(s))
		}
	}
	if len(b.kids) == 0 {
		b.anchor = svgKnot / 2
		return b
	}
	w, h := stack(b.kids, svgKnot+reach, 0, math.Inf(1))
	b.w, b.h = svgKnot+reach+w, max(h, svgKnot)
	b.anchor = max(b.kids[0].anchor, svgKnot/2)
	b.top = b.anchor - svgKnot/2
	trunk := svgKnot + svgGap
	last := b.anchor
	for i, k := range b.kids {
		last = max(last, k.y+k.anchor)
		b.wires = append(b.wires, svgWire{trunk, k.y + k.anchor, k.x, k.y + k.anchor, linkText(o.devices[i].pci)})
	}
	b.wires = append(b.wires, svgWire{svgKnot, b.anchor, trunk, b.anchor, ""}, svgWire{trunk, b.anchor, trunk, last, ""})
	return b
}

// device draws a PCI device with what the operating system sees on it.
func (p *planner) device(o *object) *svgBox {
	b := &svgBox{o: o, fill: svgFill(o.kind), tip: words(o.label(false), o.pci.Driver)}
	b.lines = []string{shorten(words(o.name, o.id), longest)}
	if o.kind == kindPCI {
		b.lines = []string{shorten(o.label(false), longest)}
	}
	for _, s := range o.lines {
		if s != "" {
			b.lines = append(b.lines, shorten(s, longest))
		}
	}
	for _, s := range b.lines {
		b.w = max(b.w, textWidth(s))
	}
	b.h = svgLine*float64(len(b.lines)) + 5
	b.anchor = b.h / 2
	if len(o.devices) == 0 {
		return b
	}
	b.anchor = svgLine
	for _, d := range o.devices {
		b.kids = append(b.kids, p.box(d))
	}
	w, h := stack(b.kids, svgPad, b.h, math.Inf(1))
	for _, k := range b.kids {
		b.w = max(b.w, k.w+2*svgPad)
	}
	b.w = max(b.w, w+2*svgPad)
	for _, k := range b.kids {
		k.w = max(k.w, b.w-2*svgPad)
	}
	b.h += h + svgPad
	return b
}
