package topology_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/topology"
)

func TestParseCPUSet(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{in: ""},
		{in: "0", want: "0"},
		{in: "0-3,8", want: "0-3,8"},
		{in: "8,0-2,1,3", want: "0-3,8"},
		{in: "63-64,128", want: "63-64,128"},
		{in: "007", want: "7"},
		{in: "3-1", err: "column 1: range 3-1 runs backwards"},
		{in: "0-3,", err: "column 5: expected a cpu number"},
		{in: ",1", err: "column 1: expected a cpu number"},
		{in: "0-", err: "column 3: expected the last cpu"},
		{in: "1 2", err: "column 2: expected ',' or the end"},
		{in: "0-3x", err: "column 4"},
		{in: "1,70000", err: "column 3: cpu number above 65535"},
		{in: "99999999999999999999999", err: "above 65535"},
	} {
		got, err := topology.ParseCPUSet(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("ParseCPUSet(%q): error %v, want %q", test.in, err, test.err)
			}
			continue
		}
		if err != nil || got.String() != test.want {
			t.Errorf("ParseCPUSet(%q) = %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

func TestParseCPUMask(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"ffffffff,00000001", "0,32-63"},
		{"1", "0"},
		{"0", ""},
		{"00000000,00000000,0000000f", "0-3"},
		{"1,00000000,00000000,80000000", "31,96"},
	} {
		got, err := topology.ParseCPUMask(test.in)
		if err != nil || got.String() != test.want {
			t.Errorf("ParseCPUMask(%q) = %q, %v; want %q", test.in, got, err, test.want)
		}
	}
	for _, in := range []string{"", "x", "ff,", "123456789", strings.Repeat("0,", 3000) + "0"} {
		if got, err := topology.ParseCPUMask(in); err == nil {
			t.Errorf("ParseCPUMask(%.20q) = %q, want an error", in, got)
		}
	}
}

// TestCPUSetOperations holds the set operations against maps.
func TestCPUSetOperations(t *testing.T) {
	cpus := rapid.SliceOfN(rapid.IntRange(0, 300), 0, 40)
	rapid.Check(t, func(t *rapid.T) {
		as, bs := cpus.Draw(t, "a"), cpus.Draw(t, "b")
		a, b := topology.NewCPUSet(as...), topology.NewCPUSet(bs...)
		before := a.String()
		for cpu := range 310 {
			inA, inB := slices.Contains(as, cpu), slices.Contains(bs, cpu)
			if a.Has(cpu) != inA || a.Union(b).Has(cpu) != (inA || inB) ||
				a.Intersect(b).Has(cpu) != (inA && inB) || a.Minus(b).Has(cpu) != (inA && !inB) {
				t.Fatalf("operations disagree on cpu %d of %s and %s", cpu, a, b)
			}
		}
		if a.Overlaps(b) == a.Intersect(b).IsEmpty() || a.Contains(b) != b.Minus(a).IsEmpty() {
			t.Fatalf("Overlaps or Contains disagree on %s and %s", a, b)
		}
		a.Add(301)
		if a.String() != before {
			t.Fatal("an operation changed its receiver")
		}
		back, err := topology.ParseCPUSet(a.String())
		if err != nil || !back.Equal(a) || back.Count() != len(back.Slice()) {
			t.Fatalf("round trip of %s: %s, %v", a, back, err)
		}
		if !a.Minus(a).Equal(topology.CPUSet{}) {
			t.Fatal("an emptied set differs from the empty one")
		}
	})
}

func TestCPUSetJSON(t *testing.T) {
	in := topology.Core{PUs: topology.NewCPUSet(0, 1, 2, 9)}
	b, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(b), `"pus":"0-2,9"`) {
		t.Fatalf("marshal: %s, %v", b, err)
	}
	var out topology.Core
	if err := json.Unmarshal(b, &out); err != nil || !out.PUs.Equal(in.PUs) {
		t.Fatalf("unmarshal: %+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"pus":"x"}`), &out); err == nil {
		t.Fatal("a broken set was taken")
	}
}

func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"", "0-3,8", "65535", "3-1", "0-", "1,,2", "0-65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := topology.ParseCPUSet(s)
		if err != nil {
			return
		}
		again, err := topology.ParseCPUSet(set.String())
		if err != nil || !again.Equal(set) {
			t.Fatalf("%q: %s then %s, %v", s, set, again, err)
		}
	})
}

func FuzzParseCPUMask(f *testing.F) {
	for _, s := range []string{"ffffffff,00000001", "0", "1,", "zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if set, err := topology.ParseCPUMask(s); err == nil && set.Count() != len(set.Slice()) {
			t.Fatalf("%q: count of %s", s, set)
		}
	})
}
