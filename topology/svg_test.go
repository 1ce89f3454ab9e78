package topology_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/topology"
	"gangway/topology/probe"
)

// picture is what a test needs to know of an SVG.
type picture struct {
	classes map[string]int // groups by what they are
	titles  map[string]int // likewise, with their title: "core Core P#0"
}

type rect struct{ x, y, w, h float64 }

func (r rect) contains(o rect) bool {
	const slack = 0.11 // coordinates are rounded to tenths
	return o.x >= r.x-slack && o.y >= r.y-slack && o.x+o.w <= r.x+r.w+slack && o.y+o.h <= r.y+r.h+slack
}

func (r rect) overlaps(o rect) bool {
	const slack = 0.11
	return r.x+slack < o.x+o.w && o.x+slack < r.x+r.w && r.y+slack < o.y+o.h && o.y+slack < r.y+r.h
}

// frames are the classes whose rectangles hold all that belongs to them; what
// belongs to bars and knots is below or beside them.
func frames(class string) bool {
	switch class {
	case "cache", "numa", "hostbridge", "bridge":
		return false
	}
	return true
}

// parsePicture checks an SVG's shape: well-formed, no negative sizes, boxes
// inside of those that they belong to and beside each other, text in its box.
func parsePicture(t interface{ Errorf(string, ...any) }, text []byte) picture {
	type group struct {
		class string
		frame *rect // nearest rectangle that must hold what is in the group
		seen  bool
		own   rect
		kids  []rect
	}
	p := picture{map[string]int{}, map[string]int{}}
	page := &rect{}
	stack := []*group{{class: "svg"}}
	inTitle := false
	number := func(e xml.StartElement, name string) float64 {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				v, err := strconv.ParseFloat(a.Value, 64)
				if err != nil {
					t.Errorf("%s %s=%q", e.Name.Local, name, a.Value)
				}
				return v
			}
		}
		return 0
	}
	attr := func(e xml.StartElement, name string) string {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				return a.Value
			}
		}
		return ""
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("the picture is no XML: %v", err)
			return p
		}
		top := stack[len(stack)-1]
		switch e := tok.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "g":
				g := &group{class: attr(e, "class"), frame: top.frame}
				if top.seen && frames(top.class) {
					g.frame = &top.own
				}
				stack = append(stack, g)
				p.classes[g.class]++
			case "title":
				inTitle = true
			case "rect":
				r := rect{number(e, "x"), number(e, "y"), number(e, "width"), number(e, "height")}
				if r.w <= 0 || r.h <= 0 || r.x < 0 || r.y < 0 {
					t.Errorf("a %s of %+v", top.class, r)
				}
				if attr(e, "class") == "page" {
					*page = r
					top.frame = page
					continue
				}
				if top.frame != nil && !top.frame.contains(r) {
					t.Errorf("a %s of %+v is outside of %+v", top.class, r, *top.frame)
				}
				top.own, top.seen = r, true
				// Rectangles of what belongs to the same frame are apart.
				for i := len(stack) - 2; i >= 0; i-- {
					if stack[i].seen && frames(stack[i].class) || i == 0 {
						for _, o := range stack[i].kids {
							if o.overlaps(r) {
								t.Errorf("a %s of %+v overlaps %+v", top.class, r, o)
							}
						}
						stack[i].kids = append(stack[i].kids, r)
						break
					}
				}
			}
		case xml.EndElement:
			switch e.Name.Local {
			case "g":
				stack = stack[:len(stack)-1]
			case "title":
				inTitle = false
			}
		case xml.CharData:
			if inTitle {
				p.titles[top.class+" "+string(e)]++
			}
		}
	}
	return p
}

func checkPicture(t interface {
	Errorf(string, ...any)
	Fatal(...any)
}, n topology.Node) {
	var b bytes.Buffer
	if err := topology.WriteSVG(&b, n); err != nil {
		t.Fatal(err)
	}
	p := parsePicture(t, b.Bytes())
	pus := 0
	for _, c := range n.Cores {
		pus += c.PUs.Count()
	}
	want := map[string]int{"machine": 1, "package": len(n.Packages), "core": len(n.Cores), "pu": pus, "numa": len(n.NUMA),
		"gpu": len(n.GPUs), "hca": len(n.HCAs)}
	for class, count := range want {
		if p.classes[class] != count {
			t.Errorf("%d of %s, want %d", p.classes[class], class, count)
		}
	}
	if got := p.classes["pci"] + p.classes["bridge"]; got != len(n.PCI) {
		t.Errorf("%d PCI devices and bridges, want %d", got, len(n.PCI))
	}
	for title := range maps.Keys(p.titles) {
		if strings.HasPrefix(title, "pu ") && p.titles[title] != 1 {
			t.Errorf("%s is there %d times", title, p.titles[title])
		}
	}
}

