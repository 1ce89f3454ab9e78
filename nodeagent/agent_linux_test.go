package nodeagent

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

func TestLifeOfAShim(t *testing.T) {
	base := tempBase(t)
	done := startTestAgent(t, agentConfig(base))
	l, inv := dial(t, base, "c1", 1)
	if len(inv.GetShims())+len(inv.GetForeign()) != 0 {
		t.Errorf("inventory of an empty node: %v", inv)
	}
	if l.hello.GetProtocol() != wire.Version || l.hello.GetVersion() != "test" || len(l.hello.GetNodeJson()) == 0 {
		t.Errorf("hello %v", l.hello)
	}
	l.set(l.assignment("a", "stay", "0"))
	l.ready("a")
	l.end("a")
	if r := l.result("a"); r.GetSignal() != 15 {
		t.Errorf("result %v", r)
	}
	l.forget("a")
	if g := l.gone("a"); g.GetLost() {
		t.Errorf("%v: lost, with its result seen", g)
	}
	l.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_Goodbye{Goodbye: &wire.Goodbye{}}})
	l.wait("gone", func(m *wire.AgentMessage) bool { return m.GetGone() != nil })
	if m, ok := <-l.in; ok {
		t.Errorf("after the last word: %v", m)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(string(dirOf(base))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the agent's directory is still there (%v)", err)
	}
}

func TestGoodbyeOfOneLauncher(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	a, _ := dial(t, base, "ca", 1)
	b, _ := dial(t, base, "cb", 1)
	kept := a.assignment("kept", "stay", "1")
	kept.Session = false
	a.set(a.assignment("a", "stay", "0"), kept)
	a.ready("a", "kept")
	b.set(b.assignment("b", "stay", "2"))
	b.ready("b")
	a.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_Goodbye{Goodbye: &wire.Goodbye{}}})
	a.set(a.assignment("late", "stay", "3"))
	a.gone("a")
	a.wait("gone", func(m *wire.AgentMessage) bool { return m.GetGone() != nil })
	a.close()
	// The others' shims live on, and what came after the goodbye never began.
	again, inv := dial(t, base, "ca", 1)
	if len(inv.GetShims()) != 1 || inv.GetShims()[0].GetId() != "kept" {
		t.Errorf("left of the first launcher: %v, want kept alone", inv.GetShims())
	}
	if len(inv.GetForeign()) != 1 || inv.GetForeign()[0].GetId() != "b" {
		t.Errorf("foreign claims %v, want b's", inv.GetForeign())
	}
	for l, id := range map[*launcher]string{again: "kept", b: "b"} {
		l.end(id)
		l.result(id)
		l.forget(id)
		l.gone(id)
	}
}

