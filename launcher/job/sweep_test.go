package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/wire/sweep"
)

func axis(name string, values ...string) sweep.Axis {
	return sweep.Axis{Columns: []sweep.Column{{Name: name, Values: values}}}
}

func TestAtFillsInTheElement(t *testing.T) {
	task := TaskSpec{
		ID: "pipe", Kind: Gang, Nodes: 2,
		Command: []string{"solve", "-d", "{d}", "{#}"}, Env: []string{"D={d}"}, WorkDir: "/scratch/{d}", Title: "pipe of {d}",
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("d", "0.1", "0.2"), axis("n", "4", "8"), axis("t", "90s", "2h")}},
		Vary:  map[string]string{"ranks-per-node": "{n}", "time": "{t}", "mem-per-rank": "{n}G"},
	}
	got, err := task.At(4)
	if err != nil {
		t.Fatal(err)
	}
	want := TaskSpec{
		ID: "pipe_4", Kind: Gang, Nodes: 2, Range: Range{4, 5}, RanksPerNode: 8, TimeLimit: 2 * time.Hour, MemPerRank: 8 << 30,
		Command: []string{"solve", "-d", "0.1", "4"}, WorkDir: "/scratch/0.1", Title: "pipe of 0.1",
		Env: []string{"GANGWAY_ARRAY_INDEX=4", "GANGWAY_ARRAY_SIZE=8", "D=0.1"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r := task.Resolve(); r.Range != (Range{1, 9}) || !r.Elementwise() || r.Crewed() {
		t.Errorf("range %v, elementwise %v, crewed %v", r.Range, r.Elementwise(), r.Crewed())
	}
	if err := ValidateTasks([]TaskSpec{task}); err != nil {
		t.Error(err)
	}
	if _, err := task.At(9); err == nil {
		t.Error("there is an element 9")
	}
}

func TestWhichArraysAreElementwise(t *testing.T) {
	s := &sweep.Sweep{Axes: []sweep.Axis{{Repeat: 3}}}
	one := &sweep.Sweep{Axes: []sweep.Axis{{Repeat: 1}}}
	for _, c := range []struct {
		task TaskSpec
		want bool
	}{
		{TaskSpec{}, false},
		{TaskSpec{Kind: Gang}, false},
		{TaskSpec{Range: Range{0, 9}}, false},
		{TaskSpec{Kind: Gang, Range: Range{0, 9}}, true},
		{TaskSpec{Sweep: s}, false},
		{TaskSpec{Sweep: s, Kind: Gang}, true},
		{TaskSpec{Sweep: s, Vary: map[string]string{"time": "1h"}}, true},
		{TaskSpec{Sweep: one}, true},
	} {
		if c.task.Elementwise() != c.want {
			t.Errorf("%+v: not %v", c.task, c.want)
		}
		if r := c.task.Resolve(); r.Elementwise() && r.Crewed() || r.Elementwise() != c.want {
			t.Errorf("%+v: differs when it is resolved", c.task)
		}
	}
}

func TestSweepsRefused(t *testing.T) {
	base := func(change func(*TaskSpec)) TaskSpec {
		task := TaskSpec{ID: "A", Command: []string{"x", "{i}"}, Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("i", "1", "2", "0")}}}
		change(&task)
		return task
	}
	big := &sweep.Sweep{Axes: []sweep.Axis{{Repeat: MaxElementwise + 1}}}
	for _, c := range []struct {
		change func(*TaskSpec)
		want   string
	}{
		{func(t *TaskSpec) { t.Command = []string{"x", "{j}"} }, `tasks[0].command: nothing is called {j} ("{j}"): known are i; write {{j}} for the text itself`},
		{func(t *TaskSpec) { t.Env = []string{"X={j}"} }, `tasks[0].env: nothing is called {j}`},
		{func(t *TaskSpec) { t.WorkDir = "/{j}" }, `tasks[0].workdir: nothing is called {j}`},
		{func(t *TaskSpec) { t.Title = "{j}" }, `tasks[0].id: nothing is called {j}`},
		{func(t *TaskSpec) { t.Vary = map[string]string{"cores-per-rank": "{j}"} }, `tasks[0].cores-per-rank: nothing is called {j}`},
		{func(t *TaskSpec) { t.Vary = map[string]string{"cores-per-rank": "{i}"} }, `tasks[0].cores-per-rank: 0 is out of range (element A_3): allowed is 1 or more`},
		{func(t *TaskSpec) { t.Vary = map[string]string{"mem-per-rank": "{i}M", "nodes": "{i}"} }, `tasks[0].nodes: 2 (element A_2): a single task has 1; use kind gang for more`},
		{func(t *TaskSpec) { t.Vary = map[string]string{"retries": "{i}"} }, `tasks[0].retries: can't vary`},
		{func(t *TaskSpec) { t.Sweep, t.Vary = nil, map[string]string{"nodes": "{i}"} }, "there is no sweep"},
		{func(t *TaskSpec) { t.Range = Range{0, 3} }, "tasks[0].range: is 0-2, but the sweep has elements 1-3"},
		{func(t *TaskSpec) { t.Sweep = &sweep.Sweep{} }, "tasks[0].sweep: nothing varies"},
		{func(t *TaskSpec) { t.Sweep, t.Command, t.Kind, t.Ranks = big, []string{"x"}, Gang, 1 }, "at most 100000 are possible"},
		{func(t *TaskSpec) {
			t.Sweep, t.Command, t.Kind, t.Ranks, t.Range = nil, []string{"x"}, Gang, 1, Range{0, MaxElementwise + 1}
		}, "at most 100000"},
		{func(t *TaskSpec) { t.Sweep.Axes[0] = axis("i", strings.Repeat("x", maxArgument)) }, "tasks[0].command: argument 1 comes to 131072 bytes: Linux takes 131071 at most"},
		{func(t *TaskSpec) { t.Sweep, t.Command[1] = nil, strings.Repeat("x", maxArgument) }, "argument 1 comes to 131072 bytes"},
		{func(t *TaskSpec) { t.Sweep, t.Env = nil, []string{"A=" + strings.Repeat("x", maxArgument)} }, "tasks[0].env: A comes to"},
		{func(t *TaskSpec) {
			t.Sweep = nil
			for range 20 {
				t.Command = append(t.Command, strings.Repeat("x", maxArgument-1))
			}
		}, "with its environment: Linux takes 2097152"},
	} {
		err := ValidateTasks([]TaskSpec{base(c.change)})
		var problems Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
	if err := ValidateTasks([]TaskSpec{base(func(*TaskSpec) {})}); err != nil {
		t.Error(err)
	}
}

