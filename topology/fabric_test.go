package topology

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCompareNatural(t *testing.T) {
	want := []string{"", "10", "leaf", "leaf02", "leaf2", "leaf10", "leaf10a", "leaf100", "n2-1", "n2-10", "n10-1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, CompareNatural)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.StringMatching(`[ab]{0,2}0{0,2}[0-9]{0,2}[ab]?`)
		a, b, c := name.Draw(r, "a"), name.Draw(r, "b"), name.Draw(r, "c")
		ab, bc, ac := CompareNatural(a, b), CompareNatural(b, c), CompareNatural(a, c)
		if ab != -CompareNatural(b, a) || (ab == 0) != (a == b) || ab < 0 && bc < 0 && ac >= 0 {
			r.Fatalf("%q %q %q: %d %d %d", a, b, c, ab, bc, ac)
		}
	})
}

// plain makes a fabric of lines: "leaf: host host", "spine = leaf leaf".
func plain(lines ...string) Fabric {
	var f Fabric
	at := map[string]int{}
	sw := func(name string) int {
		if _, ok := at[name]; !ok {
			at[name] = len(f.Switches)
			f.Switches = append(f.Switches, Switch{Name: name})
		}
		return at[name]
	}
	hosts := map[string]int{}
	for _, l := range lines {
		if name, list, ok := strings.Cut(l, ": "); ok {
			sw(name)
			for _, h := range strings.Fields(list) {
				if _, ok := hosts[h]; !ok {
					hosts[h] = len(f.Hosts)
					f.Hosts = append(f.Hosts, FabricHost{Name: h})
				}
				p := &f.Hosts[hosts[h]].Ports
				*p = append(*p, FabricPort{HCA: "mlx5_" + strconv.Itoa(len(*p)), Switch: name})
			}
			continue
		}
		name, list, _ := strings.Cut(l, " = ")
		i := sw(name)
		for _, to := range strings.Fields(list) {
			j := sw(to)
			f.Switches[i].Links = append(f.Switches[i].Links, SwitchLink{To: to, Count: 1})
			f.Switches[j].Links = append(f.Switches[j].Links, SwitchLink{To: name, Count: 1})
		}
	}
	f.Sort()
	f.SetLevels()
	return f
}

// text writes a domain as name(children) or name[hosts].
func (d Domain) text() string {
	if len(d.Children) == 0 {
		return d.Name + "[" + strings.Join(d.Hosts, " ") + "]"
	}
	var parts []string
	for _, c := range d.Children {
		parts = append(parts, c.text())
	}
	return d.Name + "(" + strings.Join(parts, " ") + ")"
}

