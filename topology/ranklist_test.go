package topology

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRankLists(t *testing.T) {
	for want, ranks := range map[string][]int{
		"":              nil,
		"7":             {7},
		"0-3":           {0, 1, 2, 3},
		"0-1":           {0, 1},
		"0,8":           {0, 8},
		"0-16/8":        {0, 8, 16},
		"0,3,5":         {0, 3, 5},
		"1-2,6-12/3,90": {1, 2, 6, 9, 12, 90},
	} {
		if got := FormatRanks(ranks); got != want {
			t.Errorf("FormatRanks(%v) = %q, not %q", ranks, got, want)
		}
	}
	for in, want := range map[string]string{
		"x":     "column 1: expected a rank",
		"3-":    "column 3: expected the last rank",
		"3-1":   "column 1: range 3-1 runs backwards",
		"0-4/0": "column 5: expected the step",
		"0-4/":  "column 5: expected the step",
		"0-100": "column 1: a rank that is not below 100",
		"4,4":   "column 3: rank 4 does not follow",
		"0-3,2": "column 5: rank 2 does not follow",
		"1;2":   "column 2: expected ','",
		"1,":    "column 3: expected a rank",
	} {
		if _, err := ParseRanks(in, 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRanks(%q): %v, not %q", in, err, want)
		}
	}
}

func TestRankListsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ranks := rapid.SliceOfDistinct(rapid.IntRange(0, 200), func(n int) int { return n }).Draw(t, "ranks")
		slices.Sort(ranks)
		got, err := ParseRanks(FormatRanks(ranks), 201)
		if err != nil || !slices.Equal(got, ranks) {
			t.Fatalf("%v: %q is read as %v, %v", ranks, FormatRanks(ranks), got, err)
		}
	})
}

func TestDealRanks(t *testing.T) {
	for _, c := range []struct {
		counts []int
		want   [][]int
	}{
		{nil, [][]int{}},
		{[]int{2, 2, 2}, [][]int{{0, 3}, {1, 4}, {2, 5}}},
		{[]int{3, 1, 2}, [][]int{{0, 3, 5}, {1}, {2, 4}}},
		{[]int{1, 0, 2}, [][]int{{0}, nil, {1, 2}}},
	} {
		if d := cmp.Diff(c.want, DealRanks(c.counts)); d != "" {
			t.Errorf("%v: -want +got\n%s", c.counts, d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 20).Draw(t, "counts")
		node := map[int]int{}
		for i, ranks := range DealRanks(counts) {
			if len(ranks) != counts[i] || !slices.IsSorted(ranks) {
				t.Fatalf("node %d has %v of %d ranks", i, ranks, counts[i])
			}
			for _, r := range ranks {
				node[r] = i
			}
		}
		for r := range node { // each rank once, from 0
			if r >= len(node) {
				t.Fatalf("rank %d of %d", r, len(node))
			}
		}
	})
}

func FuzzParseRanks(f *testing.F) {
	for _, s := range []string{"", "0-3,8", "0-1016/8", "5-1", "0-4/0", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ranks, err := ParseRanks(s, 5000)
		if err != nil {
			return
		}
		again, err := ParseRanks(FormatRanks(ranks), 5000)
		if err != nil || !slices.Equal(ranks, again) {
			t.Fatalf("%q: %v becomes %q: %v", s, ranks, FormatRanks(ranks), err)
		}
	})
}
