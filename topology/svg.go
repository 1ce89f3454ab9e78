package topology

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// WriteSVG draws the node as nested boxes, in the manner of hwloc's lstopo:
// NUMA nodes and caches as bars above the cores that they serve, the PCI tree
// beside them with what its links carry (GB/s), PUs that the process may not
// use grey. It is one file of plain shapes and text, without fonts or scripts
// from elsewhere. Every object is a group whose class is what it is (machine,
// package, die, group, numa, cache, core, pu, hostbridge, bridge, pci, device,
// gpu, hca) and whose title says more. It returns the writer's error.
func WriteSVG(w io.Writer, n Node) error {
	root := layout(drawing(n))
	legend := svgLegend(n)
	width, height := root.w+2*svgGap, root.h+2*svgGap
	for _, s := range legend {
		width = max(width, textWidth(s)+2*svgGap)
	}
	width = max(width, textWidth(svgKey)+2*svgGap)
	root.widen(width - 2*svgGap - root.w)
	foot := float64(len(legend)+1)*svgLine + svgGap

	b := bufio.NewWriter(w)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%.0f" height="%.0f" viewBox="0 0 %.1f %.1f" font-family="monospace" font-size="11">`+"\n",
		width, height+foot, width, height+foot)
	title := "Machine"
	if n.Hostname != "" {
		title += " " + n.Hostname
	}
	fmt.Fprintf(b, "<title>%s</title>\n<desc>%s</desc>\n", svgText(title), svgText(Summary(n)))
	fmt.Fprintf(b, `<rect class="page" x="0" y="0" width="%.1f" height="%.1f" fill="#ffffff"/>`+"\n", width, height+foot)
	root.paint(b, svgGap, svgGap)
	y := height + svgLine - 4
	for _, s := range append(legend, svgKey) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f">%s</text>`+"\n", svgGap, y, svgText(s))
		y += svgLine
	}
	fmt.Fprintln(b, "</svg>")
	return b.Flush()
}

const svgKey = "P#: the operating system's numbers. Grey PUs and NUMA nodes are not allowed. Links of PCI: GB/s."

// Summary is the node in a line: what it has how many of.
func Summary(n Node) string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{{len(n.Packages), "package"}, {len(n.NUMA), "NUMA node"}, {len(n.Cores), "core"}, {n.Online.Count(), "PU"}, {len(n.GPUs), "GPU"}, {len(n.HCAs), "HCA"}} {
		if c.n > 0 { // 0 is also what is not known
			parts = append(parts, plural(c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func svgLegend(n Node) []string {
	out := []string{Summary(n)}
	if n.Hostname != "" {
		out[0] = n.Hostname + ": " + out[0]
	}
	if s := words(n.OS, n.Arch, n.Kernel); s != "" {
		out = append(out, s)
	}
	const most = 5
	for i, s := range n.Warnings {
		if i == most {
			out = append(out, fmt.Sprintf("and %s more", plural(len(n.Warnings)-most, "warning")))
			break
		}
		out = append(out, "warning: "+shorten(s, 120))
	}
	return out
}

// shorten cuts text that no box should be as wide as.
func shorten(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}

func (b *svgBox) paint(w *bufio.Writer, x, y float64) {
	x, y = x+b.x, y+b.y
	fmt.Fprintf(w, `<g class="%s"><title>%s</title>`+"\n", b.o.kind, svgText(b.tip))
	h, dash, ink := b.h, "", "#000000"
	wide := b.w
	if b.bar > 0 {
		h = b.bar
	}
	if b.o.kind == kindHost || b.o.kind == kindBridge {
		wide = svgKnot
	}
	fill := b.fill
	if b.o.grey {
		fill, dash, ink = "#9a9a9a", ` stroke-dasharray="3 2"`, "#ffffff"
	}
	if b.o.kind == kindGPU && b.o.grey {
		fill = "#c0392b"
	}
	fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" stroke="#000000" stroke-width="0.7"%s/>`+"\n", x, y+b.top, wide, h, fill, dash)
	for i, s := range b.lines {
		if s == "" {
			continue
		}
		weight := ""
		if i == 0 && (b.o.kind == kindGPU || b.o.kind == kindHCA || b.o.kind == kindPackage || b.o.kind == kindMachine) {
			weight = ` font-weight="bold"`
		}
		if b.o.kind == kindPU || b.o.kind == kindCache || b.o.kind == kindNUMA {
			fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="%s">%s</text>`+"\n", x+b.w/2, y+svgLine*float64(i+1)-1, ink, svgText(s))
			continue
		}
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f"%s fill="%s">%s</text>`+"\n", x+svgPad, y+svgLine*float64(i+1)-1, weight, ink, svgText(s))
	}
	for _, l := range b.wires {
		fmt.Fprintf(w, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#000000" stroke-width="0.7"/>`+"\n", x+l.x1, y+l.y1, x+l.x2, y+l.y2)
		if l.text != "" {
			fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="9">%s</text>`+"\n", x+(l.x1+l.x2)/2, y+l.y1-2, svgText(l.text))
		}
	}
	for _, c := range b.kids {
		c.paint(w, x, y)
	}
	fmt.Fprintln(w, "</g>")
}

func svgText(s string) string {
	var b strings.Builder
	// A strings.Builder takes everything.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
