package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// helloLines checks the output of examples/hello for n ranks.
func helloLines(t *testing.T, out string, n int) map[int]string {
	t.Helper()
	re := regexp.MustCompile(`(?m)^hello (\d+)/(\d+) on (\S+) cpus (\S+)`)
	where := map[int]string{}
	for _, m := range re.FindAllStringSubmatch(out, -1) {
		var r int
		fmt.Sscan(m[1], &r)
		if m[2] != fmt.Sprint(n) {
			t.Fatalf("rank %d sees %s ranks, want %d\n%s", r, m[2], n, out)
		}
		where[r] = m[3] + " " + m[4]
	}
	if len(where) != n {
		t.Fatalf("%d ranks said hello, want %d:\n%s", len(where), n, out)
	}
	if want := fmt.Sprintf("sum %d of %d ranks", n*(n-1)/2, n); !strings.Contains(out, want) {
		t.Fatalf("no %q in:\n%s", want, out)
	}
	return where
}

func TestLocalHello(t *testing.T) {
	for _, cc := range []string{"mpicc.mpich", "mpicc.openmpi"} {
		t.Run(cc, func(t *testing.T) {
			prog := hello(t, cc)
			b := local(t)
			out, _ := b.want(0, "run", "-n", "4", "--oversubscribe", "--", prog)
			helloLines(t, out, 4)
		})
	}
}

func TestLocalWithoutMPI(t *testing.T) {
	b := local(t)
	out, errs := b.want(0, "run", "-n", "3", "--oversubscribe", "--label", "--mpi", "none", "--", "sh", "-c", "echo hi; echo oops >&2")
	got := lines(out)
	slices.Sort(got)
	if want := "[0] hi|[1] hi|[2] hi"; strings.Join(got, "|") != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if n := strings.Count(errs, "oops"); n != 3 {
		t.Errorf("stderr has %d lines of the ranks, want 3: %q", n, errs)
	}
}

func TestExitStatus(t *testing.T) {
	b := local(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\nexit 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		status int
		stderr string
		args   []string
	}{
		{"success", 0, "", []string{"run", "--", "true"}},
		{"exit code", 7, "", []string{"run", "--", "sh", "-c", "exit 7"}},
		{"signal", 128 + 9, "", []string{"run", "--", "sh", "-c", "kill -9 $$"}},
		{"not found", 127, "no-such-program", []string{"run", "--", "no-such-program"}},
		{"not executable", 126, "chmod", []string{"run", "--", plain}},
		{"no command", 2, "no command", []string{"run", "-n", "2"}},
		{"no ranks", 2, "-n 0", []string{"run", "-n", "0", "--", "true"}},
		{"unknown flag", 2, "unknown flag", []string{"run", "--frobnicate", "--", "true"}},
		{"unknown command", 2, "unknown command", []string{"frobnicate"}},
		{"empty hostlist", 2, "--hosts is empty", []string{"run", "--hosts", "", "--", "true"}},
		{"empty hostfile", 2, "--hostfile is empty", []string{"plan", "--hostfile", "", "--", "true"}},
		{"bad hostlist", 2, "n[1-", []string{"run", "--hosts", "n[1-", "--", "true"}},
		{"bad mpi", 2, "--mpi", []string{"run", "--mpi", "lam", "--", "true"}},
		{"too many ranks", 125, "--oversubscribe", []string{"run", "-n", "4096", "--", "true"}},
		{"no directory", 125, "no/such/dir", []string{"run", "-D", "/no/such/dir", "--", "true"}},
		{"time limit", 124, "time limit", []string{"run", "--time", "300ms", "--kill-grace", "100ms", "--", "sleep", "60"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bb := *b
			bb.t = t
			_, errs := bb.want(c.status, c.args...)
			if !strings.Contains(errs, c.stderr) {
				t.Errorf("stderr does not name %q:\n%s", c.stderr, errs)
			}
		})
	}
}

