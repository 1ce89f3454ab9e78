package probe

import (
	"fmt"
	"testing"
)

// largeMachine is a recorded node of 2 packages, 16 NUMA nodes, 1,024 cores and
// 2,048 PUs with caches, limits, 32 bridges and 64 devices.
func largeMachine() (sys, proc map[string]string) {
	const pus, cores, perPackage, perNode, perL3 = 2048, 1024, 512, 64, 8
	_, proc = fourCPUs()
	delete(proc, "self/status")
	sys = map[string]string{"devices/system/cpu/online": "0-2047", "devices/system/node/online": "0-15"}
	// The second PU of core c is c+1024, as Linux numbers them.
	both := func(from, n int) string {
		return fmt.Sprintf("%d-%d,%d-%d", from, from+n-1, from+cores, from+cores+n-1)
	}
	for cpu := range pus {
		core := cpu % cores
		dir := fmt.Sprintf("devices/system/cpu/cpu%d/", cpu)
		pair, l3 := fmt.Sprintf("%d,%d", core, core+cores), both(core/perL3*perL3, perL3)
		sys[dir+"topology/thread_siblings_list"] = pair
		sys[dir+"topology/core_siblings_list"] = both(core/perPackage*perPackage, perPackage)
		sys[dir+"topology/die_cpus_list"] = both(core/perPackage*perPackage, perPackage)
		sys[dir+"topology/die_id"] = "0"
		sys[dir+"topology/core_id"] = fmt.Sprint(core % perPackage)
		sys[dir+"topology/physical_package_id"] = fmt.Sprint(core / perPackage)
		sys[dir+"cpufreq/cpuinfo_max_freq"] = "3700000"
		for k, c := range []struct{ kind, level, size, shared string }{
			{"Data", "1", "48K", pair}, {"Instruction", "1", "32K", pair}, {"Unified", "2", "1024K", pair}, {"Unified", "3", "32768K", l3},
		} {
			index := fmt.Sprintf("%scache/index%d/", dir, k)
			sys[index+"type"], sys[index+"level"], sys[index+"size"], sys[index+"shared_cpu_list"] = c.kind, c.level, c.size, c.shared
		}
	}
	for node := range cores / perNode {
		dir := fmt.Sprintf("devices/system/node/node%d/", node)
		sys[dir+"cpulist"] = both(node*perNode, perNode)
		sys[dir+"meminfo"] = fmt.Sprintf("Node %d MemTotal:       131072000 kB", node)
	}
	for k := range 32 {
		bridge := fmt.Sprintf("devices/pci%04x:00/%04x:00:01.0", k, k)
		for f, dir := range []string{bridge, fmt.Sprintf("%s/%04x:01:00.0", bridge, k), fmt.Sprintf("%s/%04x:01:00.1", bridge, k)} {
			sys["bus/pci/devices/"+dir[len(dir)-12:]] = "-> ../../../" + dir
			sys[dir+"/class"] = []string{"0x060400", "0x030200", "0x020000"}[f]
			sys[dir+"/vendor"], sys[dir+"/device"], sys[dir+"/numa_node"] = "0x15b3", "0x1021", fmt.Sprint(k/2)
			sys[dir+"/local_cpulist"] = both(k/2*perNode, perNode)
			sys[dir+"/current_link_speed"], sys[dir+"/current_link_width"] = "32.0 GT/s PCIe", "16"
		}
	}
	return sys, proc
}

func TestLargeMachine(t *testing.T) {
	sys, proc := largeMachine()
	n, err := Node(Source{Sys: tree(sys), Proc: tree(proc)})
	if err != nil || len(n.Warnings) > 0 {
		t.Fatal(err, n.Warnings)
	}
	checkNode(t, n)
	if len(n.Packages) != 2 || len(n.NUMA) != 16 || len(n.Cores) != 1024 || len(n.Caches) != 2*1024+128 || len(n.PCI) != 96 || len(n.Dies)+len(n.CPUKinds) != 0 {
		t.Errorf("%d packages, %d NUMA nodes, %d cores, %d caches, %d devices, dies %v, kinds %v",
			len(n.Packages), len(n.NUMA), len(n.Cores), len(n.Caches), len(n.PCI), n.Dies, n.CPUKinds)
	}
}

func BenchmarkLargeMachine(b *testing.B) {
	sys, proc := largeMachine()
	src := Source{Sys: tree(sys), Proc: tree(proc)}
	for b.Loop() {
		if _, err := Node(src); err != nil {
			b.Fatal(err)
		}
	}
}
