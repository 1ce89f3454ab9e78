package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/internal/lab"
)

// sleeper is a program without MPI that says it runs and sleeps.
var sleeper = []string{"sh", "-c", `echo "ready $GANGWAY_RANK"; sleep 300`}

// readyOn waits until n ranks of a run have said so.
func readyOn(t *testing.T, p *process, n int) {
	t.Helper()
	waitFor(t, "all ranks are ready", 40*time.Second, func() bool {
		select {
		case <-p.done:
			t.Fatalf("ended with status %d: %s", p.status(), p.err)
		default:
		}
		return strings.Count(p.out.String(), "ready") >= n
	})
}

// find returns the processes of host i whose arguments match.
func (b *bed) find(i int, match func(p lab.Proc) bool) []lab.Proc {
	b.t.Helper()
	procs, err := b.lab.Procs(i)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []lab.Proc
	for _, p := range procs {
		if p.Alive() && match(p) {
			out = append(out, p)
		}
	}
	return out
}

// role matches gangway's own processes by their subcommand.
func role(name string) func(lab.Proc) bool {
	return func(p lab.Proc) bool { return len(p.Args) > 1 && p.Args[1] == name }
}

func program(word string) func(lab.Proc) bool {
	return func(p lab.Proc) bool { return len(p.Args) > 0 && filepath.Base(p.Args[0]) == word }
}

func (b *bed) killOne(i int, what string, match func(lab.Proc) bool) {
	b.t.Helper()
	found := b.find(i, match)
	if len(found) == 0 {
		b.t.Fatalf("no %s on n%d", what, i)
	}
	if err := syscall.Kill(found[0].PID, syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
}

func TestHostsHello(t *testing.T) {
	for _, c := range []struct{ cc, mpi string }{
		{"mpicc.mpich", "mpich"},
		{"mpicc.openmpi", "openmpi"},
		{"../../.cache/venv-intel/bin/mpicc", "intel"},
		{"../../.cache/venv-mpich5/bin/mpicc", "mpich"},
		{"../../.cache/venv-ompi5/bin/mpicc", "openmpi"},
	} {
		t.Run(strings.Trim(strings.ReplaceAll(c.cc, "/", "_"), "._"), func(t *testing.T) {
			prog := hello(t, c.cc)
			b := hosts(t, 4)
			planned, _ := b.want(0, "plan", "--hosts", "n[1-4]", "--json", "--", prog)
			if want := `"mpi": "` + c.mpi + `"`; !strings.Contains(planned, want) {
				t.Fatalf("the plan does not have %s:\n%s", want, planned)
			}
			before := b.counters()
			out := b.mpi([]string{"OMPI_MCA_btl=tcp,self"}, "run", "--hosts", "n[1-4]", "--ppn", "2",
				"-x", "UCX_TLS=tcp,self", "-x", "UCX_NET_DEVICES=eth0", "-x", "OMPI_MCA_btl=tcp,self", "-x", "FI_PROVIDER=tcp", "-x", "HELLO_BYTES=100000", "--", prog)
			where := helloLines(t, out, 8)
			for r, w := range where {
				host, cpus, _ := strings.Cut(w, " ")
				if want := "n" + string(rune('1'+r/2)); host != want {
					t.Errorf("rank %d runs on %s, want %s", r, host, want)
				}
				if strings.ContainsAny(cpus, ",-") {
					t.Errorf("rank %d is on cpus %s, want one core", r, cpus)
				}
			}
			for i, n := range b.counters() {
				if i > 0 && n-before[i] < 100_000 {
					t.Errorf("n%d's interface carried %d bytes: the ranks did not use it", i, n-before[i])
				}
			}
		})
	}
}

// counters are the bytes that each host's interface has carried.
func (b *bed) counters() []uint64 {
	var out []uint64
	for i := 0; i <= b.lab.Len(); i++ {
		rx, tx, err := b.lab.Bytes(i)
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, rx+tx)
	}
	return out
}

func TestHostsCopyOfTheProgram(t *testing.T) {
	b := hosts(t, 2, lab.PrivateHome())
	out, _ := b.want(0, "run", "--hosts", "n[1-2]", "-D", "/", "--", "hostname")
	got := lines(out)
	slices.Sort(got)
	if strings.Join(got, " ") != "n1 n2" {
		t.Fatalf("got %q", got)
	}
}

