package sweep

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func all(t *testing.T, s *Sweep) [][]string {
	t.Helper()
	table, err := s.Table()
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for i := range table.Len() {
		out = append(out, table.Values(i, nil))
	}
	return out
}

func one(columns ...Column) Axis { return Axis{Columns: columns} }

func TestProductOfAxes(t *testing.T) {
	s := &Sweep{Axes: []Axis{
		one(Column{Name: "d", Values: []string{"0.05", "0.10"}}),
		one(Column{Name: "a", Lines: "x\ny\n"}, Column{Name: "b", Span: &Span{From: "1", To: "2"}}),
		{Repeat: 2},
	}}
	want := [][]string{
		{"0.05", "x", "1"}, {"0.05", "x", "1"}, {"0.05", "y", "2"}, {"0.05", "y", "2"},
		{"0.10", "x", "1"}, {"0.10", "x", "1"}, {"0.10", "y", "2"}, {"0.10", "y", "2"},
	}
	if d := cmp.Diff(want, all(t, s)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"d", "a", "b"}, s.Names()); d != "" {
		t.Error(d)
	}
}

func TestSpans(t *testing.T) {
	for _, c := range []struct {
		span Span
		want string
	}{
		{Span{From: "1", To: "5"}, "1 2 3 4 5"},
		{Span{From: "3", To: "1"}, "3 2 1"},
		{Span{From: "0", To: "1", Step: "0.1"}, "0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0"},
		{Span{From: "-0.05", To: "0.1", Step: "0.05"}, "-0.05 0.00 0.05 0.10"},
		{Span{From: "1e-3", To: "0.002", Step: "5e-4"}, "0.0010 0.0015 0.0020"},
		{Span{From: "1", To: "10", Step: "4"}, "1 5 9"},
		{Span{From: "008", To: "011"}, "008 009 010 011"},
		{Span{From: "0", To: "1", Count: 4}, "0 0.333333333333 0.666666666667 1"},
		{Span{From: "0", To: "1", Count: 11}, "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"},
		{Span{From: "1e-3", To: "1", Count: 4, Log: true}, "0.001 0.01 0.1 1"},
		{Span{From: "5", To: "5", Count: 1}, "5"},
		{Span{From: "100000", To: "300000", Count: 3}, "100000 200000 300000"},
	} {
		t.Run(fmt.Sprint(c.span), func(t *testing.T) {
			var got []string
			for _, v := range all(t, &Sweep{Axes: []Axis{one(Column{Name: "x", Span: &c.span})}}) {
				got = append(got, v[0])
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	span := func(s Span) *Sweep { return &Sweep{Axes: []Axis{one(Column{Name: "x", Span: &s})}} }
	random := func(r Random) *Sweep { return &Sweep{Each: []Column{{Name: "x", Random: &r}}} }
	for _, c := range []struct {
		sweep *Sweep
		want  string
	}{
		{&Sweep{}, "nothing varies"},
		{span(Span{From: "1", To: "x"}), `end "x" is no number`},
		{span(Span{From: "1", To: "10000001"}), "10000001 values; at most 10000000"},
		{span(Span{From: "1", To: "2", Step: "0"}), "step is 0"},
		{span(Span{From: "1", To: "2", Step: "-1"}), "leads away"},
		{span(Span{From: "1", To: "2", Step: "1", Count: 2}), "a step and a count"},
		{span(Span{From: "0", To: "2", Count: 2, Log: true}), "above 0"},
		{&Sweep{Axes: []Axis{{Repeat: 10_000}, {Repeat: 10_000}}}, "10000 × 10000 = 100000000 elements"},
		{&Sweep{Axes: []Axis{{Repeat: Limit}, {Repeat: Limit}, {Repeat: Limit}}}, "elements; at most"},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Values: []string{"1"}}, Column{Name: "b", Values: []string{"1", "2"}})}}, `has 2 values, "a"`},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Values: []string{"1"}}), one(Column{Name: "a", Values: []string{"1"}})}}, "twice"},
		{&Sweep{Axes: []Axis{one(Column{Name: "a b", Values: []string{"1"}})}}, "is no name"},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Values: []string{}})}}, "no values"},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Values: []string{"ok", "caf\xe9"}})}}, `sweep "a", value 2: "caf\xe9" is not UTF-8`},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Lines: "ok\ncaf\xe9\n"})}}, `sweep "a", line 2: "caf\xe9" is not UTF-8`},
		{&Sweep{Axes: []Axis{one(Column{Name: "a", Values: []string{"\x00"}})}}, "zero byte"},
		{random(Random{Draw: "gauss"}), "unknown distribution"},
		{random(Random{Draw: Uniform, Low: 2, High: 1}), "not below"},
		{random(Random{Draw: Choice}), "a choice of 0 values"},
		{random(Random{Draw: Integer, High: 0.5}), "whole numbers"},
		{&Sweep{Axes: []Axis{{Repeat: 3}}, Window: &Window{First: 2, Count: 2}}, "of 3"},
		{&Sweep{Axes: []Axis{{Size: 4, From: 1, Columns: []Column{{Values: []string{"b", "c"}}}}}}, "lacks values"},
	} {
		err := c.sweep.Check()
		var f *Fault
		if !errors.As(err, &f) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestCutsHoldWhatTheyNeed(t *testing.T) {
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	s := &Sweep{
		Axes: []Axis{
			one(Column{Name: "l", Lines: lines.String()}),
			one(Column{Name: "v", Values: []string{"a", "b", "c"}}),
		},
		Each: []Column{{Name: "r", Random: &Random{Draw: Normal, SD: 1, Seed: 7}}},
	}
	want := all(t, s)
	for _, r := range [][2]uint64{{0, 1}, {0, 3000}, {7, 8}, {1500, 1531}, {2999, 3000}, {64 * 3, 128 * 3}} {
		cut := s.Cut(r[0], r[1])
		if d := cmp.Diff(want[r[0]:r[1]], all(t, cut)); d != "" {
			t.Error(r, d)
		}
		again := cut.Cut(0, cut.Len())
		if d := cmp.Diff(all(t, cut), all(t, again)); d != "" {
			t.Error(r, d)
		}
		b, err := json.Marshal(cut)
		if err != nil {
			t.Fatal(err)
		}
		if most := 400 + 6*int(r[1]-r[0]); len(b) > most {
			t.Errorf("cut %v of %d bytes", r, len(b))
		}
	}
}

func TestDraws(t *testing.T) {
	each := func(r Random) []string {
		var out []string
		for _, v := range all(t, &Sweep{Axes: []Axis{{Repeat: 10_000}}, Each: []Column{{Name: "x", Random: &r}}}) {
			out = append(out, v[0])
		}
		return out
	}
	mean := func(r Random) float64 {
		sum := 0.0
		for _, v := range each(r) {
			var x float64
			if _, err := fmt.Sscan(v, &x); err != nil {
				t.Fatal(v, err)
			}
			sum += x
		}
		return sum / 10_000
	}
	for _, c := range []struct {
		r    Random
		want float64
	}{
		{Random{Draw: Uniform, Low: -1, High: 3}, 1},
		{Random{Draw: Integer, Low: 1, High: 6}, 3.5},
		{Random{Draw: Normal, Mean: 5, SD: 2}, 5},
		{Random{Draw: Lognormal, Mean: 0, SD: 0.5}, 1.1331},
		{Random{Draw: Exponential, Mean: 2}, 2},
		{Random{Draw: Choice, Values: []string{"0", "10"}, Weights: []float64{3, 1}}, 2.5},
	} {
		if got := mean(c.r); got < c.want-0.15 || got > c.want+0.15 {
			t.Errorf("%s: mean %v, want about %v", c.r.Draw, got, c.want)
		}
	}
	a, b := each(Random{Draw: Uniform, High: 1, Seed: 1}), each(Random{Draw: Uniform, High: 1, Seed: 2})
	if a[0] == b[0] || a[0] == a[1] {
		t.Error("draws repeat", a[:2], b[:2])
	}
	// What was drawn once is drawn for ever: a stored sweep means the same in
	// every later version.
	got := all(t, &Sweep{Axes: []Axis{one(Column{Name: "x", Random: &Random{Draw: Normal, Mean: 1, SD: 2, Seed: 42, Count: 3}})}})
	if d := cmp.Diff([][]string{{"2.67930751655"}, {"-0.910866647371"}, {"1.51338955491"}}, got); d != "" {
		t.Error(d)
	}
}