func TestDomains(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"nothing", nil, "[]"},
		{"one leaf", []string{"l: b a"}, "l[a b]"},
		{"two leaves", []string{"l1: a b", "l2: c", "s = l1 l2"}, "s(l1[a b] l2[c])"},
		{"several spines", []string{"l1: a", "l2: b", "s1 = l1 l2", "s2 = l1 l2"}, "s[1-2](l1[a] l2[b])"},
		{"pods", []string{"l1: a", "l2: b", "l3: c", "l4: d", "p1 = l1 l2", "p2 = l3 l4", "core = p1 p2"}, "core(p1(l1[a] l2[b]) p2(l3[c] l4[d]))"},
		{"a pod of one leaf", []string{"l1: a", "l2: b", "l3: c", "p1 = l1 l2", "p2 = l3", "core = p1 p2"}, "core(l3[c] p1(l1[a] l2[b]))"},
		{"rails", []string{"l1: a b", "l2: a b", "l3: c", "l4: c", "s = l1 l2 l3 l4"}, "s(l[1-2][a b] l[3-4][c])"},
		{"a port is missing", []string{"l1: a b", "l2: a b c", "s = l1 l2"}, "l[1-2][a b c]"},
		{"two larger sets", []string{"l1: a c", "l2: a b", "l3: b c", "m = l1 l2"}, "l[1-3](l[1,3][c] l[1-2][a] l[2-3][b])"},
		{"in doubt", []string{"l1: a b x", "l2: a", "l3: b"}, "l[1-3](l1[x] l[1,3][b] l[1-2][a])"},
		{"planes", []string{"l1: a b", "l2: a b", "l3: c", "l4: c", "s1 = l1 l3", "s2 = l2 l4"}, "s[1-2](l[1-2][a b] l[3-4][c])"},
		{"leaves in a ring", []string{"l1: a", "l2: b", "l3: c", "l1 = l2", "l2 = l3", "l3 = l1"}, "l[1-3](l1[a] l2[b] l3[c])"},
		{"dragonfly", []string{"l1: a", "l2: b", "l3: c", "l4: d", "s1 = l1 l2", "s2 = l3 l4", "s1 = s2"}, "s[1-2](s1(l1[a] l2[b]) s2(l3[c] l4[d]))"},
		{"parts", []string{"l1: a", "l2: b"}, "(l1[a] l2[b])"},
		{"a host at a spine", []string{"l1: a", "s: m", "s = l1"}, "l1+s(l1[a] s[m])"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := plain(c.lines...).Domains().text(); got != c.want {
				t.Errorf("got %s, wanted %s", got, c.want)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	f := plain("l1: a", "s = l1 l2", "core = s", "far = far2")
	got := map[string]int{}
	for _, s := range f.Switches {
		got[s.Name] = s.Level
	}
	if d := cmp.Diff(map[string]int{"l1": 0, "s": 1, "l2": 2, "core": 2, "far": -1, "far2": -1}, got); d != "" {
		t.Error(d)
	}
	// A circle of parents, which no reader makes, ends.
	f = Fabric{Switches: []Switch{{Name: "a", Parent: "b"}, {Name: "b", Parent: "a"}},
		Hosts: []FabricHost{{Name: "h", Ports: []FabricPort{{Switch: "a"}}}}}
	f.SetLevels()
	f.Domains()
}

func TestRails(t *testing.T) {
	port := func(hca, sw string) FabricPort { return FabricPort{HCA: hca, Switch: sw} }
	f := plain("s = l1 l2 m1 m2")
	for i := range 12 {
		leaf := []string{"l", "m"}[i%2]
		h := FabricHost{Name: "n" + strconv.Itoa(i), Ports: []FabricPort{port("HCA-1", leaf+"1"), port("HCA-6", leaf+"2")}}
		if i >= 6 {
			h.Ports = []FabricPort{port("mlx5_0", leaf+"1"), port("mlx5_5", leaf+"2")}
		}
		f.Hosts = append(f.Hosts, h)
	}
	f.Hosts = append(f.Hosts, FabricHost{Name: "swapped", Ports: []FabricPort{port("HCA-6", "l1"), port("HCA-1", "l2")}})
	f.Sort()
	f.SetLevels()
	want := []Rail{
		{Index: 0, HCAs: []string{"HCA-1", "mlx5_0"}, Leaves: []string{"l1", "m1"}, Strays: []string{"swapped HCA-6"}},
		{Index: 1, HCAs: []string{"HCA-6", "mlx5_5"}, Leaves: []string{"l2", "m2"}, Strays: []string{"swapped HCA-1"}},
	}
	if d := cmp.Diff(want, f.Rails()); d != "" {
		t.Error(d)
	}
	if r := plain("l1: a b c", "l2: d e", "s = l1 l2").Rails(); r != nil {
		t.Errorf("one port a host makes no rails: %v", r)
	}
}

func TestMatchHosts(t *testing.T) {
	f := plain("l1: N1.hpc.example n2 n3 x", "l2: N1")
	notes := f.MatchHosts([]string{"n1", "N2", "n3", "n4", "n5"})
	var got []string
	for _, h := range f.Hosts {
		got = append(got, h.Name)
	}
	if d := cmp.Diff([]string{"N1.hpc.example", "N2", "n1", "n3", "x"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"host N1.hpc.example of the fabric would be n1 too: it keeps its name", "2 hosts are not on the fabric: n[4-5]"}, notes); d != "" {
		t.Error(d)
	}
}
