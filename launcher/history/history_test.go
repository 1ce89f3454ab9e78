package history_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/store"
)

const task = "abcd-0"

// world is a store and what it should say.
type world struct {
	s     *store.Memory
	h     *history.History
	seq   uint64
	ended map[uint64]history.Element
	all   map[uint64][]history.Element
	next  map[uint64]uint32 // attempt number of those that have not ended; 1 if none is said
	size  uint64
}

func newWorld(size uint64) *world {
	s := store.NewMemory()
	return &world{s: s, h: history.New(s), ended: map[uint64]history.Element{}, all: map[uint64][]history.Element{}, next: map[uint64]uint32{}, size: size}
}

func (w *world) commit(t *rapid.T, b job.BlockRow) {
	w.seq += rapid.Uint64Range(1, 3).Draw(t, "step")
	b.Seq, b.Task = w.seq, task
	if err := w.s.Commit([]job.Row{job.EncodeBlock(b)}); err != nil {
		t.Fatal(err)
	}
}

// block ends some elements as a crew would tell it.
func (w *world) block(t *rapid.T) {
	lo := rapid.Uint64Range(0, w.size-1).Draw(t, "lo")
	n := rapid.Uint64Range(1, 40).Draw(t, "n")
	node := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
	at := time.UnixMicro(1_700_000_000_000_000 + int64(w.seq)*1000).UTC()
	b := job.BlockRow{Attempt: job.AttemptID(task, lo, 1), Node: node, At: at, Costs: &job.Costs{}}
	measured := rapid.IntRange(0, 9).Draw(t, "measured") > 0
	for i := lo; i < min(lo+n, w.size); i++ {
		if _, ok := w.ended[i]; ok || rapid.IntRange(0, 5).Draw(t, "skip") == 0 {
			continue
		}
		number := max(w.next[i], 1)
		o := job.Outcome{Success: true}
		if k := rapid.IntRange(0, 9).Draw(t, "end"); k < 3 {
			o = job.Outcome{ExitCode: k + 1, Reason: &job.Reason{Code: job.FailRank}}
		}
		e := history.Element{Index: i, AttemptID: b.Attempt, Node: node, At: at, Outcome: o, Attempt: 1}
		if measured {
			e.Cost = job.Cost{Attempt: number, Start: at.UnixMicro() + int64(i%7), Wall: i % 11, CPU: 3, RSS: i % 5}
			e.Measured, e.Attempt = true, number
			b.Costs.Add(e.Cost)
		}
		one := job.Range{Lo: i, Hi: i + 1}
		if !o.Success {
			e.Last = fmt.Sprintf("line %d", i)
			b.Last = append(b.Last, job.LastLine{Index: i, Text: e.Last})
		}
		if !o.Success && rapid.Bool().Draw(t, "retry") {
			o.Range = one
			b.Again, b.Was = append(b.Again, job.Try{Range: one, Attempt: number + 1}), append(b.Was, o)
			w.next[i] = number + 1
			if measured {
				w.all[i] = append(w.all[i], e)
			}
			continue
		}
		e.Ended = true
		w.ended[i] = e
		w.all[i] = append(w.all[i], e)
		o.Range = one
		if k := len(b.Done); k > 0 && b.Done[k-1].Hi == i && b.Done[k-1].Success && o.Success {
			b.Done[k-1].Hi++
		} else {
			b.Done = append(b.Done, o)
		}
	}
	if !measured {
		b.Costs = nil
	}
	w.commit(t, b)
}

// reactivate takes failures back.
func (w *world) reactivate(t *rapid.T) {
	b := job.BlockRow{At: time.UnixMicro(1_700_000_000_000_000 + int64(w.seq)*1000).UTC()}
	for _, i := range slices.Sorted(maps.Keys(w.ended)) {
		if e := w.ended[i]; !e.Outcome.Success && rapid.Bool().Draw(t, "back") {
			w.next[i] = e.Attempt + 1
			b.Again = append(b.Again, job.Try{Range: job.Range{Lo: i, Hi: i + 1}, Attempt: w.next[i]})
			delete(w.ended, i)
		}
	}
	w.commit(t, b)
}