func TestHostsBcast(t *testing.T) {
	b := hosts(t, 2)
	// A program that only the launcher's host has: its /tmp is its own.
	src := filepath.Join(b.lab.Launcher().Root(), "tmp", "only-here")
	if err := os.WriteFile(src, []byte("#!/bin/sh\necho from $(hostname)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(src)
	_, errs := b.want(127, "run", "--hosts", "n[1-2]", "-D", "/", "--", "/tmp/only-here")
	if !strings.Contains(errs, "n1") && !strings.Contains(errs, "n2") {
		t.Errorf("the node without the program is not named: %s", errs)
	}
	out, _ := b.want(0, "run", "--hosts", "n[1-2]", "-D", "/", "--bcast", "--", "/tmp/only-here")
	got := lines(out)
	slices.Sort(got)
	if strings.Join(got, ",") != "from n1,from n2" {
		t.Fatalf("got %q", got)
	}
}

func TestHostsPrimary(t *testing.T) {
	prog := hello(t, "mpicc.mpich")
	b := hosts(t, 3)
	out := b.mpi(nil, "run", "--hosts", "n[1-3]", "--ppn", "1", "--launch", "primary", "-x", "UCX_TLS=tcp,self", "-x", "UCX_NET_DEVICES=eth0",
		"--", "sh", "-c", "mpiexec.mpich -n 3 "+prog+" && echo script done on $(hostname)")
	where := helloLines(t, out, 3)
	for r, w := range where {
		if want := "n" + string(rune('1'+r)) + " "; !strings.HasPrefix(w, want) {
			t.Errorf("rank %d runs on %s, want %s", r, w, want)
		}
	}
	if !strings.Contains(out, "script done on n1") {
		t.Errorf("the script did not end on the first node:\n%s", out)
	}
}

// Whatever ends under a gang of sleepers on three hosts, the gang is soon gone;
// TestHostsAutopsy has the rest of what can be killed.
func TestHostsDeaths(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(b *bed, p *process)
		within time.Duration
		status int // -1: any failure
		names  string
		dead   int // host that can't be looked at afterwards
	}{
		{"host destroyed", func(b *bed, _ *process) {
			if err := b.lab.Destroy(2); err != nil {
				b.t.Fatal(err)
			}
		}, 10 * time.Second, 125, "n2", 2},
		{"launcher", func(b *bed, p *process) { _ = p.Process.Kill() }, 15 * time.Second, -1, "", 0},
		{"interrupt", func(b *bed, p *process) { _ = p.Process.Signal(os.Interrupt) }, 5 * time.Second, 130, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := hosts(t, 3)
			p := b.start(nil, nil, append([]string{"run", "--hosts", "n[1-3]", "-D", "/", "--"}, sleeper...)...)
			readyOn(t, p, 3)
			from := time.Now()
			c.do(b, p)
			gone := goneWithin(b, from, c.within, c.dead)
			status := p.status()
			if c.status >= 0 && status != c.status || status == 0 {
				t.Errorf("exit status %d, want %d; %s", status, c.status, p.err)
			}
			if !strings.Contains(p.err.String(), c.names) {
				t.Errorf("%q is not named in: %s", c.names, p.err)
			}
			t.Logf("gone after %v, gangway after %v", gone.Round(10*time.Millisecond), time.Since(from).Round(10*time.Millisecond))
		})
	}
}

// goneWithin waits until no rank of a gang of n1 to n3 is left, on the host that
// is dead excepted, and fails if this took longer.
func goneWithin(b *bed, from time.Time, within time.Duration, dead int) time.Duration {
	b.t.Helper()
	for i := 1; i <= 3; i++ {
		if i == dead {
			continue
		}
		waitFor(b.t, fmt.Sprintf("no rank is left on n%d", i), within+time.Second-time.Since(from), func() bool {
			return len(b.find(i, program("sleep"))) == 0
		})
	}
	gone := time.Since(from)
	if gone > within {
		b.t.Errorf("the gang was gone after %v, want %v", gone, within)
	}
	return gone
}

