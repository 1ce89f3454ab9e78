package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what /proc/PID/stat says of a process.
type stat struct {
	pid, ppid, pgrp int
	state           byte
	start           uint64 // clock ticks since boot
}

func (s stat) alive() bool { return s.state != 'Z' && s.state != 'X' && s.state != 'x' }

// settled says that the process makes no more children before it gets the next
// signal: stopped, dead, or asleep in the kernel beyond signals.
func (s stat) settled() bool {
	return !s.alive() || s.state == 'T' || s.state == 't' || s.state == 'D'
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads "pid (comm) state ppid pgrp … starttime(22)…", proc(5). The
// name may hold blanks and parentheses, so the last parenthesis ends it.
func parseStat(b []byte) (stat, error) {
	bad := func() (stat, error) { return stat{}, fmt.Errorf("malformed process status %q", b[:min(len(b), 64)]) }
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return bad()
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return bad()
	}
	var s stat
	var e [4]error
	s.pid, e[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	s.state = f[0][0]
	s.ppid, e[1] = strconv.Atoi(string(f[1]))
	s.pgrp, e[2] = strconv.Atoi(string(f[2]))
	s.start, e[3] = strconv.ParseUint(string(f[19]), 10, 64)
	if errors.Join(e[:]...) != nil {
		return bad()
	}
	return s, nil
}

// pids lists /proc's processes.
func pids() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	out := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out, nil
}

// snapshot reads every process once. A process whose parent vanished between
// the two reads is read again, for it has a new parent by now.
func snapshot() (map[int]stat, error) {
	list, err := pids()
	if err != nil {
		return nil, err
	}
	all := make(map[int]stat, len(list))
	for _, pid := range list {
		if s, err := readStat(pid); err == nil {
			all[pid] = s
		}
	}
	for range 3 {
		again := false
		for pid, s := range all {
			if _, ok := all[s.ppid]; ok || s.ppid == 0 {
				continue
			}
			again = true
			delete(all, pid)
			for _, p := range []int{pid, s.ppid} {
				if n, err := readStat(p); err == nil {
					all[p] = n
				}
			}
		}
		if !again {
			break
		}
	}
	return all, nil
}

