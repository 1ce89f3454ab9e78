//go:build linux

package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gangway/mpi"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []record{{}, {nums: []int64{0, -1, 1 << 62}}, {strs: []string{"", "a\x00b", strings.Repeat("x", 70000)}},
		{nums: []int64{7}, strs: []string{"K=V"}}} {
		got, err := decodeRecord(r.encode(), len(r.nums), len(r.strs))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got, cmp.AllowUnexported(record{})); d != "" {
			t.Error(d)
		}
		if _, err := decodeRecord(r.encode(), len(r.nums)+1, 0); err == nil {
			t.Error("a missing number was not noticed")
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(record{nums: []int64{1, -2}, strs: []string{"a", "b=c"}}.encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b, 0, 0)
		if err != nil {
			return
		}
		again, err := decodeRecord(r.encode(), len(r.nums), len(r.strs))
		if err != nil || !cmp.Equal(r, again, cmp.AllowUnexported(record{})) {
			t.Fatalf("%v became %v, %v", r, again, err)
		}
	})
}

func FuzzReadMsg(f *testing.F) {
	f.Add(frameOf(kindRank, []byte("body")))
	f.Add([]byte("R\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readMsg(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, frameOf(kind, body)) {
			t.Fatalf("%q read as %q %q", b, kind, body)
		}
		if errors.Is(err, io.EOF) && len(b) != 0 {
			t.Fatalf("%q ended between messages", b)
		}
	})
}

func FuzzParseLoaderList(f *testing.F) {
	f.Add("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmpi.so.40 => /usr/lib/libmpi.so.40 (0x00007f0)\n\tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, l := range parseLoaderList(s) {
			if l.Soname == "" || l.Path != "" && l.Path[0] != '/' {
				t.Fatalf("%q gave %v", s, l)
			}
		}
	})
}

func TestParseLoaderList(t *testing.T) {
	got := parseLoaderList("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmpi.so.40 => /opt/my mpi/libmpi.so.40 (0x00007f0)\n\tlibx.so => not found\n")
	want := []mpi.Library{{Soname: "libmpi.so.40", Path: "/opt/my mpi/libmpi.so.40"}, {Soname: "libx.so"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRankEnv(t *testing.T) {
	own := []string{"PMI_RANK=3", "PMI_FD=9", "HOME=/proxy", "OMPI_MCA_btl=tcp", "LD_LIBRARY_PATH=/mpirun", "STRAY=1"}
	task := []string{"HOME=/home/u", "OMPI_MCA_btl=user", "GANGWAY_RANK=3"}
	want := []string{"PMI_RANK=3", "PMI_FD=9", "OMPI_MCA_btl=tcp", "HOME=/home/u", "GANGWAY_RANK=3"}
	if d := cmp.Diff(want, rankEnv(own, task)); d != "" {
		t.Error(d)
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "A=3", "bad", "=x"}, []string{"B=", "C=4=5"})
	if d := cmp.Diff([]string{"A=3", "B=", "C=4=5"}, got); d != "" {
		t.Error(d)
	}
}

func TestSetupShell(t *testing.T) {
	for script, want := range map[string]string{
		"module load x\n":            "/bin/sh",
		"#!/bin/bash\nmodule load\n": "/bin/bash",
		"#!/usr/bin/env bash\n":      "/bin/bash",
		"#!/usr/bin/python3\n":       "/bin/sh",
		"#!\n":                       "/bin/sh",
		"#!/no/such/bash":            "/bin/sh",
	} {
		if got := setupShell([]byte(script)); got != want {
			t.Errorf("%q: %s, want %s", script, got, want)
		}
	}
}

// TestOutboxReplay holds that a new connection is told everything that was not
// acknowledged, in order, and the ends of streams at the acknowledged offset.
func TestOutboxReplay(t *testing.T) {
	o := newOutbox("id", nil)
	o.say(&wire.FromShim{M: &wire.FromShim_Ready{Ready: &wire.Ready{}}})
	o.write(0, 0, []byte("abc"), false)
	o.write(0, 0, nil, true)
	o.write(1, 0, []byte("def"), false)
	o.say(&wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{}}})
	told := func(c *cursor, n int) (out []string) {
		for range n {
			f := c.next()
			switch m := f.GetFrom().GetM().(type) {
			case *wire.FromShim_Ready:
				out = append(out, "ready")
			case *wire.FromShim_Result:
				out = append(out, "result")
			case *wire.FromShim_Output:
				s := string(m.Output.GetData())
				if m.Output.GetEof() {
					s = "eof"
				}
				out = append(out, s)
			default:
				out = append(out, "state")
			}
		}
		return out
	}
	if d := cmp.Diff([]string{"state", "ready", "abc", "eof", "def", "result"}, told(o.cursor(), 6)); d != "" {
		t.Error(d)
	}
	o.ack(3)
	if d := cmp.Diff([]string{"state", "ready", "eof", "def", "result"}, told(o.cursor(), 5)); d != "" {
		t.Error(d)
	}
	o.ack(99) // beyond the end: not believed
	o.ack(6)
	c := o.cursor()
	if d := cmp.Diff([]string{"state", "ready", "result"}, told(c, 3)); d != "" {
		t.Error(d)
	}
	c.stop()
	if c.next() != nil {
		t.Error("a stopped connection is told more")
	}
}

