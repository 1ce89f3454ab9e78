package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/launcher/job"
)

// TestOrderFlags: flags about retries and limits, of a command and of a job file.
func TestOrderFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.yaml")
	if err := os.WriteFile(file, []byte("job: j\ntasks:\n  - {name: a, command: x}\n  - {name: b, command: x, depends-on: a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := func(args ...string) (job.Spec, error) {
		a := &app{}
		c := newSubmitCommand(a)
		f := &submitFlags{}
		c.ResetFlags()
		f.register(c)
		if err := c.ParseFlags(args); err != nil {
			return job.Spec{}, err
		}
		return f.spec(a, c, c.Flags().Args())
	}
	spec, err := parse("--time", "10m", "--retries", "2", "--backoff", "30s..10m", "--retry-elsewhere", "--signal", "USR2@90s", "--max-failures", "0", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	task := spec.Tasks[0]
	if task.Backoff != 30*time.Second || task.BackoffMax != 10*time.Minute || !task.RetryElsewhere || task.SoftSignal != 12 ||
		task.SoftBefore != 90*time.Second || spec.MaxFailures == nil || *spec.MaxFailures != 0 {
		t.Errorf("%+v", spec)
	}
	if spec, err = parse(file, "--max-failures", "3", "--max-running", "4"); err != nil || *spec.MaxFailures != 3 || spec.MaxRunning != 4 || len(spec.Tasks[1].DependsOn) != 1 {
		t.Errorf("%+v, %v", spec, err)
	}
	for want, args := range map[string][]string{
		"--max-failures -1":      {"--max-failures", "-1", "--", "x"},
		"--max-running -2":       {file, "--max-running", "-2"},
		"--backoff: \"5\" has":   {"--backoff", "5", "--", "x"},
		"--signal: \"USR9\" is":  {"--signal", "USR9@5s", "--", "x"},
		"there is no limit that": {"--signal", "USR1@5s", "--", "x"},
		"--backoff is of a":      {file, "--backoff", "5s"},
	} {
		if _, err := parse(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

func TestArrayHint(t *testing.T) {
	for text, want := range map[string]string{"1-10%2": "--max-running", "1,3": "[1, 5, 7]", "1-9:2": "1..9/2", "x": "1-100"} {
		if got := arrayHint(text); !strings.Contains(got, want) {
			t.Errorf("the hint for %s is %q, without %s", text, got, want)
		}
	}
}
