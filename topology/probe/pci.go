package probe

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const pciDir = "bus/pci/devices"

// pciAddress is domain:bus:device.function. Domains have more than 16 bits
// behind Intel's VMD and on some virtual machines.
type pciAddress struct{ domain, bus, device, function uint32 }

func comparePCI(a, b pciAddress) int {
	return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.bus, b.bus),
		cmp.Compare(a.device, b.device), cmp.Compare(a.function, b.function))
}

// parsePCI reads an address as sysfs writes it, 0000:3b:00.0 or 10000:e1:00.0.
func parsePCI(s string) (pciAddress, bool) {
	var a pciAddress
	f := strings.FieldsFunc(s, func(c rune) bool { return c == ':' || c == '.' })
	k := strings.IndexByte(s, ':')
	if len(f) != 4 || k < 4 || k > 8 || len(s) != k+8 || s[k+3] != ':' || s[k+6] != '.' {
		return a, false
	}
	for i, into := range []*uint32{&a.domain, &a.bus, &a.device, &a.function} {
		v, err := strconv.ParseUint(f[i], 16, 32)
		if err != nil {
			return a, false
		}
		*into = uint32(v)
	}
	return a, a.device < 32 && a.function < 8
}

// hostBridge finds the root bus in a directory's name: pci0000:00 is 0000:00.
func hostBridge(name string) (string, bool) {
	bus, ok := strings.CutPrefix(name, "pci")
	if !ok {
		return "", false
	}
	_, ok = parsePCI(bus + ":00.0")
	return bus, ok
}

// pciNode is a device while the tree is put together.
type pciNode struct {
	topology.PCIDevice
	at     pciAddress
	above  []string // bridges, the nearest first
	linked bool     // the tree is known from the directory's link
	keep   bool
}

// pci reads the tree of devices: those of interest and the bridges above them.
func (r *reader) pci(n *topology.Node) {
	if r.sys == nil {
		return
	}
	list, err := fs.ReadDir(r.sys, pciDir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.warn("/sys/"+pciDir, "%v", err)
		}
		return
	}
	found := make(map[string]*pciNode, len(list))
	var unknown []string // class
	for _, e := range list {
		at, ok := parsePCI(e.Name())
		if !ok {
			r.warn("/sys/"+pciDir, "expected an address such as 0000:3b:00.0, found %q", clip(e.Name()))
			continue
		}
		d := &pciNode{at: at}
		d.Address, d.NUMA = e.Name(), -1
		if link, err := fs.ReadLink(r.sys, pciDir+"/"+d.Address); err == nil {
			d.Host, d.above, d.linked = pciParent(link)
		}
		found[d.Address] = d
		if d.Class, ok = r.pciClass(d.Address); ok {
			d.keep = pciOfInterest(d.Class)
		} else {
			unknown = append(unknown, d.Address)
		}
	}
	// The nearest bridge that the bus lists: records and virtual machines leave
	// some out.
	for _, d := range found {
		if len(d.above) > 0 {
			d.Parent = d.above[0]
		}
		for _, up := range d.above {
			if found[up] != nil {
				d.Parent = up
				break
			}
		}
	}
	// What has devices below it is a bridge, whether it says so or not.
	bridges := map[string]bool{}
	for _, d := range found {
		bridges[d.Parent] = true
	}
	for _, address := range unknown {
		if bridges[address] {
			found[address].Class = 0x060400
		} else {
			delete(found, address)
		}
	}
	r.pciUnlinked(found)
	names := r.pciNames()
	for address := range names {
		// What the kernel drives as a network or InfiniBand device is one,
		// whatever its class says.
		if d := found[address]; d != nil && names[address].network {
			d.keep = true
		}
	}
	for _, d := range found {
		if !d.keep || d.Bridge() {
			continue
		}
		// Contradictory records could make a ring of bridges: a bridge that is
		// kept has its own above it already.
		for up := found[d.Parent]; up != nil && !up.keep; up = found[up.Parent] {
			up.keep = true
		}
	}
	kept := make([]*pciNode, 0, len(found))
	for _, d := range found {
		if d.keep {
			kept = append(kept, d)
		}
	}
	slices.SortFunc(kept, func(a, b *pciNode) int { return comparePCI(a.at, b.at) })
	for _, d := range kept {
		if d.Parent != "" && found[d.Parent] == nil {
			r.warn("/sys/"+pciDir+"/"+d.Address, "its bridge %s can't be found", d.Parent)
			d.Parent = ""
		}
		d.Names = names[d.Address].names
		r.pciDevice(n, &d.PCIDevice)
		n.PCI = append(n.PCI, d.PCIDevice)
	}
}

