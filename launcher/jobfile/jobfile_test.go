package jobfile

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestParse(t *testing.T) {
	const text = "\uFEFF# a sweep\r\njob: pipe\r\npool: cpu\r\npriority: -5\r\n" + `
defaults:
  ranks-per-node: 2
  env: &e {A: 1, B: "x y"}
  setup: |
    module load openmpi
tasks:
  - name: mesh
    nodes: 4
    command: ./solve 'a b' "c\"d" e\ f --x=1
    mem-per-rank: 1.5GiB
    time: 1-12:30
    kill-grace: 00:00:30
    env: {B: yes, C: 1.10}
    per-node: {n1: 4, n2: 2}
    ranks-per-node: 3
  - id: one
    kind: single
    ranks-per-node: 1
    array: 1-100
    command: [./a, "*", 007, ~, ""]
    setup: ""
    time: none
    retries: -1
    bcast: true
  - name: post
    ranks: 4
    script: |
      #!/bin/bash -e
      mpirun ./x
`
	// per-node and ranks-per-node exclude each other, and ~ is nothing.
	_, err := Parse("f.yaml", []byte(text))
	var e *Errors
	if !errors.As(err, &e) || len(e.Problems) != 3 || !strings.Contains(e.Problems[2].Message, "argument") {
		t.Fatalf("error %v, want three, the last about an argument", err)
	}
	good := strings.NewReplacer("007, ~,", "007, '~',", "    per-node: {n1: 4, n2: 2}\n    ranks-per-node: 3\n", "").Replace(text)
	got, err := Parse("f.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	setup := &job.Setup{Name: "f.yaml:9", Script: []byte("module load openmpi\n")}
	want := job.Spec{ID: "pipe", Pool: "cpu", Priority: -5, Tasks: []job.TaskSpec{
		{ID: "mesh", Kind: job.Gang, Range: job.Range{Hi: 1}, Nodes: 4, RanksPerNode: 2, MemPerRank: 3 << 29, TimeLimit: 36*time.Hour + 30*time.Minute,
			KillGrace: 30 * time.Second, Command: []string{"./solve", "a b", `c"d`, "e f", "--x=1"}, Env: []string{"A=1", "B=yes", "C=1.10"}, Setup: setup},
		{ID: "one", Kind: job.Single, Range: job.Range{Lo: 1, Hi: 101}, RanksPerNode: 1, Command: []string{"./a", "*", "007", "~", ""},
			Env: []string{"A=1", "B=x y"}, Retries: -1, Bcast: true},
		{ID: "post", Kind: job.Gang, Range: job.Range{Hi: 1}, Ranks: 4, RanksPerNode: 2, Launch: job.LaunchPrimary,
			Command: []string{"/bin/bash", "-e", "-c", "#!/bin/bash -e\nmpirun ./x\n"}, Env: []string{"A=1", "B=x y"}, Setup: setup},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Each file of testdata/errors is a job file; beside it is what is said of it.
func TestErrorTexts(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseIn("testdata/errors", filepath.Base(f), text)
			if err == nil {
				t.Fatal("no error")
			}
			checkErrors(t, text, err)
			got, golden := err.Error()+"\n", strings.TrimSuffix(f, ".yaml")+".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Bytes that an editor would spoil, and sizes that no file in a tree has.
func TestRefused(t *testing.T) {
	head := "job: a\ntasks:\n  - name: b\n    command: ./x\n"
	env := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "      V%d: v\n", i)
		}
		return b.String()
	}
	bomb := "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := range 20 {
		bomb += fmt.Sprintf("x%d: &x%d [*x%d, *x%d, *x%d, *x%d]\n", i+1, i+1, i, i, i, i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "describes no job"},
		"comment":       {"# nothing\n", "describes no job"},
		"UTF-16":        {"\xff\xfej\x00", "1:1: the file is UTF-16"},
		"not UTF-8":     {head + "    workdir: /\xff\n", "5:15: byte 0xFF is not UTF-8"},
		"control":       {head + "    workdir: /é\x1b[2J\n", "5:16: character U+001B is not allowed"},
		"NUL":           {head + "    env: {A: \"\\0\"}\n", "env: "},
		"large":         {strings.Repeat("#\n", MaxSize/2+1), "at most 10 MiB"},
		"deep flow":     {"a: " + strings.Repeat("[", 1<<20), "deeper than 32"},
		"deep map":      {"a: " + strings.Repeat("{a: ", 1<<18), "deeper than 32"},
		"deep list":     {strings.Repeat("- ", 1<<20), "deeper than 32"},
		"deep keys":     {strings.Repeat("? ", 1<<20), "deeper than 32"},
		"deep tags":     {"a: " + strings.Repeat("!!str ", 1<<18) + "x", ""},
		"deep anchors":  {"a: " + strings.Repeat("&a ", 1<<18) + "x", ""},
		"many keys":     {head + "    env:\n" + env(3000), "more than 512 keys"},
		"explicit keys": {strings.Repeat("? a\n", 100_000), "more than 512 keys"},
		"anchored keys": {strings.Repeat("&x k: v\n", 50_000), "more than 512 keys"},
		"flow keys":     {"a: {" + strings.Repeat("k, ", 100_000) + "}", "more than 512 keys"},
		"empty items":   {strings.Repeat("-\n", 1<<20), "items of lists are empty"},
		"alias bomb":    {bomb + head, "is not a key of a job"},
		"self alias":    {"job: &a [*a]\n", "names no value above it"},
		"merge of self": {"a: &a\n  <<: *a\n", "names no value above it"},
		"expands": {"defaults:\n  setup: |\n" + strings.Repeat("    "+strings.Repeat("x", 90)+"\n", 8000) +
			"job: a\ntasks:\n" + strings.Repeat("  - {name: b, command: c}\n", 1000), "more than 64 MiB"},
		"argument bomb": {"job: a\ndefaults:\n  command: [" + strings.Repeat("a, ", 100_000) + "b]\ntasks:\n" +
			strings.Repeat("  - {name: b}\n", 10_000), "more than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("f", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %.300v, want %q", err, c.want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			checkErrors(t, []byte(c.text), err)
		})
	}
}

