package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// Process is a child of this process. Its Wait must be called, or it stays a
// zombie for this process's life.
type Process struct {
	pid    int
	forker *Forker // nil: not one's child
	policy error   // of its memory

	mu   sync.Mutex // orders signals and the reaping, after which the pid may be another's
	done bool
	st   Status
	err  error
	once sync.Once
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.pid }

// MemPolicy says why the process's memory does not come from Cmd.MemNodes first;
// nil: it does, or nothing was asked for. It runs all the same: where memory
// comes from makes a program slower, not wrong.
func (p *Process) MemPolicy() error { return p.policy }

// Wait blocks until the process has ended. It may be called several times and
// from several goroutines.
func (p *Process) Wait() (Status, error) {
	p.once.Do(func() { p.st, p.err = p.wait() })
	return p.st, p.err
}

func (p *Process) wait() (Status, error) {
	// The pid must stay ours until no Signal can be under way: wait without
	// reaping, then reap under the lock.
	err := retryEINTR(func() error {
		return unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	if p.forker != nil {
		defer p.forker.forget(p.pid)
	}
	if err != nil {
		return Status{}, fmt.Errorf("waiting for process %d: %w", p.pid, err)
	}
	var ws unix.WaitStatus
	var ru unix.Rusage
	err = retryEINTR(func() error {
		_, err := unix.Wait4(p.pid, &ws, 0, &ru)
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("reaping process %d: %w", p.pid, err)
	}
	st := Status{
		MaxRSS: uint64(ru.Maxrss) << 10,
		User:   time.Duration(ru.Utime.Nano()),
		System: time.Duration(ru.Stime.Nano()),
		End:    time.Now(),
	}
	if ws.Signaled() {
		st.Signal, st.Core = int(ws.Signal()), ws.CoreDump()
	} else {
		st.ExitCode = ws.ExitStatus()
	}
	return st, nil
}

// Signal sends sig to the process alone. After its end it returns
// os.ErrProcessDone.
func (p *Process) Signal(sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return os.ErrProcessDone
	}
	if err := unix.Kill(p.pid, unix.Signal(sig)); err != nil {
		return fmt.Errorf("signal %d to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// Start starts a process from the calling goroutine's thread. Threads of the Go
// runtime live as long as the process unless a goroutine ends while locked to
// one; where that happens KillWithParent needs a Forker.
func Start(c Cmd) (*Process, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, policy, err := fork(c)
	if err != nil {
		return nil, err
	}
	return &Process{pid: pid, policy: policy}, nil
}

// Detach starts a process in a session of its own, which outlives this one. Its
// output goes to c.Stdout and c.Stderr, or is appended to the file log where
// these are nil; with log "" too, to /dev/null. A caller that goes on living
// must Wait for the process; one that ends leaves it to init.
func Detach(c Cmd, log string) (*Process, error) {
	c.NewSession, c.KillWithParent = true, false
	if log != "" && (c.Stdout == nil || c.Stderr == nil) {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("the log of %s: %w", c.Path, err)
		}
		defer f.Close()
		if c.Stdout == nil {
			c.Stdout = f
		}
		if c.Stderr == nil {
			c.Stderr = f
		}
	}
	return Start(c)
}

// fork starts c from this thread, which the caller has locked, and leaves the
// thread as it was. policy is what Process.MemPolicy says.
func fork(c Cmd) (pid int, policy, err error) {
	attr := &syscall.SysProcAttr{Setsid: c.NewSession, Setpgid: c.NewGroup && !c.NewSession}
	confine := c.CPUSet != nil && !c.CPUSet.lent
	added := func(int) error { return nil }
	if !c.CPUs.IsEmpty() || confine {
		old, err := getAffinity(0)
		if err != nil {
			return 0, nil, &StartError{Path: c.Path, Kind: ErrBinding, Err: err}
		}
		if confine || !c.CPUs.Equal(old) {
			defer restoreAffinity(old)
		}
		if confine {
			// A thread that enters a cpuset may get all its cpus, so binding
			// comes after; leaving it does the same, so restoring comes last.
			var leave func()
			if leave, added, err = c.CPUSet.enter(attr); err != nil {
				return 0, nil, &StartError{Path: c.Path, Kind: ErrBinding, Err: err}
			}
			defer leave()
		}
		if !c.CPUs.IsEmpty() && (confine || !c.CPUs.Equal(old)) {
			if err := bindThread(c.CPUs, old); err != nil {
				return 0, nil, &StartError{Path: c.Path, Kind: ErrBinding, Err: err,
					Hint: "the cores granted are outside of this process's cpuset or affinity"}
			}
		}
	}
	if len(c.MemNodes) > 0 {
		var restore func()
		if restore, policy = setMemPolicy(c.MemNodes); policy == nil {
			defer restore()
		}
	}
	if c.Slice > 0 {
		// Without it the program only runs slower.
		if restore, err := setSlice(c.Slice); err == nil {
			defer restore()
		}
	}
	if c.KillWithParent {
		attr.Pdeathsig = syscall.SIGKILL
	}
	if u := c.User; u != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
		for _, g := range u.Groups {
			attr.Credential.Groups = append(attr.Credential.Groups, uint32(g))
		}
	}
	after := func(int) error { return nil }
	if c.Group != nil {
		var leave func()
		if leave, after, err = c.Group.enter(attr); err != nil {
			return 0, nil, &StartError{Path: c.Path, Err: err}
		}
		defer leave()
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, &StartError{Path: c.Path, Err: err}
	}
	defer null.Close()
	files := make([]uintptr, 0, max(3, c.ExtraFrom)+len(c.Extra))
	for i, f := range append([]*os.File{c.Stdin, c.Stdout, c.Stderr}, c.Extra...) {
		for i == 3 && len(files) < c.ExtraFrom {
			files = append(files, ^uintptr(0)) // closed
		}
		if f == nil {
			f = null
		}
		files = append(files, f.Fd())
	}
	args := c.Args
	if len(args) == 0 {
		args = []string{c.Path}
	}
	env := c.Env
	if env == nil {
		env = []string{}
	}
	for try := 0; ; try++ {
		pid, err = syscall.ForkExec(c.Path, args, &syscall.ProcAttr{Dir: c.Dir, Env: env, Files: files, Sys: attr})
		// A program just copied here is "busy" while a fork elsewhere in this
		// process still holds the descriptor it was written through.
		if !errors.Is(err, syscall.ETXTBSY) || try == 20 {
			break
		}
		time.Sleep(time.Duration(try+1) * time.Millisecond)
	}
	runtime.KeepAlive(c)
	if err != nil {
		return 0, nil, explain(c, err)
	}
	if err := errors.Join(added(pid), after(pid)); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_ = retryEINTR(func() error { _, err := unix.Wait4(pid, nil, 0, nil); return err })
		return 0, nil, &StartError{Path: c.Path, Err: err}
	}
	return pid, policy, nil
}

// bindThread binds the calling thread and proves it: the kernel silently drops
// CPUs that the cpuset forbids.
func bindThread(want, old topology.CPUSet) error {
	if err := setAffinity(0, want); err != nil {
		return fmt.Errorf("binding to cpus %s, allowed are %s: %w", want, old, err)
	}
	got, err := getAffinity(0)
	if err != nil {
		return err
	}
	if !got.Equal(want) {
		return fmt.Errorf("cpus %s are not available here, of %s only %s are", want.Minus(got), want, got)
	}
	return nil
}

func restoreAffinity(old topology.CPUSet) {
	if setAffinity(0, old) != nil {
		// The cpuset changed meanwhile and none of the old CPUs is left: any
		// that is allowed is better than the child's.
		_ = setAffinityWords(0, allCPUs())
	}
}

// explain turns the bare number of a failed fork or exec into what a person
// can act on.
func explain(c Cmd, err error) error {
	if c.Dir != "" {
		fi, derr := os.Stat(c.Dir)
		switch {
		case derr != nil:
			return &StartError{Path: c.Dir, Kind: ErrWorkdir, Err: cause(derr), Hint: "create it on this node or choose another working directory"}
		case !fi.IsDir():
			return &StartError{Path: c.Dir, Kind: ErrWorkdir, Err: syscall.ENOTDIR}
		case unix.Access(c.Dir, unix.X_OK) != nil:
			return &StartError{Path: c.Dir, Kind: ErrWorkdir, Err: syscall.EACCES}
		}
	}
	e := &StartError{Path: c.Path, Err: err}
	path := c.Path
	if c.Dir != "" && !strings.HasPrefix(path, "/") {
		path = c.Dir + "/" + path
	}
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		e.Kind = ErrNotFound
		if _, serr := os.Stat(path); serr == nil {
			e.Hint = missingInterpreter(path)
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Kind = ErrNotExecutable
		fi, serr := os.Stat(path)
		switch {
		case serr != nil:
			e.Hint = "a directory on the way to it can't be entered"
		case fi.IsDir():
			e.Hint = "it is a directory"
		case fi.Mode()&0o111 == 0:
			e.Hint = "it has no x bit; chmod +x " + c.Path
		default:
			e.Hint = "its permissions, or a noexec mount, forbid this user to run it"
		}
	case errors.Is(err, syscall.ENOEXEC):
		e.Kind = ErrNotExecutable
		e.Hint = "it is no program of this machine's kind; a script needs a first line such as #!/bin/sh"
	case errors.Is(err, syscall.ETXTBSY):
		e.Kind = ErrNotExecutable
		e.Hint = "someone is still writing to it"
	case errors.Is(err, syscall.E2BIG):
		e.Hint = "arguments and environment are too long together"
	case errors.Is(err, syscall.EAGAIN):
		e.Hint = "the limit of processes is reached; see ulimit -u and the cgroup's pids.max"
	case errors.Is(err, syscall.ENOMEM):
		e.Hint = "the machine is out of memory"
	}
	return e
}

func missingInterpreter(path string) string {
	const other = "the program is there, but the loader it names is not: it was built for another system"
	f, err := os.Open(path)
	if err != nil {
		return other
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := io.ReadFull(f, b)
	line, ok := bytes.CutPrefix(b[:n], []byte("#!"))
	if !ok {
		return other
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	w := strings.Fields(string(line))
	if len(w) == 0 {
		return other
	}
	hint := "its first line asks for the interpreter " + w[0] + ", which is missing here"
	if bytes.HasSuffix(line, []byte("\r")) {
		hint += " (the file has Windows line ends)"
	}
	return hint
}

func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
