//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func run(t *testing.T, h *Host, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := h.Command(ctx, "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("on %s: %s: %v\n%s", h.Name(), script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestHostsAreSeparate(t *testing.T) {
	l := New(t, 2)
	for i := range 3 {
		h := l.Host(i)
		if got, want := run(t, h, "hostname"), fmt.Sprintf("n%d", i); got != want {
			t.Errorf("host name %q, want %q", got, want)
		}
		if got := run(t, h, "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 lo" {
			t.Errorf("interfaces in %s's sysfs: %q, want eth0 and lo", h.Name(), got)
		}
		if got := run(t, h, "readlink /proc/self/ns/pid && test -r /proc/$$/stat && echo ok"); !strings.HasSuffix(got, "ok") {
			t.Errorf("%s's /proc does not show its own processes: %s", h.Name(), got)
		}
		run(t, h, "echo mine-$(hostname) >/tmp/mark; touch /dev/shm/mark /run/mark")
	}
	if _, err := os.Stat("/tmp/mark"); err == nil {
		t.Error("a host's /tmp is the builder's")
	}
	if got := run(t, l.Host(2), "cat /tmp/mark"); got != "mine-n2" {
		t.Errorf("n2's /tmp holds %q", got)
	}
	files, err := l.Files(1)
	if err != nil || !slices.Equal(files, []string{"/dev/shm/mark", "/run/mark", "/tmp/mark"}) {
		t.Errorf("files on n1: %v, %v", files, err)
	}
	if a, b := run(t, l.Host(1), "cat /proc/sys/kernel/random/boot_id"), run(t, l.Host(2), "cat /proc/sys/kernel/random/boot_id"); a == b {
		t.Errorf("two hosts with one boot id %s", a)
	}
	if fi, err := os.Stat("/sys/fs/cgroup"); err == nil && fi.IsDir() {
		want, _ := os.ReadDir("/sys/fs/cgroup")
		if got := strings.Fields(run(t, l.Host(1), "ls -A /sys/fs/cgroup")); len(got) != len(want) {
			t.Errorf("cgroup mounts in a host: %v, want %d entries", got, len(want))
		}
	}
}

func TestSharedDirectories(t *testing.T) {
	l := New(t, 1)
	mine := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(mine, []byte("#!/bin/sh\necho ran on $(hostname)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := run(t, l.Host(1), mine); got != "ran on n1" {
		t.Errorf("a program in the test's directory: %q", got)
	}
	run(t, l.Host(1), "echo x >"+l.Dir()+"/note; echo y >$HOME/note")
	if got := run(t, l.Launcher(), "cat "+l.Dir()+"/note ~/note | tr -d '\\n'"); got != "xy" {
		t.Errorf("shared directory and home: %q, want xy", got)
	}
}

func TestSSH(t *testing.T) {
	l := New(t, 4, PrivateHome(), BadHostKey(2), UnknownHostKey(3), SmallTmp(1<<20, 4))
	if got := run(t, l.Launcher(), "ssh -o BatchMode=yes n1 hostname"); got != "n1" {
		t.Errorf("ssh n1 hostname: %q", got)
	}
	for host, want := range map[string]string{"n2": "IDENTIFICATION HAS CHANGED", "n3": "Host key verification failed"} {
		out, err := l.Launcher().Command(t.Context(), "ssh", "-o", "BatchMode=yes", host, "true").CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("ssh %s: %v, want an error with %q, got:\n%s", host, err, want, out)
		}
	}
	run(t, l.Host(1), "echo only here >~/note")
	if got := run(t, l.Launcher(), "ls ~"); got != "" {
		t.Errorf("n0's home shows n1's: %q", got)
	}
	out, err := l.Host(4).Command(t.Context(), "dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=2").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("No space left")) {
		t.Errorf("2 MiB in a /tmp of 1 MiB: %v: %s", err, out)
	}
}

func TestCountersCutAndMend(t *testing.T) {
	l := New(t, 2)
	reach := func() bool {
		// A dialled port, not ping: that may not be installed.
		err := l.Host(1).Command(t.Context(), "ssh", "-o", "ConnectTimeout=1", "-o", "BatchMode=yes", "n2", "true").Run()
		return err == nil
	}
	_, before, err := l.Bytes(1)
	if err != nil {
		t.Fatal(err)
	}
	if !reach() {
		t.Fatal("n1 can't reach n2")
	}
	if _, after, err := l.Bytes(1); err != nil || after < before+500 {
		t.Errorf("n1 sent %d bytes, then %d, %v: an ssh session is more", before, after, err)
	}
	if err := l.Cut(2); err != nil {
		t.Fatal(err)
	}
	if reach() {
		t.Error("n2 answers though it is cut off")
	}
	if got := run(t, l.Host(2), "cat /sys/class/net/eth0/carrier"); got != "1" {
		t.Errorf("the cut host sees its carrier go: %q", got)
	}
	if err := l.Mend(2); err != nil {
		t.Fatal(err)
	}
	if !reach() {
		t.Error("n2 does not answer after Mend")
	}
}