// checkErrors holds an error to its promises.
func checkErrors(t *testing.T, text []byte, err error) {
	t.Helper()
	var e *Errors
	if !errors.As(err, &e) {
		t.Fatalf("error of type %T: %v", err, err)
	}
	if len(e.Problems) == 0 || len(e.Problems) > maxProblems {
		t.Errorf("%d problems", len(e.Problems))
	}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(strings.TrimPrefix(string(text), "\uFEFF"), "\uFFFD")), "\n")
	for i, p := range e.Problems {
		switch {
		case p.Line < 1 || p.Line > len(lines):
			t.Errorf("problem in line %d of %d: %s", p.Line, len(lines), p)
		case p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1:
			t.Errorf("problem in column %d of %q: %s", p.Column, lines[p.Line-1], p)
		case p.Message == "" || visible(p.Message) != p.Message || visible(p.Hint) != p.Hint:
			t.Errorf("message %q, hint %q", p.Message, p.Hint)
		case i > 0 && p.Line < e.Problems[i-1].Line:
			t.Errorf("line %d is told after line %d", p.Line, e.Problems[i-1].Line)
		}
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
}

func TestSetupFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"env.sh":  "module load x\n",
		"job.yml": "job: a\ntasks:\n  - name: b\n    command: ./x\n    setup: {file: env.sh}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(filepath.Join(dir, "job.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&job.Setup{Name: "env.sh", Script: []byte("module load x\n")}, got.Tasks[0].Setup); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(filepath.Join(dir, "job.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("job.yml", text); err == nil || !strings.Contains(err.Error(), "job.yml:5:19: setup: files can't be read here") {
		t.Errorf("error %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v", err)
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]string{
		"1h30m": "1h30m0s", "2d12h": "60h0m0s", "2d": "48h0m0s", "01:30:00": "1h30m0s", "1-12": "36h0m0s", "1-12:30": "36h30m0s",
		"0-00:00:01": "1s", "100:00:00": "100h0m0s", "0": "0s", "none": "0s", "1.5h": "1h30m0s",
		"90": "", "12:30": "", "1-24": "", "1:60:00": "", "-1h": "", "": "", "d": "", "1d-1h": "", "1:2:3:4": "", "99999999d": "", "1-x": "", "1h 30m": "",
	} {
		if got, err := parseTime(in); (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("time %q: %v, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]uint64{
		"16GiB": 16 << 30, "512MB": 512 << 20, "512 M": 512 << 20, "1.5g": 3 << 29, "1048576": 1 << 20, "4096B": 4096, "0": 0, "1P": 1 << 50,
		"4096": 1, "x": 1, "-1G": 1, "1.5": 1, "1GG": 1, "99999999999999P": 1, ".5G": 1, "5.G": 1, "": 1, "1e3M": 1, "0.00001K": 1,
	} {
		if got, err := parseBytes(in); (err != nil) != (want == 1) || err == nil && got != want {
			t.Errorf("size %q: %v, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"4": "4", "-1": "-1", "010": "", "0x10": "", "1_000": "", "+1": "", "1.0": "", "99999999999999999999": "", "": "",
	} {
		if got, err := parseInt(in); (err != nil) != (want == "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("number %q: %v, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string][]string{
		"a  b\tc": {"a", "b", "c"}, `'$x' "\$y" \*`: {"$x", "$y", "*"}, `a''b ''`: {"ab", ""}, `"a\b"`: {`a\b`}, "x~ a#b": {"x~", "a#b"},
		"a > b": nil, "$x": nil, `"$x"`: nil, "a|b": nil, "~/x": nil, "'a": nil, `a\`: nil, "a\nb": nil, "#a": nil, "*.c": nil,
	} {
		if got, err := splitWords(in); (err != nil) != (want == nil) || err == nil && !cmp.Equal(got, want) {
			t.Errorf("command %q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	var names []string
	for _, k := range taskKeys() {
		names = append(names, k.name)
	}
	for in, want := range map[string]string{
		"comand": "command", "rank": "ranks", "ranks_per_node": "ranks-per-node", "Nodes": "nodes", "tmie": "time", "zzz": "", "x": "", "on-node-los": "on-node-loss",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest %q: %q, want %q", in, got, want)
		}
	}
}
