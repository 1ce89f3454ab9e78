//go:build cgo

package nvml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	nv "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxb200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/go-cmp/cmp"

	"gangway/gpu"
	"gangway/internal/gpufake"
	"gangway/topology"
)

// node is what the mocks lack: it comes from a recorded matrix.
type node struct {
	matrix string
	class  map[[2]int]string
	cpus   []topology.CPUSet
	numa   []int
}

var row = regexp.MustCompile(`(?m)^GPU(\d+)\t(.*)$`)

// record reads the matrix of a node of eight GPUs in the simplest way: it is
// known to be whole.
func record(t *testing.T) node {
	t.Helper()
	dir := os.Getenv("GANGWAY_DATA")
	if dir == "" {
		dir = "../../../shared/data"
	}
	b, err := os.ReadFile(filepath.Join(dir, "gpu-topo", "h200x8-permuted-nics.txt"))
	if err != nil {
		t.Skipf("no recorded matrix: %v", err)
	}
	n := node{matrix: string(b), class: map[[2]int]string{}}
	for i, m := range row.FindAllStringSubmatch(string(b), -1) {
		f := strings.Fields(m[2])
		for k := range 8 {
			n.class[[2]int{i, k}] = f[k]
		}
		set, err := topology.ParseCPUSet(f[16])
		if err != nil {
			t.Fatal(err)
		}
		numa, err := strconv.Atoi(f[17])
		if err != nil {
			t.Fatal(err)
		}
		n.cpus, n.numa = append(n.cpus, set), append(n.numa, numa)
	}
	return n
}

func address(i int) string { return fmt.Sprintf("0000:%02x:00.0", 0x19+16*i) }

// fill gives the mock's devices what they lack.
func (n node) fill(s *server.Server) {
	s.DriverVersion = "550.54.15"
	index := func(d nv.Device) int { i, _ := d.GetIndex(); return i }
	for i, dev := range s.Devices {
		d := dev.(*server.Device)
		d.GetPciInfoFunc = func() (nv.PciInfo, nv.Return) {
			return nv.PciInfo{Bus: uint32(0x19 + 16*i)}, nv.SUCCESS
		}
		d.GetCpuAffinityFunc = func(words int) ([]uint, nv.Return) { return mask(n.cpus[i].Slice(), words), nv.SUCCESS }
		d.GetMemoryAffinityFunc = func(words int, _ nv.AffinityScope) ([]uint, nv.Return) {
			return mask([]int{n.numa[i]}, words), nv.SUCCESS
		}
		d.GetEccModeFunc = func() (nv.EnableState, nv.EnableState, nv.Return) {
			return nv.FEATURE_ENABLED, nv.FEATURE_ENABLED, nv.SUCCESS
		}
		d.GetTotalEccErrorsFunc = func(kind nv.MemoryErrorType, _ nv.EccCounterType) (uint64, nv.Return) {
			return map[nv.MemoryErrorType]uint64{nv.MEMORY_ERROR_TYPE_CORRECTED: 12}[kind], nv.SUCCESS
		}
		d.GetRemappedRowsFunc = func() (int, int, bool, bool, nv.Return) { return 1, 0, i == 5, false, nv.SUCCESS }
		d.GetCurrentClocksEventReasonsFunc = func() (uint64, nv.Return) {
			return nv.ClocksEventReasonGpuIdle | nv.ClocksEventReasonSwPowerCap, nv.SUCCESS
		}
		d.GetTemperatureFunc = func(nv.TemperatureSensors) (uint32, nv.Return) { return 40 + uint32(i), nv.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nv.Return) { return 76250, nv.SUCCESS }
		d.GetFieldValuesFunc = func(f []nv.FieldValue) nv.Return {
			f[0].NvmlReturn = uint32(nv.ERROR_NOT_SUPPORTED)
			return nv.SUCCESS
		}
		d.GetNvLinkStateFunc = func(l int) (nv.EnableState, nv.Return) {
			if l < 18 {
				return nv.FEATURE_ENABLED, nv.SUCCESS
			}
			return 0, nv.ERROR_INVALID_ARGUMENT
		}
		d.GetNvLinkRemoteDeviceTypeFunc = func(int) (nv.IntNvLinkDeviceType, nv.Return) {
			return nv.NVLINK_DEVICE_TYPE_SWITCH, nv.SUCCESS
		}
		d.GetTopologyCommonAncestorFunc = func(o nv.Device) (nv.GpuTopologyLevel, nv.Return) {
			if n.numa[i] == n.numa[index(o)] {
				return nv.TOPOLOGY_NODE, nv.SUCCESS
			}
			return nv.TOPOLOGY_SYSTEM, nv.SUCCESS
		}
		d.GetP2PStatusFunc = func(nv.Device, nv.GpuP2PCapsIndex) (nv.GpuP2PStatus, nv.Return) { return nv.P2P_STATUS_OK, nv.SUCCESS }
	}
}

