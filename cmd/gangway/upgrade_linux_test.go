package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/launcher/auth"
)

// buildVersion builds the program with a version of its own.
func buildVersion(t *testing.T, version, out string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, "-ldflags", "-X main.version="+version, "gangway/cmd/gangway")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building gangway %s: %v\n%s", version, err, b)
	}
}

// versions is a bed with an old program, and a new one that upgrade puts in its
// place.
func versions(t *testing.T) *bed {
	t.Helper()
	b := keptBed(t)
	b.bin = filepath.Join(b.base, "gangway")
	buildVersion(t, "v1.0-old", b.bin)
	buildVersion(t, "v1.1-new", b.bin+".next")
	return b
}

func (b *bed) upgrade() {
	b.t.Helper()
	if err := os.Rename(b.bin+".next", b.bin); err != nil {
		b.t.Fatal(err)
	}
}

// get asks a launcher over its socket.
func (s *daemon) get(path string, into any) {
	s.t.Helper()
	r, err := s.overSocket().Get("http://launcher" + path + "?api-version=2024-07-01.20.0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s %s %v", path, r.Status, b, err)
	}
	if p, ok := into.(*string); ok {
		*p = string(b)
		return
	}
	if err := json.Unmarshal(b, into); err != nil {
		s.t.Fatal(err)
	}
}

// agentVersion is that of the pool's one node.
func (s *daemon) agentVersion() string {
	s.t.Helper()
	var nodes struct {
		Value []struct {
			Agent struct{ Version string } `json:"nodeAgentInfo"`
		}
	}
	s.get("/pools/default/nodes", &nodes)
	if len(nodes.Value) != 1 {
		s.t.Fatalf("%d nodes, want one", len(nodes.Value))
	}
	return nodes.Value[0].Agent.Version
}

// parts lists the bed's processes that play a part, such as agent or shim.
func parts(base, part string) []int {
	var out []int
	for _, pid := range pidsOf(base) {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if f := strings.Split(string(args), "\x00"); len(f) > 1 && f[1] == part {
			out = append(out, pid)
		}
	}
	return out
}

// upgradeTask notes its process, waits to be let go, and ends.
const upgradeTask = `echo "start $$"; while [ ! -e "$1" ]; do sleep 0.05; done; echo "end $$"; exit 3`

// TestUpgradeUnderRunningJobs replaces the program while a task runs: the old
// launcher is stopped, the old agent killed, and their successors take over a
// shim of the old program.
func TestUpgradeUnderRunningJobs(t *testing.T) {
	b := versions(t)
	base, data := b.base, filepath.Join(b.base, "data")
	s := b.up(data, "--tmpdir", base)
	waitFor(t, "the old agent is there", 20*time.Second, func() bool { return strings.HasPrefix(s.agentVersion(), "v1.0-old") })

	release := filepath.Join(base, "release")
	submit := func(s *daemon, id, waitFor string) {
		t.Helper()
		spec, err := json.Marshal(map[string]any{"id": id, "tasks": []any{map[string]any{"id": "t",
			"command": []string{"/bin/sh", "-c", upgradeTask, "sh", waitFor}}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.overSocket().Post("http://launcher/gangway/v1/jobs?api-version=2024-07-01.20.0", "application/json; odata=minimalmetadata", strings.NewReader(string(spec)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if answer, _ := io.ReadAll(r.Body); r.StatusCode >= 300 {
			t.Fatalf("submit: %s %s", r.Status, answer)
		}
	}
	type task struct {
		State string
		Info  struct {
			ExitCode *int `json:"exitCode"`
			Retries  int  `json:"retryCount"`
			Requeues int  `json:"requeueCount"`
		} `json:"executionInfo"`
	}
	show := func(s *daemon, job string) (v task) {
		t.Helper()
		s.get("/jobs/"+job+"/tasks/t", &v)
		return v
	}
	submit(s, "long", release)
	waitFor(t, "the task runs", 20*time.Second, func() bool { return show(s, "long").State == "running" })
	shims, agents := parts(base, "shim"), parts(base, "agent")
	if len(shims) != 1 || len(agents) != 1 {
		t.Fatalf("shims %v, agents %v, want one of each", shims, agents)
	}

	s.stop()
	if err := syscall.Kill(agents[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.upgrade()
	s = b.up(data, "--tmpdir", base)
	waitFor(t, "the new agent is there", 20*time.Second, func() bool { return strings.HasPrefix(s.agentVersion(), "v1.1-new") })
	if now := parts(base, "shim"); len(now) != 1 || now[0] != shims[0] {
		t.Fatalf("shims %v, want %v still", now, shims)
	}
	if v := show(s, "long"); v.State != "running" {
		t.Fatalf("the task is %+v, want it running", v)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task's result is there", 20*time.Second, func() bool { return show(s, "long").State == "completed" })
	if v := show(s, "long"); v.Info.ExitCode == nil || *v.Info.ExitCode != 3 || v.Info.Retries+v.Info.Requeues != 0 {
		t.Errorf("the result is %+v, want status 3 of the first attempt", v)
	}
	var out string
	s.get("/jobs/long/tasks/t/files/stdout.txt", &out)
	if f := strings.Fields(out); len(f) != 4 || f[0] != "start" || f[2] != "end" || f[1] != f[3] {
		t.Errorf("stdout is %q, want start and end of one process", out)
	} else if pid, err := strconv.Atoi(f[1]); err != nil || pid <= 0 {
		t.Errorf("stdout is %q", out)
	}
	waitFor(t, "the old shim has ended", 20*time.Second, func() bool { return len(parts(base, "shim")) == 0 })

	submit(s, "after", release) // and the new one works
	waitFor(t, "a task of the new agent ends", 20*time.Second, func() bool { return show(s, "after").State == "completed" })
}

// TestUpgradeOfAnIdleAgent: an agent that joined runs the program that is now at its
// place as soon as a launcher of that version is there, in the same process.
func TestUpgradeOfAnIdleAgent(t *testing.T) {
	b := versions(t)
	data := filepath.Join(b.base, "data")
	s := b.up(data, "--no-nodes")
	listen := strings.TrimPrefix(s.url(), "https://")
	agent := s.member(s.joinToken(auth.JoinSpec{Node: "n1"}))
	waitFor(t, "the old agent is there", 20*time.Second, func() bool { return s.nodeState("n1") == "idle" && strings.HasPrefix(s.agentVersion(), "v1.0-old") })
	s.stop()
	b.upgrade()
	s = b.up(data, "--no-nodes", "--listen", listen)
	waitFor(t, "the new agent is there", 30*time.Second, func() bool { return s.nodeState("n1") == "idle" && strings.HasPrefix(s.agentVersion(), "v1.1-new") })
	select {
	case <-agent.done:
		t.Error("it is another process")
	default:
	}
}
