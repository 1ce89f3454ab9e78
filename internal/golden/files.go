package golden

import (
	"path/filepath"
	"testing"
)

// Files returns the files of a folder of the recorded data that match the
// pattern; it skips the test where there is none.
func Files(t testing.TB, sub, pattern string) []string {
	t.Helper()
	dir := Dir(t, sub)
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no %s in %s", pattern, dir)
	}
	return files
}
