package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReadLimits returns this process's hard limits, which its children can have.
func ReadLimits() Limits {
	get := func(what int) *uint64 {
		var l unix.Rlimit
		if unix.Getrlimit(what, &l) != nil {
			return nil
		}
		return &l.Max
	}
	l := Limits{Files: get(unix.RLIMIT_NOFILE)}
	if !locksFreely() {
		l.Memlock = get(unix.RLIMIT_MEMLOCK)
	}
	if os.Geteuid() != 0 { // the kernel does not hold root to it
		l.Processes = get(unix.RLIMIT_NPROC)
	}
	return l
}

// locksFreely says whether this process has the capability CAP_IPC_LOCK: then
// the kernel holds it to no limit of locked memory, nor what it starts as root.
func locksFreely() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&head, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// UserTasks counts this user's threads.
func UserTasks() (uint64, error) {
	pids, err := ownProcesses()
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, pid := range pids {
		var st unix.Stat_t
		if unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "task"), &st) == nil && st.Nlink > 2 {
			n += uint64(st.Nlink) - 2
		}
	}
	return n, nil
}

func ownProcesses() ([]int, error) {
	ents, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	uid := uint32(os.Geteuid())
	var out []int
	for _, e := range ents {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid == uid {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Mapped returns those of the files that a process of this user has mapped.
func Mapped(files []string) (map[string]bool, error) {
	out := map[string]bool{}
	pids, err := ownProcesses()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		maps := string(b)
		for _, f := range files {
			if strings.Contains(maps, f) {
				out[f] = true
			}
		}
	}
	return out, nil
}

// FreeSpace returns what the user may still write on the file system of path,
// in bytes and inodes. inodes is 0 and fixed false where their number is not
// fixed.
func FreeSpace(path string) (bytes, inodes uint64, fixed bool, err error) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(path, &st) }); err != nil {
		return 0, 0, false, fmt.Errorf("free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Ffree, st.Files > 0, nil
}
