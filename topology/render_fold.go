package topology

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// renderColumns is the width of a drawing; longer lines go on below.
const renderColumns = 100

// textWriter collects the lines of a drawing.
type textWriter struct {
	b     strings.Builder
	lines int
}

// line writes text, on several lines if it must be; control characters of
// names do not reach the terminal.
func (t *textWriter) line(depth int, text string) {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	indent := min(depth*2, renderColumns/2)
	for first := true; first || text != ""; first = false {
		if !first {
			text = strings.TrimLeft(text, " ")
		}
		room := renderColumns - indent
		head := text
		if utf8.RuneCountInString(text) > room {
			head = cut(text, room)
		}
		t.raw(0, strings.Repeat(" ", indent)+head)
		if text = text[len(head):]; first {
			indent += 4
		}
	}
}

func (t *textWriter) raw(depth int, text string) {
	t.b.WriteString(strings.TrimRight(strings.Repeat("  ", depth)+text, " ") + "\n")
	t.lines++
}

// cut returns the beginning of s that has room characters at most, up to a
// space or a comma if there is one in its second half.
func cut(s string, room int) string {
	end, n := len(s), 0
	for i := range s {
		if n == room {
			end = i
			break
		}
		n++
	}
	if i := strings.LastIndexAny(s[:end], " ,"); i >= end/2 {
		end = i + 1
	}
	return s[:end]
}

// folding is how much of a drawing is folded: identical neighbours shown once.
type folding int

const (
	foldNone  folding = iota
	foldCores         // caches, cores, PUs and PCI devices
	foldAll           // packages and NUMA nodes too
)

func (f folding) takes(o *object) bool {
	switch o.kind {
	case kindPackage, kindDie, kindGroup, kindNUMA:
		return f >= foldAll
	case kindDevice, kindGPU, kindHCA:
		return false
	}
	return f >= foldCores
}

// shape is the object and all below it without what tells it from its like.
func (o *object) shape() string {
	if o.text != "" {
		return o.text
	}
	s := o.label(true)
	if o.kind == kindDevice || o.kind == kindGPU || o.kind == kindHCA {
		s = o.label(false)
	}
	var parts []string
	for _, r := range runs(o.below()) {
		p := r[0].shape()
		switch {
		case len(r) > 1 && strings.ContainsAny(p, "+:"):
			p = fmt.Sprintf("%dx { %s }", len(r), p)
		case len(r) > 1:
			p = fmt.Sprintf("%dx %s", len(r), p)
		}
		parts = append(parts, p)
	}
	switch len(parts) {
	case 0:
	case 1:
		s += " + " + parts[0]
	default:
		s += ": " + strings.Join(parts, "; ")
	}
	o.text = s
	return s
}

// runs cuts a list into neighbours of the same shape.
func runs(list []*object) [][]*object {
	var out [][]*object
	for i, o := range list {
		if i > 0 && o.kind == list[i-1].kind && o.shape() == list[i-1].shape() {
			out[len(out)-1] = append(out[len(out)-1], o)
			continue
		}
		out = append(out, []*object{o})
	}
	return out
}

// draw writes the object and all below it; plain without what tells it from
// its like.
func (t *textWriter) draw(o *object, depth int, f folding, plain bool) {
	text := o.label(plain)
	for {
		if f > foldNone && (o.kind == kindHost || o.kind == kindBridge) && len(o.devices) == 1 {
			o = o.devices[0]
			text += " + " + o.label(plain)
			continue
		}
		if !o.folds() || len(o.children) != 1 || !o.children[0].folds() || len(o.memory)+len(o.devices) > 0 {
			break
		}
		o = o.children[0]
		text += " + " + o.label(plain)
	}
	t.line(depth, text)
	if f == foldNone {
		for _, c := range o.below() {
			t.draw(c, depth+1, f, plain)
		}
		return
	}
	for _, r := range runs(o.below()) {
		if len(r) == 1 || !f.takes(r[0]) {
			for _, c := range r {
				t.draw(c, depth+1, f, plain)
			}
			continue
		}
		t.group(r, depth+1, f, plain)
	}
}

// group writes a run of objects of the same shape once.
func (t *textWriter) group(r []*object, depth int, f folding, plain bool) {
	where := ""
	if !plain {
		where = "  " + whereabouts(r)
	}
	shape := r[0].shape()
	if !strings.Contains(shape, ": ") && utf8.RuneCountInString(shape) < renderColumns-20-2*depth {
		if strings.Contains(shape, "+") {
			shape = "{ " + shape + " }"
		}
		t.line(depth, strings.TrimRight(fmt.Sprintf("%dx %s%s", len(r), shape, where), " "))
		return
	}
	t.line(depth, strings.TrimRight(fmt.Sprintf("%dx {%s", len(r), where), " "))
	t.draw(r[0], depth+1, f, true)
	t.line(depth, "}")
}

// whereabouts tells which objects a run holds.
func whereabouts(r []*object) string {
	switch r[0].kind {
	case kindHost, kindBridge, kindPCI:
		var first, last string
		for _, o := range r {
			for o.kind != kindPCI && len(o.devices) > 0 {
				o = o.devices[0]
			}
			if last = shortAddress(o.pci.Address); first == "" {
				first = last
			}
		}
		if first == "" {
			return ""
		}
		return first + " to " + last
	case kindNUMA:
		return r[0].id + " to " + r[len(r)-1].id
	}
	var cpus CPUSet
	for _, o := range r {
		cpus = cpus.Union(o.cpus)
	}
	return "PU P#" + cpus.String()
}
