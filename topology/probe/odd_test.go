package probe

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOddMachines: what kernels of other architectures and firmware with errors
// say of four cpus.
func TestOddMachines(t *testing.T) {
	const cpu = "devices/system/cpu/cpu%d/"
	each := func(sys map[string]string, file string, values ...string) {
		for k, v := range values {
			sys[fmt.Sprintf(cpu, k)+file] = v
		}
	}
	for _, test := range []struct {
		name   string
		change func(sys map[string]string)
		want   map[string][]string // only what is listed is compared
	}{
		{
			name: "packages of one number",
			change: func(sys map[string]string) {
				each(sys, "topology/core_siblings_list", "0,2", "1,3", "0,2", "1,3")
			},
			want: map[string][]string{"packages": {"0 0,2", "0 1,3"}},
		},
		{
			name: "a package's cpus told by all but one",
			change: func(sys map[string]string) {
				each(sys, "topology/core_siblings_list", "")
			},
			want: map[string][]string{"packages": {"0 0-3"}},
		},
		{
			name: "package without a number",
			change: func(sys map[string]string) {
				for k := range 4 {
					delete(sys, fmt.Sprintf(cpu, k)+"topology/physical_package_id")
				}
			},
			want: map[string][]string{"packages": {"0 0-3"}},
		},
		{
			name: "modules of two cores",
			change: func(sys map[string]string) {
				each(sys, "topology/core_id", "0", "2", "1", "3")
				each(sys, "cache/index0/shared_cpu_list", "0", "1", "2", "3")
				each(sys, "cache/index1/type", "Unified", "Unified", "Unified", "Unified")
				each(sys, "cache/index1/level", "2", "2", "2", "2")
				each(sys, "cache/index1/shared_cpu_list", "", "", "", "")
			},
			want: map[string][]string{
				"cores":  {"0 0", "1 2", "2 1", "3 3"},
				"caches": {"L1 false 32768 0", "L1 false 32768 1", "L1 false 32768 2", "L1 false 32768 3", "L2 true 0 0,2", "L2 true 0 1,3"},
			},
		},
		{
			name: "masks and lists that differ",
			change: func(sys map[string]string) {
				each(sys, "cache/index0/shared_cpu_map", "f", "f", "f", "f")
			},
			want: map[string][]string{"caches": {"L1 false 32768 0-3"}},
		},
		{
			name: "cpus without the first caches",
			change: func(sys map[string]string) {
				for _, k := range []int{1, 3} {
					delete(sys, fmt.Sprintf(cpu, k)+"cache/index0/type")
					dir := fmt.Sprintf(cpu, k) + "cache/index2/"
					sys[dir+"type"], sys[dir+"level"], sys[dir+"shared_cpu_list"] = "Unified", "2", "1,3"
				}
				dir := fmt.Sprintf(cpu, 0) + "cache/index1/"
				sys[dir+"type"], sys[dir+"shared_cpu_list"] = "Instruction", "0,2"
			},
			want: map[string][]string{"caches": {"L1 false 32768 0,2", "L2 true 0 1,3"}},
		},
		{
			name: "every core a die",
			change: func(sys map[string]string) {
				sys["devices/system/cpu/online"] = "0-3"
				each(sys, "topology/thread_siblings_list", "0", "1", "2", "3")
				each(sys, "topology/die_cpus_list", "0", "1", "2", "3")
				each(sys, "topology/die_id", "-1", "-1", "-1", "-1")
			},
			want: map[string][]string{"dies": nil},
		},
		{
			name: "NUMA nodes that all have all cpus",
			change: func(sys map[string]string) {
				sys["devices/system/node/online"] = "0-1"
				sys["devices/system/node/node1/cpulist"] = "0-3"
				sys["devices/system/node/node1/meminfo"] = "Node 1 MemTotal: 1024 kB"
			},
			want: map[string][]string{"numa": {"0 0-3 17179869184"}},
		},
		{
			name: "a link with a slash at its end, a bridge that is not listed",
			change: func(sys map[string]string) {
				for address, link := range map[string]string{
					"10000:00:04.0": "../../../devices/pci10000:00/10000:00:04.0/",
					"0000:5d:02.0":  "../../../devices/pci0000:5d/0000:5d:02.0",
					"0000:60:00.0":  "../../../devices/pci0000:5d/0000:5d:02.0/0000:5f:03.0/0000:60:00.0",
				} {
					sys["bus/pci/devices/"+address] = "-> " + link
					dir := link[len("../../../"):] + "/"
					if link[len(link)-1] == '/' {
						dir = dir[:len(dir)-1]
					}
					sys[dir+"vendor"], sys[dir+"device"], sys[dir+"class"] = "0x8086", "0x37d2", "0x020000"
				}
				sys["devices/pci0000:5d/0000:5d:02.0/class"] = "0x060400"
			},
			want: map[string][]string{"tree": {"0000:5d:02.0 below ", "0000:60:00.0 below 0000:5d:02.0", "10000:00:04.0 below "}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			sys, proc := fourCPUs()
			test.change(sys)
			n := probeFiles(t, sys, proc)
			got := modelled(n)
			for _, d := range n.PCI {
				got.add("tree", "%s below %s", d.Address, d.Parent)
			}
			for kind, want := range test.want {
				if diff := cmp.Diff(want, got[kind]); diff != "" {
					t.Errorf("%s (-want +got):\n%s\nwarnings: %q", kind, diff, n.Warnings)
				}
			}
		})
	}
}