// checkText: no line is too long, all devices are named, and the drawing of a
// machine of any size is not long.
func checkText(t interface {
	Errorf(string, ...any)
	Fatal(...any)
}, n topology.Node) {
	for _, full := range []bool{false, true} {
		var b bytes.Buffer
		if err := topology.Render(&b, n, topology.RenderOptions{Full: full}); err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(b.String(), "\n") {
			if c := len([]rune(line)); c > 100 {
				t.Errorf("line %d has %d columns: %s", i+1, c, line)
			}
		}
		tree, _, _ := strings.Cut(b.String(), "\nGPUs\n")
		tree, _, _ = strings.Cut(tree, "\nHost channel")
		for _, h := range n.HCAs {
			if c := strings.Count(tree, fmt.Sprintf("OpenFabrics %q", h.Name)); c != 1 {
				t.Errorf("%s is in the tree %d times (full: %t)", h.Name, c, full)
			}
		}
		gpus := strings.Count(tree, `GPU "cuda`) + strings.Count(tree, `GPU "rsmi`)
		if gpus != len(n.GPUs) {
			t.Errorf("%d GPUs in the tree, want %d (full: %t)", gpus, len(n.GPUs), full)
		}
		if full {
			pus := 0
			for _, c := range n.Cores {
				pus += c.PUs.Count()
			}
			if got := strings.Count(tree, "PU P#"); got != pus {
				t.Errorf("%d PUs in the tree, want %d", got, pus)
			}
		}
	}
}

// TestGoldenPictures draws every recorded machine.
func TestGoldenPictures(t *testing.T) {
	for name, n := range recordedNodes(t) {
		t.Run(name, func(t *testing.T) {
			checkPicture(t, n)
			checkText(t, n)
		})
	}
}

// TestPictureLength: what has 256 PUs fits two screens of 50 lines, what has
// 2,048 too.
func TestPictureLength(t *testing.T) {
	for _, s := range []string{
		"pack:2 numa:4 l3:4 l2:4 core:1 pu:2", "pack:8 numa:1 core:16 pu:2", "pack:2 numa:8 l3:2 core:8 pu:1", "pack:16 numa:8 core:8 pu:2",
	} {
		n, err := probe.Synthetic(s)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := topology.Render(&b, n); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(b.String(), "\n"); lines > 100 {
			t.Errorf("%s: %d lines", s, lines)
		}
		checkPicture(t, n)
		checkText(t, n)
	}
}

func TestFolded(t *testing.T) {
	n, err := probe.Synthetic("pack:2 numa:1(memory=64GB) l3:2(size=32MB) core:8 pu:2")
	if err != nil {
		t.Fatal(err)
	}
	n.Allowed = n.Online.Minus(topology.NewCPUSet(32))
	n.Hostname = "n1"
	var b bytes.Buffer
	if err := topology.Render(&b, n); err != nil {
		t.Fatal(err)
	}
	tree, _, _ := strings.Cut(b.String(), "Limits")
	const want = `Machine n1 (119GB total)
  Package P#0
    NUMANode P#0 (60GB)
    2x { L3 (31MB) + 8x { Core + 2x PU } }  PU P#0-31
  Package P#1
    NUMANode P#1 (60GB)
    L3 (31MB)
      Core P#16
        PU P#32 (not allowed)
        PU P#33
      7x { Core + 2x PU }  PU P#34-47
    L3 (31MB)
      8x { Core + 2x PU }  PU P#48-63
`
	if tree != want {
		t.Errorf("%s", tree)
	}
}

