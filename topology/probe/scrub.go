package probe

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// recordable tells which files and folders (a slash at the end) may be in a
// record. Of /proc only what is known to say nothing of persons; of /sys
// nothing that names the machine, a user's cgroup or a board's serial number.
func recordable(mount, name string) bool {
	if mount == "proc" {
		switch name {
		case "meminfo", "stat", "version", "self/status", "self/limits", "sys/kernel/osrelease":
			return true
		}
		return strings.HasPrefix(name, "driver/nvidia")
	}
	for _, tree := range []string{"fs/", "firmware/", "class/dmi/", "devices/virtual/dmi/"} {
		if strings.HasPrefix(name, tree) {
			return false
		}
	}
	switch base := path.Base(name); base {
	case "address", "broadcast", "hostname", "node_desc", "vpd", "wwid", "uuid", "eui", "nguid",
		"phys_port_id", "phys_switch_id", "permaddr", "device_id", "serial", "unique_id":
		return false
	default:
		return !strings.HasPrefix(base, "serial_") && !strings.Contains(base, "wwn")
	}
}

// scrubber replaces what identifies a machine or a device by made-up values,
// the same for the same value throughout a record.
type scrubber struct {
	made  map[string]string
	rules []scrubRule
}

type scrubRule struct {
	find *regexp.Regexp
	make func(s *scrubber, found string) string
}

func newScrubber() *scrubber {
	return &scrubber{made: map[string]string{}, rules: []scrubRule{
		{regexp.MustCompile(`(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), func(s *scrubber, found string) string {
			return s.replace(found, "00000000-0000-4000-8000-%012x")
		}},
		// GIDs and GUIDs: eight or four groups of four digits. The subnet's
		// prefix stays; an IPv4 address in a GID stays one.
		{regexp.MustCompile(`(?i)\b[0-9a-f]{4}(:[0-9a-f]{4}){3}((:[0-9a-f]{4}){4})?\b`), func(s *scrubber, found string) string {
			if len(found) == len(zeroGUID) {
				return s.guid(found)
			}
			prefix, id := found[:19], found[20:]
			if prefix != "fe80:0000:0000:0000" {
				prefix = s.guid(prefix)
			}
			if strings.HasPrefix(id, "0000:ffff:") {
				return prefix + ":" + s.replace(id, "0000:ffff:c000:02%02x")
			}
			return prefix + ":" + s.guid(id)
		}},
		{regexp.MustCompile(`(?i)\b([0-9a-f]{2}:){5,}[0-9a-f]{2}\b`), func(s *scrubber, found string) string {
			if strings.Trim(found, "0:") == "" {
				return found
			}
			return s.replace(found, "02:00:00:00:%04x")
		}},
		// Names of interfaces stay, but those made of the hardware's address.
		{regexp.MustCompile(`\b(en|wl|ww|ib|sl)x[0-9a-f]{12}\b`), func(s *scrubber, found string) string {
			return s.replace(found, found[:3]+"02%010x")
		}},
		{regexp.MustCompile(`\b[0-9]{1,3}(\.[0-9]{1,3}){3}\b`), func(s *scrubber, found string) string {
			return s.replace(found, "192.0.2.%d")
		}},
	}}
}

const zeroGUID = "0000:0000:0000:0000"

func (s *scrubber) guid(found string) string {
	if found == zeroGUID { // unset
		return found
	}
	return s.replace(found, "0200:0000:0000:%04x")
}

// replace returns what stands for a value, made by the format the first time.
func (s *scrubber) replace(found, format string) string {
	key := strings.ToLower(found)
	if _, ok := s.made[key]; !ok {
		s.made[key] = fmt.Sprintf(format, len(s.made)+1)
		if strings.HasPrefix(format, "02:") { // the last two bytes, apart
			v := s.made[key]
			s.made[key] = v[:14] + ":" + v[14:]
		}
	}
	return s.made[key]
}

func (s *scrubber) text(in string) string {
	for _, r := range s.rules {
		in = r.find.ReplaceAllStringFunc(in, func(found string) string { return r.make(s, found) })
	}
	return in
}

// file returns what is kept of a file's content; ok=false: nothing.
func (s *scrubber) file(mount, name string, b []byte) (kept []byte, ok bool) {
	lines := func(keep func(line string) string) ([]byte, bool) {
		var out bytes.Buffer
		for line := range strings.Lines(string(b)) {
			out.WriteString(keep(line))
		}
		return out.Bytes(), true
	}
	only := func(prefixes ...string) ([]byte, bool) {
		return lines(func(line string) string {
			for _, p := range prefixes {
				if strings.HasPrefix(line, p) {
					return s.text(line)
				}
			}
			return ""
		})
	}
	if mount == "proc" {
		switch name {
		case "stat":
			return lines(func(line string) string {
				cpu, _, _ := strings.Cut(line, " ")
				if !strings.HasPrefix(cpu, "cpu") {
					return ""
				}
				return cpu + " 0\n"
			})
		case "version": // it goes on with who built the kernel, and where
			f := strings.Fields(string(b))
			return []byte(strings.Join(f[:min(3, len(f))], " ") + "\n"), true
		case "self/status":
			return only("Cpus_allowed_list:", "Mems_allowed_list:")
		case "self/limits":
			return only("Limit", "Max locked memory")
		case "meminfo", "sys/kernel/osrelease":
			return b, true
		}
	}
	switch path.Base(name) {
	case "uevent":
		return only("DEVTYPE=", "DRIVER=", "PCI_CLASS=", "PCI_ID=", "PCI_SLOT_NAME=")
	case "fw_ver": // four numbers with points are no address here
		return b, true
	case "config": // the standard header; serial numbers come further on
		return b[:min(len(b), 64)], true
	case "properties": // of kfd
		return lines(func(line string) string {
			if id, ok := strings.CutPrefix(line, "unique_id "); ok {
				return "unique_id " + s.replace("unique_id "+strings.TrimSpace(id), "%d") + "\n"
			}
			return s.text(line)
		})
	}
	if bytes.IndexByte(b, 0) >= 0 && len(bytes.TrimRight(b, "\x00")) > 64 {
		return nil, false // no text: nobody can say what is in it
	}
	return []byte(s.text(string(b))), true
}
