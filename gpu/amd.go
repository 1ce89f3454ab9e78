package gpu

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// kfdNodes is where the kernel's driver for compute on AMD GPUs tells its topology:
// a directory a node, of which those with a gpu_id other than 0 are GPUs. Format:
// properties are lines of a name and a decimal number.
const kfdNodes = "class/kfd/kfd/topology/nodes"

// Kinds of io_links (HSA_IOLINKTYPE_...), and of mem_banks.
const (
	kfdXGMI        = 11
	kfdHeapPublic  = 1
	kfdHeapPrivate = 2
)

// ReadKFD reads the AMD GPUs of /sys. They are numbered in the order of the
// nodes, which is that of ROCR_VISIBLE_DEVICES; GPUs that this user may not use
// can't be read there and are passed over, as ROCr does.
func ReadKFD(sys fs.FS) Result {
	k := kfd{sys: sys}
	list, err := fs.ReadDir(sys, kfdNodes)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.warn(kfdNodes, "%s", readable(err))
		}
		return Result{Warnings: k.warnings}
	}
	var nodes []int
	for _, e := range list {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= 0 && len(nodes) < 4*maxGPUs {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	r := Result{Source: "kfd"}
	index := map[int]int{} // GPU's by node
	for _, n := range nodes {
		dir := path.Join(kfdNodes, strconv.Itoa(n))
		props, err := k.properties(path.Join(dir, "properties"))
		if errors.Is(err, fs.ErrPermission) {
			continue // of a GPU that the cgroup does not let this process use
		}
		if err != nil {
			k.warn(path.Join(dir, "properties"), "%s: the node is left out", readable(err))
			continue
		}
		id, ok := k.number(path.Join(dir, "gpu_id"))
		if ok && id == 0 || props["simd_count"] == 0 {
			continue
		}
		if len(r.GPUs) == maxGPUs {
			k.warn(kfdNodes, "more than %d GPUs: the rest is left out", maxGPUs)
			break
		}
		index[n] = len(r.GPUs)
		r.GPUs = append(r.GPUs, k.gpu(len(r.GPUs), dir, props))
	}
	if len(r.GPUs) > 0 {
		r.Links = k.links(index)
	}
	r.Warnings = k.warnings
	return r
}

type kfd struct {
	sys      fs.FS
	warnings []string
}

func (k *kfd) warn(file, format string, args ...any) {
	if len(k.warnings) < 50 {
		k.warnings = append(k.warnings, "/sys/"+file+": "+fmt.Sprintf(format, args...))
	}
}

// properties reads a file of names and numbers. Lines of other forms are passed over: the
// kernel's files have had strings among them.
func (k *kfd) properties(file string) (map[string]uint64, error) {
	b, err := fs.ReadFile(k.sys, file)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 || len(out) > 256 {
			continue
		}
		v, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			if strings.Trim(f[1], "0123456789") == "" || strings.HasPrefix(f[1], "-") {
				k.warn(file, "%q is %q, which can't be read", clip(f[0], 40), clip(f[1], 40))
			}
			continue
		}
		out[f[0]] = v
	}
	if len(out) == 0 {
		return nil, errors.New("it says nothing")
	}
	return out, nil
}

func (k *kfd) text(file string) string {
	b, err := fs.ReadFile(k.sys, file)
	if err != nil || len(b) > 4096 {
		return ""
	}
	return strings.TrimSpace(clean(b))
}

func (k *kfd) number(file string) (uint64, bool) {
	v, err := strconv.ParseUint(k.text(file), 10, 64)
	return v, err == nil
}

func (k *kfd) gpu(index int, dir string, props map[string]uint64) topology.GPU {
	g := topology.GPU{Index: index, Vendor: "amd", NUMA: -1}
	if loc, ok := props["location_id"]; ok && loc <= 0xffff {
		// The lowest bits are the function; partitions of one GPU differ in them.
		g.PCI = address(props["domain"], loc>>8, loc>>3&0x1f, loc&7)
	}
	if id := props["unique_id"]; id != 0 {
		g.UUID = fmt.Sprintf("GPU-%016x", id)
	}
	g.Driver = clip(k.text("module/amdgpu/version"), 64)
	dev := path.Join("bus/pci/devices", g.PCI)
	if _, err := fs.Stat(k.sys, dev); err != nil && g.PCI != "" {
		// A partition has its function only here.
		dev = path.Join("bus/pci/devices", g.PCI[:len(g.PCI)-1]+"0")
	}
	if g.Name = clip(k.text(path.Join(dev, "product_name")), 96); g.Name == "" {
		if v := props["gfx_target_version"]; v > 0 {
			g.Name = fmt.Sprintf("gfx%d%x%x", v/10000, v/100%100, v%100)
		} else {
			g.Name = clip(k.text(path.Join(dir, "name")), 96)
		}
	}
	g.Memory = k.memory(dir, dev)
	g.Health = k.health(dev)
	return g
}

