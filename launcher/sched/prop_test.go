package sched

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"gangway/launcher/job"
	"gangway/topology"
)

var noon = time.Unix(43200, 0).UTC()

func drawTask(t *rapid.T, nodes []*Node) job.TaskSpec {
	s := job.TaskSpec{
		Kind: job.Gang, CoresPerRank: rapid.IntRange(1, 3).Draw(t, "c"), Command: []string{"x"}, ID: "t",
		MemPerRank:    rapid.SampledFrom([]uint64{0, 1, 2}).Draw(t, "mem"),
		GPUsPerRank:   rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "gpus"),
		Oversubscribe: rapid.IntRange(0, 4).Draw(t, "over") == 0,
	}
	switch rapid.IntRange(0, 6).Draw(t, "shape") {
	case 0:
		s.Kind = job.Single
	case 1:
		s.Kind, s.Range = job.Single, job.Range{Lo: 1, Hi: uint64(rapid.IntRange(2, 1e6).Draw(t, "array"))}
	case 2:
		s.Nodes, s.RanksPerNode = rapid.IntRange(1, 4).Draw(t, "N"), rapid.IntRange(1, 4).Draw(t, "ppn")
	case 3:
		s.Nodes = rapid.IntRange(1, 4).Draw(t, "N")
		s.Ranks = s.Nodes + rapid.IntRange(0, 6).Draw(t, "n")
	case 4:
		s.Ranks, s.RanksPerNode = rapid.IntRange(1, 9).Draw(t, "n"), rapid.IntRange(1, 4).Draw(t, "ppn")
	case 5:
		s.Ranks = rapid.IntRange(1, 12).Draw(t, "n")
	case 6:
		for _, n := range nodes {
			if rapid.Bool().Draw(t, "named") {
				s.PerNode = append(s.PerNode, job.NodeRanks{Node: n.Name, Ranks: rapid.IntRange(1, 3).Draw(t, "k")})
			}
		}
		if len(s.PerNode) == 0 {
			s.Ranks = 1
		}
	}
	s = s.Resolve()
	if err := job.Validate(job.Spec{ID: "j", Tasks: []job.TaskSpec{s}}); err != nil {
		t.Fatalf("drew a wrong task: %v", err)
	}
	return s
}

func drawView(t *rapid.T) View {
	var v View
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		n := testNode(fmt.Sprintf("n%d", i), rapid.IntRange(0, 5).Draw(t, "cores"))
		n.Memory = rapid.SampledFrom([]uint64{0, 3, 4}).Draw(t, "memory")
		n.State = rapid.SampledFrom([]NodeState{NodeUp, NodeUp, NodeUp, NodeUp, NodeConnecting, NodeLost}).Draw(t, "state")
		n.Draining = rapid.IntRange(0, 7).Draw(t, "draining") == 0
		n.Known = n.State == NodeUp || rapid.Bool().Draw(t, "known")
		n.GPUs = []uint32{0, 1, 2}[:rapid.IntRange(0, 3).Draw(t, "gpus")]
		for k, core := range n.Cores {
			h := Hold{ID: fmt.Sprint("h", k), Who: "w", CPUs: core, Memory: uint64(k % 2)}
			switch rapid.IntRange(0, 9).Draw(t, "hold") {
			case 0:
				n.Holds = append(n.Holds, h)
			case 1:
				h.Foreign = true
				n.Holds = append(n.Holds, h)
			case 2:
				h.Foreign, h.Shared = true, true
				n.Holds = append(n.Holds, h)
			case 3:
				h.Shared = true
				n.Holds = append(n.Holds, h)
			}
		}
		v.Nodes = append(v.Nodes, n)
	}
	for i := range rapid.IntRange(1, 6).Draw(t, "pending") {
		s := drawTask(t, v.Nodes)
		p := Pending{Task: fmt.Sprint("t", i), Name: fmt.Sprint("j/t", i), Spec: &s, Try: job.Try{Range: s.Range, Attempt: 1}}
		if rapid.IntRange(0, 9).Draw(t, "later") == 0 {
			p.Try.NotBefore, p.Try.Refusals = noon.Add(time.Second), 1 // another launcher was faster
		}
		if rapid.IntRange(0, 9).Draw(t, "avoid") == 0 {
			p.Try.Avoid = []string{"n0"}
		}
		v.Pending = append(v.Pending, p)
	}
	return v
}

