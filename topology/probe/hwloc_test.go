package probe

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/internal/golden"
	"gangway/topology"
)

// judgeObject is an object of XML that lstopo wrote, read in the plainest way.
type judgeObject struct {
	Type      string        `xml:"type,attr"`
	Index     string        `xml:"os_index,attr"`
	CPUs      string        `xml:"cpuset,attr"`
	Memory    string        `xml:"local_memory,attr"`
	CacheSize string        `xml:"cache_size,attr"`
	CacheType string        `xml:"cache_type,attr"`
	Depth     string        `xml:"depth,attr"`
	Bus       string        `xml:"pci_busid,attr"`
	PCIType   string        `xml:"pci_type,attr"`
	Bridge    string        `xml:"bridge_type,attr"`
	Name      string        `xml:"name,attr"`
	OSType    string        `xml:"osdev_type,attr"`
	Children  []judgeObject `xml:"object"`
}

// lstopo has the judge load a machine and export it; nil where there is none, or
// it can't load it.
func lstopo(t testing.TB, input string) *judgeObject {
	t.Helper()
	path, err := exec.LookPath("lstopo-no-graphics")
	if err != nil {
		t.Skip("lstopo-no-graphics is not installed: nothing to compare with")
	}
	cmd := exec.Command(path, "-i", input, "--of", "xml", "--whole-io", "--disallowed", "--no-collapse", "--no-factorize")
	// Groups and caches that add nothing to the tree are facts all the same.
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	return parseLstopo(t, out)
}

