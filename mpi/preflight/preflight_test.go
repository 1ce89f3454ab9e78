package preflight

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/mpi"
	"gangway/topology"
)

func ptr[T any](v T) *T { return &v }

// good is a gang of three nodes with nothing wrong.
func good() []Facts {
	var out []Facts
	for i, name := range []string{"n1", "n2", "n3"} {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)})
		out = append(out, Facts{
			Node: name, Hostname: name, Index: i, Ranks: 2, Address: addr, Interface: "eth0",
			Interfaces: []topology.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}},
			Memlock:    ptr(^uint64(0)), OpenFiles: ptr[uint64](4096), Processes: ptr[uint64](4096), Tasks: ptr[uint64](100),
			Shm: &Space{Path: "/dev/shm", Free: 1 << 30, Inodes: 1e6}, Tmp: &Space{Path: "/tmp/gangway-x/tmp", Free: 1 << 30, Inodes: 1e6},
			TaskRoot: &Space{Path: "/var/lib/gangway", Free: 1 << 30, NoIno: true},
			MPI:      &Library{Soname: "libmpi.so.12", Path: "/lib/libmpi.so.12", File: "libmpi.so.12.2.1", Size: 100, Build: "aa", Flavour: mpi.MPICH},
			Names:    []Name{{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}},
			Dials:    []Dial{{To: (i + 1) % 3, Addr: "10.0.0.9:1"}},
			Sent:     start.Add(time.Millisecond), Granted: topology.NewCPUSet(0, 1), Affinity: topology.NewCPUSet(0, 1, 2, 3), Cores: 2, CoresPerRank: 1,
		})
	}
	return out
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func plan() Plan {
	p := Plan{Flavour: mpi.MPICH, Via: "mpirun", Bound: true, Asked: start, Got: map[int]time.Time{}}
	for i := range 3 {
		p.Got[i] = start.Add(10 * time.Millisecond)
	}
	return p
}

func hca(name, state, layer string) topology.HCA {
	return topology.HCA{Name: name, Ports: []topology.HCAPort{{Number: 1, State: state, LinkLayer: layer}}}
}

func TestGoodGang(t *testing.T) {
	if f := Check(good(), plan()); len(f) > 0 {
		t.Errorf("findings of a good gang: %v", f)
	}
	gang := good()
	for i := range gang {
		gang[i].HCAs = []topology.HCA{hca("mlx5_0", "ACTIVE", "InfiniBand")}
	}
	if f := Check(gang, plan()); len(f) > 0 {
		t.Errorf("findings of a good gang with adapters: %v", f)
	}
	if f := Check([]Facts{{Node: "n1"}}, Plan{}); len(f) > 0 {
		t.Errorf("findings without facts: %v", f)
	}
}

