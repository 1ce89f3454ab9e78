package state

import (
	"fmt"
	"runtime"
	"testing"

	"gangway/launcher/job"
)

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// millions is a world without the costly checks, on 64 nodes of 64 cores.
func millions(tb testing.TB, n int) (*world, string) {
	w := newWorld(tb)
	w.every = 0
	cores := make([]int, 64)
	for i := range cores {
		cores[i] = 64
	}
	w.fleet(cores...)
	_, task := w.submit("abcd", job.TaskSpec{Range: job.Range{Hi: uint64(n)}})
	return w, task
}

// step places what fits and ends it, without Check.
func (w *world) step() (placed uint64, rows []job.Row) {
	apply := func(what What) {
		ch, err := w.c.Apply(Event{At: w.now, What: what})
		if err != nil {
			w.t.Fatalf("%T: %v", what, err)
		}
		rows = append(rows, ch.Rows...)
	}
	d := w.planOnly()
	apply(Placed{Place: d})
	for _, pl := range d {
		for _, try := range pl.Tries {
			placed += try.Len()
		}
		id := job.AttemptID(pl.Task, pl.Try.Lo, pl.Try.Attempt)
		node := pl.Parts[0].Node
		apply(ShimReady{ID: id, Node: node})
		apply(ShimStarted{ID: id, Node: node})
		if len(pl.Tries) == 0 {
			placed += pl.Try.Len()
			apply(AttemptResult{ID: id, Node: node, Result: job.Result{Range: pl.Try.Range}})
			apply(ShimGone{ID: id, Node: node})
			continue
		}
		n := uint64(0)
		for _, r := range pl.Tries {
			n += r.Len()
		}
		apply(CrewBlock{ID: id, Node: node, Seq: 1, Runs: runsOf(pl.Tries), Endings: []Ending{{Count: n}}})
		apply(AttemptResult{ID: id, Node: node})
		apply(ShimGone{ID: id, Node: node})
	}
	return placed, rows
}

// TestArrayCostsBytes runs an array of a million elements in pieces of up to
// 8,192: the state grows by bytes a piece, not by objects an element.
func TestArrayCostsBytes(t *testing.T) {
	const n = 1_000_000
	before := heapBytes()
	w, task := millions(t, n)
	submitted := heapBytes()
	if grown := int64(submitted) - int64(before); grown > 4<<20 {
		t.Errorf("submitting %d elements to 64 nodes took %d bytes", n, grown)
	}
	stored := map[string][]byte{}
	for done := uint64(0); done < n; {
		k, rows := w.step()
		if k == 0 {
			t.Fatalf("nothing moves after %d elements", done)
		}
		done += k
		for _, r := range rows {
			key := string(r.Table) + r.Key
			if stored[key] = r.Value; r.Value == nil {
				delete(stored, key)
			}
		}
	}
	s := w.status(task)
	if s.Succeeded != n || s.State != job.TaskCompleted {
		t.Fatalf("%+v", s)
	}
	if err := w.c.Check(); err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for _, v := range stored {
		bytes += len(v)
	}
	t.Logf("%d rows, %d bytes: %.2f a task", len(stored), bytes, float64(bytes)/n)
	if bytes > 8*n {
		t.Errorf("%d elements left rows of %d bytes", n, bytes)
	}
	stored = nil
	if grown := int64(heapBytes()) - int64(submitted); grown > 1<<20 {
		t.Errorf("%d finished elements keep %d bytes of memory", n, grown)
	}
	runtime.KeepAlive(w)
}

// BenchmarkArray is the cost of one element from pending to finished, in pieces
// of 64 a node.
func BenchmarkArray(b *testing.B) {
	w, _ := millions(b, job.MaxArray)
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		k, _ := w.step()
		if k == 0 {
			w, _ = millions(b, job.MaxArray)
		}
		n += k
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/task")
}

// BenchmarkLoad restores ten million finished elements in blocks of 4,096, one
// in ten of which failed.
func BenchmarkLoad(b *testing.B) {
	spec := job.Spec{ID: "j", Tasks: []job.TaskSpec{{ID: "t", Range: job.Range{Hi: job.MaxArray}, Command: []string{"x"}}}}
	rows := []job.Row{
		job.Encode(job.TableMeta, "meta", job.MetaRow{Cluster: "c", Epoch: 1}),
		job.Encode(job.TableJob, "abcd", job.JobRow{UID: "abcd", Spec: job.Spec{ID: "j"}, Next: 1}),
		job.Encode(job.TableTask, "abcd-0", job.TaskRow{UID: "abcd-0", Job: "abcd", Spec: spec.Tasks[0]}),
	}
	why := &job.Reason{Code: job.FailRank}
	for lo := uint64(0); lo < job.MaxArray; lo += 4096 {
		hi := min(lo+4096, job.MaxArray)
		blk := job.BlockRow{Seq: lo/4096 + 1, Task: "abcd-0"}
		for x := lo; x < hi; x += 10 {
			blk.Done = append(blk.Done, job.Outcome{Range: job.Range{Lo: x, Hi: min(x+9, hi)}, Success: true})
			if x+9 < hi {
				blk.Done = append(blk.Done, job.Outcome{Range: job.Range{Lo: x + 9, Hi: min(x+10, hi)}, ExitCode: 1, Reason: why})
			}
		}
		rows = append(rows, job.EncodeBlock(blk))
	}
	for b.Loop() {
		c, err := Load(rows)
		if err != nil {
			b.Fatal(err)
		}
		if s, _ := c.Task("abcd-0"); s.State != job.TaskCompleted {
			b.Fatalf("%+v", s)
		}
	}
	size := 0
	for _, r := range rows {
		size += len(r.Value)
	}
	b.ReportMetric(float64(size)/job.MaxArray, "B/task")
}

func BenchmarkGang(b *testing.B) {
	for _, nodes := range []int{4, 64} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			w, _ := millions(b, 1)
			w.step()
			b.ReportAllocs()
			uid := 0
			for b.Loop() {
				uid++
				_, task := w.submitQuiet(fmt.Sprintf("g%05d", uid), job.TaskSpec{ID: "t", Kind: job.Gang, Nodes: nodes, RanksPerNode: 4, Command: []string{"x"}})
				d := w.planOnly()
				if _, err := w.c.Apply(Event{At: w.now, What: Placed{Place: d}}); err != nil {
					b.Fatal(err)
				}
				a := w.only(task)
				for _, f := range []func(n string) What{
					func(n string) What { return ShimReady{ID: a.ID, Node: n} },
					func(n string) What { return ShimStarted{ID: a.ID, Node: n} },
					func(n string) What { return AttemptResult{ID: a.ID, Node: n} },
					func(n string) What { return ShimGone{ID: a.ID, Node: n} },
				} {
					for _, p := range a.Parts {
						if _, err := w.c.Apply(Event{At: w.now, What: f(p.Node)}); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
	}
}
