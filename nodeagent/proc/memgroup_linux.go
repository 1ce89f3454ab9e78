package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MemoryGroup limits and measures the memory of a group of processes: a cgroup
// with the memory controller, version 1 or 2.
type MemoryGroup struct {
	dir  string
	home string // this process's own group
	v2   bool
}

// cgroupBase is a directory in which groups may be made.
type cgroupBase struct {
	dir  string
	home string // this process's
	v2   bool
}

// NewMemoryGroup makes a group that holds at most limit bytes, swap included.
// The name must be free. Where no group can be made the error wraps
// ErrNoMemoryLimit and says why.
func NewMemoryGroup(name string, limit uint64) (*MemoryGroup, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryLimit, err)
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryLimit, err)
	}
	if strings.ContainsAny(name, "/\n") || name == "" || name[0] == '.' {
		return nil, fmt.Errorf("memory group %q: not a name", name)
	}
	bases := cgroupBases(string(mounts), string(self))
	if len(bases) == 0 {
		return nil, fmt.Errorf("%w: no memory controller of cgroups is mounted", ErrNoMemoryLimit)
	}
	var errs []error
	for _, b := range bases {
		g, err := b.make(name, limit)
		if err == nil {
			return g, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoMemoryLimit, errs[0])
}

// cgroupBases finds, in /proc/self/mountinfo and /proc/self/cgroup (proc(5),
// cgroups(7)), this process's memory cgroup and those above it, nearest first.
func cgroupBases(mountinfo, selfCgroup string) []cgroupBase {
	paths := map[string]string{} // "" is version 2
	for line := range strings.Lines(selfCgroup) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			paths[c] = f[2]
		}
	}
	var v1, v2 []cgroupBase
	sc := bufio.NewScanner(strings.NewReader(mountinfo))
	for sc.Scan() {
		pre, post, ok := strings.Cut(sc.Text(), " - ")
		f, g := strings.Fields(pre), strings.Fields(post)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		root, mnt := f[3], f[4]
		switch {
		case g[0] == "cgroup2":
			if p, ok := paths[""]; ok {
				v2 = append(v2, walkUp(root, mnt, p, true)...)
			}
		case g[0] == "cgroup" && strings.Contains(","+g[2]+",", ",memory,"):
			if p, ok := paths["memory"]; ok {
				v1 = append(v1, walkUp(root, mnt, p, false)...)
			}
		}
	}
	return append(v1, v2...)
}

func walkUp(root, mnt, path string, v2 bool) []cgroupBase {
	rel, err := filepath.Rel(root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		rel = "." // another namespace's path: only the mount itself is visible
	}
	var out []cgroupBase
	home := filepath.Join(mnt, rel)
	for ; ; rel = filepath.Dir(rel) {
		out = append(out, cgroupBase{filepath.Join(mnt, rel), home, v2})
		if rel == "." {
			return out
		}
	}
}

func (b cgroupBase) make(name string, limit uint64) (*MemoryGroup, error) {
	g := &MemoryGroup{dir: filepath.Join(b.dir, name), home: b.home, v2: b.v2}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	max, swap, swapLimit := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", strconv.FormatUint(limit, 10)
	if b.v2 {
		max, swap, swapLimit = "memory.max", "memory.swap.max", "0"
	}
	if err := g.write(max, strconv.FormatUint(limit, 10)); err != nil {
		_ = os.Remove(g.dir)
		return nil, err
	}
	_ = g.write(swap, swapLimit) // absent without swap accounting
	if b.v2 {
		_ = g.write("memory.oom.group", "0")
	}
	return g, nil
}

// write never creates: a missing controller file must be an error also when
// the directory is no cgroup.
func (g *MemoryGroup) write(file, val string) error {
	return writeFile(filepath.Join(g.dir, file), val)
}

func writeFile(path, val string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(val)
	return errors.Join(err, f.Close())
}

// enter makes the next fork of the calling thread happen in the group.
func (g *MemoryGroup) enter(attr *syscall.SysProcAttr) (leave func(), after func(pid int) error, err error) {
	none := func(int) error { return nil }
	if g.v2 {
		// CLONE_INTO_CGROUP needs Linux 5.7; before that the process is moved
		// right after its start.
		if !hasCloneIntoCgroup() {
			return func() {}, g.Add, nil
		}
		d, err := os.Open(g.dir)
		if err != nil {
			return nil, nil, fmt.Errorf("memory group: %w", err)
		}
		attr.UseCgroupFD, attr.CgroupFD = true, int(d.Fd())
		return func() { _ = d.Close() }, none, nil
	}
	// In version 1 a single thread can be moved, and its children start there.
	if err := g.write("tasks", "0"); err != nil {
		return nil, nil, fmt.Errorf("memory group: %w", err)
	}
	return func() { _ = writeFile(filepath.Join(g.home, "tasks"), "0") }, none, nil
}

// Add moves a process into the group; its later children follow it.
func (g *MemoryGroup) Add(pid int) error {
	if err := g.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("memory group: adding process %d: %w", pid, err)
	}
	return nil
}

// Peak returns the most memory that the group ever held, in bytes; with
// version 2 before Linux 5.19 an error.
func (g *MemoryGroup) Peak() (uint64, error) {
	file := "memory.max_usage_in_bytes"
	if g.v2 {
		file = "memory.peak"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, fmt.Errorf("memory group: %w", err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("memory group: %s: %w", file, err)
	}
	return n, nil
}

// OOMKilled says whether the kernel killed a process of the group because it
// reached its limit.
func (g *MemoryGroup) OOMKilled() (bool, error) {
	file := "memory.oom_control" // its oom_kill line since Linux 4.13
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return false, fmt.Errorf("memory group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0", nil
		}
	}
	return false, nil
}

// Close removes the group. Its processes must have ended: those that the kernel
// has not quite taken away are waited for up to a second.
func (g *MemoryGroup) Close() error {
	var err error
	for deadline := time.Now().Add(time.Second); ; {
		err = os.Remove(g.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("memory group: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// hasCloneIntoCgroup says whether the kernel is 5.7 or later.
func hasCloneIntoCgroup() bool {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(b), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 7
}
