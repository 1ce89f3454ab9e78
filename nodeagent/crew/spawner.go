package crew

import (
	"os"
	"time"

	"gangway/nodeagent/proc"
	"gangway/topology"
)

// Command is an element's program. Files and Memory stay the caller's.
type Command struct {
	Path                  string
	Argv, Env             []string
	Dir                   string
	Stdin, Stdout, Stderr *os.File
	CPUs                  topology.CPUSet
	Memory                *proc.MemoryGroup // to be accounted to; nil: this process's
}

// Ended is how a command ended.
type Ended struct {
	Slot       int
	Tag        uint64
	Pid        int // 0: it did not start
	Status     proc.Status
	Start, End time.Time
	// Silent says that its output files were empty when it had ended; false: they
	// were not, or nobody has looked.
	Silent bool
	Err    error // it did not start
}

// Spawner runs queues of programs, one program of a slot at a time, each in a
// process group of its own.
type Spawner interface {
	// Start queues a command behind what the slot runs. It never blocks.
	Start(slot int, tag uint64, c Command)
	// Signal signals the process group of the slot's command with that tag if it
	// is the one that runs, and says whether it did.
	Signal(slot int, tag uint64, sig int) bool
	// Drop takes back what the slot has queued and not started.
	Drop(slot int) []uint64
	// Close waits until everything that is queued has ended.
	Close()
}