func mask(set []int, words int) []uint {
	out := make([]uint, words)
	for _, x := range set {
		out[x/64] |= 1 << (x % 64)
	}
	return out
}

// partition gives the first GPU two instances.
func partition(d *server.Device) []topology.MIG {
	d.MigMode = nv.DEVICE_MIG_ENABLE
	mem := uint64(19968) << 20
	want := []topology.MIG{{Index: 0, UUID: "MIG-a", Profile: "2g.35gb", Memory: &mem}, {Index: 2, UUID: "MIG-b", Profile: "1g.18gb", Memory: &mem}}
	d.GetMaxMigDeviceCountFunc = func() (int, nv.Return) { return 7, nv.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nv.Device, nv.Return) {
		k := slices.IndexFunc(want, func(m topology.MIG) bool { return m.Index == i })
		if k < 0 {
			return nil, nv.ERROR_NOT_FOUND
		}
		return &mock.Device{
			GetUUIDFunc:       func() (string, nv.Return) { return want[k].UUID, nv.SUCCESS },
			GetNameFunc:       func() (string, nv.Return) { return "NVIDIA H200 MIG " + want[k].Profile, nv.SUCCESS },
			GetMemoryInfoFunc: func() (nv.Memory, nv.Return) { return nv.Memory{Total: mem + 4096}, nv.SUCCESS },
		}, nv.SUCCESS
	}
	return want
}

// TestBothWays: the helper's document and the text of nvidia-smi give the same
// model of the same machine.
func TestBothWays(t *testing.T) {
	n := record(t)
	for name, s := range map[string]*server.Server{"dgxa100": dgxa100.New(), "dgxh100": dgxh100.New(), "dgxh200": dgxh200.New(), "dgxb200": dgxb200.New()} {
		t.Run(name, func(t *testing.T) {
			n.fill(s)
			instances := partition(s.Devices[0].(*server.Device))
			printed, err := json.Marshal(Ask(s))
			if err != nil {
				t.Fatal(err)
			}
			byNVML := probe(t, map[string]string{gpu.HelperName: string(printed)})
			if byNVML.Source != "nvml" || len(byNVML.GPUs) != len(s.Devices) || len(byNVML.Warnings) > 0 {
				t.Fatalf("%+v", byNVML)
			}
			if d := cmp.Diff(instances, byNVML.GPUs[0].MIG); d != "" {
				t.Error(d)
			}
			for i, g := range byNVML.GPUs {
				if g.PCI != address(i) || g.NUMA != n.numa[i] || !g.CPUs.Equal(n.cpus[i]) {
					t.Errorf("GPU %d is at %s near %d, %s", i, g.PCI, g.NUMA, g.CPUs)
				}
			}
			for _, l := range byNVML.Links {
				a, _ := strconv.Atoi(l.A[3:])
				b, _ := strconv.Atoi(l.B[3:])
				if string(l.Class) != n.class[[2]int{a, b}] || l.P2P == nil || !*l.P2P {
					t.Errorf("%+v, recorded %s", l, n.class[[2]int{a, b}])
				}
			}
			smi := gpufake.Machine{GPUs: byNVML.GPUs, Matrix: n.matrix}
			p2p := "\tGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tGPU6\tGPU7\n"
			for i := range 8 {
				p2p += fmt.Sprintf("GPU%d", i)
				for k := range 8 {
					p2p += map[bool]string{true: "\tX", false: "\tOK"}[i == k]
				}
				p2p += "\n"
			}
			byText := probe(t, map[string]string{"nvidia-smi -q -x": smi.XML(), "nvidia-smi -L": smi.List(),
				"nvidia-smi topo -m": n.matrix, "nvidia-smi topo -p2p r": p2p})
			// The matrix has HCAs too, which are no devices of NVML's.
			byText.Links = slices.DeleteFunc(byText.Links, func(l topology.Link) bool {
				return !strings.HasPrefix(l.A, "GPU") || !strings.HasPrefix(l.B, "GPU")
			})
			byText.Source = byNVML.Source
			if d := cmp.Diff(byNVML, byText); d != "" {
				t.Errorf("NVML (-) and text (+):\n%s", d)
			}
			if p := byText.GPUs[5].Health.Problem; !strings.Contains(p, "waits to be repaired") {
				t.Errorf("problem %q", p)
			}
		})
	}
}

