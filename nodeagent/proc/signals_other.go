//go:build !linux

package proc

import "os"

// Forwarded are the signals, beside those that end a command, that a launcher
// passes on to its ranks: none are known here.
func Forwarded() []os.Signal { return nil }

// LeaveTerminal takes this process out of its parent's process group and
// terminal; here it does nothing.
func LeaveTerminal() {}