func TestRefusals(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	other, _ := dial(t, base, "other", 1)
	other.set(other.assignment("held", "stay", "2-3"))
	other.ready("held")
	l, inv := dial(t, base, "c", 5)
	if got := inv.GetForeign(); len(got) != 1 || got[0].GetCpus() != "2-3" || !strings.Contains(got[0].GetWho(), "tester of other") {
		t.Fatalf("claims %v", got)
	}
	for name, c := range map[string]struct {
		change func(*wire.Assignment)
		code   wire.ErrorCode
		says   string
	}{
		"empty id":        {func(a *wire.Assignment) { a.Id = "" }, wire.ErrorCode_ERROR_SPEC, "want 1 to 24"},
		"path as id":      {func(a *wire.Assignment) { a.Id = "../x" }, wire.ErrorCode_ERROR_SPEC, "want 1 to 24"},
		"long id":         {func(a *wire.Assignment) { a.Id = strings.Repeat("x", 25) }, wire.ErrorCode_ERROR_SPEC, "want 1 to 24"},
		"other cluster":   {func(a *wire.Assignment) { a.Name.Cluster = "other" }, wire.ErrorCode_ERROR_SPEC, `of cluster "other"`},
		"relative dir":    {func(a *wire.Assignment) { a.NodeDir = "gangway-x" }, wire.ErrorCode_ERROR_SPEC, "absolute path"},
		"someone's dir":   {func(a *wire.Assignment) { a.NodeDir = "/etc" }, wire.ErrorCode_ERROR_SPEC, "gangway-x"},
		"malformed cores": {func(a *wire.Assignment) { a.Cpus = "1-" }, wire.ErrorCode_ERROR_SPEC, ""},
		"claimed cores":   {func(a *wire.Assignment) { a.Cpus = "0-2" }, wire.ErrorCode_ERROR_CLAIMED, "cores 2 are held by job j task t of tester of other"},
		"one side shared": {func(a *wire.Assignment) { a.Cpus, a.Shared = "3", true }, wire.ErrorCode_ERROR_CLAIMED, "cores 3 are held"},
	} {
		t.Run(name, func(t *testing.T) {
			as := l.assignment("x", "stay", "0")
			c.change(as)
			l.set(as)
			e := l.wait("refusal", func(m *wire.AgentMessage) bool { return m.GetError() != nil }).GetError()
			if e.GetCode() != c.code || e.GetId() != as.GetId() || !strings.Contains(e.GetMessage(), c.says) {
				t.Errorf("refused with %v, want %v and %q", e, c.code, c.says)
			}
		})
	}
	if entries, err := dirOf(base).entries(); err != nil || len(entries) != 1 {
		t.Errorf("registry after the refusals: %v, %v; want the held one", entries, err)
	}
	// What nobody knows here is said to be gone, or its cores were held for ever.
	l.end("unknown")
	if g := l.gone("unknown"); !g.GetLost() {
		t.Errorf("%v", g)
	}
}

func TestReplacedLauncher(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	now, _ := dial(t, base, "c", 2)
	now.set(now.assignment("a", "stay", "0"))
	now.ready("a")
	old, inv := dial(t, base, "c", 1)
	if inv != nil {
		t.Errorf("a launcher that has been replaced was let in: %v", inv)
	}
	if m, ok := <-old.in; ok {
		t.Errorf("it was told %v", m)
	}
	now.end("a") // the session of the present one has not given way
	now.result("a")
	now.forget("a")
	now.gone("a")
}

func TestRegistryRoundTrip(t *testing.T) {
	dir, err := OpenDir(tempBase(t))
	if err != nil {
		t.Fatal(err)
	}
	want := entry{ID: "a", Cluster: "c", TaskUID: "t", Lo: 3, Hi: 9, Attempt: 2, Epoch: 7, NodeDir: "/tmp/gangway-a",
		PID: 42, Start: 4242, CPUs: "0-3", Memory: 1 << 30, Shared: true, Who: "w", Session: true}
	if err := dir.save(want); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(string(dir), "shims", "b.json.new")
	for p, text := range map[string]string{half: "{", dir.registry("broken"): "{"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := dir.entries()
	if d := cmp.Diff([]entry{want}, got); d != "" {
		t.Error(d)
	}
	if err == nil || !strings.Contains(err.Error(), "broken.json") {
		t.Errorf("a file that can't be read: %v", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half-written file is still there (%v)", err)
	}
}

// startAgentProcess starts an agent that can be killed.
func startAgentProcess(t *testing.T, base string) *exec.Cmd {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := exec.Command(os.Args[0], "agent", base)
	c.Stderr, c.ExtraFiles = os.Stderr, []*os.File{w}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait(); endShims(t, base) })
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the agent process: %v", err)
	}
	return c
}

func TestAdoptionAfterAgentKill(t *testing.T) {
	base := tempBase(t)
	first := startAgentProcess(t, base)
	l, _ := dial(t, base, "c", 1)
	l.set(l.assignment("a", "stay", "0"))
	l.ready("a")
	pid := pidOf(t, base, "a")
	_ = first.Process.Kill()
	_ = first.Wait()
	for range l.in { // until the session has ended
	}
	l.close()
	startTestAgent(t, agentConfig(base))
	l, inv := dial(t, base, "c", 1)
	if got := inv.GetShims(); len(got) != 1 || got[0].GetId() != "a" || got[0].GetName().GetTaskUid() != "t" {
		t.Fatalf("inventory of the second agent: %v", inv)
	}
	l.ready("a") // said again
	if now := pidOf(t, base, "a"); now != pid || !proc.Alive(pid, "GANGWAY_ID=a") {
		t.Errorf("the shim was process %d, is %d", pid, now)
	}
	// Messages that come while the connection is being made are not lost.
	l.close()
	l, _ = dial(t, base, "c", 1)
	l.end("a")
	l.result("a")
	l.forget("a")
	l.gone("a")
}

