package proc

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestSlotsUnderLoad starts programs, some of which don't exist, while the garbage
// collector runs all the time, signals hit what runs and queues are taken back:
// every command ends once or was dropped once, and nothing is left behind.
// SPAWN_STARTS says how many.
func TestSlotsUnderLoad(t *testing.T) { bothWays(t, testSlotsUnderLoad) }

func testSlotsUnderLoad(t *testing.T, fast bool) {
	total := 1500
	if v, err := strconv.Atoi(os.Getenv("SPAWN_STARTS")); err == nil {
		total = v
	}
	const slots, deep = 3, 16
	fds, threads := countDir(t, "/proc/self/fd"), countDir(t, "/proc/self/task")
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
				keep = append(keep, make([]byte, 4096))
				if len(keep) > 100 {
					keep = nil
				}
				runtime.GC()
			}
		}
	})
	f := NewForker()
	f.StartReaper()
	var s *Slots
	var mu sync.Mutex
	sent, left := 0, total
	seen := make([]int, total)
	done := make(chan struct{})
	kinds := map[uint64]int{}
	start := func(slot int) { // under mu
		if sent == total {
			return
		}
		tag := uint64(sent)
		sent++
		c := SlotCommand{Path: "/bin/true", Env: []string{strings.Repeat("V", int(tag%7)*300) + "=1"}}
		switch kinds[tag] = int(tag % 10); kinds[tag] {
		case 3:
			c.Path = "/no/such/program"
		case 5:
			c.Dir = "/no/such/directory"
		case 7:
			c = SlotCommand{Path: "/bin/false", Argv: []string{"false"}}
		}
		s.Start(slot, tag, c)
	}
	account := func(tag uint64) { // under mu
		seen[tag]++
		if left--; left == 0 {
			close(done)
		}
	}
	var err error
	s, err = f.newSlots(slots, func(batch []SlotEnd) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range batch {
			st := e.Status
			ok := e.Err == nil && (st.ExitCode == 0 || st.Signal == 9)
			switch kinds[e.Tag] {
			case 3:
				ok = errors.Is(e.Err, ErrNotFound) || st.Signal == 9
			case 5:
				ok = errors.Is(e.Err, ErrWorkdir) || st.Signal == 9
			case 7:
				ok = e.Err == nil && (st.ExitCode == 1 || st.Signal == 9)
			}
			if !ok {
				t.Errorf("kind %d: %+v", kinds[e.Tag], e)
			}
			account(e.Tag)
			start(e.Slot)
		}
	}, fast)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	for range deep {
		for slot := range slots {
			start(slot)
		}
	}
	mu.Unlock()
	others.Go(func() {
		next := 100
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			at := sent
			if at >= next { // most are left alone
				next = at + 100
				for _, tag := range s.Drop(at / 100 % slots) {
					account(tag)
					start(at / 100 % slots)
				}
			}
			mu.Unlock()
			for tag := at - slots*deep; tag < at; tag++ {
				for slot := range slots {
					if tag >= 0 && tag%8 == 0 {
						s.Signal(slot, uint64(tag), 9)
					}
				}
			}
			runtime.Gosched()
		}
	})
	<-done
	close(stop)
	others.Wait()
	s.Close()
	_ = f.Close()
	for tag, n := range seen {
		if n != 1 {
			t.Errorf("command %d has %d ends", tag, n)
		}
	}
	if got := countDir(t, "/proc/self/fd"); got > fds+2 { // the runtime's own, once
		t.Errorf("%d descriptors before, %d after", fds, got)
	}
	eventually(t, "the threads are gone", func() bool { return countDir(t, "/proc/self/task") <= threads+8 })
	eventually(t, "no child is left", func() bool { return len(childrenOf(os.Getpid(), nil)) == 0 })
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > 32<<20 {
		t.Errorf("%d MiB are in use after it", mem.HeapAlloc>>20)
	}
}

func countDir(t *testing.T, dir string) int {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}
