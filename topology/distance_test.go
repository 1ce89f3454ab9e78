package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// twoSwitches is a machine of two NUMA nodes: below 0000:10 a switch with GPU0,
// mlx5_0 and a second switch with GPU1; a root port with mlx5_1; GPU2 at another
// host bridge of node 0; GPU3 and mlx5_2 at node 1.
func twoSwitches() Node {
	bridge := func(address, parent, host string, numa int) PCIDevice {
		return PCIDevice{Address: address, Parent: parent, Host: host, Class: 0x060400, NUMA: numa}
	}
	end := func(address, parent, host string, numa int, names ...string) PCIDevice {
		return PCIDevice{Address: address, Parent: parent, Host: host, NUMA: numa, Names: names}
	}
	const a, b, c = "0000:10", "0000:20", "0000:80"
	return Node{
		Packages: []Package{{Index: 0, CPUs: NewCPUSet(0, 1, 2, 3)}, {Index: 1, CPUs: NewCPUSet(4, 5, 6, 7)}},
		NUMA:     []NUMANode{{Index: 0, CPUs: NewCPUSet(0, 1)}, {Index: 2, CPUs: NewCPUSet(2, 3)}, {Index: 1, CPUs: NewCPUSet(4, 5, 6, 7)}},
		PCI: []PCIDevice{
			bridge("0000:10:00.0", "", a, 0), // root port
			bridge("0000:11:00.0", "0000:10:00.0", a, 0),
			bridge("0000:12:00.0", "0000:11:00.0", a, 0), bridge("0000:12:01.0", "0000:11:00.0", a, 0), bridge("0000:12:02.0", "0000:11:00.0", a, 0),
			end("0000:13:00.0", "0000:12:00.0", a, 0, "card0"), end("0000:14:00.0", "0000:12:01.0", a, 0, "mlx5_0", "ib0"), end("0000:14:00.1", "0000:12:01.0", a, 0),
			bridge("0000:15:00.0", "0000:12:02.0", a, 0), bridge("0000:16:00.0", "0000:15:00.0", a, 0),
			end("0000:17:00.0", "0000:16:00.0", a, 0),
			bridge("0000:10:01.0", "", a, 0), end("0000:18:00.0", "0000:10:01.0", a, 0, "mlx5_1"),
			bridge("0000:20:00.0", "", b, 0), end("0000:21:00.0", "0000:20:00.0", b, -1),
			bridge("0000:80:00.0", "", c, 1), end("0000:81:00.0", "0000:80:00.0", c, 1),
			end("0000:82:00.0", "0000:80:00.0", c, 1, "eth1"),
		},
		GPUs: []GPU{
			{Index: 0, PCI: "0000:13:00.0", NUMA: 0}, {Index: 1, PCI: "0000:17:00.0", NUMA: -1},
			{Index: 2, PCI: "0000:21:00.0", NUMA: -1}, {Index: 3, PCI: "0000:81:00.0", NUMA: 1}, {Index: 4, NUMA: -1},
		},
		HCAs: []HCA{
			{Name: "mlx5_0", PCI: "0000:14:00.0", NUMA: 0, Ports: []HCAPort{{Number: 1, Netdev: "ib0"}}},
			{Name: "mlx5_1", PCI: "0000:18:00.0", NUMA: 0},
			{Name: "mlx5_2", NUMA: 1},
		},
		Links: []Link{{A: "GPU0", B: "GPU3", Class: "NV4"}, {A: "GPU0", B: "mlx5_1", Class: ""}, {A: "GPU1", B: "GPU3", Class: "NV2"}, {A: "GPU3", B: "GPU1", Class: "SYS"}},
	}
}

