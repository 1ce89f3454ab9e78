package probe

import (
	"archive/tar"
	"compress/bzip2"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/internal/golden"
	"gangway/topology"
)

// lstopoObject is an object of hwloc's XML, version 2.
type lstopoObject struct {
	Type        string `xml:"type,attr"`
	OSIndex     *int   `xml:"os_index,attr"` // nil: the kernel gives none
	CPUSet      string `xml:"cpuset,attr"`
	Allowed     string `xml:"allowed_cpuset,attr"`
	AllowedMems string `xml:"allowed_nodeset,attr"`
	LocalMemory uint64 `xml:"local_memory,attr"`
	CacheSize   uint64 `xml:"cache_size,attr"`
	CacheDepth  int    `xml:"depth,attr"`
	CacheType   int    `xml:"cache_type,attr"` // 0 unified, 1 data, 2 instruction
	PCIAddress  string `xml:"pci_busid,attr"`
	PCIType     string `xml:"pci_type,attr"` // 0604 [8086:3c03] [0000:0000] 07
	BridgeType  string `xml:"bridge_type,attr"`
	Name        string `xml:"name,attr"`

	Objects []lstopoObject `xml:"object"`

	Refused bool `xml:"-"` // of a machine: there were objects that lstopo has no place for
}

// hwlocSet reads hwloc's notation of a set: 0x00ff0000,,0x00000001.
func hwlocSet(t testing.TB, s string) topology.CPUSet {
	t.Helper()
	if s == "" {
		return topology.CPUSet{}
	}
	words := strings.Split(s, ",")
	var cpus []int
	for k, w := range words {
		if w == "" {
			continue
		}
		v, err := strconv.ParseUint(strings.TrimPrefix(w, "0x"), 16, 32)
		if err != nil {
			t.Fatalf("hwloc's set %q: %v", s, err)
		}
		for bit := range 32 {
			if v>>bit&1 == 1 {
				cpus = append(cpus, (len(words)-1-k)*32+bit)
			}
		}
	}
	return topology.NewCPUSet(cpus...)
}

// lstopoXML runs lstopo on a dump, or on this machine where dir is "".
func lstopoXML(t testing.TB, dir string, args ...string) lstopoObject {
	t.Helper()
	args = append([]string{"--of", "xml", "--disallowed"}, args...)
	if dir != "" {
		args = append(args, "--if", "fsroot", "-i", dir) // also without /proc
	}
	cmd := exec.Command("lstopo-no-graphics", args...)
	// The rest of the environment could name another machine.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES=1", "HWLOC_HIDE_ERRORS=0"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lstopo: %v\n%s", err, stderr.String())
	}
	var top struct {
		Object lstopoObject `xml:"object"`
	}
	if err := xml.Unmarshal(out, &top); err != nil {
		t.Fatal(err)
	}
	top.Object.Refused = strings.Contains(stderr.String(), "received invalid information")
	return top.Object
}

// machineFacts is a machine as lines of text, to be compared.
type machineFacts struct {
	Packages, Dies, NUMA, Caches, Cores, PCI, Tree []string
	PUs, Allowed, AllowedMems                      string
}

func size(v *uint64) uint64 {
	if v == nil {
		return 0
	}
	return *v
}

func cacheName(level int, unified bool) string {
	if level == 1 && !unified {
		return "L1d"
	}
	return fmt.Sprintf("L%d", level)
}

// factsOfNode lists a node's facts. lstopo hangs a device on the smallest object
// that holds the cpus near it: objects are those there are, none for a
// comparison of nodes.
func factsOfNode(n topology.Node, objects []topology.CPUSet) machineFacts {
	f := machineFacts{PUs: n.Online.String(), Allowed: n.Allowed.String(), AllowedMems: n.AllowedMems.String()}
	for _, p := range n.Packages {
		f.Packages = append(f.Packages, fmt.Sprintf("%d: %s", p.Index, p.CPUs))
	}
	for _, d := range n.Dies {
		f.Dies = append(f.Dies, fmt.Sprintf("%d: %s", d.Index, d.CPUs))
	}
	for _, d := range n.NUMA {
		f.NUMA = append(f.NUMA, fmt.Sprintf("%d: %s memory %d", d.Index, d.CPUs, size(d.Memory)))
	}
	for _, c := range n.Caches {
		f.Caches = append(f.Caches, fmt.Sprintf("%s: %s size %d", cacheName(c.Level, c.Unified), c.CPUs, size(c.Size)))
	}
	for _, c := range n.Cores {
		f.Cores = append(f.Cores, fmt.Sprintf("%d: %s", c.Index, c.PUs))
	}
	for _, d := range n.PCI {
		if d.Class>>16 == 0x05 { // versions of hwloc differ on memory
			continue
		}
		cpus := d.CPUs
		if cpus.IsEmpty() {
			cpus = n.Online
		}
		smallest := n.Online
		for _, o := range objects {
			if o.Contains(cpus) && o.Count() < smallest.Count() {
				smallest = o
			}
		}
		if len(objects) > 0 {
			cpus = smallest
		}
		f.PCI = append(f.PCI, fmt.Sprintf("%s %04x %04x:%04x near %s", d.Address, d.Class>>8, d.Vendor, d.Device, cpus))
		if d.Parent != "" {
			f.Tree = append(f.Tree, d.Address+" below "+d.Parent)
		}
	}
	return f.sorted()
}

