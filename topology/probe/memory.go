package probe

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const nodeDir = "devices/system/node"

func (r *reader) memory(n *topology.Node) {
	text, ok := r.read(r.proc, "/proc", "meminfo")
	if !ok {
		return
	}
	n.Memory.Total = r.meminfo("/proc/meminfo", text, "MemTotal:")
	n.Memory.Available = r.meminfo("/proc/meminfo", text, "MemAvailable:")
}

// meminfo finds "KEY n kB" in a meminfo file, per node or not.
func (r *reader) meminfo(file, text, key string) *uint64 {
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, key)
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 2 && f[1] == "kB" {
			if v, err := strconv.ParseUint(f[0], 10, 54); err == nil {
				v <<= 10
				return &v
			}
		}
		r.warn(file, "%s expected a number of kB, found %q", key, clip(strings.TrimSpace(rest)))
		return nil
	}
	if key == "MemTotal:" { // the others are not in every kernel
		r.warn(file, "there is no %s in it", key)
	}
	return nil
}

// numa lists the NUMA nodes. A kernel without NUMA has one, which is the
// machine: so others need not ask whether there are any.
func (r *reader) numa(n *topology.Node) {
	indices := r.entries(nodeDir, "node")
	if online, ok := r.sysCPUs(nodeDir+"/online", ""); ok && online.Overlaps(indices) {
		indices = indices.Intersect(online)
	}
	var placed topology.CPUSet
	for _, i := range indices.Slice() {
		dir := fmt.Sprintf("%s/node%d/", nodeDir, i)
		d := topology.NUMANode{Index: i}
		cpus, _ := r.sysCPUs(dir+"cpulist", dir+"cpumap")
		d.CPUs = cpus.Intersect(n.Online)
		if told := placed.Intersect(d.CPUs); !told.IsEmpty() {
			// Firmware that gives all nodes all cpus tells nothing by it.
			r.warn("/sys/"+dir+"cpulist", "cpus %s are near another NUMA node already: node %d is left out", told, i)
			continue
		}
		placed = placed.Union(d.CPUs)
		if text, ok := r.read(r.sys, "/sys", dir+"meminfo"); ok {
			d.Memory = r.meminfo("/sys/"+dir+"meminfo", text, "MemTotal:")
		}
		d.HugePages = r.hugePages(dir + "hugepages")
		n.NUMA = append(n.NUMA, d)
	}
	if len(n.NUMA) == 0 {
		n.NUMA = []topology.NUMANode{{
			Index: 0, CPUs: n.Online, Memory: n.Memory.Total,
			HugePages: r.hugePages("kernel/mm/hugepages"),
		}}
	}
}

func (r *reader) hugePages(dir string) []topology.HugePages {
	list, err := fs.ReadDir(r.sys, dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.warn("/sys/"+dir, "%v", err)
		}
		return nil
	}
	var out []topology.HugePages
	for _, e := range list {
		num, ok := strings.CutPrefix(e.Name(), "hugepages-")
		num, ok2 := strings.CutSuffix(num, "kB")
		kb, err := strconv.ParseUint(num, 10, 40)
		if !ok || !ok2 || err != nil {
			continue
		}
		total, ok := r.sysInt(dir + "/" + e.Name() + "/nr_hugepages")
		free, ok2 := r.sysInt(dir + "/" + e.Name() + "/free_hugepages")
		if ok && ok2 && total > 0 && free >= 0 {
			out = append(out, topology.HugePages{PageBytes: kb << 10, Total: uint64(total), Free: uint64(free)})
		}
	}
	slices.SortFunc(out, func(a, b topology.HugePages) int { return cmp.Compare(a.PageBytes, b.PageBytes) })
	return out
}

// limits finds what the process may use: cpus and NUMA nodes by cpuset and
// affinity, memory by cgroup, locked memory by rlimit.
func (r *reader) limits(n *topology.Node) {
	n.Allowed = n.Online
	for _, d := range n.NUMA {
		n.AllowedMems = n.AllowedMems.Add(d.Index)
	}
	cpus, mems, limit := r.cgroupLimits()
	n.Memory.Limit = limit
	n.Allowed = r.narrow(n.Allowed, cpus, "the cpuset cgroup's cpus")
	n.AllowedMems = r.narrow(n.AllowedMems, mems, "the cpuset cgroup's memory nodes")

	// The kernel's view of the process covers affinity and, on live machines,
	// the cpuset once more.
	for line := range strings.Lines(r.text(r.proc, "/proc", "self/status")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		var into *topology.CPUSet
		switch key {
		case "Cpus_allowed_list":
			into = &n.Allowed
		case "Mems_allowed_list":
			into = &n.AllowedMems
		default:
			continue
		}
		set, err := topology.ParseCPUSet(strings.TrimSpace(value))
		if err != nil {
			r.warn("/proc/self/status", "%s: %v", key, err)
			continue
		}
		*into = r.narrow(*into, &set, "/proc/self/status "+key)
	}
	for line := range strings.Lines(r.text(r.proc, "/proc", "self/limits")) {
		if rest, ok := strings.CutPrefix(line, "Max locked memory"); ok {
			f := strings.Fields(rest)
			if len(f) == 0 {
				continue
			}
			v, err := strconv.ParseUint(f[0], 10, 64)
			if f[0] == "unlimited" {
				v, err = math.MaxUint64, nil
			}
			if err != nil {
				r.warn("/proc/self/limits", "Max locked memory: expected a number, found %q", clip(f[0]))
				continue
			}
			n.MemlockBytes = &v
		}
	}
}

// narrow intersects, unless nothing would be left: then the two don't belong
// together (a /proc of another machine or namespace).
func (r *reader) narrow(have topology.CPUSet, by *topology.CPUSet, what string) topology.CPUSet {
	if by == nil || by.IsEmpty() {
		return have
	}
	if set := have.Intersect(*by); !set.IsEmpty() {
		return set
	}
	r.warn(what, "%s and %s have nothing in common: ignored", by, have)
	return have
}
