//go:build linux

package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/sweep"
)

// crewed makes an assignment a crew of n slots.
func crewed(a *wire.Assignment, n uint32) *wire.Assignment {
	a.Crew = &wire.Crew{Slots: n}
	a.Bind, a.TotalRanks, a.NodeRanks = "none", 1, 1
	return a
}

// told is what a crew has said of an element.
type told struct {
	attempt uint32
	ending  *wire.Ending
	start   int64
	wall    uint64
	last    string
}

// blocksSeen collects a crew's blocks as a launcher does.
type blocksSeen struct {
	mu       sync.Mutex
	seq      uint64
	elements map[uint64]told
	returned map[uint64]uint32
	problems []string
	ack      bool
}

func newBlocksSeen() *blocksSeen {
	return &blocksSeen{elements: map[uint64]told{}, returned: map[uint64]uint32{}, ack: true}
}

// take takes a block and says whether it is to be acknowledged.
func (s *blocksSeen) take(b *wire.Block) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad := func(format string, args ...any) { s.problems = append(s.problems, fmt.Sprintf(format, args...)) }
	switch {
	case b.GetSeq() <= s.seq:
		return s.ack // said again
	case b.GetSeq() != s.seq+1:
		bad("block %d follows block %d", b.GetSeq(), s.seq)
	}
	s.seq = b.GetSeq()
	var last = map[uint64]string{}
	for _, l := range b.GetLast() {
		last[l.GetIndex()] = l.GetText()
	}
	i, ending, left := 0, 0, uint64(0)
	var start int64
	before := int64(-1)
	for _, r := range b.GetRuns() {
		for x := r.GetRange().GetLo(); x < r.GetRange().GetHi(); x++ {
			if int64(x) <= before {
				bad("block %d: element %d follows %d", b.GetSeq(), x, before)
			}
			before = int64(x)
			for left == 0 {
				if ending == len(b.GetEndings()) {
					bad("block %d: no ending for %d", b.GetSeq(), x)
					return s.ack
				}
				left = b.GetEndings()[ending].GetCount()
				ending++
			}
			left--
			start += b.GetStartUs()[i]
			if old, ok := s.elements[x]; ok && old.attempt >= r.GetAttempt() {
				bad("element %d is told twice, in attempts %d and %d", x, old.attempt, r.GetAttempt())
			}
			s.elements[x] = told{r.GetAttempt(), b.GetEndings()[ending-1], start, b.GetWallUs()[i], last[x]}
			i++
		}
	}
	if i != len(b.GetWallUs()) || i != len(b.GetCpuUs()) || i != len(b.GetRssKib()) || left != 0 || ending != len(b.GetEndings()) {
		bad("block %d: columns do not fit", b.GetSeq())
	}
	for _, r := range b.GetReturned() {
		for x := r.GetRange().GetLo(); x < r.GetRange().GetHi(); x++ {
			if old, ok := s.returned[x]; ok && old >= r.GetAttempt() {
				bad("element %d is given back twice", x)
			}
			s.returned[x] = r.GetAttempt()
		}
	}
	return s.ack
}

func (s *blocksSeen) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.problems {
		t.Error(p)
	}
}

// runsOf is a range in its first attempt.
func runsOf(lo, hi uint64) []*wire.Run {
	return []*wire.Run{{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: 1}}
}

func (m *member) work(seq uint64, last bool, runs ...*wire.Run) {
	m.send(&wire.ToShim{M: &wire.ToShim_Work{Work: &wire.Work{Seq: seq, Runs: runs, Last: last}}})
}

// startCrew starts a crew and launches it.
func startCrew(t *testing.T, a *wire.Assignment) (*member, *blocksSeen) {
	t.Helper()
	seen := newBlocksSeen()
	m := startMember(t, a, 0)
	m.mu.Lock()
	m.blocks = seen
	m.mu.Unlock()
	m.launch()
	return m, seen
}

// finished awaits the result and proves that the shim left nothing.
func (m *member) finished(seen *blocksSeen) *wire.Result {
	m.t.Helper()
	r := m.awaitResult()
	m.forget()
	seen.check(m.t.(*testing.T))
	return r
}

func TestCrewOfMany(t *testing.T) {
	n := uint64(10_000)
	if testing.Short() || raceEnabled {
		n = 500
	}
	m, seen := startCrew(t, crewed(assignment(t, "true"), 2))
	begin := time.Now()
	m.work(1, true, runsOf(1, n+1)...)
	r := m.finished(seen)
	t.Logf("%d elements: %v", n, time.Since(begin))
	if r.GetExitCode() != 0 || r.GetFailure() != nil {
		t.Errorf("the crew ended with %v", r)
	}
	if len(seen.elements) != int(n) || len(seen.returned) > 0 {
		t.Errorf("%d results and %d returned, want %d and 0", len(seen.elements), len(seen.returned), n)
	}
	for i, e := range seen.elements {
		if e.ending.GetExitCode() != 0 || e.ending.GetSignal() != 0 || e.ending.GetFailure() != nil {
			t.Fatalf("element %d: %v", i, e)
		}
	}
}

