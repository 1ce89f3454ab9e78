package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory that can't be used is told by the flag that gave it, and by one
// message alone.
func TestBadTmpdir(t *testing.T) {
	b := local(t)
	bad := filepath.Join(b.base, "no", "such")
	_, errs := b.want(125, "run", "--tmpdir", bad, "--", "true")
	if !strings.Contains(errs, "--tmpdir") || !strings.Contains(errs, bad) {
		t.Errorf("the flag and the directory are not named: %s", errs)
	}
	for _, word := range []string{"GANGWAY_TMPDIR", "exit status", "remote command", "gangway: gangway", "reached: gangway"} {
		if strings.Contains(errs, word) {
			t.Errorf("%q is in the message: %s", word, errs)
		}
	}
}

func TestHostfileOfFirstHosts(t *testing.T) {
	gangwayBinary(t)
	file := filepath.Join(buildDir, "first-hosts")
	// The third host does not exist: it is not needed.
	if err := os.WriteFile(file, []byte("n1 slots=2\nn2 slots=1\nnosuchhost slots=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := hosts(t, 2)
	out, _ := b.want(0, "run", "--hostfile", file, "-N", "2", "--oversubscribe", "--mpi", "none", "-D", "/", "--", "sh", "-c", "hostname")
	if got := strings.Count(out, "n1\n"); got != 2 || strings.Count(out, "n2\n") != 1 {
		t.Errorf("got %q, want two ranks on n1 and one on n2", out)
	}
}

// One line of several times what is held back keeps its one label.
func TestLabelOfALongLine(t *testing.T) {
	b := local(t)
	const n = 300_000
	out, _ := b.want(0, "run", "--label", "--mpi", "none", "--", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo")
	if want := "[0] " + strings.Repeat("x", n) + "\n"; out != want {
		t.Errorf("got %d bytes with %d labels, want %d with one", len(out), strings.Count(out, "[0] "), len(want))
	}
}
