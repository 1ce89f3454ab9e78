package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/auth"
)

// join starts an agent on host i with a token, which is in a file of the host.
func (s *daemon) join(i int, token string, args ...string) *member {
	s.t.Helper()
	h := s.lab.Host(i)
	s.writeToken(filepath.Join(h.Root(), "tmp", "token"), token)
	ctx, cancel := context.WithCancel(context.Background())
	c := h.Command(ctx, s.bin, append([]string{"agent", "--join", s.url(), "--token-file", "/tmp/token", "--identity", "/tmp/identity"}, args...)...)
	return s.follow("on "+h.Name(), c.Cmd, c.Start, cancel)
}

// nodeState is a node's state in the API, "" if there is no such node.
func (s *daemon) nodeState(name string) string {
	s.t.Helper()
	var n struct{ State string }
	status, body := s.ask(s.overSocket(), "", "GET", "/pools/default/nodes/"+name+"?"+apiVersion, "")
	if err := json.Unmarshal([]byte(body), &n); err != nil || status != 200 {
		return ""
	}
	return n.State
}

func (s *daemon) joinToken(spec auth.JoinSpec) string {
	s.t.Helper()
	_, secret, err := s.authority().AddJoinToken(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return secret.Reveal()
}

// runs runs a task in a job of its own and returns what it printed.
func (s *daemon) runs(id, command string) string {
	s.t.Helper()
	c := s.overSocket()
	for _, r := range [][2]string{
		{"/jobs", fmt.Sprintf(`{"id":%q,"poolInfo":{"poolId":"default"}}`, id)},
		{"/jobs/" + id + "/tasks", fmt.Sprintf(`{"id":"t","commandLine":%q}`, command)},
	} {
		if status, body := s.ask(c, "", "POST", r[0]+"?"+apiVersion, r[1]); status != 201 {
			s.t.Fatalf("POST %s: %d %s", r[0], status, body)
		}
	}
	waitFor(s.t, "the task is completed", 90*time.Second, func() bool {
		_, body := s.ask(c, "", "GET", "/jobs/"+id+"/tasks/t?"+apiVersion, "")
		return strings.Contains(body, `"state":"completed"`)
	})
	_, out := s.ask(c, "", "GET", "/jobs/"+id+"/tasks/t/files/stdout.txt?"+apiVersion, "")
	return out
}

// TestUpJoin: nodes that come by themselves over mutual TLS.
func TestUpJoin(t *testing.T) {
	if why := lab.Missing(); why != "" {
		t.Skip(why)
	}
	bin := gangwayBinary(t)
	b := &bed{t: t, bin: bin, limit: 5 * time.Minute, lab: lab.New(t, 3, lab.Share(buildDir))}
	data := filepath.Join(b.lab.Dir(), "data")
	s := b.up(data, "--no-nodes")

	one := s.joinToken(auth.JoinSpec{})
	two := s.joinToken(auth.JoinSpec{Uses: 2})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the launcher:\n%s", s.process.err)
		}
	})
	joined := func(name string) {
		t.Helper()
		waitFor(t, name+" is idle", 20*time.Second, func() bool { return s.nodeState(name) == "idle" })
	}
	first := s.join(1, one)
	joined("n1")
	if out := s.runs("a", "hostname"); out != "n1\n" {
		t.Errorf("the task on the node that joined says %q", out)
	}

	// A token is for so many nodes; a wrong one is for none; a name is taken once.
	at := len("gangway-join_") + 16 // in the secret: before it is an id, behind it the authority's fingerprint
	wrong := one[:at] + "AAAA" + one[at+4:]
	for what, x := range map[string]struct{ token, name, want string }{
		"a used token":  {one, "n2", "used"},
		"a wrong token": {wrong, "n2", ""},
		"no token":      {"hello", "n2", ""},
		"a taken name":  {two, "n1", "n1"},
	} {
		_ = os.RemoveAll(filepath.Join(s.lab.Host(2).Root(), "tmp", "identity"))
		out := s.join(2, x.token, "--name", x.name).ended(t)
		if !strings.Contains(out, x.want) || strings.Contains(out, "panic") || strings.TrimSpace(out) == "" {
			t.Errorf("%s: %s", what, out)
		}
		if s.nodeState("n2") != "" {
			t.Errorf("%s: n2 is a node", what)
		}
		for _, secret := range []string{one, two} {
			if strings.Contains(out, secret) {
				t.Errorf("%s: the agent tells its token", what)
			}
		}
	}

	// Started again, without a token, it is the same node.
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	again := s.join(1, "")
	joined("n1")
	if out := s.runs("b", "hostname"); out != "n1\n" {
		t.Errorf("after the agent's restart: %q", out)
	}

	// Revoked, it is cut off, at once and for good; others are not.
	second := s.join(2, two)
	joined("n2")
	if err := s.authority().RevokeNode("n1"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "n1 is cut off", 90*time.Second, func() bool { return s.nodeState("n1") == "unknown" })
	if out := s.runs("c", "hostname"); out != "n2\n" {
		t.Errorf("after n1 was revoked: %q", out)
	}
	_ = again.Process.Kill()
	<-again.done
	third := s.join(1, one)
	if out := third.ended(t); !strings.Contains(out, "refuses the certificate of node n1") {
		t.Errorf("the revoked node's agent does not say why:\n%s", out)
	}
	if st := s.nodeState("n1"); st == "idle" || st == "running" {
		t.Errorf("a revoked node is %s", st)
	}

	// The launcher restarts: the nodes come back by themselves.
	s.stop()
	s.secretFree(one, two, wrong)
	s = b.up(data, "--no-nodes")
	joined("n2")
	if out := s.runs("d", "hostname"); out != "n2\n" {
		t.Errorf("after the launcher's restart: %q", out)
	}
	for _, j := range []*member{first, again, second, third} {
		for _, secret := range []string{one, two} {
			if strings.Contains(j.out.String(), secret) {
				t.Error("an agent's log has a token")
			}
		}
	}
}
