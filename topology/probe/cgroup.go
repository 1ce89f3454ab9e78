package probe

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// hierarchy is one mounted cgroup hierarchy and the process's place in it.
type hierarchy struct {
	v2          bool
	controllers []string // of version 1
	mount       string   // mount point
	root        string   // the cgroup that is mounted there
	noprefix    bool     // "cpus" instead of "cpuset.cpus"
	fsys        fs.FS
	dirs        []string // from the process's cgroup up to the mount point, within fsys
}

// cgroupLimits reads the effective cpuset and the smallest memory limit of the
// process's cgroup and its parents. nil: no such limit.
func (r *reader) cgroupLimits() (cpus, mems *topology.CPUSet, limit *uint64) {
	own := r.ownCgroups()
	for _, h := range r.hierarchies() {
		place, ok := own[h.key()]
		if !ok && (h.v2 || slices.Contains(h.controllers, "cpuset")) {
			// Kernels and records without /proc/self/cgroup's line still name
			// the cpuset's.
			place, ok = own["cpuset"]
		}
		if !ok {
			continue
		}
		h.locate(r, place)
		if h.v2 || slices.Contains(h.controllers, "cpuset") {
			if s := r.firstSet(h, cpusetNames(h, "cpus")); s != nil {
				cpus = both(cpus, s)
			}
			if s := r.firstSet(h, cpusetNames(h, "mems")); s != nil {
				mems = both(mems, s)
			}
		}
		if h.v2 {
			limit = r.memoryLimit(h, "memory.max", limit)
		} else if slices.Contains(h.controllers, "memory") {
			limit = r.memoryLimit(h, "memory.limit_in_bytes", limit)
		}
	}
	return cpus, mems, limit
}

func both(a, b *topology.CPUSet) *topology.CPUSet {
	if a == nil {
		return b
	}
	c := a.Intersect(*b)
	return &c
}

// cpusetNames returns the files to ask, in order. In version 1 what is
// configured is what holds, but with the mount option cpuset_v2_mode it may
// be empty.
func cpusetNames(h hierarchy, what string) []string {
	switch {
	case h.v2:
		return []string{"cpuset." + what + ".effective"}
	case h.noprefix:
		return []string{what, "effective_" + what}
	}
	return []string{"cpuset." + what, "cpuset.effective_" + what}
}

// ownCgroups returns the process's cgroup by version 1 controller, "v2" for
// the unified hierarchy. "cpuset" is filled from /proc/self/cpuset if need be.
func (r *reader) ownCgroups() map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(r.text(r.proc, "/proc", "self/cgroup")) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			r.warn("/proc/self/cgroup", "expected ID:CONTROLLERS:PATH, found %q", clip(line))
			continue
		}
		if f[1] == "" {
			own["v2"] = f[2]
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			own[c] = f[2]
		}
	}
	if _, ok := own["cpuset"]; !ok && len(own) == 0 {
		if s, ok := r.read(r.proc, "/proc", "self/cpuset"); ok && s != "" {
			own["cpuset"] = s
		}
	}
	return own
}

func (h hierarchy) key() string {
	if h.v2 {
		return "v2"
	}
	for _, c := range h.controllers {
		if c == "cpuset" || c == "memory" {
			return c
		}
	}
	return ""
}