func probe(t *testing.T, answers map[string]string) gpu.Result {
	t.Helper()
	return gpu.Probe(context.Background(), gpu.Machine{
		Dev: fstest.MapFS{"nvidiactl": {}},
		Find: func(p string) string {
			for call := range answers {
				if strings.Fields(call)[0] == p {
					return "/bin/" + p
				}
			}
			return ""
		},
		Run: func(_ context.Context, path string, args ...string) (gpu.Output, error) {
			call := strings.Join(append([]string{filepath.Base(path)}, args...), " ")
			if out, ok := answers[call]; ok {
				return gpu.Output{Stdout: []byte(out)}, nil
			}
			return gpu.Output{}, errors.New("exit status 6")
		},
	}, topology.Node{})
}

// TestGoneGPUs: a GPU goes before and while it is asked; one needs a reset.
func TestGoneGPUs(t *testing.T) {
	n := record(t)
	s := dgxh200.New()
	n.fill(s)
	first := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nv.Device, nv.Return) {
		switch i {
		case 1:
			return nil, nv.ERROR_GPU_IS_LOST
		case 2:
			return nil, nv.ERROR_NO_PERMISSION
		case 3:
			return nil, nv.ERROR_UNKNOWN
		}
		return first(i)
	}
	s.Devices[4].(*server.Device).GetPowerUsageFunc = func() (uint32, nv.Return) { return 0, nv.ERROR_GPU_IS_LOST }
	s.Devices[5].(*server.Device).GetTemperatureFunc = func(nv.TemperatureSensors) (uint32, nv.Return) { return 0, nv.ERROR_RESET_REQUIRED }
	s.Devices[6].(*server.Device).GetFieldValuesFunc = func(f []nv.FieldValue) nv.Return { f[0].Value[0] = 2; return nv.SUCCESS }
	d := Ask(s)
	var left []int
	for _, g := range d.GPUs {
		left = append(left, g.Index)
	}
	if !slices.Equal(left, []int{0, 5, 6, 7}) || d.Error != "" {
		t.Errorf("left %v, error %q", left, d.Error)
	}
	all := strings.Join(d.Warnings, "\n")
	for _, want := range []string{"GPU 1: the driver can't reach it", "GPU 2 : this user may not use it", "return code 999", "GPU 4 0000:59:00.0: the driver can't reach it"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in %q", want, all)
		}
	}
	if p := d.GPUs[1].Health.Problem; !strings.Contains(p, "waits to be repaired") { // it says why, a reset is what to do
		t.Errorf("problem of 5: %q", p)
	}
	if p := d.GPUs[2].Health.Problem; !strings.Contains(p, "reboot") {
		t.Errorf("problem of 6: %q", p)
	}
}

