package topology

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// RenderOptions say how Render draws.
type RenderOptions struct {
	// Full shows every object. Otherwise neighbours that are the same are shown
	// once, with their number, on machines of more than a screen.
	Full bool
}

// renderLines is how many lines a drawn tree may have before it is folded.
const renderLines = 48

// Render draws the node as text, in the manner of hwloc's lstopo: indices are
// the operating system's (P#), sizes count in powers of 1024. Lines have 100
// columns at most. It returns the writer's error.
func Render(w io.Writer, n Node, opts ...RenderOptions) error {
	full := len(opts) > 0 && opts[0].Full
	root := drawing(n)
	var t *textWriter
	for f := foldNone; f <= foldAll; f++ {
		t = &textWriter{}
		t.draw(root, 0, f, false)
		if full || t.lines <= renderLines*int(f+1) {
			break
		}
	}
	t.renderGPUs(n.GPUs)
	t.renderHCAs(n.HCAs)
	t.renderDistances(Matrix(n))
	t.renderInterfaces(n.Interfaces)
	t.renderLimits(n)
	if len(n.Warnings) > 0 {
		t.line(0, "Warnings")
		for _, s := range n.Warnings {
			t.line(1, s)
		}
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

func (t *textWriter) renderInterfaces(list []Interface) {
	if len(list) == 0 {
		return
	}
	t.line(0, "Network interfaces")
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
		t.line(1, strings.Join(fields, " ")+notes(kind, i.Driver, mtu))
	}
}

func (t *textWriter) renderLimits(n Node) {
	t.line(0, "Limits")
	t.line(1, fmt.Sprintf("cpus allowed: %s (%d of %d cores)", n.Allowed, len(n.Usable()), len(n.Cores)))
	for _, l := range []struct {
		name  string
		bytes *uint64
	}{{"memory (cgroup)", n.Memory.Limit}, {"locked memory", n.MemlockBytes}, {"/dev/shm free", n.ShmBytes}} {
		switch {
		case l.bytes != nil && *l.bytes == math.MaxUint64:
			t.line(1, l.name+": unlimited")
		case l.bytes != nil:
			t.line(1, l.name+": "+sizeText(*l.bytes))
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
