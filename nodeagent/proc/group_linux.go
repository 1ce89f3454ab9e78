package proc

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// SignalGroup sends sig to the process group that the process leads. After the
// leader's end it returns os.ErrProcessDone.
func (p *Process) SignalGroup(sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return os.ErrProcessDone
	}
	return os.NewSyscallError("kill", unix.Kill(-p.pid, unix.Signal(sig)))
}

// KillGroup kills what is left of the process group whose leader, a child of
// this process, has just ended, and says whether anything was. A number that
// still is a group's is given to no process, and one that is not comes round
// only after all the others: it must be called within moments.
func KillGroup(leader int) bool { return leader > 1 && unix.Kill(-leader, unix.SIGKILL) == nil }

// Orphans are this subreaper's children that were orphaned: the kernel gives
// them to its first thread. The children that it forked from other threads are
// not among them.
func Orphans() []int {
	b, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children")
	if errors.Is(err, fs.ErrNotExist) {
		return Children() // a kernel without the list
	}
	var out []int
	for _, w := range bytes.Fields(b) {
		if k, err := strconv.Atoi(string(w)); err == nil {
			out = append(out, k)
		}
	}
	return out
}

// Environ returns the environment that the living process was started with, each
// entry ended by a zero byte; nil when it can't be read.
func Environ(pid int) []byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	return b
}
