package proc

import (
	"os"
	"syscall"
)

// Forwarded are the signals, beside those that end a command, that a launcher
// passes on to its ranks: programs take them as "write a checkpoint".
func Forwarded() []os.Signal { return []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2} }