// check holds a decision to what any decision must fulfil.
func check(t *rapid.T, v View, d Decision) {
	index := map[string]int{}
	for i, p := range v.Pending {
		index[p.Task] = i
	}
	seen := map[string]uint64{}
	for _, pl := range d.Place {
		p := v.Pending[index[pl.Task]]
		s := p.Spec
		for _, try := range pl.Tries {
			seen[pl.Task] += try.Len()
		}
		if len(pl.Tries) == 0 {
			seen[pl.Task] += pl.Try.Len()
		}
		if s.Crewed() != (pl.Slots > 0) || s.Crewed() && (len(pl.Tries) == 0 || seen[pl.Task] < uint64(pl.Slots)) {
			t.Fatalf("%s: %d slots for %v", pl.Task, pl.Slots, pl.Tries)
		}
		ranks, nodes := 0, []string{}
		for _, part := range pl.Parts {
			if part.FirstRank != ranks {
				t.Fatalf("%s: ranks on %s start at %d, not %d", pl.Task, part.Node, part.FirstRank, ranks)
			}
			ranks += part.Ranks
			if slices.Contains(nodes, part.Node) {
				t.Fatalf("%s: node %s twice", pl.Task, part.Node)
			}
			nodes = append(nodes, part.Node)
			n := part.Ranks
			if s.Kind == job.Single {
				n = max(pl.Slots, 1)
			}
			node := v.Nodes[slices.IndexFunc(v.Nodes, func(x *Node) bool { return x.Name == part.Node })]
			want := n * s.CoresPerRank
			if s.Oversubscribe {
				want = min(want, len(node.Cores))
			}
			if part.CPUs.Count() != 2*want {
				t.Fatalf("%s: %d ranks on %s got cpus %s", pl.Task, n, part.Node, part.CPUs)
			}
			if part.Memory != uint64(n)*s.MemPerRank || len(part.GPUs) != n*s.GPUsPerRank {
				t.Fatalf("%s: %d ranks got %d bytes, GPUs %v", pl.Task, n, part.Memory, part.GPUs)
			}
			if s.RanksPerNode > 0 && s.Kind == job.Gang && (part.Ranks > s.RanksPerNode || s.Nodes > 0 && part.Ranks != s.RanksPerNode) {
				t.Fatalf("%s: %d ranks on a node", pl.Task, part.Ranks)
			}
		}
		switch {
		case s.Kind == job.Gang && ranks != s.Ranks:
			t.Fatalf("%s: a gang of %d got %d ranks", pl.Task, s.Ranks, ranks)
		case s.Kind == job.Gang && s.Nodes > 0 && len(nodes) != s.Nodes:
			t.Fatalf("%s: a gang of %d nodes got %v", pl.Task, s.Nodes, nodes)
		case s.Kind == job.Single && len(nodes) != 1:
			t.Fatalf("%s: singles on %v", pl.Task, nodes)
		}
		for i, want := range s.PerNode {
			if s.Kind == job.Gang && (nodes[i] != want.Node || pl.Parts[i].Ranks != want.Ranks) {
				t.Fatalf("%s: part %d is %d on %s", pl.Task, i, pl.Parts[i].Ranks, nodes[i])
			}
		}
	}
	for _, w := range d.Waiting {
		seen[w.Task] += w.Range.Len()
		if w.Reason.Code == "" || w.Reason.String() == "" {
			t.Fatalf("%s waits for no reason", w.Task)
		}
	}
	for _, p := range v.Pending {
		if seen[p.Task] != p.Try.Len() {
			t.Fatalf("%s: %d of %d elements are placed or wait", p.Task, seen[p.Task], p.Try.Len())
		}
	}
	for _, n := range carryOut(v, d).Nodes {
		was := v.Nodes[slices.IndexFunc(v.Nodes, func(x *Node) bool { return x.Name == n.Name })]
		fresh := n.Holds[len(was.Holds):]
		if len(fresh) > 0 && (n.State != NodeUp || n.Draining) {
			t.Fatalf("%s takes no work but got some", n.Name)
		}
		memory, held := uint64(0), uint64(0)
		for i, h := range n.Holds {
			held += h.Memory
			if i < len(was.Holds) {
				continue
			}
			memory += h.Memory
			for _, o := range n.Holds[:i] {
				if o.CPUs.Overlaps(h.CPUs) && !(o.Foreign && o.Shared && h.Shared) {
					t.Fatalf("%s: %s and %s both have cpus %s", n.Name, h.ID, o.ID, o.CPUs.Intersect(h.CPUs))
				}
				for _, g := range h.GPUs {
					if slices.Contains(o.GPUs, g) {
						t.Fatalf("%s: GPU %d twice", n.Name, g)
					}
				}
			}
		}
		if n.Memory > 0 && memory > 0 && held > n.Memory {
			t.Fatalf("%s: %d of %d bytes are given away", n.Name, held, n.Memory)
		}
	}
}

func TestDecisionsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		before := carryOut(v, Decision{})
		d := Plan(noon, v, Policy{})
		check(t, v, d)
		if diff := cmp.Diff(before, v, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("Plan changed its input:\n%s", diff)
		}
		if diff := cmp.Diff(d, Plan(noon, v, Policy{})); diff != "" {
			t.Fatalf("the same input gave another output:\n%s", diff)
		}
	})
}

// TestNodeNamesChangeNothing renames the nodes: names appear in the decision,
// they have no part in it.
func TestNodeNamesChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		perm := rapid.Permutation([]int{0, 1, 2, 3, 4}[:len(v.Nodes)]).Draw(t, "perm")
		to := map[string]string{}
		for i, n := range v.Nodes {
			to[n.Name] = v.Nodes[perm[i]].Name
		}
		renamed := carryOut(v, Decision{})
		for _, n := range renamed.Nodes {
			n.Name = to[n.Name]
		}
		for i := range renamed.Pending {
			s := *renamed.Pending[i].Spec
			s.PerNode = slices.Clone(s.PerNode)
			for k := range s.PerNode {
				s.PerNode[k].Node = to[s.PerNode[k].Node]
			}
			renamed.Pending[i].Spec = &s
			var avoid []string
			for _, a := range renamed.Pending[i].Try.Avoid {
				avoid = append(avoid, to[a])
			}
			renamed.Pending[i].Try.Avoid = avoid
		}
		want := Plan(noon, v, Policy{}).Place
		for i := range want {
			want[i].Try.Avoid = nil
			for k := range want[i].Tries {
				want[i].Tries[k].Avoid = nil
			}
			for k := range want[i].Parts {
				want[i].Parts[k].Node = to[want[i].Parts[k].Node]
			}
		}
		got := Plan(noon, renamed, Policy{}).Place
		for i := range got {
			got[i].Try.Avoid = nil
			for k := range got[i].Tries {
				got[i].Tries[k].Avoid = nil
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("other names, other decision (-want +got):\n%s", diff)
		}
	})
}

// TestNoOneIsPassed: what starts behind a waiting task leaves it everything it
// would need once all work ahead of it has ended.
func TestNoOneIsPassed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		d := Plan(noon, v, Policy{})
		for _, wait := range d.Waiting {
			i := slices.IndexFunc(v.Pending, func(p Pending) bool { return p.Task == wait.Task })
			alone := View{Pending: []Pending{v.Pending[i]}}
			alone.Pending[0].Try.NotBefore = time.Time{}
			alone.Pending[0].Try.Range = job.Range{Lo: wait.Range.Lo, Hi: wait.Range.Lo + 1}
			behind := View{Pending: alone.Pending}
			for _, n := range carryOut(v, d).Nodes {
				a, b := *n, *n
				a.Holds, b.Holds = nil, nil
				for _, h := range n.Holds {
					k := slices.IndexFunc(v.Pending, func(p Pending) bool { return p.Task == h.ID })
					if k > i {
						b.Holds = append(b.Holds, h)
					}
				}
				alone.Nodes, behind.Nodes = append(alone.Nodes, &a), append(behind.Nodes, &b)
			}
			if len(Plan(noon, alone, Policy{}).Place) != len(Plan(noon, behind, Policy{}).Place) {
				t.Fatalf("%s waits (%s), and what starts behind it is in its way", wait.Task, wait.Reason)
			}
		}
		// And nothing behind has any influence at all.
		k := rapid.IntRange(1, len(v.Pending)).Draw(t, "ahead")
		ahead := Plan(noon, View{Nodes: v.Nodes, Pending: v.Pending[:k]}, Policy{})
		for i, p := range ahead.Place {
			if diff := cmp.Diff(p, d.Place[i]); diff != "" {
				t.Fatalf("tasks behind changed the placement of one ahead:\n%s", diff)
			}
		}
	})
}

