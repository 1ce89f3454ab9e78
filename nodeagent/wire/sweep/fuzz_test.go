package sweep

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzSweep holds that a checked sweep can be read at each element, and that a
// cut of it, sent as JSON, has the same values.
func FuzzSweep(f *testing.F) {
	for _, s := range []string{
		`{"axes":[{"columns":[{"name":"i","range":{"from":"1","to":"1000000"}}]}]}`,
		`{"axes":[{"columns":[{"name":"a","values":["x","y"]},{"name":"b","lines":"1\n2"}]},{"repeat":3}],"each":[{"name":"r","random":{"draw":"normal","sd":1}}]}`,
		`{"axes":[{"columns":[{"range":{"from":"0","to":"1","step":"0.1"}}]},{"columns":[{"random":{"draw":"choice","values":["a"],"weights":[1],"count":4}}]}],"window":{"first":3,"count":20}}`,
		`{"axes":[{"size":4,"from":3,"columns":[{"name":"v","values":["d"]}]}],"window":{"first":3,"count":1}}`,
		`{"axes":[{"columns":[{"range":{"from":"1","to":"1e9","count":7,"log":true}}]}]}`,
	} {
		f.Add([]byte(s), uint16(2), uint16(9))
	}
	f.Fuzz(func(t *testing.T, b []byte, from, count uint16) {
		var s Sweep
		if json.Unmarshal(b, &s) != nil {
			return
		}
		n := s.Len()
		names := s.Names()
		table, err := s.Table()
		if err != nil {
			return
		}
		if n != table.Len() || n == 0 || n > Limit {
			t.Fatalf("%d elements, table %d", n, table.Len())
		}
		lo := uint64(from) % n
		hi := min(lo+uint64(count%32)+1, n)
		sent, err := json.Marshal(table.Cut(lo, hi))
		if err != nil {
			t.Fatal(err)
		}
		var cut Sweep
		if err := json.Unmarshal(sent, &cut); err != nil {
			t.Fatal(err)
		}
		part, err := cut.Table()
		if err != nil {
			t.Fatalf("the cut is refused: %v", err)
		}
		if part.Len() != hi-lo {
			t.Fatalf("%d elements, want %d", part.Len(), hi-lo)
		}
		for i := lo; i < hi; i++ {
			want, got := table.Values(i, nil), part.Values(i-lo, nil)
			if len(want) != len(names) || !slices.Equal(want, got) {
				t.Fatalf("element %d: %q, cut %q", i, want, got)
			}
			for _, v := range want {
				if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
					t.Fatalf("element %d: value %q", i, v)
				}
			}
		}
	})
}

// FuzzTexts holds that a text is either refused or filled in, within Longest.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"{a} {} {1/.}", "{{a}} ${b} {#}{%}", `{"x":{b}}`, "{{a}", "{a", "{c}"} {
		f.Add(s, uint64(3))
	}
	s := &Sweep{Axes: []Axis{
		one(Column{Name: "a", Values: []string{"x/y.z", ""}}),
		one(Column{Name: "b", Lines: "1\n2\n3"}),
	}}
	table, err := s.Table()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, index uint64) {
		x, err := table.Compile(1, []string{text, "{b}"})
		if err != nil {
			return
		}
		got := x.Expand(index, 0, nil)
		if len(got) != 2 || len(got[0]) > x.Longest()[0] {
			t.Fatalf("%q of %q, at most %d bytes", got, text, x.Longest()[0])
		}
		if !x.Varies(0) && !strings.Contains(text, "{{") && got[0] != text {
			t.Fatalf("%q became %q", text, got[0])
		}
	})
}
