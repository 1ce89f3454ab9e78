package bind_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/topology"
	"gangway/topology/bind"
)

// withGPUs adds count GPUs to every NUMA node and an HCA with an active port
// beside each.
func withGPUs(n topology.Node, vendor string, count int) topology.Node {
	for _, d := range n.NUMA {
		for range count {
			i := len(n.GPUs)
			n.GPUs = append(n.GPUs, topology.GPU{Index: i, Vendor: vendor, NUMA: d.Index, CPUs: d.CPUs, PCI: fmt.Sprintf("0000:%02x:00.0", i+1)})
			n.HCAs = append(n.HCAs, topology.HCA{Name: "mlx5_" + strconv.Itoa(i), NUMA: d.Index, CPUs: d.CPUs,
				Ports: []topology.HCAPort{{Number: 1, State: "ACTIVE", LinkLayer: "InfiniBand"}}})
		}
	}
	return n
}

func TestGPUs(t *testing.T) {
	two := withGPUs(node(2, 1, 4, 2), "nvidia", 2) // cores 0-3, 4-7; GPUs 0,1 and 2,3
	// As on Frontier: the GPUs near the first cores are not the first, and each
	// has an L3 of its own.
	frontier := node(1, 2, 8, 1)
	for i, cpus := range []string{"8-11", "12-15", "0-3", "4-7"} {
		c := set(t, cpus)
		frontier.Caches = append(frontier.Caches, topology.Cache{Level: 3, CPUs: c})
		frontier.GPUs = append(frontier.GPUs, topology.GPU{Index: i, Vendor: "amd", NUMA: -1, CPUs: c})
	}
	unknown := node(2, 1, 2, 1)
	for i := range 4 {
		unknown.GPUs = append(unknown.GPUs, topology.GPU{Index: i, Vendor: "nvidia", NUMA: -1})
	}
	mig := node(1, 1, 4, 1)
	mig.GPUs = []topology.GPU{{Vendor: "nvidia", NUMA: 0, MIGMode: true, MIG: []topology.MIG{{UUID: "MIG-a"}, {UUID: "MIG-b"}}}}
	for _, test := range []struct {
		name string
		r    bind.Request
		want []string
		err  string
	}{
		{name: "gpu first", r: bind.Request{Node: two, Ranks: 4, Mode: bind.GPU, CoresPerRank: 2}, want: []string{
			"cpus 0-1,8-9 numa 0 gpus 0 nics mlx5_0 threads 2", "cpus 2-3,10-11 numa 0 gpus 1 nics mlx5_1 threads 2",
			"cpus 4-5,12-13 numa 1 gpus 2 nics mlx5_2 threads 2", "cpus 6-7,14-15 numa 1 gpus 3 nics mlx5_3 threads 2"}},
		{name: "spread", r: bind.Request{Node: two, Ranks: 2, Mode: bind.GPU, SMT: 1}, want: []string{
			"cpus 0-3 numa 0 gpus 0 nics mlx5_0 threads 4", "cpus 4-7 numa 1 gpus 2 nics mlx5_2 threads 4"}},
		{name: "shared", r: bind.Request{Node: two, Ranks: 8, Mode: bind.GPU, SMT: 1, GPUs: []int{1, 2}}, want: []string{
			"cpus 0 numa 0 gpus 1 nics mlx5_0 threads 1", "cpus 1 numa 0 gpus 1 nics mlx5_1 threads 1",
			"cpus 2 numa 0 gpus 1 nics mlx5_0 threads 1", "cpus 3 numa 0 gpus 1 nics mlx5_1 threads 1",
			"cpus 4 numa 1 gpus 2 nics mlx5_2 threads 1", "cpus 5 numa 1 gpus 2 nics mlx5_3 threads 1",
			"cpus 6 numa 1 gpus 2 nics mlx5_2 threads 1", "cpus 7 numa 1 gpus 2 nics mlx5_3 threads 1"}},
		{name: "two a rank", r: bind.Request{Node: two, Ranks: 2, GPUsPerRank: 2, CoresPerRank: 1}, want: []string{
			"cpus 0,8 numa 0 gpus 0,1 nics mlx5_0,mlx5_1 threads 1", "cpus 4,12 numa 1 gpus 2,3 nics mlx5_2,mlx5_3 threads 1"}},
		{name: "rank i is not GPU i", r: bind.Request{Node: frontier, Ranks: 4, Mode: bind.GPU}, want: []string{
			"cpus 0-3 numa 0 gpus 2 threads 4", "cpus 4-7 numa 0 gpus 3 threads 4", "cpus 8-11 numa 1 gpus 0 threads 4", "cpus 12-15 numa 1 gpus 1 threads 4"}},
		{name: "auto", r: bind.Request{Node: frontier, Ranks: 4}, want: []string{
			"cpus 0-3 numa 0 gpus 2 threads 4", "cpus 4-7 numa 0 gpus 3 threads 4", "cpus 8-11 numa 1 gpus 0 threads 4", "cpus 12-15 numa 1 gpus 1 threads 4"}},
		{name: "place unknown", r: bind.Request{Node: unknown, Ranks: 2}, want: []string{
			"cpus 0-1 numa 0 gpus 0,1 threads 2", "cpus 2-3 numa 1 gpus 2,3 threads 2"}},
		{name: "instances", r: bind.Request{Node: mig, Ranks: 2, Mode: bind.GPU, CoresPerRank: 1}, want: []string{
			"cpus 0 numa 0 gpus MIG-a threads 1", "cpus 1 numa 0 gpus MIG-b threads 1"}},
		{name: "core takes the nearest", r: bind.Request{Node: two, Ranks: 2, Mode: bind.Core, CoresPerRank: 1, GPUsPerRank: 1, Granted: set(t, "3,4")}, want: []string{
			"cpus 3 numa 0 gpus 0 nics mlx5_0 threads 1", "cpus 4 numa 1 gpus 2 nics mlx5_2 threads 1"}},
		{name: "granted GPUs far from the cpus", r: bind.Request{Node: two, Ranks: 2, GPUs: []int{2, 3}, CoresPerRank: 1, Granted: set(t, "0-1")}, want: []string{
			"cpus 0 numa 0 gpus 2 nics mlx5_2 threads 1", "cpus 1 numa 0 gpus 3 nics mlx5_3 threads 1"}},
		{name: "none granted", r: bind.Request{Node: two, Ranks: 2, GPUs: []int{}, SMT: 1}, want: []string{
			"cpus 0-3 numa 0 nics mlx5_0 threads 4", "cpus 4-7 numa 1 nics mlx5_2 threads 4"}},
		{name: "too few", r: bind.Request{Node: two, Ranks: 3, GPUsPerRank: 2}, err: "3 ranks of 2 GPUs need 6 GPUs, 4 are there"},
		{name: "none there", r: bind.Request{Node: node(1, 1, 2, 1), Ranks: 1, GPUsPerRank: 1}, err: "no GPUs are known"},
		{name: "not there", r: bind.Request{Node: two, Ranks: 1, GPUs: []int{7}}, err: "GPU 7 was granted, which is not there"},
		{name: "smt", r: bind.Request{Node: two, Ranks: 1, SMT: 3}, err: "the cores have 1 to 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.r.Granted.IsEmpty() {
				test.r.Granted = test.r.Node.Allowed
			}
			places, err := bind.Map(test.r)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, error %v; want error %q", places, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range places {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestNICs: the fabric's adapters of the highest rate with an active port, the
// one under the GPU's bridge first.
func TestNICs(t *testing.T) {
	n := withGPUs(node(1, 1, 4, 1), "nvidia", 2)
	slow, fast := 100.0, 400.0
	n.PCI = []topology.PCIDevice{{Address: "0000:00:01.0", Class: 0x060400}, {Address: "0000:00:02.0", Class: 0x060400},
		{Address: "0000:01:00.0", Parent: "0000:00:01.0", NUMA: 0}, {Address: "0000:02:00.0", Parent: "0000:00:02.0", NUMA: 0},
		{Address: "0000:05:00.0", Parent: "0000:00:02.0", NUMA: 0}, {Address: "0000:06:00.0", Parent: "0000:00:01.0", NUMA: 0}}
	port := func(state, layer string, gbps *float64) []topology.HCAPort {
		return []topology.HCAPort{{Number: 1, State: state, LinkLayer: layer, Gbps: gbps}}
	}
	n.HCAs = []topology.HCA{
		{Name: "mlx5_0", PCI: "0000:05:00.0", NUMA: 0, Ports: port("ACTIVE", "InfiniBand", &fast)},
		{Name: "mlx5_1", PCI: "0000:06:00.0", NUMA: 0, Ports: port("ACTIVE", "InfiniBand", &fast)},
		{Name: "mlx5_2", NUMA: 0, Ports: port("ACTIVE", "Ethernet", &fast)},
		{Name: "mlx5_3", NUMA: 0, Ports: port("ACTIVE", "InfiniBand", &slow)},
		{Name: "mlx5_4", NUMA: 0, Ports: port("DOWN", "InfiniBand", &fast)},
	}
	places, err := bind.Map(bind.Request{Node: n, Granted: n.Allowed, Ranks: 2, Mode: bind.GPU})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"mlx5_1", "mlx5_0"}, append(places[0].NICs, places[1].NICs...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEnv(t *testing.T) {
	nvidia, amd := withGPUs(node(1, 1, 4, 2), "nvidia", 2), withGPUs(node(1, 1, 4, 2), "amd", 2)
	opa := node(1, 1, 2, 1)
	opa.HCAs = []topology.HCA{{Name: "hfi1_0", NUMA: 0, Ports: []topology.HCAPort{{Number: 1, State: "ACTIVE"}}}}
	for _, test := range []struct {
		name string
		node topology.Node
		p    bind.Place
		user []string
		want []string
	}{
		{name: "all", node: nvidia, p: bind.Place{CPUs: set(t, "0-1,4-5"), Threads: 2, GPUs: []string{"0", "1"}, NICs: []string{"mlx5_1"}}, want: []string{
			"OMP_NUM_THREADS=2", "OMP_PLACES={0,4},{1,5}", "OMP_PROC_BIND=spread", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=0,1",
			"UCX_NET_DEVICES=mlx5_1:1", "NCCL_IB_HCA==mlx5_1:1"}},
		{name: "amd, a thread a PU", node: amd, p: bind.Place{CPUs: set(t, "0-1,4-5"), Threads: 4, GPUs: []string{"1"}}, want: []string{
			"OMP_NUM_THREADS=4", "OMP_PLACES={0},{4},{1},{5}", "OMP_PROC_BIND=spread", "ROCR_VISIBLE_DEVICES=1"}},
		{name: "fewer threads than cores", node: amd, p: bind.Place{CPUs: set(t, "0-2"), Threads: 2}, want: []string{
			"OMP_NUM_THREADS=2", "OMP_PLACES={0,1},{2}", "OMP_PROC_BIND=spread"}},
		{name: "threads between cores and PUs", node: amd, p: bind.Place{CPUs: set(t, "0-1,4-5"), Threads: 3}, want: []string{
			"OMP_NUM_THREADS=3", "OMP_PLACES={0},{4},{1,5}", "OMP_PROC_BIND=spread"}},
		{name: "more threads than PUs", node: amd, p: bind.Place{CPUs: set(t, "0,4"), Threads: 9}, want: []string{
			"OMP_NUM_THREADS=9", "OMP_PLACES={0},{4}", "OMP_PROC_BIND=spread"}},
		{name: "unbound", node: amd, p: bind.Place{Threads: 3}, want: []string{"OMP_NUM_THREADS=3"}},
		{name: "Omni-Path", node: opa, p: bind.Place{NICs: []string{"hfi1_0"}}, want: []string{"OMP_NUM_THREADS=1"}},
		{name: "the user's win", node: nvidia, p: bind.Place{CPUs: set(t, "0"), Threads: 1, GPUs: []string{"0"}, NICs: []string{"mlx5_0"}},
			user: []string{"OMP_NUM_THREADS=7", "OMP_PROC_BIND=false", "CUDA_VISIBLE_DEVICES=3", "UCX_NET_DEVICES=all"}, want: []string{"NCCL_IB_HCA==mlx5_0:1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, bind.Env(test.node, test.p, test.user)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestMapEveryMode: whatever is asked, what comes is within the grant, the same
// every time and whatever the order of the node's parts, and is not shared where
// sharing was not asked for.
func TestMapEveryMode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := node(rapid.IntRange(1, 3).Draw(t, "packages"), rapid.IntRange(1, 3).Draw(t, "numa"),
			rapid.IntRange(1, 6).Draw(t, "cores"), rapid.IntRange(1, 4).Draw(t, "smt"))
		if k := rapid.IntRange(0, 3).Draw(t, "gpus"); k > 0 {
			n = withGPUs(n, "nvidia", k)
			for i := range n.GPUs {
				switch rapid.IntRange(0, 5).Draw(t, "known") {
				case 0:
					n.GPUs[i].CPUs, n.GPUs[i].NUMA = topology.CPUSet{}, -1
				case 1:
					n.GPUs[i].CPUs = n.Online
				case 2:
					n.GPUs[i].MIGMode = true
					n.GPUs[i].MIG = []topology.MIG{{UUID: fmt.Sprint("MIG-", i, "a")}, {UUID: fmt.Sprint("MIG-", i, "b")}}
				}
			}
		}
		for _, s := range n.Packages {
			if rapid.Bool().Draw(t, "l3") {
				n.Caches = append(n.Caches, topology.Cache{Level: 3, CPUs: s.CPUs})
			}
		}
		granted := topology.NewCPUSet(rapid.SliceOfN(rapid.SampledFrom(n.Online.Slice()), 1, 40).Draw(t, "granted")...)
		r := bind.Request{Node: n, Granted: granted, Ranks: rapid.IntRange(1, 14).Draw(t, "ranks"),
			CoresPerRank: rapid.IntRange(0, 3).Draw(t, "each"), Oversubscribe: rapid.Bool().Draw(t, "oversubscribe"),
			Mode:    rapid.SampledFrom([]bind.Mode{bind.Auto, bind.Core, bind.NUMA, bind.Socket, bind.GPU, bind.None}).Draw(t, "mode"),
			Threads: rapid.IntRange(0, 9).Draw(t, "threads"), SMT: rapid.IntRange(0, 4).Draw(t, "usesmt"),
			Optimize: rapid.SampledFrom([]bind.Optimize{"", bind.ByGPU, bind.ByCPU}).Draw(t, "optimize"),
			NoGreedy: rapid.Bool().Draw(t, "nogreedy"), GPUsPerRank: rapid.IntRange(0, 3).Draw(t, "gpusper")}
		if rapid.Bool().Draw(t, "name gpus") {
			r.GPUs = []int{}
			for _, g := range n.GPUs {
				if rapid.Bool().Draw(t, "grant") {
					r.GPUs = append(r.GPUs, g.Index)
				}
			}
		}
		places, err := bind.Map(r)
		if err != nil {
			return
		}
		mixed := n
		mixed.GPUs, mixed.NUMA, mixed.Packages = slices.Clone(n.GPUs), slices.Clone(n.NUMA), slices.Clone(n.Packages)
		slices.Reverse(mixed.GPUs)
		slices.Reverse(mixed.NUMA)
		slices.Reverse(mixed.Packages)
		r.Node = mixed
		again, err := bind.Map(r)
		if diff := cmp.Diff(places, again); diff != "" || err != nil {
			t.Fatalf("two answers to one request (%v):\n%s", err, diff)
		}
		if len(places) != r.Ranks {
			t.Fatalf("%d places for %d ranks", len(places), r.Ranks)
		}
		var used topology.CPUSet
		gpus := map[string]bool{}
		ownCPUs := r.CoresPerRank > 0 && !r.Oversubscribe && r.Mode != bind.NUMA && r.Mode != bind.Socket
		for i, p := range places {
			if p.Threads < 1 || p.CPUs.IsEmpty() != (r.Mode == bind.None) || !granted.Contains(p.CPUs) {
				t.Fatalf("rank %d: %s, granted %s", i, p, granted)
			}
			if ownCPUs {
				if used.Overlaps(p.CPUs) {
					t.Fatalf("rank %d shares cpus: %v", i, places)
				}
				if cores := len(n.CoresWithin(p.CPUs)); cores < r.CoresPerRank && r.Mode != bind.None {
					t.Fatalf("rank %d has %d cores: %v", i, cores, places)
				}
			}
			used = used.Union(p.CPUs)
			seen := map[string]bool{}
			for _, g := range p.GPUs {
				if seen[g] || r.GPUsPerRank > 0 && !r.Oversubscribe && gpus[g] {
					t.Fatalf("GPU %s twice: %v", g, places)
				}
				seen[g], gpus[g] = true, true
			}
			if r.GPUsPerRank > 0 && len(p.GPUs) != r.GPUsPerRank {
				t.Fatalf("rank %d has GPUs %v, want %d", i, p.GPUs, r.GPUsPerRank)
			}
			for _, v := range bind.Env(n, p, nil) {
				if name, value, ok := strings.Cut(v, "="); !ok || name == "" || value == "" {
					t.Fatalf("variable %q", v)
				}
			}
		}
	})
}
