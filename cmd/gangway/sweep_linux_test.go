package main

import (
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// TestSweeps submits what varies: elements whose needs differ, placed one by one,
// and elements that crews run.
func TestSweeps(t *testing.T) {
	s := upLocal(t)
	dir := filepath.Join(s.base, "files")
	if err := os.MkdirAll(filepath.Join(dir, "in"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("in/b c.txt", "")
	write("in/a.txt", "")
	file := write("sweep.yaml", `
job: s
tasks:
  - name: needs-{m}
    sweep: {m: [64M, 128M]}
    mem-per-rank: "{m}"
    env: {OUT: `+dir+`}
    script: 'echo "{m} $GANGWAY_ARRAY_INDEX of $GANGWAY_ARRAY_SIZE, try $GANGWAY_ATTEMPT" >> $OUT/needs.{#}'
  - name: crew
    sweep: {f: {files: in}, x: 0..1/0.5}
    env: {OUT: `+dir+`, F: "{f}"}
    script: 'echo "{/.} {x} ${F##*/} {{x}}" > $OUT/crew.{#}'
`)
	out, _ := s.want(0, "submit", "--dry-run", "--launcher", "unix:"+s.socket, file)
	for _, want := range []string{
		"needs: 2 elements, 2 cores, each placed by itself", `needs_2 "needs-128M" m=128M: `, "crew: 6 elements, 6 cores\n", `x=1.0`,
		"together: 8 elements in 2 tasks, 8 cores if all ran at once\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run lacks %q:\n%s", want, out)
		}
	}
	if out, _ := s.want(0, "job", "list", "--launcher", "unix:"+s.socket); regexp.MustCompile(`(?m)^s\b`).MatchString(out) {
		t.Errorf("the dry run left a job:\n%s", out)
	}
	s.want(0, "submit", "--wait", "--launcher", "unix:"+s.socket, file)
	files, err := filepath.Glob(filepath.Join(dir, "*.[0-9]"))
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(files)
	var got []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, filepath.Base(f)+": "+strings.TrimSpace(string(b)))
	}
	want := []string{
		"crew.1: a 0.0 a.txt {x}", "crew.2: a 0.5 a.txt {x}", "crew.3: a 1.0 a.txt {x}",
		"crew.4: b c 0.0 b c.txt {x}", "crew.5: b c 0.5 b c.txt {x}", "crew.6: b c 1.0 b c.txt {x}",
		"needs.1: 64M 1 of 2, try 1", "needs.2: 128M 2 of 2, try 1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// What can't run is said, and nothing is left of it.
	bad := write("bad.yaml", "job: bad\ntasks:\n  - {name: a, sweep: {m: [1G, 1000T]}, mem-per-rank: \"{m}\", command: [echo, \"{m}\"]}\n")
	out, errs, status := s.run("submit", "--dry-run", "--launcher", "unix:"+s.socket, bad)
	if status != exitUsage || !strings.Contains(out, "refused: tasks[0]: task bad/a_2") {
		t.Errorf("status %d\n%s\n%s", status, out, errs)
	}
}