func TestHostsAgentKilled(t *testing.T) {
	b := hosts(t, 2)
	p := b.start(nil, nil, "run", "--hosts", "n[1-2]", "-D", "/", "--label", "--", "sh", "-c",
		`echo "ready"; i=0; while [ $i -lt 140 ]; do i=$((i+1)); echo line $i; sleep 0.1; done`)
	readyOn(t, p, 2)
	b.killOne(1, "agent", role("agent"))
	out := p.out.wait(p)
	if p.status() != 0 {
		t.Fatalf("status %d: %s", p.status(), p.err)
	}
	for _, r := range []string{"[0]", "[1]"} {
		var want, got []string
		want = append(want, r+" ready")
		for i := 1; i <= 140; i++ {
			want = append(want, r+" line "+strconv.Itoa(i))
		}
		for _, l := range lines(out) {
			if strings.HasPrefix(l, r) {
				got = append(got, l)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("rank %s: %d lines, want %d, or out of order", r, len(got), len(want))
		}
	}
}

func TestHostsStdinSurvivesTheAgent(t *testing.T) {
	b := hosts(t, 1)
	f := filepath.Join(t.TempDir(), "in")
	var want strings.Builder
	for i := range 200_000 {
		want.WriteString("line " + strconv.Itoa(i) + "\n")
	}
	if err := os.WriteFile(f, []byte(want.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	// The program takes its time, so that the agent dies in the middle.
	p := b.start(in, nil, "run", "--hosts", "n1", "-D", "/", "--", "sh", "-c", `echo ready >&2; i=0; while [ $i -lt 30 ]; do head -c 65536; sleep 0.05; i=$((i+1)); done; cat`)
	waitFor(t, "output comes", 30*time.Second, func() bool { return strings.Contains(p.out.String(), "line 5000") })
	b.killOne(1, "agent", role("agent"))
	if out := p.out.wait(p); out != want.String() || p.status() != 0 {
		t.Fatalf("%d bytes came back of %d, status %d: %s", len(out), want.Len(), p.status(), p.err)
	}
}

func TestHostsBadInput(t *testing.T) {
	t.Run("unknown host", func(t *testing.T) {
		b := hosts(t, 1)
		_, errs := b.want(125, "run", "--hosts", "nosuchhost", "--", "true")
		if !strings.Contains(errs, "nosuchhost") {
			t.Errorf("the host is not named: %s", errs)
		}
	})
	t.Run("unreachable host", func(t *testing.T) {
		b := hosts(t, 2)
		if err := b.lab.Destroy(2); err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		_, errs := b.want(125, "run", "--hosts", "n[1-2]", "--", "true")
		if !strings.Contains(errs, "n2") || time.Since(from) > 20*time.Second {
			t.Errorf("after %v: %s", time.Since(from), errs)
		}
	})
	t.Run("changed host key", func(t *testing.T) {
		b := hosts(t, 1, lab.BadHostKey(1))
		_, errs := b.want(125, "run", "--hosts", "n1", "--", "true")
		if !strings.Contains(errs, "key") || !strings.Contains(errs, "known_hosts") {
			t.Errorf("the changed key is not explained: %s", errs)
		}
	})
	t.Run("unknown host key", func(t *testing.T) {
		b := hosts(t, 1, lab.UnknownHostKey(1))
		_, errs := b.want(125, "run", "--hosts", "n1", "--", "true")
		if !strings.Contains(errs, "ssh-keyscan") && !strings.Contains(errs, "ssh n1") {
			t.Errorf("the fix is not named: %s", errs)
		}
	})
	t.Run("full disk", func(t *testing.T) {
		b := hosts(t, 2, lab.SmallTmp(64<<10, 2))
		full := filepath.Join(b.lab.Host(2).Root(), "tmp", "full")
		_ = os.WriteFile(full, make([]byte, 1<<20), 0o600)
		_, errs := b.want(125, "run", "--hosts", "n[1-2]", "-D", "/", "--", "true")
		_ = os.Remove(full)
		if !strings.Contains(errs, "n2") || !strings.Contains(errs, "space") && !strings.Contains(errs, "full") {
			t.Errorf("the full disk of n2 is not named: %s", errs)
		}
	})
	t.Run("two runs share the cores", func(t *testing.T) {
		b := hosts(t, 1)
		p := b.start(nil, nil, append([]string{"run", "--hosts", "n1", "--ppn", "2", "-D", "/", "--"}, sleeper...)...)
		readyOn(t, p, 2)
		q := b.start(nil, nil, "run", "--hosts", "n1", "-D", "/", "--name", "second", "--", "echo", "at last")
		waitFor(t, "the second run says what it waits for", 20*time.Second, func() bool { return strings.Contains(q.err.String(), "waiting") })
		c := b.lab.Launcher().Command(context.Background(), b.bin, "explain", "second", "--json")
		ex, err := c.Output()
		if err != nil || !strings.Contains(string(ex), `"code"`) || !strings.Contains(string(ex), "claimed") {
			t.Errorf("explain: %v %s", err, ex)
		}
		_ = p.Process.Signal(os.Interrupt)
		if out := q.out.wait(q); q.status() != 0 || !strings.Contains(out, "at last") {
			t.Errorf("the second run: status %d, %q, %s", q.status(), out, q.err)
		}
	})
}