// TestMainLeavesNothing runs a shim inside the test process: its goroutines end
// with it.
func TestMainLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a := assignment(t, "hostname")
	model, err := json.Marshal(liveNode(t))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		t.Skip(err)
	}
	defer ours.Close()
	their, err := fileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Main(context.Background(), their) }()
	send := func(f *wire.Frame) {
		t.Helper()
		if err := link.WriteFrame(ours, f); err != nil {
			t.Fatal(err)
		}
	}
	send(&wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{Assignment: a, NodeJson: model,
		Executable: executable(t), SpoolDir: t.TempDir(), NodeName: "here"}}})
	for {
		f, err := link.ReadFrame(ours)
		if err != nil {
			t.Fatal(err)
		}
		to := &wire.ToShim{Id: a.GetId()}
		switch {
		case f.GetFrom().GetReady() != nil:
			to.M = &wire.ToShim_Launch{Launch: &wire.Launch{}}
		case f.GetFrom().GetResult() != nil:
			to.M = &wire.ToShim_Forget{Forget: &wire.Forget{}}
		default:
			continue
		}
		send(&wire.Frame{M: &wire.Frame_To{To: to}})
		if to.GetForget() != nil {
			break
		}
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Main did not return")
	}
}

// BenchmarkRankWrapper is what the wrapper costs a rank: /bin/true started by a
// shim itself, and through gangway-rank as mpirun would start it.
func BenchmarkRankWrapper(b *testing.B) {
	for _, wrapped := range []bool{false, true} {
		name := "direct"
		if wrapped {
			name = "wrapper"
		}
		b.Run(name, func(b *testing.B) {
			a := ranks(assignment(b, "/bin/true"), uint32(b.N))
			a.Mpi = "none"
			if wrapped {
				// An mpirun that needs no MPI: it starts the wrappers one by one.
				dir := b.TempDir()
				script := `#!/bin/sh
case "$1" in --version) printf 'HYDRA build details:\n    Version:                                 4.0.2\n'; exit;; esac
while [ $# -gt 0 ]; do case "$1" in -n) n=$2; shift 2; break;; *) shift;; esac; done
i=0; while [ $i -lt $n ]; do PMI_RANK=$i PMI_SIZE=$n "$@"; i=$((i+1)); done
`
				if err := os.WriteFile(dir+"/mpiexec.mpich", []byte(script), 0o755); err != nil {
					b.Fatal(err)
				}
				a.LaunchVia = "mpirun"
				a.Mpi, a.Env = "mpich", []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
			}
			a.LaunchDeadlineMs = 600000
			m := startMember(b, a, 0)
			m.awaitReady()
			b.ResetTimer()
			m.launch()
			r := m.awaitResult()
			b.StopTimer()
			if r.GetFailure() != nil {
				b.Fatal(r)
			}
			m.forget()
		})
	}
	b.Run("exec", func(b *testing.B) {
		for range b.N {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
