package sched

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/launcher/job"
	"gangway/topology"
)

// tree builds a domain of "a=3 b=2 (c=1 d=4)": leaves with numbers of hosts,
// parentheses for a switch above some of them. Host i of leaf a is a-i.
func tree(t testing.TB, text string) (topology.Domain, View) {
	var v View
	tokens := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))
	var parse func() topology.Domain
	parse = func() topology.Domain {
		var d topology.Domain
		for len(tokens) > 0 {
			w := tokens[0]
			tokens = tokens[1:]
			switch w {
			case "(":
				d.Children = append(d.Children, parse())
			case ")":
				goto done
			default:
				name, n, _ := strings.Cut(w, "=")
				l := topology.Domain{Name: name, Leaves: strings.Split(name, "+")}
				var hosts int
				if _, err := fmt.Sscan(n, &hosts); err != nil {
					t.Fatalf("%s: %v", w, err)
				}
				for i := range hosts {
					h := fmt.Sprintf("%s-%d", name, i)
					l.Hosts = append(l.Hosts, h)
					v.Nodes = append(v.Nodes, testNode(h, 2))
				}
				d.Children = append(d.Children, l)
			}
		}
	done:
		for _, c := range d.Children {
			d.Level = max(d.Level, c.Level+1)
		}
		return d
	}
	return parse(), v
}

// used returns the nodes of each leaf that a decision's only placement takes, as in
// "a=3 b=1", in rank order.
func used(t testing.TB, f *Fabric, d Decision) string {
	if len(d.Place) == 0 {
		if len(d.Waiting) == 1 {
			return "waits: " + string(d.Waiting[0].Reason.Code)
		}
		return "nothing"
	}
	var names []string
	counts := map[string]int{}
	for _, p := range d.Place[0].Parts {
		l := f.Leaf(p.Node)
		if l == "" {
			l = p.Node
		}
		if len(names) == 0 || names[len(names)-1] != l {
			if counts[l] > 0 {
				t.Errorf("the ranks come back to leaf %s", l)
			}
			names = append(names, l)
		}
		counts[l]++
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%s=%d", n, counts[n])
	}
	return strings.Join(names, " ")
}

func with(v View, f *Fabric) View { v.Fabric = f; return v }
func bare(v View) View            { return with(v, nil) }

func gang(nodes int) job.TaskSpec {
	return job.TaskSpec{ID: "t", Kind: job.Gang, Nodes: nodes, RanksPerNode: 2, Command: []string{"x"}}.Resolve()
}

func TestFabricPlacement(t *testing.T) {
	// The fragmented cluster of the field: only two leaves hold eight hosts.
	const fragmented = "a=1 b=1 c=2 d=2 e=2 f=3 g=3 h=3 i=5 j=5 k=6 l=6 m=6 n=8 o=11"
	for _, c := range []struct {
		name, tree string
		busy       string // nodes that are taken
		nodes      int
		spread     job.Spread
		want       string
	}{
		{name: "one leaf, the tightest", tree: "a=8 b=4 c=6", nodes: 4, want: "b=4"},
		{name: "tightest of what is free", tree: "a=4 b=4", busy: "b-0", nodes: 3, want: "b=3"},
		{name: "the lowest switch that holds it", tree: "(a=3 b=3) (c=5 d=2)", nodes: 6, want: "a=3 b=3"},
		{name: "the tightest of the switches", tree: "(a=4 b=4) (c=4 d=3)", nodes: 7, want: "c=4 d=3"},
		{name: "Kueue: most free first, the last the tightest", tree: "a=3 b=3 c=2 d=1", nodes: 7, want: "a=3 b=3 d=1"},
		{name: "Kueue: in any order", tree: "d=1 a=3 c=2 b=3", nodes: 7, want: "d=1 a=3 b=3"},
		{name: "Slurm: if neither fits, the one with more", tree: "a=2 b=5 c=4", nodes: 9, want: "b=5 c=4"},
		{name: "Slurm: if both fit, the one with fewer", tree: "a=6 b=3 c=4", nodes: 8, want: "a=6 b=2"},
		{name: "Slurm: nearer before tighter", tree: "((a=6 b=5) (c=3)) (d=1)", nodes: 9, want: "a=6 b=3"},
		{name: "fragments: eight hosts", tree: fragmented, nodes: 8, want: "n=8"},
		{name: "fragments: eleven", tree: fragmented, nodes: 11, want: "o=11"},
		{name: "fragments: twelve on two leaves", tree: fragmented, nodes: 12, want: "a=1 o=11"},
		{name: "fragments: all", tree: fragmented, nodes: 64,
			want: "a=1 b=1 c=2 d=2 e=2 f=3 g=3 h=3 i=5 j=5 k=6 l=6 m=6 n=8 o=11"},
		{name: "balanced", tree: "a=6 b=6 c=2", nodes: 8, spread: job.SpreadBalance, want: "a=4 b=4"},
		{name: "balanced, as far as they go", tree: "a=8 b=3", nodes: 10, spread: job.SpreadBalance, want: "a=7 b=3"},
		{name: "rails", tree: "r1+r2=4 s1+s2=4 r1+s2=4 r3+r4=4", nodes: 8, want: "r1+r2=4 r1+s2=4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, v := tree(t, c.tree)
			for _, n := range v.Nodes {
				if slices.Contains(strings.Fields(c.busy), n.Name) {
					n.Holds = []Hold{{ID: "other", CPUs: n.Cores[0]}}
				}
			}
			spec := gang(c.nodes)
			spec.Spread = c.spread
			v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Try: job.Try{Range: job.Range{Hi: 1}}}}
			f := NewFabric(d)
			if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != c.want {
				t.Errorf("placed on %s, want %s", got, c.want)
			}
			slices.Reverse(v.Nodes)
			if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != c.want {
				t.Errorf("with the nodes in another order on %s, want %s", got, c.want)
			}
		})
	}
}

