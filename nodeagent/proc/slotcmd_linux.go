package proc

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// command is one start, as an element of its slot's list. The fields down to steps
// are known to the assembly. Nothing that it points to moves, for Go's heap does
// not, and nothing is freed while the command is in the list.
type command struct {
	next  atomic.Pointer[command]
	bound uint64 // must be the thread's, or Go is to deal with the command first
	state atomic.Uint32

	pid int32 // written by the kernel, as is live
	// live is not zero until the process has a memory of its own
	// (CLONE_CHILD_CLEARTID).
	live   uint32
	errno  uint32 // not zero: it did not start
	left   int32  // steps not done, the one that failed included; or atClone, atWait
	status uint32
	count  uint32 // of steps

	stdout, stderr       int32 // descriptors here
	stdoutEnd, stderrEnd int64 // lseek's result

	begin, finish unix.Timespec // CLOCK_MONOTONIC
	usage         unix.Rusage
	clone         cloneArgs
	steps         [maxSteps]step

	what   [maxSteps]stepKind
	noMask uint64    // an empty signal mask
	text   []byte    // C strings
	vector []uintptr // of argv and envp, into text

	tag   uint64
	cmd   SlotCommand
	tries int  // after the first
	slow  bool // st was measured, not status and usage
	st    Status
	err   error
}

// step is a system call of the child. It fails as the kernel says; where want
// is not zero and not the result, the child ends at once: its parent is gone.
type step struct {
	trap       uintptr
	a, b, c, d uintptr
	chain      uintptr // not zero: a is the result of the step before
	want       uintptr
}

// cloneArgs is struct clone_args, version 2, of the kernel's sched.h.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
	cgroup                                        uint64
}

const maxSteps = 12

// Values of left beside numbers of steps.
const (
	atClone int32 = -1
	atWait  int32 = -2
)

type stepKind uint8

const (
	stepSetup stepKind = iota
	stepCgroup
	stepDir
	stepFile // and the two that follow
	_
	_
	stepExec
)

// onlyGo is the bound of a command that the assembly must not start.
const onlyGo = ^uint64(0)

