//go:build linux

package nodeagent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

func TestParsePasswd(t *testing.T) {
	acc, err := parsePasswd("ann:x:1000:100:Ann,,:/home/ann:/bin/bash\n")
	if err != nil || acc.name != "ann" || acc.cred.UID != 1000 || acc.cred.GID != 100 || acc.home != "/home/ann" || acc.shell != "/bin/bash" {
		t.Errorf("%+v, %v", acc, err)
	}
	for _, line := range []string{"", "#", "+::::::", "a:x:-1:0:::", "a:x:0:x:::", "a:x:99999999999:0:::", "a:b:1:1::"} {
		if acc, err := parsePasswd(line); err == nil {
			t.Errorf("%q: %+v", line, acc)
		}
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add("ann:x:1000:100:Ann,,:/home/ann:/bin/bash\n")
	f.Add("::::::")
	f.Fuzz(func(t *testing.T, line string) {
		acc, err := parsePasswd(line)
		if err == nil && (acc.name == "" || strings.Contains(acc.name, ":") || acc.cred.UID < 0 || acc.cred.GID < 0) {
			t.Errorf("%q: %+v", line, acc)
		}
	})
}

func TestAccountFor(t *testing.T) {
	a := &agent{}
	own, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", own.Username} {
		if acc, err := a.accountFor(name); acc != nil || err != nil {
			t.Errorf("%q: %+v, %v", name, acc, err)
		}
	}
	for _, name := range []string{"no-such-user", "-h", "0", "a:b", "../x", "x y"} {
		if acc, err := a.accountFor(name); err == nil {
			t.Errorf("%q: %+v", name, acc)
		}
	}
	if os.Geteuid() != 0 {
		if _, err := a.accountFor("nobody"); !errors.Is(err, errSwitch) || !strings.Contains(err.Error(), own.Username) || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("nobody: %v", err)
		}
	}
}

func TestCheckTaskDir(t *testing.T) {
	for _, p := range []string{"", "j", "j/t", "a/b/c"} {
		if !validTaskDir(p) {
			t.Errorf("%q is refused", p)
		}
	}
	for _, p := range []string{".", "..", "/a", "a/", "a//b", "a/../b", "../a", "./a", strings.Repeat("a", 600)} {
		if validTaskDir(p) {
			t.Errorf("%q is taken", p)
		}
	}
}

