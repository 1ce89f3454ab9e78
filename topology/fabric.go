package topology

// Fabric is a network's switches and the hosts on them. Slices are in natural
// order of names: n2 before n10.
type Fabric struct {
	Switches []Switch     `json:"switches,omitempty"`
	Hosts    []FabricHost `json:"hosts,omitempty"`
	// Unnamed are the ports of HCAs whose description tells no host: they make
	// a switch a leaf, but whose they are is not known.
	Unnamed []FabricPort `json:"unnamed,omitempty"`
	// Blocks are what a Slurm block topology says, in its order, by which blocks
	// form aggregates; empty for trees.
	Blocks     []Block  `json:"blocks,omitempty"`
	BlockSizes []int    `json:"block_sizes,omitempty"` // nodes in a block, then in each higher level of aggregates
	Ignored    int      `json:"ignored,omitempty"`     // aggregation nodes (SHARP) that were left out
	Warnings   []string `json:"warnings,omitempty"`    // with file and line
}

// Switch is a switch of a fabric.
type Switch struct {
	Name  string `json:"name"`           // unique
	GUID  string `json:"guid,omitempty"` // 16 hexadecimal digits
	Level int    `json:"level"`          // 0: a leaf, which has hosts; then hops up from the nearest leaf; -1: connected to no leaf
	// Parent is the switch above, where a file states a tree (Slurm's): then the
	// level is one more than that of the highest switch below.
	Parent string       `json:"parent,omitempty"`
	Links  []SwitchLink `json:"links,omitempty"`
}

// SwitchLink is the cables between two switches; both ends have it.
type SwitchLink struct {
	To    string   `json:"to"`
	Count int      `json:"count"`
	Gbps  *float64 `json:"gbps,omitempty"` // of one cable, 10^9 bit/s
}

// FabricHost is a host with its ports on the fabric.
type FabricHost struct {
	Name  string       `json:"name"` // unique
	Ports []FabricPort `json:"ports,omitempty"`
}

// FabricPort is one cable from a host to a switch.
type FabricPort struct {
	HCA        string   `json:"hca,omitempty"` // mlx5_0, as the host calls it
	GUID       string   `json:"guid,omitempty"`
	Port       int      `json:"port,omitempty"`
	Switch     string   `json:"switch"`
	SwitchPort int      `json:"switch_port,omitempty"`
	Gbps       *float64 `json:"gbps,omitempty"` // 10^9 bit/s
}

// Block is a block of a Slurm block topology.
type Block struct {
	Name  string   `json:"name"`
	Hosts []string `json:"hosts"`
}

// Domain is a set of hosts that are near each other: everything, below it what
// a switch (or a set of leaves, one a rail) connects, at last single leaf sets.
type Domain struct {
	// Name is the switch's, or the names of several folded as in a hostlist and
	// joined with "+": leaf-[1-4]+leaf7. It is "" for the whole of a fabric in
	// parts that are not connected.
	Name     string   `json:"name"`
	Level    int      `json:"level"`            // 0: a leaf set; its parent is higher
	Hosts    []string `json:"hosts,omitempty"`  // of leaf sets only
	Leaves   []string `json:"leaves,omitempty"` // the switches of a leaf set, if it has several
	Children []Domain `json:"children,omitempty"`
}
