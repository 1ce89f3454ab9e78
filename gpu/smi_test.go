package gpu

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

func ptr[T any](v T) *T { return &v }

func TestReadXML(t *testing.T) {
	r, err := ReadXML([]byte(document(healthy(0))))
	if err != nil {
		t.Fatal(err)
	}
	want := Result{Source: "nvidia-smi", GPUs: []topology.GPU{{
		Index: 0, Vendor: "nvidia", Name: "NVIDIA H200", UUID: "GPU-00000000-0000-0000-0000-000000000000", PCI: "0000:19:00.0", NUMA: -1,
		Memory: ptr(uint64(143771) << 20), Driver: "550.54.15",
		Health: topology.Health{ECC: ptr(true), Corrected: ptr(uint64(0)), Uncorrected: ptr(uint64(0)), RetiredPages: ptr(uint64(0)),
			RemapPending: ptr(false), RemapFailed: ptr(false), TemperatureC: ptr(31), PowerMilliW: ptr(uint64(76250))},
	}}}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
}

// TestReadXMLVariants: what drivers and captures do to the document.
func TestReadXMLVariants(t *testing.T) {
	with := func(f func(*card)) string { c := healthy(0); f(&c); return document(c, healthy(1)) }
	for name, c := range map[string]struct {
		doc     string
		gpus    []int // indices that are left
		check   func(g topology.GPU) error
		warning string
	}{
		"CRLF and colours": {doc: "\x1b[32m" + strings.ReplaceAll(document(healthy(0), healthy(1)), "\n", "\r\n") + "\x1b[0m", gpus: []int{0, 1}},
		"text before":      {doc: "Warning: persistence mode is off\n" + document(healthy(0), healthy(1)), gpus: []int{0, 1}},
		"nothing supported": {doc: with(func(c *card) {
			*c = card{id: "00000000:01:00.0", name: "NVIDIA GeForce GTX 1050", uuid: "GPU-x", mig: "N/A", migs: "None", memory: "2000 MiB",
				correctable: "N/A", uncorrectable: "[Not Supported]", remapPending: "N/A", remapFailure: "N/A", rows: "N/A", temperature: "N/A", power: "[N/A]", ecc: "N/A"}
		}), gpus: []int{0, 1}, check: func(g topology.GPU) error {
			if h := g.Health; h.ECC != nil || h.RemapPending != nil || h.TemperatureC != nil || h.PowerMilliW != nil || h.RetiredPages != nil || h.RemapFailed != nil || h.Problem != "" {
				return fmt.Errorf("unknown became %+v", h)
			}
			return nil
		}},
		"separated digits": {doc: with(func(c *card) { c.memory, c.power = "143,771 MiB", "76,25 W" }), gpus: []int{0, 1}, check: func(g topology.GPU) error {
			if *g.Memory != 143771<<20 || *g.Health.PowerMilliW != 76250 {
				return fmt.Errorf("memory %d, power %d", *g.Memory, *g.Health.PowerMilliW)
			}
			return nil
		}},
		"other digits": {doc: with(func(c *card) { c.memory = "١٤٣ MiB" }), gpus: []int{0, 1}, warning: "fb_memory_usage/total", check: func(g topology.GPU) error {
			if g.Memory != nil {
				return fmt.Errorf("memory %d", *g.Memory)
			}
			return nil
		}},
		"lost":         {doc: with(func(c *card) { c.name, c.uuid = "[GPU is lost]", "[GPU is lost]" }), gpus: []int{1}, warning: "GPU 0 0000:19:00.0"},
		"ERR!":         {doc: with(func(c *card) { c.name = "ERR!" }), gpus: []int{1}, warning: "fell off the bus"},
		"cut":          {doc: document(healthy(0), healthy(1))[:4700], gpus: []int{0}, warning: "left out"},
		"reset needed": {doc: with(func(c *card) { c.name = "[GPU requires reset]" }), gpus: []int{0, 1}, check: problem("asks for a reset")},
		"action":       {doc: with(func(c *card) { c.extra = "<gpu_recovery_action>Drain and Reset</gpu_recovery_action>" }), gpus: []int{0, 1}, check: problem("drain the node")},
		"uncorrectable": {doc: with(func(c *card) { c.uncorrectable = "3" }), gpus: []int{0, 1},
			check: problem("3 uncorrectable ECC errors")},
		"pending": {doc: with(func(c *card) { c.remapPending = "Yes" }), gpus: []int{0, 1}, check: problem("waits to be repaired")},
		"failed":  {doc: with(func(c *card) { c.remapFailure = "Yes" }), gpus: []int{0, 1}, check: problem("replaced")},
		"hot":     {doc: with(func(c *card) { c.throttle = "hw_slowdown hw_thermal_slowdown" }), gpus: []int{0, 1}, check: problem("too hot")},
		"capped": {doc: with(func(c *card) { c.throttle = "sw_power_cap" }), gpus: []int{0, 1}, check: func(g topology.GPU) error {
			if g.Health.Problem != "" || !slices.Equal(g.Health.Throttle, []string{"sw_power_cap"}) {
				return fmt.Errorf("%+v", g.Health)
			}
			return nil
		}},
		"message of loss": {doc: "Unable to determine the device handle for GPU0000:1A:00.0: GPU is lost.  Reboot the system to recover this GPU\n" + document(healthy(0)),
			gpus: []int{0}, warning: "0000:1a:00.0"},
		"newer message": {doc: "Unable to determine the device handle for GPU3: 0000:B7:00.0: Unknown Error\n" + document(healthy(0)),
			gpus: []int{0}, warning: "GPU 3 0000:b7:00.0"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ReadXML([]byte(c.doc))
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, g := range r.GPUs {
				got = append(got, g.Index)
			}
			if !slices.Equal(got, c.gpus) {
				t.Errorf("GPUs %v, want %v; warnings %q", got, c.gpus, r.Warnings)
			}
			if c.check != nil {
				if err := c.check(r.GPUs[0]); err != nil {
					t.Error(err)
				}
			}
			if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, c.warning) || c.warning == "" && all != "" {
				t.Errorf("warnings %q, want %q", all, c.warning)
			}
		})
	}
	for _, doc := range []string{"", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "<nvidia_smi_log><gpu><product_name>"} {
		if r, err := ReadXML([]byte(doc)); err == nil {
			t.Errorf("%q gave %+v", doc, r)
		}
	}
}

