package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryGroup limits and measures the memory of a group of processes: a cgroup
// with the memory controller, version 1 or 2.
type MemoryGroup struct{ cgroup }

// NewMemoryGroup makes a group that holds at most limit bytes, swap included.
// The name must be free. Where no group can be made the error wraps
// ErrNoMemoryLimit and says why.
func NewMemoryGroup(name string, limit uint64) (*MemoryGroup, error) {
	bases, err := liveBases(name, "memory")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryLimit, err)
	}
	if len(bases) == 0 {
		return nil, fmt.Errorf("%w: no memory controller of cgroups is mounted", ErrNoMemoryLimit)
	}
	var errs []error
	for _, b := range bases {
		g, err := b.make(name, limit)
		if err == nil {
			return g, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoMemoryLimit, errs[0])
}

func (b cgroupBase) make(name string, limit uint64) (*MemoryGroup, error) {
	g := &MemoryGroup{cgroup{dir: filepath.Join(b.dir, name), home: b.home, v2: b.v2}}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	max, swap, swapLimit := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", strconv.FormatUint(limit, 10)
	if b.v2 {
		max, swap, swapLimit = "memory.max", "memory.swap.max", "0"
	}
	if err := g.write(max, strconv.FormatUint(limit, 10)); err != nil {
		_ = os.Remove(g.dir)
		return nil, err
	}
	_ = g.write(swap, swapLimit) // absent without swap accounting
	if b.v2 {
		_ = g.write("memory.oom.group", "0")
	}
	return g, nil
}

// Peak returns the most memory that the group ever held, in bytes; with
// version 2 before Linux 5.19 an error.
func (g *MemoryGroup) Peak() (uint64, error) {
	file := "memory.max_usage_in_bytes"
	if g.v2 {
		file = "memory.peak"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, fmt.Errorf("memory group: %w", err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("memory group: %s: %w", file, err)
	}
	return n, nil
}

// OOMKilled says whether the kernel killed a process of the group because it
// reached its limit.
func (g *MemoryGroup) OOMKilled() (bool, error) {
	n, err := g.OOMKills()
	return n > 0, err
}

// ResetPeak makes Peak begin again at what the group holds now: with version 1,
// and with version 2 since Linux 6.12 as far as this descriptor's reader goes,
// which is of no use here: there it is an error.
func (g *MemoryGroup) ResetPeak() error {
	if g.v2 {
		return fmt.Errorf("memory group: the peak can't be reset: %w", errors.ErrUnsupported)
	}
	return g.write("memory.max_usage_in_bytes", "0")
}

// OOMKills is how many processes of the group the kernel has killed because it
// reached its limit; 0 where it does not count them.
func (g *MemoryGroup) OOMKills() (uint64, error) {
	file := "memory.oom_control" // its oom_kill line since Linux 4.13
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, fmt.Errorf("memory group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			kills, err := strconv.ParseUint(n, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory group: %s: %w", file, err)
			}
			return kills, nil
		}
	}
	return 0, nil
}

// Open opens the group's directory, for SlotCommand.Cgroup.
func (g *MemoryGroup) Open() (*os.File, error) { return os.Open(g.dir) }

// Close removes the group. Its processes must have ended: those that the kernel
// has not quite taken away are waited for up to a second.
func (g *MemoryGroup) Close() error {
	if err := g.remove(); err != nil {
		return fmt.Errorf("memory group: %w", err)
	}
	return nil
}
