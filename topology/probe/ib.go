package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

const ibDir = "class/infiniband"

// Bounds on what one machine can make the probe read.
const (
	maxHCAs     = 1024 // virtual functions are HCAs of their own
	maxCounters = 256  // a port
	maxGIDs     = 256  // a port
	maxGIDHole  = 32   // unset entries, after which the rest of the table is taken to be unset too
)

// hcas reads the InfiniBand, RoCE, iWARP and Omni-Path adapters: the class
// infiniband of sysfs, as the kernel's Documentation/ABI/stable/sysfs-class-infiniband
// describes it. What a driver does not offer stays unknown.
func (r *reader) hcas(n *topology.Node) {
	for _, name := range r.hcaNames() {
		dir := path.Join(ibDir, name)
		h := topology.HCA{Name: name, NUMA: -1}
		h.Type = r.text(r.sys, "/sys", dir+"/hca_type")
		h.Board = r.text(r.sys, "/sys", dir+"/board_id")
		h.Firmware = r.text(r.sys, "/sys", dir+"/fw_ver")
		h.NodeGUID = r.guid(dir + "/node_guid")
		h.PCI = r.hcaAddress(dir)
		if link, err := fs.ReadLink(r.sys, dir+"/device/driver"); err == nil {
			h.Driver = path.Base(link)
		}
		r.hcaLocality(n, &h, dir)
		for _, p := range r.numbers(dir + "/ports") {
			h.Ports = append(h.Ports, r.hcaPort(dir, p))
		}
		n.HCAs = append(n.HCAs, h)
	}
}

// hcaLocality is the PCI device's, or is read from the files of adapters that
// are no PCI devices.
func (r *reader) hcaLocality(n *topology.Node, h *topology.HCA, dir string) {
	for _, d := range n.PCI {
		if d.Address == h.PCI {
			h.NUMA, h.CPUs = d.NUMA, d.CPUs
			return
		}
	}
	if v, ok := r.sysInt(dir + "/device/numa_node"); ok && v >= 0 {
		h.NUMA = v
	}
	if set, ok := r.sysCPUs(dir+"/device/local_cpulist", dir+"/device/local_cpus"); ok {
		h.CPUs = set.Intersect(n.Online)
	}
}

// hcaNames lists the adapters: mlx5_2 before mlx5_10.
func (r *reader) hcaNames() []string {
	var names []string
	for _, e := range r.list(ibDir) {
		// scif0 is what the driver of old co-processors emulates in software.
		if strings.HasPrefix(e.Name(), "scif") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		// Old kernels have plain files beside the devices.
		if e.Type()&fs.ModeSymlink == 0 && !e.IsDir() {
			continue
		}
		names = append(names, e.Name())
	}
	slices.SortFunc(names, compareNatural)
	if len(names) > maxHCAs {
		r.warn("/sys/"+ibDir, "%d adapters; only the first %d are read", len(names), maxHCAs)
		names = names[:maxHCAs]
	}
	return names
}

// list reads a directory; that it is missing is normal.
func (r *reader) list(dir string) []fs.DirEntry {
	if r.sys == nil {
		return nil
	}
	list, err := fs.ReadDir(r.sys, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.warn("/sys/"+dir, "%v", cause(err))
	}
	return list
}

// numbers lists the entries of a directory that are numbers, in order.
func (r *reader) numbers(dir string) []int {
	var out []int
	for _, e := range r.list(dir) {
		if v, err := strconv.ParseUint(e.Name(), 10, 16); err == nil {
			out = append(out, int(v))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// cause leaves out the path, which a warning has already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// hcaAddress finds the PCI address: device is a link to the PCI function, and
// where a recording lacks it, the adapter's own link passes through it.
func (r *reader) hcaAddress(dir string) string {
	for _, link := range []string{dir + "/device", dir} {
		target, err := fs.ReadLink(r.sys, link)
		if err != nil {
			continue
		}
		parts := strings.Split(target, "/")
		for _, p := range slices.Backward(parts) {
			if a, ok := lowerAddress(p); ok {
				return a
			}
		}
	}
	for line := range strings.Lines(r.text(r.sys, "/sys", dir+"/device/uevent")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PCI_SLOT_NAME="); ok {
			if a, ok := lowerAddress(v); ok {
				return a
			}
			r.warn("/sys/"+dir+"/device/uevent", "expected a PCI address such as 0000:3b:00.0, found %q", clip(v))
		}
	}
	return ""
}

// lowerAddress checks the form domain:bus:device.function and lowers its case.
func lowerAddress(s string) (string, bool) {
	domain, rest, ok1 := strings.Cut(s, ":")
	bus, rest, ok2 := strings.Cut(rest, ":")
	device, function, ok3 := strings.Cut(rest, ".")
	ok := ok1 && ok2 && ok3 && len(domain) >= 4 && len(domain) <= 8 && len(bus) == 2 && len(device) == 2 && len(function) == 1
	for _, part := range []string{domain, bus, device, function} {
		ok = ok && hexDigits(part)
	}
	return strings.ToLower(s), ok
}

func hexDigits(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return false
		}
	}
	return s != ""
}

