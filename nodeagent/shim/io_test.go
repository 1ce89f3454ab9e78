//go:build linux

package shim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/nodeagent/wire"
)

// TestOutputVolume sends 2 × 50 MB through shim and agent, whose connection is
// replaced on the way, and compares every byte.
func TestOutputVolume(t *testing.T) {
	for _, mpi := range []string{"none", "mpich"} {
		t.Run(mpi, func(t *testing.T) {
			if mpi != "none" {
				hello(t, "mpicc."+mpi)
			}
			a := ranks(assignment(t, "/bin/sh", "-c", "seq -f \"$GANGWAY_RANK %.0f xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" 900000; echo done >&2"), 2)
			a.Mpi = mpi
			m := startMember(t, a, 0)
			begin := time.Now()
			m.launch()
			for i := range 6 {
				m.until("some output", 60*time.Second, func() bool { return m.end > uint64(i+1)<<23 })
				m.reconnect()
			}
			r := m.awaitResult()
			d := time.Since(begin)
			if r.GetExitCode() != 0 || r.GetFailure() != nil {
				t.Fatalf("result %v", r)
			}
			m.until("ends of the streams", time.Second, func() bool { return m.eofs["0/0"] && m.eofs["1/0"] && m.eofs["0/1"] && m.eofs["1/1"] })
			for rank := range 2 {
				var want bytes.Buffer
				for i := 1; i <= 900000; i++ {
					fmt.Fprintf(&want, "%d %d xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n", rank, i)
				}
				got := m.out[fmt.Sprintf("%d/0", rank)]
				if len(got) != want.Len() || sha256.Sum256(got) != sha256.Sum256(want.Bytes()) {
					t.Errorf("rank %d: %d bytes, want %d", rank, len(got), want.Len())
				}
				if m.stderr(rank) != "done\n" {
					t.Errorf("rank %d: stderr %q", rank, m.stderr(rank))
				}
			}
			t.Logf("%.0f MB in %v", float64(m.end)/1e6, d)
			m.forget()
		})
	}
}

// TestBackpressure holds that an agent which takes nothing stops the ranks, not
// the memory.
func TestBackpressure(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", "head -c 50000000 /dev/zero")
	a.Mpi = "none"
	m := startMember(t, a, 0)
	m.noAck = true
	m.launch()
	m.until("a full window", 20*time.Second, func() bool { return m.end > window-2*chunkSize })
	m.mu.Lock()
	if m.end > window {
		t.Errorf("%d unacknowledged bytes, the window is %d", m.end, window)
	}
	m.noAck = false
	end := m.end
	m.mu.Unlock()
	m.send(&wire.ToShim{M: &wire.ToShim_OutputAck{OutputAck: &wire.OutputAck{Offset: end}}})
	m.awaitResult()
	if m.end != 50000000 {
		t.Errorf("%d bytes", m.end)
	}
	m.forget()
}

func TestStdin(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB
	for _, c := range []struct {
		name, cmd string
		want      string
	}{
		{"all", "if [ $GANGWAY_RANK = 0 ]; then sha256sum; else wc -c; fi", fmt.Sprintf("%x  -\n", sha256.Sum256(in))},
		{"closes early", "if [ $GANGWAY_RANK = 0 ]; then head -n 1; exec 0<&-; sleep 0.2; else wc -c; fi", "0123456789abcde\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ranks(assignment(t, "/bin/sh", "-c", c.cmd), 2)
			a.Mpi, a.Stdin = "none", true
			m := startMember(t, a, 0)
			m.launch()
			sent := uint64(0)
			for sent < uint64(len(in)) {
				var credit uint64
				over := false // the ranks that read no more may end first
				m.until("credit", 10*time.Second, func() bool {
					credit, over = m.credit, m.result != nil
					return credit > sent || over
				})
				if credit <= sent {
					break
				}
				if credit > sent+2*stdinWindow {
					t.Fatalf("credit up to %d with %d sent", credit, sent)
				}
				to := min(credit, uint64(len(in)), sent+10000)
				m.send(&wire.ToShim{M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{Offset: sent, Data: in[sent:to]}}})
				// A new agent says some of it again.
				back := min(sent, 100)
				m.send(&wire.ToShim{M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{Offset: sent - back, Data: in[sent-back : to]}}})
				sent = to
			}
			m.send(&wire.ToShim{M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{Offset: sent, Eof: true}}})
			r := m.awaitResult()
			if r.GetExitCode() != 0 || m.stdout(0) != c.want || strings.TrimSpace(m.stdout(1)) != "0" {
				t.Errorf("result %v\nrank 0 %q\nrank 1 %q", r, m.stdout(0), m.stdout(1))
			}
			m.forget()
		})
	}
}