// TestOtherUser is a kept task of another user, under an agent run by root whose
// program the user can't reach.
func TestOtherUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if os.Geteuid() != 0 || err != nil {
		t.Skipf("needs root and the user nobody: %v", err)
	}
	exe := filepath.Join(t.TempDir(), "gangway") // t's directory is root's alone
	if out, err := exec.Command("go", "build", "-o", exe, "gangway/cmd/gangway").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := testDir(t)
	hello, err := makeHello("test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proc.RaiseMemlock(); err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: Config{Executable: exe, Log: slog.New(slog.DiscardHandler)}, dir: d, hello: hello, events: make(chan event, 64), done: make(chan struct{}),
		sessions: map[*session]struct{}{}, shims: map[string]*shim{}, epochs: map[string]uint64{}}
	a.forker = proc.NewForker()
	defer a.forker.Close()
	s := &session{cluster: "c", shown: map[string]bool{}, out: link.NewQueue[*wire.AgentMessage](), cancel: func() {}}
	a.open(s)
	id := fmt.Sprintf("u%d", os.Getpid())
	as := &wire.Assignment{Id: id, Name: &wire.AttemptName{Cluster: "c", TaskUid: "u", Range: &wire.Range{Hi: 1}, Attempt: 1},
		Job: "job", Task: "task", Node: "here", User: "nobody", TaskDir: "j/t", Mpi: "none", Bind: "none", CoresPerRank: 1,
		Command:   []string{"/bin/sh", "-c", "id -u; id -G; echo $HOME $USER $LOGNAME $SHELL; pwd; ulimit -l; touch f $AZ_BATCH_NODE_SHARED_DIR/f; env >&2"},
		NodeCount: 1, NodeRanks: 1, TotalRanks: 1, NodeDir: filepath.Join(filepath.Dir(string(d)), "gangway-"+id)}
	// The user makes the directory of its shims itself, as in /tmp.
	if err := os.Chmod(filepath.Dir(string(d)), 0o1777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = proc.KillByEnv("GANGWAY_ID="+id, 5*time.Second) })
	a.start(s, as)
	var result *wire.Result
	gone := false
	deadline := time.After(60 * time.Second)
	msgs := make(chan *wire.AgentMessage, 64)
	go func() {
		for {
			m, ok := s.out.Take()
			if !ok {
				return
			}
			msgs <- m
		}
	}()
	for !gone {
		select {
		case e := <-a.events:
			e(a)
		case m := <-msgs:
			switch f := m.GetFromShim(); {
			case m.GetError() != nil:
				t.Fatalf("refused: %v", m.GetError())
			case m.GetShimGone() != nil:
				gone = true
				if m.GetShimGone().GetLost() {
					t.Errorf("%v", m.GetShimGone())
				}
			case f.GetReady() != nil:
				if f.GetReady().GetFailure() != nil {
					t.Errorf("%v", f.GetReady())
				}
				a.shims[id].send(&wire.ToShim{Id: id, M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
			case f.GetResult() != nil:
				result = f.GetResult()
				recs, err := a.readSpool(d.spoolOf(a.shims[id].e), id)
				spooled := lastResult(recs)
				if err != nil || spooled.GetExitCode() != result.GetExitCode() {
					t.Errorf("spool: %v, %v", spooled, err)
				}
				fi, err := os.Stat(as.GetNodeDir())
				if uid, _, _ := proc.FileOwner(fi); err != nil || fmt.Sprint(uid) != nobody.Uid {
					t.Errorf("the shim's directory is of user %d, %v", uid, err)
				}
				a.shims[id].send(&wire.ToShim{Id: id, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
			}
		case <-deadline:
			log, _ := os.ReadFile(filepath.Join(d.beside(usersName), nobody.Uid, "log"))
			t.Fatalf("no end; the shim's log: %s", log)
		}
	}
	s.close()
	close(a.done)
	a.wg.Wait()
	if result.GetExitCode() != 0 || result.GetFailure() != nil {
		t.Errorf("result %v", result)
	}
	acc, err := lookupAccount(t.Context(), "nobody")
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for _, g := range acc.cred.Groups {
		groups = append(groups, fmt.Sprint(g))
	}
	limit := "unlimited"
	var l syscall.Rlimit
	if err := syscall.Getrlimit(8 /* RLIMIT_MEMLOCK */, &l); err == nil && l.Cur != ^uint64(0) {
		limit = fmt.Sprint(l.Cur / 1024)
	}
	task := filepath.Join(d.tasks(), "j/t")
	want := strings.Join([]string{nobody.Uid, strings.Join(groups, " "), nobody.HomeDir + " nobody nobody " + acc.shell, task + "/wd", limit, ""}, "\n")
	if r := d.serveFile(&wire.FileRequest{Op: opRead, Path: "j/t/stdout.txt"}); string(r.GetData()) != want {
		t.Errorf("%q, want %q", r.GetData(), want)
	}
	for _, p := range []string{task, task + "/wd", task + "/wd/f", task + "/stdout.txt", filepath.Join(d.tasks(), "shared/f")} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Error(err)
			continue
		}
		if uid, _, _ := proc.FileOwner(fi); fmt.Sprint(uid) != nobody.Uid || fi.Mode()&0o077 != 0 && fi.Name() != "f" {
			t.Errorf("%s: user %d, mode %v", p, uid, fi.Mode())
		}
	}
	env := string(d.serveFile(&wire.FileRequest{Op: opRead, Path: "j/t/stderr.txt"}).GetData())
	if !strings.Contains(env, "AZ_BATCH_TASK_DIR="+task+"\n") {
		t.Errorf("environment %q", env)
	}
}

// TestForgedNews holds that a shim speaks of itself alone.
func TestForgedNews(t *testing.T) {
	a := &agent{shims: map[string]*shim{}, sessions: map[*session]struct{}{}}
	s := &session{cluster: "c", shown: map[string]bool{}, out: link.NewQueue[*wire.AgentMessage]()}
	a.sessions[s] = struct{}{}
	a.shims["mine"] = &shim{e: entry{ID: "mine", Cluster: "c", TaskUID: "u"}, gen: 1}
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		defer theirs.Close()
		_ = link.WriteFrame(theirs, &wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: "other", Name: &wire.AttemptName{TaskUid: "other"},
			M: &wire.FromShim_Result{Result: &wire.Result{}}}}})
	}()
	f, err := link.ReadFrame(ours)
	if err != nil {
		t.Fatal(err)
	}
	a.shimFrame("mine", 1, f)
	m, _ := s.out.Take()
	if got := m.GetFromShim(); got.GetId() != "mine" || got.GetName().GetTaskUid() != "u" {
		t.Errorf("%v", got)
	}
}
