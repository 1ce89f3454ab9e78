package topology

import (
	"slices"
	"strconv"
)

// GPUSlot is what a task may be given of a node's GPUs: a GPU, or one instance of a
// partitioned one. Its ID is the number by which the scheduler, the rows and the
// wire know it: GPU.Index for a whole GPU, and GPU.Index + 65536 × (MIG.Index + 1) for an
// instance, so that the numbers of the others stay when a GPU is partitioned.
type GPUSlot struct {
	ID     uint32
	Vendor string // of the GPU
	GPU    int    // GPU.Index
	MIG    int    // MIG.Index, -1: the whole GPU
	// Device is what the vendor's variable for visible devices takes: the GPU's number, or
	// the UUID of the instance.
	Device string
}

const gpuSlotMIG = 1 << 16

// GPUSlotID is the ID of an instance of a GPU; mig is -1 for the whole.
func GPUSlotID(gpu, mig int) uint32 { return uint32(gpu) + gpuSlotMIG*uint32(mig+1) }

// GPUSlots lists what tasks may be given, by ID. GPUs with a problem have none, nor does a
// GPU in MIG mode without instances: nothing can compute on it. Instances without a
// UUID can't be named to a program and are left out.
func (n Node) GPUSlots() []GPUSlot {
	var out []GPUSlot
	for _, g := range n.GPUs {
		if g.Health.Problem != "" || g.Index < 0 || g.Index >= gpuSlotMIG {
			continue
		}
		if !g.MIGMode {
			out = append(out, GPUSlot{ID: GPUSlotID(g.Index, -1), Vendor: g.Vendor, GPU: g.Index, MIG: -1, Device: strconv.Itoa(g.Index)})
			continue
		}
		for _, m := range g.MIG {
			if m.UUID != "" && m.Index >= 0 && m.Index < gpuSlotMIG-1 {
				out = append(out, GPUSlot{ID: GPUSlotID(g.Index, m.Index), Vendor: g.Vendor, GPU: g.Index, MIG: m.Index, Device: m.UUID})
			}
		}
	}
	slices.SortFunc(out, func(a, b GPUSlot) int { return int(int64(a.ID) - int64(b.ID)) })
	return slices.CompactFunc(out, func(a, b GPUSlot) bool { return a.ID == b.ID })
}

// GPUSlot finds a slot by its ID.
func (n Node) GPUSlot(id uint32) (GPUSlot, bool) {
	for _, s := range n.GPUSlots() {
		if s.ID == id {
			return s, true
		}
	}
	return GPUSlot{}, false
}

// GPUSlotIDs are the IDs of GPUSlots.
func (n Node) GPUSlotIDs() []uint32 {
	var out []uint32
	for _, s := range n.GPUSlots() {
		out = append(out, s.ID)
	}
	return out
}
