package gpu

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const (
	vendorNVIDIA = 0x10de
	vendorAMD    = 0x1002
)

func address(domain, bus, dev, fn uint64) string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", domain, bus, dev, fn)
}

// surveyed is what can be seen of GPUs without asking a driver.
type surveyed struct {
	cards  []topology.PCIDevice // NVIDIA's display and 3D controllers, by address
	driver bool                 // /dev/nvidiactl is there
	kfd    bool                 // AMD's compute driver has a topology
}

func (s surveyed) nvidia() bool { return s.driver || len(s.cards) > 0 }

// display reports whether a class is VGA, 3D or another display controller, or a
// processing accelerator.
func display(class uint32) bool { return class>>16 == 0x03 || class>>8 == 0x1200 }

// survey looks at the PCI tree of n, or of /sys where the model has none.
func survey(m Machine, n topology.Node) surveyed {
	var s surveyed
	devices := n.PCI
	if len(devices) == 0 && m.Sys != nil {
		devices = pciDevices(m.Sys)
	}
	for _, d := range devices {
		if d.Vendor == vendorNVIDIA && display(d.Class) {
			s.cards = append(s.cards, d)
		}
	}
	slices.SortFunc(s.cards, func(a, b topology.PCIDevice) int { return strings.Compare(a.Address, b.Address) })
	if m.Dev != nil {
		_, err := fs.Stat(m.Dev, "nvidiactl")
		s.driver = err == nil
		_, err = fs.Stat(m.Dev, "kfd")
		s.kfd = err == nil
	}
	if m.Sys != nil && !s.kfd {
		_, err := fs.Stat(m.Sys, kfdNodes)
		s.kfd = err == nil
	}
	return s
}

// pciDevices lists the display devices, with no more than what this package
// needs of them.
func pciDevices(sys fs.FS) []topology.PCIDevice {
	const dir = "bus/pci/devices"
	list, err := fs.ReadDir(sys, dir)
	if err != nil {
		return nil
	}
	var out []topology.PCIDevice
	for _, e := range list {
		if d, ok := pciDevice(sys, e.Name()); ok && display(d.Class) {
			out = append(out, d)
		}
	}
	return out
}

func pciDevice(sys fs.FS, addr string) (topology.PCIDevice, bool) {
	dir := path.Join("bus/pci/devices", addr)
	hex := func(name string, bits int) (uint64, bool) {
		b, err := fs.ReadFile(sys, path.Join(dir, name))
		if err != nil {
			return 0, false
		}
		v, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(b)), "0x"), 16, bits)
		return v, err == nil
	}
	class, ok1 := hex("class", 32)
	vendor, ok2 := hex("vendor", 16)
	if !ok1 || !ok2 {
		return topology.PCIDevice{}, false
	}
	d := topology.PCIDevice{Address: addr, Class: uint32(class), Vendor: uint16(vendor), NUMA: -1}
	if b, err := fs.ReadFile(sys, path.Join(dir, "numa_node")); err == nil {
		if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && v >= 0 {
			d.NUMA = v
		}
	}
	if b, err := fs.ReadFile(sys, path.Join(dir, "local_cpulist")); err == nil {
		d.CPUs, _ = topology.ParseCPUSet(strings.TrimSpace(string(b)))
	}
	if link, err := fs.ReadLink(sys, path.Join(dir, "driver")); err == nil {
		d.Driver = path.Base(link)
	}
	return d, true
}

// missing compares the cards on the bus with what the driver has told.
func (s surveyed) missing(r Result, asked bool) []string {
	known := map[string]bool{}
	for _, g := range r.GPUs {
		known[g.PCI] = true
	}
	warned := strings.Join(r.Warnings, "\n")
	var out []string
	for _, c := range s.cards {
		switch {
		case known[c.Address] || strings.Contains(warned, c.Address):
		case c.Driver == "nvidia" || c.Driver == "" && s.driver && r.Source != "":
			if asked && r.Source != "" {
				out = append(out, fmt.Sprintf("GPU %s: it is on the bus but the driver does not list it: it fell off the bus, or this user may not use it; "+
					"look at the kernel's log for Xid 79 and at the rights of /dev/nvidia*", c.Address))
			}
		case c.Driver == "":
			if !s.driver {
				out = append(out, fmt.Sprintf("GPU %s: no driver is loaded for it: install or load NVIDIA's", c.Address))
			}
		case c.Driver == "vfio-pci": // it belongs to a virtual machine
		default:
			out = append(out, fmt.Sprintf("GPU %s: its driver is %s, with which programs can't compute: it is left out", c.Address, c.Driver))
		}
	}
	return out
}

// readable says why a file of /sys could not be read, without its path, which
// the warning already has.
func readable(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}
