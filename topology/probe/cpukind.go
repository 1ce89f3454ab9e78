package probe

import (
	"cmp"
	"fmt"
	"slices"

	"gangway/topology"
)

// dies lists the parts of packages that have several. Kernels before 5.2 don't
// tell.
func (r *reader) dies(n *topology.Node) {
	for _, p := range n.Packages {
		var dies []topology.Die
		var done topology.CPUSet
		for _, c := range n.Cores {
			cpu := c.PUs.First()
			if !p.CPUs.Has(cpu) || done.Has(cpu) {
				continue
			}
			dir := fmt.Sprintf("%s/cpu%d/topology/", cpuDir, cpu)
			set, ok := r.sysCPUs(dir+"die_cpus_list", dir+"die_cpus")
			if !ok {
				break // this package's are not known, or are all there is
			}
			if set.Intersect(n.Online).Count() == 1 && len(n.Cores) > 2 {
				break // ARM's firmware may call every core a die
			}
			d := topology.Die{Index: len(dies), Package: p.Index}
			if id, ok := r.sysInt(dir + "die_id"); ok && id >= 0 {
				d.Index = id
			}
			d.CPUs = set.Intersect(p.CPUs).Minus(done).Union(c.PUs)
			done = done.Union(d.CPUs)
			dies = append(dies, d)
		}
		if len(dies) > 1 {
			slices.SortStableFunc(dies, func(a, b topology.Die) int { return cmp.Compare(a.Index, b.Index) })
			n.Dies = append(n.Dies, dies...)
		}
	}
}

// kinds tells the cores of a hybrid machine apart: by what Intel's drivers call
// them; else by the capacity that the scheduler reckons with (ARM, x86 since
// 6.12); else by the highest clock.
func (r *reader) kinds(n *topology.Node) {
	if r.intelKinds(n) {
		return
	}
	for _, file := range []string{"cpu_capacity", "cpufreq/cpuinfo_max_freq", "acpi_cppc/nominal_perf"} {
		by := map[int]topology.CPUSet{}
		for _, c := range n.Cores {
			v, ok := r.sysInt(fmt.Sprintf("%s/cpu%d/%s", cpuDir, c.PUs.First(), file))
			if !ok || v <= 0 {
				by = nil
				break // all cores or none: half a comparison says nothing
			}
			by[v] = by[v].Union(c.PUs)
		}
		if len(by) == 0 {
			continue
		}
		n.CPUKinds = groupKinds(by)
		break
	}
	for k := range n.CPUKinds {
		n.CPUKinds[k].MaxMHz = r.maxMHz(n.CPUKinds[k].CPUs)
	}
}

// intelKinds reads the cpus of the performance monitoring units, of which
// hybrid machines have one for each kind.
func (r *reader) intelKinds(n *topology.Node) bool {
	var done topology.CPUSet
	for _, k := range []struct{ dir, name string }{
		{"cpu_lowpower", "low-power"}, {"cpu_atom", "efficiency"}, {"cpu_core", "performance"},
	} {
		set, ok := r.sysCPUs("devices/"+k.dir+"/cpus", "")
		if set = set.Intersect(n.Online).Minus(done); !ok || set.IsEmpty() {
			continue
		}
		done = done.Union(set)
		n.CPUKinds = append(n.CPUKinds, topology.CPUKind{Name: k.name, CPUs: set, MaxMHz: r.maxMHz(set)})
	}
	if len(n.CPUKinds) < 2 {
		n.CPUKinds = nil
	}
	return n.CPUKinds != nil
}

// groupKinds makes a kind of what is within a tenth: cores of one kind differ a
// little, as the best of them may clock higher. One kind is none.
func groupKinds(by map[int]topology.CPUSet) []topology.CPUKind {
	values := make([]int, 0, len(by))
	for v := range by {
		values = append(values, v)
	}
	slices.Sort(values)
	var kinds []topology.CPUKind
	low := 0
	for _, v := range values {
		if len(kinds) == 0 || v-low > low/10 {
			kinds = append(kinds, topology.CPUKind{Name: fmt.Sprintf("kind%d", len(kinds))})
			low = v
		}
		last := &kinds[len(kinds)-1]
		last.CPUs = last.CPUs.Union(by[v])
	}
	switch len(kinds) {
	case 1:
		return nil
	case 2:
		kinds[0].Name, kinds[1].Name = "efficiency", "performance"
	}
	return kinds
}

func (r *reader) maxMHz(cpus topology.CPUSet) *int {
	khz, ok := r.sysInt(fmt.Sprintf("%s/cpu%d/cpufreq/cpuinfo_max_freq", cpuDir, cpus.First()))
	if !ok || khz < 1000 {
		return nil
	}
	khz /= 1000
	return &khz
}