// prepare writes the steps of n.cmd. It says false where the Forker must start
// it, or say why that can't be.
func (n *command) prepare(s *Slots) bool {
	c := &n.cmd
	if !n.texts() {
		return false
	}
	n.live, n.errno, n.pid, n.count = 1, 0, 0, 0
	n.stdout, n.stderr = fdOf(c.Stdout), fdOf(c.Stderr)
	n.clone = cloneArgs{
		flags:      unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID,
		childTID:   uint64(uintptr(unsafe.Pointer(&n.live))),
		parentTID:  uint64(uintptr(unsafe.Pointer(&n.pid))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	n.step(stepSetup, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0)
	n.step(stepSetup, unix.SYS_GETPPID, 0, 0, 0, 0)
	n.steps[n.count-1].want = uintptr(s.self)
	n.step(stepSetup, unix.SYS_SETPGID, 0, 0, 0, 0)
	if c.Cgroup != nil {
		n.enterCgroup(c.Cgroup.Fd(), s.into)
	}
	for i, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
		if f == nil {
			f = s.null
		}
		fd := f.Fd()
		switch {
		case int(fd) == i:
			n.step(stepFile+stepKind(i), unix.SYS_FCNTL, fd, unix.F_SETFD, 0, 0)
		case fd < 3: // two may have to change places
			return false
		default:
			n.step(stepFile+stepKind(i), unix.SYS_DUP3, fd, uintptr(i), 0, 0)
		}
	}
	n.step(stepSetup, unix.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, uintptr(unsafe.Pointer(&n.noMask)), 0, 8)
	args := max(len(c.Argv), 1)
	if c.Dir != "" {
		n.step(stepDir, unix.SYS_CHDIR, n.vector[args+len(c.Env)+3], 0, 0, 0)
	}
	n.step(stepExec, unix.SYS_EXECVE, n.vector[args+len(c.Env)+2],
		uintptr(unsafe.Pointer(&n.vector[0])), uintptr(unsafe.Pointer(&n.vector[args+1])), 0)
	return true
}

// fdOf is a file's descriptor, or -1 without one.
func fdOf(f *os.File) int32 {
	if f == nil {
		return -1
	}
	return int32(f.Fd())
}

func (n *command) step(what stepKind, trap, a, b, c, d uintptr) {
	n.steps[n.count] = step{trap: trap, a: a, b: b, c: c, d: d}
	n.what[n.count] = what
	n.count++
}

// enterCgroup has the process start in a group of version 2 where the kernel can
// (5.7), and else enter it by itself.
func (n *command) enterCgroup(fd uintptr, into bool) {
	var fs unix.Statfs_t
	if into && unix.Fstatfs(int(fd), &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		n.clone.flags |= unix.CLONE_INTO_CGROUP
		n.clone.cgroup = uint64(fd)
		return
	}
	n.step(stepCgroup, unix.SYS_OPENAT, fd, uintptr(unsafe.Pointer(unsafe.StringData(procsFile))), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	n.step(stepCgroup, unix.SYS_WRITE, 0, uintptr(unsafe.Pointer(unsafe.StringData(myself))), 1, 0)
	n.steps[n.count-1].chain = 1
}

const (
	procsFile = "cgroup.procs\x00"
	myself    = "0"
)

// texts lays out argv, its end, envp, its end, the path and the directory.
func (n *command) texts() bool {
	c := &n.cmd
	argv := c.Argv
	if len(argv) == 0 {
		argv = []string{c.Path}
	}
	size := len(c.Path) + len(c.Dir) + 2
	for _, list := range [2][]string{argv, c.Env} {
		for _, s := range list {
			size += len(s) + 1
		}
	}
	if cap(n.text) < size {
		n.text = make([]byte, 0, size)
	}
	text, vector := n.text[:0], n.vector[:0]
	base := uintptr(unsafe.Pointer(unsafe.SliceData(n.text)))
	add := func(s string) bool {
		vector = append(vector, base+uintptr(len(text)))
		text = append(append(text, s...), 0)
		return strings.IndexByte(s, 0) < 0
	}
	ok := true
	for _, s := range argv {
		ok = add(s) && ok
	}
	vector = append(vector, 0)
	for _, s := range c.Env {
		ok = add(s) && ok
	}
	vector = append(vector, 0)
	ok = add(c.Path) && ok
	ok = add(c.Dir) && ok
	n.text, n.vector = text, vector
	return ok
}

// early says whether the running command's process has not come to its exec.
func (n *command) early() bool { return atomic.LoadUint32(&n.live) != 0 }

// free makes a command that is in no list ready for another start.
func (n *command) free(s *Slots) {
	n.next.Store(nil)
	n.cmd, n.st, n.err, n.slow, n.tries = SlotCommand{}, Status{}, nil, false, 0
	if cap(n.text) <= 64<<10 { // one giant is not kept
		s.spare.Put(n)
	}
}

func (n *command) fail(err error) {
	n.err, n.finish = err, monotonic()
	atomic.StoreInt32(&n.pid, 0)
	n.state.Store(ended)
}

// startError puts the child's errno into words.
func (n *command) startError() error {
	c, errno := &n.cmd, syscall.Errno(n.errno)
	cmd := Cmd{Path: c.Path, Dir: c.Dir}
	switch n.left {
	case atClone:
		if n.clone.flags&unix.CLONE_INTO_CGROUP != 0 && errno != unix.EAGAIN && errno != unix.ENOMEM {
			return &StartError{Path: c.Path, Err: fmt.Errorf("its control group: %w", errno)}
		}
		return explain(cmd, errno)
	case atWait:
		return &StartError{Path: c.Path, Err: fmt.Errorf("waiting for it: %w", errno)}
	}
	switch what := n.what[n.count-uint32(n.left)]; what {
	case stepExec:
		return explain(cmd, errno)
	case stepDir:
		return &StartError{Path: c.Dir, Kind: ErrWorkdir, Err: errno, Hint: "create it on this node or choose another working directory"}
	case stepCgroup:
		return &StartError{Path: c.Path, Err: fmt.Errorf("its control group: %w", errno)}
	case stepFile, stepFile + 1, stepFile + 2:
		return &StartError{Path: c.Path, Err: fmt.Errorf("its descriptor %d: %w", what-stepFile, errno)}
	}
	return &StartError{Path: c.Path, Err: errno}
}

// statusOf reads what wait4 has written.
func statusOf(status uint32, ru *unix.Rusage) Status {
	st := Status{
		MaxRSS: uint64(ru.Maxrss) << 10,
		User:   time.Duration(ru.Utime.Nano()),
		System: time.Duration(ru.Stime.Nano()),
	}
	if ws := unix.WaitStatus(status); ws.Signaled() {
		st.Signal, st.Core = int(ws.Signal()), ws.CoreDump()
	} else {
		st.ExitCode = ws.ExitStatus()
	}
	return st
}

func monotonic() (ts unix.Timespec) {
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // can't fail
	return ts
}

// end is what the callback gets.
func (n *command) end(slot int, now time.Time, mono int64) SlotEnd {
	e := SlotEnd{Slot: slot, Tag: n.tag, Pid: int(n.pid), Err: n.err,
		StdoutEnd: max(n.stdoutEnd, -1), StderrEnd: max(n.stderrEnd, -1),
		Start: now.Add(time.Duration(n.begin.Nano() - mono)),
		End:   now.Add(time.Duration(n.finish.Nano() - mono)),
	}
	switch {
	case e.Err != nil:
		e.StdoutEnd, e.StderrEnd = -1, -1
		return e
	case n.slow:
		e.Status = n.st
	default:
		e.Status = statusOf(n.status, &n.usage)
	}
	e.Status.End = e.End
	return e
}
