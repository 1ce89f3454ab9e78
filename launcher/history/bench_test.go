package history_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/store"
)

const million = 1_000_000

// fill writes a million results of 16 nodes, one in a hundred a failure, as they
// come while all nodes work at once.
func fill(tb testing.TB, s store.Store) {
	rng := rand.New(rand.NewPCG(1, 2))
	var starts []uint64
	const piece = 2048
	for lo := uint64(0); lo < million; lo += piece {
		starts = append(starts, lo)
	}
	for part := range slices.Chunk(starts, 16) {
		rng.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	why := &job.Reason{Code: job.FailRank}
	var rows []job.Row
	for seq, lo := range starts {
		node := "node" + string(rune('a'+rng.IntN(16)))
		at := int64(1_700_000_000_000_000) + int64(lo)*10
		b := job.BlockRow{Seq: uint64(seq) + 1, Task: task, Attempt: job.AttemptID(task, lo, 1), Node: node, At: time.UnixMicro(at), Costs: &job.Costs{}}
		for x := lo; x < min(lo+piece, million); x++ {
			b.Costs.Add(job.Cost{Attempt: 1, Start: at - 40_000 + int64(x-lo)*10, Wall: 400 + rng.Uint64N(800), CPU: 300 + rng.Uint64N(300), RSS: 1800 + rng.Uint64N(100)})
			o := job.Outcome{Range: job.Range{Lo: x, Hi: x + 1}, Success: true}
			if rng.IntN(100) == 0 || x == million-1 {
				o.Success, o.ExitCode, o.Reason = false, 1, why
				if x == million-1 {
					o.ExitCode = 42
				}
				b.Last = append(b.Last, job.LastLine{Index: x, Text: "error: input 17 is missing"})
			}
			if k := len(b.Done); k > 0 && o.Success && b.Done[k-1].Success {
				b.Done[k-1].Hi++
			} else {
				b.Done = append(b.Done, o)
			}
		}
		rows = append(rows, job.EncodeBlock(b))
	}
	if err := s.Commit(rows); err != nil {
		tb.Fatal(err)
	}
}

func some(yes bool) history.Answer {
	if yes {
		return history.Some
	}
	return history.None
}

// BenchmarkPage asks SQLite for pages of a thousand of a million elements; one
// that never takes less than 50 ms fails.
func BenchmarkPage(b *testing.B) {
	s, err := store.Open(filepath.Join(b.TempDir(), "data"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	fill(b, s)
	h := history.New(s)
	for {
		m, err := h.Merge(task, true)
		if err != nil {
			b.Fatal(err)
		}
		if m == nil {
			break
		}
		rows := m.Rows
		for _, k := range m.Drop {
			rows = append(rows, job.Row{Table: job.TableBlock, Key: k})
		}
		if err := s.Commit(rows); err != nil {
			b.Fatal(err)
		}
		if err := h.Merged(m); err != nil {
			b.Fatal(err)
		}
	}
	code := func(want int) history.Query {
		return history.Query{May: func(s *history.Span) history.Answer { return some(s.Code == want) }, Match: func(e *history.Element) bool { return e.Outcome.ExitCode == want }}
	}
	both := func(node string, want int) history.Query {
		return history.Query{May: func(s *history.Span) history.Answer { return some(s.Code == want && s.Node == node) }}
	}
	late := time.UnixMicro(1_700_000_000_000_000 + million*10 - 41_000)
	for _, c := range []struct {
		name string
		q    history.Query
		want int
	}{
		{"first", history.Query{}, 1000},
		{"middle", history.Query{From: million / 2}, 1000},
		{"last", history.Query{From: million - 1000}, 1000},
		{"failed", code(1), 1000},
		{"only the last", code(42), 1},
		{"none", code(77), 0},
		{"node and exit", both("nodec", 1), 400},
		{"node that is not there", both("nodez", 1), 0},
		{"ended late", history.Query{May: func(s *history.Span) history.Answer { return some(s.To.After(late)) }, Match: func(e *history.Element) bool { return e.End().After(late) }}, 100},
		{"each looked at, none wanted", history.Query{Match: func(e *history.Element) bool { return e.Cost.Wall > 1<<40 }}, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.q.Limit = 1000
			best := time.Hour // other work of the machine must not count
			for b.Loop() {
				began := time.Now()
				got, err := h.Page(context.Background(), task, c.q)
				if err != nil || len(got) < c.want || c.want == 0 && len(got) > 0 {
					b.Fatal(len(got), err)
				}
				best = min(best, time.Since(began))
			}
			if best > 50*time.Millisecond {
				b.Errorf("%v a page at best", best)
			}
		})
	}
	b.Run("summary", func(b *testing.B) {
		for b.Loop() {
			sum, err := h.Summarize(context.Background(), task, time.Time{})
			if err != nil || sum.Times.N != million {
				b.Fatal(err)
			}
		}
	})
	b.Run("index", func(b *testing.B) {
		for b.Loop() {
			if err := history.New(s).Warm(task); err != nil {
				b.Fatal(err)
			}
		}
	})
}
