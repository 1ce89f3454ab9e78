package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"gangway/launcher/auth"
)

// idleAgent measures a real agent that has joined and has nothing to do but to
// send samples.
func idleAgent(ctx context.Context, l *launcher, dir string, quiet time.Duration) (err error) {
	ca, err := auth.OpenCA(l.data, auth.CAOptions{})
	if err != nil {
		return err
	}
	_, token, err := ca.AddJoinToken(auth.JoinSpec{Uses: 1})
	if err != nil {
		return err
	}
	secret := filepath.Join(dir, "token")
	if err := os.WriteFile(secret, []byte(token.Reveal()), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(l.bin, "agent", "--tmpdir", dir, "--join", "https://"+l.addr, "--token-file", secret, "--name", "idle", "--identity", filepath.Join(dir, "idle"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		down := l.wait(ctx, time.Minute, func() (bool, error) {
			n, err := l.gauge(ctx, `gangway_nodes{state="up"}`)
			return n == 0, err
		})
		err = errors.Join(err, down)
	}()
	if err := l.wait(ctx, time.Minute, func() (bool, error) {
		n, err := l.gauge(ctx, `gangway_nodes{state="up"}`)
		return n == 1, err
	}); err != nil {
		return err
	}
	begin, cpu := time.Now(), cpuOf(cmd.Process.Pid)
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
		return ctx.Err()
	}
	used := cpuOf(cmd.Process.Pid) - cpu
	row("idle agent, resident", mib(statusOf(cmd.Process.Pid, "VmRSS")))
	row(fmt.Sprintf("idle agent over %v, share of a core", quiet), fmt.Sprintf("%.2f %%", 100*used.Seconds()/time.Since(begin).Seconds()))
	return nil
}
