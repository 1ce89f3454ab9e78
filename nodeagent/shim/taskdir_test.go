//go:build linux

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/nodeagent/wire"
)

// keptRoot is a task root of the test's.
func keptRoot(t testing.TB) string {
	t.Helper()
	if d := os.Getenv("GANGWAY_TEST_TASKS"); d != "" {
		return d
	}
	return t.TempDir()
}

func kept(a *wire.Assignment) *wire.Assignment {
	a.TaskDir, a.Pool, a.Workdir = "job-1/task-1", "pool", ""
	return a
}

func (m *member) file(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.taskPath, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// TestKept holds that a kept task's output is in its files, and nowhere else.
func TestKept(t *testing.T) {
	for _, c := range []struct{ mpi, cc, via string }{{"none", "", ""}, {"mpich", "mpicc.mpich", "pmi"}, {"mpich", "mpicc.mpich", "mpirun"}, {"openmpi", "mpicc.openmpi", ""}} {
		t.Run(c.mpi, func(t *testing.T) {
			if c.cc != "" {
				hello(t, c.cc)
			}
			a := ranks(kept(assignment(t, "/bin/sh", "-c", "echo $PWD; env >env.$GANGWAY_RANK; echo said by $GANGWAY_RANK >&2")), 2)
			a.Mpi, a.LaunchVia = c.mpi, c.via
			m, r := run(t, a)
			if r.GetExitCode() != 0 || len(r.GetRanks()) != 2 || r.GetOutputEnd() != 0 || len(m.out) != 0 || len(r.GetWarnings()) != 0 {
				t.Fatalf("result %v, streamed %q", r, m.out)
			}
			if got := r.GetRanks()[1].GetLastStderr(); got != "said by 1" {
				t.Errorf("rank 1's last words are %q", got)
			}
			wd := filepath.Join(m.taskPath, "wd")
			if got := m.file("stdout.txt"); !strings.Contains(got, wd+"\n") || strings.Trim(strings.ReplaceAll(got, wd, ""), "\n") != "" {
				t.Errorf("stdout.txt: %q", got)
			}
			if got := m.file("stderr.txt"); !strings.Contains(got, "said by 1\n") {
				t.Errorf("stderr.txt: %q", got)
			}
			env := m.file("wd/env.1")
			for _, kv := range []string{"AZ_BATCH_TASK_DIR=" + m.taskPath, "AZ_BATCH_TASK_WORKING_DIR=" + wd, "AZ_BATCH_NODE_ROOT_DIR=" + m.taskRoot,
				"AZ_BATCH_NODE_SHARED_DIR=" + filepath.Join(m.taskRoot, "shared"),
				"AZ_BATCH_POOL_ID=pool", "AZ_BATCH_JOB_ID=job", "AZ_BATCH_TASK_ID=task", "AZ_BATCH_NODE_ID=here", "GANGWAY_TASK_DIR=" + m.taskPath} {
				if !strings.Contains(env, kv+"\n") {
					t.Errorf("the environment lacks %s", kv)
				}
			}
		})
	}
}

// TestKeptPrimary is a multi-instance task: its command's stdout is the task's.
func TestKeptPrimary(t *testing.T) {
	a := kept(assignment(t, "/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
	a.Launch = wire.LaunchMode_LAUNCH_PRIMARY
	m, r := run(t, a)
	if r.GetExitCode() != 3 || m.file("stdout.txt") != "out\n" || m.file("stderr.txt") != "err\n" {
		t.Errorf("result %v, %q, %q", r, m.file("stdout.txt"), m.file("stderr.txt"))
	}
}

// TestKeptVolume holds that output needs neither a launcher nor memory.
func TestKeptVolume(t *testing.T) {
	a := kept(assignment(t, "/bin/sh", "-c", "head -c 100000000 /dev/zero"))
	a.Mpi = "none"
	m := startMember(t, a, 0)
	m.launch()
	// What the old connection carries may be lost with it.
	m.until("start", 20*time.Second, func() bool { return len(m.started) > 0 })
	m.mu.Lock()
	conn := m.conn
	m.mu.Unlock()
	_ = conn.Close()
	path := filepath.Join(m.taskPath, "stdout.txt")
	m.reconnect()
	m.awaitResult()
	if fi, err := os.Stat(path); err != nil || fi.Size() != 100000000 {
		t.Errorf("%v, %v", fi, err)
	}
	m.forget()
}

// TestKeptRetry holds that the files are those of the last attempt.
func TestKeptRetry(t *testing.T) {
	root := t.TempDir()
	t.Setenv("GANGWAY_TEST_TASKS", root)
	for i := range 2 {
		a := kept(assignment(t, "/bin/sh", "-c", fmt.Sprintf("ls; echo %d; mkdir -p locked/in; touch locked/in/f old; chmod 0 locked", i)))
		a.Mpi = "none"
		m, r := run(t, a)
		if want := fmt.Sprintf("%d\n", i); r.GetExitCode() != 0 || m.file("stdout.txt") != want {
			t.Errorf("attempt %d: %v, %q", i, r, m.file("stdout.txt"))
		}
	}
	if err := empty(filepath.Join(root, "job-1/task-1")); err != nil {
		t.Error(err)
	}
}

// TestKeptDiskFull lets the output's file system fill up.
func TestKeptDiskFull(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no small file system can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	t.Setenv("GANGWAY_TEST_TASKS", root)
	a := kept(assignment(t, "/bin/sh", "-c", "head -c 20000000 /dev/zero && echo well >&2; exit 4"))
	a.Mpi = "none"
	_, r := run(t, a)
	if r.GetExitCode() != 4 || r.GetRanks()[0].GetLastStderr() != "well" {
		t.Errorf("result %v", r)
	}
	if w := r.GetWarnings(); len(w) == 0 || !strings.Contains(w[0], syscall.ENOSPC.Error()) || !strings.Contains(w[0], "bytes") {
		t.Errorf("warnings %q", w)
	}
}

// TestMemoryFirst holds that a rank's memory comes from its own NUMA node first,
// with and without a wrapper.
func TestMemoryFirst(t *testing.T) {
	for _, c := range []struct{ mpi, cc string }{{"none", ""}, {"mpich", "mpicc.mpich"}} {
		t.Run(c.mpi, func(t *testing.T) {
			if c.cc != "" {
				hello(t, c.cc)
			}
			a := assignment(t, "/bin/sh", "-c", "cat /proc/self/numa_maps || echo none")
			a.Mpi, a.Oversubscribe = c.mpi, false
			m, r := run(t, a)
			switch nodes := m.ready.GetRanks()[0].GetMemNodes(); {
			case len(nodes) == 0 || !strings.Contains(m.stdout(0), "stack"):
				t.Skip("this machine shows no NUMA nodes")
			case r.GetExitCode() != 0 || !strings.Contains(m.stdout(0), fmt.Sprintf(" prefer:%d ", nodes[0])):
				t.Errorf("result %v\n%.300s", r, m.stdout(0))
			}
		})
	}
}
