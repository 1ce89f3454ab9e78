package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

func axis(name string, values ...string) sweep.Axis {
	return sweep.Axis{Columns: []sweep.Column{{Name: name, Values: values}}}
}

// A sweep of gangs, each with its own nodes and program.
func TestSweepOfGangs(t *testing.T) {
	w := newWorld(t)
	w.fleet(4, 4, 4)
	spec := job.TaskSpec{ID: "pipe", Kind: job.Gang, RanksPerNode: 4, Command: []string{"solve", "{d}"},
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("n", "1", "2", "3"), axis("d", "0.1", "0.2")}},
		Vary:  map[string]string{"nodes": "{n}"}}
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{spec}}})
	task := job.TaskUID("abcd", 0)
	d := w.plan()
	if len(d.Place) != 2 || len(d.Waiting) != 1 || d.Waiting[0].Range != (job.Range{Lo: 3, Hi: 7}) || d.Waiting[0].Reason.Code != job.WaitCores {
		t.Fatalf("%+v", d)
	}
	var seen []string
	w.serve(func(p Part) job.Result {
		if p.NodeIndex == 0 {
			seen = append(seen, fmt.Sprintf("%s on %d: %s, %d ranks", p.Task.ID, p.NodeCount, strings.Join(p.Task.Command, " "), p.Total))
			if i := slices.Index(p.Task.Env, "GANGWAY_ATTEMPT=1"); i != 2 || p.Task.Env[1] != "GANGWAY_ARRAY_SIZE=6" {
				t.Errorf("environment %q", p.Task.Env)
			}
		}
		return good(p)
	})
	want := []string{"pipe_1 on 1: solve 0.1, 4 ranks", "pipe_2 on 1: solve 0.2, 4 ranks", "pipe_3 on 2: solve 0.1, 8 ranks",
		"pipe_4 on 2: solve 0.2, 8 ranks", "pipe_5 on 3: solve 0.1, 12 ranks", "pipe_6 on 3: solve 0.2, 12 ranks"}
	if d := cmp.Diff(want, seen); d != "" {
		t.Error(d)
	}
	if s := w.status(task); s.State != job.TaskCompleted {
		t.Errorf("%+v", s)
	}
}

// An element that fails is tried again, alone, with the same values.
func TestElementsRetry(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	spec := job.TaskSpec{ID: "t", Command: []string{"x", "{c}"}, Retries: 1,
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("c", "1", "2", "3")}}, Vary: map[string]string{"cores-per-rank": "{c}"}}
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{spec}}})
	tried := map[string]int{}
	w.serve(func(p Part) job.Result {
		if n, _ := fmt.Sscan(p.Task.Command[1], new(int)); n != 1 || p.CPUs.Count() != 2*int(p.Range.Lo) {
			t.Errorf("%s has cpus %s for %q", p.Task.ID, p.CPUs, p.Task.Command)
		}
		if tried[p.Task.ID]++; p.Task.ID == "t_2" {
			return job.Result{Range: p.Range, ExitCode: 3}
		}
		return good(p)
	})
	if d := cmp.Diff(map[string]int{"t_1": 1, "t_2": 2, "t_3": 1}, tried); d != "" {
		t.Error(d)
	}
}

func TestElementsThatCanNeverRunAreRefused(t *testing.T) {
	w := newWorld(t)
	w.fleet(4, 4)
	spec := job.TaskSpec{ID: "t", Kind: job.Gang, RanksPerNode: 1, Command: []string{"x"},
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("n", "1", "2", "3")}}, Vary: map[string]string{"nodes": "{n}"}}
	_, err := w.try(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{spec}}})
	var impossible *ImpossibleError
	if !errors.As(err, &impossible) || impossible.Task != "job/t_3" {
		t.Error(err)
	}
}

// The folders of elements belong to their task.
func TestElementsOwnTheirFolders(t *testing.T) {
	w := newWorld(t)
	w.fleet(4)
	gangs := job.TaskSpec{ID: "G", Kind: job.Gang, Ranks: 1, Range: job.Range{Lo: 1, Hi: 4}, Command: []string{"x"}}
	array := job.TaskSpec{ID: "A", Range: job.Range{Lo: 1, Hi: 4}, Command: []string{"x"}}
	w.apply(JobSubmitted{UID: "abcd", Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{gangs, array}}})
	for name, want := range map[string]bool{"G": true, "G_1": true, "G_3": true, "G_4": false, "G_01": false, "g_1": false, "G_": false, "A": true, "A_1": false, "H_1": false} {
		if got := w.c.OwnsTask("abcd", name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// BenchmarkViewOfElements is what an array of the most gangs costs each plan.
func BenchmarkViewOfElements(b *testing.B) {
	w := newWorld(b)
	w.every = 0
	w.fleet(4)
	w.submitQuiet("abcd", job.TaskSpec{ID: "t", Kind: job.Gang, Nodes: 1, Ranks: 4, Command: []string{"x", "{i}"},
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "i", Span: &sweep.Span{From: "1", To: "100000"}}}}}}})
	for b.Loop() {
		if d := w.planOnly(); len(d) != 1 {
			b.Fatalf("%d placed", len(d))
		}
	}
}
