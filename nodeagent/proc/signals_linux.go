package proc

import (
	"os"
	"syscall"
)

// Forwarded are the signals, beside those that end a command, that a launcher
// passes on to its ranks: programs take them as "write a checkpoint".
func Forwarded() []os.Signal { return []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2} }

// LeaveTerminal takes this process out of its parent's process group and
// terminal, so that a Ctrl-C there does not reach it. A process that leads a
// group already has left.
func LeaveTerminal() { _, _ = syscall.Setsid() }
