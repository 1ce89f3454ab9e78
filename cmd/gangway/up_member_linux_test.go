package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/launcher/auth"
)

// member is an agent that joins a launcher, on this machine or a lab host.
type member struct {
	*exec.Cmd
	out  *syncBuffer
	done chan struct{}
}

// ended waits for the agent's end and returns what it said.
func (m *member) ended(t *testing.T) string {
	t.Helper()
	select {
	case <-m.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the agent goes on:\n%s", m.out)
	}
	if code := m.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("the agent ended with status %d:\n%s", code, m.out)
	}
	return m.out.String()
}

// member starts an agent on this machine that joins the launcher as n1.
func (s *daemon) member(token string) *member {
	s.t.Helper()
	file := filepath.Join(s.base, "token")
	s.writeToken(file, token)
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, s.bin, "agent", "--join", s.url(), "--token-file", file, "--name", "n1",
		"--identity", filepath.Join(s.base, "identity"), "--tmpdir", s.base)
	return s.follow("on this machine", c, c.Start, cancel)
}

func (s *daemon) writeToken(file, token string) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// follow starts an agent, by its command's start or that of its host, keeps what
// it says, and cancels it at the test's end.
func (s *daemon) follow(where string, c *exec.Cmd, start func() error, cancel func()) *member {
	s.t.Helper()
	m := &member{Cmd: c, out: newSyncBuffer(), done: make(chan struct{})}
	m.Stdout, m.Stderr = m.out, m.out
	if err := start(); err != nil {
		cancel()
		s.t.Fatal(err)
	}
	go func() {
		_ = m.Wait()
		close(m.done)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-m.done
		if s.t.Failed() {
			s.t.Logf("the agent %s:\n%s", where, m.out)
		}
	})
	return m
}

// connections counts how often the agent has connected.
func (s *daemon) connections() int {
	return strings.Count(s.process.err.String(), "an agent has connected")
}

func (s *daemon) certificates() int {
	s.t.Helper()
	list, err := s.authority().Members()
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}

// TestUpRotation: certificates are renewed under a session and its job, and the
// session stays; one that is revoked is thrown out at once and can't come back.
func TestUpRotation(t *testing.T) {
	life := 8 // seconds; what is left of it at a renewal is all that a busy machine may take
	if raceEnabled {
		life = 16
	}
	s := upLocal(t, "--no-nodes", "--node-certificates", fmt.Sprintf("%ds", life))
	first := s.joinToken(auth.JoinSpec{})
	agent := s.member(first)
	waitFor(t, "n1 is idle", 20*time.Second, func() bool { return s.nodeState("n1") == "idle" })
	if out := agent.out.String(); !strings.Contains(out, "joined as n1") {
		t.Errorf("the agent that joined says:\n%s", out)
	}
	if out := s.runs("long", fmt.Sprintf("/bin/sh -c 'sleep %d; echo done'", 2*life+1)); out != "done\n" {
		t.Errorf("the job under two renewals says %q", out)
	}
	if n := s.certificates(); n < 3 {
		t.Errorf("%d certificates within two lives of one", n)
	}
	if n := s.connections(); n != 1 {
		t.Errorf("the agent has connected %d times, want one session", n)
	}

	if err := s.authority().RevokeNode("n1"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	waitFor(t, "n1 is out", 20*time.Second, func() bool { return s.nodeState("n1") == "unknown" })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it was thrown out after %v", took)
	}
	if out := agent.ended(t); !strings.Contains(out, "refuses the certificate of node n1") {
		t.Errorf("the revoked node's agent says:\n%s", out)
	}
	n := s.connections()
	if out := s.member(first).ended(t); !strings.Contains(out, "node n1") {
		t.Errorf("started again:\n%s", out)
	}
	if again := s.connections(); again != n {
		t.Errorf("a revoked node has connected %d times more", again-n)
	}
	s.member(s.joinToken(auth.JoinSpec{Node: "n1"}))
	waitFor(t, "n1 is idle, with another token", 20*time.Second, func() bool { return s.nodeState("n1") == "idle" })
}

