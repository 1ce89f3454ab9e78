// Package golden finds the recorded machines and results that tests compare
// with.
package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns a folder of the reference data: below the folder that the
// environment variable GANGWAY_DATA names, else below ../shared/data beside the
// module. It skips the test, saying so, where that is absent.
func Dir(t testing.TB, sub string) string {
	t.Helper()
	root := os.Getenv("GANGWAY_DATA")
	if root == "" {
		at, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
				break
			}
			up := filepath.Dir(at)
			if up == at {
				t.Fatal("no go.mod above the test's directory")
			}
			at = up
		}
		root = filepath.Join(at, "..", "shared", "data")
	}
	dir := filepath.Join(root, sub)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Skipf("no reference data at %s", dir)
	}
	return dir
}

// Files returns the files of a folder of the reference data that match the
// pattern, and skips the test, saying so, when there is none.
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
