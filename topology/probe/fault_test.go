package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/topology"
)

// bigMachine is a machine with all that the probe knows: dies, kinds of cores,
// huge pages, cgroups, devices behind bridges.
func bigMachine() (sys, proc map[string]string) {
	sys, proc = fourCPUs()
	for cpu := range 4 {
		dir := fmt.Sprintf("devices/system/cpu/cpu%d/", cpu)
		sys[dir+"topology/die_id"] = fmt.Sprint(cpu % 2)
		sys[dir+"topology/die_cpus_list"] = []string{"0,2", "1,3"}[cpu%2]
		sys[dir+"cpu_capacity"] = []string{"1024", "512"}[cpu%2]
		sys[dir+"cpufreq/cpuinfo_max_freq"] = []string{"3900000", "2800000"}[cpu%2]
	}
	huge := "devices/system/node/node0/hugepages/hugepages-2048kB/"
	sys[huge+"nr_hugepages"], sys[huge+"free_hugepages"] = "10", "4"
	sys["fs/cgroup/memory.max"], sys["fs/cgroup/cpuset.cpus.effective"] = "4000000000", "0-3"
	add := func(address, path, class string) string {
		dir := "devices/pci0000:00/" + path + "/"
		sys["bus/pci/devices/"+address] = "-> ../../../" + strings.TrimSuffix(dir, "/")
		sys[dir+"class"], sys[dir+"vendor"], sys[dir+"device"] = class, "0x15b3", "0x1021"
		sys[dir+"numa_node"], sys[dir+"local_cpulist"] = "0", "0-3"
		sys[dir+"current_link_speed"], sys[dir+"current_link_width"] = "16.0 GT/s PCIe", "16"
		return dir
	}
	add("0000:00:01.0", "0000:00:01.0", "0x060400")
	add("0000:01:00.0", "0000:00:01.0/0000:01:00.0", "0x060400")
	add("0000:02:00.0", "0000:00:01.0/0000:01:00.0/0000:02:00.0", "0x030200")
	nic := add("0000:02:00.1", "0000:00:01.0/0000:01:00.0/0000:02:00.1", "0x020000") + "net/eth0/"
	sys[nic+"ifindex"], sys[nic+"flags"], sys[nic+"operstate"], sys[nic+"mtu"] = "2", "0x1003", "up", "1500"
	sys["class/net/eth0"] = "-> ../../" + strings.TrimSuffix(nic, "/")
	add("0000:00:1f.0", "0000:00:1f.0", "0x060100") // of no interest
	return sys, proc
}

func TestPCI(t *testing.T) {
	sys, proc := bigMachine()
	n, err := Node(Source{Sys: tree(sys), Proc: tree(proc)})
	if err != nil || len(n.Warnings) > 0 {
		t.Fatal(err, n.Warnings)
	}
	var got []string
	for _, d := range n.PCI {
		got = append(got, fmt.Sprintf("%s<%s<%s %06x %g x%d numa %d cpus %s %v", d.Address, d.Parent, d.Host, d.Class, d.LinkGTs, d.LinkWidth, d.NUMA, d.CPUs, d.Names))
	}
	want := []string{
		"0000:00:01.0<<0000:00 060400 16 x16 numa 0 cpus 0-3 []",
		"0000:01:00.0<0000:00:01.0<0000:00 060400 16 x16 numa 0 cpus 0-3 []",
		"0000:02:00.0<0000:01:00.0<0000:00 030200 16 x16 numa 0 cpus 0-3 []",
		"0000:02:00.1<0000:01:00.0<0000:00 020000 16 x16 numa 0 cpus 0-3 [eth0]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(n.Dies) != 2 || n.Dies[1].CPUs.String() != "1,3" {
		t.Errorf("dies: %+v", n.Dies)
	}
	if len(n.CPUKinds) != 2 || n.CPUKinds[1].Name != "performance" || n.CPUKinds[1].CPUs.String() != "0,2" || *n.CPUKinds[1].MaxMHz != 3900 {
		t.Errorf("kinds of cores: %+v", n.CPUKinds)
	}
}