// TestUpJoinEnds: what only people can mend ends the agent; a launcher that is
// away does not.
func TestUpJoinEnds(t *testing.T) {
	s := upLocal(t, "--no-nodes")
	other, err := auth.OpenCA(filepath.Join(t.TempDir(), "data"), auth.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := other.AddJoinToken(auth.JoinSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.member(stranger.Reveal()).ended(t); !strings.Contains(out, "not the launcher that made the join token") {
		t.Errorf("a token of another authority:\n%s", out)
	}
	info, gone, err := s.authority().AddJoinToken(auth.JoinSpec{})
	if err == nil {
		err = s.authority().RevokeJoinToken(info.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := s.member(gone.Reveal()).ended(t); !strings.Contains(out, "unknown join token") {
		t.Errorf("a token that is gone:\n%s", out)
	}
	token := s.joinToken(auth.JoinSpec{})
	s.stop()
	agent := s.member(token)
	waitFor(t, "the agent says that nobody listens", 20*time.Second, func() bool { return strings.Contains(agent.out.String(), "joining the launcher") })
	again := s.bed.up(s.data, "--tmpdir", s.base, "--no-nodes", "--listen", s.listen)
	waitFor(t, "n1 is idle", 40*time.Second, func() bool { return again.nodeState("n1") == "idle" })
	// A node that has joined does not depend on what it is started with.
	_ = agent.Process.Kill()
	<-agent.done
	again.member("")
	waitFor(t, "n1 has connected again", 20*time.Second, func() bool { return again.connections() == 2 && again.nodeState("n1") == "idle" })
}

// TestUpDeletedWhileAway: the files of a job, or a task, that is deleted while a node is away
// go when the node is back; those of others stay.
func TestUpDeletedWhileAway(t *testing.T) {
	s := upLocal(t, "--no-nodes")
	token := s.joinToken(auth.JoinSpec{})
	agent := s.member(token)
	waitFor(t, "n1 is idle", 20*time.Second, func() bool { return s.nodeState("n1") == "idle" })
	s.runs("stays", "echo one")
	s.runs("goes", "echo two")
	folders := func(id string) int {
		found, err := filepath.Glob(filepath.Join(s.base, "gangway-tasks-*", "workitems", id))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if folders("stays") != 1 || folders("goes") != 1 {
		t.Fatal("the jobs have left no files")
	}
	tasks := func(id string) int {
		found, err := filepath.Glob(filepath.Join(s.base, "gangway-tasks-*", "workitems", "stays", "job-*", id))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	c := s.overSocket()
	if status, body := s.ask(c, "", "POST", "/jobs/stays/tasks?"+apiVersion, `{"id":"u","commandLine":"echo three"}`); status != 201 {
		t.Fatalf("add: %d %s", status, body)
	}
	waitFor(t, "another task of the job is completed", 20*time.Second, func() bool {
		_, body := s.ask(c, "", "GET", "/jobs/stays/tasks/u?"+apiVersion, "")
		return strings.Contains(body, `"state":"completed"`)
	})
	if tasks("t") != 1 || tasks("u") != 1 {
		t.Fatal("the tasks have left no files")
	}
	// A job whose shims may still be there is not gone before its node is back.
	waitFor(t, "n1 has nothing left of them", 20*time.Second, func() bool { return s.nodeState("n1") == "idle" })
	_ = agent.Process.Kill()
	<-agent.done
	if status, body := s.ask(c, "", "DELETE", "/jobs/stays/tasks/u?"+apiVersion, ""); status != 200 {
		t.Fatalf("delete: %d %s", status, body)
	}
	if status, body := s.ask(c, "", "DELETE", "/jobs/goes?"+apiVersion, ""); status != 202 {
		t.Fatalf("delete: %d %s", status, body)
	}
	var last string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the job, at last: %s", last)
		}
	})
	waitFor(t, "the job is gone", 20*time.Second, func() bool {
		status, body := s.ask(c, "", "GET", "/jobs/goes?"+apiVersion, "")
		last = body
		return status == 404
	})
	if folders("goes") != 1 {
		t.Fatal("nobody was there to delete its files")
	}
	s.member(token)
	waitFor(t, "its files are gone", 20*time.Second, func() bool { return folders("goes") == 0 })
	waitFor(t, "the deleted task's files are gone", 20*time.Second, func() bool { return tasks("u") == 0 })
	if folders("stays") != 1 || tasks("t") != 1 {
		t.Error("another job's files are gone")
	}
}
