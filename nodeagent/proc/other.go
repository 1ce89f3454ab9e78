//go:build !linux

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"gangway/topology"
)

func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w: gangway runs jobs on Linux nodes only", what, runtime.GOOS, errors.ErrUnsupported)
}

// Process is a child of this process.
type Process struct{}

// Pid is 0.
func (p *Process) Pid() int { return 0 }

// MemPolicy is nil.
func (p *Process) MemPolicy() error { return nil }

// Wait is unsupported.
func (p *Process) Wait() (Status, error) { return Status{}, unsupported("waiting for a process") }

// Signal is unsupported.
func (p *Process) Signal(int) error { return unsupported("signalling a process") }

// Start is unsupported.
func Start(Cmd) (*Process, error) { return nil, unsupported("starting a process") }

// Detach is unsupported.
func Detach(Cmd, string) (*Process, error) { return nil, unsupported("starting a process") }

// Output is unsupported.
func Output(context.Context, func(Cmd) (*Process, error), Cmd, int64) (stdout, stderr []byte, err error) {
	return nil, nil, unsupported("running a program")
}

// Forker does nothing.
type Forker struct{}

// NewForker makes a forker that can't fork.
func NewForker() *Forker { return &Forker{} }

// Start is unsupported.
func (f *Forker) Start(Cmd) (*Process, error) { return nil, unsupported("starting a process") }

// StartReaper does nothing.
func (f *Forker) StartReaper() {}

// Close does nothing.
func (f *Forker) Close() error { return nil }

// SetSubreaper is unsupported.
func SetSubreaper() error { return unsupported("adopting orphans") }

// Descendants is unsupported.
func Descendants(int) ([]int, error) { return nil, unsupported("listing processes") }

// KillTree is unsupported.
func KillTree(int, time.Duration, ...int) ([]int, error) {
	return nil, unsupported("killing processes")
}

// SignalTree is unsupported.
func SignalTree(int, int, ...int) error { return unsupported("signalling processes") }

// ByEnv finds nothing.
func ByEnv(string) []int { return nil }

// KillByEnv is unsupported.
func KillByEnv(string, time.Duration, ...int) ([]int, error) {
	return nil, unsupported("killing processes")
}

// Kill does nothing.
func Kill([]int) {}

// Title is unsupported.
type Title struct{}

// OpenTitle is unsupported.
func OpenTitle() (*Title, error) { return nil, unsupported("renaming a process") }

// Close does nothing.
func (*Title) Close() error { return nil }

// Replace is unsupported.
func (*Title) Replace(string, string) error { return unsupported("renaming a process") }

// Alive is false.
func Alive(int, string) bool { return false }

// SendFiles is unsupported.
func SendFiles(*net.UnixConn, []byte, ...*os.File) error { return unsupported("passing descriptors") }

// RecvFiles is unsupported.
func RecvFiles(*net.UnixConn, []byte, int) (int, []*os.File, error) {
	return 0, nil, unsupported("passing descriptors")
}

// SocketPair is unsupported.
func SocketPair() (*net.UnixConn, *os.File, error) { return nil, nil, unsupported("a socket pair") }

// Children returns nil.
func Children() []int { return nil }

// PeerCred is unsupported.
func PeerCred(*net.UnixConn) (uid, gid, pid int, err error) {
	return 0, 0, 0, unsupported("peer credentials")
}

// Pipe is os.Pipe.
func Pipe(int) (r, w *os.File, err error) { return os.Pipe() }

// Lock is unsupported.
func Lock(string) (io.Closer, error) { return nil, unsupported("file locks") }

// PrivateDir is unsupported.
func PrivateDir(string) error { return unsupported("private directories") }

// OwnDir is unsupported.
func OwnDir(string, os.FileMode) error { return unsupported("private directories") }

// FileOwner does not know.
func FileOwner(os.FileInfo) (uid int, changed time.Time, ok bool) { return 0, time.Time{}, false }

// Affinity is unsupported.
func Affinity(int) (topology.CPUSet, error) {
	return topology.CPUSet{}, unsupported("CPU affinity")
}

// SetSelfAffinity is unsupported.
func SetSelfAffinity(topology.CPUSet) error { return unsupported("CPU affinity") }

// RaiseMemlock is unsupported.
func RaiseMemlock() (uint64, error) { return 0, unsupported("the locked memory limit") }

// BootID is unsupported.
func BootID() (string, error) { return "", unsupported("the boot id") }

// CPUGroup does nothing.
type CPUGroup struct{}

// NewCPUGroup is unsupported.
func NewCPUGroup(string, topology.CPUSet, *MemoryGroup) (*CPUGroup, error) {
	return nil, errors.Join(ErrNoCPUSet, unsupported("cpu groups"))
}

// Close does nothing.
func (g *CPUGroup) Close() error { return nil }

// RemoveGroups has nothing to remove.
func RemoveGroups(string) error { return nil }

// MemoryGroup does nothing.
type MemoryGroup struct{}

// NewMemoryGroup is unsupported.
func NewMemoryGroup(string, uint64) (*MemoryGroup, error) {
	return nil, errors.Join(ErrNoMemoryLimit, unsupported("memory groups"))
}

// Add is unsupported.
func (g *MemoryGroup) Add(int) error { return unsupported("memory groups") }

// Peak is unsupported.
func (g *MemoryGroup) Peak() (uint64, error) { return 0, unsupported("memory groups") }

// OOMKilled is unsupported.
func (g *MemoryGroup) OOMKilled() (bool, error) { return false, unsupported("memory groups") }

// Close does nothing.
func (g *MemoryGroup) Close() error { return nil }

// StartTime is 0.
func StartTime(int) uint64 { return 0 }

// CheckSlice is unsupported.
func CheckSlice(time.Duration) error { return unsupported("scheduling slices") }

// StepBack does nothing.
func StepBack() {}

// MapProgram is unsupported.
func MapProgram() error { return unsupported("mapping the program") }

// SignalGroup answers an error.
func (p *Process) SignalGroup(int) error { return unsupported("signalling processes") }

// KillGroup finds none.
func KillGroup(int) bool { return false }

// Orphans finds none.
func Orphans() []int { return nil }

// Environ finds none.
func Environ(int) []byte { return nil }

// OOMKills answers an error.
func (g *MemoryGroup) OOMKills() (uint64, error) { return 0, unsupported("memory groups") }

// ResetPeak answers an error.
func (g *MemoryGroup) ResetPeak() error { return unsupported("memory groups") }

// Open answers an error.
func (g *MemoryGroup) Open() (*os.File, error) { return nil, unsupported("memory groups") }
