package crew

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/nodeagent/wire"
)

// model is a set as a map.
type model map[[2]uint64]bool

func (m model) fill(attempt uint32, lo, hi uint64, in bool) {
	for i := lo; i < hi; i++ {
		if in {
			m[[2]uint64{uint64(attempt), i}] = true
		} else {
			delete(m, [2]uint64{uint64(attempt), i})
		}
	}
}

func asModel(runs []*wire.Run) model {
	m := model{}
	for _, r := range runs {
		m.fill(r.GetAttempt(), r.GetRange().GetLo(), r.GetRange().GetHi(), true)
	}
	return m
}

func minusModel(a, b model) model {
	out := model{}
	for k := range a {
		if !b[k] {
			out[k] = true
		}
	}
	return out
}

func drawSet(t *rapid.T, label string) (set, model) {
	s, m := set{}, model{}
	for i := range rapid.IntRange(0, 30).Draw(t, label) {
		a := rapid.Uint32Range(1, 2).Draw(t, fmt.Sprint(label, " attempt ", i))
		lo := rapid.Uint64Range(0, 40).Draw(t, fmt.Sprint(label, " lo ", i))
		hi := rapid.Uint64Range(0, 40).Draw(t, fmt.Sprint(label, " hi ", i))
		if in := rapid.Bool().Draw(t, fmt.Sprint(label, " add ", i)); in {
			s.add(a, lo, hi)
			m.fill(a, lo, hi, true)
		} else {
			s.remove(a, lo, hi)
			m.fill(a, lo, hi, false)
		}
	}
	return s, m
}

func TestSetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := drawSet(t, "s")
		o, n := drawSet(t, "o")
		if d := cmp.Diff(m, asModel(s.runs())); d != "" {
			t.Fatal(d)
		}
		for a, list := range s {
			for i, p := range list {
				if p.lo >= p.hi || i > 0 && list[i-1].hi >= p.lo {
					t.Fatalf("attempt %d: %v", a, list)
				}
			}
		}
		for a := uint32(1); a < 3; a++ {
			for i := range uint64(41) {
				if s.has(a, i) != m[[2]uint64{uint64(a), i}] {
					t.Fatalf("has(%d, %d)", a, i)
				}
			}
		}
		if d := cmp.Diff(minusModel(m, n), asModel(s.without(o))); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(minusModel(m, minusModel(m, n)), asModel(s.common(o).runs())); d != "" {
			t.Fatal(d)
		}
		if got := length(s.runs()); got != uint64(len(m)) {
			t.Fatalf("length %d, want %d", got, len(m))
		}
	})
}

func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rs []*result
		want := map[[2]uint64]result{}
		for i := range rapid.IntRange(0, 60).Draw(t, "results") {
			r := &result{index: rapid.Uint64Range(0, 30).Draw(t, fmt.Sprint("index ", i)), attempt: rapid.Uint32Range(1, 3).Draw(t, fmt.Sprint("attempt ", i)),
				code: int32(rapid.IntRange(0, 1).Draw(t, fmt.Sprint("code ", i))), start: int64(i) * 7, wall: uint64(i), cpu: uint64(2 * i), rss: 5}
			k := [2]uint64{r.index, uint64(r.attempt)}
			if _, ok := want[k]; ok {
				continue
			}
			if r.code != 0 {
				r.last = fmt.Sprint(r.index)
			}
			want[k] = *r
			rs = append(rs, r)
		}
		back, n := drawSet(t, "back")
		got := map[[2]uint64]result{}
		returned := model{}
		for _, b := range blocks(rs, back) {
			i, start, e, left := 0, int64(0), 0, uint64(0)
			before := int64(-1)
			last := map[uint64]string{}
			for _, l := range b.GetLast() {
				last[l.GetIndex()] = l.GetText()
			}
			for _, r := range b.GetRuns() {
				for x := r.GetRange().GetLo(); x < r.GetRange().GetHi(); x++ {
					if int64(x) <= before {
						t.Fatalf("%d follows %d", x, before)
					}
					before = int64(x)
					if left == 0 {
						left = b.GetEndings()[e].GetCount()
						e++
					}
					left--
					start += b.GetStartUs()[i]
					got[[2]uint64{x, uint64(r.GetAttempt())}] = result{index: x, attempt: r.GetAttempt(), code: b.GetEndings()[e-1].GetExitCode(),
						start: start, wall: b.GetWallUs()[i], cpu: b.GetCpuUs()[i], rss: b.GetRssKib()[i], last: last[x]}
					i++
				}
			}
			if left != 0 || e != len(b.GetEndings()) || i != len(b.GetWallUs()) {
				t.Fatalf("columns of %v", b)
			}
			for k := range asModel(b.GetReturned()) {
				returned[k] = true
			}
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(result{})); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(n, returned); d != "" {
			t.Fatal(d)
		}
	})
}