// Hosts that the fabric does not have are used last, and each counts as a leaf.
func TestFabricUnknownHosts(t *testing.T) {
	d, v := tree(t, "a=2")
	v.Nodes = append([]*Node{testNode("x", 2), testNode("y", 2)}, v.Nodes...)
	f := NewFabric(d)
	spec := gang(2)
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Try: job.Try{Range: job.Range{Hi: 1}}}}
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "a=2" {
		t.Errorf("two nodes: on %s", got)
	}
	spec = gang(3)
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "a=2 x=1" {
		t.Errorf("three nodes: on %s", got)
	}
	spec.Switches = 1
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "waits: impossible" {
		t.Errorf("three nodes on one leaf: %s", got)
	}
}

func TestSwitches(t *testing.T) {
	d, v := tree(t, "(a=4 b=4) (c=4)")
	f := NewFabric(d)
	v.Nodes[0].Holds = []Hold{{ID: "o", Who: "other", CPUs: v.Nodes[0].Cores[0]}}
	v.Nodes[4].Holds = []Hold{{ID: "o", Who: "other", CPUs: v.Nodes[4].Cores[0]}}
	v.Nodes[8].Holds = []Hold{{ID: "o", Who: "other", CPUs: v.Nodes[8].Cores[0]}}
	spec := gang(4)
	spec.Switches, spec.SwitchesWait = 1, time.Hour
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Since: noon, Try: job.Try{Range: job.Range{Hi: 1}}}}
	got := Plan(noon.Add(time.Minute), with(v, f), Policy{})
	if len(got.Place) != 0 || len(got.Waiting) != 1 || !got.WakeAt.Equal(noon.Add(time.Hour)) {
		t.Fatalf("within the wait: %+v", got)
	}
	want := "waits for a place on at most 1 leaf switch; what is free now is on 2, which it takes from 1970-01-01 13:00:00 UTC on"
	if d := cmp.Diff(want, got.Waiting[0].Reason.String()); d != "" {
		t.Error(d)
	}
	if got := used(t, f, Plan(noon.Add(time.Hour), with(v, f), Policy{})); got != "a=3 b=1" {
		t.Errorf("after the wait: on %s", got)
	}
	v.Nodes[8].Holds = nil
	if got := used(t, f, Plan(noon.Add(time.Minute), with(v, f), Policy{})); got != "c=4" {
		t.Errorf("with a leaf free: on %s", got)
	}
	v.Nodes[8].Holds = []Hold{{ID: "o", Who: "other", CPUs: v.Nodes[8].Cores[0]}}
	spec.SwitchesWait = 0
	got = Plan(noon.Add(1000*time.Hour), with(v, f), Policy{})
	if len(got.Place) != 0 || !got.WakeAt.IsZero() {
		t.Errorf("without a time it does not wait for ever: %+v", got)
	}
	if d := cmp.Diff(Plan(noon, bare(v), Policy{}).Waiting, []Waiting(nil)); d != "" {
		t.Errorf("a launcher without a fabric makes it wait: %s", d)
	}
	spec = gang(5)
	spec.Switches = 1
	want = "5 nodes × 2 ranks can never be on at most 1 leaf switch: with all nodes idle it takes 2; ask for --switches 2, or give the wish a time: --switches 1@10m"
	for _, n := range v.Nodes {
		n.Holds = nil
	}
	got = Plan(noon, with(v, f), Policy{})
	if d := cmp.Diff(want, got.Waiting[0].Reason.String()); d != "" {
		t.Error(d)
	}
	// What waits for one leaf keeps others off the leaves that can hold it only.
	d, v = tree(t, "a=4 b=2")
	f = NewFabric(d)
	v.Nodes[0].Holds = []Hold{{ID: "o", Who: "other", CPUs: v.Nodes[0].Cores[0]}}
	spec = gang(4)
	spec.Switches = 1
	small := gang(2)
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Since: noon, Try: job.Try{Range: job.Range{Hi: 1}}},
		{Task: "s", Name: "j/s", Spec: &small, Since: noon, Try: job.Try{Range: job.Range{Hi: 1}}}}
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "b=2" {
		t.Errorf("behind a gang that waits for leaf a: on %s", got)
	}
	// Fewer leaves further up before more of them below one switch.
	d, v = tree(t, "(a=2 b=2 c=2) (d=3) (e=3)")
	f = NewFabric(d)
	spec = gang(6)
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Since: noon, Try: job.Try{Range: job.Range{Hi: 1}}}}
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "a=2 b=2 c=2" {
		t.Errorf("without a limit: on %s", got)
	}
	spec.Switches = 2
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "d=3 e=3" {
		t.Errorf("on two leaves: %s", got)
	}
}

