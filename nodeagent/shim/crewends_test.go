//go:build linux

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/nodeagent/pack"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// has waits for that many results and returns.
func (m *member) has(seen *blocksSeen, results, returned int) {
	m.t.Helper()
	m.until(fmt.Sprintf("%d results and %d returned", results, returned), 30*time.Second, func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.elements) >= results && len(seen.returned) >= returned
	})
}

func TestCrewTimeLimit(t *testing.T) {
	a := crewed(assignment(t, "/bin/sh", "-c", `case $GANGWAY_ARRAY_INDEX in
1) exec sleep 60;;
2) trap '' TERM; sleep 60 & wait; wait; sleep 60;;
3) trap 'exit 5' TERM; sleep 60 & wait; exit 6;;
esac`), 4)
	a.TimeLimitMs, a.KillGraceMs = 1000, 300
	m, seen := startCrew(t, a)
	begin := time.Now()
	m.work(1, true, runsOf(0, 4)...)
	m.finished(seen)
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	for i, want := range map[uint64]struct {
		code, signal int32
		late         bool
	}{0: {}, 1: {0, 15, true}, 2: {0, 9, true}, 3: {5, 0, true}} {
		e := seen.elements[i].ending
		if e.GetExitCode() != want.code || e.GetSignal() != want.signal || (e.GetFailure().GetCode() == wire.FailureCode_FAILURE_TIME_LIMIT) != want.late {
			t.Errorf("element %d: %v", i, e)
		}
	}
}

func TestCrewCancelled(t *testing.T) {
	for _, now := range []bool{false, true} {
		t.Run(fmt.Sprint("now ", now), func(t *testing.T) {
			m, seen := startCrew(t, crewed(assignment(t, "/bin/sh", "-c", `echo begun; exec sleep 60`), 2))
			m.work(1, false, runsOf(0, 1000)...)
			m.until("both to run", 20*time.Second, func() bool {
				return len(proc.ByEnv("GANGWAY_SLOT=1")) > 0 && len(proc.ByEnv("GANGWAY_SLOT=0")) > 0 || m.poll()
			})
			m.send(&wire.ToShim{M: &wire.ToShim_End{End: &wire.End{Reason: "cancelled by a test", Now: now}}})
			r := m.finished(seen)
			if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_CANCELLED {
				t.Errorf("%v", r.GetFailure())
			}
			if len(seen.elements) != 2 || len(seen.returned) != 998 {
				t.Errorf("%d results and %d returned", len(seen.elements), len(seen.returned))
			}
			want := int32(syscall.SIGTERM)
			if now {
				want = int32(syscall.SIGKILL)
			}
			for i, e := range seen.elements {
				if e.ending.GetSignal() != want || e.ending.GetFailure().GetCode() != wire.FailureCode_FAILURE_CANCELLED {
					t.Errorf("element %d: %v", i, e.ending)
				}
			}
		})
	}
}

// poll lets until look again in a moment; it is called with m.mu held.
func (m *member) poll() bool {
	time.AfterFunc(10*time.Millisecond, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.change.Broadcast()
	})
	return false
}

func TestCrewLeavesNothing(t *testing.T) {
	mark := fmt.Sprintf("GWTEST_STRAY=%d-%d", os.Getpid(), counter.Add(1))
	a := crewed(assignment(t, "/bin/sh", "-c", `if [ $GANGWAY_ARRAY_INDEX = 0 ]; then
setsid sleep 300 & sleep 300 & exit 0; fi; exec sleep 1.5`), 1)
	a.Env = []string{mark}
	m, seen := startCrew(t, a)
	m.work(1, true, runsOf(0, 3)...)
	m.has(seen, 2, 0)
	// The crew is still at work: what element 0 left is gone already.
	for _, pid := range proc.ByEnv("GANGWAY_ARRAY_INDEX=0") {
		if proc.Alive(pid, mark) {
			t.Errorf("process %d outlived its element", pid)
		}
	}
	m.finished(seen)
}

