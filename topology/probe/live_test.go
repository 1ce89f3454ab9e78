package probe

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"gangway/topology"
)

func TestLive(t *testing.T) {
	n, err := Live()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cores, allowed %s, warnings %q", len(n.Cores), n.Allowed, n.Warnings)
	if len(n.Usable()) == 0 {
		t.Fatalf("no usable core in %+v", n)
	}
	if got, want := n.Allowed.Count(), runtime.NumCPU(); runtime.GOOS == "linux" && got != want {
		t.Errorf("allowed cpus: %d (%s), the runtime sees %d", got, n.Allowed, want)
	}
	if n.Hostname == "" {
		t.Error("no host name")
	}
	loopback := false
	for _, i := range n.Interfaces {
		loopback = loopback || i.Loopback && len(i.Addrs) > 0
	}
	if !loopback {
		t.Errorf("no loopback address in %+v", n.Interfaces)
	}
	if addrs, _, err := topology.SharedNetwork([]topology.Node{n}, ""); err != nil || len(addrs) != 1 {
		t.Errorf("SharedNetwork of this machine: %v, %v", addrs, err)
	}
}

// TestLiveAgainstLstopo compares the live machine with hwloc's view of it.
func TestLiveAgainstLstopo(t *testing.T) {
	if _, err := exec.LookPath("lstopo-no-graphics"); err != nil {
		t.Skip("lstopo-no-graphics is not installed (package hwloc)")
	}
	out, err := exec.Command("lstopo-no-graphics", "-v", "--restrict", "binding", "--of", "console").Output()
	if err != nil {
		t.Skipf("lstopo: %v", err)
	}
	n, err := Live()
	if err != nil {
		t.Fatal(err)
	}
	compareConsole(t, n, string(out))
}

func BenchmarkLive(b *testing.B) {
	for b.Loop() {
		if _, err := Live(); err != nil {
			b.Fatal(err)
		}
	}
}

// consoleCounts reads lstopo's summary: " depth 1:  7 Package (type #1)".
func consoleCounts(console string) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(console) {
		f := strings.Fields(line)
		for k := 1; k+1 < len(f); k++ {
			if f[k+1] == "(type" {
				n := 0
				for _, c := range f[k-1] {
					if c < '0' || c > '9' {
						n = -1
						break
					}
					n = n*10 + int(c-'0')
				}
				if n >= 0 {
					counts[f[k]] = n
				}
			}
		}
	}
	return counts
}

// consoleNUMA collects the indices of "NUMANode(HBM) L#3 (P#4 local=524288KB".
func consoleNUMA(console string) map[int]bool {
	out := map[int]bool{}
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		_, rest, ok := strings.Cut(line, "(P#")
		number, _, _ := strings.Cut(rest, " ")
		index, err := strconv.Atoi(strings.TrimRight(number, ")"))
		if ok && err == nil && strings.HasPrefix(line, "NUMANode") {
			out[index] = true
		}
	}
	return out
}

// consolePUs collects the indices of "PU L#0 (P#8)".
func consolePUs(console string) topology.CPUSet {
	var set topology.CPUSet
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		if _, rest, ok := strings.Cut(line, "(P#"); ok && strings.HasPrefix(line, "PU L#") {
			one, err := topology.ParseCPUSet(strings.TrimRight(rest, ")"))
			if err == nil {
				set = set.Union(one)
			}
		}
	}
	return set
}

// compareConsole compares what both models have; lstopo leaves out what the
// process may not use, and the NUMA nodes of GPUs.
func compareConsole(t *testing.T, n topology.Node, console string) {
	t.Helper()
	counts := consoleCounts(console)
	if len(counts) == 0 {
		t.Fatalf("no counts in lstopo's output:\n%s", console)
	}
	cores := n.Usable()
	if got, want := len(cores), counts["Core"]; got != want && want > 0 { // 0: the kernel tells of none
		t.Errorf("cores: %d, lstopo has %d", got, want)
	}
	if got, want := n.Allowed, consolePUs(console); !got.Equal(want) {
		t.Errorf("allowed PUs: %s, lstopo has %s", got, want)
	}
	packages := map[int]bool{} // by place: several may have one number
	for i, p := range n.Packages {
		if p.CPUs.Overlaps(n.Allowed) {
			packages[i] = true
		}
	}
	named := consoleNUMA(console)
	if len(named) != counts["NUMANode"] {
		t.Errorf("lstopo counts %d NUMA nodes and has %v", counts["NUMANode"], named)
	}
	for _, d := range n.NUMA {
		if n.AllowedMems.Has(d.Index) && !d.CPUs.IsEmpty() {
			if !named[d.Index] {
				t.Errorf("lstopo has no NUMA node %d", d.Index)
			}
			for i, p := range n.Packages { // lstopo keeps a package for its memory
				if p.CPUs.Overlaps(d.CPUs) {
					packages[i] = true
				}
			}
		}
		delete(named, d.Index)
	}
	if len(named) > 0 {
		t.Errorf("NUMA nodes of lstopo that are not there: %v", named)
	}
	if got, want := len(packages), counts["Package"]; got != want {
		t.Errorf("packages: %d, lstopo has %d", got, want)
	}
	for level, name := range map[int]string{1: "L1dCache", 2: "L2Cache", 3: "L3Cache"} {
		got := 0
		for _, c := range n.Caches {
			if c.Level == level && c.CPUs.Overlaps(n.Allowed) {
				got++
			}
		}
		if strings.Contains(console, name+"(MemorySideCache)") {
			continue // memory in front of memory, which hwloc takes for a cache of cpus
		}
		// L2dCache: Itanium's second level is divided too.
		if want := counts[name] + counts[strings.Replace(name, "Cache", "dCache", 1)]; got != want {
			t.Errorf("%s: %d, lstopo has %d", name, got, want)
		}
	}
}
