//go:build cgo

package nvml

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	nv "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gangway/gpu"
	"gangway/topology"
)

// Ask fills a document from NVML. A GPU that is lost is left out with a warning; what a
// driver or a GPU does not support is unknown. It may hang where the driver
// does: the caller is a process that can be killed.
func Ask(lib nv.Interface) gpu.Document {
	d := gpu.Document{Schema: gpu.DocumentSchema}
	if ret := lib.Init(); ret != nv.SUCCESS {
		d.Error = initError(ret)
		return d
	}
	defer lib.Shutdown()
	a := asker{lib: lib, doc: &d}
	a.ask()
	return d
}

// initError says why NVML can't be used. The library's own text of the return
// codes is in the library, which may be what is missing.
func initError(ret nv.Return) string {
	switch ret {
	case nv.ERROR_LIBRARY_NOT_FOUND:
		return "libnvidia-ml.so.1 can't be loaded: NVIDIA's driver is not installed, or its libraries are not where the loader looks"
	case nv.ERROR_DRIVER_NOT_LOADED:
		return "NVIDIA's driver is not loaded: look at the kernel's log, and run nvidia-smi as root"
	case nv.ERROR_LIB_RM_VERSION_MISMATCH:
		return "libnvidia-ml.so.1 and the loaded driver are of different versions: reboot the node, or load the new driver"
	case nv.ERROR_NO_PERMISSION:
		return "this user may not talk to NVIDIA's driver: look at the rights of /dev/nvidia*"
	}
	return fmt.Sprintf("NVML can't be started: return code %d", int(ret))
}

type asker struct {
	lib    nv.Interface
	doc    *gpu.Document
	driver string
}

func (a *asker) warn(format string, args ...any) {
	if len(a.doc.Warnings) < 100 {
		a.doc.Warnings = append(a.doc.Warnings, fmt.Sprintf(format, args...))
	}
}

// has reports whether the driver's library has a function: calling one that it
// lacks ends the process.
func (a *asker) has(symbol string) bool { return a.lib.Extensions().LookupSymbol(symbol) == nil }

func (a *asker) ask() {
	a.driver, _ = a.lib.SystemGetDriverVersion()
	n, ret := a.lib.DeviceGetCount()
	if ret != nv.SUCCESS {
		a.doc.Error = fmt.Sprintf("NVML can't count the GPUs: return code %d", int(ret))
		return
	}
	devices := map[int]nv.Device{}
	for i := range n {
		dev, ret := a.lib.DeviceGetHandleByIndex(i)
		if ret != nv.SUCCESS {
			a.unreachable(i, "", ret)
			continue
		}
		g, lost := a.gpu(i, dev)
		if lost != nv.SUCCESS {
			a.unreachable(i, g.PCI, lost)
			continue
		}
		devices[i] = dev
		a.doc.GPUs = append(a.doc.GPUs, g)
	}
	a.links(devices)
}

func (a *asker) unreachable(i int, pci string, ret nv.Return) {
	switch ret {
	case nv.ERROR_NO_PERMISSION:
		a.warn("GPU %d %s: this user may not use it: look at the rights of /dev/nvidia%d", i, pci, i)
	case nv.ERROR_GPU_IS_LOST:
		a.warn("%s", gpu.LostWarning(i, pci, "NVML: GPU is lost"))
	default:
		a.warn("%s", gpu.LostWarning(i, pci, fmt.Sprintf("NVML return code %d", int(ret))))
	}
}

// gpu asks one GPU. lost is not SUCCESS when the GPU went away meanwhile.
func (a *asker) gpu(i int, dev nv.Device) (g topology.GPU, lost nv.Return) {
	g = topology.GPU{Index: i, Vendor: "nvidia", NUMA: -1, Driver: a.driver}
	lost = nv.SUCCESS
	reset := false
	// ok sees every return code: a GPU goes at any time.
	ok := func(ret nv.Return) bool {
		switch ret {
		case nv.ERROR_GPU_IS_LOST, nv.ERROR_GPU_NOT_FOUND:
			lost = ret
		case nv.ERROR_RESET_REQUIRED:
			reset = true
		}
		return ret == nv.SUCCESS
	}
	if p, ret := dev.GetPciInfo(); ok(ret) {
		g.PCI, _ = gpu.Address(fmt.Sprintf("%08x:%02x:%02x.0", p.Domain, p.Bus, p.Device))
	}
	if v, ret := dev.GetName(); ok(ret) {
		g.Name = v
	}
	if v, ret := dev.GetUUID(); ok(ret) {
		g.UUID = v
	}
	if m, ret := dev.GetMemoryInfo(); ok(ret) {
		g.Memory = wholeMiB(m.Total)
	}
	if a.has("nvmlDeviceGetMigMode") {
		if on, _, ret := dev.GetMigMode(); ok(ret) && on == nv.DEVICE_MIG_ENABLE {
			g.MIGMode = true
			g.MIG = a.mig(i, dev)
		}
	}
	a.near(&g, dev)
	action := a.health(&g.Health, dev, ok)
	if reset {
		action = 1
	}
	g.Health.Problem = gpu.WithRecovery(g.Health, action)
	return g, lost
}