// TestCrewStrayWrites lets what an element left write to its output when others
// have theirs.
func TestCrewStrayWrites(t *testing.T) {
	m, seen := startCrew(t, crewed(assignment(t, "/bin/sh", "-c", `if [ $GANGWAY_ARRAY_INDEX = 0 ]; then
(trap '' HUP; while :; do echo stray; done) & setsid sh -c 'while :; do echo stray; sleep 0.01; done' & sleep 0.1; exit 0; fi; echo own; sleep 0.02`), 1))
	m.work(1, true, runsOf(0, 30)...)
	m.finished(seen)
	for i := 1; i < 30; i++ {
		if got := m.stdout(i); got != "own\n" {
			t.Errorf("element %d wrote %.100q", i, got)
		}
	}
}

func TestCrewMemory(t *testing.T) {
	g, err := proc.NewMemoryGroup(fmt.Sprintf("gwtest-%d", os.Getpid()), 64<<20)
	if err != nil {
		t.Skip(err)
	}
	_ = g.Close()
	a := crewed(assignment(t, "/bin/sh", "-c", `if [ $GANGWAY_ARRAY_INDEX = 1 ]; then head -c 300000000 /dev/zero | tail; else exec true; fi`), 1)
	a.Crew.ElementMemory = 32 << 20
	m, seen := startCrew(t, a)
	m.work(1, true, runsOf(0, 4)...)
	m.finished(seen)
	for i, e := range seen.elements {
		if oom := e.ending.GetFailure().GetCode() == wire.FailureCode_FAILURE_MEMORY; oom != (i == 1) {
			t.Errorf("element %d: %v", i, e.ending)
		}
	}
}

func TestCrewHugeOutput(t *testing.T) {
	m, seen := startCrew(t, crewed(assignment(t, "/bin/sh", "-c", `head -c 20000000 /dev/zero | tr '\0' $GANGWAY_ARRAY_INDEX`), 2))
	m.work(1, true, runsOf(1, 4)...)
	m.finished(seen)
	for i := 1; i < 4; i++ {
		got := m.stdout(i)
		if len(got) != 20_000_000 || strings.Trim(got, fmt.Sprint(i)) != "" {
			t.Errorf("element %d: %d bytes", i, len(got))
		}
	}
}

// TestCrewBlocksSaidAgain has no block acknowledged until a second agent asks.
func TestCrewBlocksSaidAgain(t *testing.T) {
	seen := newBlocksSeen()
	seen.ack = false
	m := startMember(t, crewed(assignment(t, "true"), 2), 0)
	m.mu.Lock()
	m.blocks = seen
	m.mu.Unlock()
	m.launch()
	m.work(1, true, runsOf(0, 50)...)
	m.awaitResult()
	again := newBlocksSeen()
	m.mu.Lock()
	m.blocks = again
	m.mu.Unlock()
	m.reconnect()
	m.has(again, 50, 0)
	seen.check(t)
	m.forget()
	again.check(t)
	if len(seen.elements) != 50 {
		t.Errorf("%d results at first", len(seen.elements))
	}
}

func TestCrewKept(t *testing.T) {
	a := crewed(assignment(t, "/bin/sh", "-c", `echo $GANGWAY_ARRAY_INDEX $PWD; echo e >&2`), 2)
	a.TaskDir, a.Task, a.Workdir = "j/A", "A", ""
	m, seen := startCrew(t, a)
	m.work(1, true, runsOf(0, 200)...)
	m.finished(seen)
	root, err := os.OpenRoot(m.taskPath)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for i := range uint64(200) {
		f, err := pack.Find(root, pack.Dir, i)
		if err != nil || f.Attempt != 1 || f.Streams[0] == nil || f.Streams[1] == nil {
			t.Fatalf("element %d: %+v, %v", i, f, err)
		}
		b := make([]byte, f.Streams[0].Length)
		file, err := root.Open(f.Streams[0].File)
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.ReadAt(b, f.Streams[0].Offset)
		_ = file.Close()
		if want := fmt.Sprintf("%d %s\n", i, filepath.Join(m.taskPath, workName)); err != nil || string(b) != want {
			t.Fatalf("element %d wrote %q, %v, want %q", i, b, err, want)
		}
	}
	names, err := os.ReadDir(filepath.Join(m.taskPath, pack.Dir))
	if err != nil || len(names) != 3 {
		t.Errorf("the pack's directory has %v, %v", names, err)
	}
}
