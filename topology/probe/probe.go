// Package probe fills topology.Node from sysfs and procfs. Everything is read
// through fs.FS, so a recorded machine takes the same path as the live one.
//
// A file that can't be read or understood costs its fact, never the node: it
// becomes a warning that names it. What the kernel does not offer (old kernels,
// virtual machines) is unknown without a warning.
package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"gangway/topology"
)

// Source is a machine to be probed.
type Source struct {
	Sys  fs.FS // contents of /sys
	Proc fs.FS // contents of /proc; self is the process whose limits count
	Root fs.FS // contents of /, for cgroup hierarchies mounted outside /sys; nil: none
	// Interfaces come from the operating system, with their addresses, which
	// sysfs lacks; sysfs adds speed, kind and driver. nil: sysfs alone.
	Interfaces []topology.Interface
	Arch       string  // as GOARCH
	ShmBytes   *uint64 // free in /dev/shm
}

// Node probes a Linux machine. It fails only when not even the machine's cpus
// can be found.
func Node(src Source) (topology.Node, error) {
	r := &reader{sys: src.Sys, proc: src.Proc, root: src.Root}
	n := topology.Node{OS: "linux", Arch: src.Arch, ShmBytes: src.ShmBytes}
	n.Hostname = r.text(r.proc, "/proc", "sys/kernel/hostname")
	n.BootID = r.text(r.proc, "/proc", "sys/kernel/random/boot_id")
	n.Kernel = r.text(r.proc, "/proc", "sys/kernel/osrelease")
	if n.Kernel == "" {
		if f := strings.Fields(r.text(r.proc, "/proc", "version")); len(f) > 2 {
			n.Kernel = f[2]
		}
	}
	n.Online = r.online()
	if n.Online.IsEmpty() {
		r.warn("/sys/devices/system/cpu", "no cpus found")
		return topology.Node{Warnings: r.warnings}, fmt.Errorf("probe: %w in /sys/devices/system/cpu or /proc/stat; are /sys and /proc mounted? (%s)",
			errNoCPUs, strings.Join(r.warnings, "; "))
	}
	r.memory(&n)
	r.numa(&n)
	r.cores(&n)
	r.dies(&n)
	r.kinds(&n)
	r.caches(&n)
	r.limits(&n)
	r.interfaces(&n, src.Interfaces)
	r.pci(&n)
	r.hcas(&n)
	n.Warnings = r.warnings
	return n, nil
}

var errNoCPUs = errors.New("no cpus")

// adaptersOnly is what a record tells of a machine of which it has no more than the
// adapters; ok=false: it has none either.
func adaptersOnly(src Source) (n topology.Node, ok bool) {
	if src.Sys == nil {
		return n, false
	}
	r := &reader{sys: src.Sys, proc: src.Proc, root: src.Root}
	n = topology.Node{OS: "linux", Arch: src.Arch, Hostname: r.text(r.proc, "/proc", "sys/kernel/hostname")}
	r.warn("/sys/devices/system/cpu", "not in the record: only the machine's InfiniBand adapters are known")
	r.hcas(&n)
	n.Warnings = r.warnings
	return n, len(n.HCAs) > 0
}

// reader reads the files of one machine and collects the warnings.
type reader struct {
	sys, proc, root fs.FS
	warnings        []string
	dropped         int
}

// maxWarnings keeps a machine with one defect a cpu readable.
const maxWarnings = 50

func (r *reader) warn(file, format string, args ...any) {
	if len(r.warnings) < maxWarnings {
		r.warnings = append(r.warnings, file+": "+fmt.Sprintf(format, args...))
		return
	}
	r.dropped++
	r.warnings = append(r.warnings[:maxWarnings], fmt.Sprintf("and %d more warnings", r.dropped))
}

// read returns a file's content without the blanks around it. A missing file is
// ok=false without a warning; any other failure is warned about.
func (r *reader) read(fsys fs.FS, mount, path string) (text string, ok bool) {
	if fsys == nil {
		return "", false
	}
	b, err := fs.ReadFile(fsys, path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			var pe *fs.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			r.warn(mount+"/"+path, "%v", err)
		}
		return "", false
	}
	return strings.Trim(string(b), " \t\r\n\x00"), true
}

func (r *reader) text(fsys fs.FS, mount, path string) string {
	s, _ := r.read(fsys, mount, path)
	return s
}

// sysInt reads a whole number; ok=false when missing or broken.
func (r *reader) sysInt(path string) (int, bool) {
	s, ok := r.read(r.sys, "/sys", path)
	if !ok {
		return 0, false
	}
	v, err := strconv.Atoi(s)
	if err != nil {
		r.warn("/sys/"+path, "expected a number, found %q", clip(s))
		return 0, false
	}
	return v, true
}

// sysCPUs reads a set from the mask file, which every kernel has and hwloc goes
// by, or from the list file where that is missing or broken; an empty set is a
// valid answer. mask "" is a list alone.
func (r *reader) sysCPUs(list, mask string) (topology.CPUSet, bool) {
	if mask != "" {
		if s, ok := r.read(r.sys, "/sys", mask); ok {
			set, err := topology.ParseCPUMask(s)
			if err == nil {
				return set, true
			}
			r.warn("/sys/"+mask, "%v", err)
		}
	}
	s, ok := r.read(r.sys, "/sys", list)
	if !ok {
		return topology.CPUSet{}, false
	}
	set, err := topology.ParseCPUSet(s)
	if err != nil {
		r.warn("/sys/"+list, "%v", err)
		return topology.CPUSet{}, false
	}
	return set, true
}

// entries lists the names in a directory of /sys that are prefix and a number,
// by number.
func (r *reader) entries(dir, prefix string) topology.CPUSet {
	if r.sys == nil {
		return topology.CPUSet{}
	}
	list, err := fs.ReadDir(r.sys, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.warn("/sys/"+dir, "%v", err)
	}
	var found []int
	for _, e := range list {
		if num, ok := strings.CutPrefix(e.Name(), prefix); ok {
			if v, err := strconv.ParseUint(num, 10, 16); err == nil {
				found = append(found, int(v))
			}
		}
	}
	return topology.NewCPUSet(found...)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