func problem(words string) func(topology.GPU) error {
	return func(g topology.GPU) error {
		if !strings.Contains(g.Health.Problem, words) {
			return fmt.Errorf("problem %q, want %q", g.Health.Problem, words)
		}
		return nil
	}
}

const migXML = `<mig_device><index>0</index><gpu_instance_id>1</gpu_instance_id><fb_memory_usage><total>19968 MiB</total></fb_memory_usage></mig_device>
<mig_device><index>1</index><gpu_instance_id>5</gpu_instance_id><fb_memory_usage><total>9856 MiB</total></fb_memory_usage></mig_device>`

const migList = `GPU 0: NVIDIA H200 (UUID: GPU-00000000-0000-0000-0000-000000000000)
  MIG 2g.20gb     Device  0: (UUID: MIG-11111111-1111-1111-1111-111111111111)
  MIG 1g.10gb     Device  1: (UUID: MIG-22222222-2222-2222-2222-222222222222)
GPU 1: NVIDIA H200 (UUID: GPU-00000001-0000-0000-0000-000000000000)
`

func TestMIG(t *testing.T) {
	c := healthy(0)
	c.mig, c.migs = "Enabled", migXML
	f := fakeMachine{answers: map[string]string{"nvidia-smi -q -x": document(c, healthy(1)), "nvidia-smi -L": migList}}
	m := f.machine("nvidia-smi")
	m.Dev = fstest.MapFS{"nvidiactl": {}}
	r := Probe(context.Background(), m, topology.Node{})
	want := []topology.MIG{
		{Index: 0, UUID: "MIG-11111111-1111-1111-1111-111111111111", Profile: "2g.20gb", Memory: ptr(uint64(19968) << 20)},
		{Index: 1, UUID: "MIG-22222222-2222-2222-2222-222222222222", Profile: "1g.10gb", Memory: ptr(uint64(9856) << 20)},
	}
	if d := cmp.Diff(want, r.GPUs[0].MIG); d != "" {
		t.Error(d)
	}
	var n topology.Node
	Merge(&n, r)
	if got := n.GPUSlotIDs(); !slices.Equal(got, []uint32{1, 65536, 131072}) {
		t.Errorf("slots %v", got)
	}
	if s, ok := n.GPUSlot(131072); !ok || s.GPU != 0 || s.MIG != 1 || s.Device != want[1].UUID {
		t.Errorf("slot %+v", s)
	}
}

