package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOrderedJob runs a job whose tasks wait for each other, fail, are tried again
// and warned, with real nodes. Each writes its name to a file as it begins.
func TestOrderedJob(t *testing.T) {
	up(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	file := filepath.Join(dir, "flow.yaml")
	text := strings.ReplaceAll(`job: flow
tasks:
  - name: report
    depends-on: [left, right]
    command: [sh, -c, "echo report >> DIR/log"]
  - name: mesh
    command: [sh, -c, "echo mesh >> DIR/log"]
  - name: left
    depends-on: mesh
    retries: 1
    backoff: 1s
    command: [sh, -c, "echo left >> DIR/log; test -e DIR/again || { touch DIR/again; exit 7; }"]
  - name: right
    depends-on: mesh
    exit: {3: satisfy}
    command: [sh, -c, "echo right >> DIR/log; exit 3"]
  - name: bad
    depends-on: "m*"
    command: [sh, -c, "echo bad >> DIR/log; exit 5"]
  - name: never
    depends-on: bad
    command: [sh, -c, "echo never >> DIR/log"]
  - name: warned
    time: 4s
    signal: USR1@3500ms
    command: [sh, -c, "trap 'echo warned >> DIR/log; exit 0' USR1; while :; do sleep 0.1; done"]
`, "DIR", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	want(t, 0, "^flow\n$", "", "submit", file)
	want(t, 1, "^flow: 4 succeeded, 3 failed\n$", "", "job", "wait", "flow", "--timeout", "2m")
	if time.Since(begin) < time.Second {
		t.Error("the retry did not wait")
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	at := map[string]int{}
	for i, l := range lines {
		at[l] = i // the last
	}
	if len(lines) != 7 || at["report"] < at["left"] || at["report"] < at["right"] || strings.Contains(string(b), "never") {
		t.Errorf("they ran as %v", lines)
	}
	want(t, 0, "flow/never: failed: it depends on bad, which exited with 5; reactivate bad to run both", "", "explain", "flow/never")

	if err := os.WriteFile(file, []byte("job: ring\ntasks:\n  - {name: a, command: x, depends-on: b}\n  - {name: b, command: x, depends-on: a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitUsage, "", "flow.yaml:3:39: depends-on: a cycle of tasks that wait for each other.*a needs b needs a", "submit", file)
	want(t, exitFailed, "", "no job \"ring\"", "job", "show", "ring")

	if err := os.WriteFile(file, []byte(`job: many
max-running: 1
max-failures: 1
tasks:
  - {name: a, command: "false"}
  - {name: b, command: "false"}
  - {name: c, command: "sleep 600", depends-on: d}
  - {name: d, command: "sleep 600"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, 0, "^many\n$", "", "submit", file)
	want(t, 1, "^many: 4 failed\n$", "", "job", "wait", "many", "--timeout", "1m")
	want(t, 0, "2 of its tasks have failed, and max-failures is 1", "", "explain", "many/d")
}
