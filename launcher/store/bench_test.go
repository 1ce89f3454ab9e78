package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// BenchmarkCommit commits rows of the size of a part's, of which half replace
// one that is there. Each value is another: SQLite writes nothing, and waits for
// no disk, when a row stays as it is.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 100, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := store.Open(newDir(b), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			rows := make([]job.Row, n)
			seq := 0
			for b.Loop() {
				for i := range rows {
					value := make([]byte, 200)
					binary.LittleEndian.PutUint64(value, uint64(seq))
					rows[i] = job.Row{Table: job.TablePart, Key: job.NumberKey(uint64(seq / 2)), Value: value}
					seq++
				}
				if err := s.Commit(rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}

// BenchmarkRestore starts from 10,000,000 finished elements with their costs, one
// in ten of which failed: opens the data, reads it and builds the state. From
// blocks of 4,096, as smaller ones become when they are merged, that is to take 2 s
// at most.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name   string
		piece  uint64
		jumble bool
	}{{"blocks of 4096", 4096, false}, {"blocks of 64", 64, false}, {"blocks of 64 out of order", 64, true}} {
		b.Run(c.name, func(b *testing.B) {
			dir := newDir(b)
			fill(b, dir, c.piece, c.jumble)
			best := time.Hour // other work of the machine must not count
			for b.Loop() {
				began := time.Now()
				s, err := store.Open(dir, store.Options{})
				if err != nil {
					b.Fatal(err)
				}
				rows, err := s.Load(job.TableAutopsy)
				if err != nil {
					b.Fatal(err)
				}
				cluster, err := state.Load(rows)
				if err != nil {
					b.Fatal(err)
				}
				if t, _ := cluster.Task("abcd-0"); t.State != job.TaskCompleted || t.Failed != job.MaxArray/10 {
					b.Fatalf("%+v", t)
				}
				best = min(best, time.Since(began))
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if c.piece == 4096 && best > 2*time.Second {
				b.Errorf("%v at best", best)
			}
		})
	}
}

// fill writes the blocks; jumbled ones come as 64 nodes would send them.
func fill(tb testing.TB, dir string, piece uint64, jumble bool) {
	s := openDir(tb, dir)
	spec := job.TaskSpec{ID: "t", Range: job.Range{Hi: job.MaxArray}, Command: []string{"x"}}
	rows := []job.Row{
		job.Encode(job.TableMeta, "meta", job.MetaRow{Cluster: "c", Epoch: 1}),
		job.Encode(job.TableJob, "abcd", job.JobRow{UID: "abcd", Next: 1, Spec: job.Spec{ID: "j"}}),
		job.Encode(job.TableTask, "abcd-0", job.TaskRow{UID: "abcd-0", Job: "abcd", Spec: spec}),
	}
	var starts []uint64
	for lo := uint64(0); lo < job.MaxArray; lo += piece {
		starts = append(starts, lo)
	}
	if jumble {
		rng := rand.New(rand.NewPCG(1, 2))
		for i := 0; i+64 <= len(starts); i += 64 {
			rng.Shuffle(64, func(x, y int) { starts[i+x], starts[i+y] = starts[i+y], starts[i+x] })
		}
	}
	why := &job.Reason{Code: job.FailRank}
	for seq, lo := range starts {
		hi := min(lo+piece, job.MaxArray)
		blk := job.BlockRow{Seq: uint64(seq) + 1, Task: "abcd-0", Attempt: job.AttemptID("abcd-0", lo, 1), Node: fmt.Sprint("node", seq%64), Costs: &job.Costs{}}
		for x := lo; x < hi; x++ {
			blk.Costs.Add(job.Cost{Attempt: 1, Start: int64(x) * 10, Wall: 400 + x*7919%800, CPU: 300 + x*104729%500, RSS: 1800 + x%200})
		}
		for x := lo; x < hi; {
			r := job.Range{Lo: x, Hi: min(x/10*10+9, hi)}
			o := job.Outcome{Range: r, Success: true}
			if x%10 == 9 {
				o = job.Outcome{Range: job.Range{Lo: x, Hi: x + 1}, ExitCode: 1, Reason: why}
			}
			blk.Done = append(blk.Done, o)
			x = o.Hi
		}
		rows = append(rows, job.EncodeBlock(blk))
		if len(rows) >= 4096 || hi == job.MaxArray || seq == len(starts)-1 {
			mustCommit(tb, s, rows...)
			rows = rows[:0]
		}
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}
