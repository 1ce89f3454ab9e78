// Package topology is the model of a machine: packages, NUMA nodes, caches,
// cores, PUs, memory, network interfaces and the limits a process meets on it;
// sets of cpus; lists and files of hosts; the network that nodes share.
// It is pure: topology/probe fills the model from a machine.
package topology

import (
	"cmp"
	"net/netip"
)

// Node is one machine as a process on it sees it. Sizes are bytes. A nil
// pointer means unknown, never zero. Slices are in a fixed order, the same for
// every probe of the same machine.
type Node struct {
	Hostname string `json:"hostname"`
	OS       string `json:"os,omitempty"`      // as GOOS
	Arch     string `json:"arch,omitempty"`    // as GOARCH
	Kernel   string `json:"kernel,omitempty"`  // release
	BootID   string `json:"boot_id,omitempty"` // changes with every boot

	Packages []Package  `json:"packages,omitempty"`
	Dies     []Die      `json:"dies,omitempty"` // only where a package has several
	NUMA     []NUMANode `json:"numa,omitempty"`
	Caches   []Cache    `json:"caches,omitempty"`
	Cores    []Core     `json:"cores,omitempty"`     // by NUMA node, package, core, first PU
	CPUKinds []CPUKind  `json:"cpu_kinds,omitempty"` // hybrid machines only, least efficient (fastest) last

	Online CPUSet `json:"online,omitzero"` // PUs that the kernel runs
	// Allowed are the PUs that the process may use: cpuset cgroup and
	// affinity, within Online.
	Allowed     CPUSet `json:"allowed,omitzero"`
	AllowedMems CPUSet `json:"allowed_mems,omitzero"` // NUMA nodes it may allocate on

	Memory       Memory      `json:"memory"`
	MemlockBytes *uint64     `json:"memlock_bytes,omitempty"` // RLIMIT_MEMLOCK; MaxUint64: unlimited
	ShmBytes     *uint64     `json:"shm_bytes,omitempty"`     // free in /dev/shm
	Interfaces   []Interface `json:"interfaces,omitempty"`    // by index

	PCI  []PCIDevice `json:"pci,omitempty"`  // by address; bridges above devices of interest only
	GPUs []GPU       `json:"gpus,omitempty"` // by index
	HCAs []HCA       `json:"hcas,omitempty"` // by name, numbers as numbers: mlx5_2 before mlx5_10
	// Links are what a driver said of pairs of GPUs and HCAs; Distance derives
	// the pairs that are not here from PCI and NUMA nodes.
	Links []Link `json:"links,omitempty"`

	// Warnings name the files that could not be read or understood; what they
	// would have said is unknown in the rest of the model.
	Warnings []string `json:"warnings,omitempty"`
}

// Package is a socket.
type Package struct {
	Index int    `json:"index"` // the operating system's
	CPUs  CPUSet `json:"cpus"`
}

// Die is a part of a package with its own cores, where there are several.
type Die struct {
	Index   int    `json:"index"`   // the operating system's; unique only within a package
	Package int    `json:"package"` // Package.Index
	CPUs    CPUSet `json:"cpus"`
}

// CPUKind is one kind of core of a hybrid machine.
type CPUKind struct {
	Name   string `json:"name"` // performance, efficiency, low-power; else kind0, kind1, ...
	CPUs   CPUSet `json:"cpus"`
	MaxMHz *int   `json:"max_mhz,omitempty"`
}

// NUMANode is a memory domain; it may have no cpus, and cpus may have none.
type NUMANode struct {
	Index     int         `json:"index"` // the operating system's; sparse on some machines
	CPUs      CPUSet      `json:"cpus,omitzero"`
	Memory    *uint64     `json:"memory,omitempty"`
	HugePages []HugePages `json:"huge_pages,omitempty"` // by page size
}

// HugePages counts the reserved pages of one size on a NUMA node.
type HugePages struct {
	PageBytes uint64 `json:"page_bytes"`
	Total     uint64 `json:"total"`
	Free      uint64 `json:"free"`
}

// Cache is a data or unified cache; instruction caches are left out.
type Cache struct {
	Level   int     `json:"level"`
	Unified bool    `json:"unified,omitempty"`
	Size    *uint64 `json:"size,omitempty"`
	CPUs    CPUSet  `json:"cpus"` // online PUs that share it
}

// Core is a core with its online PUs. A slot is a core.
type Core struct {
	Index   int    `json:"index"`   // the operating system's; unique only within a package, if there
	Package int    `json:"package"` // Package.Index, -1 unknown
	NUMA    int    `json:"numa"`    // NUMANode.Index, -1 unknown
	PUs     CPUSet `json:"pus"`
}

// Memory is the machine's memory and what cgroups leave of it.
type Memory struct {
	Total     *uint64 `json:"total,omitempty"`
	Available *uint64 `json:"available,omitempty"`
	// Limit is the smallest memory limit of the process's cgroup and its
	// parents, version 1 or 2; nil: none.
	Limit *uint64 `json:"limit,omitempty"`
}

// Interface is a network interface.
type Interface struct {
	Name  string         `json:"name"`
	Index int            `json:"index"`
	Addrs []netip.Prefix `json:"addrs,omitempty"`
	// SpeedMbps is the link's speed in 10^6 bit/s.
	SpeedMbps *int   `json:"speed_mbps,omitempty"`
	MTU       int    `json:"mtu,omitempty"`
	Up        bool   `json:"up"` // up and with a carrier
	Loopback  bool   `json:"loopback,omitempty"`
	Kind      string `json:"kind,omitempty"`    // ethernet, infiniband, bridge, bond, vlan, tun, …
	Virtual   bool   `json:"virtual,omitempty"` // no hardware below it, not even through bridge or bond
	Driver    string `json:"driver,omitempty"`
}

// Usable returns the cores of which at least one PU is allowed, in the order
// of Cores, each with its allowed PUs only.
func (n Node) Usable() []Core { return n.CoresWithin(n.Allowed) }

// CoresWithin returns the cores that have a PU in cpus, in the order of Cores,
// each with those PUs only.
func (n Node) CoresWithin(cpus CPUSet) []Core {
	out := make([]Core, 0, len(n.Cores))
	for _, c := range n.Cores {
		if c.PUs = c.PUs.Intersect(cpus); !c.PUs.IsEmpty() {
			out = append(out, c)
		}
	}
	return out
}

// CompareCores orders cores as in Node.Cores.
func CompareCores(a, b Core) int {
	return cmp.Or(cmp.Compare(a.NUMA, b.NUMA), cmp.Compare(a.Package, b.Package),
		cmp.Compare(a.Index, b.Index), cmp.Compare(a.PUs.First(), b.PUs.First()))
}