// TestImpossibleIsTheTruth: what is not impossible starts on idle nodes, what
// is does not.
func TestImpossibleIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		for _, n := range v.Nodes {
			n.State, n.Known, n.Draining, n.Holds = NodeUp, true, false, nil
		}
		v.Pending = v.Pending[:1]
		v.Pending[0].Try.NotBefore = time.Time{}
		why := Impossible(*v.Pending[0].Spec, v.Nodes)
		if d := Plan(noon, v, Policy{}); (len(d.Place) > 0) != (why == nil) {
			t.Fatalf("impossible: %v, placed: %v, waiting: %v", why, d.Place, d.Waiting)
		}
	})
}

// TestGangsFitWhenTheyCan compares with counting what each node could take.
func TestGangsFitWhenTheyCan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		v.Pending = v.Pending[:1]
		s := v.Pending[0].Spec
		s.Oversubscribe, s.MemPerRank, s.GPUsPerRank = false, 0, 0
		v.Pending[0].Try.NotBefore, v.Pending[0].Try.Avoid = time.Time{}, nil
		if len(s.PerNode) > 0 {
			return
		}
		var room []int
		for _, n := range v.Nodes {
			var taken topology.CPUSet
			for _, h := range n.Holds {
				taken = taken.Union(h.CPUs)
			}
			free := 0
			for _, c := range n.Cores {
				if !c.Overlaps(taken) {
					free++
				}
			}
			if n.State == NodeUp && !n.Draining && free >= s.CoresPerRank {
				room = append(room, free/s.CoresPerRank)
			}
		}
		slices.Sort(room)
		slices.Reverse(room)
		sum := func(k int) (n int) {
			for _, r := range room[:min(k, len(room))] {
				n += r
			}
			return n
		}
		can := false
		switch {
		case s.Kind == job.Single:
			can = len(room) > 0
		case s.RanksPerNode > 0:
			full, rest := s.Ranks/s.RanksPerNode, s.Ranks%s.RanksPerNode
			can = len(room) >= full && (full == 0 || room[full-1] >= s.RanksPerNode) &&
				(rest == 0 || len(room) > full && room[full] >= rest)
		case s.Nodes > 0:
			can = len(room) >= s.Nodes && sum(s.Nodes) >= s.Ranks
		default:
			can = sum(len(room)) >= s.Ranks
		}
		if d := Plan(noon, v, Policy{}); (len(d.Place) > 0) != can {
			t.Fatalf("room %v for %s: %t, placed %v, waiting %v", room, shape(s), can, d.Place, d.Waiting)
		}
	})
}

// BenchmarkPlan plans a queue of arrays and gangs over 1,000 nodes of 64 cores.
func BenchmarkPlan(b *testing.B) {
	var v View
	for i := range 1000 {
		n := testNode(fmt.Sprintf("n%04d", i), 64)
		if i%2 == 0 {
			n.Holds = []Hold{{ID: "x", Who: "x", CPUs: topology.NewCPUSet(0, 64)}}
		}
		v.Nodes = append(v.Nodes, n)
	}
	for i := range 100 {
		s := job.TaskSpec{Kind: job.Gang, Nodes: 16, RanksPerNode: 32}.Resolve()
		if i%10 == 9 {
			s = job.TaskSpec{Range: job.Range{Hi: 1e6}}.Resolve()
		}
		v.Pending = append(v.Pending, Pending{Task: fmt.Sprint(i), Name: fmt.Sprint(i), Spec: &s, Try: job.Try{Range: s.Range, Attempt: 1}})
	}
	b.ReportAllocs()
	for b.Loop() {
		Plan(noon, v, Policy{})
	}
}
