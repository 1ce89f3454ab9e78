package pack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Discard(root, "none", "a-1"); err != nil {
		t.Errorf("of a directory that is not there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		scratchName("a-1", 0, 3, 0), scratchName("a-1", 12, 44, 1), "a-1" + liveEnd, // its own
		"a-1" + indexEnd, "a-1" + dataEnd, ownName("a-1", 17, 2, 0), // its pack
		scratchName("a-12", 0, 3, 0), "a-12" + liveEnd, scratchName("a", 0, 3, 0), // others'
		"a-1.0-3.txt", "a-1.0-.out", "a-1.-3.out", "a-1.x-3.out", "a-1.0-3", "a-1", // anybody's
	} {
		if err := os.WriteFile(filepath.Join(dir, Dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // an agent may die in the middle, and begin again
		if err := Discard(root, Dir, "a-1"); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	files, _ := os.ReadDir(filepath.Join(dir, Dir))
	for _, f := range files {
		left = append(left, f.Name())
	}
	want := []string{"a-1", "a-1.-3.out", "a-1.0-.out", "a-1.0-3", "a-1.0-3.txt", "a-1.17.2.out", "a-1.data", "a-1.index", "a-1.x-3.out", "a-12.0-3.out", "a-12.live", "a.0-3.out"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
}