// TestOldDriver: functions that the library lacks are not called, what is not
// supported is unknown.
func TestOldDriver(t *testing.T) {
	n := record(t)
	s := dgxa100.New()
	n.fill(s)
	s.LookupSymbolFunc = func(string) error { return errors.New("undefined symbol") }
	for _, dev := range s.Devices {
		d := dev.(*server.Device)
		d.GetRemappedRowsFunc, d.GetMemoryAffinityFunc, d.GetMigModeFunc, d.GetCurrentClocksEventReasonsFunc, d.GetNvLinkRemoteDeviceTypeFunc = nil, nil, nil, nil, nil
		d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nv.Return) { return nv.ClocksThrottleReasonHwSlowdown, nv.SUCCESS }
		d.GetRetiredPagesFunc = func(nv.PageRetirementCause) ([]uint64, nv.Return) { return []uint64{1, 2}, nv.SUCCESS }
		d.GetRetiredPagesPendingStatusFunc = func() (nv.EnableState, nv.Return) { return nv.FEATURE_DISABLED, nv.SUCCESS }
		d.GetEccModeFunc = func() (nv.EnableState, nv.EnableState, nv.Return) { return 0, 0, nv.ERROR_NOT_SUPPORTED }
		d.GetNvLinkStateFunc = func(int) (nv.EnableState, nv.Return) { return 0, nv.ERROR_NOT_SUPPORTED }
	}
	d := Ask(s)
	g := d.GPUs[0]
	if h := g.Health; *h.RetiredPages != 4 || *h.RemapPending || h.ECC != nil || h.RemapFailed != nil || !strings.Contains(h.Problem, "clock down") {
		t.Errorf("%+v", h)
	}
	if g.NUMA != -1 || d.Links[0].Class != topology.ClassNODE || d.Links[len(d.Links)-1].Class != topology.ClassNODE || d.Links[3].Class != topology.ClassSYS {
		t.Errorf("near %d, links %+v", g.NUMA, d.Links[:4])
	}
}

// TestDirectLinks: GPUs wired to each other without switches.
func TestDirectLinks(t *testing.T) {
	n := record(t)
	s := dgxa100.New()
	n.fill(s)
	s.Devices = s.Devices[:3]
	for i, dev := range s.Devices {
		d := dev.(*server.Device)
		d.GetNvLinkRemoteDeviceTypeFunc = func(int) (nv.IntNvLinkDeviceType, nv.Return) { return nv.NVLINK_DEVICE_TYPE_GPU, nv.SUCCESS }
		d.GetNvLinkRemotePciInfoFunc = func(l int) (nv.PciInfo, nv.Return) {
			peer := []int{1, 0, 9}[i]
			return nv.PciInfo{Bus: uint32(0x19 + 16*peer)}, nv.SUCCESS
		}
	}
	got := map[string]topology.Class{}
	for _, l := range Ask(s).Links {
		got[l.A+l.B] = l.Class
	}
	if d := cmp.Diff(map[string]topology.Class{"GPU0GPU1": "NV18", "GPU0GPU2": "NODE", "GPU1GPU2": "NODE"}, got); d != "" {
		t.Error(d)
	}
}

// TestNoDriver: what the library says when it can't be started.
func TestNoDriver(t *testing.T) {
	for ret, want := range map[nv.Return]string{nv.ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml", nv.ERROR_DRIVER_NOT_LOADED: "not loaded",
		nv.ERROR_LIB_RM_VERSION_MISMATCH: "versions", nv.ERROR_NO_PERMISSION: "rights", nv.ERROR_UNKNOWN: "999"} {
		d := Ask(&mock.Interface{InitFunc: func() nv.Return { return ret }})
		if !strings.Contains(d.Error, want) || len(d.GPUs) > 0 {
			t.Errorf("%+v, want %q", d, want)
		}
	}
}