func (w *world) merge(t *rapid.T) {
	m, err := w.h.Merge(task, rapid.Bool().Draw(t, "final"))
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		return
	}
	var rows []job.Row
	for _, k := range m.Drop {
		rows = append(rows, job.Row{Table: job.TableBlock, Key: k})
	}
	if err := w.s.Commit(append(rows, m.Rows...)); err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "told") {
		if err := w.h.Merged(m); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) check(t *rapid.T) {
	node := rapid.SampledFrom([]string{"", "n2"}).Draw(t, "of")
	code := rapid.SampledFrom([]int{-1, 0, 2, 77}).Draw(t, "code")
	after := time.UnixMicro(1_700_000_000_000_000 + rapid.Int64Range(0, int64(w.seq+1)*1000).Draw(t, "after"))
	timed := rapid.Bool().Draw(t, "timed")
	q := history.Query{From: rapid.Uint64Range(0, w.size).Draw(t, "from"), Limit: rapid.IntRange(1, 50).Draw(t, "limit")}
	q.May = func(s *history.Span) history.Answer {
		return some((node == "" || s.Node == node) && (code < 0 || s.Code == code) && (!timed || !s.To.Before(after)))
	}
	q.Match = func(e *history.Element) bool {
		return (node == "" || e.Node == node) && (code < 0 || e.Outcome.ExitCode == code) && (!timed || !e.End().Before(after))
	}
	got, err := w.h.Page(context.Background(), task, q)
	if err != nil {
		t.Fatal(err)
	}
	var want []history.Element
	for _, i := range slices.Sorted(maps.Keys(w.ended)) {
		e := w.ended[i]
		if e.Last = ""; i >= q.From && q.Match(&e) && len(want) < q.Limit {
			want = append(want, e)
		}
	}
	if d := gocmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
		t.Fatalf("page (-want +got):\n%s", d)
	}
	i := rapid.Uint64Range(0, w.size-1).Draw(t, "element")
	tries, err := w.h.Attempts(task, i)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(w.all[i], tries); d != "" && len(tries)+len(w.all[i]) > 0 {
		t.Fatalf("element %d (-want +got):\n%s", i, d)
	}
	sum, err := w.h.Summarize(context.Background(), task, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var measured, failed, told uint64
	for _, e := range w.ended {
		if e.Measured {
			measured++
		}
		if !e.Outcome.Success {
			failed++
		}
	}
	for _, f := range sum.Failures {
		told += f.Count
		if f.Line != "line #" || f.Reason != job.FailRank {
			t.Fatalf("a group of failures: %+v", f)
		}
	}
	if sum.Times.N != measured || told != failed || len(sum.Failures) > 3 {
		t.Fatalf("%d measured and %d failures: want %d, %d", sum.Times.N, told, measured, failed)
	}
}

func TestHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64Range(1, 300).Draw(t, "size"))
		// The rows of other tasks are next to it.
		for _, other := range []string{"abcd-00", "abcc-0", "abce-0"} {
			if err := w.s.Commit([]job.Row{job.EncodeBlock(job.BlockRow{Seq: 5, Task: other, Done: []job.Outcome{{Range: job.Range{Hi: 9}}}})}); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"block": w.block, "more": w.block, "reactivate": w.reactivate, "merge": w.merge, "": w.check,
			"restart": func(*rapid.T) { w.h = history.New(w.s) },
		})
	})
}

// TestMergeBoundsRows sends results one by one: they end up in few rows.
func TestMergeBoundsRows(t *testing.T) {
	w := newWorld(10_000)
	written := 0
	merge := func(final bool) {
		for {
			m, err := w.h.Merge(task, final)
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				return
			}
			rows := m.Rows
			for _, r := range m.Rows {
				written += len(r.Value)
			}
			for _, k := range m.Drop {
				rows = append(rows, job.Row{Table: job.TableBlock, Key: k})
			}
			if err := w.s.Commit(rows); err != nil {
				t.Fatal(err)
			}
			if err := w.h.Merged(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() (n, size int) {
		rows, err := w.s.Scan(job.TableBlock, "", store.MaxScan)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			size += len(r.Value)
		}
		return len(rows), size
	}
	most := 0
	for i := range uint64(10_000) {
		b := job.BlockRow{Seq: i + 1, Task: task, Attempt: "abcd-0-0-1", Node: "n1", At: time.Unix(int64(i), 0),
			Done:  []job.Outcome{{Range: job.Range{Lo: i, Hi: i + 1}, Success: true}},
			Costs: &job.Costs{Attempt: []uint32{1}, Start: []int64{int64(i) * 1e6}, Wall: []uint64{100}, CPU: []uint64{50}, RSS: []uint64{900}}}
		if err := w.s.Commit([]job.Row{job.EncodeBlock(b)}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			merge(false)
			n, _ := count()
			most = max(most, n)
		}
	}
	merge(true)
	n, size := count()
	if most > 800 || n > 4 || size > 400_000 || written > 16*size {
		t.Errorf("up to %d rows, %d in the end with %d bytes; merges wrote %d", most, n, size, written)
	}
}

func TestMask(t *testing.T) {
	for _, c := range [][2]string{
		{"", ""},
		{"no such file: /data/in_0017.png", "no such file: /data/in_#.png"},
		{"segfault at 0x7ffe12 ip deadbeef1 error 4", "segfault at # ip # error #"},
		{"deadbeef decade", "deadbeef decade"},
		{"v2ray3 of 3f2a91c0-11ee", "v#ray# of #-#"},
		{"zeile é 12", "zeile é #"},
	} {
		if got := history.Mask(c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h history.Times
		var all []time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			d := time.Duration(rapid.Int64Range(0, 1<<rapid.IntRange(0, 45).Draw(t, "bits")).Draw(t, "us")) * time.Microsecond
			all = append(all, d)
			h.Add(d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			want := all[max(0, min(len(all)-1, int(float64(len(all))*q+0.999999)-1))]
			got := h.Quantile(q)
			if diff := (got - want).Abs(); diff > want/16+time.Microsecond {
				t.Fatalf("quantile %v: %v, want %v", q, got, want)
			}
		}
		var n uint64
		buckets := h.Buckets()
		for i, b := range buckets {
			n += b.Count
			if b.From >= b.To || i > 0 && buckets[i-1].To != b.From {
				t.Fatalf("bucket %d: %+v", i, b)
			}
		}
		if n != uint64(len(all)) || buckets[0].Count == 0 || cmp.Compare(buckets[len(buckets)-1].Count, 0) == 0 {
			t.Fatalf("%d in buckets, want %d: %+v", n, len(all), buckets)
		}
	})
}
