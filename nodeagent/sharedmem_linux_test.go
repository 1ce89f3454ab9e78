package nodeagent

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStaleSharedMemory: what is left of shims that nobody knows is found, and
// nothing else.
func TestStaleSharedMemory(t *testing.T) {
	root := t.TempDir()
	alive := exec.Command("sleep", "60")
	alive.Env = append(os.Environ(), entry{ID: "alive-1"}.marker())
	if err := alive.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alive.Process.Kill(); _ = alive.Wait() }()
	for _, d := range []string{"gangway-empty-1", "gangway-full-1", "gangway-alive-1", "gangway-known-1", "gangway-", "other-1"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"gangway-full-1/segment", "gangway-file-1"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(root, "gangway-link-1")); err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(root, "gangway-empty-1"), filepath.Join(root, "gangway-full-1")}
	known := map[string]bool{"known-1": true}
	if d := cmp.Diff(want, staleSharedMemory(root, known, time.Now().Add(2*sharedMemoryRest))); d != "" {
		t.Error(d)
	}
	if got := staleSharedMemory(root, known, time.Now()); got != nil {
		t.Errorf("%q may just be begun", got)
	}
}
