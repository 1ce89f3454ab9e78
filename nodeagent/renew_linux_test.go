package nodeagent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gangway/nodeagent/wire"
)

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the agent goes on")
		return nil
	}
}

// TestRenewal: an agent that a bridge has started ends at once for a launcher of
// another version, unless somebody uses it.
func TestRenewal(t *testing.T) {
	base := tempBase(t)
	done := startTestAgent(t, agentConfig(base))
	dialAs(t, &launcher{base: base, cluster: "newer", epoch: 1, renew: true})
	if err := ended(t, done); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestRenewalWaits(t *testing.T) {
	base := tempBase(t)
	done := startTestAgent(t, agentConfig(base))
	l, _ := dial(t, base, "c", 1)
	l.set(l.assignment("a", "stay", "0"))
	l.ready("a")
	dialAs(t, &launcher{base: base, cluster: "newer", epoch: 1, renew: true})
	l.close() // the launcher that has work here is away, its work is not
	back, inv := dialAs(t, &launcher{base: base, cluster: "c", epoch: 2, renew: true})
	if len(inv.GetShims()) != 1 {
		t.Fatalf("the inventory is %v, want the shim", inv)
	}
	select {
	case err := <-done:
		t.Fatalf("the agent ended with a shim: %v", err)
	default:
	}
	back.end("a")
	back.result("a")
	back.forget("a")
	back.gone("a")
	if err := ended(t, done); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestRenewalOfAStandingAgent: one that stands goes on until its own file is another.
func TestRenewalOfAStandingAgent(t *testing.T) {
	base := tempBase(t)
	exe := filepath.Join(base, "gangway")
	program := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program(exe)
	cfg := agentConfig(base)
	cfg.Executable, cfg.Standing = exe, true
	done := startTestAgent(t, cfg)
	l, _ := dialAs(t, &launcher{base: base, cluster: "newer", epoch: 1, renew: true, usage: 1000})
	for range 2 { // the agent's ticks are as far apart
		l.wait("usage", func(m *wire.AgentMessage) bool { return m.GetUsage() != nil })
	}
	program(exe + ".new")
	if err := os.Rename(exe+".new", exe); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, done); !errors.Is(err, ErrRenewed) {
		t.Errorf("ended with %v", err)
	}
}
