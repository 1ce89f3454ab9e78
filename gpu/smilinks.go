package gpu

import (
	"bytes"
	"slices"

	"gangway/topology"
)

// addMatrix takes the links and what the GPUs are near to from `nvidia-smi topo -m`.
// Pairs of HCAs are left to the PCI tree, which is as good and knows all of them.
func (r *Result) addMatrix(b []byte) error {
	m, err := ReadMatrix(bytes.NewReader(b))
	if err != nil {
		return err
	}
	for _, w := range m.Warnings {
		r.Warnings = append(r.Warnings, "nvidia-smi topo -m: "+w)
	}
	for _, l := range m.Links() {
		_, gpu1 := gpuName(l.A)
		_, gpu2 := gpuName(l.B)
		if gpu1 || gpu2 {
			r.Links = append(r.Links, l)
		}
	}
	slices.SortFunc(r.Links, compareLinks)
	for _, d := range m.Devices {
		i, ok := gpuName(d.Name)
		k := slices.IndexFunc(r.GPUs, func(g topology.GPU) bool { return g.Index == i })
		if !ok || k < 0 {
			continue
		}
		if !d.CPUs.IsEmpty() {
			r.GPUs[k].CPUs = d.CPUs
		}
		if d.NUMA.Count() == 1 {
			r.GPUs[k].NUMA = d.NUMA.First()
		}
	}
	return nil
}
