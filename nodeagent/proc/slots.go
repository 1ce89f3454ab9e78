package proc

import (
	"os"
	"time"

	"gangway/topology"
)

// SlotCommand is a program to run in a slot. It becomes the leader of a process
// group, is killed when this process ends, and inherits the three descriptors
// and nothing else. When it ends, what is left of its group is killed: the slot is
// the next command's.
type SlotCommand struct {
	Path string   // of the program; not searched in PATH
	Argv []string // with Argv[0]; nil: just Path
	Env  []string // K=V; nil: empty
	Dir  string   // "": this process's

	// Stdin, Stdout and Stderr are descriptors 0 to 2, nil for /dev/null. They
	// stay the caller's, and open until the command's SlotEnd, or until Drop
	// has returned its tag. Several commands of a slot may share a file that was
	// opened to append: SlotEnd says where each one's output ends.
	Stdin, Stdout, Stderr *os.File

	CPUs topology.CPUSet // PU indices; empty: this process's

	// Cgroup is the directory of a control group, of version 1 or 2, that the
	// process starts in; nil: this process's. It stays open as the files do.
	// Before Linux 5.5 the process is moved there right after its start.
	Cgroup *os.File
}

// SlotEnd is how a command ended.
type SlotEnd struct {
	Slot int
	Tag  uint64 // as given to Start
	Pid  int    // 0: it did not start

	// Status is how it ended and what it used; zero where Err is set.
	Status Status

	// StdoutEnd and StderrEnd are the sizes in bytes of the files Stdout and
	// Stderr when the command had ended, before the slot started another; -1 for
	// what has no size (nil, a pipe) and where Err is set.
	StdoutEnd, StderrEnd int64

	// Start and End are by this machine's clock; what lies between them is
	// measured without regard to changes of the clock. A command that did not
	// start has them too.
	Start, End time.Time

	// Err is a *StartError: the program did not start.
	Err error
}