func TestReadCSV(t *testing.T) {
	const doc = "index, name, uuid, pci.bus_id, memory.total [MiB], driver_version, mig.mode.current, ecc.mode.current, ecc.errors.corrected.volatile.total, ecc.errors.uncorrected.volatile.total, temperature.gpu, power.draw [W]\r\n" +
		"0, NVIDIA H200, GPU-a, 00000000:19:00.0, 143771 MiB, 550.54.15, Disabled, Enabled, 0, 0, 31, 76.25 W\r\n" +
		"1, NVIDIA H200, GPU-b, 00000000:3B:00.0, [GPU is lost], [GPU is lost], [N/A], [N/A], [N/A], [N/A], [GPU is lost], [N/A]\r\n" +
		"2, [GPU is lost], [GPU is lost], 00000000:4C:00.0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\r\n" +
		"3, NVIDIA H200\r\n"
	r, err := ReadCSV([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GPUs) != 2 || r.GPUs[0].UUID != "GPU-a" || *r.GPUs[0].Memory != 143771<<20 || *r.GPUs[0].Health.PowerMilliW != 76250 {
		t.Errorf("%+v", r.GPUs)
	}
	if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, "GPU 2 0000:4c:00.0") || !strings.Contains(all, "line 5") {
		t.Errorf("warnings %q", all)
	}
	if _, err := ReadCSV([]byte("NVIDIA-SMI has failed\n")); err == nil {
		t.Error("a failure gave GPUs")
	}
}