// pciOfInterest is about what hwloc holds to be important: network, storage,
// display, processors and accelerators, memory, Fibre Channel, InfiniBand, and
// unclassified devices (Atos BXI). Bridges come with what is below them.
func pciOfInterest(class uint32) bool {
	switch class >> 16 {
	case 0x00, 0x01, 0x02, 0x03, 0x0b, 0x12:
		return true
	case 0x05:
		return class>>8 == 0x0502 // CXL memory; the other kinds are parts of chip sets
	case 0x0c:
		return class>>8 == 0x0c04 || class>>8 == 0x0c06
	}
	return false
}

// pciParent reads host bridge and bridges, the nearest first, from the link of a
// device: ../../../devices/pci0000:00/0000:00:03.0/0000:01:00.0.
func pciParent(link string) (host string, above []string, ok bool) {
	parts := strings.Split(path.Dir(path.Clean(link)), "/")
	for k := len(parts) - 1; k >= 0; k-- {
		if bus, yes := hostBridge(parts[k]); yes {
			return bus, above, true
		}
		if _, yes := parsePCI(parts[k]); yes {
			above = append(above, parts[k])
		}
	}
	return "", nil, false
}

// pciUnlinked finds bridges in records that have no links: by the bus that the
// bridge's configuration space says is below it.
func (r *reader) pciUnlinked(found map[string]*pciNode) {
	type bus struct{ domain, number uint32 }
	var above map[bus]string
	for _, d := range found {
		if d.linked {
			continue
		}
		if above == nil {
			above = map[bus]string{}
			for _, b := range found {
				if !b.Bridge() {
					continue
				}
				// Offset 0x19 of a bridge's header: the secondary bus.
				config, err := fs.ReadFile(r.sys, pciDir+"/"+b.Address+"/config")
				if err == nil && len(config) > 0x19 && uint32(config[0x19]) > b.at.bus {
					above[bus{b.at.domain, uint32(config[0x19])}] = b.Address
				}
			}
		}
		d.Parent = above[bus{d.at.domain, d.at.bus}]
	}
	for _, d := range found {
		if d.linked {
			continue
		}
		// Bus numbers grow downwards, so this ends.
		top := d
		for up := found[top.Parent]; up != nil && up.at.bus < top.at.bus; up = found[top.Parent] {
			top = up
		}
		d.Host = top.Host
		if !top.linked {
			d.Host = top.Address[:strings.LastIndexByte(top.Address, ':')]
		}
	}
}

// pciClass reads the class, from the configuration space if need be.
func (r *reader) pciClass(address string) (uint32, bool) {
	file := pciDir + "/" + address + "/class"
	if v, ok := r.sysHex(file, 24); ok {
		return uint32(v), true
	}
	config, err := fs.ReadFile(r.sys, pciDir+"/"+address+"/config")
	if err != nil || len(config) < 0x0c {
		r.warn("/sys/"+file, "no class: the device is left out, unless others are below it")
		return 0, false
	}
	return uint32(config[0x0b])<<16 | uint32(config[0x0a])<<8 | uint32(config[0x09]), true
}

// pciDevice fills in what a device's directory says.
func (r *reader) pciDevice(n *topology.Node, d *topology.PCIDevice) {
	dir := pciDir + "/" + d.Address + "/"
	if v, ok := r.sysHex(dir+"vendor", 16); ok {
		d.Vendor = uint16(v)
	}
	if v, ok := r.sysHex(dir+"device", 16); ok {
		d.Device = uint16(v)
	}
	if link, err := fs.ReadLink(r.sys, dir+"driver"); err == nil {
		d.Driver = path.Base(link)
	}
	r.pciLink(d, dir)
	d.CPUs, d.NUMA = r.locality(n, dir)
}