// guid reads "0c42:a103:00b3:2f7e"; one of zeros is not set.
func (r *reader) guid(file string) string {
	s, ok := r.read(r.sys, "/sys", file)
	if !ok || s == "" {
		return ""
	}
	guid := strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(s, ":", ""), "0x"))
	if len(guid) != 16 || !hexDigits(guid) {
		r.warn("/sys/"+file, "expected 16 hexadecimal digits, found %q", clip(s))
		return ""
	}
	if strings.Trim(guid, "0") == "" {
		return ""
	}
	return guid
}

func (r *reader) hcaPort(hca string, number int) topology.HCAPort {
	dir := fmt.Sprintf("%s/ports/%d", hca, number)
	p := topology.HCAPort{Number: number}
	p.State = r.word(dir + "/state")
	p.PhysState = r.word(dir + "/phys_state")
	switch layer := r.text(r.sys, "/sys", dir+"/link_layer"); layer {
	case "", "Unspecified", "Unknown":
	case "InfiniBand", "Ethernet":
		p.LinkLayer = layer
	default:
		r.warn("/sys/"+dir+"/link_layer", "expected InfiniBand or Ethernet, found %q", clip(layer))
	}
	p.Rate, p.Gbps = r.rate(dir + "/rate")
	p.LID = r.hex32(dir + "/lid")
	p.SMLID = r.hex32(dir + "/sm_lid")
	p.GIDs = r.gids(dir + "/gids")
	p.Netdev = r.portNetdev(hca, dir, number)
	p.Counters = r.counters(dir)
	return p
}

// word reads "4: ACTIVE": the number is the word's.
func (r *reader) word(file string) string {
	s, ok := r.read(r.sys, "/sys", file)
	if !ok || s == "" {
		return ""
	}
	number, word, ok := strings.Cut(s, ":")
	word = strings.TrimSpace(word)
	if _, err := strconv.ParseUint(number, 10, 16); !ok || err != nil || !plainWord(word) {
		if !strings.Contains(s, "<unknown>") {
			r.warn("/sys/"+file, "expected a number and a word, as in 4: ACTIVE, found %q", clip(s))
		}
		return ""
	}
	return word
}