func TestCrewOutputAndEnds(t *testing.T) {
	script := `i=$GANGWAY_ARRAY_INDEX; echo "out $i $GANGWAY_ATTEMPT $GANGWAY_SLOT"; echo "err $i" >&2
case $((i % 4)) in 1) exit 3;; 2) kill -9 $$;; 3) exec /bin/true;; esac`
	m, seen := startCrew(t, crewed(assignment(t, "/bin/sh", "-c", script), 2))
	m.work(1, true, runsOf(1, 41)...)
	m.finished(seen)
	for i := uint64(1); i <= 40; i++ {
		e := seen.elements[i]
		wantCode, wantSignal, wantLast := int32(0), int32(0), ""
		switch i % 4 {
		case 1:
			wantCode, wantLast = 3, fmt.Sprintf("err %d", i)
		case 2:
			wantSignal, wantLast = 9, fmt.Sprintf("err %d", i)
		}
		if e.ending.GetExitCode() != wantCode || e.ending.GetSignal() != wantSignal || e.last != wantLast {
			t.Errorf("element %d: %v, last %q", i, e.ending, e.last)
		}
		out := m.stdout(int(i))
		if want := fmt.Sprintf("out %d 1 ", i); len(out) < len(want) || out[:len(want)] != want {
			t.Errorf("element %d wrote %q", i, out)
		}
		if got := m.stderr(int(i)); got != fmt.Sprintf("err %d\n", i) {
			t.Errorf("element %d wrote %q to stderr", i, got)
		}
		m.mu.Lock()
		if !m.eofs[fmt.Sprintf("%d/0", i)] {
			t.Errorf("element %d: no end of its output", i)
		}
		m.mu.Unlock()
	}
}

func TestCrewRevoked(t *testing.T) {
	m, seen := startCrew(t, crewed(assignment(t, "sleep", "0.2"), 1))
	m.work(1, false, runsOf(0, 100)...)
	m.until("a result", 10*time.Second, func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return len(seen.elements) > 0 })
	m.work(2, false, runsOf(0, 10)...)
	m.until("what was revoked", 10*time.Second, func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return len(seen.returned) == 90 })
	m.work(1, false, runsOf(0, 100)...) // an older one
	m.work(3, true)
	m.finished(seen)
	if len(seen.elements)+len(seen.returned) != 100 || len(seen.elements) > 9 {
		t.Errorf("%d results, %d returned", len(seen.elements), len(seen.returned))
	}
	var both []uint64
	for i := range seen.elements {
		if _, ok := seen.returned[i]; ok {
			both = append(both, i)
		}
	}
	slices.Sort(both)
	if len(both) > 0 {
		t.Errorf("%v were run and given back", both)
	}
}

func TestCrewProgramMissing(t *testing.T) {
	for _, tt := range []struct {
		name string
		argv []string
		code int32
		why  wire.FailureCode
	}{
		{"absent", []string{"gangway-no-such-program"}, 127, wire.FailureCode_FAILURE_NOT_FOUND},
		{"not executable", []string{"/etc/passwd"}, 126, wire.FailureCode_FAILURE_NOT_EXECUTABLE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, seen := startCrew(t, crewed(assignment(t, tt.argv...), 2))
			m.work(1, true, runsOf(0, 20_000)...)
			m.finished(seen)
			if len(seen.elements) != 20_000 {
				t.Fatalf("%d results", len(seen.elements))
			}
			if e := seen.elements[19_999].ending; e.GetExitCode() != tt.code || e.GetFailure().GetCode() != tt.why {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestCrewSweep(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"x", "y"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "d", Values: []string{"x", "y"}}}}, {Columns: []sweep.Column{{Name: "n", Values: []string{"1", "2 'q' $HOME", "3"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	a := crewed(assignment(t, "/bin/sh", "-c", `echo "$(basename $PWD)|$V|$1|$GANGWAY_ARRAY_SIZE"`, "sh", "{n}-{#}"), 2)
	a.Workdir, a.Env = filepath.Join(dir, "{d}"), []string{"V=<{n}>"}
	a.Crew.First, a.Crew.Templates = 1, []string{"command", "env", "workdir"}
	want := map[int]string{1: "x|<1>|1-1|", 2: "x|<2 'q' $HOME>|2 'q' $HOME-2|", 6: "y|<3>|3-6|"}
	check := func(t *testing.T, m *member, size string) {
		t.Helper()
		for i, w := range want {
			if got := m.stdout(i); got != w+size+"\n" {
				t.Errorf("element %d wrote %q, want %q", i, got, w+size)
			}
		}
	}
	t.Run("whole", func(t *testing.T) {
		a := proto.CloneOf(a)
		a.Id, a.NodeDir = a.Id+"w", a.NodeDir+"w"
		a.Crew.SweepJson = text
		m, seen := startCrew(t, a)
		m.work(1, true, runsOf(1, 7)...)
		m.finished(seen)
		check(t, m, "6")
	})
	t.Run("with each run", func(t *testing.T) {
		m, seen := startCrew(t, a)
		var all sweep.Sweep
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		var list []*wire.Run
		for _, r := range [][2]uint64{{1, 3}, {3, 7}} {
			b, err := json.Marshal(all.Cut(r[0]-1, r[1]-1))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, &wire.Run{Range: &wire.Range{Lo: r[0], Hi: r[1]}, Attempt: 1, SweepJson: b})
		}
		m.work(1, true, list...)
		m.finished(seen)
		check(t, m, "")
	})
	t.Run("garbage", func(t *testing.T) {
		a := proto.CloneOf(a)
		a.Id, a.NodeDir = a.Id+"g", a.NodeDir+"g"
		a.Crew.SweepJson = []byte("{")
		m, seen := startCrew(t, a)
		m.work(1, true, runsOf(1, 4)...)
		m.finished(seen)
		if e := seen.elements[3].ending; e.GetFailure() == nil || e.GetExitCode() == 0 {
			t.Errorf("%v", e)
		}
	})
}
