// Package proc starts, binds, limits, finds, signals and reaps processes. It is
// where the node's side of gangway touches the operating system: Linux is
// served; elsewhere every call answers an error that wraps errors.ErrUnsupported.
//
// Three facts of Linux shape it. CPU affinity and memory policy belong to a
// thread and are inherited over fork and exec, so a child is bound by binding
// the thread that forks it: it never runs anywhere else. The signal that a
// child gets when its parent dies (Cmd.KillWithParent) is sent when the forking
// thread ends, so a process that starts many such children forks them all from
// one Forker. A fork duplicates every descriptor that is not close-on-exec,
// also those that this process merely inherited: PMI_FD reaches a rank through
// its wrapper that way.
package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gangway/topology"
)

// Cmd says what to start and how.
type Cmd struct {
	Path string   // of the program; not searched in PATH
	Args []string // with Args[0]; nil: just Path
	Env  []string // K=V; nil: empty
	Dir  string   // "": this process's

	// Stdin, Stdout and Stderr are descriptors 0 to 2, nil for /dev/null;
	// Extra follow from 3 on, or from ExtraFrom if that is higher: scripts use
	// low numbers for files of their own. A file that is handed over is put into blocking
	// mode, because programs expect it. The caller closes its own copies.
	Stdin, Stdout, Stderr *os.File
	Extra                 []*os.File
	ExtraFrom             int

	// Slice is how long the process, and what it starts, may run before another
	// that waits for the cpu is looked at: 100 µs to 100 ms. Where the
	// system has no such thing (see CheckSlice), nothing happens. 0: as this process.
	Slice time.Duration

	CPUs     topology.CPUSet // PU indices; empty: this process's
	MemNodes []int           // NUMA node indices; memory comes from these first, see Process.MemPolicy; nil: this process's policy

	NewSession     bool // setsid
	NewGroup       bool // setpgid; implied by NewSession
	KillWithParent bool // SIGKILL when the forking thread ends, see Forker

	User *Credential // that it runs as, which takes root; nil: this process's

	Group  *MemoryGroup // that the process and its children are accounted to; nil: this process's
	CPUSet *CPUGroup    // that confines the process and its children; nil: this process's
}

// Credential is who a process runs as.
type Credential struct {
	UID, GID int
	Groups   []int // supplementary
}

// Status is how a process ended and what it used.
type Status struct {
	ExitCode int    // 0…255; 0 when a signal ended it
	Signal   int    // 0: it exited
	Core     bool   // a core was dumped
	MaxRSS   uint64 // bytes; never below the parent's own peak, for the kernel counts the image before exec too
	User     time.Duration
	System   time.Duration
	End      time.Time
}

// Kinds of StartError.
var (
	ErrNotFound      = errors.New("not found")
	ErrNotExecutable = errors.New("not executable")
	ErrWorkdir       = errors.New("working directory not usable")
	ErrBinding       = errors.New("binding not possible")
)

// ErrLocked reports a lock that another process holds.
var ErrLocked = errors.New("locked by another process")

// ErrNoMemoryLimit reports that this machine offers no way to limit the memory
// of a group of processes, or not to this user.
var ErrNoMemoryLimit = errors.New("memory limit not enforced")

// ErrNoCPUSet reports that this machine offers no way to confine a group of
// processes to cpus, or not to this user: their affinity is all that binds them.
var ErrNoCPUSet = errors.New("cpus not enforced")

// StartError says why a program could not be started. errors.Is finds its Kind
// and its cause.
type StartError struct {
	Path string // of the program, or of the directory for ErrWorkdir
	Kind error  // ErrNotFound, ErrNotExecutable, ErrWorkdir, ErrBinding; nil: the system can't (memory, process limit)
	Err  error  // cause
	Hint string // what to do; may be empty
}

func (e *StartError) Error() string {
	s := e.Path
	switch {
	case e.Kind == nil:
		s = fmt.Sprintf("starting %s: %v", s, e.Err)
	case e.Err == nil:
		s = fmt.Sprintf("%s: %v", s, e.Kind)
	default:
		s = fmt.Sprintf("%s: %v (%v)", s, e.Kind, e.Err)
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap returns Kind and Err.
func (e *StartError) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// StuckError names processes that SIGKILL does not end: they hang in the kernel.
type StuckError struct{ PIDs []int }

func (e *StuckError) Error() string {
	return fmt.Sprintf("processes %v can't be ended, they hang in the kernel", e.PIDs)
}

// SharedMemoryDir is the directory for the shared memory of the job whose
// directory on the node is nodeDir. Who removes the one removes the other.
func SharedMemoryDir(nodeDir string) string {
	return filepath.Join(SharedMemoryRoot, filepath.Base(nodeDir))
}

// SharedMemoryRoot is what SharedMemoryDir's are in.
const SharedMemoryRoot = "/dev/shm"
