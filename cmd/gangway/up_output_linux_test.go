package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestUpOutputOfGang: a gang's output is that of the ranks on all of its nodes,
// while it runs and afterwards, asked for as the README says.
func TestUpOutputOfGang(t *testing.T) {
	s := upLab(t, 3)
	at := []string{"--launcher", "unix:" + s.socket}
	gate := filepath.Join(s.lab.Dir(), "gate")
	script := `echo "rank $GANGWAY_RANK on $GANGWAY_NODE"; while ! test -e ` + gate + `; do sleep 0.1; done; echo "end $GANGWAY_RANK"; echo "oops $GANGWAY_RANK" >&2`
	submit := append([]string{"submit", "-N", "3", "--ppn", "1", "--mpi", "none", "-D", "/", "--name", "g", "--exact"}, at...)
	s.bed.want(0, append(submit, "--", "sh", "-c", script)...)
	follower := s.bed.start(nil, nil, append([]string{"task", "logs", "-f", "g"}, at...)...)
	waitFor(t, "the first lines of all ranks are there", s.bed.limit/10, func() bool { return strings.Count(follower.out.String(), "rank ") == 3 })
	if strings.Contains(follower.out.String(), "end") {
		t.Errorf("an end before the gate is open: %q", follower.out)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-follower.done

	sorted := func(text string) string {
		l := strings.Split(strings.TrimSpace(text), "\n")
		slices.Sort(l)
		return strings.Join(l, "|")
	}
	const all = "end 0|end 1|end 2|rank 0 on n1|rank 1 on n2|rank 2 on n3"
	if got := sorted(follower.out.String()); got != all {
		t.Errorf("followed: %s", got)
	}
	out, _ := s.bed.want(0, append([]string{"task", "logs", "g"}, at...)...)
	if got := sorted(out); got != all {
		t.Errorf("afterwards: %s", got)
	}
	out, _ = s.bed.want(0, append([]string{"task", "logs", "--stderr", "g"}, at...)...)
	if got := sorted(out); got != "oops 0|oops 1|oops 2" {
		t.Errorf("stderr: %s", got)
	}
}