// memory adds the GPU's own banks; a partition's are its share, so they go
// before the device's total.
func (k *kfd) memory(dir, dev string) *uint64 {
	var sum uint64
	list, _ := fs.ReadDir(k.sys, path.Join(dir, "mem_banks"))
	for _, e := range list[:min(len(list), 64)] {
		p, err := k.properties(path.Join(dir, "mem_banks", e.Name(), "properties"))
		if err == nil && (p["heap_type"] == kfdHeapPublic || p["heap_type"] == kfdHeapPrivate) && p["size_in_bytes"] < 1<<50 {
			sum += p["size_in_bytes"]
		}
	}
	if sum == 0 {
		if v, ok := k.number(path.Join(dev, "mem_info_vram_total")); ok && v < 1<<50 {
			sum = v
		}
	}
	if sum == 0 || sum > 1<<50 {
		return nil
	}
	return &sum
}

// health reads what amdgpu keeps beside the device: ras/BLOCK_err_count (ue: and
// ce: lines), ras/gpu_vram_bad_pages (address : size : R reserved, P pending, F
// failed), hwmon.
func (k *kfd) health(dev string) topology.Health {
	var h topology.Health
	ras := path.Join(dev, "ras")
	list, _ := fs.ReadDir(k.sys, ras)
	for _, e := range list[:min(len(list), 64)] {
		if !strings.HasSuffix(e.Name(), "_err_count") {
			continue
		}
		for line := range strings.Lines(k.text(path.Join(ras, e.Name()))) {
			name, v, _ := strings.Cut(line, ":")
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 62)
			if err != nil {
				continue
			}
			switch strings.TrimSpace(name) {
			case "ue":
				h.Uncorrected = plus(h.Uncorrected, n)
			case "ce":
				h.Corrected = plus(h.Corrected, n)
			}
		}
	}
	if h.Uncorrected != nil {
		on := true
		h.ECC = &on
	}
	if b, err := fs.ReadFile(k.sys, path.Join(ras, "gpu_vram_bad_pages")); err == nil {
		var pages uint64
		var pending, failed bool
		for line := range strings.Lines(clean(b)) {
			if f := strings.Split(line, ":"); len(f) == 3 {
				switch strings.TrimSpace(f[2]) {
				case "P":
					pending = true
				case "F":
					failed = true
				}
				pages++
			}
		}
		h.RetiredPages, h.RemapPending, h.RemapFailed = &pages, &pending, &failed
	}
	mon, _ := fs.ReadDir(k.sys, path.Join(dev, "hwmon"))
	for _, e := range mon[:min(len(mon), 4)] {
		dir := path.Join(dev, "hwmon", e.Name())
		if v, err := strconv.Atoi(k.text(path.Join(dir, "temp1_input"))); err == nil && v > -100_000 && v < 300_000 {
			c := v / 1000
			h.TemperatureC = &c
		}
		for _, f := range []string{"power1_average", "power1_input"} {
			if v, ok := k.number(path.Join(dir, f)); ok && v < 1e11 {
				mw := v / 1000
				h.PowerMilliW = &mw
				break
			}
		}
	}
	h.Problem = amdProblem(h)
	return h
}

// amdProblem differs from Problem in what to do: there is no row remapping, and
// the tool has another name.
func amdProblem(h topology.Health) string {
	const reset = "drain the node and reset the GPU (amd-smi reset --gpureset) or reboot"
	switch {
	case h.RemapFailed != nil && *h.RemapFailed:
		return "a faulty memory page could not be retired: have the GPU replaced"
	case h.RemapPending != nil && *h.RemapPending:
		return "faulty memory pages wait to be retired: " + reset
	case h.Uncorrected != nil && *h.Uncorrected > 0:
		return fmt.Sprintf("%d uncorrectable ECC errors since the driver was loaded: %s", *h.Uncorrected, reset)
	}
	return ""
}

func plus(sum *uint64, n uint64) *uint64 {
	if sum != nil {
		n += *sum
	}
	return &n
}

// links finds the pairs that XGMI connects. Pairs on PCIe are left to the PCI
// tree, which knows the bridges between them.
func (k *kfd) links(index map[int]int) []topology.Link {
	var out []topology.Link
	seen := map[[2]int]bool{}
	nodes := make([]int, 0, len(index))
	for n := range index {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	for _, n := range nodes {
		for _, kind := range []string{"io_links", "p2p_links"} {
			dir := path.Join(kfdNodes, strconv.Itoa(n), kind)
			list, _ := fs.ReadDir(k.sys, dir)
			for _, e := range list[:min(len(list), 4*maxGPUs)] {
				file := path.Join(dir, e.Name(), "properties")
				p, err := k.properties(file)
				if err != nil {
					k.warn(file, "%s", readable(err))
					continue
				}
				to, ok := index[int(min(p["node_to"], 1<<20))]
				from := index[n]
				if p["type"] != kfdXGMI || !ok || from == to {
					continue
				}
				pair := [2]int{min(from, to), max(from, to)}
				if seen[pair] {
					continue
				}
				seen[pair] = true
				peers := true
				out = append(out, topology.Link{A: gpuLabel(pair[0]), B: gpuLabel(pair[1]), Class: topology.ClassXGMI, P2P: &peers})
			}
		}
	}
	slices.SortFunc(out, compareLinks)
	return out
}

func gpuLabel(i int) string { return "GPU" + strconv.Itoa(i) }
