package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroup is a control group of version 1 or 2 that was made here.
type cgroup struct {
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

// liveBases is cgroupBases of this process. The name is that of a group to be made.
func liveBases(name, controller string) ([]cgroupBase, error) {
	if strings.ContainsAny(name, "/\n") || name == "" || name[0] == '.' {
		return nil, fmt.Errorf("cgroup %q: not a name", name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return cgroupBases(string(mounts), string(self), controller), nil
}

// cgroupBases finds, in /proc/self/mountinfo and /proc/self/cgroup (proc(5),
// cgroups(7)), this process's cgroup of a controller and those above it, nearest first:
// version 1's, then version 2's, which has one tree for all controllers.
func cgroupBases(mountinfo, selfCgroup, controller string) []cgroupBase {
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
		case g[0] == "cgroup" && strings.Contains(","+g[2]+",", ","+controller+","):
			if p, ok := paths[controller]; ok {
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

// write never creates: a missing controller file must be an error also when
// the directory is no cgroup.
func (g *cgroup) write(file, val string) error {
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
func (g *cgroup) enter(attr *syscall.SysProcAttr) (leave func(), after func(pid int) error, err error) {
	none := func(int) error { return nil }
	if g.v2 {
		// CLONE_INTO_CGROUP needs Linux 5.7; before that the process is moved
		// right after its start.
		if !hasCloneIntoCgroup() {
			return func() {}, g.Add, nil
		}
		d, err := os.Open(g.dir)
		if err != nil {
			return nil, nil, fmt.Errorf("cgroup %s: %w", g.dir, err)
		}
		attr.UseCgroupFD, attr.CgroupFD = true, int(d.Fd())
		return func() { _ = d.Close() }, none, nil
	}
	// In version 1 a single thread can be moved, and its children start there.
	if err := g.write("tasks", "0"); err != nil {
		return nil, nil, fmt.Errorf("cgroup %s: %w", g.dir, err)
	}
	return func() { _ = writeFile(filepath.Join(g.home, "tasks"), "0") }, none, nil
}

// Add moves a process into the group; its later children follow it.
func (g *cgroup) Add(pid int) error {
	if err := g.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("cgroup %s: adding process %d: %w", g.dir, pid, err)
	}
	return nil
}

// remove removes the group. Its processes must have ended: those that the kernel
// has not quite taken away are waited for up to a second.
func (g *cgroup) remove() error {
	var err error
	for deadline := time.Now().Add(time.Second); ; {
		err = os.Remove(g.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// RemoveGroups removes the groups of that name that a process which was killed has
// left where it and this one may make them. Their processes must have ended.
func RemoveGroups(name string) error {
	var errs []error
	for _, controller := range []string{"cpuset", "memory"} {
		bases, err := liveBases(name, controller)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without cgroups
		}
		if err != nil {
			return err
		}
		for _, b := range bases {
			g := cgroup{dir: filepath.Join(b.dir, name)}
			if _, err := os.Lstat(g.dir); err == nil {
				errs = append(errs, g.remove())
			}
		}
	}
	return errors.Join(errs...)
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
