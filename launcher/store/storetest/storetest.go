// Package storetest is the behaviour that every engine of launcher/store must
// show.
package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/launcher/store"
)

// Run tests an engine. open returns an empty store each time it is called; a
// durable engine also returns reopen, which opens the same data again after a
// Close, others nil.
func Run(t *testing.T, open func(*testing.T) (s store.Store, reopen func() store.Store)) {
	row := func(table job.Table, key, value string) job.Row {
		return job.Row{Table: table, Key: key, Value: []byte(value)}
	}
	gone := func(table job.Table, key string) job.Row { return job.Row{Table: table, Key: key} }
	commit := func(t *testing.T, s store.Store, rows ...job.Row) {
		t.Helper()
		if err := s.Commit(rows); err != nil {
			t.Fatalf("Commit: %v", err)
		}
	}
	want := func(t *testing.T, s store.Store, rows ...job.Row) {
		t.Helper()
		got, err := s.Load()
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		if len(got) == 0 && len(rows) == 0 {
			return
		}
		if d := cmp.Diff(rows, got); d != "" {
			t.Fatalf("rows (-want +got):\n%s", d)
		}
	}
	start := func(t *testing.T) (store.Store, func() store.Store) {
		s, reopen := open(t)
		t.Cleanup(func() { _ = s.Close() }) // may be closed by the test
		return s, reopen
	}

	t.Run("empty", func(t *testing.T) {
		s, _ := start(t)
		want(t, s)
		commit(t, s)
		want(t, s)
	})
	t.Run("put, replace, delete", func(t *testing.T) {
		s, _ := start(t)
		commit(t, s, row("job", "b", "1"), row("job", "a", "2"), row("block", "a", "3"))
		want(t, s, row("block", "a", "3"), row("job", "a", "2"), row("job", "b", "1"))
		commit(t, s, row("job", "a", "4"), gone("job", "b"), gone("job", "never"))
		want(t, s, row("block", "a", "3"), row("job", "a", "4"))
	})
	t.Run("delete by prefix", func(t *testing.T) {
		s, _ := start(t)
		under := func(table job.Table, prefix string) job.Row { return job.Row{Table: table, Key: prefix, Prefix: true} }
		commit(t, s, row("job", "ab-1", "1"), row("job", "ab-12", "2"), row("job", "ab", "3"), row("job", "ac-1", "4"), row("block", "ab-1", "5"),
			row("job", "ab-%", "6"), row("job", "ab-\xff", "7"), row("job", "AB-1", "8"))
		commit(t, s, under("job", "ab-"), under("job", "never"))
		want(t, s, row("block", "ab-1", "5"), row("job", "AB-1", "8"), row("job", "ab", "3"), row("job", "ac-1", "4"))
		commit(t, s, under("job", "a"), row("job", "ad", "9"))
		want(t, s, row("block", "ab-1", "5"), row("job", "AB-1", "8"), row("job", "ad", "9"))
	})
	t.Run("order within a commit", func(t *testing.T) {
		s, _ := start(t)
		commit(t, s, row("job", "a", "1"), gone("job", "a"), row("job", "a", "2"), row("job", "b", "1"), gone("job", "b"))
		want(t, s, row("job", "a", "2"))
	})
	t.Run("all or none", func(t *testing.T) {
		s, _ := start(t)
		commit(t, s, row("job", "a", "1"))
		for _, bad := range []job.Row{row("", "k", "v"), row("job", "", "v"), {Table: "job", Key: "k", Value: []byte{}}} {
			if err := s.Commit([]job.Row{row("job", "a", "2"), row("job", "c", "3"), bad}); err == nil {
				t.Errorf("a commit with row %+v went through", bad)
			}
			want(t, s, row("job", "a", "1"))
		}
	})
	t.Run("keeps no reference", func(t *testing.T) {
		s, _ := start(t)
		r := row("job", "a", "value")
		commit(t, s, r)
		r.Value[0] = 'X'
		want(t, s, row("job", "a", "value"))
		got, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		got[0].Value[0] = 'X'
		want(t, s, row("job", "a", "value"))
	})
	t.Run("bytes and keys of any kind", func(t *testing.T) {
		s, _ := start(t)
		all := make([]byte, 1<<16)
		for i := range all {
			all[i] = byte(i)
		}
		keys := []string{"ä", "a/b", "a b", "A", "a", "%", "'; --", job.NumberKey(2), job.NumberKey(10)}
		rows := make([]job.Row, len(keys))
		for i, k := range keys {
			rows[i] = job.Row{Table: "job", Key: k, Value: all}
		}
		commit(t, s, rows...)
		slices.SortFunc(rows, job.CompareRows)
		want(t, s, rows...)
	})
	t.Run("random commits", func(t *testing.T) {
		s, _ := start(t)
		rng := rand.New(rand.NewPCG(1, 2))
		model := map[string]job.Row{}
		for range 200 {
			var rows []job.Row
			for range rng.IntN(5) {
				r := gone(job.Table(fmt.Sprint("t", rng.IntN(2))), fmt.Sprint(rng.IntN(10)))
				id := string(r.Table) + "/" + r.Key
				delete(model, id)
				if rng.IntN(3) > 0 {
					r.Value = []byte(fmt.Sprint(rng.Int()))
					model[id] = r
				}
				rows = append(rows, r)
			}
			commit(t, s, rows...)
		}
		rows := make([]job.Row, 0, len(model))
		for _, r := range model {
			rows = append(rows, r)
		}
		slices.SortFunc(rows, job.CompareRows)
		want(t, s, rows...)
	})
	t.Run("load without some tables", func(t *testing.T) {
		s, _ := start(t)
		commit(t, s, row("job", "a", "1"), row("autopsy", "a", "2"), row("node", "a", "3"))
		got, err := s.Load("autopsy", "job", "nothing")
		if d := cmp.Diff([]job.Row{row("node", "a", "3")}, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	})
	t.Run("get", func(t *testing.T) {
		s, _ := start(t)
		commit(t, s, row("job", "a", "1"), row("node", "a", "2"), row("node", "b", "3"))
		got, err := s.Get("node", "a")
		if string(got) != "2" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		got[0] = 'X'
		if got, _ := s.Get("node", "a"); string(got) != "2" {
			t.Errorf("the store keeps a reference: %q", got)
		}
		for _, p := range [][2]string{{"job", "b"}, {"nothing", "a"}, {"", ""}} {
			if v, err := s.Get(job.Table(p[0]), p[1]); v != nil || !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s/%s: %q, %v", p[0], p[1], v, err)
			}
		}
	})
	t.Run("get all", func(t *testing.T) {
		s, _ := start(t)
		var all []job.Row
		var keys []string
		for i := range 1200 {
			all = append(all, row("node", fmt.Sprint(i), fmt.Sprint("v", i)), row("job", fmt.Sprint(i), "other"))
			keys = append(keys, fmt.Sprint(i), fmt.Sprint("no", i))
		}
		commit(t, s, all...)
		got, err := s.GetAll("node", keys)
		if err != nil || len(got) != 1200 || string(got["7"]) != "v7" || string(got["1199"]) != "v1199" {
			t.Errorf("%d rows, %v, %q", len(got), err, got["7"])
		}
		if got, err := s.GetAll("node", nil); err != nil || len(got) != 0 {
			t.Errorf("of no keys: %v, %v", got, err)
		}
	})
	t.Run("scan", func(t *testing.T) {
		s, _ := start(t)
		var all []job.Row
		for i := range 25 {
			all = append(all, row("autopsy", job.NumberKey(uint64(i)), fmt.Sprint(i)))
		}
		commit(t, s, append(slices.Clone(all), row("b", "z", "1"), row("a", job.NumberKey(3), "1"))...)
		for _, limit := range []int{1, 7, 25, 26, store.MaxScan} {
			var got []job.Row
			for from := ""; ; {
				page, err := s.Scan("autopsy", from, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) > limit {
					t.Fatalf("%d rows, limit %d", len(page), limit)
				}
				if got = append(got, page...); len(page) < limit {
					break
				}
				from = page[len(page)-1].Key + "\x00"
			}
			if d := cmp.Diff(all, got); d != "" {
				t.Errorf("by %d (-want +got):\n%s", limit, d)
			}
		}
		got, err := s.Scan("autopsy", job.NumberKey(20), 2)
		if d := cmp.Diff(all[20:22], got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		for _, limit := range []int{-1, 0, store.MaxScan + 1} {
			if _, err := s.Scan("autopsy", "", limit); err == nil {
				t.Errorf("a limit of %d went through", limit)
			}
		}
	})
	t.Run("epochs", func(t *testing.T) {
		s, reopen := start(t)
		begin := func(epoch uint64, ok bool) {
			t.Helper()
			if err := s.Begin(epoch); ok && err != nil || !ok && !errors.Is(err, store.ErrStale) {
				t.Errorf("Begin(%d): %v", epoch, err)
			}
		}
		commit(t, s, row("job", "a", "0"))
		begin(0, false)
		begin(5, true)
		commit(t, s, row("job", "a", "5"))
		begin(5, false)
		begin(4, false)
		commit(t, s, row("job", "a", "still 5"))
		begin(7, true)
		commit(t, s, row("job", "a", "7"))
		if reopen == nil {
			return
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopen()
		defer s.Close()
		if err := s.Commit([]job.Row{row("job", "a", "none")}); !errors.Is(err, store.ErrStale) {
			t.Errorf("a commit without an epoch: %v", err)
		}
		begin(7, false)
		begin(8, true)
		want(t, s, row("job", "a", "7"))
		commit(t, s, row("job", "a", "8"))
		want(t, s, row("job", "a", "8"))
	})
	t.Run("concurrent use", func(t *testing.T) {
		s, _ := start(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for k := range 20 {
					r := row("job", fmt.Sprintf("%d-%d", i, k), "v")
					if err := s.Commit([]job.Row{r}); err != nil {
						t.Errorf("Commit: %v", err)
					}
					if _, err := s.Load(); err != nil {
						t.Errorf("Load: %v", err)
					}
					if v, err := s.Get(r.Table, r.Key); err != nil || string(v) != "v" {
						t.Errorf("Get of what is committed: %q, %v", v, err)
					}
					if rows, err := s.Scan(r.Table, r.Key, 1); err != nil || len(rows) != 1 || rows[0].Key != r.Key {
						t.Errorf("Scan of what is committed: %v, %v", rows, err)
					}
				}
			})
		}
		wg.Wait()
		if got, err := s.Load(); err != nil || len(got) != 160 {
			t.Errorf("%d rows of 160, %v", len(got), err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		s, reopen := start(t)
		commit(t, s, row("job", "a", "1"))
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if _, err := s.Load(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Load after Close: %v", err)
		}
		if err := s.Commit([]job.Row{row("job", "a", "2")}); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Commit after Close: %v", err)
		}
		if err := s.Begin(1); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Begin after Close: %v", err)
		}
		if _, err := s.Get("job", "a"); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Get after Close: %v", err)
		}
		if _, err := s.Scan("job", "a", 1); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Scan after Close: %v", err)
		}
		if err := s.Close(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		if reopen == nil {
			return
		}
		again := reopen()
		defer again.Close()
		want(t, again, row("job", "a", "1"))
	})
}