func TestChecks(t *testing.T) {
	ib := func(g []Facts) {
		for i := range g {
			g[i].HCAs = []topology.HCA{hca("mlx5_0", "ACTIVE", "InfiniBand")}
		}
	}
	docker := func(g []Facts) {
		for i := range g {
			g[i].Interfaces = append(g[i].Interfaces, topology.Interface{Name: "docker0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16")}})
		}
	}
	loop := []Name{{Name: "n3", Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.1")}}}
	for _, c := range []struct {
		name string
		do   func(g []Facts, p *Plan)
		want string // "" none: level check node: part of the message
	}{
		{"closed port", func(g []Facts, p *Plan) { g[1].Dials[0].Err = "connection refused" }, "error connect n2: n3 (10.0.0.9:1): connection refused"},
		{"closed port without MPI", func(g []Facts, p *Plan) { g[1].Dials[0].Err, p.Flavour = "x", mpi.None }, "warning connect n2: x"},
		{"loopback name", func(g []Facts, p *Plan) { g[1].Names = loop }, "warning name n2: n3 resolves to 127.0.1.1"},
		{"own loopback name", func(g []Facts, p *Plan) { g[2].Names = loop }, "warning name n3: its own host name n3"},
		{"loopback name that is needed", func(g []Facts, p *Plan) { g[1].Names, p.NeedNames = loop, true }, "error name n2: n3 resolves to 127.0.1.1"},
		{"unknown name", func(g []Facts, p *Plan) { g[0].Names, p.NeedNames = []Name{{Name: "n2", Err: "no such host"}}, true }, "error name n1: does not resolve: no such host"},
		{"name of another", func(g []Facts, p *Plan) { g[1].Names[0].Addrs[0], p.NeedNames = netip.MustParseAddr("10.9.9.9"), true }, "error name n2: none of its addresses"},
		{"docker0", func(g []Facts, p *Plan) { docker(g) }, "note interface n[1-3]: 172.17.0.1 on docker0"},
		{"docker0, chosen", func(g []Facts, p *Plan) { docker(g); p.Env = []string{"UCX_NET_DEVICES=eth0"} }, ""},
		{"docker0, Open MPI", func(g []Facts, p *Plan) { docker(g); p.Flavour = mpi.OpenMPI }, ""},
		{"docker0, without MPI", func(g []Facts, p *Plan) { docker(g); p.Flavour = mpi.None }, ""},
		{"docker0, MVAPICH's kind with a name unknown", func(g []Facts, p *Plan) { docker(g); g[1].Interface = "" }, "warning interface n[1-3]: docker0"},
		{"device", func(g []Facts, p *Plan) { p.Env = []string{"UCX_NET_DEVICES=mlx5_0:1"} }, "error device n[1-3]: names mlx5_0"},
		{"device on some", func(g []Facts, p *Plan) {
			p.Env = []string{"UCX_NET_DEVICES=eth0,mlx5_0:1"}
			g[0].HCAs = []topology.HCA{hca("mlx5_0", "ACTIVE", "")}
			g[1].HCAs, g[2].HCAs = g[0].HCAs, []topology.HCA{hca("mlx5_ib0", "ACTIVE", "")}
		}, "warning device n3: names mlx5_0"},
		{"port down", func(g []Facts, p *Plan) { ib(g); g[1].HCAs[0].Ports[0].State = "DOWN" }, "error hca-port n2: mlx5_0:1 DOWN"},
		{"port down, TCP chosen", func(g []Facts, p *Plan) {
			ib(g)
			g[1].HCAs[0].Ports[0].State, p.Env = "DOWN", []string{"UCX_TLS=tcp,self"}
		}, ""},
		{"all ports down", func(g []Facts, p *Plan) {
			for i := range g {
				g[i].HCAs = []topology.HCA{hca("mlx5_0", "DOWN", "")}
			}
		}, "warning hca-port n[1-3]: falls back to TCP"},
		{"second port down", func(g []Facts, p *Plan) {
			for i := range g {
				g[i].HCAs = []topology.HCA{hca("mlx5_0", "ACTIVE", ""), hca("mlx5_1", "ACTIVE", "")}
			}
			g[2].HCAs[1].Ports[0].State = "INIT"
		}, "warning hca-port n3: mlx5_1:1 is INIT"},
		{"no adapter", func(g []Facts, p *Plan) { ib(g); g[2].HCAs = nil }, "warning hca n3: no InfiniBand adapter"},
		{"other kind", func(g []Facts, p *Plan) { ib(g); g[2].HCAs = []topology.HCA{hca("hfi1_0", "ACTIVE", "InfiniBand")} }, "warning provider : n[1-2] InfiniBand; n3 Omni-Path"},
		{"memlock", func(g []Facts, p *Plan) { ib(g); g[0].Memlock = ptr[uint64](64 << 10) }, "error memlock n1: 64 KiB"},
		{"memlock without an adapter", func(g []Facts, p *Plan) { g[0].Memlock = ptr[uint64](64 << 10) }, ""},
		{"processes", func(g []Facts, p *Plan) { g[1].Processes = ptr[uint64](110) }, "warning processes n2: 110 processes"},
		{"files", func(g []Facts, p *Plan) { g[1].OpenFiles = ptr[uint64](64) }, "warning files n2: open 64 files"},
		{"shm", func(g []Facts, p *Plan) { g[1].Shm.Free = 1 << 20 }, "error shm n2: 1 MiB free: 2 ranks need at least 8 MiB"},
		{"shm, one rank", func(g []Facts, p *Plan) { g[1].Shm.Free, g[1].Ranks = 1<<20, 1 }, ""},
		{"shm scarce", func(g []Facts, p *Plan) { g[1].Shm.Free = 16 << 20 }, "warning shm n2: may need 32 MiB"},
		{"shm denied", func(g []Facts, p *Plan) { g[1].Shm.Denied = "permission denied" }, "error shm n2: permission denied"},
		{"stale", func(g []Facts, p *Plan) {
			g[1].Stale = []Stale{{Path: "/dev/shm/vader_segment.n2.0", Glob: "/dev/shm/vader_segment.*", Kind: "Open MPI's shared memory", Count: 3, Bytes: 12 << 20}}
		}, "warning stale n2: 3 with 12 MiB"},
		{"tmp denied", func(g []Facts, p *Plan) { g[1].Tmp.Denied = "read-only file system" }, "error tmpdir n2: read-only"},
		{"tmp long", func(g []Facts, p *Plan) { g[1].Tmp.Path = "/" + strings.Repeat("x", 70) }, "warning tmpdir-length n2: 71 bytes"},
		{"disk full", func(g []Facts, p *Plan) { g[1].Tmp.Free = 0 }, "error disk n2: is full"},
		{"disk nearly full", func(g []Facts, p *Plan) { g[1].Tmp.Free = 2 << 20 }, "warning disk n2: 2 MiB free"},
		{"inodes", func(g []Facts, p *Plan) { g[1].Tmp.Inodes = 3 }, "error disk n2: 3 inodes"},
		{"few inodes", func(g []Facts, p *Plan) { g[1].Tmp.Inodes = 300 }, "warning disk n2: 300 inodes"},
		{"task root full", func(g []Facts, p *Plan) { g[1].TaskRoot.Free = 0 }, "warning task-root n2: is full"},
		{"affinity", func(g []Facts, p *Plan) { g[1].Affinity = topology.NewCPUSet(0) }, "error affinity n2: cpus 1 were granted"},
		{"affinity, not bound", func(g []Facts, p *Plan) { g[1].Affinity, p.Bound = topology.NewCPUSet(0), false }, ""},
		{"slots", func(g []Facts, p *Plan) { g[1].Ranks = 3 }, "error slots n2: 3 ranks of 1 cores"},
		{"oversubscribed", func(g []Facts, p *Plan) { g[1].Ranks, p.Oversubscribe = 3, true }, ""},
		{"library", func(g []Facts, p *Plan) { g[2].Missing = []string{"libgfortran.so.5"} }, "error library n3: libgfortran.so.5"},
		{"other MPI", func(g []Facts, p *Plan) {
			g[2].MPI = &Library{Soname: "libmpi.so.40", Path: "/x", Flavour: mpi.OpenMPI}
		}, "error mpi-library n3: another MPI than on n1"},
		{"other version", func(g []Facts, p *Plan) { g[2].MPI.File = "libmpi.so.12.1.8" }, "error mpi-library n3: libmpi.so.12.1.8, there libmpi.so.12.2.1"},
		{"other build", func(g []Facts, p *Plan) { g[2].MPI.Build = "bb" }, "warning mpi-library n3: another build"},
		{"other size", func(g []Facts, p *Plan) { g[2].MPI.Build, g[2].MPI.Size = "", 7 }, "warning mpi-library n3: another build"},
		{"helper", func(g []Facts, p *Plan) { g[1].Helpers = []string{"/opt/bin/orted"} }, "error launcher n2: /opt/bin/orted"},
		{"clock ahead", func(g []Facts, p *Plan) { g[1].Sent = start.Add(90 * time.Second) }, "warning clock n2: 1m30s ahead of n1's"},
		{"clock behind", func(g []Facts, p *Plan) { g[1].Sent = start.Add(-5 * time.Second) }, "warning clock n2: 5s behind n1's"},
		{"silent", func(g []Facts, p *Plan) { p.Silent = []string{"n9"} }, "warning answer n9: did not say in time"},
		{"failed", func(g []Facts, p *Plan) { g[1].Failed = []string{"free space of /dev/shm: x"} }, "warning answer n2: free space of /dev/shm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, p := good(), plan()
			c.do(g, &p)
			found := Check(g, p)
			if c.want == "" {
				if len(found) > 0 {
					t.Fatalf("findings %v", found)
				}
				return
			}
			head, part, _ := strings.Cut(c.want, ": ")
			if len(found) != 1 {
				t.Fatalf("%d findings, want 1: %v", len(found), found)
			}
			f := found[0]
			if got := string(f.Level) + " " + f.Check + " " + f.Node(); got != head || !strings.Contains(f.Message, part) {
				t.Errorf("got %s: %s; want %s", got, f.Message, c.want)
			}
			if f.Hint == "" && f.Level != Note && f.Check != "answer" {
				t.Error("it does not say what to do")
			}
			if !slices.ContainsFunc(Checks(), func(d Doc) bool { return d.Name == f.Check }) {
				t.Errorf("check %s is not described", f.Check)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	g := good()
	for i := range g {
		g[i].Interfaces = append(g[i].Interfaces, topology.Interface{Name: "virbr0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.122.1/24")}})
	}
	g[2].Interface = "ens3"
	want := map[int][]string{0: {"UCX_NET_DEVICES=eth0", "FI_TCP_IFACE=eth0"}, 1: {"UCX_NET_DEVICES=eth0", "FI_TCP_IFACE=eth0"}, 2: {"UCX_NET_DEVICES=ens3", "FI_TCP_IFACE=ens3"}}
	if d := cmp.Diff(want, Settings(g, plan())); d != "" {
		t.Error(d)
	}
	g[1].HCAs = []topology.HCA{hca("mlx5_0", "ACTIVE", "")}
	if s := Settings(g, plan()); s != nil {
		t.Errorf("set beside an adapter: %v", s)
	}
}

func TestFold(t *testing.T) {
	g := good()
	for i := range g {
		g[i].Missing = []string{"libx.so"}
	}
	g[0].Stale = []Stale{{Count: 1}}
	found := Check(g, plan())
	if len(found) != 2 || found[0].Check != "library" || found[0].Node() != "n[1-3]" || !strings.HasPrefix(found[0].String(), "n[1-3]: the program needs libx.so") {
		t.Errorf("got %v", found)
	}
}

// A member is in one pair a round, no pair comes twice, and without the limit
// every pair comes.
func TestRounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, limit := rapid.IntRange(0, 70).Draw(t, "members"), rapid.IntRange(0, 80).Draw(t, "limit")
		seen := map[[2]int]bool{}
		rounds := Rounds(n, limit)
		if len(rounds) > limit {
			t.Fatalf("%d rounds, limit %d", len(rounds), limit)
		}
		for _, r := range rounds {
			busy := map[int]bool{}
			for _, p := range r {
				if p[0] >= p[1] || p[0] < 0 || p[1] >= n || busy[p[0]] || busy[p[1]] || seen[p] {
					t.Fatalf("round %v", r)
				}
				busy[p[0]], busy[p[1]], seen[p] = true, true, true
			}
		}
		if limit > n && len(seen) != n*(n-1)/2 && n > 0 {
			t.Fatalf("%d pairs of %d members", len(seen), n)
		}
	})
}