// A gang that shares cores keeps to the leaves that it asks for too.
func TestSwitchesSharedCores(t *testing.T) {
	d, v := tree(t, "a=2 b=2")
	f := NewFabric(d)
	spec := job.TaskSpec{ID: "t", Kind: job.Gang, Ranks: 20, Oversubscribe: true, Switches: 1, Command: []string{"x"}}.Resolve()
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Since: noon, Try: job.Try{Range: job.Range{Hi: 1}}}}
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "a=2" {
		t.Errorf("20 ranks on 8 cores, one leaf: on %s", got)
	}
}

// Where no even spread fits, an uneven one keeps to one leaf as well.
func TestFabricUneven(t *testing.T) {
	root := topology.Domain{Level: 2}
	var v View
	for l, cores := range [][]int{{0}, {0, 0, 1, 3}, {0}, {1}} {
		d := topology.Domain{Name: fmt.Sprintf("l%d", l), Level: 1}
		for i, c := range cores {
			h := fmt.Sprintf("l%d-%d", l, i)
			d.Hosts = append(d.Hosts, h)
			v.Nodes = append(v.Nodes, testNode(h, c))
		}
		root.Children = append(root.Children, d)
	}
	f := NewFabric(root)
	spec := job.TaskSpec{ID: "t", Kind: job.Gang, Nodes: 2, Ranks: 4, Command: []string{"x"}}.Resolve()
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Try: job.Try{Range: job.Range{Hi: 1}}}}
	if got := used(t, f, Plan(noon, with(v, f), Policy{})); got != "l1=2" {
		t.Errorf("4 ranks on 2 nodes of 1 and 3 cores: on %s", got)
	}
}