func plainWord(s string) bool {
	for _, c := range s {
		if c > 'z' || !(c >= 'a' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ' ' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

// rate reads "100 Gb/sec (4X EDR)". Ports that are down may have no speed.
func (r *reader) rate(file string) (string, *float64) {
	s, ok := r.read(r.sys, "/sys", file)
	if !ok || s == "" {
		return "", nil
	}
	v, gbps, ok := parseRate(s)
	if !ok {
		r.warn("/sys/"+file, "expected a rate such as 100 Gb/sec (4X EDR), found %q", clip(s))
		return "", nil
	}
	if v <= 0 {
		return "", nil
	}
	return s, &gbps
}

// parseRate returns the number as written, and in Gb/s.
func parseRate(s string) (v, gbps float64, ok bool) {
	f := strings.Fields(s)
	if len(f) < 2 || len(s) > 80 {
		return 0, 0, false
	}
	v, err := strconv.ParseFloat(f[0], 64)
	if err != nil || math.IsNaN(v) || math.Abs(v) > 1e12 {
		return 0, 0, false
	}
	switch strings.ToLower(f[1]) {
	case "gb/sec", "gb/s", "gbps":
		return v, v, true
	case "mb/sec", "mb/s", "mbps":
		return v, v / 1000, true
	}
	return 0, 0, false
}

func (r *reader) hex32(file string) *uint32 {
	s, ok := r.read(r.sys, "/sys", file)
	if !ok || s == "" {
		return nil
	}
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		r.warn("/sys/"+file, "expected a number such as 0x1a, found %q", clip(s))
		return nil
	}
	u := uint32(v)
	return &u
}

// gids reads the port's table, by index. The kernel answers an error or zeros
// for entries that are not set.
func (r *reader) gids(dir string) []string {
	var out []string
	hole := 0
	for k, i := range r.numbers(dir) {
		if k >= maxGIDs || hole >= maxGIDHole {
			break
		}
		hole++
		file := fmt.Sprintf("%s/%d", dir, i)
		b, err := fs.ReadFile(r.sys, file)
		if err != nil {
			continue
		}
		s := strings.ToLower(strings.Trim(string(b), " \t\r\n\x00"))
		if s == "" {
			continue
		}
		digits := strings.ReplaceAll(s, ":", "")
		if len(s) != 39 || len(digits) != 32 || !hexDigits(digits) {
			r.warn("/sys/"+file, "expected 8 groups of 4 hexadecimal digits, found %q", clip(s))
			continue
		}
		// A prefix alone, fe80::, is an entry without an owner.
		if strings.Trim(digits[16:], "0") == "" {
			continue
		}
		hole = 0
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// portNetdev finds the interface of a port: the table of GIDs names it for
// Ethernet; else it is the one beside the adapter with the port's number.
func (r *reader) portNetdev(hca, port string, number int) string {
	ndevs := port + "/gid_attrs/ndevs"
	for k, i := range r.numbers(ndevs) {
		if k >= maxGIDHole {
			break
		}
		b, err := fs.ReadFile(r.sys, fmt.Sprintf("%s/%d", ndevs, i))
		if s := strings.TrimSpace(string(b)); err == nil && netName(s) {
			return s
		}
	}
	// Soft RoCE and iWARP name what they are on.
	if b, err := fs.ReadFile(r.sys, hca+"/parent"); err == nil && number == 1 {
		if s := strings.TrimSpace(string(b)); netName(s) {
			return s
		}
	}
	var all, match []string
	for _, e := range r.list(hca + "/device/net") {
		dir := hca + "/device/net/" + e.Name()
		if _, err := fs.Stat(r.sys, dir+"/parent"); err == nil {
			continue // a child with another partition key, ib0.8001
		}
		all = append(all, e.Name())
		at, ok := r.quietInt(dir + "/dev_port")
		if !ok || at == 0 {
			b, err := fs.ReadFile(r.sys, dir+"/dev_id")
			if v, perr := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 16); err == nil && perr == nil {
				at, ok = int(v), true
			}
		}
		if ok && at == number-1 {
			match = append(match, e.Name())
		}
	}
	slices.SortFunc(match, compareNatural)
	switch {
	case len(match) > 0:
		return match[0]
	case len(all) == 1 && len(r.numbers(hca+"/ports")) == 1:
		return all[0]
	}
	return ""
}

func netName(s string) bool {
	return s != "" && len(s) < 16 && !strings.ContainsAny(s, " \t\n/:\x00")
}

// counters reads counters/ and hw_counters/ of a port. Firmware and virtual
// functions refuse some of them: one warning tells of all in a directory.
func (r *reader) counters(port string) map[string]uint64 {
	out := map[string]uint64{}
	for _, sub := range []string{"counters", "hw_counters"} {
		first, why, failed := "", "", 0
		for _, e := range r.list(port + "/" + sub) {
			name := e.Name()
			_, have := out[name]
			// lifespan is a setting, in ms, not a count.
			if e.IsDir() || have || name == "lifespan" || len(out) >= maxCounters {
				continue
			}
			file := port + "/" + sub + "/" + name
			b, err := fs.ReadFile(r.sys, file)
			s := strings.Trim(string(b), " \t\r\n\x00")
			if errors.Is(err, fs.ErrNotExist) || err == nil && (s == "" || strings.HasPrefix(s, "N/A")) {
				continue // "N/A (no PMA)"
			}
			v, perr := strconv.ParseUint(s, 0, 64)
			switch {
			case err != nil:
				failed++
				if first == "" {
					first, why = file, cause(err).Error()
				}
			case perr != nil:
				failed++
				if first == "" {
					first, why = file, fmt.Sprintf("expected a count, found %q", clip(s))
				}
			default:
				out[name] = v
			}
		}
		if failed > 1 {
			why += fmt.Sprintf(" (and %d more counters of the port)", failed-1)
		}
		if failed > 0 {
			r.warn("/sys/"+first, "%s", why)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