func TestPartners(t *testing.T) {
	if d := cmp.Diff([]int{6, 7, 1}, Partners(5, 8)); d != "" {
		t.Error(d)
	}
	if p := Partners(0, 1); p != nil {
		t.Errorf("alone: %v", p)
	}
	if n := len(Partners(3, 1024)); n != 10 {
		t.Errorf("%d partners among 1024", n)
	}
}

func TestJudge(t *testing.T) {
	name := func(i int) string { return string(rune('a' + i)) }
	pairs := func(n int, slow func(a, b int) (time.Duration, float64)) []Pair {
		var out []Pair
		for _, r := range Rounds(n, n) {
			for _, p := range r {
				l, v := slow(p[0], p[1])
				out = append(out, Pair{A: p[0], B: p[1], Latency: l, Rate: v})
			}
		}
		return out
	}
	even := func(a, b int) (time.Duration, float64) {
		return time.Duration(50+(a*7+b*3)%9) * time.Microsecond, 1e9 + float64(a*b)*1e6
	}
	for n := 2; n < 20; n++ {
		if f := Judge(pairs(n, even), name); len(f) > 0 {
			t.Errorf("%d equal nodes: %v", n, f)
		}
		if n < 3 {
			continue
		}
		f := Judge(pairs(n, func(a, b int) (time.Duration, float64) {
			l, v := even(a, b)
			if a == 1 || b == 1 {
				return l + 2*time.Millisecond, v / 10
			}
			return l, v
		}), name)
		if len(f) != 2 || f[0].Check != "latency" || f[1].Check != "bandwidth" || f[0].Node() != "b" || f[1].Node() != "b" {
			t.Errorf("%d nodes, b slow: %v", n, f)
		}
	}
	if f := Judge([]Pair{{A: 0, B: 1, Err: "x"}}, name); len(f) != 1 || !strings.Contains(f[0].Message, "with b failed") {
		t.Errorf("failed pair: %v", f)
	}
	if s := Summary(pairs(4, even), name); strings.Count(s, "\n") != 3 || !strings.HasPrefix(s, "6 pairs") {
		t.Errorf("summary %q", s)
	}
}

func TestDocumentHasTheTable(t *testing.T) {
	b, err := os.ReadFile("../../docs/preflight.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), Table()) {
		t.Errorf("docs/preflight.md does not have this table:\n%s", Table())
	}
}

// A thousand nodes are judged in little time, and no facts make it panic.
func TestAnyFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5).Draw(t, "nodes")
		var g []Facts
		for i := range n {
			f := Facts{Node: rapid.String().Draw(t, "node"), Index: rapid.IntRange(-1, 6).Draw(t, "index"), Ranks: rapid.IntRange(-1, 5).Draw(t, "ranks")}
			if rapid.Bool().Draw(t, "mpi") {
				f.MPI = &Library{Path: rapid.String().Draw(t, "path")}
			}
			if rapid.Bool().Draw(t, "dial") {
				f.Dials = []Dial{{To: i * 3, Err: "x"}}
			}
			f.HCAs = []topology.HCA{hca(rapid.String().Draw(t, "hca"), rapid.SampledFrom([]string{"", "ACTIVE"}).Draw(t, "state"), "")}
			g = append(g, f)
		}
		Check(g, plan())
	})
}
