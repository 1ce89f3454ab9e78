package proc

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// command is one start, as an element of its slot's list.
type command struct {
	next  atomic.Pointer[command]
	state atomic.Uint32
	pid   int32

	begin, finish unix.Timespec // CLOCK_MONOTONIC

	tag uint64
	cmd SlotCommand
	st  Status
	err error
}

// slow runs a command through the Forker.
func (l *slot) slow(n *command) {
	c := n.cmd
	n.begin = monotonic()
	p, err := l.all.forker.Start(Cmd{Path: c.Path, Args: c.Argv, Env: c.Env, Dir: c.Dir,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, CPUs: c.CPUs, NewGroup: true, KillWithParent: true})
	if err == nil && c.Cgroup != nil {
		g := cgroup{dir: fmt.Sprintf("/proc/self/fd/%d", c.Cgroup.Fd())}
		if err = g.Add(p.pid); err != nil {
			_ = p.Signal(int(unix.SIGKILL))
			_, _ = p.Wait()
			err = &StartError{Path: c.Path, Err: err}
		}
		runtime.KeepAlive(c.Cgroup)
	}
	if err != nil {
		n.fail(err)
		return
	}
	n.pid = int32(p.pid)
	n.state.Store(running)
	err = retryEINTR(func() error {
		return unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
	n.finish = monotonic()
	for !n.state.CompareAndSwap(running, reaping) {
		runtime.Gosched()
	}
	var st Status
	if err == nil {
		st, err = p.Wait()
	}
	if err != nil {
		n.fail(err)
		return
	}
	n.st = st
	n.state.Store(ended)
}

func (n *command) fail(err error) {
	n.err, n.pid, n.finish = err, 0, monotonic()
	n.state.Store(ended)
}

// early says whether the running command's process has not come to its exec.
func (n *command) early() bool { return false }

func monotonic() (ts unix.Timespec) {
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // can't fail
	return ts
}

// end is what the callback gets.
func (n *command) end(slot int, now time.Time, mono int64) SlotEnd {
	e := SlotEnd{Slot: slot, Tag: n.tag, Pid: int(n.pid), Status: n.st, Err: n.err,
		Start: now.Add(time.Duration(n.begin.Nano() - mono)),
		End:   now.Add(time.Duration(n.finish.Nano() - mono)),
	}
	if e.Err == nil {
		e.Status.End = e.End
	}
	return e
}
