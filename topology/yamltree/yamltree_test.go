package yamltree_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/topology/yamltree"
)

// everything allows all there is and explains itself.
func everything() yamltree.Options {
	return yamltree.Options{Documents: true, References: true, Explain: true, Files: "tests",
		Hints: yamltree.Hints{Unreadable: "simplify", Keys: "use lists", Merged: "merge less", Empty: "no dashes", Depth: "go up"}}
}

// little allows one document of plain values.
func little() yamltree.Options {
	return yamltree.Options{Files: "tests", Hints: yamltree.Hints{Document: "one only"}}
}

// show writes a tree in one line: each value behind its place.
func show(n *yamltree.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d ", n.At.Line, n.At.Column)
	switch n.Kind {
	case yamltree.Null:
		b.WriteString("-")
	case yamltree.Scalar:
		fmt.Fprintf(&b, "%q", n.Text)
	case yamltree.Sequence:
		b.WriteString("[")
		for i, v := range n.Items {
			b.WriteString(strings.Repeat(", ", min(i, 1)) + show(v))
		}
		b.WriteString("]")
	case yamltree.Mapping:
		b.WriteString("{")
		for i, p := range n.Pairs {
			fmt.Fprintf(&b, "%s%d:%d %s: %s", strings.Repeat(", ", min(i, 1)), p.At.Line, p.At.Column, p.Key, show(p.Value))
		}
		b.WriteString("}")
	}
	return b.String()
}