// On any flat fabric of few leaves no choice has fewer of them, and the lowest
// common switch is as low as any choice's.
func TestFabricFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.IntRange(1, 8).Draw(t, "leaves")
		root := topology.Domain{Level: 2}
		var v View
		for l := range leaves {
			d := topology.Domain{Name: fmt.Sprintf("l%d", l)}
			for i := range rapid.IntRange(0, 4).Draw(t, "hosts") {
				h := fmt.Sprintf("l%d-%d", l, i)
				d.Hosts = append(d.Hosts, h)
				v.Nodes = append(v.Nodes, testNode(h, rapid.IntRange(0, 4).Draw(t, "cores")))
			}
			root.Children = append(root.Children, topology.Domain{Level: 1, Children: []topology.Domain{d}})
		}
		if len(v.Nodes) == 0 {
			return
		}
		v.Nodes = rapid.Permutation(v.Nodes).Draw(t, "order")
		spec := drawTask(t, nil)
		if spec.Kind != job.Gang || spec.Oversubscribe || len(spec.PerNode) > 0 {
			return
		}
		f := NewFabric(root)
		v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Try: job.Try{Range: job.Range{Hi: 1}}}}
		got := Plan(noon, with(v, f), Policy{})
		flat := Plan(noon, bare(v), Policy{})
		if len(got.Place) != len(flat.Place) {
			t.Fatalf("with the fabric %d placements, without it %d", len(got.Place), len(flat.Place))
		}
		if d := cmp.Diff(got, Plan(noon, with(v, f), Policy{})); d != "" {
			t.Fatalf("the same input gives another output: %s", d)
		}
		if len(got.Place) == 0 {
			return
		}
		ranks, even := 0, spec.RanksPerNode == 0 && spec.Nodes > 0
		on := map[string]bool{}
		for _, p := range got.Place[0].Parts {
			ranks += p.Ranks
			even = even && p.Ranks >= spec.Ranks/spec.Nodes && p.Ranks <= (spec.Ranks+spec.Nodes-1)/spec.Nodes
			on[f.Leaf(p.Node)] = true
		}
		if ranks != spec.Ranks {
			t.Fatalf("%d ranks placed of %d", ranks, spec.Ranks)
		}
		caps := capacities(len(v.Nodes), func(i int) *slots { return left(v.Nodes[i], everyHold) }, &spec, everything)
		name := func(i int) string { return v.Nodes[i].Name }
		oracle := func(c []capacity) []share { return fit(&spec, name, c) }
		if even { // which goes before fewer leaves
			oracle = func(c []capacity) []share { return fitEven(&spec, c) }
		} else if spec.RanksPerNode == 0 && spec.Nodes > 0 && fitEven(&spec, caps) != nil {
			t.Fatalf("an uneven spread where an even one fits:\n%+v\n%+v", spec, got.Place[0])
		}
		for set := range 1 << leaves {
			n := 0
			sub := slices.Clone(caps)
			for l := range leaves {
				if set>>l&1 == 1 {
					n++
				}
			}
			for i, node := range v.Nodes {
				var l int
				fmt.Sscanf(node.Name, "l%d-", &l)
				if set>>l&1 == 0 {
					sub[i] = capacity{-1, -1}
				}
			}
			if n < len(on) && oracle(sub) != nil {
				t.Fatalf("%d leaves are used, those of the bits %b would do:\n%+v\n%+v", len(on), set, spec, got.Place[0])
			}
		}
	})
}

func BenchmarkFabric(b *testing.B) {
	root := topology.Domain{Level: 2}
	var v View
	for s := range 20 {
		spine := topology.Domain{Name: fmt.Sprintf("s%d", s), Level: 1}
		for l := range 25 {
			leaf := topology.Domain{Name: fmt.Sprintf("s%dl%d", s, l)}
			for i := range 20 {
				h := fmt.Sprintf("s%dl%dn%d", s, l, i)
				leaf.Hosts = append(leaf.Hosts, h)
				n := testNode(h, 64)
				if (i+l)%3 == 0 {
					n.Holds = []Hold{{ID: "o", CPUs: n.Cores[0]}}
				}
				v.Nodes = append(v.Nodes, n)
			}
			spine.Children = append(spine.Children, leaf)
		}
		root.Children = append(root.Children, spine)
	}
	spec := job.TaskSpec{ID: "t", Kind: job.Gang, Nodes: 64, RanksPerNode: 64, Command: []string{"x"}}.Resolve()
	v.Pending = []Pending{{Task: "t", Name: "j/t", Spec: &spec, Try: job.Try{Range: job.Range{Hi: 1}}}}
	f := NewFabric(root)
	for b.Loop() {
		if d := Plan(noon, with(v, f), Policy{}); len(d.Place) != 1 {
			b.Fatal("not placed")
		}
	}
}
