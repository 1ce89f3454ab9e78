package probe

import (
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

// files makes a file system of paths and contents; "-> x" is a symlink.
func files(list map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range list {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			out[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
			continue
		}
		out[name] = &fstest.MapFile{Data: []byte(text + "\n"), Mode: 0o444}
	}
	return out
}

// fourCPUs is a machine of two cores with two PUs each.
func fourCPUs() (sys, proc map[string]string) {
	sys = map[string]string{
		"devices/system/cpu/online":         "0-3",
		"devices/system/node/online":        "0",
		"devices/system/node/node0/cpulist": "0-3",
		"devices/system/node/node0/meminfo": "Node 0 MemTotal:       16777216 kB\nNode 0 MemFree:  1 kB",
	}
	for cpu := range 4 {
		dir := fmt.Sprintf("devices/system/cpu/cpu%d/", cpu)
		sys[dir+"topology/thread_siblings_list"] = []string{"0,2", "1,3"}[cpu%2]
		sys[dir+"topology/core_siblings_list"] = "0-3"
		sys[dir+"topology/core_id"] = fmt.Sprint(cpu % 2)
		sys[dir+"topology/physical_package_id"] = "0"
		sys[dir+"cache/index0/type"] = "Data"
		sys[dir+"cache/index0/level"] = "1"
		sys[dir+"cache/index0/size"] = "32K"
		sys[dir+"cache/index0/shared_cpu_list"] = []string{"0,2", "1,3"}[cpu%2]
	}
	proc = map[string]string{
		"meminfo":                    "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB",
		"sys/kernel/hostname":        "n1",
		"sys/kernel/osrelease":       "6.1.0",
		"sys/kernel/random/boot_id":  "b",
		"self/limits":                "Limit   Soft Limit  Hard Limit  Units\nMax locked memory         unlimited            unlimited            bytes",
		"self/status":                "Name:\tx\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0",
		"self/cgroup":                "0::/",
		"self/mountinfo":             "30 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw",
		"stat":                       "cpu  1 2 3\ncpu0 1 2\ncpu1 1 2\ncpu2 1 2\ncpu3 1 2\nintr 5",
		"sys/kernel/unrelated/thing": "x",
	}
	return sys, proc
}

func probeFiles(t *testing.T, sys, proc map[string]string) topology.Node {
	t.Helper()
	n, err := Node(Source{Sys: files(sys), Proc: files(proc), Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	checkNode(t, n)
	return n
}

func TestNode(t *testing.T) {
	n := probeFiles(t, first(fourCPUs()), second(fourCPUs()))
	if len(n.Warnings) > 0 {
		t.Errorf("warnings: %q", n.Warnings)
	}
	var got []string
	for _, c := range n.Cores {
		got = append(got, fmt.Sprintf("%d.%d.%d:%s", c.NUMA, c.Package, c.Index, c.PUs))
	}
	if diff := cmp.Diff([]string{"0.0.0:0,2", "0.0.1:1,3"}, got); diff != "" {
		t.Errorf("cores (-want +got):\n%s", diff)
	}
	if n.Hostname != "n1" || n.Kernel != "6.1.0" || n.BootID != "b" {
		t.Errorf("names: %q %q %q", n.Hostname, n.Kernel, n.BootID)
	}
	if *n.Memory.Total != 16<<30 || *n.Memory.Available != 8<<30 || n.Memory.Limit != nil || *n.NUMA[0].Memory != 16<<30 {
		t.Errorf("memory: %+v", n.Memory)
	}
	if n.MemlockBytes == nil || *n.MemlockBytes != math.MaxUint64 || n.ShmBytes != nil {
		t.Errorf("memlock %v shm %v", n.MemlockBytes, n.ShmBytes)
	}
	if len(n.Caches) != 2 || *n.Caches[0].Size != 32<<10 {
		t.Errorf("caches: %+v", n.Caches)
	}
}

func first(a, _ map[string]string) map[string]string  { return a }
func second(_, b map[string]string) map[string]string { return b }

// TestDefects: a broken or missing file costs its fact and leaves a warning
// that names it; it never costs the node.
func TestDefects(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(sys, proc map[string]string)
		warning string // "" : none
		check   func(n topology.Node) bool
	}{
		{"broken cpulist", func(s, p map[string]string) { s["devices/system/node/node0/cpulist"] = "0-x" },
			"/sys/devices/system/node/node0/cpulist: cpu list", func(n topology.Node) bool { return n.NUMA[0].CPUs.IsEmpty() && n.Cores[0].NUMA == -1 }},
		{"broken memory", func(s, p map[string]string) { s["devices/system/node/node0/meminfo"] = "Node 0 MemTotal: lots kB" },
			"/sys/devices/system/node/node0/meminfo: MemTotal:", func(n topology.Node) bool { return n.NUMA[0].Memory == nil }},
		{"no meminfo", func(s, p map[string]string) { delete(p, "meminfo") }, "",
			func(n topology.Node) bool { return n.Memory.Total == nil }},
		{"no topology", func(s, p map[string]string) {
			for name := range s {
				if strings.Contains(name, "/topology/") {
					delete(s, name)
				}
			}
		}, "no core topology for cpus 0-3", func(n topology.Node) bool { return len(n.Cores) == 4 }},
		{"broken core_id", func(s, p map[string]string) { s["devices/system/cpu/cpu0/topology/core_id"] = "" },
			"cpu0/topology/core_id: expected a number", func(n topology.Node) bool { return len(n.Cores) == 2 }},
		{"siblings leave themselves out", func(s, p map[string]string) { s["devices/system/cpu/cpu0/topology/thread_siblings_list"] = "1" },
			"cpu 0 is not in its own core", func(n topology.Node) bool { return len(n.Cores) >= 2 }},
		{"no caches", func(s, p map[string]string) {
			for name := range s {
				if strings.Contains(name, "/cache/") {
					delete(s, name)
				}
			}
		}, "", func(n topology.Node) bool { return len(n.Caches) == 0 }},
		{"broken cache size", func(s, p map[string]string) { s["devices/system/cpu/cpu0/cache/index0/size"] = "big" },
			"cpu0/cache/index0/size: expected a size", func(n topology.Node) bool { return len(n.Caches) == 2 && n.Caches[0].Size == nil }},
		{"no NUMA", func(s, p map[string]string) {
			for name := range s {
				if strings.Contains(name, "system/node") {
					delete(s, name)
				}
			}
		}, "", func(n topology.Node) bool {
			return len(n.NUMA) == 1 && *n.NUMA[0].Memory == 16<<30 && n.Cores[0].NUMA == 0
		}},
		{"sparse and cpu-less NUMA", func(s, p map[string]string) {
			s["devices/system/node/online"] = "0,255"
			s["devices/system/node/node255/cpulist"] = ""
			s["devices/system/node/node7/cpulist"] = "" // not online
		}, "", func(n topology.Node) bool {
			return len(n.NUMA) == 2 && n.NUMA[1].Index == 255 && n.NUMA[1].Memory == nil
		}},
		{"offline cpu", func(s, p map[string]string) { s["devices/system/cpu/online"] = "0-2" }, "",
			func(n topology.Node) bool { return n.Online.String() == "0-2" && n.Cores[1].PUs.String() == "1" }},
		{"no online file", func(s, p map[string]string) {
			delete(s, "devices/system/cpu/online")
			s["devices/system/cpu/cpu3/online"] = "0"
		}, "", func(n topology.Node) bool { return n.Online.String() == "0-2" }},
		{"no sysfs at all", func(s, p map[string]string) { clear(s) }, "no core topology",
			func(n topology.Node) bool { return len(n.Cores) == 4 }},
		{"affinity", func(s, p map[string]string) { p["self/status"] = "Cpus_allowed_list:\t1,3-9" }, "",
			func(n topology.Node) bool { return n.Allowed.String() == "1,3" && len(n.Usable()) == 1 }},
		{"status of another machine", func(s, p map[string]string) { p["self/status"] = "Cpus_allowed_list:\t64" },
			"nothing in common: ignored", func(n topology.Node) bool { return n.Allowed.String() == "0-3" }},
		{"broken status", func(s, p map[string]string) { p["self/status"] = "Cpus_allowed_list:\tall" },
			"/proc/self/status: Cpus_allowed_list: cpu list", func(n topology.Node) bool { return n.Allowed.String() == "0-3" }},
		{"memlock", func(s, p map[string]string) { p["self/limits"] = "Max locked memory  8388608  8388608  bytes" }, "",
			func(n topology.Node) bool { return *n.MemlockBytes == 8<<20 }},
		{"huge pages", func(s, p map[string]string) {
			dir := "devices/system/node/node0/hugepages/hugepages-2048kB/"
			s[dir+"nr_hugepages"], s[dir+"free_hugepages"] = "8", "3"
		}, "", func(n topology.Node) bool {
			return cmp.Equal(n.NUMA[0].HugePages, []topology.HugePages{{PageBytes: 2 << 20, Total: 8, Free: 3}})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sys, proc := fourCPUs()
			test.change(sys, proc)
			n := probeFiles(t, sys, proc)
			all := strings.Join(n.Warnings, "\n")
			if test.warning == "" && all != "" || !strings.Contains(all, test.warning) {
				t.Errorf("warnings %q, want %q", all, test.warning)
			}
			if !test.check(n) {
				t.Errorf("node: %+v", n)
			}
		})
	}
	if _, err := Node(Source{}); err == nil || !strings.Contains(err.Error(), "are /sys and /proc mounted?") {
		t.Errorf("no file systems: error %v", err)
	}
}

func TestCgroups(t *testing.T) {
	const v2, v1mem, v1set = "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
		"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
		"34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
	for _, test := range []struct {
		name, cgroup, mounts string
		sys                  map[string]string
		allowed              string
		limit                uint64 // 0: none
	}{
		{"v2 nested, smallest parent wins", "0::/a/b/c", v2, map[string]string{
			"fs/cgroup/a/memory.max": "1000", "fs/cgroup/a/b/memory.max": "max", "fs/cgroup/a/b/c/memory.max": "4000",
			"fs/cgroup/a/cpuset.cpus.effective": "0-2"}, "0-2", 1000},
		{"v2 no limits", "0::/a", v2, map[string]string{"fs/cgroup/a/memory.max": "max"}, "0-3", 0},
		{"v2 namespace, path not below the mount", "0::/system.slice/x", v2, map[string]string{
			"fs/cgroup/memory.max": "5000", "fs/cgroup/cpuset.cpus.effective": "1"}, "1", 5000},
		{"v2 outside the namespace's root", "0::/../../x", v2, map[string]string{"fs/cgroup/memory.max": "6000"}, "0-3", 6000},
		{"v1", "4:memory:/m/n\n3:cpuset:/s", v1mem + "\n" + v1set, map[string]string{
			"fs/cgroup/memory/m/memory.limit_in_bytes":   "7000",
			"fs/cgroup/memory/m/n/memory.limit_in_bytes": "9223372036854771712", // PAGE_COUNTER_MAX at 4 KiB pages
			"fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854710272", // at 64 KiB pages
			"fs/cgroup/cpuset/s/cpuset.cpus":             "2-3"}, "2-3", 7000},
		{"hybrid: empty v2 beside v1", "4:memory:/m\n0::/", v1mem + "\n31 23 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
			map[string]string{"fs/cgroup/memory/m/memory.limit_in_bytes": "8000"}, "0-3", 8000},
		{"container: part of the tree is mounted", "4:memory:/docker/abc/x",
			"35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
			map[string]string{"fs/cgroup/memory/x/memory.limit_in_bytes": "9000"}, "0-3", 9000},
		{"container: another part is mounted", "4:memory:/elsewhere",
			"35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
			map[string]string{"fs/cgroup/memory/memory.limit_in_bytes": "9500"}, "0-3", 9500},
		{"mounted with blanks, joint controllers", "4:cpuset,memory:/a",
			`35 31 0:32 / /sys/fs/cg\040x rw master:1 - cgroup cgroup rw,cpuset,memory`,
			map[string]string{"fs/cg x/a/memory.limit_in_bytes": "100", "fs/cg x/a/cpuset.cpus": "0"}, "0", 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			sys, proc := fourCPUs()
			for name, text := range test.sys {
				sys[name] = text
			}
			proc["self/cgroup"], proc["self/mountinfo"] = test.cgroup, test.mounts
			n := probeFiles(t, sys, proc)
			var limit uint64
			if n.Memory.Limit != nil {
				limit = *n.Memory.Limit
			}
			if n.Allowed.String() != test.allowed || limit != test.limit || len(n.Warnings) > 0 {
				t.Errorf("allowed %s limit %d warnings %q; want %s, %d, none", n.Allowed, limit, n.Warnings, test.allowed, test.limit)
			}
		})
	}
}

func TestInterfaces(t *testing.T) {
	sys, proc := fourCPUs()
	for name, text := range map[string]string{
		"class/net/bonding_masters":                           "bond0",
		"class/net/eth0":                                      "-> ../../devices/pci/net/eth0",
		"devices/pci/net/eth0/ifindex":                        "2",
		"devices/pci/net/eth0/speed":                          "25000",
		"devices/pci/net/eth0/mtu":                            "9000",
		"devices/pci/net/eth0/flags":                          "0x1003",
		"devices/pci/net/eth0/operstate":                      "up",
		"devices/pci/net/eth0/type":                           "1",
		"devices/pci/net/eth0/device/driver":                  "-> ../../../../bus/drivers/mlx5_core",
		"bus/drivers/mlx5_core/bind":                          "",
		"class/net/br0":                                       "-> ../../devices/virtual/net/br0",
		"devices/virtual/net/br0/ifindex":                     "3",
		"devices/virtual/net/br0/speed":                       "-1",
		"devices/virtual/net/br0/flags":                       "0x1003",
		"devices/virtual/net/br0/operstate":                   "up",
		"devices/virtual/net/br0/uevent":                      "DEVTYPE=bridge\nINTERFACE=br0",
		"devices/virtual/net/br0/lower_eth0":                  "-> ../../../pci/net/eth0",
		"class/net/docker0":                                   "-> ../../devices/virtual/net/docker0",
		"devices/virtual/net/docker0/ifindex":                 "4",
		"devices/virtual/net/docker0/flags":                   "0x1003",
		"devices/virtual/net/docker0/operstate":               "down",
		"devices/virtual/net/docker0/bridge/stp_state":        "0",
		"class/net/lo":                                        "-> ../../devices/virtual/net/lo",
		"devices/virtual/net/lo/ifindex":                      "1",
		"devices/virtual/net/lo/flags":                        "0x9",
		"devices/virtual/net/lo/operstate":                    "unknown",
		"devices/virtual/net/lo/type":                         "772",
		"class/net/odd":                                       "-> ../../devices/virtual/net/odd",
		"devices/virtual/net/odd/ifindex":                     "5",
		"devices/virtual/net/odd/flags":                       "x",
		"devices/virtual/net/odd/lower_odd/never/followed/to": "",
	} {
		sys[name] = text
	}
	want := []topology.Interface{
		{Name: "lo", Index: 1, Up: true, Loopback: true, Kind: "loopback", Virtual: true},
		{Name: "eth0", Index: 2, Up: true, Kind: "ethernet", SpeedMbps: new(25000), MTU: 9000, Driver: "mlx5_core"},
		{Name: "br0", Index: 3, Up: true, Kind: "bridge"},
		{Name: "docker0", Index: 4, Kind: "bridge", Virtual: true},
		{Name: "odd", Index: 5, Virtual: true},
	}
	n := probeFiles(t, sys, proc)
	if diff := cmp.Diff(want, n.Interfaces); diff != "" {
		t.Errorf("from sysfs (-want +got):\n%s", diff)
	}
	if len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "odd/flags") {
		t.Errorf("warnings: %q", n.Warnings)
	}

	// The operating system's list wins; an entry of sysfs with another index
	// belongs to another network namespace.
	live := []topology.Interface{{Name: "v1", Index: 9, Up: true}, {Name: "eth0", Index: 2, Up: true, MTU: 1500}, {Name: "br0", Index: 77, Up: true}}
	n, err := Node(Source{Sys: files(sys), Proc: files(proc), Interfaces: live})
	if err != nil {
		t.Fatal(err)
	}
	want = []topology.Interface{
		{Name: "eth0", Index: 2, Up: true, Kind: "ethernet", SpeedMbps: new(25000), MTU: 1500, Driver: "mlx5_core"},
		{Name: "v1", Index: 9, Up: true},
		{Name: "br0", Index: 77, Up: true},
	}
	if diff := cmp.Diff(want, n.Interfaces); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
}

// FuzzNode feeds the text files of a machine.
func FuzzNode(f *testing.F) {
	_, proc := fourCPUs()
	f.Add("0-3", "0,2", "32K", proc["meminfo"], proc["self/status"], "4:memory:/m\n0::/a", proc["self/mountinfo"], "100")
	f.Add("0", "x", "", "MemTotal: 1 kB", "Cpus_allowed_list: 9", "0::/../..", "1 1 0:1 /x /sys rw - cgroup2 c rw", "max")
	f.Fuzz(func(t *testing.T, list, siblings, size, meminfo, status, cgroup, mounts, limit string) {
		sys, proc := fourCPUs()
		sys["devices/system/node/node0/cpulist"] = list
		sys["devices/system/cpu/cpu1/topology/thread_siblings_list"] = siblings
		sys["devices/system/cpu/cpu0/cache/index0/size"] = size
		sys["fs/cgroup/memory.max"] = limit
		proc["meminfo"], proc["self/status"] = meminfo, status
		proc["self/cgroup"], proc["self/mountinfo"] = cgroup, mounts
		n, err := Node(Source{Sys: files(sys), Proc: files(proc)})
		if err != nil {
			t.Fatal(err)
		}
		checkNode(t, n)
	})
}
