package topology_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

func smtNode() topology.Node {
	n := topology.Node{Hostname: "n1", OS: "linux"}
	n.Online = topology.NewCPUSet(0, 1, 2, 3, 4, 5, 6, 7)
	n.Allowed = topology.NewCPUSet(0, 1, 2, 4, 5, 6)
	n.AllowedMems = topology.NewCPUSet(0, 1)
	n.Memory = topology.Memory{Total: new(uint64(64 << 30)), Limit: new(uint64(32 << 30))}
	n.MemlockBytes = new(uint64(math.MaxUint64))
	for p := range 2 {
		cpus := topology.NewCPUSet(p*2, p*2+1, p*2+4, p*2+5)
		n.Packages = append(n.Packages, topology.Package{Index: p, CPUs: cpus})
		n.NUMA = append(n.NUMA, topology.NUMANode{Index: p, CPUs: cpus, Memory: new(uint64(32 << 30)),
			HugePages: []topology.HugePages{{PageBytes: 2 << 20, Total: 8, Free: 4}}})
		n.Caches = append(n.Caches, topology.Cache{Level: 3, Unified: true, Size: new(uint64(32 << 20)), CPUs: cpus})
		for c := range 2 {
			pus := topology.NewCPUSet(p*2+c, p*2+c+4)
			n.Cores = append(n.Cores, topology.Core{Index: c, Package: p, NUMA: p, PUs: pus})
			n.Caches = append(n.Caches, topology.Cache{Level: 1, Size: new(uint64(32 << 10)), CPUs: pus})
		}
	}
	n.NUMA = append(n.NUMA, topology.NUMANode{Index: 250, Memory: new(uint64(16 << 30))})
	eth := iface(2, "eth0", "ethernet", 25000, "10.0.0.1/24")
	eth.Driver, eth.MTU = "mlx5_core", 9000
	n.Interfaces = []topology.Interface{eth, down(iface(3, "docker0", "bridge", 0))}
	n.Warnings = []string{"/sys/x: broken"}
	return n
}

func TestRender(t *testing.T) {
	const want = `Machine n1 (64GB total)
  NUMANode P#250 (16GB, not allowed)
  Package P#0
    NUMANode P#0 (32GB, 4 of 8 huge pages of 2MB free)
    L3 (32MB)
      L1d (32KB) + Core P#0
        PU P#0
        PU P#4
      L1d (32KB) + Core P#1
        PU P#1
        PU P#5
  Package P#1
    NUMANode P#1 (32GB, 4 of 8 huge pages of 2MB free)
    L3 (32MB)
      L1d (32KB) + Core P#0
        PU P#2
        PU P#6
      L1d (32KB) + Core P#1
        PU P#3 (not allowed)
        PU P#7 (not allowed)
Network interfaces
  eth0 10.0.0.1/24 25Gb/s (ethernet, mlx5_core, mtu 9000)
  docker0 no address down (virtual bridge)
Limits
  cpus allowed: 0-2,4-6 (3 of 4 cores)
  memory (cgroup): 32GB
  locked memory: unlimited
Warnings
  /sys/x: broken
`
	var b strings.Builder
	if err := topology.Render(&b, smtNode()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNodeJSON: what the agent sends is what the launcher gets.
func TestNodeJSON(t *testing.T) {
	in := smtNode()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out topology.Node
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })); diff != "" {
		t.Errorf("(-in +out):\n%s", diff)
	}
}

func TestUsable(t *testing.T) {
	var got []string
	for _, c := range smtNode().Usable() {
		got = append(got, c.PUs.String())
	}
	if diff := cmp.Diff([]string{"0,4", "1,5", "2,6"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
