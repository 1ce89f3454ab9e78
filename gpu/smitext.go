package gpu

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Listed is a GPU as `nvidia-smi -L` lists it, which alone has the UUIDs and
// profiles of MIG instances.
type Listed struct {
	Index int
	Name  string
	UUID  string
	MIG   []topology.MIG
}

var (
	listGPU = regexp.MustCompile(`^GPU\s+(\d{1,4}):\s*(.*?)\s*\(UUID:\s*([^)\s]+)\s*\)`)
	listMIG = regexp.MustCompile(`^\s*MIG\s+(\S+)\s+Device\s+(\d{1,4}):\s*\(UUID:\s*([^)\s]+)\s*\)`)
	noDev   = regexp.MustCompile(`(?i)unable to determine the device handle for (?:gpu)?\s*(?:(\d{1,3}):\s*)?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])?:?\s*([^\n]*)`)
)

// ReadList reads `nvidia-smi -L`. Lines of other forms are passed over.
func ReadList(b []byte) []Listed {
	var out []Listed
	for line := range strings.Lines(clean(b)) {
		if m := listGPU.FindStringSubmatch(line); m != nil && len(out) < maxGPUs {
			i, _ := strconv.Atoi(m[1])
			out = append(out, Listed{Index: i, Name: clip(m[2], 96), UUID: clip(m[3], 96)})
		} else if m := listMIG.FindStringSubmatch(line); m != nil && len(out) > 0 && len(out[len(out)-1].MIG) < maxGPUs {
			g := &out[len(out)-1]
			i, _ := strconv.Atoi(m[2])
			g.MIG = append(g.MIG, topology.MIG{Index: i, Profile: clip(m[1], 32), UUID: clip(m[3], 96)})
		}
	}
	return out
}

// addList gives each GPU its number, and its MIG instances their UUIDs and
// profiles.
func (r *Result) addList(list []Listed) {
	for i := range r.GPUs {
		g := &r.GPUs[i]
		k := slices.IndexFunc(list, func(l Listed) bool { return l.UUID == g.UUID })
		if k < 0 {
			continue
		}
		g.Index = list[k].Index
		for _, m := range list[k].MIG {
			j := slices.IndexFunc(g.MIG, func(x topology.MIG) bool { return x.Index == m.Index })
			if j < 0 {
				g.MIG = append(g.MIG, m)
				continue
			}
			g.MIG[j].UUID, g.MIG[j].Profile = m.UUID, m.Profile
		}
		slices.SortFunc(g.MIG, func(a, b topology.MIG) int { return a.Index - b.Index })
	}
}

// noteLost adds a warning for each GPU that nvidia-smi says it can't reach. It
// says so in all its outputs.
func noteLost(text string, r *Result) {
	for _, m := range noDev.FindAllStringSubmatch(text, maxGPUs) {
		pci, _ := Address(m[2])
		index := -1
		if v, err := strconv.Atoi(m[1]); err == nil {
			index = v
		}
		w := LostWarning(index, pci, clip(strings.TrimSpace(m[3]), 80))
		if !slices.Contains(r.Warnings, w) {
			r.Warnings = append(r.Warnings, w)
		}
	}
}

// LostWarning says that a GPU does not answer and has left the node. index is -1
// and pci "" when unknown.
func LostWarning(index int, pci, why string) string {
	name := "GPU"
	if index >= 0 {
		name += " " + strconv.Itoa(index)
	}
	if pci != "" {
		name += " " + pci
	}
	if why != "" {
		why = " (" + strings.TrimRight(why, ". ") + ")"
	}
	return name + ": the driver can't reach it" + why + ": it fell off the bus and has left the node until the node is rebooted"
}

// QueryFields are what ReadCSV wants to be asked for, see `nvidia-smi --help-query-gpu`.
func QueryFields() []string {
	return []string{"index", "name", "uuid", "pci.bus_id", "memory.total", "driver_version", "mig.mode.current", "ecc.mode.current",
		"ecc.errors.corrected.volatile.total", "ecc.errors.uncorrected.volatile.total", "temperature.gpu", "power.draw"}
}