// wholeMiB rounds down to what nvidia-smi shows, so that both ways say the same.
func wholeMiB(n uint64) *uint64 {
	if n = n >> 20 << 20; n == 0 {
		return nil
	}
	return &n
}

func (a *asker) mig(i int, dev nv.Device) []topology.MIG {
	n, ret := dev.GetMaxMigDeviceCount()
	if ret != nv.SUCCESS {
		a.warn("GPU %d: its MIG instances can't be counted: NVML return code %d", i, int(ret))
		return nil
	}
	var out []topology.MIG
	for k := range n {
		inst, ret := dev.GetMigDeviceHandleByIndex(k)
		if ret != nv.SUCCESS {
			continue // no instance has this number
		}
		m := topology.MIG{Index: k}
		if m.UUID, ret = inst.GetUUID(); ret != nv.SUCCESS {
			a.warn("GPU %d: its MIG instance %d does not tell its UUID: NVML return code %d", i, k, int(ret))
		}
		if name, ret := inst.GetName(); ret == nv.SUCCESS { // NVIDIA A100-SXM4-40GB MIG 1g.5gb
			if _, profile, ok := strings.Cut(name, "MIG "); ok {
				m.Profile = strings.TrimSpace(profile)
			}
		}
		if mem, ret := inst.GetMemoryInfo(); ret == nv.SUCCESS {
			m.Memory = wholeMiB(mem.Total)
		}
		out = append(out, m)
	}
	return out
}

// near asks for cpus and NUMA node. NVML fills as many words as it is given.
func (a *asker) near(g *topology.GPU, dev nv.Device) {
	const cpuWords, nodeWords = 128, 16 // 8192 cpus, 1024 NUMA nodes
	if words, ret := dev.GetCpuAffinity(cpuWords); ret == nv.SUCCESS {
		g.CPUs = topology.NewCPUSet(members(words)...)
	}
	if !a.has("nvmlDeviceGetMemoryAffinity") {
		return
	}
	if words, ret := dev.GetMemoryAffinity(nodeWords, nv.AFFINITY_SCOPE_NODE); ret == nv.SUCCESS {
		if nodes := members(words); len(nodes) == 1 {
			g.NUMA = nodes[0]
		}
	}
}

func members(words []uint) []int {
	var out []int
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			out = append(out, i*bits.UintSize+bits.TrailingZeros(w))
		}
	}
	return out
}

// health asks for what is known of the GPU's state; action is what the driver
// advises, see gpu.WithRecovery.
func (a *asker) health(h *topology.Health, dev nv.Device, ok func(nv.Return) bool) (action int) {
	if on, _, ret := dev.GetEccMode(); ok(ret) {
		ecc := on == nv.FEATURE_ENABLED
		h.ECC = &ecc
	}
	if n, ret := dev.GetTotalEccErrors(nv.MEMORY_ERROR_TYPE_CORRECTED, nv.VOLATILE_ECC); ok(ret) {
		h.Corrected = &n
	}
	if n, ret := dev.GetTotalEccErrors(nv.MEMORY_ERROR_TYPE_UNCORRECTED, nv.VOLATILE_ECC); ok(ret) {
		h.Uncorrected = &n
	}
	a.repairs(h, dev, ok)
	var mask uint64
	ret := nv.ERROR_NOT_SUPPORTED
	if a.has("nvmlDeviceGetCurrentClocksEventReasons") {
		mask, ret = dev.GetCurrentClocksEventReasons()
	} else {
		mask, ret = dev.GetCurrentClocksThrottleReasons()
	}
	if ok(ret) {
		h.Throttle = gpu.ThrottleReasons(mask)
	}
	if t, ret := dev.GetTemperature(nv.TEMPERATURE_GPU); ok(ret) {
		c := int(t)
		h.TemperatureC = &c
	}
	if p, ret := dev.GetPowerUsage(); ok(ret) {
		mw := uint64(p)
		h.PowerMilliW = &mw
	}
	field := []nv.FieldValue{{FieldId: nv.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if ret := dev.GetFieldValues(field); ok(ret) && nv.Return(field[0].NvmlReturn) == nv.SUCCESS {
		action = int(binary.NativeEndian.Uint32(field[0].Value[:4]))
	}
	return action
}

// repairs asks for remapped rows, which GPUs since Ampere have, else for retired
// pages.
func (a *asker) repairs(h *topology.Health, dev nv.Device, ok func(nv.Return) bool) {
	if a.has("nvmlDeviceGetRemappedRows") {
		if corr, unc, pending, failed, ret := dev.GetRemappedRows(); ok(ret) {
			n := uint64(max(corr, 0)) + uint64(max(unc, 0))
			h.RetiredPages, h.RemapPending, h.RemapFailed = &n, &pending, &failed
			return
		}
	}
	var n uint64
	known := false
	for _, cause := range []nv.PageRetirementCause{nv.PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS, nv.PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR} {
		if pages, ret := dev.GetRetiredPages(cause); ok(ret) {
			n, known = n+uint64(len(pages)), true
		}
	}
	if known {
		h.RetiredPages = &n
	}
	if state, ret := dev.GetRetiredPagesPendingStatus(); ok(ret) {
		pending := state == nv.FEATURE_ENABLED
		h.RemapPending = &pending
	}
}