func TestSignalsReachTheProgram(t *testing.T) {
	l := New(t, 1)
	cmd := l.Host(1).Command(t.Context(), "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do read x; done")
	in, _ := cmd.StdinPipe()
	defer in.Close()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 3))
	procs, err := l.Procs(1)
	if err != nil || len(procs) != 1 || procs[0].PID != cmd.Process.Pid || procs[0].InnerPID == cmd.Process.Pid {
		t.Errorf("processes of n1: %+v, %v; want the one started, pid %d", procs, err, cmd.Process.Pid)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	in.Write([]byte("\n"))
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 9 {
		t.Errorf("exit status %d, want 9 from the program's own handler", got)
	}
}

func TestDestroy(t *testing.T) {
	l := New(t, 2)
	// A daemon: its parent is gone, it has a session of its own.
	run(t, l.Host(1), "setsid sleep 1000 >/dev/null 2>&1 &")
	// A process that the builder started and has not waited for.
	cmd := l.Host(1).Command(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if procs, err := l.Procs(1); err != nil || len(procs) != 2 {
		t.Fatalf("processes of n1: %+v, %v; want two sleeps", procs, err)
	}
	pid := l.Host(1).keeper.pid
	if err := l.Destroy(1); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if procs, err := l.Procs(1); err != nil || len(procs) != 0 {
		t.Errorf("processes of a destroyed host: %+v, %v", procs, err)
	}
	if files, err := l.Files(1); err != nil || len(files) != 0 {
		t.Errorf("files of a destroyed host: %v, %v", files, err)
	}
	if err := l.Host(1).Command(t.Context(), "true").Run(); err == nil {
		t.Error("a destroyed host runs a command")
	}
	if got := run(t, l.Host(2), "hostname"); got != "n2" {
		t.Errorf("the other host: %q", got)
	}
	if err := l.Destroy(1); err != nil {
		t.Errorf("destroy again (keeper %d): %v", pid, err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	l := New(t, 1)
	run(t, l.Host(1), "(true & true &) ; (sleep 0.01 &) ; sleep 0.1")
	procs, err := l.Procs(1)
	if err != nil || len(procs) != 0 {
		t.Errorf("left on n1: %+v, %v", procs, err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	start := time.Now()
	l, err := Up(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("8 hosts and the launcher's up in %v", time.Since(start))
	run(t, l.Host(3), "setsid sleep 1000 >/dev/null 2>&1 &")
	var ids []string
	for _, h := range l.hosts {
		ids = append(ids, h.keeper.ids)
	}
	start = time.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("down in %v", time.Since(start))
	for i, id := range ids {
		if procs, err := procsOf(id); err != nil || slices.ContainsFunc(procs, Proc.Alive) {
			t.Errorf("left of n%d: %+v, %v", i, procs, err)
		}
	}
	if _, err := os.Stat(l.Dir()); err == nil {
		t.Errorf("%s is left", l.Dir())
	}
}

// TestBuilderKilled builds a lab in a child, kills it, and looks for the rest.
func TestBuilderKilled(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	if os.Getenv("LAB_TEST_BUILDER") == "1" {
		l, err := Up(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("lab %s %s\n", l.Dir(), l.Host(1).keeper.ids)
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBuilderKilled$")
	cmd.Env = append(os.Environ(), "LAB_TEST_BUILDER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, ids string
	if _, err := fmt.Fscanf(out, "lab %s %s\n", &dir, &ids); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for {
		procs, err := procsOf(ids)
		if err != nil {
			t.Fatal(err)
		}
		if len(procs) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left of a killed builder's host: %+v", procs)
		}
		time.Sleep(5 * time.Millisecond)
	}
	sweep()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("the sweep leaves %s", dir)
	}
}

func TestDetached(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	dir := filepath.Join(t.TempDir(), "lab")
	up, err := Up(t.Context(), 1, Dir(dir), Detached())
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if _, err := Up(t.Context(), 1, Dir(dir)); err == nil {
		t.Error("a second lab in one directory")
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, l.Launcher(), "ssh -o BatchMode=yes n1 hostname"); got != "n1" {
		t.Errorf("ssh n1 hostname in a lab found again: %q", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a closed lab opens")
	}
}

func TestRecreate(t *testing.T) {
	l := New(t, 2)
	boot := run(t, l.Host(1), "cat /proc/sys/kernel/random/boot_id")
	run(t, l.Host(1), "touch /tmp/here")
	run(t, l.Host(2), "ssh n1 true")
	if err := l.Recreate(t.Context(), 1); err == nil {
		t.Error("a host that runs was booted again")
	}
	for range 2 {
		if err := l.Destroy(1); err != nil {
			t.Fatal(err)
		}
		if err := l.Recreate(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if got := run(t, l.Host(2), "ssh n1 hostname"); got != "n1" {
			t.Errorf("by ssh there is %q, want n1", got)
		}
		now := run(t, l.Host(1), "cat /proc/sys/kernel/random/boot_id")
		if now == boot {
			t.Errorf("boot id %s as before", now)
		}
		boot = now
		if files, err := l.Files(1); err != nil || len(files) != 0 {
			t.Errorf("files of a host just booted: %v, %v", files, err)
		}
	}
}