// ReadCSV reads `nvidia-smi --query-gpu=... --format=csv`, with its header, whose
// names tell the columns: in any order, with units in the header or in the values.
func ReadCSV(b []byte) (Result, error) {
	text := clean(b)
	r := Result{Source: "nvidia-smi"}
	noteLost(text, &r)
	in := csv.NewReader(strings.NewReader(text))
	in.FieldsPerRecord, in.LazyQuotes, in.TrimLeadingSpace = -1, true, true
	var columns []string
	next := 0
	for {
		rec, err := in.Read()
		if err == io.EOF {
			break
		}
		line, _ := in.FieldPos(0)
		if err != nil {
			r.Warnings = append(r.Warnings, "nvidia-smi --query-gpu: "+err.Error())
			break
		}
		if columns == nil {
			if slices.ContainsFunc(rec, func(s string) bool { s = csvColumn(s); return s == "uuid" || s == "index" }) {
				for _, s := range rec {
					columns = append(columns, csvColumn(s))
				}
			}
			continue
		}
		if len(rec) != len(columns) {
			if !noDev.MatchString(strings.Join(rec, ",")) {
				r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi --query-gpu: line %d has %d values for %d columns: it is left out", line, len(rec), len(columns)))
			}
			continue
		}
		if next == maxGPUs {
			return r, fmt.Errorf("it lists more than %d GPUs", maxGPUs)
		}
		e := element{index: next, values: map[string]string{}}
		next++
		for i, c := range columns {
			if to := csvPath(c); to != "" && e.values[to] == "" {
				e.values[to] = strings.TrimSpace(rec[i])
			}
		}
		if v, err := strconv.Atoi(e.values["index"]); err == nil && v >= 0 && v < maxGPUs {
			e.index = v
		}
		driver, _ := e.first("driver")
		if slices.ContainsFunc(r.GPUs, func(g topology.GPU) bool { return g.Index == e.index }) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi --query-gpu: line %d: GPU %d is there twice: the later line is left out", line, e.index))
		} else if g, keep := e.gpu(&r, clip(driver, 64)); keep {
			r.GPUs = append(r.GPUs, g)
		}
	}
	if columns == nil {
		return r, fmt.Errorf("no line with the names of columns in its %d bytes of output%s", len(b), firstLine(text))
	}
	return r, nil
}

// csvColumn is a header's name without its unit: memory.total [MiB].
func csvColumn(s string) string {
	s, _, _ = strings.Cut(s, "[")
	return strings.ToLower(strings.TrimSpace(s))
}

// csvPath is the element of the XML that says the same as a column.
func csvPath(column string) string {
	switch column {
	case "index":
		return "index"
	case "name", "gpu_name":
		return "product_name"
	case "uuid", "gpu_uuid":
		return "uuid"
	case "pci.bus_id", "gpu_bus_id":
		return "pci/pci_bus_id"
	case "memory.total":
		return "fb_memory_usage/total"
	case "driver_version":
		return "driver"
	case "mig.mode.current":
		return "mig_mode/current_mig"
	case "ecc.mode.current":
		return "ecc_mode/current_ecc"
	case "ecc.errors.corrected.volatile.total":
		return "ecc_errors/volatile/single_bit/total"
	case "ecc.errors.uncorrected.volatile.total":
		return "ecc_errors/volatile/double_bit/total"
	case "temperature.gpu":
		return "temperature/gpu_temp"
	case "power.draw":
		return "power_readings/power_draw"
	}
	return ""
}

// ReadP2P reads `nvidia-smi topo -p2p r`: which GPU reads which one's memory. Cells are
// OK, or why not: CNS chipset, GNS GPU, TNS topology not supported, NS not supported,
// DR disabled by a driver's setting. U (unknown) and what can't be read are
// left out.
func ReadP2P(b []byte) (map[[2]int]bool, error) {
	out := map[[2]int]bool{}
	var columns []int
	for line := range strings.Lines(clean(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		row, ok := gpuName(f[0])
		if !ok {
			continue
		}
		if _, head := gpuName(f[len(f)-1]); head && (len(f) > 1 || columns == nil) { // GPU0 GPU1 ...
			columns = columns[:0]
			for _, c := range f {
				n, ok := gpuName(c)
				if !ok || len(columns) == maxGPUs {
					return nil, fmt.Errorf("a header has %q among its GPUs", clip(c, 40))
				}
				columns = append(columns, n)
			}
			continue
		}
		for i, cell := range f[1:] {
			if i < len(columns) && columns[i] != row {
				switch strings.ToUpper(cell) {
				case "OK":
					out[[2]int{row, columns[i]}] = true
				case "CNS", "GNS", "TNS", "NS", "DR":
					out[[2]int{row, columns[i]}] = false
				}
			}
		}
	}
	if columns == nil {
		return nil, errors.New("no header with GPUs in its output")
	}
	return out, nil
}

func gpuName(s string) (int, bool) {
	num, ok := strings.CutPrefix(s, "GPU")
	if !ok || len(num) > 4 {
		return 0, false
	}
	n, err := strconv.Atoi(num)
	return n, err == nil && n >= 0
}

// addP2P tells the links of GPUs who reads whom: both must.
func (r *Result) addP2P(p map[[2]int]bool) {
	for i, l := range r.Links {
		a, ok1 := gpuName(l.A)
		b, ok2 := gpuName(l.B)
		ab, known1 := p[[2]int{a, b}]
		ba, known2 := p[[2]int{b, a}]
		if ok1 && ok2 && known1 && known2 {
			both := ab && ba
			r.Links[i].P2P = &both
		}
	}
}
