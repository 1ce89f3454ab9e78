//go:build linux

package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMemoryGroup(t *testing.T) {
	g, err := NewMemoryGroup(fmt.Sprintf("gangway-test-%d", os.Getpid()), 64<<20)
	if errors.Is(err, ErrNoMemoryLimit) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = g.Close()
		}
	}()
	f := NewForker()
	defer f.Close()
	home, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	c := self("hold", "1000000")
	c.Group = g
	if out, st := output(t, f.Start, c); out != "held\n" {
		t.Errorf("a small process: %q %+v", out, st)
	}
	if oom, err := g.OOMKilled(); oom || err != nil {
		t.Errorf("nobody was killed yet: %v %v", oom, err)
	}
	// The whole group counts, through a shell too.
	in := sh("sleep 0; cat /proc/self/cgroup")
	in.Group = g
	if out, _ := output(t, f.Start, in); !strings.Contains(out, filepath.Base(g.dir)) {
		t.Errorf("the child is in %q", out)
	}
	if out, _ := output(t, f.Start, sh("cat /proc/self/cgroup")); out != string(home) {
		t.Errorf("the next child is in %q, want %q", out, home)
	}
	c = self("hold", "268435456")
	c.Group = g
	if out, st := output(t, f.Start, c); out != "" || st.Signal != 9 {
		t.Errorf("a big process: %q %+v", out, st)
	}
	if oom, err := g.OOMKilled(); !oom || err != nil {
		t.Errorf("killed for its memory: %v %v", oom, err)
	}
	if peak, err := g.Peak(); err != nil || peak < 32<<20 || peak > 72<<20 {
		t.Errorf("peak %d, %v", peak, err)
	}
	p, _, _ := talk(t, self("locked", filepath.Join(t.TempDir(), "lock")))
	if err := g.Add(p.Pid()); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid())); !strings.Contains(string(b), filepath.Base(g.dir)) {
		t.Errorf("the added process is in %q", b)
	}
	if err := g.Close(); err == nil {
		t.Error("a group with a process was removed")
	}
	_ = p.Signal(9)
	_, _ = p.Wait()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	closed = true
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if _, err := NewMemoryGroup("../x", 1); err == nil {
		t.Error("a path was accepted as name")
	}
}

func TestCgroupBases(t *testing.T) {
	for _, tc := range []struct {
		name, mounts, self string
		want               []cgroupBase
	}{
		{"version 2", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/user-1.slice\n",
			[]cgroupBase{
				{"/sys/fs/cgroup/user.slice/user-1.slice", "/sys/fs/cgroup/user.slice/user-1.slice", true},
				{"/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/user.slice/user-1.slice", true},
				{"/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/user-1.slice", true},
			}},
		{"hybrid", "33 32 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
			"36 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"37 32 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
			"5:memory:/job\n4:cpu,cpuacct:/\n0::/\n",
			[]cgroupBase{
				{"/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/job", false},
				{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/job", false},
				{"/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified", true},
			}},
		{"container", "36 32 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "5:memory:/docker/abc/job\n",
			[]cgroupBase{
				{"/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/job", false},
				{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/job", false},
			}},
		{"another namespace", "36 32 0:31 /docker/abc /m rw - cgroup cgroup rw,memory\n", "5:memory:/elsewhere\n",
			[]cgroupBase{{"/m", "/m", false}}},
		{"none", "1 2 0:3 / / rw - ext4 /dev/sda rw\n", "", nil},
		{"malformed", "x\n - \n - cgroup2 a b\n", "::\nx\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := cgroupBases(tc.mounts, tc.self, "memory")
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(cgroupBase{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzCgroupBases(f *testing.F) {
	f.Add("36 32 0:31 /docker/abc /m rw - cgroup cgroup rw,memory\n", "5:memory:/elsewhere\n")
	f.Add("30 23 0:26 / /c rw - cgroup2 c rw\n", "0::/a/../b\n")
	f.Fuzz(func(t *testing.T, mounts, self string) { cgroupBases(mounts, self, "cpuset") })
}