func TestReadP2P(t *testing.T) {
	p, err := ReadP2P([]byte(" \t\x1b[4mGPU0\tGPU1\tGPU2\x1b[0m\t\n GPU0\tX\tOK\tCNS\t\n GPU1\tOK\tX\tU\t\n GPU2\tOK\tU\tX\t\n\nLegend:\n\n  X    = Self\n  OK   = Status Ok\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[[2]int]bool{{0, 1}: true, {1, 0}: true, {0, 2}: false, {2, 0}: true}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	r := Result{Links: []topology.Link{{A: "GPU0", B: "GPU1"}, {A: "GPU0", B: "GPU2"}, {A: "GPU1", B: "GPU2"}, {A: "GPU0", B: "mlx5_0"}}}
	r.addP2P(p)
	if l := r.Links; !*l[0].P2P || *l[1].P2P || l[2].P2P != nil || l[3].P2P != nil {
		t.Errorf("%+v", l)
	}
}

// TestLostGPU: nvidia-smi says nothing of any GPU when one is gone; the others are
// asked for by address and the lost one leaves the node.
func TestLostGPU(t *testing.T) {
	const gone = "Unable to determine the device handle for GPU0000:1A:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
	f := fakeMachine{answers: map[string]string{"nvidia-smi -q -x": gone}}
	n := topology.Node{}
	for i := range 3 {
		addr := fmt.Sprintf("0000:%02x:00.0", 0x19+i)
		n.PCI = append(n.PCI, topology.PCIDevice{Address: addr, Class: 0x030200, Vendor: 0x10de, Driver: "nvidia", NUMA: i % 2})
		f.answers["nvidia-smi -q -x -i "+addr] = document(healthy(i))
	}
	r := Probe(context.Background(), f.machine("nvidia-smi"), n)
	Merge(&n, r)
	if got := n.GPUSlotIDs(); !slices.Equal(got, []uint32{0, 2}) {
		t.Fatalf("slots %v, warnings %q", got, r.Warnings)
	}
	if n.GPUs[0].NUMA != 0 || n.GPUs[1].PCI != "0000:1b:00.0" {
		t.Errorf("%+v", n.GPUs)
	}
	if !strings.Contains(strings.Join(n.Warnings, "\n"), "GPU 0000:1a:00.0: the driver can't reach it") {
		t.Errorf("warnings %q", n.Warnings)
	}
	whole := Result{Source: "nvidia-smi", GPUs: []topology.GPU{{UUID: "GPU-00000000-0000-0000-0000-000000000000"}, {Index: 1, UUID: "GPU-gone", PCI: "0000:77:00.0"}}}
	if l := Lost(whole, r); len(l) != 1 || !strings.Contains(l[0], "0000:77:00.0") {
		t.Errorf("lost %q", l)
	}
}

// TestUnlistedGPU: the driver forgot a GPU that is still on the bus.
func TestUnlistedGPU(t *testing.T) {
	f := fakeMachine{answers: map[string]string{"nvidia-smi -q -x": document(healthy(0))}}
	n := topology.Node{PCI: []topology.PCIDevice{
		{Address: "0000:19:00.0", Class: 0x030200, Vendor: 0x10de, Driver: "nvidia"},
		{Address: "0000:1a:00.0", Class: 0x030200, Vendor: 0x10de, Driver: "nvidia"},
		{Address: "0000:1b:00.0", Class: 0x030200, Vendor: 0x10de, Driver: "vfio-pci"},
		{Address: "0000:1c:00.0", Class: 0x030000, Vendor: 0x10de, Driver: "nouveau"},
		{Address: "0000:1d:00.0", Class: 0x040300, Vendor: 0x10de, Driver: "snd_hda_intel"},
	}}
	all := strings.Join(Probe(context.Background(), f.machine("nvidia-smi"), n).Warnings, "\n")
	for addr, want := range map[string]bool{"19": false, "1a": true, "1b": false, "1c": true, "1d": false} {
		if strings.Contains(all, "GPU 0000:"+addr) != want {
			t.Errorf("%s in %q is %v", addr, all, !want)
		}
	}
}

// TestNothingStarts: a machine without GPUs pays nothing.
func TestNothingStarts(t *testing.T) {
	f := fakeMachine{}
	m := f.machine("nvidia-smi", HelperName)
	m.Dev, m.Sys = fstest.MapFS{"null": {}}, fstest.MapFS{
		"bus/pci/devices/0000:00:02.0/class":  {Data: []byte("0x030000\n")},
		"bus/pci/devices/0000:00:02.0/vendor": {Data: []byte("0x1234\n")},
	}
	if Plausible(m, topology.Node{}) {
		t.Error("plausible")
	}
	if r := Probe(context.Background(), m, topology.Node{}); len(f.asked) > 0 || len(r.Warnings) > 0 || r.Source != "" {
		t.Errorf("%+v after %q", r, f.asked)
	}
}

func TestReadXIDs(t *testing.T) {
	const log = `[    5.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15
[  100.2] NVRM: Xid (PCI:0000:19:00): 13, pid=1, name=a, Graphics Exception
[  100.3] NVRM: Xid (PCI:0000:19:00): 13, pid=1, name=a, Graphics Exception
[  200.0] NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[  201.0] NVRM: Xid (PCI:0000:19:00.0): 48, DBE
[  202.0] NVRM: Xid (PCI:zz): 48
`
	want := map[string][]uint64{"0000:19:00.0": {13, 48}, "0000:3b:00.0": {79}}
	if d := cmp.Diff(want, ReadXIDs(log)); d != "" {
		t.Error(d)
	}
	if got := ReadXIDs(log + "[ 300.0] NVRM: loading NVIDIA UNIX\n"); len(got) != 0 {
		t.Errorf("after a reload: %v", got)
	}
}

func TestProblem(t *testing.T) {
	for _, c := range []struct {
		h    topology.Health
		want string
	}{
		{topology.Health{}, ""},
		{topology.Health{XIDs: []uint64{13, 31}}, ""},
		{topology.Health{XIDs: []uint64{79}}, "fell off the bus (XID 79)"},
		{topology.Health{XIDs: []uint64{48}}, "XID 48"},
		{topology.Health{XIDs: []uint64{63, 94}}, "XID 94"},
		{topology.Health{XIDs: []uint64{64}}, "XID 64"},
		{topology.Health{XIDs: []uint64{74}}, "XID 74"},
		{topology.Health{XIDs: []uint64{48, 63}, Uncorrected: ptr(uint64(0)), RemapPending: ptr(false), RemapFailed: ptr(false)}, ""},
		{topology.Health{Throttle: []string{HWPowerBrake}}, "power"},
		{topology.Health{Throttle: []string{"sw_thermal_slowdown"}}, ""},
	} {
		if got := Problem(c.h); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", c.h, got, c.want)
		}
	}
}
