package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/topology"
)

// shown collects what a folder shows.
type shown struct {
	lines  []string
	byRank map[int][]string
}

func (s *shown) line(ranks []int, line string) {
	if s.byRank == nil {
		s.byRank = map[int][]string{}
	}
	s.lines = append(s.lines, "["+topology.FormatRanks(ranks)+"] "+line)
	for _, r := range ranks {
		s.byRank[r] = append(s.byRank[r], line)
	}
}

func TestFold(t *testing.T) {
	type step struct {
		ms   int
		rank int
		text string // "-": ended; "": only the clock
	}
	for _, c := range []struct {
		name  string
		ranks int
		steps []step
		want  []string // before the flush
		rest  []string // by it
	}{
		{"all say it", 3, []step{{0, 0, "a"}, {1, 2, "a"}, {2, 1, "a"}}, []string{"[0-2] a"}, nil},
		{"one is late", 3, []step{{0, 0, "a"}, {1, 1, "a"}, {199, 0, ""}, {201, 0, ""}, {202, 2, "a"}}, []string{"[0-1] a"}, []string{"[2] a"}},
		{"one line of each", 3, []step{{0, 0, "a"}, {0, 0, "r0"}, {0, 0, "b"}, {1, 1, "a"}, {1, 1, "r1"}, {1, 1, "b"}, {2, 2, "a"}, {2, 2, "r2"}, {2, 2, "b"}, {200, 0, ""}},
			[]string{"[0-2] a", "[0] r0", "[1] r1", "[2] r2", "[0-2] b"}, nil},
		{"a line twice", 2, []step{{0, 0, "a"}, {0, 0, "a"}, {1, 1, "a"}, {1, 1, "a"}}, []string{"[0-1] a", "[0-1] a"}, nil},
		{"another order", 2, []step{{0, 0, "a"}, {0, 0, "b"}, {1, 1, "b"}, {1, 1, "a"}}, nil, []string{"[0] a", "[0-1] b", "[1] a"}},
		{"who has ended is not waited for", 3, []step{{0, 2, "-"}, {0, 0, "a"}, {1, 1, "a"}}, []string{"[0-1] a"}, nil},
		{"who has said it counts though it has ended", 4, []step{{0, 0, "a"}, {0, 0, "-"}, {0, 1, "a"}, {0, 1, "-"}, {1, 2, "a"}, {2, 3, "a"}, {2, 2, "b"}, {2, 3, "b"}},
			[]string{"[0-3] a", "[2-3] b"}, nil},
		{"one rank", 1, []step{{0, 0, "a"}, {0, 0, "b"}}, []string{"[0] a", "[0] b"}, nil},
		{"every second", 6, []step{{0, 0, "a"}, {0, 2, "a"}, {0, 4, "a"}, {300, 0, ""}}, []string{"[0-4/2] a"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s shown
			f := newFolder(c.ranks, s.line)
			for _, st := range c.steps {
				now := time.UnixMilli(int64(st.ms))
				switch st.text {
				case "":
					f.expire(now)
				case "-":
					f.ended(now, st.rank)
				default:
					f.add(now, st.rank, []byte(st.text))
				}
			}
			if d := cmp.Diff(c.want, s.lines); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			s.lines = nil
			f.flush()
			if d := cmp.Diff(c.rest, s.lines); d != "" {
				t.Errorf("flush: -want +got\n%s", d)
			}
			if f.held != 0 || f.lines != 0 || len(f.at) > 0 || len(f.byLine) > 0 || len(f.leaving) > 0 {
				t.Errorf("holds %d bytes, %v, %v, %v after all was shown", f.held, f.at, f.byLine, f.leaving)
			}
		})
	}
}

// Nothing is lost and nothing shown twice: each rank's lines are shown in the
// order in which it said them, none waits longer than the window, and what is
// held is bounded.
func TestFoldLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shown
		ranks := rapid.IntRange(1, 8).Draw(t, "ranks")
		said, ended := map[int][]string{}, map[int]bool{}
		f := newFolder(ranks, s.line)
		f.most = rapid.IntRange(0, 5000).Draw(t, "most")
		now := time.UnixMilli(0)
		type waiting struct {
			n  int
			by time.Time
		}
		due := map[int][]waiting{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond)
			r := rapid.IntRange(0, ranks-1).Draw(t, "rank")
			switch k := rapid.IntRange(0, 30).Draw(t, "what"); {
			case k == 0 && !ended[r]:
				ended[r] = true
				f.ended(now, r)
			case ended[r]:
				f.expire(now)
			default:
				line := strings.Repeat("x", k%3) + fmt.Sprint(k%5)
				said[r] = append(said[r], line)
				f.add(now, r, []byte(line))
				due[r] = append(due[r], waiting{len(said[r]), now.Add(foldWait)})
			}
			if f.held > f.most {
				t.Fatalf("%d bytes held", f.held)
			}
			for r, ws := range due {
				for _, w := range ws {
					if !w.by.After(now) && len(s.byRank[r]) < w.n {
						t.Fatalf("line %d of rank %d was to be shown by %v, it is %v", w.n, r, w.by, now)
					}
				}
			}
		}
		f.flush()
		for r := range ranks {
			if !slices.Equal(said[r], s.byRank[r]) {
				t.Fatalf("rank %d said %q, shown is %q", r, said[r], s.byRank[r])
			}
		}
	})
}

