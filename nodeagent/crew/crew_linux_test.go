package crew

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// office is a crew's host.
type office struct {
	mu      sync.Mutex
	blocks  []*wire.Block
	notices []string
	done    chan struct{}
	crew    *Crew
}

// hire starts a crew; spawn makes its slots.
func hire(t testing.TB, c Config, spawn func(*proc.Forker, int, func([]Ended)) (Spawner, error)) *office {
	t.Helper()
	f := proc.NewForker()
	o := &office{done: make(chan struct{})}
	c.ID, c.Name, c.SpoolDir = "crew", &wire.AttemptName{TaskUid: "u"}, t.TempDir()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	w, err := New(c, Host{
		Block: func(b *wire.Block) {
			o.mu.Lock()
			o.blocks = append(o.blocks, b)
			o.mu.Unlock()
			o.crew.Ack(b.GetSeq())
		},
		Output: func(int32, wire.Stream, []byte, bool) {},
		Notice: func(_ bool, text string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.notices = append(o.notices, text)
		},
		Done:    func() { close(o.done) },
		Resolve: func(name, _ string) (string, error) { return exec.LookPath(name) },
		Failure: func(err error) (*wire.Failure, int32) { return &wire.Failure{Message: err.Error()}, 127 },
		Compile: func([]byte, uint64, []string) (Texts, error) { return nil, errors.New("no sweeps here") },
		Spawn:   func(n int, ended func([]Ended)) (Spawner, error) { return spawn(f, n, ended) },
	})
	if err != nil {
		t.Fatal(err)
	}
	o.crew = w
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) wait(t testing.TB) {
	t.Helper()
	select {
	case <-o.done:
	case <-time.After(60 * time.Second):
		t.Fatalf("the crew does not end: %q", o.notices)
	}
}

// counts are the results and the returns.
func (o *office) counts() (results, returned uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range o.blocks {
		results += length(b.GetRuns())
		returned += length(b.GetReturned())
	}
	return results, returned
}

func TestWorkToItsEnd(t *testing.T) {
	o := hire(t, Config{Slots: make([]Slot, 2), Command: []string{"true"}}, Slots)
	o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, 200), Last: true})
	o.wait(t)
	if r, b := o.counts(); r != 200 || b != 0 {
		t.Errorf("%d results, %d returned", r, b)
	}
}

// TestMillionGiven holds a million elements, then gives them back.
func TestMillionGiven(t *testing.T) {
	o := hire(t, Config{Slots: make([]Slot, 2), Command: []string{"sleep", "60"}}, Slots)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, 1_000_000)})
	o.crew.End(&wire.Failure{Code: wire.FailureCode_FAILURE_CANCELLED, Message: "enough"}, true)
	o.wait(t)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if d := int64(after.HeapAlloc) - int64(before.HeapAlloc); d > 4<<20 {
		t.Errorf("%d bytes more", d)
	}
	if r, b := o.counts(); r+b != 1_000_000 || r > 2 {
		t.Errorf("%d results, %d returned", r, b)
	}
	if len(o.blocks) > 2 {
		t.Errorf("%d blocks for one range", len(o.blocks))
	}
}

// TestScatteredWork gives every other element, then the others, in another
// attempt some of them.
func TestScatteredWork(t *testing.T) {
	o := hire(t, Config{Slots: make([]Slot, 3), Command: []string{"true"}}, Slots)
	var list []*wire.Run
	for i := uint64(0); i < 300; i += 2 {
		list = append(list, run(1, i, i+1))
	}
	o.crew.Work(&wire.Work{Seq: 1, Runs: list})
	for i := uint64(1); i < 300; i += 2 {
		list = append(list, run(uint32(1+i%3), i, i+1))
	}
	o.crew.Work(&wire.Work{Seq: 2, Runs: append(list, list...), Last: true})
	o.wait(t)
	if r, b := o.counts(); r != 300 || b != 0 {
		t.Errorf("%d results, %d returned", r, b)
	}
}

// TestPackFull runs elements whose output has room where it is written and none
// beside it in the pack.
func TestPackFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small file system can be mounted: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	o := hire(t, Config{Dir: dir, Slots: make([]Slot, 1), Keep: true, Command: []string{"sh", "-c", "head -c 600000 /dev/zero; exit 3"}}, Slots)
	o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, 10), Last: true})
	o.wait(t)
	if r, b := o.counts(); r != 10 || b != 0 {
		t.Errorf("%d results, %d returned", r, b)
	}
	if o.crew.Loss() == "" || len(o.notices) == 0 {
		t.Errorf("the loss was not told: %q, %q", o.crew.Loss(), o.notices)
	}
	for _, blk := range o.blocks {
		for _, e := range blk.GetEndings() {
			if e.GetExitCode() != 3 {
				t.Errorf("%v", e)
			}
		}
	}
}

func BenchmarkTrue(b *testing.B) {
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprint("slots ", n), func(b *testing.B) {
			o := hire(b, Config{Slots: make([]Slot, n), Command: []string{"true"}, Env: []string{"PATH=/bin"}}, Slots)
			b.ResetTimer()
			o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, uint64(b.N)), Last: true})
			o.wait(b)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
