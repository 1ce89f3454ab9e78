package gpu

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

// fakeKFD is the /sys of a node with two sockets and four GPUs in one XGMI hive.
func fakeKFD() fstest.MapFS {
	files := map[string]string{
		kfdNodes + "/0/gpu_id": "0\n", kfdNodes + "/0/properties": "cpu_cores_count 64\nsimd_count 0\nio_links_count 1\n",
		kfdNodes + "/1/gpu_id": "0\n", kfdNodes + "/1/properties": "cpu_cores_count 64\nsimd_count 0\n",
		"module/amdgpu/version": "6.7.0\n",
	}
	for i := range 4 {
		n, bus := i+2, 0x29+i
		dir := fmt.Sprintf("%s/%d", kfdNodes, n)
		pci := fmt.Sprintf("bus/pci/devices/0000:%02x:00.0", bus)
		files[dir+"/gpu_id"] = fmt.Sprintf("%d\n", 1000+i)
		files[dir+"/name"] = "arcturus\n"
		files[dir+"/properties"] = fmt.Sprintf("cpu_cores_count 0\nsimd_count 440\nvendor_id 4098\nlocation_id %d\ndomain 0\ndrm_render_minor %d\ngfx_target_version 90010\nunique_id %d\nhive_id 77\n", bus<<8, 128+i, 0xabc0+i)
		files[dir+"/mem_banks/0/properties"] = "heap_type 1\nsize_in_bytes 68702699520\nflags 0\n"
		for k := range 4 {
			if k != i {
				files[fmt.Sprintf("%s/io_links/%d/properties", dir, k+1)] = fmt.Sprintf("type 11\nnode_from %d\nnode_to %d\nweight 15\n", n, k+2)
			}
		}
		files[dir+"/io_links/0/properties"] = fmt.Sprintf("type 2\nnode_from %d\nnode_to %d\nweight 20\n", n, i/2)
		files[pci+"/class"], files[pci+"/vendor"] = "0x038000\n", "0x1002\n"
		files[pci+"/numa_node"], files[pci+"/local_cpulist"] = fmt.Sprintf("%d\n", i/2), fmt.Sprintf("%d-%d\n", 64*(i/2), 64*(i/2)+63)
		files[pci+"/ras/umc_err_count"] = "ue: 0\nce: 3\n"
		files[pci+"/ras/gfx_err_count"] = "ue: 0\nce: 1\n"
		files[pci+"/ras/gpu_vram_bad_pages"] = "0x00000001 : 0x00001000 : R\n"
		files[pci+"/hwmon/hwmon3/temp1_input"] = "41000\n"
		files[pci+"/hwmon/hwmon3/power1_average"] = "89000000\n"
	}
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestReadKFD(t *testing.T) {
	sys := fakeKFD()
	f := fakeMachine{}
	m := f.machine()
	m.Sys = sys
	n := topology.Node{Online: topology.NewCPUSet(0, 1, 64, 65)}
	r := Probe(context.Background(), m, n)
	Locate(&n, sys, r)
	Merge(&n, r)
	if len(n.Warnings) > 0 || r.Source != "kfd" {
		t.Errorf("%s %q", r.Source, n.Warnings)
	}
	want := topology.GPU{Index: 2, Vendor: "amd", Name: "gfx90a", UUID: "GPU-000000000000abc2", PCI: "0000:2b:00.0", NUMA: 1, CPUs: topology.NewCPUSet(64, 65),
		Memory: ptr(uint64(68702699520)), Driver: "6.7.0", Health: topology.Health{ECC: ptr(true), Corrected: ptr(uint64(4)), Uncorrected: ptr(uint64(0)),
			RetiredPages: ptr(uint64(1)), RemapPending: ptr(false), RemapFailed: ptr(false), TemperatureC: ptr(41), PowerMilliW: ptr(uint64(89000))}}
	if d := cmp.Diff(want, n.GPUs[2]); d != "" {
		t.Error(d)
	}
	if len(n.Links) != 6 || topology.Distance(n, "GPU0", "GPU3") != topology.ClassXGMI || !*n.Links[0].P2P {
		t.Errorf("%+v", n.Links)
	}
	if got := n.GPUSlotIDs(); !slices.Equal(got, []uint32{0, 1, 2, 3}) {
		t.Errorf("slots %v", got)
	}
}

// TestReadKFDDefects: each costs its fact or its GPU, and no other.
func TestReadKFDDefects(t *testing.T) {
	dir := kfdNodes + "/3/"
	pci := "bus/pci/devices/0000:2a:00.0/"
	for name, c := range map[string]struct {
		change  func(m fstest.MapFS)
		gpus    int
		warning string
		check   func(g topology.GPU) bool // of GPU 1
	}{
		"uncorrectable": {change: func(m fstest.MapFS) { m[pci+"ras/umc_err_count"].Data = []byte("ue: 2\nce: 0\n") }, gpus: 4,
			check: func(g topology.GPU) bool { return strings.Contains(g.Health.Problem, "2 uncorrectable") }},
		"bad pages": {change: func(m fstest.MapFS) { m[pci+"ras/gpu_vram_bad_pages"].Data = []byte("0x1 : 0x1000 : P\n") }, gpus: 4,
			check: func(g topology.GPU) bool { return strings.Contains(g.Health.Problem, "wait to be retired") }},
		"no device": {change: func(m fstest.MapFS) {
			for f := range m {
				if strings.HasPrefix(f, pci) {
					delete(m, f)
				}
			}
		}, gpus: 4, check: func(g topology.GPU) bool {
			h := g.Health
			return h.ECC == nil && h.Uncorrected == nil && h.TemperatureC == nil
		}},
		"no banks": {change: func(m fstest.MapFS) { delete(m, dir+"mem_banks/0/properties") }, gpus: 4,
			check: func(g topology.GPU) bool { return g.Memory == nil }},
		"empty properties": {change: func(m fstest.MapFS) { m[dir+"properties"].Data = nil }, gpus: 3, warning: dir + "properties"},
		"broken link":      {change: func(m fstest.MapFS) { m[dir+"io_links/1/properties"].Data = []byte("type") }, gpus: 4, warning: "io_links/1"},
		"broken number": {change: func(m fstest.MapFS) {
			m[dir+"properties"].Data = append(m[dir+"properties"].Data, "domain 99999999999999999999999\n"...)
		}, gpus: 4, warning: "domain"},
	} {
		t.Run(name, func(t *testing.T) {
			sys := fakeKFD()
			c.change(sys)
			r := ReadKFD(sys)
			if len(r.GPUs) != c.gpus {
				t.Errorf("%d GPUs, want %d", len(r.GPUs), c.gpus)
			}
			if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, c.warning) || c.warning == "" && all != "" {
				t.Errorf("warnings %q, want %q", all, c.warning)
			}
			if c.check != nil && !c.check(r.GPUs[1]) {
				t.Errorf("%+v", r.GPUs[1])
			}
		})
	}
	// GPUs that a cgroup withholds can't be read; ROCr numbers the others alone.
	r := ReadKFD(withheld{fakeKFD(), dir + "properties"})
	if len(r.GPUs) != 3 || r.GPUs[1].PCI != "0000:2b:00.0" || r.GPUs[1].Index != 1 || len(r.Warnings) > 0 {
		t.Errorf("%+v %q", r.GPUs, r.Warnings)
	}
}

type withheld struct {
	fstest.MapFS
	name string
}

func (w withheld) ReadFile(name string) ([]byte, error) {
	if name == w.name {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrPermission}
	}
	return w.MapFS.ReadFile(name)
}

// TestTwoVendors: numbers of two vendors would be mixed up.
func TestTwoVendors(t *testing.T) {
	f := fakeMachine{answers: map[string]string{"nvidia-smi -q -x": document(healthy(0))}}
	m := f.machine("nvidia-smi")
	m.Sys, m.Dev = fakeKFD(), fstest.MapFS{"nvidiactl": {}}
	r := Probe(context.Background(), m, topology.Node{})
	if len(r.GPUs) != 1 || r.GPUs[0].Vendor != "nvidia" || !strings.Contains(strings.Join(r.Warnings, "\n"), "4 AMD GPUs are left out") {
		t.Errorf("%+v %q", r.GPUs, r.Warnings)
	}
}
