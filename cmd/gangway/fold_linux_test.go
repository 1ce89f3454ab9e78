package main

import (
	"fmt"
	"strings"
	"testing"
)

// Ranks that say the same are shown once; nothing of any rank is lost.
func TestRunFolded(t *testing.T) {
	b := local(t)
	const ranks = 16
	script := `echo starting; for i in 1 2 3; do echo "step $i"; done; echo "own $GANGWAY_RANK"; echo trouble >&2; printf 'no end'`
	out, errs := b.want(0, "run", "-n", fmt.Sprint(ranks), "--oversubscribe", "--mpi", "none", "--fold", "--", "sh", "-c", script)
	got := unfold(t, out)
	for r := range ranks {
		want := fmt.Sprintf("starting\nstep 1\nstep 2\nstep 3\nown %d\nno end\n", r)
		if got[r] != want {
			t.Errorf("rank %d: %q, want %q", r, got[r], want)
		}
	}
	if n := strings.Count(out, "\n"); n > ranks*5 {
		t.Errorf("%d lines of %d: nothing was folded\n%s", n, ranks*6, out)
	}
	if trouble := unfold(t, errs); trouble[ranks-1] != "trouble\n" {
		t.Errorf("stderr: %q", errs)
	}
	if _, errs := b.want(2, "--json", "run", "--fold", "--", "true"); !strings.Contains(errs, "--fold") {
		t.Errorf("--fold with --json: %s", errs)
	}
}
