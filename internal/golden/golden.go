// Package golden finds the recorded data that golden tests compare with.
package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// Variable names the folder of recorded data, in place of ../shared/data
// beside the source tree; it may be relative to the tree's root.
const Variable = "GANGWAY_DATA"

// Dir returns a folder of the recorded data; it skips the test where the
// folder is absent.
func Dir(t testing.TB, sub string) string {
	t.Helper()
	root := os.Getenv(Variable)
	if root == "" {
		root = filepath.Join("..", "shared", "data")
	}
	if !filepath.IsAbs(root) { // go test runs in the package's folder
		root = filepath.Join(sourceRoot(t), root)
	}
	dir := filepath.Join(root, sub)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		t.Skipf("no recorded data in %s: %s can name another folder", dir, Variable)
	}
	return dir
}

// sourceRoot is the nearest folder upwards that has a go.mod.
func sourceRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the package's folder")
		}
		dir = up
	}
}