func parseLstopo(t testing.TB, text []byte) *judgeObject {
	t.Helper()
	var doc struct {
		Machine judgeObject `xml:"object"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return &doc.Machine
}

func mask(t testing.TB, s string) string {
	t.Helper()
	words := strings.Split(s, ",")
	for i, w := range words {
		words[i] = cmp.Or(strings.TrimPrefix(w, "0x"), "0")
	}
	set, err := topology.ParseCPUMask(strings.Join(words, ","))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return set.String()
}

// facts are a machine as sorted lines.
type facts map[string][]string

func (f facts) add(kind, format string, args ...any) {
	f[kind] = append(f[kind], fmt.Sprintf(format, args...))
}

func (f facts) sort() facts {
	for _, list := range f {
		slices.Sort(list)
	}
	return f
}

// judged are the facts of lstopo's tree.
func judged(t testing.TB, root *judgeObject, version3 bool) facts {
	f := facts{}
	dies := map[string][]string{}
	seen := map[string]bool{}
	cores := 0
	var count func(o judgeObject)
	count = func(o judgeObject) {
		if o.Type == "Core" {
			cores++
		}
		for _, c := range o.Children {
			count(c)
		}
	}
	count(*root)
	var walk func(o judgeObject, near, pkg, pci string)
	walk = func(o judgeObject, near, pkg, pci string) {
		if o.CPUs != "" && o.Type != "NUMANode" {
			near = mask(t, o.CPUs)
		}
		level, isCache := strings.CutSuffix(o.Type, "Cache")
		switch {
		case o.Type == "Package":
			pkg = o.Index
			f.add("packages", "%s %s", o.Index, near)
		case o.Type == "Die":
			dies[pkg] = append(dies[pkg], fmt.Sprintf("%s %s", o.Index, near))
		case o.Type == "NUMANode":
			f.add("numa", "%s %s %s", o.Index, mask(t, o.CPUs), cmp.Or(o.Memory, "0"))
		case o.Type == "Core":
			f.add("cores", "%s %s", o.Index, near)
		case o.Type == "PU":
			f.add("pus", "%s", o.Index)
			if cores == 0 {
				f.add("cores", "%s %s", o.Index, near)
			}
		case isCache && o.CacheType != "2" && o.Type != "MemCache":
			f.add("caches", "%s %v %s %s", level, o.CacheType == "0", o.CacheSize, near)
		case o.Type == "PCIDev" || o.Type == "Bridge" && o.Bridge == "1-1":
			if !seen[o.Bus] { // a file that has an address twice: the first counts
				f.add("pci", "%s %s %s", o.Bus, strings.Join(strings.Fields(o.PCIType)[:2], " "), near)
			}
			seen[o.Bus] = true
			if o.Type == "PCIDev" {
				pci = o.Bus
			}
		case o.Type == "OSDev":
			v, _ := strconv.Atoi(o.OSType)
			if !version3 && v == 3 || version3 && v&32 != 0 {
				f.add("hcas", "%s %s %s", o.Name, pci, near)
			}
			if !version3 && v == 2 || version3 && v&16 != 0 {
				f.add("interfaces", "%s", o.Name)
			}
			for _, prefix := range []string{"nvml", "rsmi"} {
				if s, ok := strings.CutPrefix(o.Name, prefix); ok {
					f.add("gpus", "%s %s %s", s, pci, near)
				}
			}
		}
		for _, c := range o.Children {
			walk(c, near, pkg, pci)
		}
	}
	walk(*root, "", "", "")
	for _, list := range dies {
		if len(list) > 1 {
			f["dies"] = append(f["dies"], list...)
		}
	}
	return f.sort()
}

// modelled are the facts of a node.
func modelled(n topology.Node) facts {
	f := facts{}
	bytes := func(p *uint64) uint64 {
		if p == nil {
			return 0
		}
		return *p
	}
	near := func(c topology.CPUSet) string {
		if c.IsEmpty() {
			return n.Online.String()
		}
		return c.String()
	}
	for _, p := range n.Packages {
		f.add("packages", "%d %s", p.Index, p.CPUs)
	}
	for _, d := range n.Dies {
		f.add("dies", "%d %s", d.Index, d.CPUs)
	}
	for _, d := range n.NUMA {
		f.add("numa", "%d %s %d", d.Index, d.CPUs, bytes(d.Memory))
	}
	for _, c := range n.Caches {
		f.add("caches", "L%d %v %d %s", c.Level, c.Unified, bytes(c.Size), c.CPUs)
	}
	for _, c := range n.Cores {
		f.add("cores", "%d %s", c.Index, c.PUs)
		for _, pu := range c.PUs.Slice() {
			f.add("pus", "%d", pu)
		}
	}
	for _, d := range n.PCI {
		f.add("pci", "%s %04x [%04x:%04x] %s", d.Address, d.Class>>8, d.Vendor, d.Device, near(d.CPUs))
	}
	for _, h := range n.HCAs {
		f.add("hcas", "%s %s %s", h.Name, h.PCI, near(h.CPUs))
	}
	for _, i := range n.Interfaces {
		f.add("interfaces", "%s", i.Name)
	}
	for _, g := range n.GPUs {
		f.add("gpus", "%d %s %s", g.Index, g.PCI, near(g.CPUs))
	}
	return f.sort()
}

// TestGoldenHwloc: every file has the facts that lstopo sees in it; a file of a
// version that lstopo can't load has those of its own objects.
func TestGoldenHwloc(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(golden.Dir(t, "hwloc-xml"), "*.xml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n, err := ReadHwlocXML(strings.NewReader(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			root := lstopo(t, file)
			version3 := strings.Contains(string(text), `<topology version="3`)
			if root == nil {
				if !version3 {
					t.Fatal("lstopo can't load it")
				}
				root = parseLstopo(t, text)
			}
			want, got := judged(t, root, version3), modelled(n)
			if len(want["gpus"]) == 0 {
				delete(got, "gpus") // by other names, or by none
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("(-lstopo +model):\n%s", diff)
			}
			for _, w := range n.Warnings {
				t.Log(w)
			}
			if named := strings.Contains(string(text), `name="HostName"`); named && n.Hostname == "" || n.Allowed.IsEmpty() {
				t.Errorf("host %q, allowed %s", n.Hostname, n.Allowed)
			}
		})
	}
}

