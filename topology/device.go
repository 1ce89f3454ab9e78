package topology

// PCIDevice is a device or a bridge of the PCI tree. The tree is told by Parent.
type PCIDevice struct {
	Address string `json:"address"`          // domain:bus:device.function, 0000:3b:00.0, lower case
	Parent  string `json:"parent,omitempty"` // address of the bridge above; "" below a host bridge
	Host    string `json:"host,omitempty"`   // root bus of its host bridge, 0000:00
	Class   uint32 `json:"class"`            // 24 bits: class, subclass, interface; 0x030200 is a 3D controller
	Vendor  uint16 `json:"vendor"`
	Device  uint16 `json:"device"`
	Driver  string `json:"driver,omitempty"`
	NUMA    int    `json:"numa"`          // NUMANode.Index, -1 unknown
	CPUs    CPUSet `json:"cpus,omitzero"` // online PUs near it; empty: unknown
	// LinkGTs is the present link speed in 10^9 transfers a second and lane,
	// LinkWidth its lanes; 0: unknown.
	LinkGTs   float64 `json:"link_gts,omitempty"`
	LinkWidth int     `json:"link_width,omitempty"`
	// Names are what the operating system calls what is on it: sda, eth0, mlx5_0.
	Names []string `json:"names,omitempty"`
}

// Bridge reports whether other devices hang below the device.
func (d PCIDevice) Bridge() bool { return d.Class>>8 == 0x0604 }

// GPU is a graphics or compute accelerator.
type GPU struct {
	Index   int     `json:"index"`  // the driver's number, which CUDA_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES take
	Vendor  string  `json:"vendor"` // nvidia, amd
	Name    string  `json:"name,omitempty"`
	UUID    string  `json:"uuid,omitempty"`
	PCI     string  `json:"pci,omitempty"`      // PCIDevice.Address
	NUMA    int     `json:"numa"`               // NUMANode.Index, -1 unknown
	CPUs    CPUSet  `json:"cpus,omitzero"`      // online PUs near it; empty: unknown
	Memory  *uint64 `json:"memory,omitempty"`   // bytes
	Driver  string  `json:"driver,omitempty"`   // version
	MIGMode bool    `json:"mig_mode,omitempty"` // it is used through its instances only
	MIG     []MIG   `json:"mig,omitempty"`
	Health  Health  `json:"health,omitzero"`
}

// MIG is an instance of a partitioned NVIDIA GPU.
type MIG struct {
	Index   int     `json:"index"` // among the GPU's
	UUID    string  `json:"uuid"`
	Profile string  `json:"profile,omitempty"` // 1g.10gb
	Memory  *uint64 `json:"memory,omitempty"`  // bytes
}

// Health is what a GPU's driver says of its state. nil is unknown, never zero.
type Health struct {
	ECC          *bool    `json:"ecc,omitempty"`             // switched on
	Corrected    *uint64  `json:"ecc_corrected,omitempty"`   // ECC errors since the driver was loaded
	Uncorrected  *uint64  `json:"ecc_uncorrected,omitempty"` // the same
	RetiredPages *uint64  `json:"retired_pages,omitempty"`   // or remapped rows
	RemapPending *bool    `json:"remap_pending,omitempty"`   // needs a reset to finish a repair
	RemapFailed  *bool    `json:"remap_failed,omitempty"`
	XIDs         []uint64 `json:"xids,omitempty"`     // driver errors seen, NVIDIA's numbers
	Throttle     []string `json:"throttle,omitempty"` // why the clock is held down, in NVML's words: hw_slowdown, sw_thermal_slowdown, ...
	TemperatureC *int     `json:"temperature_c,omitempty"`
	PowerMilliW  *uint64  `json:"power_mw,omitempty"`
	Problem      string   `json:"problem,omitempty"` // why it should not be used; "" if nothing is known against it
}

// HCA is an InfiniBand, RoCE or Omni-Path adapter.
type HCA struct {
	Name     string    `json:"name"`            // mlx5_0
	Type     string    `json:"type,omitempty"`  // hca_type: MT4129
	Board    string    `json:"board,omitempty"` // board_id: MT_0000000838
	Firmware string    `json:"firmware,omitempty"`
	NodeGUID string    `json:"node_guid,omitempty"` // 16 hexadecimal digits, without colons; "" unknown
	Driver   string    `json:"driver,omitempty"`
	PCI      string    `json:"pci,omitempty"` // PCIDevice.Address
	NUMA     int       `json:"numa"`          // NUMANode.Index, -1 unknown
	CPUs     CPUSet    `json:"cpus,omitzero"` // online PUs near it; empty: unknown
	Ports    []HCAPort `json:"ports,omitempty"`
}

// HCAPort is a port of an HCA, in the words of the kernel.
type HCAPort struct {
	Number    int      `json:"number"`
	State     string   `json:"state,omitempty"`      // ACTIVE, INIT, DOWN, ARMED
	PhysState string   `json:"phys_state,omitempty"` // LinkUp, Polling, Disabled
	LinkLayer string   `json:"link_layer,omitempty"` // InfiniBand or Ethernet (RoCE); "" on Omni-Path of old kernels
	Gbps      *float64 `json:"gbps,omitempty"`       // 10^9 bit/s
	Rate      string   `json:"rate,omitempty"`       // as the kernel says: 100 Gb/sec (4X EDR)
	LID       *uint32  `json:"lid,omitempty"`
	SMLID     *uint32  `json:"sm_lid,omitempty"`
	GIDs      []string `json:"gids,omitempty"`   // those that are set, by index
	Netdev    string   `json:"netdev,omitempty"` // network interface of the port: ib0
	// Counters are those of counters/ and hw_counters/, by file name, in the
	// kernel's units: port_xmit_data counts 4 bytes.
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// Link is a pair of devices and what the driver says is between them. A and B
// are GPUn (GPU.Index) or the name of an HCA.
type Link struct {
	A     string `json:"a"`
	B     string `json:"b"`
	Class Class  `json:"class"`
	P2P   *bool  `json:"p2p,omitempty"` // one reads the other's memory
}

// Class is how far two devices are from each other, in the words of nvidia-smi
// topo -m: X, NV# (# bonded NVLinks), PIX, PXB, PHB, NODE, SYS; "" unknown.
type Class string

// Distance classes, nearest first; NV# comes before them all.
const (
	ClassSelf Class = "X"
	ClassXGMI Class = "XGMI" // AMD's links between GPUs, in the words of amd-smi; as near as NV#
	ClassPIX  Class = "PIX"  // at most one PCIe bridge between them
	ClassPXB  Class = "PXB"  // several PCIe bridges, no host bridge
	ClassPHB  Class = "PHB"  // a PCIe host bridge, usually the CPU
	ClassNODE Class = "NODE" // several host bridges of one NUMA node
	ClassSYS  Class = "SYS"  // the interconnect between NUMA nodes
)