// pciLink reads the present link; devices that are parts of the cpu have none,
// and a device that sleeps says Unknown.
func (r *reader) pciLink(d *topology.PCIDevice, dir string) {
	if s := r.text(r.sys, "/sys", dir+"current_link_speed"); s != "" && !strings.HasPrefix(s, "Unknown") {
		number, _, _ := strings.Cut(s, " ") // 16.0 GT/s PCIe
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !(v > 0 && v < 10000) {
			r.warn("/sys/"+dir+"current_link_speed", "expected a speed such as 16.0 GT/s, found %q", clip(s))
		} else {
			d.LinkGTs = v
		}
	}
	if s := r.text(r.sys, "/sys", dir+"current_link_width"); s != "" {
		v, err := strconv.Atoi(s)
		switch {
		case err != nil || v < 0:
			r.warn("/sys/"+dir+"current_link_width", "expected a number of lanes, found %q", clip(s))
		case v <= 32: // 63 and 255 stand for unknown
			d.LinkWidth = v
		}
	}
}

// locality finds the cpus and the NUMA node near a device from its directory
// (relative to /sys, with a slash at its end). Each stands in for the other:
// firmware often leaves one out.
func (r *reader) locality(n *topology.Node, dir string) (cpus topology.CPUSet, numa int) {
	numa = -1
	if set, ok := r.sysCPUs(dir+"local_cpulist", dir+"local_cpus"); ok {
		cpus = set.Intersect(n.Online)
	}
	if v, ok := r.sysInt(dir + "numa_node"); ok && v >= 0 {
		k := slices.IndexFunc(n.NUMA, func(d topology.NUMANode) bool { return d.Index == v })
		switch {
		case k < 0:
			r.warn("/sys/"+dir+"numa_node", "there is no NUMA node %d", v)
		case !cpus.IsEmpty() && !n.NUMA[k].CPUs.IsEmpty() && !cpus.Overlaps(n.NUMA[k].CPUs):
			r.warn("/sys/"+dir+"numa_node", "NUMA node %d has cpus %s, local_cpus has %s: both ignored", v, n.NUMA[k].CPUs, cpus)
			return topology.CPUSet{}, -1
		default:
			numa = v
			if cpus.IsEmpty() {
				cpus = n.NUMA[k].CPUs
			}
			return cpus, numa
		}
	}
	near := 0
	for _, d := range n.NUMA {
		if d.CPUs.Overlaps(cpus) {
			near++
			numa = d.Index
		}
	}
	if near != 1 {
		numa = -1
	}
	return cpus, numa
}

// sysHex reads 0x and a hexadecimal number of at most so many bits.
func (r *reader) sysHex(file string, bits int) (uint64, bool) {
	s, ok := r.read(r.sys, "/sys", file)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, bits)
	if err != nil {
		r.warn("/sys/"+file, "expected a hexadecimal number of %d bits, found %q", bits, clip(s))
		return 0, false
	}
	return v, true
}

type pciName struct {
	names   []string
	network bool
}

// pciNames lists what the kernel made of each device, by address.
func (r *reader) pciNames() map[string]pciName {
	out := map[string]pciName{}
	for _, class := range []string{"accel", "block", "drm", "infiniband", "mic", "net"} {
		dir := "class/" + class
		list, err := fs.ReadDir(r.sys, dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				r.warn("/sys/"+dir, "%v", err)
			}
			continue
		}
		links := make(map[string]string, len(list))
		for _, e := range list {
			link, err := fs.ReadLink(r.sys, dir+"/"+e.Name())
			if err != nil { // old kernels have a directory here, with a link in it
				link, err = fs.ReadLink(r.sys, dir+"/"+e.Name()+"/device")
				link += "/" + e.Name()
			}
			if err == nil {
				links[e.Name()] = link
			}
		}
		for _, name := range slices.Sorted(maps.Keys(links)) {
			above := path.Dir(links[name])
			if _, part := links[path.Base(above)]; part {
				continue // a partition of a disk, a connector of a card
			}
			for ; above != "." && above != "/" && path.Base(above) != ".."; above = path.Dir(above) {
				if _, ok := parsePCI(path.Base(above)); ok {
					p := out[path.Base(above)]
					p.names = append(p.names, name)
					p.network = p.network || class == "net" || class == "infiniband"
					out[path.Base(above)] = p
					break
				}
			}
		}
	}
	return out
}
