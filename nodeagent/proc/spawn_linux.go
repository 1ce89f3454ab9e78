//go:build amd64 || arm64

package proc

import (
	"sync/atomic"
	_ "unsafe" // for go:linkname
)

// walk runs the commands behind at one after the other, until the list ends, a
// command is bound otherwise than the thread is, one could not be started, or
// *waited is not zero after one has ended. It returns the last one that it has
// dealt with. Between its entry and its return the thread is, for the runtime, in
// a system call: it runs no Go code, and nothing waits for it.
//
// Its child is made with clone3 (clone(2)), shares the memory until its exec, and
// does the command's steps. The thread does not wait for the exec: it waits once,
// for the end.
//
//go:noescape
func walk(at *command, bound uint64, waited *atomic.Uint32) (last *command)

// The runtime keeps the signature of these two for packages that make their own
// system calls.

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// enter must not be preempted, moved nor instrumented between the two calls.
//
//go:nosplit
//go:norace
func enter(at *command, bound uint64, waited *atomic.Uint32) *command {
	entersyscall()
	last := walk(at, bound, waited)
	exitsyscall()
	return last
}

const canWalk = true
