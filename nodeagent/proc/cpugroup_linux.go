package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gangway/topology"
)

// CPUGroup confines processes to cpus, whatever affinity they give themselves: a
// cgroup with the cpuset controller, version 1 or 2 (cpuset(7), cgroups(7)).
type CPUGroup struct {
	cgroup
	lent bool // it is the memory group, which has both
}

// NewCPUGroup makes a group for the given cpus, whose memory may come from where
// this process's may. The name must be free. memory is the group that the same
// processes are in, or nil: version 2 has one group for all controllers.
//
// It is made within this process's own cgroup and nowhere above, so that no limit
// of the surroundings is escaped. Where it can't be, the error wraps ErrNoCPUSet
// and says why.
func NewCPUGroup(name string, cpus topology.CPUSet, memory *MemoryGroup) (*CPUGroup, error) {
	bases, err := liveBases(name, "cpuset")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCPUSet, err)
	}
	err = errors.New("no cpuset controller of cgroups is mounted")
	for _, b := range bases {
		if b.dir != b.home {
			continue
		}
		g := &CPUGroup{cgroup: cgroup{dir: filepath.Join(b.dir, name), home: b.home, v2: b.v2}}
		switch {
		case b.v2 && memory != nil && memory.v2:
			g.cgroup, g.lent = memory.cgroup, true
		default:
			if err = os.Mkdir(g.dir, 0o755); err != nil {
				continue
			}
		}
		if err = g.confine(cpus); err == nil {
			return g, nil
		}
		_ = g.Close()
	}
	return nil, fmt.Errorf("%w: %w", ErrNoCPUSet, err)
}

// confine writes the group's cpus and proves that it has them.
func (g *CPUGroup) confine(cpus topology.CPUSet) error {
	effective := "cpuset.cpus.effective"
	if !g.v2 {
		effective = "cpuset.effective_cpus"
		// Version 1 takes no process before both are set.
		mems, err := os.ReadFile(filepath.Join(g.home, "cpuset.mems"))
		if err != nil {
			return err
		}
		if err := g.write("cpuset.mems", string(bytes.TrimSpace(mems))); err != nil {
			return err
		}
	}
	if err := g.write("cpuset.cpus", cpus.String()); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(g.dir, effective))
	if err != nil {
		return err
	}
	got, err := topology.ParseCPUSet(string(bytes.TrimSpace(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(g.dir, effective), err)
	}
	if !got.Equal(cpus) {
		return fmt.Errorf("%s has cpus %s of %s", g.dir, got, cpus)
	}
	return nil
}

// Close removes the group. Its processes must have ended: those that the kernel
// has not quite taken away are waited for up to a second.
func (g *CPUGroup) Close() error {
	if g.lent {
		return nil
	}
	if err := g.remove(); err != nil {
		return fmt.Errorf("cpu group: %w", err)
	}
	return nil
}
