package launcher

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// BenchmarkTaskPages lists pages of 1,000 ended tasks of 10,000: when all are
// remembered, and when each has to be read from SQLite.
func BenchmarkTaskPages(b *testing.B) {
	mem := store.NewMemory()
	if err := mem.Begin(1); err != nil {
		b.Fatal(err)
	}
	api := &backend{history: mem, elementsPast: history.New(mem), pool: "default"}
	api.ctl = control.New(control.Config{Cluster: state.New("abcdefgh", 1), Store: mem, Fleet: noFleet{}, Log: slog.New(slog.DiscardHandler), Notice: api.ended})
	life, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.ctl.Run(life) }()
	defer func() { stop(); <-ended }()
	do := func(what state.What) {
		if err := api.do(b.Context(), what); err != nil {
			b.Fatal(err)
		}
	}
	for _, what := range nodeUp("n1") {
		do(what)
	}
	const tasks = 10_000
	if _, err := api.submit(b.Context(), job.Spec{ID: "j", Owner: "ops", KeepOpen: true}); err != nil {
		b.Fatal(err)
	}
	for i := range tasks {
		// One at a time: to plan with thousands that wait takes its time.
		one := job.TaskSpec{ID: fmt.Sprintf("t%05d", i), Command: []string{"/bin/true"}, API: []byte(`{"commandLine":"/bin/true"}`)}
		if _, errs, err := api.AddTasks(b.Context(), "j", []job.TaskSpec{one}); err != nil || errs[0] != nil {
			b.Fatal(err, errs)
		}
		v, err := api.view(b.Context(), "j", fmt.Sprintf("t%05d", i))
		if err != nil || v.attempt == nil {
			b.Fatalf("task %d: %v", i, err)
		}
		for _, what := range ending(v.attempt, "n1", job.Result{}) {
			do(what)
		}
	}
	st, err := store.Open(filepath.Join(b.TempDir(), "data"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	rows, err := mem.Load()
	if err != nil {
		b.Fatal(err)
	}
	if err := st.Commit(rows); err != nil {
		b.Fatal(err)
	}
	api.history = st
	h := batchapi.New(batchapi.Config{Backend: api})
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%v", cold), func(b *testing.B) {
			b.ReportAllocs()
			bytes := 0
			for n := 0; b.Loop(); n++ {
				if cold {
					api.recalled.mu.Lock()
					api.recalled.young, api.recalled.old = nil, nil
					api.recalled.mu.Unlock()
				}
				from := base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprint(n % 10 * 1000)))
				r := httptest.NewRequest("GET", "/jobs/j/tasks?api-version=2024-07-01.20.0&$skiptoken="+from, nil)
				r = r.WithContext(batchapi.WithPrincipal(b.Context(), batchapi.Principal{Name: "ops", Role: auth.Admin}))
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				m, err := io.Copy(io.Discard, w.Body)
				if w.Code != 200 || err != nil {
					b.Fatal(w.Code, err)
				}
				bytes = int(m)
			}
			b.ReportMetric(float64(bytes), "bytes/page")
		})
	}
}
