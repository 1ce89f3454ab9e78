package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gangway/nodeagent/wire/link"
)

// gatherAll calls Allgather on all members and returns what each got.
func (g *gang) gatherAll(part func(i int) []byte) ([][]byte, []error) {
	out, errs := make([][]byte, len(g.m)), make([]error, len(g.m))
	var wg sync.WaitGroup
	for i, m := range g.m {
		wg.Go(func() { out[i], errs[i] = m.Allgather(part(i)) })
	}
	wg.Wait()
	return out, errs
}

func (g *gang) close() {
	var wg sync.WaitGroup
	for _, m := range g.m {
		wg.Go(func() { _ = m.Close() })
	}
	wg.Wait()
}

func TestAllgather(t *testing.T) {
	for _, n := range []int{1, 2, 3, 33, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := listen(t, n, link.NewKey())
			for _, m := range g.m {
				m.FanOut = 3
			}
			g.join(t)
			for round := range 5 {
				var want []byte
				part := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d/%d ", i, round), i*round) }
				for i := range n {
					want = append(want, part(i)...)
				}
				got, errs := g.gatherAll(part)
				if err := errors.Join(errs...); err != nil {
					t.Fatal(err)
				}
				for i, b := range got {
					if !bytes.Equal(b, want) {
						t.Fatalf("round %d, member %d: %d bytes, want %d", round, i, len(b), len(want))
					}
				}
			}
			// In order, each when it is done: nobody's result suffers.
			var wg sync.WaitGroup
			for _, m := range g.m {
				wg.Go(func() {
					if b, err := m.Allgather(make([]byte, 10_000)); err != nil || len(b) != n*10_000 {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					_ = m.Close()
				})
			}
			wg.Wait()
		})
	}
}

func TestAllgatherAnySize(t *testing.T) {
	// Where it takes longer, as under the race detector, fewer gangs must do.
	const budget = 20 * time.Second
	from := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		if time.Since(from) > budget {
			return
		}
		n := rapid.IntRange(1, 20).Draw(rt, "members")
		fan := rapid.IntRange(1, 8).Draw(rt, "fan-out")
		rounds := rapid.IntRange(1, 3).Draw(rt, "rounds")
		seed := rapid.Uint64().Draw(rt, "seed")
		g := listen(t, n, link.NewKey())
		for i, m := range g.m {
			// Many members in one process, perhaps on a busy machine.
			m.FanOut, m.Silence = fan, time.Minute
			g.r[i] = &recorder{ch: make(chan news, n)} // small: all gangs live until the test ends
		}
		defer g.close()
		g.join(t)
		parts := make([][][]byte, rounds)
		rnd := rand.New(rand.NewPCG(seed, 1))
		for r := range parts {
			sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 300, 5_000, chunkSize - 1, chunkSize, chunkSize + 1}), n, n).Draw(rt, "sizes")
			for _, size := range sizes {
				b := make([]byte, size)
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				parts[r] = append(parts[r], b)
			}
		}
		// No barrier between the rounds: members may be one apart.
		var wg sync.WaitGroup
		for i, m := range g.m {
			wg.Go(func() {
				for r := range parts {
					got, err := m.Allgather(parts[r][i])
					if err != nil || !bytes.Equal(got, bytes.Join(parts[r], nil)) {
						t.Errorf("member %d of %d, fan-out %d, round %d: %d bytes, %v", i, n, fan, r, len(got), err)
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			rt.FailNow()
		}
	})
}

func TestAllgatherBig(t *testing.T) {
	g := listen(t, 7, link.NewKey())
	for _, m := range g.m {
		m.FanOut = 2
	}
	g.join(t)
	const part = 5 << 20
	got, errs := g.gatherAll(func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, part) })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i, b := range got {
		for j := range g.m {
			if len(b) != 7*part || b[j*part] != byte(j) || b[(j+1)*part-1] != byte(j) {
				t.Fatalf("member %d: %d bytes, part %d is wrong", i, len(b), j)
			}
		}
	}
	// Too much is told to all.
	_, errs = g.gatherAll(func(i int) []byte {
		if i == 5 {
			return make([]byte, MaxExchange)
		}
		return nil
	})
	for i, err := range errs {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(MaxExchange-entryHead)) || i != 5 && !strings.Contains(err.Error(), "n5 (") {
			t.Errorf("member %d: %v", i, err)
		}
	}
}