func (f machineFacts) sorted() machineFacts {
	for _, l := range [][]string{f.Packages, f.Dies, f.NUMA, f.Caches, f.Cores, f.PCI, f.Tree} {
		slices.Sort(l)
	}
	return f
}

func factsOfLstopo(t testing.TB, machine lstopoObject, cpuless topology.CPUSet) (machineFacts, []topology.CPUSet) {
	t.Helper()
	var objects []topology.CPUSet
	f := machineFacts{Allowed: hwlocSet(t, machine.Allowed).String(), AllowedMems: hwlocSet(t, machine.AllowedMems).String()}
	var pus topology.CPUSet
	var walk func(o lstopoObject, near, bridge string)
	walk = func(o lstopoObject, near, bridge string) {
		index := 0
		if o.OSIndex != nil {
			index = *o.OSIndex
		} else if o.Type == "Core" {
			index = -1
		}
		cpus := hwlocSet(t, o.CPUSet).String()
		switch o.Type {
		case "Package":
			f.Packages = append(f.Packages, fmt.Sprintf("%d: %s", index, cpus))
		case "Die":
			f.Dies = append(f.Dies, fmt.Sprintf("%d: %s", index, cpus))
		case "NUMANode":
			if cpuless.Has(index) {
				cpus = "" // lstopo says by whose side the memory is
			}
			f.NUMA = append(f.NUMA, fmt.Sprintf("%d: %s memory %d", index, cpus, o.LocalMemory))
		case "L1Cache", "L2Cache", "L3Cache", "L4Cache", "L5Cache":
			f.Caches = append(f.Caches, fmt.Sprintf("%s: %s size %d", cacheName(o.CacheDepth, o.CacheType == 0), cpus, o.CacheSize))
		case "Core":
			f.Cores = append(f.Cores, fmt.Sprintf("%d: %s", index, cpus))
		case "PU":
			pus = pus.Add(index)
		}
		if o.CPUSet != "" && o.Type != "NUMANode" {
			near = cpus
			objects = append(objects, hwlocSet(t, o.CPUSet))
		}
		if o.PCIAddress != "" {
			var class, vendor, device int
			if _, err := fmt.Sscanf(o.PCIType, "%x [%x:%x]", &class, &vendor, &device); err != nil {
				t.Fatalf("lstopo's PCI type %q: %v", o.PCIType, err)
			}
			if class>>8 != 0x05 {
				f.PCI = append(f.PCI, fmt.Sprintf("%s %04x %04x:%04x near %s", o.PCIAddress, class, vendor, device, near))
			}
			if bridge != "" {
				f.Tree = append(f.Tree, o.PCIAddress+" below "+bridge)
			}
			bridge = o.PCIAddress
		}
		for _, c := range o.Objects {
			walk(c, near, bridge)
		}
	}
	walk(machine, "", "")
	if len(f.Cores) == 0 { // where the kernel tells of none, each PU is one
		for _, pu := range pus.Slice() {
			f.Cores = append(f.Cores, fmt.Sprintf("-1: %d", pu))
		}
	}
	f.PUs = pus.String()
	return f.sorted(), objects
}