// below returns root's descendants in all, sorted.
func below(all map[int]stat, root int) []int {
	kids := map[int][]int{}
	for pid, s := range all {
		kids[s.ppid] = append(kids[s.ppid], pid)
	}
	seen := map[int]bool{root: true}
	var out []int
	for todo := []int{root}; len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		for _, k := range kids[p] {
			if !seen[k] {
				seen[k] = true
				out, todo = append(out, k), append(todo, k)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Descendants returns the living processes below pid, sorted, without pid.
// Processes come and go while it looks: it never fails for that.
func Descendants(pid int) ([]int, error) {
	all, err := snapshot()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(below(all, pid), func(p int) bool { return !all[p].alive() }), nil
}

// childrenOf appends the children of pid. The kernel's list per thread is some
// hundred times faster than reading all of /proc, but may miss one while others
// end: callers look again.
func childrenOf(pid int, out []int) []int {
	task := "/proc/" + strconv.Itoa(pid) + "/task"
	d, err := os.Open(task)
	if err != nil {
		return out
	}
	tids, _ := d.Readdirnames(-1)
	_ = d.Close()
	for _, tid := range tids {
		b, err := os.ReadFile(task + "/" + tid + "/children")
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(task + "/" + tid); err == nil { // a kernel without the list
				return childrenByScan(pid, out)
			}
		}
		for _, w := range bytes.Fields(b) {
			if k, err := strconv.Atoi(string(w)); err == nil {
				out = append(out, k)
			}
		}
	}
	return out
}

// Children returns this process's children, also those that have ended and that
// nobody has waited for.
func Children() []int { return childrenOf(os.Getpid(), nil) }

func childrenByScan(pid int, out []int) []int {
	all, _ := snapshot()
	for k, s := range all {
		if s.ppid == pid {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// KillTree ends everything below root, and root itself unless that is this
// process, except the processes exclude and what is below them. It first stops
// what it finds, so that nothing is started anew, and then kills. What still
// lives after timeout is returned: processes that hang in the kernel.
//
// With root being this process and SetSubreaper on, nothing can escape by
// leaving its parent, its group or its session.
func KillTree(root int, timeout time.Duration, exclude ...int) ([]int, error) {
	if root == os.Getpid() && childless() {
		return nil, nil
	}
	k := &killer{self: os.Getpid(), exclude: excluded(exclude), seen: map[int]uint64{}}
	return k.run(time.Now().Add(timeout), func(visit func(int)) error {
		if root != k.self {
			visit(root)
		}
		k.walk(root, visit)
		return nil
	}, root)
}

// childless says whether this process has no child, not even one that has ended
// and was not waited for. Then nothing is below it: the children of a child
// that ended are its own, or were never in reach (SetSubreaper). The kernel
// answers in a microsecond what /proc answers in milliseconds, most of which it
// spends on forgetting the files that were read.
func childless() bool {
	err := retryEINTR(func() error {
		return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	})
	return err == unix.ECHILD
}

// zombies says whether a child of this process has ended and was not waited
// for. It keeps a process from looking at its own threads in /proc, for which
// it pays at its end: their entries there are taken away by the dying threads
// and by the parent at once, and the kernel's loops wait for each other for
// milliseconds.
func zombies() bool {
	var info unix.Siginfo
	err := retryEINTR(func() error {
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	})
	return err == nil && info.Signo != 0
}

// KillByEnv ends every process of this user that carries marker, see ByEnv, and
// what is below it, in the way of KillTree. This process is spared.
func KillByEnv(marker string, timeout time.Duration, exclude ...int) ([]int, error) {
	k := &killer{self: os.Getpid(), exclude: excluded(exclude), seen: map[int]uint64{}}
	return k.run(time.Now().Add(timeout), func(visit func(int)) error {
		for _, pid := range ByEnv(marker) {
			if pid != k.self && !k.exclude[pid] {
				visit(pid)
				k.walk(pid, visit)
			}
		}
		return nil
	}, 0)
}

func excluded(pids []int) map[int]bool {
	m := make(map[int]bool, len(pids))
	for _, p := range pids {
		m[p] = true
	}
	return m
}

type killer struct {
	self    int
	exclude map[int]bool
	seen    map[int]uint64 // start times of all that were ever found: orphans of the dead stay known
}

// walk visits what is below pid, parents first, at once when it is seen: a
// process that forks and exits is caught only by being quick.
func (k *killer) walk(pid int, visit func(int)) {
	done := map[int]bool{pid: true}
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		for _, c := range childrenOf(todo[0], nil) {
			if c == k.self || k.exclude[c] || done[c] {
				continue
			}
			done[c] = true
			visit(c)
			todo = append(todo, c)
		}
	}
}

// run stops and then kills what list finds until nothing is left.
func (k *killer) run(deadline time.Time, list func(visit func(int)) error, root int) ([]int, error) {
	// The stopping is worth a part of the time only.
	stopBy := time.Now().Add(time.Until(deadline) / 4)
	for quiet := 0; quiet < 2 && time.Now().Before(stopBy); {
		calm := true
		// A child of ours that is stopped between fork and exec keeps the thread
		// that forked it in the kernel, as vfork does; the next collection of
		// garbage would wait for that thread, and this function for the
		// collection. With the lock held no fork is under way.
		syscall.ForkLock.RLock()
		err := list(func(pid int) {
			s, err := readStat(pid)
			if err != nil || s.settled() && k.seen[pid] == s.start {
				return
			}
			calm = calm && s.settled()
			k.signal(s, unix.SIGSTOP)
		})
		syscall.ForkLock.RUnlock()
		if err != nil {
			return nil, err
		}
		if quiet++; !calm {
			quiet = 0
		}
	}
	pause := 200 * time.Microsecond
	for quiet := 0; ; {
		var left []int
		visit := func(pid int) {
			if s, err := readStat(pid); err == nil && s.alive() {
				left = append(left, pid)
				k.signal(s, unix.SIGKILL)
			}
		}
		if err := list(visit); err != nil {
			return nil, err
		}
		for pid, start := range k.seen {
			if s, err := readStat(pid); err != nil || s.start != start || !s.alive() {
				delete(k.seen, pid)
			} else {
				visit(pid)
				k.walk(pid, visit)
			}
		}
		if len(left) == 0 && quiet == 0 {
			// Proof by the slow but complete way, then one more look.
			if err := k.scan(root, visit); err != nil {
				return nil, err
			}
		}
		if len(left) == 0 {
			if quiet++; quiet == 2 {
				return nil, nil
			}
			continue
		}
		quiet = 0
		if time.Now().After(deadline) {
			slices.Sort(left)
			return slices.Compact(left), nil
		}
		time.Sleep(pause)
		pause = min(2*pause, 10*time.Millisecond)
	}
}

// scan visits what a snapshot shows below root (0: nothing).
func (k *killer) scan(root int, visit func(int)) error {
	if root == 0 {
		return nil
	}
	all, err := snapshot()
	if err != nil {
		return err
	}
	drop := map[int]bool{k.self: root != k.self}
	for e := range k.exclude {
		drop[e] = true
		for _, p := range below(all, e) {
			drop[p] = true
		}
	}
	for _, p := range below(all, root) {
		if !drop[p] {
			visit(p)
		}
	}
	return nil
}

// signal sends sig to s and, when the leader of its process group was found to
// be ours, to the whole group: one call reaches a group that forks faster than
// it can be listed.
func (k *killer) signal(s stat, sig unix.Signal) {
	k.seen[s.pid] = s.start
	if _, ours := k.seen[s.pgrp]; ours && len(k.exclude) == 0 {
		_ = unix.Kill(-s.pgrp, sig)
	}
	_ = unix.Kill(s.pid, sig)
}

// SignalTree sends sig once to everything below root, without root, except the
// processes exclude and what is below them.
func SignalTree(root, sig int, exclude ...int) error {
	if root == os.Getpid() && childless() {
		return nil
	}
	k := &killer{self: os.Getpid(), exclude: excluded(exclude)}
	// All are found before the first may die: its children would be another's.
	var all []int
	k.walk(root, func(pid int) { all = append(all, pid) })
	syscall.ForkLock.RLock() // see run: sig may be SIGSTOP
	defer syscall.ForkLock.RUnlock()
	var errs []error
	for _, pid := range all {
		if err := unix.Kill(pid, unix.Signal(sig)); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("signal %d to process %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

// Kill sends SIGKILL to each of pids.
func Kill(pids []int) {
	for _, p := range pids {
		if p > 0 {
			_ = unix.Kill(p, unix.SIGKILL)
		}
	}
}

// ByEnv returns the living processes of this user, root's: of all, that were started with the
// environment entry marker (K=V), sorted. A process that overwrote its
// environment or runs a program with the setuid bit is not found.
func ByEnv(marker string) []int {
	list, err := pids()
	if err != nil {
		return nil
	}
	uid := uint32(os.Geteuid())
	var out []int
	for _, pid := range list {
		var st unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(pid), &st) != nil || st.Uid != uid && uid != 0 {
			continue
		}
		if Alive(pid, marker) {
			out = append(out, pid)
		}
	}
	return out
}

// StartTime is when the process began, in clock ticks since the boot; 0: it does
// not run. With it a process is told from a later one of the same number.
func StartTime(pid int) uint64 {
	s, err := readStat(pid)
	if err != nil || !s.alive() {
		return 0
	}
	return s.start
}

// Alive says whether pid runs and carries the environment entry marker, so that
// it is the process meant and not a later one of the same number.
func Alive(pid int, marker string) bool {
	// The environment goes before the process does: a zombie's is empty.
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || len(b) == 0 {
		return false
	}
	for e := range bytes.SplitSeq(b, []byte{0}) {
		if string(e) == marker {
			return true
		}
	}
	return false
}