func TestHwlocBadInput(t *testing.T) {
	const head = `<topology version="2.0"><object type="Machine" os_index="0">`
	for _, test := range []struct {
		name, text, err, warning string
		pus                      int
	}{
		{name: "empty", err: "no <topology>"},
		{name: "another format", text: `<svg/>`, err: "line 1: expected <topology>, found <svg>"},
		{name: "version", text: `<topology version="4.1"></topology>`, err: `version "4.1" is not known`},
		{name: "no version number", text: `<topology version="x"></topology>`, err: `version "x" is not known`},
		{name: "no PUs", text: head + `</object></topology>`, err: "it has no PUs"},
		{name: "truncated", text: head + "\n" + `<object type="PU" os_index="3"/><object type="PU" os_in`, pus: 1, warning: "line 2"},
		{name: "PU twice", text: head + `<object type="PU" os_index="3"/><object type="PU" os_index="3"/></object></topology>`, pus: 1, warning: "line 1: PU 3 is there twice"},
		{name: "PU without a number", text: head + "\n" + `<object type="PU"/><object type="PU" os_index="0"/></object></topology>`, pus: 1, warning: `line 2: a PU with os_index ""`},
		{name: "PU beyond", text: head + `<object type="PU" os_index="70000"/><object type="PU" os_index="0"/></object></topology>`, pus: 1, warning: "expected 0 to 65535"},
		{name: "bad set", text: head + `<object type="PU" os_index="0"/><object type="NUMANode" os_index="0" cpuset="0xzz"/></object></topology>`, pus: 1, warning: `cpuset "0xzz"`},
		{name: "bad PCI", text: head + `<object type="PU" os_index="0"/><object type="PCIDev" pci_busid="zz" pci_type="0302"/></object></topology>`, pus: 1, warning: `pci_busid "zz"`},
		{name: "too deep", text: `<topology>` + strings.Repeat(`<object type="Group">`, 1000), err: "nested 256 deep"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := ReadHwlocXML(strings.NewReader(test.text))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n.Online.Count() != test.pus || !strings.Contains(strings.Join(n.Warnings, "\n"), test.warning) {
				t.Errorf("PUs %s, warnings %q; want %d and %q", n.Online, n.Warnings, test.pus, test.warning)
			}
		})
	}
}

// TestHwlocDevices: what is named by several libraries is one GPU, and what no
// library names is one only where it is driven for computing.
func TestHwlocDevices(t *testing.T) {
	pci := func(busid, kind, inside string) string {
		return `<object type="PCIDev" pci_busid="` + busid + `" pci_type="` + kind + ` [0000:0000] 00">` + inside + `</object>`
	}
	os := func(name string, kind int, infos ...string) string {
		s := fmt.Sprintf(`<object type="OSDev" name="%s" osdev_type="%d">`, name, kind)
		for i := 0; i+1 < len(infos); i += 2 {
			s += `<info name="` + infos[i] + `" value="` + infos[i+1] + `"/>`
		}
		return s + `</object>`
	}
	for _, test := range []struct {
		name, inside string
		want         []string
		warnings     int
	}{
		{name: "NVML and CUDA", inside: pci("0000:01:00.0", "0302 [10de:1db1]", os("cuda1", 5)+os("nvml0", 1, "NVIDIAUUID", "GPU-x")) + pci("0000:02:00.0", "0302 [10de:1db1]", os("nvml1", 1)),
			want: []string{"0 nvidia 0000:01:00.0 GPU-x", "1 nvidia 0000:02:00.0 "}},
		{name: "OpenCL only, and a CPU", inside: pci("0000:01:00.0", "0380 [1002:66a1]", os("opencl0d1", 5, "OpenCLDeviceType", "GPU")) + os("opencl1d0", 5, "OpenCLDeviceType", "CPU"),
			want: []string{"1 amd 0000:01:00.0 "}},
		{name: "partitions of one device", inside: pci("0000:01:00.0", "1200 [1002:74a1]", os("rsmi0", 1)+os("rsmi1", 1)),
			want: []string{"0 amd 0000:01:00.0 ", "1 amd 0000:01:00.0 "}},
		{name: "two platforms", inside: pci("0000:02:00.0", "0302 [10de:1db1]", os("opencl0d0", 5)) + pci("0000:01:00.0", "0380 [1002:66a1]", os("opencl1d0", 5)),
			want: []string{"0 amd 0000:01:00.0 ", "1 nvidia 0000:02:00.0 "}, warnings: 1},
		{name: "DRM of AMD", inside: pci("0000:01:00.0", "0300 [1002:66a1]", os("card1", 1)+os("renderD128", 1)), want: []string{"0 amd 0000:01:00.0 "}},
		{name: "DRM of NVIDIA may be nouveau", inside: pci("0000:01:00.0", "0302 [10de:15f9]", os("card1", 1)+os("renderD128", 1)), warnings: 1},
		{name: "server's screen", inside: pci("0000:01:00.0", "0300 [1a03:2000]", os("card0", 1))},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := ReadHwlocXML(strings.NewReader(`<topology version="2.0"><object type="Machine"><object type="PU" os_index="0"/>` + test.inside + `</object></topology>`))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, g := range n.GPUs {
				got = append(got, fmt.Sprintf("%d %s %s %s", g.Index, g.Vendor, g.PCI, g.UUID))
			}
			if diff := gocmp.Diff(test.want, got); diff != "" || len(n.Warnings) != test.warnings {
				t.Errorf("(-want +got):\n%s%q", diff, n.Warnings)
			}
		})
	}
}