func TestRead(t *testing.T) {
	all, plain := everything(), little()
	for _, c := range []struct {
		name, text string
		options    yamltree.Options
		want       []string
	}{
		{"nothing", "", plain, nil},
		{"comments", "# a\n\n# b\n", plain, nil},
		{"null", "~\n", plain, []string{"1:1 -"}},
		{"as written", "a: 1.10\nb: 007\nc: yes\nd: \"x y\"\n", plain,
			[]string{`1:1 {1:1 a: 1:4 "1.10", 2:1 b: 2:4 "007", 3:1 c: 3:4 "yes", 4:1 d: 4:4 "x y"}`}},
		{"no value", "a:\nb: 1\n", plain, []string{`1:1 {1:1 a: 1:3 -, 2:1 b: 2:4 "1"}`}},
		{"lists", "a:\n  - x\n  - {b: y}\n", plain, []string{`1:1 {1:1 a: 2:3 [2:5 "x", 3:5 {3:6 b: 3:9 "y"}]}`}},
		{"characters", "é: ü\n", plain, []string{`1:1 {1:1 é: 1:4 "ü"}`}},
		{"block text", "a: |\n  x\n  y\n", plain, []string{`1:1 {1:1 a: 1:4 "x\ny\n"}`}},
		{"directive", "%YAML 1.2\n---\na: 1\n", plain, []string{`3:1 {3:1 a: 3:4 "1"}`}},
		{"documents", "a: 1\n---\n- b\n", all, []string{`1:1 {1:1 a: 1:4 "1"}`, `3:1 [3:3 "b"]`}},
		{"alias", "a: &x 1\nb: *x\n", all, []string{`1:1 {1:1 a: 1:7 "1", 2:1 b: 1:7 "1"}`}},
		{"merge", "a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", all,
			[]string{`1:1 {1:1 a: 1:7 {1:8 p: 1:11 "1", 1:14 q: 1:17 "2"}, 2:1 b: 3:3 {4:3 q: 4:6 "3", 1:8 p: 1:11 "1"}}`}},
		{"tag", "a: !!str 1\n", all, []string{`1:1 {1:1 a: 1:9 "1"}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, faults := yamltree.Read(c.text, c.options)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			var got []string
			for _, d := range docs {
				got = append(got, show(d))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("wanted (-), got (+):\n%s", d)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	all, plain := everything(), little()
	many := func(n int, line string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text string
		options    yamltree.Options
		read       bool // the rest is there
		want       string
	}{
		{"document", "a: 1\n---\nb: 2\n", plain, false, "2:1 a second document begins here (one only)"},
		{"tab", "a:\n\tb: 1\n", all, false, "2:1 a tab indents this line (YAML is indented with spaces)"},
		{"colon", "a: b: c\n", all, false, `1:4 a colon and a blank begin a value inside another value (put a text with ": " into quotes)`},
		{"colon, not explained", "a: b: c\n", plain, false, "1:4 mapping value is not allowed in this context ()"},
		{"twice", "a: 1\nb: 2\na: 3\n", all, true, "3:1 a stands here a second time, first in line 1 (keep one of the two)"},
		{"twice, not explained", "a: 1\na: 3\n", plain, false, `2:1 mapping key "a" already defined at [1:1] ()`},
		{"no key", "~: b\n", all, true, "1:1 a key is a single word ()"},
		{"a marked key", "? a\n: b\n", all, true, "1:1 this kind of YAML is not used in tests ()"},
		{"alias of nothing", "a: *x\n", all, true, "1:4 *x names no value above it (write &x before the value that is meant)"},
		{"alias of another document", "a: &x 1\n---\nb: *x\n", all, true, "3:4 *x names no value above it (write &x before the value that is meant)"},
		{"alias of itself", "a: &x [*x]\n", all, true, "1:8 *x names no value above it (write &x before the value that is meant)"},
		{"tag", "a: !!int 1\n", all, true, "1:4 the tag !!int is not used in tests (leave it out: each key knows its type)"},
		{"merge", "a: &x 1\nb: {<<: *x}\n", all, true, "2:5 << merges mappings, but this is a single value (<<: *name, where name is the anchor of a mapping)"},
		{"merges", "a: &x {" + many(300, "k%d: 1, ") + "}\nb: &y {" + many(300, "l%d: 1, ") + "}\nc: {<<: [*x, *y]}\n", all, true,
			"3:5 << brings too many keys: at most 512 into one mapping and 100000 in all (merge less)"},
		{"anchor, not allowed", "a: &x 1\n", plain, true, "1:4 anchors, aliases, tags and merges are not used in tests (write the value out)"},
		{"merge, not allowed", "a:\n  <<: {b: 1}\n", plain, true, "2:3 anchors, aliases, tags and merges are not used in tests (write the value out)"},
		{"keys", many(yamltree.MaxKeys+1, "k%d: 1\n"), all, false, "513:5 a mapping has more than 512 keys (use lists)"},
		{"keys in a line", "{" + many(yamltree.MaxKeys+2, "k%d: 1, ") + "}", all, false, "a mapping has more than 512 keys (use lists)"},
		{"empty items", strings.Repeat("-\n", yamltree.MaxKeys+2), all, false, "514:1 more than 512 items of lists are empty (no dashes)"},
		{"depth", strings.Repeat("[", yamltree.MaxDepth+1), all, false, "1:33 the nesting is deeper than 32 levels (go up)"},
		{"depth of dashes", strings.Repeat("- ", yamltree.MaxDepth+1), all, false, "1:65 the nesting is deeper than 32 levels (go up)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, faults := yamltree.Read(c.text, c.options)
			if len(faults) == 0 {
				t.Fatal("no fault")
			}
			if len(docs) > 0 != c.read {
				t.Errorf("%d documents", len(docs))
			}
			f := faults[0]
			if got := fmt.Sprintf("%d:%d %s (%s)", f.At.Line, f.At.Column, f.Message, f.Hint); !strings.HasSuffix(got, c.want) {
				t.Errorf("wanted %q, got %q", c.want, got)
			}
		})
	}
}

func TestLookups(t *testing.T) {
	docs, faults := yamltree.Read("a: {b: [x, y]}\n", little())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if got := docs[0].Get("a").Get("b").List(); len(got) != 2 || got[1].Text != "y" {
		t.Errorf("a.b is %v", got)
	}
	if got := docs[0].Get("c").Get("d"); got != nil || len(got.List()) != 0 {
		t.Errorf("c.d is %v", got)
	}
}

// FuzzRead: whatever the text, each node and fault has a place, no node is below
// itself, and where nothing is shared nothing refers to another.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"a: &a {b: &c [*a, *c]}\n<<: *a\n", "? a : b\n%YAML 1.2\n--- !!map\n...", "- x\n---\n{a: [1, {b: ~}]}\n",
		"a: |\n  x\nb: >-\n  y\nc: \"\\u00e9\"\n", "a: 1\n\ta: 2\n", "- - - &x\n- *x\n- !!str 1\n", "{a: 1, a: 2, ? [b]: 3}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			t.Skip("long texts only take long")
		}
		for _, o := range []yamltree.Options{everything(), little()} {
			docs, faults := yamltree.Read(text, o)
			if len(docs) > 1 && !o.Documents {
				t.Errorf("%d documents", len(docs))
			}
			for _, x := range faults {
				if x.Message == "" || x.At.Line < 1 || x.At.Column < 1 {
					t.Errorf("a fault without place or text: %+v", x)
				}
			}
			w := walk{t: t, seen: map[*yamltree.Node]bool{}, tree: !o.References}
			for _, d := range docs {
				w.node(d)
			}
		}
	})
}

// walk checks a tree; seen are its nodes, false while they are open.
type walk struct {
	t    *testing.T
	seen map[*yamltree.Node]bool
	tree bool // no node is shared
}

func (w *walk) node(n *yamltree.Node) {
	if n == nil {
		w.t.Fatal("a node is missing")
	}
	if done, ok := w.seen[n]; ok {
		if !done || w.tree {
			w.t.Fatalf("the node at %v is below itself (%v) or shared", n.At, !done)
		}
		return
	}
	w.seen[n] = false
	if n.At.Line < 1 || n.At.Column < 1 {
		w.t.Errorf("a node without a place: %+v", n)
	}
	if n.Kind != yamltree.Scalar && n.Text != "" || n.Kind != yamltree.Sequence && n.Items != nil || n.Kind != yamltree.Mapping && n.Pairs != nil {
		w.t.Errorf("a node of two kinds: %+v", n)
	}
	keys := map[string]bool{}
	for _, p := range n.Pairs {
		if keys[p.Key] || p.At.Line < 1 || p.At.Column < 1 {
			w.t.Errorf("the key %q stands twice or nowhere", p.Key)
		}
		keys[p.Key] = true
		w.node(p.Value)
	}
	for _, item := range n.Items {
		w.node(item)
	}
	w.seen[n] = true
}
