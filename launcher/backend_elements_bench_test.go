package launcher

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// BenchmarkElementPages lists pages of 1,000 of a million ended elements of 16
// nodes, one in a hundred of which failed, as the API's clients do, and counts
// them. A page that never takes less than 50 ms, or counts 5 ms, fail.
func BenchmarkElementPages(b *testing.B) {
	const million = 1_000_000
	st, err := store.Open(filepath.Join(b.TempDir(), "data"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	rows := []job.Row{
		job.Encode(job.TableMeta, "meta", job.MetaRow{Cluster: "abcdefgh", Epoch: 1, Seq: 1 << 20}),
		job.Encode(job.TableJob, "abcd", job.JobRow{UID: "abcd", Next: 1, Spec: job.Spec{ID: "j", Owner: "ops", KeepOpen: true}}),
		job.Encode(job.TableTask, "abcd-0", job.TaskRow{UID: "abcd-0", Job: "abcd",
			Spec: job.TaskSpec{ID: "A", Range: job.Range{Lo: 1, Hi: million + 1}, Command: []string{"run", "it"}}}),
	}
	why := &job.Reason{Code: job.FailRank}
	for lo := uint64(1); lo <= million; lo += 4096 {
		at := int64(1_700_000_000_000_000) + int64(lo)*10
		blk := job.BlockRow{Seq: lo, Task: "abcd-0", Attempt: job.AttemptID("abcd-0", lo, 1), Node: fmt.Sprint("node", lo/4096%16), At: time.UnixMicro(at), Costs: &job.Costs{}}
		for x := lo; x < min(lo+4096, million+1); x++ {
			blk.Costs.Add(job.Cost{Attempt: 1, Start: at + int64(x-lo)*10, Wall: 400 + x*7919%800, CPU: 300 + x*104729%500, RSS: 1800 + x%200})
			o := job.Outcome{Range: job.Range{Lo: x, Hi: x + 1}, Success: true}
			if x%100 == 0 {
				o.Success, o.ExitCode, o.Reason = false, 1, why
			}
			if x == million {
				o.ExitCode = 42
			}
			if k := len(blk.Done); k > 0 && o.Success && blk.Done[k-1].Success {
				blk.Done[k-1].Hi++
			} else {
				blk.Done = append(blk.Done, o)
			}
		}
		rows = append(rows, job.EncodeBlock(blk))
	}
	if err := st.Begin(1); err != nil {
		b.Fatal(err)
	}
	if err := st.Commit(rows); err != nil {
		b.Fatal(err)
	}
	cluster, err := state.Load(rows)
	if err != nil {
		b.Fatal(err)
	}
	api := &backend{history: st, elementsPast: history.New(st), pool: "default"}
	api.ctl = control.New(control.Config{Cluster: cluster, Store: st, Fleet: noFleet{}, Log: slog.New(slog.DiscardHandler), Notice: api.ended})
	life, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.ctl.Run(life) }()
	defer func() { stop(); <-ended }()
	if err := api.elementsPast.Warm("abcd-0"); err != nil { // as after a start
		b.Fatal(err)
	}
	h := batchapi.New(batchapi.Config{Backend: api})
	who := batchapi.WithPrincipal(b.Context(), batchapi.Principal{Name: "ops", Role: auth.Admin})
	for _, c := range []struct {
		path, filter string
		most         time.Duration
	}{
		{"taskcounts", "", 5 * time.Millisecond},
		{"tasks", "", 50 * time.Millisecond},
		{"tasks", "executionInfo/exitCode eq 1", 50 * time.Millisecond},
		{"tasks", "executionInfo/exitCode eq 42", 50 * time.Millisecond},
		{"tasks", "executionInfo/exitCode eq 77", 50 * time.Millisecond},
		{"tasks", "executionInfo/result eq 'failure' and nodeInfo/nodeId eq 'node7'", 50 * time.Millisecond},
		{"tasks", "nodeInfo/nodeId eq 'node99'", 50 * time.Millisecond},
		{"tasks", "state eq 'active'", 50 * time.Millisecond},
		{"tasks", "executionInfo/startTime ge DateTime'2023-11-14T22:13:29.9Z'", 50 * time.Millisecond},
		{"tasks", "executionInfo/endTime lt DateTime'2023-11-14T22:13:20Z'", 50 * time.Millisecond},
		{"tasks", "startswith(id,'A_99999')", 50 * time.Millisecond},
		{"tasks", "id eq 'A_1000000'", 50 * time.Millisecond},
	} {
		b.Run(c.path+" "+c.filter, func(b *testing.B) {
			best := time.Hour // other work of the machine must not count
			for b.Loop() {
				q := url.Values{"api-version": {"2024-07-01.20.0"}}
				if c.filter != "" {
					q.Set("$filter", c.filter)
				}
				w := httptest.NewRecorder()
				began := time.Now()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/jobs/j/"+c.path+"?"+q.Encode(), nil).WithContext(who))
				best = min(best, time.Since(began))
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
			if best > c.most {
				b.Errorf("%v at best", best)
			}
		})
	}
}
