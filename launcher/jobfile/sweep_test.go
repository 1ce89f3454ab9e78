package jobfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("data/b.csv", "")
	write("data/a.csv", "")
	write("data/.hidden", "")
	write("data/more/c.csv", "")
	write("params.txt", "1 2\r\n\r\n3 4\n")
	for _, c := range []struct {
		sweep string
		want  sweep.Sweep
	}{
		{"{d: [0.05, 0.10], i: 1..100}", sweep.Sweep{Axes: []sweep.Axis{
			{Columns: []sweep.Column{{Name: "d", Values: []string{"0.05", "0.10"}}}},
			{Columns: []sweep.Column{{Name: "i", Span: &sweep.Span{From: "1", To: "100"}}}}}}},
		{"{x: 0..1/0.1}", sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "x", Span: &sweep.Span{From: "0", To: "1", Step: "0.1"}}}}}}},
		{"{x: {from: 1e-3, to: 10, log: 5}}", sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "x", Span: &sweep.Span{From: "1e-3", To: "10", Count: 5, Log: true}}}}}}},
		{"{zip: {a: [1, 2], b: [x, y]}, repeat: 3}", sweep.Sweep{Axes: []sweep.Axis{
			{Columns: []sweep.Column{{Name: "a", Values: []string{"1", "2"}}, {Name: "b", Values: []string{"x", "y"}}}}, {Repeat: 3}}}},
		{"[{repeat: 2}, {r: {random: {normal: [0, 1.5]}, seed: 7}}, {repeat: 3}]", sweep.Sweep{
			Axes: []sweep.Axis{{Repeat: 2}, {Repeat: 3}},
			Each: []sweep.Column{{Name: "r", Random: &sweep.Random{Draw: sweep.Normal, SD: 1.5, Seed: 7}}}}},
		{"{c: {random: {choice: {a: 3, b: 1}}, count: 4}}", sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "c",
			Random: &sweep.Random{Draw: sweep.Choice, Values: []string{"a", "b"}, Weights: []float64{3, 1}, Count: 4}}}}}}},
		{`{f: {files: "data/*.csv"}}`, sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "f", Lines: dir + "/data/a.csv\n" + dir + "/data/b.csv"}}}}}},
		{`{f: {files: data}}`, sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "f", Lines: dir + "/data/a.csv\n" + dir + "/data/b.csv"}}}}}},
		{"{p: {lines: params.txt}}", sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "p", Lines: "1 2\n3 4"}}}}}},
	} {
		spec, err := ParseIn(dir, "f", []byte("job: x\ntasks:\n  - {name: a, command: c, sweep: "+c.sweep+"}\n"))
		if err != nil {
			t.Errorf("%s: %v", c.sweep, err)
			continue
		}
		task := spec.Tasks[0]
		if d := cmp.Diff(&c.want, task.Sweep); d != "" || task.Range != (job.Range{Lo: 1, Hi: 1 + c.want.Len()}) {
			t.Errorf("%s: %v %s", c.sweep, task.Range, d)
		}
		text, err := Format(spec)
		if err != nil {
			t.Errorf("%s: %v", c.sweep, err)
			continue
		}
		again, err := Parse("f", text)
		if d := cmp.Diff(spec, again); err != nil || d != "" {
			t.Errorf("%s: %v %s\n%s", c.sweep, err, d, text)
		}
	}
}

func TestPlaceholdersInEveryField(t *testing.T) {
	const text = `
job: pipe-sweep
defaults:
  ranks-per-node: "{r}"
  workdir: "{dir}/run"
tasks:
  - name: pipe-{diameter} on {nodes}
    sweep: {diameter: [0.05, 0.1], nodes: [1, 4], r: [2], dir: [/scratch]}
    nodes: {nodes}
    time: "{nodes}h"
    env: {D: {diameter}, LITERAL: "{{diameter}}"}
    command: [solve, {diameter}, "{#}", {}]
  - name: merge
    ranks-per-node: 1
    nodes: 1
    workdir: ~/x
    command: merge
`
	spec, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := job.TaskSpec{
		ID: "pipe-on", Title: "pipe-{diameter} on {nodes}", Kind: job.Gang, Range: job.Range{Lo: 1, Hi: 5}, WorkDir: "{dir}/run",
		Sweep: spec.Tasks[0].Sweep, Vary: map[string]string{"nodes": "{nodes}", "time": "{nodes}h", "ranks-per-node": "{r}"},
		Env: []string{"D={diameter}", "LITERAL={{diameter}}"}, Command: []string{"solve", "{diameter}", "{#}", "{}"},
	}
	if d := cmp.Diff(want, spec.Tasks[0]); d != "" {
		t.Error(d)
	}
	e, err := spec.Tasks[0].At(2)
	if err != nil || e.Nodes != 4 || e.Title != "pipe-0.05 on 4" || strings.Join(e.Command, " ") != "solve 0.05 2 0.05" || e.WorkDir != "/scratch/run" {
		t.Errorf("%+v, %v", e, err)
	}
	if m := spec.Tasks[1]; m.ID != "merge" || len(m.Vary) != 0 || m.RanksPerNode != 1 {
		t.Errorf("%+v", m)
	}
	out, err := Format(spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("f", out)
	if d := cmp.Diff(spec, again); err != nil || d != "" {
		t.Errorf("%v %s\n%s", err, d, out)
	}
}

// Without a sweep braces have no meaning.
func TestBracesWithoutASweep(t *testing.T) {
	spec, err := Parse("f", []byte("job: x\ntasks:\n  - {name: a, command: [find, -exec, \"{}\"]}\n"))
	if err != nil || spec.Tasks[0].Command[2] != "{}" {
		t.Errorf("%+v, %v", spec, err)
	}
}

// A name that is not UTF-8 is refused with its place.
func TestFileNamesAreUTF8(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "caf\xe9.csv"), nil, 0o644); err != nil {
		t.Skip("the file system refuses such names")
	}
	_, err := ParseIn(dir, "f", []byte("job: x\ntasks:\n  - {name: a, command: c, sweep: {f: {files: \"*.csv\"}}}\n"))
	if err == nil || !strings.Contains(err.Error(), `caf\xe9.csv" is not UTF-8`) || !strings.Contains(err.Error(), "f:3:") {
		t.Error(err)
	}
}
