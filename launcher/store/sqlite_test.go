package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"gangway/launcher/job"
	"gangway/launcher/store"
	"gangway/launcher/store/storetest"
)

// newDir names a directory that is not there yet.
func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "data") }

func openDir(t testing.TB, dir string) *store.SQLite {
	t.Helper()
	s, err := store.Open(dir, store.Options{Version: "1.2.3"})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the test may have closed it
	return s
}

func mustCommit(t testing.TB, s store.Store, rows ...job.Row) {
	t.Helper()
	if err := s.Commit(rows); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		dir := newDir(t)
		return openDir(t, dir), func() store.Store { return openDir(t, dir) }
	})
}

func TestFilesArePrivate(t *testing.T) {
	for _, name := range []string{"data", "a b%20?x#y&_pragma=z'ä"} {
		dir := filepath.Join(t.TempDir(), name)
		s := openDir(t, dir)
		mustCommit(t, s, job.Row{Table: "job", Key: "a", Value: []byte("1")})
		if _, err := s.Load(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) < 4 {
			t.Fatalf("%v, %v", files, err)
		}
		for _, f := range files {
			if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
			}
		}
	}
}