// hierarchies lists the mounted cgroup hierarchies that can hold a cpuset or
// a memory limit, one line a mount, from mountinfo or, in old records, mounts.
func (r *reader) hierarchies() []hierarchy {
	var out []hierarchy
	add := func(fstype, mount, root, options string) {
		h := hierarchy{mount: unescape(mount), root: unescape(root)}
		opts := strings.Split(options, ",")
		switch fstype {
		case "cgroup2":
			h.v2 = true
		case "cgroup":
			for _, o := range opts {
				if o == "cpuset" || o == "memory" {
					h.controllers = append(h.controllers, o)
				}
			}
			h.noprefix = slices.Contains(opts, "noprefix")
		case "cpuset": // the file system before cgroups
			h.controllers, h.noprefix = []string{"cpuset"}, true
		default:
			return
		}
		if h.v2 || len(h.controllers) > 0 {
			out = append(out, h)
		}
	}
	if text, ok := r.read(r.proc, "/proc", "self/mountinfo"); ok {
		for line := range strings.Lines(text) {
			// id parent dev root mount options [tags] - type source options
			left, right, found := strings.Cut(line, " - ")
			l, f := strings.Fields(left), strings.Fields(right)
			if found && len(l) >= 5 && len(f) >= 3 {
				add(f[0], l[4], l[3], f[2])
			}
		}
		return out
	}
	text, ok := r.read(r.proc, "/proc", "self/mounts")
	if !ok {
		text = r.text(r.proc, "/proc", "mounts")
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 4 {
			add(f[2], f[1], "/", f[3])
		}
	}
	return out
}

// unescape undoes the \040 notation of mount tables.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// locate finds the directories of the process's cgroup and its parents. Within
// a cgroup namespace, or with another part of the tree mounted, the path need
// not exist below the mount point: then the nearest parent that does counts,
// at last the mount point itself.
func (h *hierarchy) locate(r *reader, place string) {
	mount := path.Clean(h.mount)
	base := ""
	switch {
	case mount == "/sys" || strings.HasPrefix(mount, "/sys/"):
		h.fsys, base = r.sys, strings.TrimPrefix(strings.TrimPrefix(mount, "/sys"), "/")
	case strings.HasPrefix(mount, "/"):
		h.fsys, base = r.root, strings.TrimPrefix(mount, "/")
	}
	if h.fsys == nil {
		return
	}
	rel := path.Clean("/" + place)
	if root := path.Clean("/" + h.root); root != "/" {
		if rest, ok := strings.CutPrefix(rel+"/", root+"/"); ok {
			rel = path.Clean("/" + rest)
		} else {
			rel = "/"
		}
	}
	if strings.Contains("/"+place+"/", "/../") { // outside the namespace's root
		rel = "/"
	}
	for ; ; rel = path.Dir(rel) {
		dir := path.Join(base, strings.TrimPrefix(rel, "/"))
		if dir == "" {
			dir = "."
		}
		if len(h.dirs) > 0 {
			h.dirs = append(h.dirs, dir)
		} else if st, err := fs.Stat(h.fsys, dir); err == nil && st.IsDir() {
			h.dirs = append(h.dirs, dir)
		}
		if rel == "/" {
			return
		}
	}
}

// firstSet reads the cpuset file of the process's cgroup or the nearest parent
// that has it: in version 2 the controller may be off further down.
func (r *reader) firstSet(h hierarchy, names []string) *topology.CPUSet {
	for _, dir := range h.dirs {
		for _, name := range names {
			s, ok := r.read(h.fsys, mountOf(h), path.Join(dir, name))
			if !ok || s == "" {
				continue
			}
			set, err := topology.ParseCPUSet(s)
			if err != nil {
				r.warn(path.Join(mountOf(h), dir, name), "%v", err)
				continue
			}
			return &set
		}
	}
	return nil
}

// memoryLimit returns the smaller of limit and those of the hierarchy.
func (r *reader) memoryLimit(h hierarchy, name string, limit *uint64) *uint64 {
	for _, dir := range h.dirs {
		s, ok := r.read(h.fsys, mountOf(h), path.Join(dir, name))
		if !ok || s == "max" {
			continue
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			r.warn(path.Join(mountOf(h), dir, name), "expected bytes, found %q", clip(s))
			continue
		}
		// Version 1 says "no limit" with the largest multiple of the page
		// size, which depends on the page size: nothing real is near it.
		if v < 1<<60 && (limit == nil || v < *limit) {
			limit = &v
		}
	}
	return limit
}

func mountOf(h hierarchy) string {
	if strings.HasPrefix(path.Clean(h.mount), "/sys") {
		return "/sys"
	}
	return ""
}
