//go:build linux

package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gangway/topology"
)

// TestCPUGroup holds that a process in the group can't leave its cpus, and that
// the thread that forked it is as it was.
func TestCPUGroup(t *testing.T) {
	all, err := Affinity(0)
	if err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("this machine has one cpu")
	}
	one := topology.NewCPUSet(all.First())
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprintf("memory group %v", memory), func(t *testing.T) {
			name := fmt.Sprintf("gangway-test-%d", os.Getpid())
			var m *MemoryGroup
			if memory {
				if m, err = NewMemoryGroup(name, 1<<30); err != nil {
					t.Skip(err)
				}
				defer m.Close()
			}
			g, err := NewCPUGroup(name, one, m)
			if errors.Is(err, ErrNoCPUSet) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			f := NewForker()
			defer f.Close()
			home, _ := output(t, f.Start, sh("cat /proc/self/cgroup"))
			// Unbound, the group alone confines; bound, both do.
			for _, cpus := range []topology.CPUSet{{}, one} {
				c := sh("taskset -cp " + all.String() + " $$ >/dev/null; grep Cpus_allowed_list /proc/self/status")
				c.CPUSet, c.CPUs, c.Group = g, cpus, m
				if out, st := output(t, f.Start, c); strings.Fields(out + " -")[1] != one.String() {
					t.Errorf("bound to %q: the process is on %q %+v, want %s", cpus, out, st, one)
				}
			}
			c := sh("true")
			c.CPUSet, c.CPUs = g, all
			var se *StartError
			if _, err := f.Start(c); !errors.As(err, &se) || se.Kind != ErrBinding {
				t.Errorf("binding outside of the group: %v", err)
			}
			if out, _ := output(t, f.Start, sh("grep Cpus_allowed_list /proc/self/status")); strings.Fields(out + " -")[1] != all.String() {
				t.Errorf("the next child is on %q, want %s", out, all)
			}
			if out, _ := output(t, f.Start, sh("cat /proc/self/cgroup")); out != home {
				t.Errorf("the next child is in %q, want %q", out, home)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(g.dir); !g.lent && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
	name := fmt.Sprintf("gangway-left-%d", os.Getpid())
	if g, err := NewCPUGroup(name, one, nil); err == nil {
		if err := RemoveGroups(name); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("not removed: %v", err)
		}
	}
	if err := RemoveGroups(name); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
	if _, err := NewCPUGroup("../x", one, nil); err == nil {
		t.Error("a path was accepted as name")
	}
}

// TestCPUGroupVersion2 holds that the group is the memory group's directory, or
// one within this process's own, on a directory that stands for a cgroup.
func TestCPUGroupVersion2(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cpuset.cpus": "", "cpuset.cpus.effective": "0-3\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &CPUGroup{cgroup: cgroup{dir: dir, home: dir, v2: true}}
	if err := g.confine(topology.NewCPUSet(0, 1, 2, 3)); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "cpuset.cpus")); string(b) != "0-3" {
		t.Errorf("wrote %q", b)
	}
	if err := g.confine(topology.NewCPUSet(0, 1)); err == nil {
		t.Error("cpus that the kernel did not take are not noticed")
	}
	g.dir = filepath.Join(dir, "none")
	if err := g.confine(topology.NewCPUSet(0)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the controller: %v", err)
	}
}
