package topology

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Render draws the node as text, in the manner of hwloc's lstopo: indices are
// the operating system's (P#), sizes count in powers of 1024. It returns the
// writer's error.
func Render(w io.Writer, n Node) error {
	var b strings.Builder
	b.WriteString("Machine")
	if n.Hostname != "" {
		b.WriteString(" " + n.Hostname)
	}
	b.WriteString(notes(memoryText(n.Memory.Total, "total"), memoryText(n.Memory.Available, "available")))
	b.WriteByte('\n')
	for _, c := range tree(n).children {
		c.draw(&b, 1)
	}
	for _, d := range n.NUMA {
		if d.CPUs.IsEmpty() {
			b.WriteString("  " + numaText(n, d) + "\n")
		}
	}
	renderInterfaces(&b, n.Interfaces)
	renderLimits(&b, n)
	if len(n.Warnings) > 0 {
		b.WriteString("Warnings\n")
		for _, s := range n.Warnings {
			b.WriteString("  " + s + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// object is a node of the drawn tree.
type object struct {
	label    string
	cpus     CPUSet
	rank     int  // order of objects that hold the same cpus
	folds    bool // may share its line with its only child
	children []*object
}

// tree nests what the node has by the cpus it holds.
func tree(n Node) *object {
	var all []*object
	for _, p := range n.Packages {
		all = append(all, &object{label: fmt.Sprintf("Package P#%d", p.Index), cpus: p.CPUs, rank: 1})
	}
	for _, d := range n.NUMA {
		if !d.CPUs.IsEmpty() {
			all = append(all, &object{label: numaText(n, d), cpus: d.CPUs, rank: 2})
		}
	}
	for _, c := range n.Caches {
		label := fmt.Sprintf("L%d", c.Level)
		if !c.Unified {
			label += "d"
		}
		all = append(all, &object{label: label + notes(memoryText(c.Size, "")), cpus: c.CPUs, rank: 100 - c.Level, folds: true})
	}
	for _, c := range n.Cores {
		label := "Core"
		if c.Index >= 0 {
			label = fmt.Sprintf("Core P#%d", c.Index)
		}
		all = append(all, &object{label: label, cpus: c.PUs, rank: 101, folds: true})
		for _, pu := range c.PUs.Slice() {
			label := fmt.Sprintf("PU P#%d", pu)
			if !n.Allowed.Has(pu) {
				label += " (not allowed)"
			}
			all = append(all, &object{label: label, cpus: NewCPUSet(pu), rank: 102, folds: true})
		}
	}
	slices.SortStableFunc(all, func(a, b *object) int {
		return cmp.Or(cmp.Compare(b.cpus.Count(), a.cpus.Count()), cmp.Compare(a.rank, b.rank),
			cmp.Compare(a.cpus.First(), b.cpus.First()))
	})
	root := &object{cpus: n.Online}
	for _, o := range all {
		root.insert(o)
	}
	return root
}

func (o *object) insert(child *object) {
	for _, c := range o.children {
		if c.cpus.Contains(child.cpus) {
			c.insert(child)
			return
		}
	}
	o.children = append(o.children, child)
}

func (o *object) draw(b *strings.Builder, depth int) {
	b.WriteString(strings.Repeat("  ", depth) + o.label)
	for o.folds && len(o.children) == 1 && o.children[0].folds {
		o = o.children[0]
		b.WriteString(" + " + o.label)
	}
	b.WriteByte('\n')
	slices.SortStableFunc(o.children, func(x, y *object) int { return cmp.Compare(x.cpus.First(), y.cpus.First()) })
	for _, c := range o.children {
		c.draw(b, depth+1)
	}
}

func numaText(n Node, d NUMANode) string {
	parts := []string{memoryText(d.Memory, "")}
	for _, h := range d.HugePages {
		parts = append(parts, fmt.Sprintf("%d of %d huge pages of %s free", h.Free, h.Total, sizeText(h.PageBytes)))
	}
	if !n.AllowedMems.IsEmpty() && !n.AllowedMems.Has(d.Index) {
		parts = append(parts, "not allowed")
	}
	return fmt.Sprintf("NUMANode P#%d", d.Index) + notes(parts...)
}

func renderInterfaces(b *strings.Builder, list []Interface) {
	if len(list) == 0 {
		return
	}
	b.WriteString("Network interfaces\n")
	for _, i := range list {
		fields := []string{i.Name}
		if len(i.Addrs) == 0 {
			fields = append(fields, "no address")
		}
		for _, a := range i.Addrs {
			fields = append(fields, a.String())
		}
		if i.SpeedMbps != nil {
			fields = append(fields, speedText(*i.SpeedMbps))
		}
		if !i.Up {
			fields = append(fields, "down")
		}
		kind := i.Kind
		if i.Virtual && kind != "loopback" {
			kind = strings.TrimSpace("virtual " + kind)
		}
		mtu := ""
		if i.MTU > 0 {
			mtu = fmt.Sprintf("mtu %d", i.MTU)
		}
		b.WriteString("  " + strings.Join(fields, " ") + notes(kind, i.Driver, mtu) + "\n")
	}
}

func renderLimits(b *strings.Builder, n Node) {
	b.WriteString("Limits\n")
	fmt.Fprintf(b, "  cpus allowed: %s (%d of %d cores)\n", n.Allowed, len(n.Usable()), len(n.Cores))
	for _, l := range []struct {
		name  string
		bytes *uint64
	}{{"memory (cgroup)", n.Memory.Limit}, {"locked memory", n.MemlockBytes}, {"/dev/shm free", n.ShmBytes}} {
		switch {
		case l.bytes != nil && *l.bytes == math.MaxUint64:
			fmt.Fprintf(b, "  %s: unlimited\n", l.name)
		case l.bytes != nil:
			fmt.Fprintf(b, "  %s: %s\n", l.name, sizeText(*l.bytes))
		}
	}
}

// notes puts what is not empty into parentheses.
func notes(parts ...string) string {
	parts = slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func memoryText(v *uint64, what string) string {
	if v == nil {
		return ""
	}
	return strings.TrimSpace(sizeText(*v) + " " + what)
}

// sizeText rounds to a unit that keeps at least two digits, as lstopo does.
func sizeText(v uint64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	u := 0
	for u+1 < len(units) && (v >= 10<<10 || v >= 1<<10 && v%(1<<10) == 0) {
		v = (v + 1<<9) >> 10
		u++
	}
	return fmt.Sprintf("%d%s", v, units[u])
}

func speedText(mbps int) string {
	if mbps >= 1000 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(mbps)/1000), ".0") + "Gb/s"
	}
	return fmt.Sprintf("%dMb/s", mbps)
}