func TestStdinGoesToRankZero(t *testing.T) {
	b := local(t)
	f := filepath.Join(t.TempDir(), "in")
	want := strings.Repeat("0123456789abcdef\n", 100_000)
	if err := os.WriteFile(f, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p := b.start(in, nil, "run", "-n", "2", "--oversubscribe", "--mpi", "none", "--", "cat")
	if out := p.out.wait(p); out != want || p.status() != 0 {
		t.Fatalf("got %d bytes, want %d; status %d; %s", len(out), len(want), p.status(), p.err)
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	b := local(t)
	p := b.start(nil, nil, "run", "--mpi", "none", "--", "sh", "-c", `trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done`)
	waitFor(t, "the program is ready", 20*time.Second, func() bool { return strings.Contains(p.out.String(), "ready") })
	if err := p.Process.Signal(usr1); err != nil {
		t.Fatal(err)
	}
	if out := p.out.wait(p); !strings.Contains(out, "got") || p.status() != 5 {
		t.Fatalf("output %q, status %d, %s", out, p.status(), p.err)
	}
}

func TestInterrupt(t *testing.T) {
	b := local(t)
	p := b.start(nil, nil, "run", "--mpi", "none", "--", "sh", "-c", `trap '' INT; echo ready; while :; do sleep 0.05; done`)
	waitFor(t, "the program is ready", 20*time.Second, func() bool { return strings.Contains(p.out.String(), "ready") })
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if p.status() != 130 {
		t.Fatalf("status %d, want 130; %s", p.status(), p.err)
	}
	b.nothingLeft(2 * time.Second)
}

// A terminal's Ctrl-C goes to the whole process group.
func TestInterruptOfTheGroup(t *testing.T) {
	b := local(t)
	p := b.startGroup("run", "--mpi", "none", "--", "sh", "-c", `trap 'echo trapped; exit 7' INT; echo ready; while :; do sleep 0.05; done`)
	waitFor(t, "the program is ready", 20*time.Second, func() bool { return strings.Contains(p.out.String(), "ready") })
	interruptGroup(t, p.Process.Pid)
	if out := p.out.wait(p); p.status() != 7 || !strings.Contains(out, "trapped") {
		t.Fatalf("status %d, want 7; %q %s", p.status(), out, p.err)
	}
}

func TestLauncherKilled(t *testing.T) {
	b := local(t)
	p := b.start(nil, nil, "run", "--mpi", "none", "--", "sh", "-c", `echo ready; sleep 300`)
	waitFor(t, "the program is ready", 20*time.Second, func() bool { return strings.Contains(p.out.String(), "ready") })
	_ = p.Process.Kill()
	b.nothingLeft(15 * time.Second)
}

func TestOutputIsWholeAndInOrder(t *testing.T) {
	b := local(t)
	const n = 6_000_000 // numbered lines, about 50 MB a rank
	p := b.start(nil, nil, "run", "-n", "2", "--oversubscribe", "--mpi", "none", "--label", "--", "sh", "-c", fmt.Sprintf("seq 1 %d", n))
	out := p.out.wait(p)
	if p.status() != 0 {
		t.Fatalf("status %d: %s", p.status(), p.err)
	}
	next := map[string]int{"[0]": 1, "[1]": 1}
	for line := range strings.Lines(out) {
		rank, num, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if num != fmt.Sprint(next[rank]) {
			t.Fatalf("rank %s: line %q where %d was due", rank, num, next[rank])
		}
		next[rank]++
	}
	for r, got := range next {
		if got != n+1 {
			t.Errorf("rank %s ended at %d, want %d", r, got-1, n)
		}
	}
}

func TestPlanIsWhatRunUses(t *testing.T) {
	prog := hello(t, "mpicc.mpich")
	b := local(t)
	out, _ := b.want(0, "plan", "-n", "2", "--oversubscribe", "--json", "--", prog)
	var d planDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(d.Ranks) != 2 || len(d.Nodes) != 1 || d.Hostfile == "" || len(d.Argv) == 0 || d.MPI != "mpich" {
		t.Fatalf("plan %+v", d)
	}
	said, _ := b.want(0, "run", "-n", "2", "--oversubscribe", "--", prog)
	where := helloLines(t, said, 2)
	for _, r := range d.Ranks {
		if _, cpus, _ := strings.Cut(where[r.Rank], " "); cpus != r.CPUs {
			t.Errorf("rank %d runs on %s, the plan says %s", r.Rank, cpus, r.CPUs)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	b := local(t)
	_, errs := b.want(2, "--json", "run", "-n", "0", "--", "true")
	var v struct{ Type, Error, Hint string }
	if err := json.Unmarshal([]byte(errs), &v); err != nil || v.Type != "error" || v.Error == "" || v.Hint == "" {
		t.Fatalf("%v: %q", err, errs)
	}
}
