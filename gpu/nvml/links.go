//go:build cgo

package nvml

import (
	"fmt"

	nv "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gangway/gpu"
	"gangway/topology"
)

// wires are a GPU's active NVLinks: to other GPUs by PCI address, and to
// switches.
type wires struct {
	to       map[string]int
	switches int
}

// links tells what is between each two GPUs, and whether they read each other's memory.
func (a *asker) links(devices map[int]nv.Device) {
	gpus := a.doc.GPUs
	nvlink := make([]wires, len(gpus))
	for i, g := range gpus {
		nvlink[i] = a.wires(devices[g.Index])
	}
	for i, g := range gpus {
		for k := i + 1; k < len(gpus); k++ {
			h := gpus[k]
			l := topology.Link{A: fmt.Sprintf("GPU%d", g.Index), B: fmt.Sprintf("GPU%d", h.Index)}
			if n := bonded(nvlink[i], nvlink[k], g.PCI, h.PCI); n > 0 {
				l.Class = topology.Class(fmt.Sprintf("NV%d", n))
			} else if level, ret := devices[g.Index].GetTopologyCommonAncestor(devices[h.Index]); ret == nv.SUCCESS {
				l.Class = classOf(level)
			}
			there, ret1 := devices[g.Index].GetP2PStatus(devices[h.Index], nv.P2P_CAPS_INDEX_READ)
			back, ret2 := devices[h.Index].GetP2PStatus(devices[g.Index], nv.P2P_CAPS_INDEX_READ)
			if ret1 == nv.SUCCESS && ret2 == nv.SUCCESS && there != nv.P2P_STATUS_UNKNOWN && back != nv.P2P_STATUS_UNKNOWN {
				peers := there == nv.P2P_STATUS_OK && back == nv.P2P_STATUS_OK
				l.P2P = &peers
			}
			if l.Class != "" || l.P2P != nil {
				a.doc.Links = append(a.doc.Links, l)
			}
		}
	}
}

// wires counts the active links. A GPU without NVLink says NOT_SUPPORTED or
// INVALID_ARGUMENT for the first already.
func (a *asker) wires(dev nv.Device) wires {
	w := wires{to: map[string]int{}}
	kinds := a.has("nvmlDeviceGetNvLinkRemoteDeviceType")
	for i := range nv.NVLINK_MAX_LINKS {
		state, ret := dev.GetNvLinkState(i)
		if ret == nv.ERROR_INVALID_ARGUMENT || ret == nv.ERROR_NOT_SUPPORTED && i == 0 {
			break
		}
		if ret != nv.SUCCESS || state != nv.FEATURE_ENABLED {
			continue
		}
		if kinds {
			if kind, ret := dev.GetNvLinkRemoteDeviceType(i); ret == nv.SUCCESS && kind == nv.NVLINK_DEVICE_TYPE_SWITCH {
				w.switches++
				continue
			}
		}
		if p, ret := dev.GetNvLinkRemotePciInfo(i); ret == nv.SUCCESS {
			if addr, ok := gpu.Address(fmt.Sprintf("%08x:%02x:%02x.0", p.Domain, p.Bus, p.Device)); ok {
				w.to[addr]++
			}
		}
	}
	return w
}

// bonded is the number of NVLinks between two GPUs: direct ones, or what both have to
// the switches, as nvidia-smi counts them.
func bonded(a, b wires, pciA, pciB string) int {
	if n := min(a.to[pciB], b.to[pciA]); n > 0 {
		return n
	}
	return min(a.switches, b.switches)
}

// classOf puts NVML's levels in the words of nvidia-smi topo -m. Two GPUs of one board
// (INTERNAL) have one bridge between them.
func classOf(level nv.GpuTopologyLevel) topology.Class {
	switch level {
	case nv.TOPOLOGY_INTERNAL, nv.TOPOLOGY_SINGLE:
		return topology.ClassPIX
	case nv.TOPOLOGY_MULTIPLE:
		return topology.ClassPXB
	case nv.TOPOLOGY_HOSTBRIDGE:
		return topology.ClassPHB
	case nv.TOPOLOGY_NODE:
		return topology.ClassNODE
	case nv.TOPOLOGY_SYSTEM:
		return topology.ClassSYS
	}
	return ""
}
