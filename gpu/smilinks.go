package gpu

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// addMatrix takes the links and what the GPUs are near to from `nvidia-smi topo -m`.
func (r *Result) addMatrix(b []byte) error {
	var columns []string
	cells := map[[2]string]topology.Class{}
	names := map[string]string{} // of NICs, by what the matrix calls them
	var rows []string
	for line := range strings.Lines(clean(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if nic, ok := strings.CutSuffix(f[0], ":"); ok && len(f) == 2 && strings.HasPrefix(nic, "NIC") {
			names[nic] = f[1]
			continue
		}
		if columns == nil {
			for _, c := range f {
				if !device(c) {
					break
				}
				columns = append(columns, c)
			}
			continue
		}
		if !device(f[0]) || len(f) < 1+len(columns) || slices.Contains(rows, f[0]) || len(rows) == 4*maxGPUs {
			continue
		}
		rows = append(rows, f[0])
		for i, c := range columns {
			cells[[2]string{f[0], c}] = topology.Class(strings.ToUpper(f[1+i]))
		}
		r.near(f[0], f[1+len(columns):])
	}
	if len(rows) == 0 {
		return errors.New("no matrix in its output")
	}
	name := func(s string) string {
		if n := names[s]; n != "" {
			return n
		}
		return s
	}
	for i, a := range rows {
		for _, c := range rows[i+1:] {
			_, gpu1 := gpuName(a)
			_, gpu2 := gpuName(c)
			class := cells[[2]string{a, c}]
			if (gpu1 || gpu2) && known(class) && class == cells[[2]string{c, a}] {
				r.Links = append(r.Links, topology.Link{A: name(a), B: name(c), Class: class})
			}
		}
	}
	slices.SortFunc(r.Links, compareLinks)
	return nil
}

// near reads the columns behind the classes: CPU Affinity, NUMA Affinity, GPU
// NUMA ID. The last is the GPU's own memory and no place of cpus.
func (r *Result) near(gpu string, f []string) {
	i, ok := gpuName(gpu)
	if !ok || len(f) < 2 {
		return
	}
	for k := range r.GPUs {
		if g := &r.GPUs[k]; g.Index == i {
			if set, err := topology.ParseCPUSet(f[0]); err == nil {
				g.CPUs = set
			}
			if v, err := strconv.Atoi(f[1]); err == nil && v >= 0 {
				g.NUMA = v
			}
		}
	}
}

func device(s string) bool {
	return strings.HasPrefix(s, "GPU") || strings.HasPrefix(s, "NIC") || strings.HasPrefix(s, "mlx")
}

func known(c topology.Class) bool {
	switch c {
	case topology.ClassPIX, topology.ClassPXB, topology.ClassPHB, topology.ClassNODE, topology.ClassSYS:
		return true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(string(c), "NV"))
	return strings.HasPrefix(string(c), "NV") && err == nil && n > 0
}