func TestDistance(t *testing.T) {
	n := twoSwitches()
	for _, test := range []struct {
		a, b string
		want Class
	}{
		{"GPU0", "GPU0", ClassSelf},
		{"GPU0", "mlx5_0", ClassPIX},
		{"GPU0", "ib0", ClassPIX},
		{"card0", "0000:14:00.1", ClassPIX},
		{"0000:14:00.0", "0000:14:00.1", ClassPIX},
		{"GPU0", "GPU1", ClassPXB},
		{"GPU0", "mlx5_1", ClassPHB},
		{"GPU1", "mlx5_1", ClassPHB},
		{"GPU0", "GPU2", ClassNODE},
		{"GPU0", "GPU3", "NV4"},
		{"0000:13:00.0", "GPU3", "NV4"}, // by its other name
		{"GPU1", "GPU3", ClassSYS},      // contradiction: the farther
		{"GPU2", "eth1", ClassSYS},
		{"GPU3", "0000:82:00.0", ClassPIX},
		{"GPU3", "mlx5_2", ClassNODE},
		{"ib0", "mlx5_0", ClassSelf},
		{"GPU0", "GPU4", ""}, // nowhere
		{"GPU0", "GPU9", ""},
		{"", "", ""},
	} {
		if got := Distance(n, test.a, test.b); got != test.want {
			t.Errorf("%s to %s is %q, want %q", test.a, test.b, got, test.want)
		}
		if got := Distance(n, test.b, test.a); got != test.want {
			t.Errorf("%s to %s is %q, want %q", test.b, test.a, got, test.want)
		}
	}
}

func TestNear(t *testing.T) {
	n := twoSwitches()
	for _, test := range []struct {
		device string
		cpus   CPUSet
		want   Proximity
	}{
		{"GPU0", NewCPUSet(0), ProximityNUMA},
		{"GPU0", NewCPUSet(7, 1), ProximityNUMA},
		{"GPU0", NewCPUSet(2, 3), ProximityPackage},
		{"GPU0", NewCPUSet(4), ProximityMachine},
		{"mlx5_2", NewCPUSet(4), ProximityNUMA},
		{"GPU4", NewCPUSet(0), ProximityUnknown},
		{"GPU0", CPUSet{}, ProximityUnknown},
		{"none", NewCPUSet(0), ProximityUnknown},
	} {
		if got := Near(n, test.cpus, test.device); got != test.want {
			t.Errorf("%s and cpus %s: %d, want %d", test.device, test.cpus, got, test.want)
		}
	}
}

func TestClassOrder(t *testing.T) {
	order := []Class{ClassSelf, "NV18", "NV4", "NV1", ClassPIX, ClassPXB, ClassPHB, ClassNODE, ClassSYS, ""}
	for i := range order {
		for j := range order {
			if got, want := order[i].Compare(order[j]), i-j; got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("%q to %q: %d", order[i], order[j], got)
			}
		}
	}
}

// TestDistanceAnyTree: every tree, also one with cycles, has symmetric distances.
func TestDistanceAnyTree(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var n Node
		count := rapid.IntRange(1, 12).Draw(r, "devices")
		address := func(i int) string {
			return "0000:" + string(rune('a'+i/16)) + string("0123456789abcdef"[i%16]) + ":00.0"
		}
		for i := range count {
			d := PCIDevice{Address: address(i), NUMA: rapid.IntRange(-1, 2).Draw(r, "numa"), Host: rapid.SampledFrom([]string{"", "0000:00", "0000:80"}).Draw(r, "host")}
			if rapid.Bool().Draw(r, "below") {
				d.Parent = address(rapid.IntRange(0, count).Draw(r, "parent"))
			}
			n.PCI = append(n.PCI, d)
			n.GPUs = append(n.GPUs, GPU{Index: i, PCI: d.Address, NUMA: -1})
		}
		m := Matrix(n)
		for i := range m.Devices {
			for j := range m.Devices {
				if m.Classes[i][j] != m.Classes[j][i] || (i == j) != (m.Classes[i][j] == ClassSelf) {
					r.Fatalf("%d to %d: %q and %q", i, j, m.Classes[i][j], m.Classes[j][i])
				}
			}
		}
	})
}

func TestRenderMatrix(t *testing.T) {
	n := twoSwitches()
	n.GPUs, n.HCAs = n.GPUs[:2], n.HCAs[:1]
	var b strings.Builder
	if err := RenderMatrix(&b, Matrix(n)); err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(b.String(), "\n\n")
	want := "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n" +
		"GPU0\t X \tPXB\tPIX\t0-1\t0\t\tN/A\n" +
		"GPU1\tPXB\t X \tPXB\t0-1\t0\t\tN/A\n" +
		"NIC0\tPIX\tPXB\t X \t0-1\t0\t\t"
	if d := cmp.Diff(want, table); d != "" {
		t.Error(d)
	}
	if !strings.HasSuffix(b.String(), "\nNIC Legend:\n\n  NIC0: mlx5_0\n") {
		t.Error(b.String())
	}
}
