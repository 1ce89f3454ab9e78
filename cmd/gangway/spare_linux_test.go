package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"gangway/nodeagent/proc"
)

// spareBed is a standing agent of a program that can be replaced.
type spareBed struct {
	*bed
	key, listen, dir string
	agent            *process
}

func newSpareBed(t *testing.T) *spareBed {
	t.Helper()
	src := gangwayBinary(t)
	base, err := os.MkdirTemp("/tmp", "gws")
	if err != nil {
		t.Fatal(err)
	}
	b := &spareBed{bed: &bed{t: t, bin: filepath.Join(base, "gangway"), base: base}, key: filepath.Join(base, "key"),
		listen: freeAddress(t), dir: filepath.Join(base, "node")}
	t.Cleanup(func() {
		endLocal(t, base)
		_ = os.RemoveAll(base)
	})
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.copyProgram(src)
	b.want(0, "key", b.key)
	b.startAgent()
	return b
}

// freeAddress is one that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// copyProgram puts a copy of src at the program's place, as an update does.
func (b *spareBed) copyProgram(src string) {
	b.t.Helper()
	content, err := os.ReadFile(src)
	if err == nil {
		err = os.WriteFile(b.bin+".new", content, 0o755)
	}
	if err == nil {
		err = os.Rename(b.bin+".new", b.bin)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *spareBed) startAgent() {
	b.t.Helper()
	b.agent = b.start(nil, nil, "agent", "--listen", b.listen, "--key", b.key, "--tmpdir", b.dir)
}

// spare waits for the one spare and returns its pid.
func (b *spareBed) spare() int {
	b.t.Helper()
	var found []int
	waitFor(b.t, "one shim is kept ready", 20*time.Second, func() bool {
		found = parts(b.base, "spare")
		return len(found) == 1
	})
	return found[0]
}

// job starts a run that says that it has begun and waits for a file of that
// name.
func (b *spareBed) job(name string) *process {
	b.t.Helper()
	file := filepath.Join(b.base, name)
	p := b.start(nil, nil, "run", "--agents", b.listen, "--key", b.key, "-N", "1", "--ppn", "1", "--mpi", "none", "--",
		"/bin/sh", "-c", `: > "$1.began"; while [ ! -e "$1" ]; do sleep 0.05; done; echo "id $GANGWAY_ID $GANGWAY_SPARE"`, "sh", file)
	waitFor(b.t, name+" has begun", 20*time.Second, func() bool {
		_, err := os.Stat(file + ".began")
		return err == nil
	})
	return p
}

func (b *spareBed) letGo(name string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.base, name), nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// TestSpareShim: a standing agent's shim is there before its work, is known by the
// name of every shim once it has some, and is found by the agent's successor.
func TestSpareShim(t *testing.T) {
	b := newSpareBed(t)
	first := b.spare()
	p := b.job("one")
	if got := parts(b.base, "shim"); !slices.Equal(got, []int{first}) {
		t.Fatalf("the job's shim is %v, want the one that was ready, %d", got, first)
	}
	next := b.spare() // beside the job, once the node is at rest
	if next == first {
		t.Fatalf("the job's shim, %d, still calls itself ready", first)
	}
	if err := b.agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.agent.done
	waitFor(t, "the spare has ended with its agent", 20*time.Second, func() bool { return proc.StartTime(next) == 0 })
	if proc.StartTime(first) == 0 {
		t.Fatal("the job's shim has ended with the agent")
	}
	b.startAgent()
	b.spare()
	b.letGo("one")
	if got := p.status(); got != 0 {
		t.Errorf("the job ended with %d: %s", got, p.err)
	}
	var id, mark string
	if n, _ := fmt.Sscan(p.out.wait(p), &id, &mark); n != 2 || id != "id" || len(mark) < 4 {
		t.Errorf("the job said %q, want its id and no more", p.out)
	}
	waitFor(t, "the shim has ended", 20*time.Second, func() bool { return len(parts(b.base, "shim")) == 0 })
	last := b.spare()
	_ = b.agent.Process.Signal(syscall.SIGTERM)
	<-b.agent.done
	if proc.StartTime(last) != 0 {
		t.Error("the agent has ended, its spare has not")
	}
}

// TestSpareOfAnOldProgram: what was started from a program that has been replaced
// gets no work.
func TestSpareOfAnOldProgram(t *testing.T) {
	b := newSpareBed(t)
	old := b.spare()
	b.copyProgram(gangwayBinary(t))
	p := b.job("one")
	if got := parts(b.base, "shim"); len(got) != 1 || got[0] == old {
		t.Errorf("the job's shims are %v, want one that is not %d", got, old)
	}
	waitFor(t, "the old spare has ended", 20*time.Second, func() bool { return proc.StartTime(old) == 0 })
	b.letGo("one")
	if got := p.status(); got != 0 {
		t.Errorf("the job ended with %d: %s", got, p.err)
	}
}

// TestSpareKilled: a spare that is gone costs no job.
func TestSpareKilled(t *testing.T) {
	b := newSpareBed(t)
	if err := syscall.Kill(b.spare(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the spare has ended", 20*time.Second, func() bool { return len(parts(b.base, "spare")) == 0 })
	p := b.job("one")
	b.letGo("one")
	if got := p.status(); got != 0 {
		t.Errorf("the job ended with %d: %s", got, p.err)
	}
}
