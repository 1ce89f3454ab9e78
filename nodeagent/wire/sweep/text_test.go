package sweep

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func files(values ...string) *Sweep {
	return &Sweep{Axes: []Axis{
		one(Column{Name: "file", Values: values}),
		one(Column{Name: "n", Span: &Span{From: "1", To: "2"}}),
	}}
}

func TestForms(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain", "plain"},
		{"{}", "data/a.b/run 1.tar.gz"},
		{"x{file}y", "xdata/a.b/run 1.tar.gzy"},
		{"{.}", "data/a.b/run 1.tar"},
		{"{/}", "run 1.tar.gz"},
		{"{//}", "data/a.b"},
		{"{/.}", "run 1.tar"},
		{"{1}-{2}", "data/a.b/run 1.tar.gz-2"},
		{"{1.} {1/} {1//} {1/.}", "data/a.b/run 1.tar run 1.tar.gz data/a.b run 1.tar"},
		{"{file/.}.csv", "run 1.tar.csv"},
		{"{#}/{%}", "2/4"},
		{"${file} ${n}", "${file} ${n}"},
		{"${{file}}", "${{file}}"},
		{"{{file}} {{}} {{#}}", "{file} {} {#}"},
		{`{"n":{n}}`, `{"n":2}`},
		{`{"n":{{n}}}`, `{"n":{n}}`},
		{"awk '{print $1; x}' {a,b} { n } {0} {", "awk '{print $1; x}' {a,b} { n } {0} {"},
		{"{n}}", "2}"},
	} {
		x, err := Compile(files("data/a.b/run 1.tar.gz"), 1, []string{"first", c.text, "{n}"})
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if d := cmp.Diff([]string{"0", "first", c.want, "2"}, x.Expand(2, 3, []string{"0"})); d != "" {
			t.Errorf("%s: %s", c.text, d)
		}
	}
}

func TestChanges(t *testing.T) {
	for _, c := range []struct{ value, noExt, base, dir, both string }{
		{"a", "a", "a", ".", "a"},
		{"/a", "/a", "a", "/", "a"},
		{"a/", "a/", "", ".", ""},
		{"a//b", "a//b", "b", "a", "b"},
		{".rc", "", ".rc", ".", ""},
		{"x.d/f", "x.d/f", "f", "x.d", "f"},
		{"/", "/", "", "/", ""},
		{"", "", "", ".", ""},
	} {
		got := []string{changed(c.value, "."), changed(c.value, "/"), changed(c.value, "//"), changed(c.value, "/.")}
		if d := cmp.Diff([]string{c.noExt, c.base, c.dir, c.both}, got); d != "" {
			t.Errorf("%q: %s", c.value, d)
		}
	}
}

func TestTextsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"run {diametr}", `"run {diametr}": nothing is called {diametr}; known are file, n; write {{diametr}}`},
		{"{3}", "the sweep has 2"},
		{"{99999999999999999999}", "the sweep has 2"},
		{"x {file", `"{file" has no }`},
		{"{{file}", "two braces"},
	} {
		_, err := Compile(files("a"), 0, []string{"ok", c.text})
		var f *Fault
		if !errors.As(err, &f) || f.Text != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
	if _, err := Compile(&Sweep{Axes: []Axis{{Repeat: 2}}}, 0, []string{"{}"}); err == nil {
		t.Error("{} without values is not refused")
	}
}

func TestWithoutASweepNothingIsFilledIn(t *testing.T) {
	x, err := Compile(nil, 0, []string{"{}", "{{a}}"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"{}", "{{a}}"}, x.Expand(0, 0, nil)); d != "" {
		t.Error(d)
	}
}

func TestBeyondTheSweepValuesAreEmpty(t *testing.T) {
	x, err := Compile(files("a"), 1, []string{"{file}{n}{#}"})
	if err != nil {
		t.Fatal(err)
	}
	if got := x.Expand(9, 0, nil); got[0] != "9" {
		t.Errorf("%q", got)
	}
	if got := x.Expand(0, 0, nil); got[0] != "0" {
		t.Errorf("%q", got)
	}
}

func TestDistinctAndLongest(t *testing.T) {
	x, err := Compile(files("a", "bbb"), 1, []string{"plain", "{file}", "{n}", "{n}{file}", "{#}"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]uint64{{1}, {1, 3}, {1, 2}, {1, 3, 2, 4}, {1, 2, 3, 4}} {
		if d := cmp.Diff(want, slices.Collect(x.Distinct(i))); d != "" {
			t.Errorf("text %d: %s", i, d)
		}
	}
	if d := cmp.Diff([]int{5, 3, 32, 35, 20}, x.Longest()); d != "" {
		t.Error(d)
	}
}

func BenchmarkExpand(b *testing.B) {
	s := &Sweep{Axes: []Axis{one(Column{Name: "i", Span: &Span{From: "1", To: "1000000"}})}}
	x, err := Compile(s, 1, []string{"/usr/bin/convert", "in-{i}.png", "-resize", "50%", "out-{i}.png", "OMP_NUM_THREADS=1"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	dst := make([]string, 0, 8)
	i := uint64(0)
	for b.Loop() {
		i = i%1_000_000 + 1
		dst = x.Expand(i, 0, dst[:0])
	}
}