// TestAllgatherDeath lets members die at each position: before they have called,
// and in the middle of the bytes.
func TestAllgatherDeath(t *testing.T) {
	const n = 13
	kill := map[string]func(*Mesh){
		"closed": func(m *Mesh) { // as when its process is killed
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range m.peers {
				for _, c := range []*conn{p.c, p.link} {
					if c != nil {
						_ = c.tc.NetConn().Close()
					}
				}
			}
			_ = m.l.Close()
		},
		"left":      func(m *Mesh) { _ = m.Close() },
		"link only": func(m *Mesh) { m.endLinks(ErrClosed) },
	}
	for how, f := range kill {
		for _, victim := range []int{0, 1, 4, 12} { // root, inner, inner, leaf
			for _, rounds := range []int{0, 2} {
				if how == "link only" && (victim < 1 || rounds == 0) {
					continue // it has none
				}
				t.Run(fmt.Sprintf("%s/%d/%d", how, victim, rounds), func(t *testing.T) {
					t.Parallel()
					g := listen(t, n, link.NewKey())
					for _, m := range g.m {
						m.FanOut = 3
					}
					g.join(t)
					for range rounds {
						if _, errs := g.gatherAll(func(int) []byte { return []byte("x") }); errors.Join(errs...) != nil {
							t.Fatal(errs)
						}
					}
					called := make(chan struct{}, n)
					errs := make([]error, n)
					var wg sync.WaitGroup
					for i, m := range g.m {
						if i != victim {
							wg.Go(func() {
								called <- struct{}{}
								_, errs[i] = m.Allgather(make([]byte, 1<<20))
							})
						}
					}
					<-called
					start := time.Now()
					f(g.m[victim])
					wg.Wait()
					for i, err := range errs {
						if i != victim && err == nil {
							t.Errorf("member %d noticed nothing", i)
						}
						if i != victim && how == "closed" && !strings.Contains(fmt.Sprint(err), fmt.Sprintf("n%d (", victim)) {
							t.Errorf("member %d names another: %v", i, err)
						}
					}
					if d := time.Since(start); d > 10*time.Second {
						t.Errorf("noticed after %v", d)
					}
				})
			}
		}
	}
}

func TestAllgatherSilence(t *testing.T) {
	for _, victim := range []int{0, 1, 12} {
		t.Run(fmt.Sprint(victim), func(t *testing.T) {
			t.Parallel()
			const n = 13
			g := listen(t, n, link.NewKey())
			for _, m := range g.m {
				m.FanOut, m.Silence, m.Heartbeat = 3, 1500*time.Millisecond, 200*time.Millisecond
			}
			// All that touches the victim goes through cables.
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var cut []func()
			var wg sync.WaitGroup
			for i, m := range g.m {
				peers := append([]Peer(nil), g.p...)
				for j := range peers {
					if j != i && (i == victim || j == victim) {
						port, c := cable(t, g.p[j].Addr.String()+fmt.Sprintf(":%d", g.p[j].Port))
						peers[j].Addr, peers[j].Port, cut = netip.MustParseAddr("127.0.0.1"), port, append(cut, c)
					}
				}
				wg.Go(func() {
					if err := m.Join(ctx, peers, g.r[i]); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if _, errs := g.gatherAll(func(int) []byte { return []byte("x") }); errors.Join(errs...) != nil {
				t.Fatal(errs)
			}
			for _, c := range cut {
				c()
			}
			start := time.Now()
			_, errs := g.gatherAll(func(int) []byte { return make([]byte, 1<<20) })
			for i, err := range errs {
				if err == nil {
					t.Errorf("member %d noticed nothing", i)
				} else if victim != 0 && i != victim && !strings.Contains(err.Error(), fmt.Sprintf("n%d (", victim)) {
					t.Errorf("member %d names another: %v", i, err)
				}
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("noticed after %v", d)
			}
		})
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add(2, []byte{0, 0, 0, 1, 0, 0, 0, 1, 'b', 0, 0, 0, 0, 0, 0, 0, 1, 'a'})
	f.Add(1, []byte{0, 0, 0, 0, 255, 255, 255, 255})
	f.Add(1, []byte{255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, size int, b []byte) {
		size = 1 + int(uint(size)%64)
		whole, err := assemble(size, [][]byte{b})
		if err == nil && len(whole) != len(b)-size*entryHead {
			t.Errorf("%d members, %d bytes of entries: %d bytes", size, len(b), len(whole))
		}
	})
}