func TestKilledShimLeavesNobody(t *testing.T) {
	base := tempBase(t)
	startAgentProcess(t, base)
	l, _ := dial(t, base, "c", 1)
	for i := range 4 {
		victim, next := "v"+strconv.Itoa(i), "n"+strconv.Itoa(i)
		l.set(l.assignment(victim, "orphan", "0"))
		text := l.wait("the orphan's pid", func(m *wire.AgentMessage) bool { return m.GetFromShim().GetNotice() != nil }).GetFromShim().GetNotice().GetText()
		orphan, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		shm := proc.SharedMemoryDir(filepath.Join(l.base, "gangway-"+victim))
		if err := os.MkdirAll(shm, 0o700); err != nil {
			t.Fatal(err)
		}
		// One is started while the other's end is cleared up.
		if err := syscall.Kill(pidOf(t, base, victim), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.set(l.assignment(next, "stay", "1"))
		var ready, gone bool
		l.wait("end of one and start of the other", func(m *wire.AgentMessage) bool {
			ready = ready || m.GetFromShim().GetId() == next && m.GetFromShim().GetReady() != nil
			if g := m.GetShimGone(); g.GetId() == victim {
				gone = true
				if !g.GetLost() {
					t.Errorf("%v, want it lost", g)
				}
				if _, err := os.Lstat(shm); !os.IsNotExist(err) {
					t.Errorf("%s: %v, want it gone", shm, err)
				}
				if st, err := os.ReadFile("/proc/" + text + "/stat"); err == nil && !strings.Contains(string(st), ") Z ") {
					t.Errorf("process %d of the killed shim still runs", orphan)
				}
			}
			return ready && gone
		})
		if !proc.Alive(pidOf(t, base, next), "GANGWAY_ID="+next) {
			t.Error("the sweep took a new shim with it")
		}
		l.end(next)
		l.result(next)
		l.forget(next)
		l.gone(next)
	}
}

func TestResultOfKilledShimWaits(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	l, _ := dial(t, base, "c", 1)
	kept := l.assignment("k", "done", "0")
	kept.Session = false
	l.set(kept)
	for range 2 { // each session is told again
		if r := l.result("k"); r.GetExitCode() != 7 {
			t.Fatalf("result %v", r)
		}
		l.close()
		l, _ = dial(t, base, "c", 1)
	}
	l.forget("k")
	if g := l.gone("k"); g.GetLost() {
		t.Errorf("%v: it had a result", g)
	}
	if _, err := os.Stat(dirOf(base).registry("k")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its registry file is still there (%v)", err)
	}
}

// TestUnreadableSpool: a task whose result can't be read may have finished.
func TestUnreadableSpool(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	l, _ := dial(t, base, "c", 1)
	for command, says := range map[string]string{"garbled": "does not begin as a spool does", "unspooled": "its spool is gone"} {
		as := l.assignment(command, command, "0")
		as.Session = false
		l.set(as)
		l.wait(command+" runs", func(m *wire.AgentMessage) bool {
			return m.GetFromShim().GetId() == command && m.GetFromShim().GetStarted() != nil
		})
		l.toShim(&wire.ToShim{Id: command, M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
		if g := l.gone(command); !g.GetLost() || !g.GetUnread() || !strings.Contains(g.GetReason(), "its result can't be read: ") || !strings.Contains(g.GetReason(), says) {
			t.Errorf("%s: %v", command, g)
		}
	}
	l.set(l.assignment("stay", "stay", "0"))
	l.ready("stay")
	if err := syscall.Kill(pidOf(t, base, "stay"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if g := l.gone("stay"); !g.GetLost() || g.GetUnread() {
		t.Errorf("one that was killed before it ran: %v", g)
	}
}

// startFake starts a fake shim as an agent that was killed at once has left it.
func startFake(t *testing.T, base, id string) (*exec.Cmd, entry) {
	t.Helper()
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	e := entry{ID: id, Cluster: "c", TaskUID: "t", Hi: 1, Attempt: 1, Epoch: 1, NodeDir: filepath.Join(base, "gangway-"+id)}
	c := exec.Command(os.Args[0], "shim")
	c.Env, c.Stderr, c.ExtraFiles = append(os.Environ(), e.marker()), os.Stderr, []*os.File{theirs}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait(); _ = ours.Close() })
	err = link.WriteFrame(ours, &wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{Assignment: &wire.Assignment{
		Id: id, Command: []string{"stay"}, NodeDir: e.NodeDir, Name: &wire.AttemptName{Cluster: "c"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.ReadFrame(ours); err != nil { // its socket is there
		t.Fatal(err)
	}
	return c, e
}

func TestShimWithoutItsPid(t *testing.T) {
	for name, other := range map[string]func(*testing.T, entry) (int, uint64){
		"none":              func(*testing.T, entry) (int, uint64) { return 0, 0 },
		"another process's": func(*testing.T, entry) (int, uint64) { return os.Getpid(), 0 },
		"one of its own programs'": func(t *testing.T, e entry) (int, uint64) { // which has its marker
			c := exec.Command("sleep", "300")
			c.Env = []string{e.marker()}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
			return c.Process.Pid, proc.StartTime(c.Process.Pid) - 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := tempBase(t)
			dir, err := OpenDir(base)
			if err != nil {
				t.Fatal(err)
			}
			shim, e := startFake(t, base, "a")
			e.PID, e.Start = other(t, e)
			if err := dir.save(e); err != nil {
				t.Fatal(err)
			}
			startTestAgent(t, agentConfig(base))
			l, inv := dial(t, base, "c", 1)
			if len(inv.GetShims()) != 1 {
				t.Fatalf("inventory %v", inv)
			}
			l.ready("a")
			eventually(t, "the registry has the shim's pid", func() bool {
				b, err := os.ReadFile(dir.registry("a"))
				return err == nil && bytes.Contains(b, []byte(strconv.Itoa(shim.Process.Pid)))
			})
			_ = shim.Process.Kill()
			if g := l.gone("a"); !g.GetLost() || !strings.Contains(g.GetReason(), "process "+strconv.Itoa(shim.Process.Pid)+" is gone") {
				t.Errorf("%v, want the end of process %d", g, shim.Process.Pid)
			}
		})
	}
	if pid, _ := (entry{ID: "a", NodeDir: "/nonexistent"}).process(); pid != 0 {
		t.Errorf("a shim that does not run is process %d", pid)
	}
}

// A shim whose socket is not there, or not yet, keeps nobody waiting.
func TestSilentShim(t *testing.T) {
	base := tempBase(t)
	dir, err := OpenDir(base)
	if err != nil {
		t.Fatal(err)
	}
	e := entry{ID: "a", Cluster: "c", TaskUID: "t", Hi: 1, Attempt: 1, Epoch: 1, NodeDir: filepath.Join(base, "gangway-a")}
	c := exec.Command("sleep", "300")
	c.Env = []string{e.marker()}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	e.PID = c.Process.Pid
	if err := dir.save(e); err != nil {
		t.Fatal(err)
	}
	startTestAgent(t, agentConfig(base))
	l, inv := dial(t, base, "c", 1)
	if len(inv.GetShims()) != 1 {
		t.Fatalf("inventory %v", inv)
	}
	l.toShim(&wire.ToShim{Id: "a", M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
	other, _ := dial(t, base, "other", 1)
	other.set(other.assignment("o", "stay", "0"))
	other.ready("o") // so the agent has taken the message before this
	if err := os.Mkdir(e.NodeDir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", e.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := link.ReadFrame(conn)
	if err != nil || f.GetTo().GetLaunch() == nil {
		t.Errorf("first on the new connection: %v, %v; want the launch", f, err)
	}
	other.end("o")
	other.result("o")
	other.forget("o")
	other.gone("o")
}