func TestParsePCI(t *testing.T) {
	for s, want := range map[string]pciAddress{
		"0000:3b:00.0": {0, 0x3b, 0, 0}, "10000:e1:1f.7": {0x10000, 0xe1, 0x1f, 7}, "ffffffff:ff:00.1": {0xffffffff, 0xff, 0, 1},
	} {
		if got, ok := parsePCI(s); !ok || got != want {
			t.Errorf("%s: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "3b:00.0", "0000:3b:20.0", "0000:3b:00.8", "0000:3b:00", "000g:3b:00.0", "0000:3b.00:0", "100000000:00:00.0", "0000:3b:00.0 "} {
		if _, ok := parsePCI(s); ok {
			t.Errorf("%q is taken for an address", s)
		}
	}
}

// faultFS is a machine some files of which are damaged.
type faultFS struct {
	*memFS
	fail map[string]bool // by real place
}

var errIO = errors.New("input/output error")

func (f faultFS) check(name string) error {
	n, err := f.lookup("read", name, true)
	if err != nil {
		return nil // the tree's own answer follows
	}
	real := n.name
	for n.parent != n && n.parent.parent != n.parent {
		n = n.parent
		real = n.name + "/" + real
	}
	if f.fail[real] {
		return &fs.PathError{Op: "read", Path: name, Err: errIO}
	}
	return nil
}

func (f faultFS) ReadFile(name string) ([]byte, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f.memFS.ReadFile(name)
}

func (f faultFS) Open(name string) (fs.File, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f.memFS.Open(name)
}

// quietFiles may fail without a word: the kernel itself fails to read them in
// normal life, or others say the same.
func quietFile(name string) bool {
	for _, s := range []string{"/speed", "/ifindex", "/type", "cpufreq", "/die_", "self/cpuset", "proc/stat",
		"sys/kernel/unrelated", "1f.0/", "bonding", "/proc/version"} {
		if strings.Contains("/"+name, s) {
			return true
		}
	}
	return false
}

// TestFaults: with any one file missing, empty, unreadable, full of rubbish or
// a link to itself the machine is still probed; all but the missing are warned
// about by name where they are read at all; and nothing else is lost.
func TestFaults(t *testing.T) {
	sys, proc := bigMachine()
	whole, err := Node(Source{Sys: tree(sys), Proc: tree(proc)})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for name := range sys {
		names["sys/"+name] = true
	}
	for name := range proc {
		names["proc/"+name] = true
	}
	read := filesRead(t, sys, proc)
	for name := range names {
		for _, fault := range []string{"missing", "empty", "rubbish", "unreadable", "loop"} {
			n := probeFault(t, name, fault)
			checkNode(t, n)
			file := name
			if k := strings.LastIndex(name, "0000:0"); k >= 0 {
				file = name[k:] // it is found by the address, not by the place in the tree
			}
			if fault == "empty" && strings.HasSuffix(name, "cpulist") {
				continue // a node of memory alone
			}
			if fault != "missing" && read[name] && !quietFile(name) &&
				!strings.Contains(strings.Join(n.Warnings, "\n"), file) && !harmless(whole, n) {
				t.Errorf("%s %s: no warning names it: %q", name, fault, n.Warnings)
			}
			if len(n.Interfaces) == 0 && !strings.Contains(name, "eth0") && !strings.Contains(name, "class/net") {
				t.Errorf("%s %s: the interface is lost", name, fault)
			}
			if len(n.PCI) < 3 && !strings.Contains(name, "pci") {
				t.Errorf("%s %s: devices are lost: %+v", name, fault, n.PCI)
			}
		}
	}
}

// harmless: the fault cost no fact.
func harmless(whole, n topology.Node) bool {
	n.Warnings = nil
	return fmt.Sprintf("%+v", factsOfNode(whole, nil)) == fmt.Sprintf("%+v", factsOfNode(n, nil))
}

// filesRead lists the files that a probe reads.
func filesRead(t *testing.T, sys, proc map[string]string) map[string]bool {
	t.Helper()
	out := newMemFS()
	unreadable := map[string]string{}
	rec := func(m *memFS, mount string) fs.FS {
		return &recorder{src: m, out: out, mount: mount, scrub: newScrubber(), unreadable: unreadable, links: map[string]string{}}
	}
	if _, err := Node(Source{Sys: rec(tree(sys), "sys"), Proc: rec(tree(proc), "proc")}); err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	err := fs.WalkDir(out, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			read[name] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// probeFault probes the machine with the faults given as pairs.
func probeFault(t interface{ Fatal(...any) }, pairs ...string) topology.Node {
	sys, proc := bigMachine()
	fail := map[string]map[string]bool{"sys": {}, "proc": {}}
	files := map[string]map[string]string{"sys": sys, "proc": proc}
	for k := 0; k+1 < len(pairs); k += 2 {
		mount, name, _ := strings.Cut(pairs[k], "/")
		switch pairs[k+1] {
		case "missing":
			delete(files[mount], name)
		case "empty":
			files[mount][name] = ""
		case "rubbish":
			files[mount][name] = "\xff\x00 -7 0-99999999999 x,, : kB\n\n\x1b[31m"
		case "loop":
			files[mount][name] = "-> " + name[strings.LastIndexByte(name, '/')+1:]
		case "unreadable":
			fail[mount][name] = true
		}
	}
	n, err := Node(Source{Sys: faultFS{tree(sys), fail["sys"]}, Proc: faultFS{tree(proc), fail["proc"]}})
	if err != nil {
		t.Fatal(fmt.Sprintf("%q: %v", pairs, err))
	}
	return n
}

// TestManyFaults: whatever is damaged together, there is a node that holds
// together.
func TestManyFaults(t *testing.T) {
	sys, proc := bigMachine()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(sys)) {
		names = append(names, "sys/"+name)
	}
	for _, name := range slices.Sorted(maps.Keys(proc)) {
		names = append(names, "proc/"+name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		var pairs []string
		for range rapid.IntRange(1, 30).Draw(rt, "faults") {
			pairs = append(pairs, rapid.SampledFrom(names).Draw(rt, "file"),
				rapid.SampledFrom([]string{"missing", "empty", "rubbish", "unreadable", "loop"}).Draw(rt, "fault"))
		}
		checkNode(t, probeFault(rt, pairs...))
	})
}

// FuzzDevices feeds the texts of PCI devices, dies and kinds of cores.
func FuzzDevices(f *testing.F) {
	f.Add("10000:e1:00.0", "../../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e1:00.0", "0x010802", "1", "0-1", "8.0 GT/s PCIe", "4", "0,2", "700")
	f.Add("0000:02:00.0", "0000:02:00.0", "x", "-1", "", "Unknown", "63", "", "")
	f.Fuzz(func(t *testing.T, address, link, class, numa, cpus, speed, width, die, capacity string) {
		sys, proc := bigMachine()
		sys["bus/pci/devices/"+address] = "-> " + link
		const dir = "devices/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/"
		sys[dir+"class"], sys[dir+"numa_node"], sys[dir+"local_cpulist"] = class, numa, cpus
		sys[dir+"current_link_speed"], sys[dir+"current_link_width"] = speed, width
		sys["devices/system/cpu/cpu0/topology/die_cpus_list"], sys["devices/system/cpu/cpu1/cpu_capacity"] = die, capacity
		n, err := Node(Source{Sys: tree(sys), Proc: tree(proc)})
		if err != nil {
			t.Fatal(err)
		}
		checkNode(t, n)
		for _, d := range n.PCI {
			if d.Parent == d.Address || !n.Online.Contains(d.CPUs) {
				t.Errorf("device %+v", d)
			}
		}
	})
}