// TestGoldenSysfs compares every recorded machine with lstopo's view of it:
// with lstopo itself, where it is installed, and with the text that lies
// beside the record.
func TestGoldenSysfs(t *testing.T) {
	dir := golden.Dir(t, "sysfs")
	records, err := filepath.Glob(filepath.Join(dir, "*.tar.bz2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) == 0 {
		t.Skipf("no records of machines in %s", dir)
	}
	_, noLstopo := exec.LookPath("lstopo-no-graphics")
	for _, file := range records {
		name := strings.TrimSuffix(filepath.Base(file), ".tar.bz2")
		t.Run(name, func(t *testing.T) {
			console, noConsole := os.ReadFile(filepath.Join(dir, name+".console"))
			if noLstopo != nil && noConsole != nil {
				t.Skip("neither lstopo (package hwloc) nor its text beside the record")
			}
			n, err := From(file)
			if err != nil {
				t.Fatal(err)
			}
			checkNode(t, n)
			for _, w := range n.Warnings {
				t.Logf("warning: %s", w)
			}
			if noConsole == nil {
				compareConsole(t, n, string(console))
			}
			if noLstopo == nil {
				dir := unpack(t, file)
				machine := lstopoXML(t, dir)
				want, objects := factsOfLstopo(t, machine, cpulessNodes(t, dir))
				if !slices.ContainsFunc(want.PCI, wideDomain) {
					// Debian's hwloc leaves out domains of more than 16 bits.
					n.PCI = slices.DeleteFunc(slices.Clone(n.PCI), func(d topology.PCIDevice) bool { return wideDomain(d.Address) })
				}
				if _, err := os.Stat(filepath.Join(dir, "var/run/hwloc/knl_memoryside_cache")); err == nil {
					// Memory in front of memory, which hwloc takes for a cache of cpus.
					want.Caches = slices.DeleteFunc(want.Caches, func(c string) bool { return strings.HasPrefix(c, "L3:") })
				}
				got := factsOfNode(n, objects)
				if machine.Refused {
					// A tree can't have what overlaps and is within neither; the model can.
					notInTree := func(tree []string) func(string) bool {
						return func(s string) bool { return !slices.Contains(tree, s) }
					}
					got.Packages = slices.DeleteFunc(got.Packages, notInTree(want.Packages))
					got.Caches = slices.DeleteFunc(got.Caches, notInTree(want.Caches))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("lstopo's and ours (-want +got):\n%s", diff)
				}
				again, err := From(dir)
				again.PCI = slices.DeleteFunc(again.PCI, func(d topology.PCIDevice) bool {
					return !slices.ContainsFunc(n.PCI, func(o topology.PCIDevice) bool { return o.Address == d.Address })
				})
				if diff := cmp.Diff(n, again); err != nil || diff != "" {
					t.Errorf("unpacked, %v (-archive +folder):\n%s", err, diff)
				}
			}
		})
	}
}

func wideDomain(address string) bool { return strings.IndexByte(address, ':') > 4 }

// cpulessNodes lists the NUMA nodes whose mask of cpus is zero.
func cpulessNodes(t testing.TB, root string) topology.CPUSet {
	t.Helper()
	masks, err := filepath.Glob(filepath.Join(root, "sys/devices/system/node/node*/cpumap"))
	if err != nil {
		t.Fatal(err)
	}
	var out topology.CPUSet
	for _, file := range masks {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "node"))
		if err == nil && strings.Trim(string(b), "0,\n") == "" {
			out = out.Add(index)
		}
	}
	return out
}

// recordDir is a folder for a record's ten thousand small files: in memory where that
// can be, as a disk takes half a minute for them.
func recordDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "probe-record-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// unpack extracts a record to a temporary folder and returns the machine's root.
func unpack(t testing.TB, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := os.OpenRoot(recordDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for tr := tar.NewReader(bzip2.NewReader(f)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(h.Name, "/")
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			if err = root.MkdirAll(filepath.Dir(name), 0o755); err == nil {
				err = root.Symlink(h.Linkname, name)
			}
		case tar.TypeReg:
			if err = root.MkdirAll(filepath.Dir(name), 0o755); err == nil {
				var b []byte
				if b, err = io.ReadAll(tr); err == nil {
					err = root.WriteFile(name, b, 0o644)
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tops, err := os.ReadDir(root.Name())
	if err != nil || len(tops) != 1 {
		t.Fatalf("%s: %d folders at the top, %v", file, len(tops), err)
	}
	return filepath.Join(root.Name(), tops[0].Name())
}

// TestLiveXML compares this machine with lstopo's whole view of it.
func TestLiveXML(t *testing.T) {
	if _, err := exec.LookPath("lstopo-no-graphics"); err != nil {
		t.Skip("lstopo-no-graphics is not installed (package hwloc)")
	}
	n, err := Live()
	if err != nil {
		t.Fatal(err)
	}
	want, objects := factsOfLstopo(t, lstopoXML(t, ""), cpulessNodes(t, "/"))
	got := factsOfNode(n, objects)
	got.Allowed, got.AllowedMems = want.Allowed, want.AllowedMems // affinity is no part of lstopo's
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lstopo's and ours (-want +got):\n%s", diff)
	}
}