// A million elements cost the bytes of the sweep, in memory and in the store.
func TestAMillionElementsAreOneRow(t *testing.T) {
	task := TaskSpec{ID: "A", Command: []string{"solve", "{i}"},
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "i", Span: &sweep.Span{From: "1", To: "1000000"}}}}}}}
	if err := Validate(Spec{ID: "J", Tasks: []TaskSpec{task}}); err != nil {
		t.Fatal(err)
	}
	rows := len(Encode(TableTask, "k", TaskRow{UID: "abcd-0", Job: "abcd", Spec: task}).Value) +
		len(Encode(TableJob, "k", JobRow{UID: "abcd", Spec: Spec{ID: "J"}}).Value)
	if rows >= 2<<10 {
		t.Errorf("the rows have %d bytes", rows)
	}
	var back TaskRow
	if err := Encode(TableTask, "k", TaskRow{Spec: task}).Decode(&back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(task, back.Spec); d != "" {
		t.Error(d)
	}
	last, err := back.Spec.At(1_000_000)
	if err != nil || last.ID != "A_1000000" || last.Command[1] != "1000000" {
		t.Errorf("%+v, %v", last, err)
	}
}

func BenchmarkValidateAMillion(b *testing.B) {
	var lines strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&lines, "input-%07d.png\n", i)
	}
	task := TaskSpec{ID: "A", Command: []string{"convert", "{}", "{.}.jpg"},
		Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "f", Lines: lines.String()}}}}}}
	for b.Loop() {
		if err := ValidateTasks([]TaskSpec{task}); err != nil {
			b.Fatal(err)
		}
		if _, err := json.Marshal(task); err != nil {
			b.Fatal(err)
		}
	}
}