// TestHeldPipe holds that what a rank leaves behind does not hold up the end.
func TestHeldPipe(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", "(setsid sleep 600; echo never) & echo first; exit 0")
	a.Mpi = "none"
	begin := time.Now()
	m, r := run(t, a)
	if r.GetExitCode() != 0 || m.stdout(0) != "first\n" {
		t.Errorf("result %v, said %q", r, m.stdout(0))
	}
	if d := time.Since(begin); d > 10*time.Second { // the sleep is 600
		t.Errorf("the end took %v", d)
	}
}

// TestInteractive holds that an unfinished line is not held back.
func TestInteractive(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", "printf 'name? '; read x; echo hello $x")
	a.Mpi, a.Stdin = "none", true
	m := startMember(t, a, 0)
	m.launch()
	m.until("prompt", 5*time.Second, func() bool { return string(m.out["0/0"]) == "name? " })
	m.send(&wire.ToShim{M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{Data: []byte("you\n")}}})
	m.awaitResult()
	if m.stdout(0) != "name? hello you\n" {
		t.Errorf("said %q", m.stdout(0))
	}
	m.forget()
}

func TestBcast(t *testing.T) {
	script := []byte("#!/bin/sh\necho $0\n")
	for _, c := range []struct {
		name  string
		chunk *wire.FileChunk
		fails string
	}{
		{"arrives", &wire.FileChunk{Name: "prog.sh", Mode: 0o755, Offset: 10, Data: script[10:], Last: true}, ""},
		{"breaks off", &wire.FileChunk{Name: "prog.sh", Error: "read error"}, "read error"},
		{"leaves out", &wire.FileChunk{Name: "prog.sh", Offset: 12, Data: script[12:], Last: true}, "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(t, "/far/away/prog.sh")
			a.Mpi, a.Bcast = "none", true
			m := startMember(t, a, 0)
			m.send(&wire.ToShim{M: &wire.ToShim_File{File: &wire.FileChunk{Name: "prog.sh", Mode: 0o755, Data: script[:10]}}})
			m.send(&wire.ToShim{M: &wire.ToShim_File{File: c.chunk}})
			if f := m.awaitReady().GetFailure(); c.fails != "" {
				if !strings.Contains(f.GetMessage(), c.fails) {
					t.Errorf("failure %v", f)
				}
			} else {
				m.launch()
			}
			m.awaitResult()
			if want := filepath.Join(a.NodeDir, "bin/prog.sh") + "\n"; c.fails == "" && m.stdout(0) != want {
				t.Errorf("said %q, want %q", m.stdout(0), want)
			}
			m.forget()
		})
	}
}

func TestPrimary(t *testing.T) {
	for _, mpi := range []string{"mpich", "openmpi"} {
		t.Run(mpi, func(t *testing.T) {
			exe := hello(t, "mpicc."+mpi)
			mpirun := map[string]string{"mpich": "mpiexec.mpich", "openmpi": "mpirun.openmpi"}[mpi]
			script := filepath.Join(t.TempDir(), "job.sh")
			text := fmt.Sprintf("#!/bin/sh\nread x; echo got $x; %s -n 2 %s; echo $AZ_BATCH_HOST_LIST; exit 4\n", mpirun, exe)
			if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			a := ranks(assignment(t, script), 2)
			a.Launch, a.Stdin, a.Address = wire.LaunchMode_LAUNCH_PRIMARY, true, "127.0.0.1"
			m := startMember(t, a, 0)
			m.launch()
			m.send(&wire.ToShim{M: &wire.ToShim_Stdin{Stdin: &wire.Stdin{Data: []byte("input\n"), Eof: true}}})
			r := m.awaitResult()
			out := m.stdout(-1)
			if r.GetExitCode() != 4 || !strings.HasPrefix(out, "got input\n") || !strings.Contains(out, "rank 1 of 2 sum 1") || !strings.HasSuffix(out, "127.0.0.1\n") {
				t.Errorf("result %v\n%s", r, m.all())
			}
			m.forget()
		})
	}
}
