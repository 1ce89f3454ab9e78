package jobfile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
)

// TestOrder reads what tasks say of each other and of their retries.
func TestOrder(t *testing.T) {
	const text = `
job: flow
max-failures: 0
max-running: 40
defaults: {retries: 3, backoff: 30s..10m, retry-elsewhere: true}
tasks:
  - {name: mesh, command: x, priority: 5}
  - name: sweep
    array: 1-100
    command: x
    time: 10m
    signal: sigusr2@1m30s
    depends-on: mesh
    exit:
      3: terminate
      10-20: {job: none, dependants: satisfy}
      not-run: {job: disable}
      default: block
  - {name: look, command: x, depends-on: [mesh, "sweep[1-10]", "sw*"], backoff: 1m}
  - {name: report, command: x, merge: true}
`
	got, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got.MaxFailures == nil || *got.MaxFailures != 0 || got.MaxRunning != 40 || !got.ExitActions {
		t.Errorf("the job: %+v", got)
	}
	task := func(id string, change func(*job.TaskSpec)) job.TaskSpec {
		s := job.TaskSpec{ID: id, Kind: job.Single, Range: job.Range{Hi: 1}, Command: []string{"x"}, Retries: 3,
			Backoff: 30 * time.Second, BackoffMax: 10 * time.Minute, RetryElsewhere: true}
		change(&s)
		return s
	}
	want := []job.TaskSpec{
		task("mesh", func(s *job.TaskSpec) { s.Priority = 5 }),
		task("sweep", func(s *job.TaskSpec) {
			s.Range = job.Range{Lo: 1, Hi: 101}
			s.TimeLimit, s.SoftSignal, s.SoftBefore = 10*time.Minute, 12, 90*time.Second
			s.DependsOn = []job.Dependency{{Task: "mesh"}}
			s.Exit = &job.ExitConditions{
				Rules: []job.ExitRule{{Lo: 3, Hi: 3, ExitAction: job.ExitAction{Job: job.JobTerminate}},
					{Lo: 10, Hi: 20, ExitAction: job.ExitAction{Job: job.JobNone, Depend: job.DependSatisfy}}},
				PreProcessing: &job.ExitAction{Job: job.JobDisable},
				Default:       &job.ExitAction{Depend: job.DependBlock},
			}
		}),
		task("look", func(s *job.TaskSpec) {
			s.DependsOn = []job.Dependency{{Task: "mesh"}, {Task: "sweep", Range: job.Range{Lo: 1, Hi: 11}}, {Task: "sw*"}}
			s.Backoff, s.BackoffMax = time.Minute, 0
		}),
		task("report", func(s *job.TaskSpec) {
			s.DependsOn = []job.Dependency{{Task: "mesh"}, {Task: "sweep"}, {Task: "look"}}
		}),
	}
	if d := cmp.Diff(want, got.Tasks); d != "" {
		t.Error(d)
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, s := range []string{"USR1@60s", "sigterm@1-12:00", "64@1ns", "@", "0@1s", "USR1@", "USR1@0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, d, err := ParseSignal(s)
		if err == nil && (n < 1 || n > job.MaxSignal || d <= 0) {
			t.Errorf("%q is %d, %s", s, n, d)
		}
		if first, longest, err := ParseBackoff(s); err == nil && (first < 0 || longest < 0) {
			t.Errorf("%q is %s, %s", s, first, longest)
		}
	})
}
