package topology_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

// deviceNode has a GPU in parts, one that should not be used, one whose place is
// unknown, and an adapter beside the first.
func deviceNode() topology.Node {
	n := smtNode()
	n.Hostname, n.Warnings, n.Interfaces = "g1", nil, nil
	pci := func(address, parent string, class uint32, node int, names ...string) topology.PCIDevice {
		return topology.PCIDevice{Address: address, Parent: parent, Host: address[:7], Class: class, NUMA: node, Names: names, LinkGTs: 16, LinkWidth: 16}
	}
	n.PCI = []topology.PCIDevice{
		pci("0000:3a:00.0", "", 0x060400, 0), pci("0000:3b:00.0", "0000:3a:00.0", 0x030200, 0, "card1", "renderD128"),
		pci("0000:3c:00.0", "0000:3a:00.0", 0x020700, 0, "ib0", "mlx5_0"), pci("0001:01:00.0", "", 0x030200, 1),
	}
	n.GPUs = []topology.GPU{
		{Index: 0, Vendor: "nvidia", Name: "A100", PCI: "0000:3b:00.0", NUMA: 0, Memory: new(uint64(80 << 30)), Driver: "550.54", MIGMode: true,
			MIG: []topology.MIG{{Index: 0, UUID: "MIG-a", Profile: "1g.10gb", Memory: new(uint64(10 << 30))}, {Index: 1, UUID: "MIG-b", Profile: "2g.20gb"}}},
		{Index: 1, Vendor: "nvidia", Name: "A100", PCI: "0001:01:00.0", NUMA: 1, Health: topology.Health{
			Problem: "a row could not be remapped", Uncorrected: new(uint64(3)), XIDs: []uint64{48, 63}, Throttle: []string{"hw_slowdown"}, TemperatureC: new(91)}},
		{Index: 2, Vendor: "amd", NUMA: -1, MIGMode: false},
	}
	n.HCAs = []topology.HCA{{Name: "mlx5_0", Type: "MT4129", Firmware: "28.39.1002", PCI: "0000:3c:00.0", NUMA: 0, Ports: []topology.HCAPort{
		{Number: 1, State: "ACTIVE", PhysState: "LinkUp", LinkLayer: "InfiniBand", Gbps: new(400.0), Rate: "400 Gb/sec (4X NDR)", LID: new(uint32(7)), Netdev: "ib0"}}}}
	n.Links = []topology.Link{{A: "GPU0", B: "GPU1", Class: "NV12"}}
	return n
}

func TestRenderDevices(t *testing.T) {
	const want = `    HostBridge
      PCIBridge
        PCI 3b:00.0 (3D)
          GPU "cuda0" (A100, 80GB, 2 MIG instances)
        PCI 3c:00.0 (InfiniBand)
          OpenFabrics "mlx5_0" (ACTIVE 400Gb/s)
          Net "ib0"
    HostBridge
      PCI 0001:01:00.0 (3D)
        GPU "cuda1" (A100, a row could not be remapped)
  GPU "rsmi2"
GPUs
  GPU0 nvidia A100 80GB 3b:00.0 NUMA 0 driver 550.54
    MIG 0 1g.10gb 10GB MIG-a
    MIG 1 2g.20gb MIG-b
  GPU1 nvidia A100 0001:01:00.0 NUMA 1 (do not use: a row could not be remapped, 3 uncorrected ECC
      errors, XID 48, 63, throttled: hw_slowdown, 91°C)
  GPU2 amd
Host channel adapters
  mlx5_0 MT4129 firmware 28.39.1002 3c:00.0 NUMA 0
    port 1 ACTIVE LinkUp InfiniBand 400 Gb/sec (4X NDR) lid 7 ib0
Distances (nvidia-smi topo -m's words; gangway probe --matrix has cpus and legend)
       GPU0 GPU1 GPU2 NIC0
  GPU0 X    NV12 N/A  PIX
  GPU1 NV12 X    N/A  SYS
  GPU2 N/A  N/A  X    N/A
  NIC0 PIX  SYS  N/A  X
  NIC0 mlx5_0
`
	var b strings.Builder
	if err := topology.Render(&b, deviceNode(), topology.RenderOptions{Full: true}); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "Limits") {
			break
		}
		switch f := strings.Fields(line)[0]; f {
		case "Machine", "Package", "NUMANode", "L3", "L1d", "PU":
		default:
			got.WriteString(line)
		}
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkPicture(t, deviceNode())
	checkText(t, deviceNode())
}

// TestDistancesAreTheMatrix: the narrow columns have the classes that
// nvidia-smi's would have, on a machine of many devices too.
func TestDistancesAreTheMatrix(t *testing.T) {
	n := deviceNode()
	n.GPUs, n.Links = nil, nil
	for i := range 30 {
		n.GPUs = append(n.GPUs, topology.GPU{Index: i, Vendor: "nvidia", NUMA: i % 2})
	}
	var drawn, matrix bytes.Buffer
	if err := topology.Render(&drawn, n); err != nil {
		t.Fatal(err)
	}
	if err := topology.RenderMatrix(&matrix, topology.Matrix(n)); err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{} // of all blocks
	_, after, _ := strings.Cut(drawn.String(), "Distances")
	for line := range strings.Lines(after) {
		f := strings.Fields(line)
		if name := f[0]; len(f) > 2 && (strings.HasPrefix(name, "GPU") || strings.HasPrefix(name, "NIC")) {
			rows[name] = append(rows[name], f[1:]...)
		}
	}
	count := len(n.GPUs) + len(n.HCAs)
	for line := range strings.Lines(matrix.String()) {
		f := strings.Split(line, "\t")
		name := f[0]
		if len(f) <= count || name == "" {
			continue
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		if diff := cmp.Diff(f[1:count+1], rows[name]); diff != "" {
			t.Errorf("%s (-matrix +drawn):\n%s", name, diff)
		}
	}
	if len(rows) != count {
		t.Errorf("%d rows, want %d", len(rows), count)
	}
}
