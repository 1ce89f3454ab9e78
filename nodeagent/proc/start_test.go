//go:build linux

package proc

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

func sh(script string) Cmd { return Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", script}} }

func TestStatus(t *testing.T) {
	f := NewForker()
	defer f.Close()
	for name, start := range map[string]func(Cmd) (*Process, error){"start": Start, "forker": f.Start} {
		for _, tc := range []struct {
			script       string
			exit, signal int
		}{{"exit 0", 0, 0}, {"exit 255", 255, 0}, {"kill -9 $$", 0, 9}, {"kill -SEGV $$", 0, 11}} {
			t.Run(name+"/"+tc.script, func(t *testing.T) {
				before := time.Now()
				_, st := output(t, start, sh("ulimit -c 0; "+tc.script))
				if st.ExitCode != tc.exit || st.Signal != tc.signal || st.Core {
					t.Errorf("got %+v", st)
				}
				if st.MaxRSS < 100<<10 || st.End.Before(before) {
					t.Errorf("usage is %+v", st)
				}
			})
		}
	}
}

func TestSurroundings(t *testing.T) {
	dir := t.TempDir()
	extra, err := os.Create(filepath.Join(dir, "extra"))
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	c := sh(`pwd; env | grep ^K=; echo three >&3; cat; readlink /proc/self/fd/0; ps -o sid=,pgid= -p $$; echo $$`)
	c.Dir, c.Env, c.Extra, c.NewSession, c.NewGroup = dir, []string{"K=v", "PATH=/bin:/usr/bin"}, []*os.File{extra}, true, true
	out, st := output(t, Start, c)
	f := strings.Fields(out)
	if st.ExitCode != 0 || len(f) != 6 {
		t.Fatalf("%+v %q", st, out)
	}
	if f[0] != dir || f[1] != "K=v" || f[2] != "/dev/null" || f[3] != f[5] || f[4] != f[5] {
		t.Errorf("got %q", out)
	}
	if b, _ := os.ReadFile(extra.Name()); string(b) != "three\n" {
		t.Errorf("descriptor 3 got %q", b)
	}
	out, _ = output(t, Start, Cmd{Path: "/usr/bin/env"})
	if out != "" {
		t.Errorf("no environment asked for, got %q", out)
	}
}

func TestSignalAndWait(t *testing.T) {
	p, err := Start(Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, NewGroup: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan Status)
	for range 3 {
		go func() { st, _ := p.Wait(); done <- st }()
	}
	if err := p.Signal(int(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	for range 3 {
		if st := <-done; st.Signal != 15 {
			t.Errorf("got %+v", st)
		}
	}
	if err := p.Signal(15); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	huge := strings.Repeat("x", 100<<10)
	for _, tc := range []struct {
		name string
		cmd  Cmd
		kind error
		want string
	}{
		{"missing", Cmd{Path: filepath.Join(dir, "none")}, ErrNotFound, "none: not found"},
		{"below a file", Cmd{Path: write("file", "", 0o644) + "/x"}, ErrNotFound, "not found"},
		{"no x", Cmd{Path: write("nox", "#!/bin/sh\n", 0o644)}, ErrNotExecutable, "chmod +x"},
		{"directory", Cmd{Path: dir}, ErrNotExecutable, "it is a directory"},
		{"no #!", Cmd{Path: write("plain", "echo hello\n", 0o755)}, ErrNotExecutable, "#!/bin/sh"},
		{"interpreter", Cmd{Path: write("interp", "#! /no/such/sh -e\n", 0o755)}, ErrNotFound, "interpreter /no/such/sh, which is missing"},
		{"windows", Cmd{Path: write("crlf", "#!/bin/sh\r\necho\r\n", 0o755)}, ErrNotFound, "Windows line ends"},
		{"workdir", Cmd{Path: "/bin/true", Dir: filepath.Join(dir, "gone")}, ErrWorkdir, "gone: working directory not usable"},
		{"workdir is a file", Cmd{Path: "/bin/true", Dir: write("f2", "", 0o644)}, ErrWorkdir, "not a directory"},
		{"relative", Cmd{Path: "./nox", Dir: dir}, ErrNotExecutable, "chmod +x"},
		{"too long", Cmd{Path: "/bin/true", Env: slices.Repeat([]string{"A=" + huge}, 100)}, nil, "too long"},
		{"cpu", Cmd{Path: "/bin/true", CPUs: topology.NewCPUSet(8000)}, ErrBinding, "binding to cpus 8000"},
		{"some cpus", Cmd{Path: "/bin/true", CPUs: topology.NewCPUSet(0, 8000)}, ErrBinding, "cpus 8000 are not available"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, _ := getAffinity(0)
			_, err := Start(tc.cmd)
			var se *StartError
			if !errors.As(err, &se) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if tc.kind != nil && !errors.Is(err, tc.kind) || tc.kind == nil && se.Kind != nil {
				t.Errorf("kind is %v, want %v", se.Kind, tc.kind)
			}
			if after, _ := getAffinity(0); !after.Equal(before) {
				t.Errorf("affinity was %s, is %s", before, after)
			}
		})
	}
}

// TestBusyProgram starts a program that another thread is still writing.
func TestBusyProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prog")
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Millisecond, func() { _ = f.Close() })
	defer timer.Stop()
	if _, st := output(t, Start, Cmd{Path: path}); st.ExitCode != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestAffinity(t *testing.T) {
	all, err := Affinity(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f := NewForker()
	defer f.Close()
	for _, cpu := range all.Slice() {
		c := self("affinity")
		c.CPUs = topology.NewCPUSet(cpu)
		for _, start := range []func(Cmd) (*Process, error){Start, f.Start} {
			if out, _ := output(t, start, c); strings.TrimSpace(out) != strconv.Itoa(cpu) {
				t.Errorf("bound to %d, runs on %s", cpu, out)
			}
		}
		c.CPUs = topology.CPUSet{}
		if out, _ := output(t, f.Start, c); strings.TrimSpace(out) != all.String() {
			t.Errorf("unbound after a bound one, runs on %s", out)
		}
	}
	done := make(chan error)
	go func() { // on a thread that is thrown away
		runtime.LockOSThread()
		before, err := getAffinity(0)
		if err == nil {
			var p *Process
			if p, err = Start(Cmd{Path: "/bin/true", CPUs: topology.NewCPUSet(all.First())}); err == nil {
				_, err = p.Wait()
			}
		}
		if after, _ := getAffinity(0); err == nil && !after.Equal(before) {
			err = errors.New("the forking thread stayed bound to " + after.String())
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSetSelfAffinity(t *testing.T) {
	all, err := Affinity(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := SetSelfAffinity(all); err != nil {
			t.Error(err)
		}
	}()
	one := topology.NewCPUSet(all.First())
	if err := SetSelfAffinity(one); err != nil {
		t.Fatal(err)
	}
	ents, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		tid, _ := strconv.Atoi(e.Name())
		if got, err := getAffinity(tid); err == nil && !got.Equal(one) {
			t.Errorf("thread %d runs on %s", tid, got)
		}
	}
	if err := SetSelfAffinity(topology.CPUSet{}); err == nil {
		t.Error("an empty set was accepted")
	}
}

func TestMemoryPolicy(t *testing.T) {
	c := sh("cat /proc/self/numa_maps")
	c.MemNodes = []int{0}
	out, _ := output(t, Start, c)
	if out == "" {
		t.Skip("this kernel shows no memory policy")
	}
	if !strings.Contains(out, " prefer") {
		t.Errorf("child's policy: %.200s", out)
	}
	if out, _ := output(t, Start, sh("cat /proc/self/numa_maps")); !strings.Contains(out, " default") {
		t.Errorf("the next child's policy: %.200s", out)
	}
}

// TestMemoryPolicyFails holds that a node without memory is a warning.
func TestMemoryPolicyFails(t *testing.T) {
	p, err := Start(Cmd{Path: "/bin/true", MemNodes: []int{1000}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.ExitCode != 0 {
		t.Errorf("ended with %v, %v", st, err)
	}
	if err := p.MemPolicy(); err == nil || !strings.Contains(err.Error(), "1000") {
		t.Errorf("policy: %v", err)
	}
}

// TestUser starts programs as another user.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may")
	}
	c := sh("id -u; id -g; id -G")
	c.User = &Credential{UID: 65534, GID: 65533, Groups: []int{12, 65532}}
	if out, _ := output(t, Start, c); out != "65534\n65533\n65533 12 65532\n" {
		t.Errorf("it is %q", out)
	}
}

// TestInheritedDescriptors is PMI_FD's way: an MPI launcher's descriptor goes
// through the wrapper, which does not know of it, to the program.
func TestInheritedDescriptors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := exec.Command("/proc/self/exe", "/bin/sh", "-c", "echo from the rank >&7; exit 3")
	c.Env = append(os.Environ(), "PROC_TEST_HELPER=wrapper")
	c.Stderr = os.Stderr
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c.ExtraFiles = []*os.File{null, null, null, null, w} // 7 is the pipe
	err = c.Run()
	_ = w.Close()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 3 {
		t.Errorf("wrapper: %v", err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "from the rank\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestNoLeakedDescriptors: what this process opened itself does not reach a child.
func TestNoLeakedDescriptors(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "proctest"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if out, _ := output(t, Start, self("openfds")); out != "" {
		t.Errorf("the child has our files at %q", out)
	}
}

func TestKillWithParent(t *testing.T) {
	p, _, line := talk(t, self("nursery"))
	child, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	// The thread-bound child is dead by now, the forker's is not.
	if s, err := readStat(child); err != nil || !s.alive() {
		t.Errorf("the forker's child: %+v %v", s, err)
	}
	if err := p.Signal(9); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child dies with its parent", func() bool {
		s, err := readStat(child)
		return err != nil || !s.alive()
	})
}

func TestForkerClose(t *testing.T) {
	f := NewForker()
	p, err := f.Start(Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, KillWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	f.StartReaper()
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := p.Wait(); err != nil || st.Signal != 9 {
		t.Errorf("got %+v %v", st, err)
	}
	if _, err := f.Start(Cmd{Path: "/bin/true"}); err == nil {
		t.Error("a closed forker forked")
	}
}

func TestReaper(t *testing.T) {
	out, st := output(t, Start, self("subreaper"))
	if f := strings.Fields(out); st.ExitCode != 0 || len(f) != 3 || f[1] != "status" || f[2] != "7" {
		t.Errorf("%+v, output %q", st, out)
	}
}

func TestDetach(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if _, st := output(t, Start, self("detach", log)); st.ExitCode != 0 {
		t.Fatalf("got %+v", st)
	}
	var pid int
	eventually(t, "the detached process writes its log", func() bool {
		b, _ := os.ReadFile(log)
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	s, err := readStat(pid)
	if err != nil || !s.alive() || s.pgrp != pid {
		t.Errorf("detached: %+v %v", s, err)
	}
	if sid, _ := unix.Getsid(pid); sid != pid {
		t.Errorf("its session is %d", sid)
	}
	Kill([]int{pid})
}

func BenchmarkStart(b *testing.B) {
	env := os.Environ()
	f := NewForker()
	defer f.Close()
	wait := func(p *Process, err error) {
		if err == nil {
			_, err = p.Wait()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	one := topology.CPUSet{}
	if all, err := getAffinity(0); err == nil {
		one = topology.NewCPUSet(all.First())
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			wait(Start(Cmd{Path: "/bin/true", Env: env}))
		}
	})
	b.Run("forker", func(b *testing.B) {
		for b.Loop() {
			wait(f.Start(Cmd{Path: "/bin/true", Env: env}))
		}
	})
	b.Run("forker-bound", func(b *testing.B) {
		for b.Loop() {
			wait(f.Start(Cmd{Path: "/bin/true", Env: env, CPUs: one, MemNodes: []int{0}}))
		}
	})
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			if err := (&exec.Cmd{Path: "/bin/true", Args: []string{"true"}, Env: env}).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
