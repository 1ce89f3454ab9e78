package proc

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a job's list names goes with its directory, and nothing else does.
func TestRemoveSharedMemory(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "gangway-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mpich_shm_ab12_0", "mpich_vci_ab12_31", "mpich_shm_ab12_", "mpich_shm_ab12_0x", "mpich_shm_ab123_0", "mpich_shm_cd_0", "other", "gangway-x/y"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "mpich_shm_ab12_7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := NoteSegments(dir, []string{"mpich_shm_ab12_", "mpich_vci_ab12_"}); err != nil {
		t.Fatal(err)
	}
	if err := NoteSegments(dir, []string{"oth", "", "mpich_shm_", "../x"}); err != nil {
		t.Fatal(err)
	}
	if err := RemoveSharedMemory(dir); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range list {
		got = append(got, d.Name())
	}
	if d := cmp.Diff([]string{"mpich_shm_ab123_0", "mpich_shm_ab12_", "mpich_shm_ab12_0x", "mpich_shm_ab12_7", "mpich_shm_cd_0", "other"}, got); d != "" {
		t.Error(d)
	}
	if err := RemoveSharedMemory(dir); err != nil {
		t.Errorf("of a directory that is gone: %v", err)
	}
}