// Many open lines in front of each other make the labels run out.
func TestFoldLabels(t *testing.T) {
	var s shown
	f := newFolder(1000, s.line)
	now := time.UnixMilli(0)
	var want []string
	f.add(now, 0, []byte("first"))
	f.add(now, 0, []byte("last"))
	for r := 1; r < 500; r++ {
		f.add(now, r, []byte("first"))
		f.add(now, r, fmt.Appendf(nil, "own %d", r))
		f.add(now, r, []byte("last"))
		want = append(want, fmt.Sprintf("[%d] own %d", r, r))
	}
	f.flush()
	want = append(append([]string{"[0-499] first"}, want...), "[0-499] last")
	if d := cmp.Diff(want, s.lines); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestFoldStream(t *testing.T) {
	var out bytes.Buffer
	s := newFoldStream(&outputStream{w: &out}, 2)
	long := strings.Repeat("0123456789abcdef", maxLine/8) // two pieces
	for _, p := range []struct {
		rank int
		data string
	}{{0, "a\nhal"}, {1, "a\nhalf\n"}, {0, "f\n"}, {0, long}, {1, long + "\n"}, {0, "\nno end"}} {
		if err := s.add(p.rank, []byte(p.data)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the end may be told twice
		for r := range 2 {
			if err := s.end(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.last()
	want := "[0-1] a\n[0-1] half\n[0-1] " + long[:maxLine] + "\n[0-1] " + long[maxLine:] + "\n[0] no end\n"
	if got := out.String(); got != want {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
	if s.held != 0 {
		t.Errorf("%d bytes of unfinished lines are left", s.held)
	}
}

// A held line comes by itself when its time is over.
func TestFoldStreamWaits(t *testing.T) {
	got := make(chan string, 1)
	s := newFoldStream(&outputStream{w: writerFunc(func(b []byte) (int, error) { got <- string(b); return len(b), nil })}, 2)
	if err := s.add(1, []byte("alone\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if text != "[1] alone\n" {
			t.Errorf("got %q", text)
		}
	case <-time.After(20 * time.Second):
		t.Error("the line never came")
	}
	s.last()
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// One line without an end, from each of many ranks, holds no more than the bound.
func TestFoldStreamEndlessLine(t *testing.T) {
	written := 0
	s := newFoldStream(&outputStream{w: writerFunc(func(b []byte) (int, error) { written += len(b); return len(b), nil })}, 1024)
	block := bytes.Repeat([]byte("x"), 48<<10)
	for range 4 {
		for r := range 1024 {
			if err := s.add(r, block); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock() // its timer folds too
			tails, lines := s.held, s.f.held
			s.mu.Unlock()
			if tails > foldTails+maxLine || lines > foldHeld {
				t.Fatalf("holds %d bytes of unfinished lines, %d of others", tails, lines)
			}
		}
	}
	s.last()
	if written == 0 {
		t.Error("nothing was written")
	}
}

// unfold reads folded output back.
func unfold(t *testing.T, out string) map[int]string {
	t.Helper()
	byRank := map[int]string{}
	re := regexp.MustCompile(`^\[([^]]+)\] `)
	for _, l := range strings.SplitAfter(out, "\n") {
		if l == "" {
			continue
		}
		m := re.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("%q has no list of ranks", l)
		}
		ranks, err := topology.ParseRanks(m[1], 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range ranks {
			byRank[r] += l[len(m[0]):]
		}
	}
	return byRank
}

// Output cut anywhere comes back rank by rank.
func FuzzFoldStream(f *testing.F) {
	f.Add([]byte("a\nb\nlong line\n"), uint16(0x1234))
	f.Add([]byte("\n\n\x00\xff[0] x"), uint16(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		var out bytes.Buffer
		s := newFoldStream(&outputStream{w: &out}, 3)
		want := map[int]string{}
		for i := 0; len(data) > 0; i++ {
			n := min(1+int(cut>>(i%13))%7, len(data))
			r := i % 3
			want[r] += string(data[:n])
			if err := s.add(r, data[:n]); err != nil {
				t.Fatal(err)
			}
			data = data[n:]
		}
		s.last()
		for r, w := range want {
			if !strings.HasSuffix(w, "\n") && len(w) < maxLine {
				want[r] += "\n"
			}
			if len(w) >= maxLine {
				return
			}
		}
		if got := unfold(t, out.String()); !cmp.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	for _, c := range []struct {
		name string
		line func(rank, n int) string
	}{
		{"equal", func(_, n int) string { return fmt.Sprintf("step %d of the simulation, residual 1.25e-7", n) }},
		{"own", func(rank, n int) string { return fmt.Sprintf("rank %d, step %d of the simulation", rank, n) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			const ranks = 1024
			f := newFolder(ranks, func([]int, string) {})
			lines := make([][]byte, ranks)
			now := time.UnixMilli(0)
			for i := 0; b.Loop(); i++ {
				if i%ranks == 0 {
					b.StopTimer()
					for k := range lines {
						lines[k] = []byte(c.line(k, i/ranks))
					}
					b.StartTimer()
					now = now.Add(time.Millisecond)
				}
				f.add(now, i%ranks, lines[i%ranks])
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
