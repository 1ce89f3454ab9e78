// Command exchange measures a gang's start-up exchange with all members in one
// process: the real mesh with TLS over loopback, one end for each simulated node,
// and on each the PMI server that its ranks' clients speak with, in PMI-1's own
// words. What a round costs there is shared by all members, on as many cores as
// the machine has; so are the handshakes.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gangway/nodeagent/mesh"
	"gangway/nodeagent/wire/link"
)

type handler struct{}

func (handler) Message(int, []byte)             {}
func (handler) Down(int, error)                 {}
func (handler) Stream(int, []byte, mesh.Stream) {}

// settings of a run.
type settings struct {
	members, ranks, fanOut, rounds int
	plain                          bool
}

func main() {
	var s settings
	members := flag.String("members", "64,256,1024", "members of the gangs, comma separated")
	runs := flag.Int("runs", 5, "gangs of each size; the table has medians")
	flag.IntVar(&s.ranks, "ranks", 8, "ranks a member")
	flag.IntVar(&s.fanOut, "fan-out", 0, "of the tree; 0: the mesh's own")
	flag.IntVar(&s.rounds, "rounds", 3, "exchanges of each gang")
	flag.BoolVar(&s.plain, "floor", false, "measure plain TCP in the same tree instead of the mesh")
	flag.Parse()
	what := "mesh"
	if s.plain {
		what = "plain TCP"
	}
	fmt.Println("| members | over | join s | join CPU s | first exchange s | further s | CPU s | MiB resident a member | KiB put | KiB exchanged |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, m := range strings.Split(*members, ",") {
		if _, err := fmt.Sscan(m, &s.members); err != nil || s.members < 1 {
			fail(fmt.Errorf("-members: %q is no number of members", m))
		}
		var all [8][]float64
		for range *runs {
			r, err := run(s)
			if err != nil {
				fail(err)
			}
			for i, v := range r {
				all[i] = append(all[i], v)
			}
			runtime.GC()
		}
		fmt.Printf("| %d | %s |", s.members, what)
		for _, v := range all {
			slices.Sort(v)
			fmt.Printf(" %.3f |", v[len(v)/2])
		}
		fmt.Println()
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "exchange:", err)
	os.Exit(1)
}

// group is a gang: the mesh's or the floor's.
type group interface {
	join() error
	exchange(member int, part []byte) ([]byte, error)
	close()
}

// run makes one gang; it returns what the table has.
func run(s settings) (out [8]float64, err error) {
	var g group
	if s.plain {
		g, err = newFloor(s)
	} else {
		g, err = newGang(s)
	}
	if err != nil {
		return out, err
	}
	defer g.close()
	t, c := time.Now(), cpu()
	if err := g.join(); err != nil {
		return out, err
	}
	out[0], out[1] = time.Since(t).Seconds(), cpu()-c
	var walls, cpus []float64
	for range s.rounds {
		r, err := newRound(s, g)
		if err != nil {
			return out, err
		}
		t, c = time.Now(), cpu()
		if err := r.putAll(); err != nil {
			return out, err
		}
		walls, cpus = append(walls, time.Since(t).Seconds()), append(cpus, cpu()-c)
		if out[6], out[7], err = r.check(); err != nil {
			return out, err
		}
	}
	out[2] = walls[0]
	if rest := walls[1:]; len(rest) > 0 {
		slices.Sort(rest)
		out[3] = rest[len(rest)/2]
	}
	slices.Sort(cpus)
	out[4] = cpus[len(cpus)/2]
	out[5] = resident() / float64(s.members)
	return out, nil
}

type gang struct {
	m     []*mesh.Mesh
	peers []mesh.Peer
}

func newGang(s settings) (*gang, error) {
	g, key := &gang{}, link.NewKey()
	addr := netip.MustParseAddr("127.0.0.1")
	for i := range s.members {
		m, err := mesh.Listen(addr, key, i)
		if err != nil {
			g.close()
			return nil, err
		}
		if s.fanOut > 0 {
			m.FanOut = s.fanOut
		}
		m.Silence = time.Minute // all members share the cores here
		g.m = append(g.m, m)
		g.peers = append(g.peers, mesh.Peer{Index: i, Addr: addr, Port: m.Port()})
	}
	return g, nil
}

func (g *gang) join() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := make([]error, len(g.m))
	var wg sync.WaitGroup
	for i, m := range g.m {
		wg.Go(func() { errs[i] = m.Join(ctx, g.peers, handler{}) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gang) exchange(i int, part []byte) ([]byte, error) { return g.m[i].Allgather(part) }

func (g *gang) close() {
	var wg sync.WaitGroup
	for _, m := range g.m {
		wg.Go(func() { _ = m.Close() })
	}
	wg.Wait()
}

// cpu is the process's time in seconds, in steps of 10 ms; 0 where there is no
// /proc.
func cpu() float64 {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; user and system time are the
	// 12th and 13th fields after it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

// resident is the process's memory in MiB.
func resident() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, rss float64
	if _, err := fmt.Sscan(string(b), &size, &rss); err != nil {
		return 0
	}
	return rss * float64(os.Getpagesize()) / (1 << 20)
}
