package bind_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/topology"
	"gangway/topology/bind"
)

// node has packages of NUMA nodes of cores of PUs; the second PU of a core is
// numbered after all first ones, as x86 firmware does.
func node(packages, numaEach, coresEach, smt int) topology.Node {
	n := topology.Node{Hostname: "n1"}
	total := packages * numaEach * coresEach
	core := 0
	for p := range packages {
		pk := topology.Package{Index: p}
		for d := range numaEach {
			numa := topology.NUMANode{Index: p*numaEach + d}
			for range coresEach {
				c := topology.Core{Index: core, Package: p, NUMA: numa.Index}
				for t := range smt {
					c.PUs = c.PUs.Add(core + t*total)
				}
				numa.CPUs = numa.CPUs.Union(c.PUs)
				n.Cores = append(n.Cores, c)
				core++
			}
			pk.CPUs = pk.CPUs.Union(numa.CPUs)
			n.NUMA = append(n.NUMA, numa)
		}
		n.Packages = append(n.Packages, pk)
		n.Online = n.Online.Union(pk.CPUs)
	}
	n.Allowed = n.Online
	return n
}

func set(t testing.TB, s string) topology.CPUSet {
	t.Helper()
	c, err := topology.ParseCPUSet(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMap(t *testing.T) {
	one := node(1, 1, 4, 1)
	two := node(2, 1, 4, 2) // cores 0-3 and 4-7, second PUs 8-15
	odd := node(1, 2, 3, 1) // NUMA nodes 0-2 and 3-5
	memless := node(1, 2, 2, 1)
	zero := uint64(0)
	memless.NUMA[1].Memory = &zero
	for _, test := range []struct {
		name    string
		node    topology.Node
		granted string
		ranks   int
		each    int
		mode    bind.Mode
		over    bool
		want    []string
		err     string
	}{
		{name: "a core each", node: one, granted: "0-3", ranks: 4,
			want: []string{"cpus 0 numa 0 threads 1", "cpus 1 numa 0 threads 1", "cpus 2 numa 0 threads 1", "cpus 3 numa 0 threads 1"}},
		{name: "all PUs of a core", node: two, granted: "0-15", ranks: 2, each: 4, mode: bind.Core,
			want: []string{"cpus 0-3,8-11 numa 0 threads 4", "cpus 4-7,12-15 numa 1 threads 4"}},
		{name: "granted PUs only", node: two, granted: "1,9,12", ranks: 2, mode: bind.Core,
			want: []string{"cpus 1,9 numa 0 threads 1", "cpus 12 numa 1 threads 1"}},
		{name: "no straddling where avoidable", node: odd, granted: "0-5", ranks: 2, each: 2, mode: bind.Core,
			want: []string{"cpus 0-1 numa 0 threads 2", "cpus 3-4 numa 1 threads 2"}},
		{name: "straddling where not", node: odd, granted: "0-5", ranks: 3, each: 2, mode: bind.Core,
			want: []string{"cpus 0-1 numa 0 threads 2", "cpus 2-3 numa 0-1 threads 2", "cpus 4-5 numa 1 threads 2"}},
		{name: "numa", node: two, granted: "0-2,4,8-10,12", ranks: 2, mode: bind.NUMA,
			want: []string{"cpus 0-2,8-10 numa 0 threads 1", "cpus 0-2,8-10 numa 0 threads 1"}},
		{name: "socket", node: node(2, 2, 2, 1), granted: "0-6", ranks: 2, each: 3, mode: bind.Socket,
			want: []string{"cpus 0-3 numa 0-1 threads 3", "cpus 0-6 numa 0-3 threads 3"}},
		{name: "none", node: one, granted: "0-1", ranks: 2, each: 3, mode: bind.None,
			want: []string{"unbound threads 3", "unbound threads 3"}},
		{name: "oversubscribed", node: one, granted: "0-1", ranks: 5, over: true,
			want: []string{"cpus 0 numa 0 threads 1", "cpus 0 numa 0 threads 1", "cpus 0 numa 0 threads 1", "cpus 1 numa 0 threads 1", "cpus 1 numa 0 threads 1"}},
		{name: "oversubscribed, more threads than cores", node: one, granted: "1-2", ranks: 2, each: 4, over: true, mode: bind.Core,
			want: []string{"cpus 1-2 numa 0 threads 2", "cpus 1-2 numa 0 threads 2"}},
		{name: "oversubscribe not needed", node: one, granted: "0-3", ranks: 2, over: true, mode: bind.Core,
			want: []string{"cpus 0 numa 0 threads 1", "cpus 1 numa 0 threads 1"}},
		{name: "node without memory", node: memless, granted: "0-3", ranks: 2, each: 2,
			want: []string{"cpus 0-1 numa 0 threads 2", "cpus 2-3 threads 2"}},
		{name: "too few", node: one, granted: "0-2", ranks: 2, each: 2, err: "2 ranks of 2 cores need 4 cores, 3 are granted (cpus 0-2)"},
		{name: "no ranks", node: one, granted: "0", err: "0 ranks, need at least 1"},
		{name: "negative cores", node: one, granted: "0", ranks: 1, each: -1, err: "-1 cores a rank"},
		{name: "nothing granted", node: one, ranks: 1, err: "no cpus were granted"},
		{name: "offline cpu", node: one, granted: "0,9", ranks: 1, err: "granted cpus 9 are not online"},
		{name: "gpu", node: one, granted: "0", ranks: 1, mode: bind.GPU, err: "no GPUs are known"},
		{name: "bad mode", node: one, granted: "0", ranks: 1, mode: "cores", err: `binding "cores": expected auto, core,`},
		{name: "overflow", node: one, granted: "0", ranks: 1 << 62, each: 1 << 62, err: "are granted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			places, err := bind.Map(bind.Request{Node: test.node, Granted: set(t, test.granted), Ranks: test.ranks,
				CoresPerRank: test.each, Mode: test.mode, Oversubscribe: test.over})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, error %v; want error %q", places, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range places {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestMapProperties: places stay within the grant, are the same every time,
// and do not meet unless the ranks are oversubscribed.
func TestMapProperties(t *testing.T) {
	modes := []bind.Mode{bind.Core, bind.NUMA, bind.Socket}
	rapid.Check(t, func(t *rapid.T) {
		n := node(rapid.IntRange(1, 3).Draw(t, "packages"), rapid.IntRange(1, 3).Draw(t, "numa"),
			rapid.IntRange(1, 6).Draw(t, "cores"), rapid.IntRange(1, 2).Draw(t, "smt"))
		granted := topology.NewCPUSet(rapid.SliceOfN(rapid.SampledFrom(n.Online.Slice()), 1, 40).Draw(t, "granted")...)
		r := bind.Request{Node: n, Granted: granted, Ranks: rapid.IntRange(1, 12).Draw(t, "ranks"),
			CoresPerRank: rapid.IntRange(0, 4).Draw(t, "each"), Mode: rapid.SampledFrom(modes).Draw(t, "mode"),
			Oversubscribe: rapid.Bool().Draw(t, "oversubscribe")}
		places, err := bind.Map(r)
		fits := r.Ranks*max(r.CoresPerRank, 1) <= len(n.CoresWithin(granted))
		if (err == nil) != (fits || r.Oversubscribe) {
			t.Fatalf("fits %v, oversubscribe %v, error %v", fits, r.Oversubscribe, err)
		}
		if err != nil {
			return
		}
		again, _ := bind.Map(r)
		if diff := cmp.Diff(places, again); diff != "" {
			t.Fatalf("two answers to one request:\n%s", diff)
		}
		if len(places) != r.Ranks {
			t.Fatalf("%d places for %d ranks", len(places), r.Ranks)
		}
		own := r.Mode != bind.NUMA && r.Mode != bind.Socket
		var used topology.CPUSet
		for i, p := range places {
			if p.CPUs.IsEmpty() || !granted.Contains(p.CPUs) || p.Threads < 1 {
				t.Fatalf("rank %d: %s, granted %s", i, p, granted)
			}
			if fits && own {
				if used.Overlaps(p.CPUs) {
					t.Fatalf("rank %d shares cpus: %v", i, places)
				}
				if want := max(r.CoresPerRank, 1); len(n.CoresWithin(p.CPUs)) != want || p.Threads != want {
					t.Fatalf("rank %d: %s, want %d cores", i, p, want)
				}
			}
			used = used.Union(p.CPUs)
		}
		if !fits && own && max(r.CoresPerRank, 1) == 1 && !used.Equal(granted) {
			t.Fatalf("oversubscribed ranks leave granted cpus idle: %s of %s", used, granted)
		}
	})
}

// TestMapAvoidsStraddling: if every rank fits into some NUMA node, none
// straddles two.
func TestMapAvoidsStraddling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := node(1, rapid.IntRange(1, 4).Draw(t, "numa"), rapid.IntRange(1, 6).Draw(t, "cores"), 1)
		each := rapid.IntRange(1, 4).Draw(t, "each")
		granted := topology.NewCPUSet(rapid.SliceOfN(rapid.SampledFrom(n.Online.Slice()), 1, 30).Draw(t, "granted")...)
		room := 0
		for _, d := range n.NUMA {
			room += d.CPUs.Intersect(granted).Count() / each
		}
		if room == 0 {
			t.Skip("no NUMA node holds a rank")
		}
		ranks := rapid.IntRange(1, room).Draw(t, "ranks")
		places, err := bind.Map(bind.Request{Node: n, Granted: granted, Ranks: ranks, CoresPerRank: each, Mode: bind.Core})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range places {
			if len(p.MemNodes) != 1 {
				t.Fatalf("rank %d of %d straddles: %s", i, ranks, p)
			}
		}
	})
}