// drawnNode is a machine, sound or not: devices may hang on bridges that are
// not there or in circles, names may be anything.
func drawnNode(rt *rapid.T) topology.Node {
	text := rapid.SampledFrom([]string{"mlx5_0", "a<b>&\"c'", "\x00\x1b[31m", "ein sehr langer Name " + strings.Repeat("x", 150), "ü", "]]>"})
	packages := rapid.IntRange(1, 4).Draw(rt, "packages")
	numa := rapid.SampledFrom([]int{1, 2, 3}).Draw(rt, "numa")
	cores := rapid.IntRange(1, 6).Draw(rt, "cores")
	threads := rapid.IntRange(1, 4).Draw(rt, "threads")
	n := topology.Node{Hostname: text.Draw(rt, "host")}
	pu := 0
	for p := range packages {
		var whole topology.CPUSet
		for d := range numa {
			var cpus topology.CPUSet
			for range cores {
				var pus topology.CPUSet
				for range threads {
					pus = pus.Add(pu)
					pu++
				}
				n.Cores = append(n.Cores, topology.Core{Index: len(n.Cores), Package: p, NUMA: p*numa + d, PUs: pus})
				if rapid.Bool().Draw(rt, "l1") {
					n.Caches = append(n.Caches, topology.Cache{Level: 1, CPUs: pus})
				}
				cpus = cpus.Union(pus)
			}
			n.NUMA = append(n.NUMA, topology.NUMANode{Index: p*numa + d, CPUs: cpus, Memory: new(uint64(1 << 34))})
			if rapid.Bool().Draw(rt, "l3") {
				n.Caches = append(n.Caches, topology.Cache{Level: 3, Unified: true, CPUs: cpus})
			}
			whole = whole.Union(cpus)
		}
		n.Packages = append(n.Packages, topology.Package{Index: p, CPUs: whole})
		n.Online = n.Online.Union(whole)
	}
	if rapid.Bool().Draw(rt, "memory only") {
		n.NUMA = append(n.NUMA, topology.NUMANode{Index: 250})
	}
	n.Allowed = n.Online.Minus(topology.NewCPUSet(rapid.IntRange(-1, pu).Draw(rt, "forbidden")))
	devices := rapid.IntRange(0, 12).Draw(rt, "devices")
	address := func(i int) string { return fmt.Sprintf("0000:%02x:00.0", i) }
	for i := range devices {
		class := rapid.SampledFrom([]uint32{0x060400, 0x060400, 0x030200, 0x020700, 0x010802, 0}).Draw(rt, "class")
		n.PCI = append(n.PCI, topology.PCIDevice{Address: address(i), Parent: address(rapid.IntRange(0, devices+1).Draw(rt, "parent")),
			Class: class, NUMA: rapid.IntRange(-1, 5).Draw(rt, "near"), Names: []string{text.Draw(rt, "name")},
			LinkGTs: rapid.SampledFrom([]float64{0, 2.5, 16}).Draw(rt, "speed"), LinkWidth: 16})
	}
	for i := range rapid.IntRange(0, 4).Draw(rt, "gpus") {
		n.GPUs = append(n.GPUs, topology.GPU{Index: i, Vendor: rapid.SampledFrom([]string{"nvidia", "amd"}).Draw(rt, "vendor"), Name: text.Draw(rt, "gpu"),
			PCI: address(rapid.IntRange(0, 14).Draw(rt, "slot")), NUMA: rapid.IntRange(-1, 5).Draw(rt, "gpu near"),
			Health: topology.Health{Problem: rapid.SampledFrom([]string{"", "it fell off the bus"}).Draw(rt, "problem")}})
	}
	for i := range rapid.IntRange(0, 3).Draw(rt, "hcas") {
		n.HCAs = append(n.HCAs, topology.HCA{Name: fmt.Sprintf("hca%d<>", i), PCI: address(rapid.IntRange(0, 14).Draw(rt, "slot")), NUMA: -1,
			Ports: []topology.HCAPort{{Number: 1, State: text.Draw(rt, "state")}, {Number: 2}}})
	}
	n.Warnings = []string{text.Draw(rt, "warning")}
	return n
}

// TestPictureAny: any machine is drawn well.
func TestPictureAny(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := drawnNode(rt)
		checkPicture(rt, n)
		checkText(rt, n)
	})
}

// FuzzDraw: a node's JSON of any content is drawn: XML that is well-formed, and
// lines of 100 columns at most.
func FuzzDraw(f *testing.F) {
	f.Add([]byte(`{"hostname":"a","memory":{},"online":"0-3","cores":[{"index":0,"pus":"0-1"},{"index":0,"pus":"1-3"}],"numa":[{"index":1,"cpus":"2-9"}]}`))
	f.Add([]byte(`{"online":"0","pci":[{"address":"a","parent":"b","class":394240},{"address":"b","parent":"a","class":394240},{"address":"a","link_gts":1e300,"link_width":16}]}`))
	f.Add([]byte(`{"online":"0-1","caches":[{"level":-1,"cpus":"0-1"},{"level":3,"cpus":"1-2"}],"packages":[{"index":0,"cpus":"0-5"},{"index":0,"cpus":"4-9"}],"gpus":[{"index":0,"pci":"a"}],"links":[{"a":"GPU0","b":"x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n topology.Node
		if len(b) > 1<<14 || json.Unmarshal(b, &n) != nil {
			return
		}
		pus := 0
		for _, c := range n.Cores {
			pus += c.PUs.Count()
		}
		if pus > 2048 {
			return
		}
		var svg bytes.Buffer
		if err := topology.WriteSVG(&svg, n); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(&svg)
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		var text bytes.Buffer
		if err := topology.Render(&text, n); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			if c := len([]rune(strings.TrimSuffix(line, "\n"))); c > 100 {
				t.Errorf("%d columns: %q", c, line)
			}
		}
	})
}
