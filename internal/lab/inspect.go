//go:build linux

package lab

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Proc is a process of a host.
type Proc struct {
	PID      int      // as the builder sees it: a signal from the test goes here
	InnerPID int      // as the host sees it
	Args     []string // empty for a process that is ending or has ended
	Env      []string
	State    byte // as /proc/PID/stat has it: R, S, D, Z, …
}

// Alive tells a running process from one that is ending, or has ended and was
// not reaped.
func (p Proc) Alive() bool { return p.State != 'Z' && p.State != 'X' && len(p.Args) > 0 }

// Procs lists the processes that live in host i, without the lab's own (the
// keeper and the listening sshd). sshd's processes for open sessions count, and
// so do processes that have ended and were not reaped. A destroyed host has none
// alive.
func (l *Lab) Procs(i int) ([]Proc, error) {
	h := l.hosts[i]
	all, err := procsOf(h.keeper.ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p Proc) bool { return p.PID == h.keeper.pid || p.PID == h.sshd }), nil
}

// procsOf lists the processes of a pid namespace. That namespace, unlike the
// others, is still known of a process that has ended but was not reaped.
func procsOf(pidns string) ([]Proc, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []Proc
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if p, ok := readProc(pid, pidns); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// readProc reads a process if it belongs to the pid namespace. A process that
// ends meanwhile is not there.
func readProc(pid int, pidns string) (Proc, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	if ns, err := os.Readlink(dir + "/ns/pid"); err != nil || ns != pidns {
		return Proc{}, false
	}
	p := Proc{PID: pid}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Proc{}, false
	}
	for _, line := range strings.Split(string(status), "\n") {
		key, val, _ := strings.Cut(line, ":")
		f := strings.Fields(val)
		switch {
		case len(f) == 0:
		case key == "State":
			p.State = f[0][0]
		case key == "NSpid":
			p.InnerPID, _ = strconv.Atoi(f[len(f)-1])
		}
	}
	p.Args = readStrings(dir + "/cmdline")
	p.Env = readStrings(dir + "/environ")
	return p, true
}

func readStrings(path string) []string {
	b, err := os.ReadFile(path)
	if b = bytes.TrimRight(b, "\x00"); err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// Files lists what lies in host i's own /tmp, /run and /dev/shm, as paths in
// the host, directories included, sorted; what the lab put there itself and
// the shared directories are left out. A destroyed host has none.
func (l *Lab) Files(i int) ([]string, error) {
	h := l.hosts[i]
	if !h.keeper.alive() {
		return nil, nil
	}
	own := map[string]bool{"/run/sshd": true, "/run/lock": true, "/run/user": true, "/tmp": true, "/run": true, "/dev/shm": true}
	mounts, err := os.ReadFile("/proc/" + strconv.Itoa(h.keeper.pid) + "/mounts")
	if err != nil {
		return nil, err
	}
	shared := map[string]bool{}
	for _, line := range strings.Split(string(mounts), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || own[f[1]] {
			continue
		}
		at := unescapeMount(f[1])
		shared[at] = true
		for d := filepath.Dir(at); d != "/"; d = filepath.Dir(d) {
			own[d] = true
		}
	}
	var list []string
	for _, top := range []string{"/dev/shm", "/run", "/tmp"} {
		// The trailing slash makes the walk follow /proc/PID/root into the host.
		root := h.keeper.root()
		err := filepath.WalkDir(root+top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			at := strings.TrimPrefix(path, root)
			if shared[at] {
				return fs.SkipDir
			}
			if !own[at] {
				list = append(list, at)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}

// unescapeMount undoes the octal escapes of /proc/PID/mounts.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
