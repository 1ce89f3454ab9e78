package probe

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const netDir = "class/net"

// interfaces joins what the operating system said with what sysfs knows. A
// /sys mounted in another network namespace shows that one's interfaces: only
// entries with the same name and index count.
func (r *reader) interfaces(n *topology.Node, live []topology.Interface) {
	out := live
	if live == nil {
		list, err := fs.ReadDir(r.sys, netDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.warn("/sys/"+netDir, "%v", err)
		}
		for _, e := range list {
			// bonding_masters is a plain file among the interfaces.
			if _, err := fs.Stat(r.sys, path.Join(netDir, e.Name(), "ifindex")); err == nil {
				out = append(out, topology.Interface{Name: e.Name()})
			}
		}
	}
	for k := range out {
		i := &out[k]
		dir := path.Join(netDir, i.Name)
		index, ok := r.quietInt(dir + "/ifindex")
		if !ok || live != nil && index != i.Index {
			if i.Loopback {
				i.Kind, i.Virtual = "loopback", true
			}
			continue
		}
		i.Index = index
		if live == nil {
			r.sysFlags(i, dir)
		}
		// The kernel answers EINVAL or -1 for links without a speed.
		if v, ok := r.quietInt(dir + "/speed"); ok && v > 0 {
			i.SpeedMbps = &v
		}
		i.Virtual = !r.hardware(i.Name, 0)
		i.Kind = r.interfaceKind(*i, dir)
		if link, err := fs.ReadLink(r.sys, dir+"/device/driver"); err == nil {
			i.Driver = path.Base(link)
		}
	}
	slices.SortStableFunc(out, func(a, b topology.Interface) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Name, b.Name))
	})
	n.Interfaces = out
}

// sysFlags takes from sysfs what the operating system's list says otherwise.
func (r *reader) sysFlags(i *topology.Interface, dir string) {
	const up, loopback = 0x1, 0x8
	s, _ := r.read(r.sys, "/sys", dir+"/flags")
	flags, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 32)
	if s != "" && err != nil {
		r.warn("/sys/"+dir+"/flags", "expected a hexadecimal number, found %q", clip(s))
	}
	i.Loopback = flags&loopback != 0
	state := r.text(r.sys, "/sys", dir+"/operstate")
	i.Up = flags&up != 0 && (state == "up" || state == "unknown")
	if mtu, ok := r.sysInt(dir + "/mtu"); ok {
		i.MTU = mtu
	}
}

// quietInt reads a number from a file that may fail to be read in normal life.
func (r *reader) quietInt(file string) (int, bool) {
	if r.sys == nil {
		return 0, false
	}
	b, err := fs.ReadFile(r.sys, file)
	if err != nil {
		return 0, false
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return v, err == nil
}

// hardware reports whether there is a device below the interface, itself or
// through the ports of a bridge, bond or vlan.
func (r *reader) hardware(name string, depth int) bool {
	dir := path.Join(netDir, name)
	if _, err := fs.Stat(r.sys, dir+"/device"); err == nil {
		return true
	}
	if depth > 4 {
		return false
	}
	list, err := fs.ReadDir(r.sys, dir)
	if err != nil {
		return false
	}
	for _, e := range list {
		if lower, ok := strings.CutPrefix(e.Name(), "lower_"); ok && r.hardware(lower, depth+1) {
			return true
		}
	}
	return false
}

// interfaceKind names the kind: by uevent's DEVTYPE where the driver sets
// it, else by what the directory holds, else by the hardware type (ARPHRD).
func (r *reader) interfaceKind(i topology.Interface, dir string) string {
	for line := range strings.Lines(r.text(r.sys, "/sys", dir+"/uevent")) {
		if kind, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVTYPE="); ok && kind != "" {
			return kind // bridge, bond, vlan, vxlan, wlan, …
		}
	}
	for _, k := range []struct{ file, kind string }{{"bridge", "bridge"}, {"bonding", "bond"}, {"tun_flags", "tun"}} {
		if _, err := fs.Stat(r.sys, dir+"/"+k.file); err == nil {
			return k.kind
		}
	}
	hw, _ := r.quietInt(dir + "/type")
	switch hw {
	case 1:
		return "ethernet"
	case 32:
		return "infiniband"
	case 772:
		return "loopback"
	}
	if i.Loopback {
		return "loopback"
	}
	return ""
}
