package proc

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// maxCPUs is the most that a Linux kernel can be built for; glibc's cpu_set_t
// of 1024 is too small for big machines.
const maxCPUs = 8192

func getAffinity(tid int) (topology.CPUSet, error) {
	var words [maxCPUs / 64]uint64
	n, _, e := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), unsafe.Sizeof(words), uintptr(unsafe.Pointer(&words)))
	if e != 0 {
		return topology.CPUSet{}, fmt.Errorf("reading the affinity of %d: %w", tid, e)
	}
	var cpus []int
	for i, w := range words[:n/8] {
		for ; w != 0; w &= w - 1 {
			cpus = append(cpus, i*64+bits.TrailingZeros64(w))
		}
	}
	return topology.NewCPUSet(cpus...), nil
}

func setAffinity(tid int, set topology.CPUSet) error {
	var words [maxCPUs / 64]uint64
	for _, c := range set.Slice() {
		if c >= maxCPUs {
			return fmt.Errorf("cpu %d: %w", c, unix.EINVAL)
		}
		words[c/64] |= 1 << (c % 64)
	}
	return setAffinityWords(tid, &words)
}

func setAffinityWords(tid int, words *[maxCPUs / 64]uint64) error {
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(*words), uintptr(unsafe.Pointer(words)))
	if e != 0 {
		return e
	}
	return nil
}

func allCPUs() *[maxCPUs / 64]uint64 {
	var words [maxCPUs / 64]uint64
	for i := range words {
		words[i] = ^uint64(0)
	}
	return &words
}

// Affinity returns the PUs that the process's main thread may run on.
func Affinity(pid int) (topology.CPUSet, error) { return getAffinity(pid) }

// SetSelfAffinity binds every thread of this process, also those to come.
func SetSelfAffinity(set topology.CPUSet) error {
	if set.IsEmpty() {
		return fmt.Errorf("binding this process: the set of cpus is empty")
	}
	done := map[int]bool{}
	for { // a thread made meanwhile may have a parent not yet bound
		ents, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("binding this process: %w", err)
		}
		more := false
		for _, e := range ents {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := setAffinity(tid, set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("binding this process to cpus %s: %w", set, err)
			}
			done[tid], more = true, true
		}
		if !more {
			return nil
		}
	}
}

// nodeMask is a bit set of NUMA nodes, as long as the kernel's largest.
type nodeMask [1024 / 64]uint64

// The kernel reads one bit less than maxnode says.
const maxNode = 1024 + 1

// Memory policies of the kernel's mempolicy.h.
const (
	mpolPreferred     = 1
	mpolPreferredMany = 5 // Linux 5.15
)

// setMemPolicy lets this thread's memory come from nodes first and returns what
// undoes it. It is no strict binding: a rank that outgrows its node would be
// killed with memory free next to it.
func setMemPolicy(nodes []int) (restore func(), err error) {
	var old, want nodeMask
	var mode int32
	_, _, e := unix.RawSyscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&old)), maxNode-1, 0, 0, 0)
	if e == unix.ENOSYS {
		return func() {}, nil // a kernel without NUMA has one place for memory
	}
	if e != 0 {
		return nil, fmt.Errorf("reading the memory policy: %w", e)
	}
	for _, n := range nodes {
		if n < 0 || n >= 1024 {
			return nil, fmt.Errorf("memory node %d: %w", n, unix.EINVAL)
		}
		want[n/64] |= 1 << (n % 64)
	}
	how := uintptr(mpolPreferred)
	if len(nodes) > 1 {
		how = mpolPreferredMany
	}
	_, _, e = unix.RawSyscall(unix.SYS_SET_MEMPOLICY, how, uintptr(unsafe.Pointer(&want)), maxNode)
	if e == unix.EINVAL && how == mpolPreferredMany {
		return func() {}, nil // the kernel is older; its default is the node of the CPU, which is one of them
	}
	if e != 0 {
		return nil, fmt.Errorf("taking memory from NUMA nodes %v first: %w", nodes, e)
	}
	return func() {
		mask := uintptr(unsafe.Pointer(&old))
		if mode == 0 { // MPOL_DEFAULT takes no nodes
			_, _, _ = unix.RawSyscall(unix.SYS_SET_MEMPOLICY, 0, 0, 0)
			return
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(mode), mask, maxNode)
	}, nil
}

// RaiseMemlock raises this process's limit of locked memory, which children
// inherit, as far as it may, and returns the limit in bytes (MaxUint64: none).
// InfiniBand needs it high in the process that forks the ranks.
func RaiseMemlock() (uint64, error) {
	inf := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &inf) == nil {
		return unix.RLIM_INFINITY, nil
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return 0, fmt.Errorf("the limit of locked memory: %w", err)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return 0, fmt.Errorf("the limit of locked memory: %w", err)
	}
	return l.Cur, nil
}

// BootID returns the kernel's name for this boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
