package probe

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const cpuDir = "devices/system/cpu"

// online finds the PUs that run: the kernel's list; where there is none
// (before 2.6.30) the directories that aren't switched off; else /proc/stat.
func (r *reader) online() topology.CPUSet {
	dirs := r.entries(cpuDir, "cpu")
	if set, ok := r.sysCPUs(cpuDir+"/online", ""); ok && !set.IsEmpty() {
		return set
	}
	var found []int
	for _, cpu := range dirs.Slice() {
		if on, ok := r.sysInt(fmt.Sprintf("%s/cpu%d/online", cpuDir, cpu)); ok && on == 0 {
			continue
		}
		found = append(found, cpu)
	}
	if len(found) > 0 {
		return topology.NewCPUSet(found...)
	}
	for line := range strings.Lines(r.text(r.proc, "/proc", "stat")) {
		if num, ok := strings.CutPrefix(line, "cpu"); ok {
			num, _, _ = strings.Cut(num, " ")
			if v, err := strconv.ParseUint(num, 10, 16); err == nil {
				found = append(found, int(v))
			}
		}
	}
	return topology.NewCPUSet(found...)
}

// cores groups the online PUs into cores and packages. One PU of each core
// and package is asked for the rest: a machine of 512 PUs has thousands of
// files here, and the probe is on the path of every start.
func (r *reader) cores(n *topology.Node) {
	packageOf := map[int]int{} // PU to its place in n.Packages, as told by another PU
	var done topology.CPUSet
	var lost []int
	for _, cpu := range n.Online.Slice() {
		if done.Has(cpu) {
			continue
		}
		dir := fmt.Sprintf("%s/cpu%d/topology/", cpuDir, cpu)
		c := topology.Core{Index: -1, Package: -1, NUMA: numaOf(n.NUMA, cpu)}
		siblings, ok := r.sysCPUs(dir+"thread_siblings_list", dir+"thread_siblings")
		if !ok { // the newer names
			siblings, ok = r.sysCPUs(dir+"core_cpus_list", dir+"core_cpus")
		}
		if !ok {
			lost = append(lost, cpu)
		} else if !siblings.Has(cpu) {
			r.warn("/sys/"+dir+"thread_siblings_list", "cpu %d is not in its own core, which has %q", cpu, siblings)
		}
		if id, ok := r.sysInt(dir + "core_id"); ok {
			c.Index = id
		}
		// A PU that another core has already, or a list that leaves out its
		// own cpu, must not make a PU belong to two cores or to none.
		c.PUs = siblings.Intersect(n.Online).Minus(done).Add(cpu)
		if c.PUs.Count() > 1 && r.computeUnit(c) {
			c.PUs = topology.NewCPUSet(cpu)
		}
		p, known := packageOf[cpu]
		if !known {
			p, known = r.pkg(n, packageOf, cpu, dir)
		}
		if known {
			c.Package = n.Packages[p].Index
			n.Packages[p].CPUs = n.Packages[p].CPUs.Union(c.PUs)
		}
		done = done.Union(c.PUs)
		n.Cores = append(n.Cores, c)
	}
	if len(lost) > 0 {
		r.warn("/sys/"+cpuDir, "no core topology for cpus %s: each is taken for a core of its own", topology.NewCPUSet(lost...))
	}
	slices.SortStableFunc(n.Packages, func(a, b topology.Package) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortFunc(n.Cores, topology.CompareCores)
}

// computeUnit reports whether the PUs that a kernel has as threads of one core
// are cores of their own: AMD's processors of 2011 to 2016 have two cores in a
// module, with numbers of their own.
func (r *reader) computeUnit(c topology.Core) bool {
	if c.Index < 0 {
		return false
	}
	other := c.PUs.Slice()[1]
	id, ok := r.sysInt(fmt.Sprintf("%s/cpu%d/topology/core_id", cpuDir, other))
	return ok && id >= 0 && id != c.Index
}

// pkg finds the package of a cpu, whose topology is in dir, and returns its
// place in n.Packages, a new one unless another of its cpus has been there. A
// package is the cpus that the kernel has together: on some machines (s390,
// ia64) many have one number.
func (r *reader) pkg(n *topology.Node, packageOf map[int]int, cpu int, dir string) (int, bool) {
	id, numbered := r.sysInt(dir + "physical_package_id")
	id = max(id, 0) // some ARM and virtual machines say -1: one package, unnumbered
	members, ok := r.sysCPUs(dir+"core_siblings_list", dir+"core_siblings")
	if !ok {
		members, _ = r.sysCPUs(dir+"package_cpus_list", dir+"package_cpus")
	}
	members = members.Intersect(n.Online)
	if !numbered && !members.Has(cpu) {
		return 0, false
	}
	p := -1
	if !members.Has(cpu) { // not told: the number has to do
		members = topology.NewCPUSet(cpu)
		p = slices.IndexFunc(n.Packages, func(p topology.Package) bool { return p.Index == id })
	}
	for _, m := range members.Slice() { // one of its cpus that was not told
		if q, taken := packageOf[m]; p < 0 && taken && n.Packages[q].Index == id {
			p = q
		}
	}
	if p < 0 {
		p = len(n.Packages)
		n.Packages = append(n.Packages, topology.Package{Index: id})
	}
	for _, m := range members.Slice() {
		if _, taken := packageOf[m]; !taken {
			packageOf[m] = p
		}
	}
	return p, true
}

// maxCacheIndex is more than any machine's number of caches seen by a PU.
const maxCacheIndex = 16

// caches collects data and unified caches. Virtual machines often show none.
func (r *reader) caches(n *topology.Node) {
	var seen [maxCacheIndex]topology.CPUSet // PUs whose cache of that index is known
	end := 0                                // index after the last that any PU has
	for _, cpu := range n.Online.Slice() {
		for i := range seen {
			if seen[i].Has(cpu) {
				continue
			}
			dir := fmt.Sprintf("%s/cpu%d/cache/index%d/", cpuDir, cpu, i)
			kind, ok := r.read(r.sys, "/sys", dir+"type")
			if !ok {
				// cpus of several kinds in a machine have different ones
				if i > 0 && i >= end || !r.cachesAbove(cpu, i) {
					break
				}
				continue
			}
			end = max(end, i+1)
			shared, _ := r.sysCPUs(dir+"shared_cpu_list", dir+"shared_cpu_map")
			if shared.IsEmpty() {
				// Seen on virtual machines and old kernels: what the kernel has
				// for a core has the cache.
				dir := fmt.Sprintf("%s/cpu%d/topology/", cpuDir, cpu)
				shared, _ = r.sysCPUs(dir+"thread_siblings_list", dir+"thread_siblings")
			}
			shared = shared.Intersect(n.Online).Add(cpu)
			if kind == "Instruction" {
				seen[i] = seen[i].Union(shared)
				continue
			}
			level, ok := r.sysInt(dir + "level")
			if !ok {
				continue
			}
			c := topology.Cache{Level: level, Unified: kind == "Unified", Size: r.cacheSize(dir + "size"), CPUs: shared}
			seen[i] = seen[i].Union(c.CPUs)
			n.Caches = append(n.Caches, c)
		}
	}
	slices.SortStableFunc(n.Caches, func(a, b topology.Cache) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.CPUs.First(), b.CPUs.First()))
	})
}

// cachesAbove reports whether a cpu has a cache of an index above i.
func (r *reader) cachesAbove(cpu, i int) bool {
	list := r.entries(fmt.Sprintf("%s/cpu%d/cache", cpuDir, cpu), "index").Slice()
	return len(list) > 0 && list[len(list)-1] > i
}

func (r *reader) cacheSize(path string) *uint64 {
	s, ok := r.read(r.sys, "/sys", path)
	if !ok || s == "0K" { // firmware that does not know
		return nil
	}
	digits, unit := s, uint64(1)
	if d, ok := strings.CutSuffix(s, "K"); ok {
		digits, unit = d, 1<<10
	} else if d, ok := strings.CutSuffix(s, "M"); ok {
		digits, unit = d, 1<<20
	}
	v, err := strconv.ParseUint(digits, 10, 40)
	if err != nil {
		r.warn("/sys/"+path, "expected a size such as 32K, found %q", clip(s))
		return nil
	}
	v *= unit
	return &v
}

func numaOf(nodes []topology.NUMANode, cpu int) int {
	for _, d := range nodes {
		if d.CPUs.Has(cpu) {
			return d.Index
		}
	}
	return -1
}
