package topology

import (
	"fmt"
	"io"
	"strings"
)

// DistanceMatrix is how far the GPUs and NICs of a node are from each other.
type DistanceMatrix struct {
	Devices []MatrixDevice `json:"devices"` // GPUs by index, then NICs
	Classes [][]Class      `json:"classes"` // by place in Devices; symmetric
}

// MatrixDevice is a row of the matrix.
type MatrixDevice struct {
	Name string `json:"name"`          // GPUn, or the name of the HCA
	NIC  bool   `json:"nic,omitempty"` // else a GPU
	CPUs CPUSet `json:"cpus,omitzero"` // PUs near it; empty: unknown
	NUMA CPUSet `json:"numa,omitzero"` // NUMA nodes near it; empty: unknown
	// GPUNUMA is the NUMA node that is the GPU's own memory; nil: unknown, or
	// the memory is not one.
	GPUNUMA *int `json:"gpu_numa,omitempty"`
}

// Matrix returns the distances of all GPUs and HCAs of the node.
func Matrix(n Node) DistanceMatrix {
	a := newAtlas(n)
	var m DistanceMatrix
	for _, g := range n.GPUs {
		m.Devices = append(m.Devices, a.row(gpuName(g.Index), false))
	}
	for _, h := range n.HCAs {
		m.Devices = append(m.Devices, a.row(h.Name, true))
	}
	m.Classes = make([][]Class, len(m.Devices))
	for i, x := range m.Devices {
		m.Classes[i] = make([]Class, len(m.Devices))
		for j, y := range m.Devices {
			// Two ports of a card may be one PCI function with two names.
			c := a.distance(x.Name, y.Name)
			if c == ClassSelf && i != j {
				c = ClassPIX
			}
			m.Classes[i][j] = c
		}
	}
	return m
}

func (a *atlas) row(name string, nic bool) MatrixDevice {
	d := MatrixDevice{Name: name, NIC: nic}
	s := a.find(name)
	d.CPUs = s.cpus
	if s.numa >= 0 {
		d.NUMA = NewCPUSet(s.numa)
		if d.CPUs.IsEmpty() {
			d.CPUs, _ = a.cpus(name)
		}
	}
	return d
}

// Distance returns the class of two devices of the matrix, "" if one is not in
// it or the class is unknown.
func (m DistanceMatrix) Distance(a, b string) Class {
	for i, x := range m.Devices {
		for j, y := range m.Devices {
			if x.Name == a && y.Name == b && i < len(m.Classes) && j < len(m.Classes[i]) {
				return m.Classes[i][j]
			}
		}
	}
	return ""
}

// RenderMatrix prints the matrix as nvidia-smi topo -m does: columns end with a
// tab, NICs are numbered and named in a legend, unknown is N/A. It returns the
// writer's error.
func RenderMatrix(w io.Writer, m DistanceMatrix) error {
	var b strings.Builder
	labels := make([]string, len(m.Devices))
	nics := 0
	for i, d := range m.Devices {
		labels[i] = d.Name
		if d.NIC {
			labels[i] = fmt.Sprintf("NIC%d", nics)
			nics++
		}
		b.WriteString("\t" + labels[i])
	}
	b.WriteString("\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n")
	for i, d := range m.Devices {
		b.WriteString(labels[i])
		for j := range m.Devices {
			b.WriteString("\t" + cell(m, i, j))
		}
		switch {
		case !d.NIC:
			id := "N/A"
			if d.GPUNUMA != nil {
				id = fmt.Sprint(*d.GPUNUMA)
			}
			fmt.Fprintf(&b, "\t%s\t%s\t\t%s\n", orNA(d.CPUs), orNA(d.NUMA), id)
		case d.CPUs.IsEmpty() && d.NUMA.IsEmpty():
			b.WriteString("\t\t\t\t\n")
		default:
			fmt.Fprintf(&b, "\t%s\t%s\t\t\n", orNA(d.CPUs), orNA(d.NUMA))
		}
	}
	b.WriteString("\nLegend:\n\n" + matrixLegend)
	if nics > 0 {
		b.WriteString("\nNIC Legend:\n\n")
		for i, d := range m.Devices {
			if d.NIC {
				fmt.Fprintf(&b, "  %s: %s\n", labels[i], d.Name)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cell(m DistanceMatrix, i, j int) string {
	if i >= len(m.Classes) || j >= len(m.Classes[i]) || m.Classes[i][j] == "" {
		return "N/A"
	}
	if m.Classes[i][j] == ClassSelf {
		return " X "
	}
	return string(m.Classes[i][j])
}

func orNA(s CPUSet) string {
	if s.IsEmpty() {
		return "N/A"
	}
	return s.String()
}

const matrixLegend = `  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
`
