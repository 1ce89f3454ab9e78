package fabric_test

import (
	"fmt"
	"strings"
	"testing"

	"gangway/topology/fabric"
)

// fatTree describes a three-level fat tree whose hosts are on several rails.
type fatTree struct {
	pods      int
	sets      int // leaf sets in a pod
	hosts     int // in a leaf set
	rails     int // leaves in a leaf set, one for each of a host's HCAs
	spines    int // in a pod, each linked to every leaf of it
	coreLinks int // cores to which each spine is linked
}

// ibnetdiscover writes the fabric as that program does, both ends of each link.
func (x fatTree) ibnetdiscover() string {
	var b strings.Builder
	type end struct {
		id, desc string
		port     int
	}
	links := map[string][]string{}
	next := map[string]int{}
	desc := map[string]string{}
	var order []string
	node := func(id, name string) string {
		desc[id] = name
		order = append(order, id)
		return id
	}
	line := func(from, to end) {
		if from.id[0] == 'H' {
			links[from.id] = append(links[from.id], fmt.Sprintf("[%d](%s) \t%q[%d]\t\t# lid 1 lmc 0 %q lid 2 4xNDR", from.port, from.id[2:], to.id, to.port, to.desc))
			return
		}
		guid := ""
		if to.id[0] == 'H' {
			guid = "(" + to.id[2:] + ") "
		}
		links[from.id] = append(links[from.id], fmt.Sprintf("[%d]\t%q[%d]%s\t\t# %q lid 1 4xNDR", from.port, to.id, to.port, guid, to.desc))
	}
	cable := func(a, b string) {
		next[a]++
		next[b]++
		x, y := end{a, desc[a], next[a]}, end{b, desc[b], next[b]}
		line(x, y)
		line(y, x)
	}
	sw := func(kind, n int, name string) string {
		return node(fmt.Sprintf("S-%04x%012x", kind, n), "MF0;"+name+":MQM9700/U1")
	}
	var cores []string
	for c := range x.coreLinks * x.spines {
		cores = append(cores, sw(3, c, fmt.Sprintf("core%d", c+1)))
	}
	host := 0
	for p := range x.pods {
		var spines []string
		for s := range x.spines {
			id := sw(2, p*x.spines+s, fmt.Sprintf("spine%d-%d", p+1, s+1))
			spines = append(spines, id)
			for c := range x.coreLinks {
				cable(id, cores[s*x.coreLinks+c])
			}
		}
		for l := range x.sets {
			var leaves []string
			for r := range x.rails {
				id := sw(1, (p*x.sets+l)*x.rails+r, fmt.Sprintf("leaf%d-%d-r%d", p+1, l+1, r))
				leaves = append(leaves, id)
				cable(id, node(fmt.Sprintf("H-00fe%012x", (p*x.sets+l)*x.rails+r), "Mellanox Technologies Aggregation Node"))
				for _, s := range spines {
					cable(id, s)
				}
			}
			for range x.hosts {
				host++
				for r, leaf := range leaves {
					cable(leaf, node(fmt.Sprintf("H-%04x%012x", 0x100+r, host), fmt.Sprintf("n%05d mlx5_%d", host, r)))
				}
			}
		}
	}
	b.WriteString("#\n# Topology file: generated on Thu Jan  1 00:00:00 1970\n#\n# Initiated from node 0000000000000000 port 0000000000000000\n\n")
	for _, id := range order {
		kind, guid := "Ca", "caguid"
		if id[0] == 'S' {
			kind, guid = "Switch", "switchguid"
		}
		fmt.Fprintf(&b, "vendid=0x2c9\ndevid=0x1021\nsysimgguid=0x%s\n%s=0x%s\n%s\t%d %q\t\t# %q\n", id[2:], guid, id[2:], kind, next[id], id, desc[id])
		for _, l := range links[id] {
			b.WriteString(l + "\n")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// tenThousand is a fabric of 10,000 hosts on four rails: 5 pods of 40 leaf sets.
func tenThousand() fatTree {
	return fatTree{pods: 5, sets: 40, hosts: 50, rails: 4, spines: 16, coreLinks: 4}
}

func TestTenThousandHosts(t *testing.T) {
	f, err := fabric.Read(strings.NewReader(tenThousand().ibnetdiscover()), "large.out")
	if err != nil || len(f.Warnings) > 0 {
		t.Fatal(err, f.Warnings)
	}
	d := fabric.Describe(f)
	want := fabric.Summary{Leaves: 800, Spines: 80, Cores: 64, Hosts: 10000, Ports: 40000, Ignored: 800, Sets: 200, Rails: 4}
	if d.Summary != want {
		t.Errorf("got %+v", d.Summary)
	}
	if len(d.Domains.Children) != 5 || len(d.Domains.Children[0].Children) != 40 || d.Domains.Level != 2 {
		t.Errorf("%d pods, level %d", len(d.Domains.Children), d.Domains.Level)
	}
	for i, r := range d.Rails {
		if len(r.Leaves) != 200 || r.Index != i || len(r.Strays) > 0 {
			t.Errorf("rail %d: %d leaves, %d strays", i, len(r.Leaves), len(r.Strays))
		}
	}
	// Written and read again is a smaller one: 10,000 hosts in YAML take seconds.
	f, err = fabric.Read(strings.NewReader(fatTree{pods: 3, sets: 4, hosts: 6, rails: 4, spines: 4, coreLinks: 2}.ibnetdiscover()), "small.out")
	if err != nil || len(f.Warnings) > 0 {
		t.Fatal(err, f.Warnings)
	}
	checkFabric(t, f)
}

func BenchmarkTenThousandHosts(b *testing.B) {
	text := tenThousand().ibnetdiscover()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		f, err := fabric.Read(strings.NewReader(text), "large.out")
		if err != nil {
			b.Fatal(err)
		}
		if d := f.Domains(); len(d.Children) != 5 {
			b.Fatal(len(d.Children))
		}
	}
}