// TestSynthetic: descriptions give the machine that lstopo makes of them.
func TestSynthetic(t *testing.T) {
	for _, s := range []string{
		"pack:2 core:16 pu:2", "numa:2 core:4 pu:1", "2 4 2", "3", "2 3 2 2", "2 2 2 2 2 2", "1 2 1 2 1 2 1 2", "2 2 2 2 2 2 2 2 2", "pu:4",
		"pack:2 [numa] l3:1 core:4 pu:2", "pack:2 [numa(memory=1GB)] [numa] core:2 pu:1(indexes=2*2:1*2)", "[numa] pack:2 [numa] pu:2",
		"[numa(memory=4GiB indexes=2,0,1)] pack:2 [numa(memory=1MiB)] pu:2", "pack:2 core:2 pu:2(indexes=core:pack)",
		"numa:2(memory=4GiB indexes=1,0) core:2 pu:1", "pack:2core:2 pu:1", "l2cache:2 l1d:1 l1i:1 core:1 pu:1", "l3:2(size=3MB) l2:2 l1:1 core:1 pu:2",
		"pack:2 die:2 core:2 pu:1", "die:2 core:1 pu:2", "die:1 pack:2 pu:1", "group:2 numa:2 pack:1 core:2 pu:1", "0x2 010", "so:2 co:2 pu:1",
		"pack:2(indexes=5,7) core:2(indexes=3,1,2,0) pu:1", "pack:2 numa:2 l3:1 l2:2 l1:1 core:1 pu:2(indexes=2*16:1*2)", "core:2 2", "(memory=1GB) pu:2",
		"numa:4(indexes=2*2:1*2) pu:2(indexes=numa)", "pack:2 core:16 pu:2", "[numa] 2 2 2", "pack:1 core:4 pu:1(indexes=0,0,1,2)",
	} {
		t.Run(s, func(t *testing.T) { checkSynthetic(t, s) })
	}
}

func checkSynthetic(t testing.TB, s string) {
	t.Helper()
	n, err := Synthetic(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Warnings) > 0 {
		t.Log(n.Warnings) // hwloc makes other machines of unusable indexes
		return
	}
	root := lstopo(t, s)
	if root == nil {
		t.Fatalf("lstopo refuses %q", s)
	}
	if diff := gocmp.Diff(judged(t, root, false), modelled(n)); diff != "" {
		t.Errorf("%s (-lstopo +model):\n%s", s, diff)
	}
}

// TestSyntheticRandom compares random machines with lstopo's.
func TestSyntheticRandom(t *testing.T) {
	if _, err := exec.LookPath("lstopo-no-graphics"); err != nil {
		t.Skip("lstopo-no-graphics is not installed: nothing to compare with")
	}
	rapid.Check(t, func(r *rapid.T) {
		var parts []string
		level := func(name string, attributes ...string) {
			if rapid.Bool().Draw(r, name) {
				s := fmt.Sprintf("%s:%d", name, rapid.IntRange(1, 3).Draw(r, "n"))
				if len(attributes) > 0 && rapid.Bool().Draw(r, "attributes") {
					s += "(" + attributes[0] + ")"
				}
				parts = append(parts, s)
			}
		}
		bracket := rapid.Bool().Draw(r, "bracket")
		attached := func() {
			if bracket && rapid.Bool().Draw(r, "attached") {
				parts = append(parts, rapid.SampledFrom([]string{"[numa]", "[node(memory=2GB)]"}).Draw(r, "numa"))
			}
		}
		attached()
		level("group")
		level("pack")
		attached()
		if !bracket {
			level("numa", "memory=3GiB")
		}
		level("die")
		level("l3", "size=12MB")
		attached()
		level("l2", "size=512KiB")
		level("l1d")
		level("core")
		parts = append(parts, fmt.Sprintf("pu:%d", rapid.IntRange(1, 4).Draw(r, "pus")))
		s := strings.Join(parts, " ")
		n, err := Synthetic(s)
		if err != nil {
			r.Fatal(err)
		}
		root := lstopo(t, s)
		if root == nil {
			r.Fatalf("lstopo refuses %q", s)
		}
		if diff := gocmp.Diff(judged(t, root, false), modelled(n)); diff != "" {
			r.Fatalf("%s (-lstopo +model):\n%s", s, diff)
		}
	})
}

func TestSyntheticErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                              "it has no PUs",
		"pack:2 core:2":                 "the last level must be PUs",
		"p:2 pu:1":                      `column 1: expected a type`,
		"pack:2 pack:2 pu:1":            "several levels of type package",
		"numa:2 [numa] pu:1":            "both a level and in brackets",
		"pack:0 pu:1":                   "column 6: expected a number of objects, 1 to 65536",
		"pack:-2 pu:1":                  "expected a number of objects",
		"pack:2 3 pu:2":                 "some levels have a type",
		"pack:2(size=3) pu:1":           "column 8: expected size= of a cache",
		"pack:2(memory=99999999TB) pu:": "expected a size",
		"pack:2(memory=1GB pu:2":        "column",
		"pack:2 [core] pu:1":            "only NUMA nodes can be in brackets",
		"pack:2 [numa pu:1":             "expected ']'",
		"l9:1 pu:1":                     "level of a cache",
		"pack:300 core:300 pu:1":        "more than 65536 objects",
		"pack":                          "expected ':'",
		"machine:1 pu:1":                "expected a type",
	} {
		if _, err := Synthetic(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", s, err, want)
		}
	}
}

func FuzzReadHwlocXML(f *testing.F) {
	f.Add(`<topology version="2.0"><object type="Machine" cpuset="0x3"><object type="NUMANode" os_index="0" cpuset="0x3" local_memory="5"/>` +
		`<object type="L2Cache" depth="2" cache_type="0" cache_size="7"><object type="Core"><object type="PU" os_index="1"/></object></object>` +
		`<object type="Bridge" bridge_type="0-1" bridge_pci="0000:[00-06]"><object type="PCIDev" pci_busid="0000:01:00.0" pci_type="0302 [10de:1db1] [10de:1212] a1">` +
		`<object type="OSDev" name="nvml0" osdev_type="1"/><object type="OSDev" name="mlx5_0" osdev_type="3"><info name="Port1State" value="4"/></object></object></object>` +
		`</object><cpukind cpuset="0x1"><info name="CoreType" value="IntelAtom"/></cpukind></topology>`)
	f.Add(`<topology><object type="Machine" online_cpuset="0x1"><object type="NUMANode" os_index="0"><object type="Cache" depth="1" cache_type="1"><object type="PU" os_index="0"/></object></object>` +
		`<object type="NUMANode" os_index="1" cpuset="0x0"><info name="Type" value="MCDRAM"/></object></object></topology>`)
	f.Add(`<topology version="3.0"><object type="PU" os_index="0"/></topology>`)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ReadHwlocXML(strings.NewReader(text))
		checkRead(t, n, err)
	})
}

func FuzzSynthetic(f *testing.F) {
	for _, s := range []string{"pack:2 [numa(memory=1GB)] l3:1(size=3MiB) core:2 pu:2(indexes=2*2:1*4)", "2 4 2", "numa:2(indexes=1,0) l1i:2 pu:2(indexes=numa)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 200 {
			return
		}
		n, err := Synthetic(s)
		checkRead(t, n, err)
	})
}

// checkRead: whatever the input, a node that was read is consistent.
func checkRead(t *testing.T, n topology.Node, err error) {
	if err != nil || n.Online.Count() > 4096 { // the check itself would take too long
		return
	}
	var pus topology.CPUSet
	total := 0
	for _, c := range n.Cores {
		pus = pus.Union(c.PUs)
		total += c.PUs.Count()
	}
	if n.Online.IsEmpty() || !pus.Equal(n.Online) || total != pus.Count() {
		t.Fatalf("online %s, in cores %s (%d)", n.Online, pus, total)
	}
	if !n.Online.Contains(n.Allowed) {
		t.Fatalf("allowed %s of %s", n.Allowed, n.Online)
	}
	for _, d := range n.NUMA {
		if !n.Online.Contains(d.CPUs) {
			t.Fatalf("NUMA node %d has %s of %s", d.Index, d.CPUs, n.Online)
		}
	}
}
