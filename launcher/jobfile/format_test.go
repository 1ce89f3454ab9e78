package jobfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

// What Format writes, Parse reads as it was.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := spec().Draw(t, "spec")
		text, err := Format(want)
		if err != nil {
			t.Fatalf("%v\n%+v", err, want)
		}
		got, err := Parse("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%s\n%s", d, text)
		}
		again, err := Format(got)
		if err != nil || string(again) != string(text) {
			t.Fatalf("a second Format differs: %v\n%s\n%s", err, text, again)
		}
	})
}

func spec() *rapid.Generator[job.Spec] {
	id := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)
	return rapid.Custom(func(t *rapid.T) job.Spec {
		s := job.Spec{ID: id.Draw(t, "id"), Priority: rapid.IntRange(-job.MaxPriority, job.MaxPriority).Draw(t, "priority")}
		if rapid.Bool().Draw(t, "pool") {
			s.Pool = id.Draw(t, "pool")
		}
		for _, id := range rapid.SliceOfNDistinct(id, 1, 4, strings.ToLower).Draw(t, "ids") {
			task := taskSpec(t, id)
			for _, before := range s.Tasks {
				if rapid.Bool().Draw(t, "depends") {
					continue
				}
				d := job.Dependency{Task: before.ID}
				if r := before.Range; r.Len() > 1 && rapid.Bool().Draw(t, "some") {
					d.Range.Lo = rapid.Uint64Range(r.Lo, r.Hi-1).Draw(t, "lo")
					d.Range.Hi = rapid.Uint64Range(d.Range.Lo+1, r.Hi).Draw(t, "hi")
				}
				task.DependsOn = append(task.DependsOn, d)
			}
			s.Tasks = append(s.Tasks, task)
			s.ExitActions = s.ExitActions || task.Exit.HasJobAction()
		}
		s.MaxRunning = rapid.IntRange(0, job.MaxArray).Draw(t, "running")
		if rapid.Bool().Draw(t, "limited") {
			most := rapid.IntRange(0, job.MaxArray).Draw(t, "failures")
			s.MaxFailures = &most
		}
		return s
	})
}

func taskSpec(t *rapid.T, id string) job.TaskSpec {
	// Texts of every character, and those that YAML could mistake.
	free := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching("[ -~\n\t]{0,40}"),
		rapid.StringOf(rapid.SampledFrom([]rune("ab:#-?|>&*!%@`\"'\\{}[], \n\t\r~é\u0085\u2028\ufeff\U0001F600"))),
		rapid.SampledFrom([]string{"", "yes", "null", "~", "1e3", "010", "- a", "a: b", "a #b", "|", "#!/bin/sh\n\n  x\n", "a\n\nb\n", " a\n", "a\n\n", "\n", "---", "..."}),
	)
	s := job.TaskSpec{ID: id, Kind: job.Single, Range: job.Range{Hi: 1}}
	pick := func(label string, values ...string) string {
		return rapid.SampledFrom(append(values, "")).Draw(t, label)
	}
	number := func(label string, most int) int { return rapid.IntRange(0, most).Draw(t, label) }
	noNUL := func(label string) string {
		return strings.ReplaceAll(strings.ToValidUTF8(free.Draw(t, label), "?"), "\x00", "0")
	}
	switch rapid.IntRange(0, 3).Draw(t, "shape") {
	case 0:
		lo := rapid.Uint64Range(0, 1).Draw(t, "lo")
		s.Range = job.Range{Lo: lo, Hi: lo + rapid.Uint64Range(1, job.MaxArray).Draw(t, "elements")}
		s.Ranks, s.Nodes = number("ranks", 1), number("nodes", 1)
	case 1:
		s.Kind, s.Nodes, s.RanksPerNode = job.Gang, 1+number("nodes", 1000), 1+number("ppn", 500)
	case 2:
		s.Kind, s.Ranks = job.Gang, 1+number("ranks", job.MaxRanks-1)
	case 3:
		s.Kind = job.Gang
		for _, n := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zA-Z0-9_.:-]{1,20}`), 1, 4, rapid.ID).Draw(t, "nodes") {
			s.PerNode = append(s.PerNode, job.NodeRanks{Node: n, Ranks: 1 + number("ranks", 99)})
		}
	}
	s.CoresPerRank, s.GPUsPerRank = number("cores", 1<<16), number("gpus", 1<<10)
	s.MemPerRank = rapid.OneOf(rapid.Uint64Range(0, 1<<50), rapid.Map(rapid.Uint64Range(0, 1000), func(n uint64) uint64 { return n << 30 })).Draw(t, "memory")
	s.Oversubscribe, s.Bcast = rapid.Bool().Draw(t, "oversubscribe"), rapid.Bool().Draw(t, "bcast")
	s.MPI, s.Launch = pick("mpi", "auto", "none", "openmpi"), job.Launch(pick("launch", "ranks", "primary"))
	s.Via, s.Bind, s.Network = pick("via", "auto", "pmi"), pick("bind", "core", "none"), pick("network", "ib0", "10.0.0.0/8")
	s.Preflight = pick("preflight", "off", "fast", "full")
	if s.Launch != job.LaunchPrimary {
		if s.Kind == job.Gang {
			s.Distribution = job.Distribution(pick("distribution", "block", "cyclic"))
		}
		s.Threads = number("threads", 1<<16)
		if s.Bind != "none" {
			s.SMT = number("smt", 1<<10)
		}
		if s.Bind == "" {
			s.Optimize, s.NoGreedy = pick("optimize", "gpu", "cpu"), rapid.Bool().Draw(t, "no greedy")
		}
	}
	for _, d := range []*time.Duration{&s.TimeLimit, &s.KillGrace, &s.LaunchDeadline} {
		*d = time.Duration(rapid.Int64Range(0, int64(10*365*24*time.Hour)).Draw(t, "time"))
	}
	s.Command = append([]string{"x" + noNUL("program")}, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return strings.ReplaceAll(strings.ToValidUTF8(free.Draw(t, "argument"), "?"), "\x00", "0")
	}), 0, 4).Draw(t, "arguments")...)
	s.WorkDir = pick("workdir", "/a b/c: d", "~", "~/x")
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_]{0,8}`), 0, 3, rapid.ID).Draw(t, "names") {
		s.Env = append(s.Env, name+"="+noNUL("value"))
	}
	if script := noNUL("script"); script != "" && rapid.Bool().Draw(t, "setup") {
		s.Setup = &job.Setup{Name: noNUL("name"), Script: []byte(script)}
	}
	if s.Range.Len() > 1 && rapid.Bool().Draw(t, "sweep") {
		value := rapid.Custom(func(t *rapid.T) string { return noNUL("value") })
		values := func(label string) []string { return rapid.SliceOfN(value, 2, 2).Draw(t, label) }
		s.Sweep = &sweep.Sweep{
			Axes: []sweep.Axis{
				{Columns: []sweep.Column{{Name: "sweep_a", Values: values("a")}, {Name: "b-1", Lines: "1\n2"}}},
				{Repeat: 1 + uint64(number("repeat", 9))},
				{Columns: []sweep.Column{{Name: "c", Random: &sweep.Random{Draw: sweep.Choice, Values: values("choice"), Count: 3}}}},
			},
			Each: []sweep.Column{{Name: "d", Random: &sweep.Random{Draw: sweep.Uniform, High: 0.1, Seed: uint64(number("seed", 9))}}},
		}
		s.Range, s.Setup = job.Range{Lo: 1, Hi: 1 + s.Sweep.Len()}, nil
		s.Command, s.Env, s.WorkDir = []string{"x", "{b-1}", "{1/.}{{#}}"}, []string{"A={d}"}, "/{c}"
		if s.MPI != "none" && rapid.Bool().Draw(t, "vary") {
			s.Vary, s.CoresPerRank, s.Title = map[string]string{"cores-per-rank": "{b-1}"}, 0, "x{c}"
		}
	}
	s.Retries = rapid.IntRange(-1, 1000).Draw(t, "retries")
	s.OnNodeLoss = job.NodeLoss(pick("loss", "requeue", "fail", "wait"))
	s.Priority, s.RetryElsewhere = number("priority", job.MaxPriority), rapid.Bool().Draw(t, "elsewhere")
	if rapid.Bool().Draw(t, "backoff") {
		s.Backoff = time.Duration(1 + number("first", 1<<40))
		s.BackoffMax = time.Duration(number("longest", 1)) * (s.Backoff + time.Duration(number("more", 1<<40)))
	}
	if s.TimeLimit > 1 && rapid.Bool().Draw(t, "soft") {
		s.SoftSignal, s.SoftBefore = 1+number("signal", job.MaxSignal-1), time.Duration(rapid.Int64Range(1, int64(s.TimeLimit)-1).Draw(t, "before"))
	}
	action := func(label string) job.ExitAction {
		return job.ExitAction{Job: job.JobAction(pick(label, "none", "disable", "terminate")), Depend: job.DependAction(pick(label, "satisfy", "block"))}
	}
	if rapid.Bool().Draw(t, "exit") {
		s.Exit = &job.ExitConditions{}
		for lo := range number("rules", 3) {
			s.Exit.Rules = append(s.Exit.Rules, job.ExitRule{Lo: lo, Hi: lo + number("codes", 9), ExitAction: action("rule")})
		}
		for _, a := range []**job.ExitAction{&s.Exit.PreProcessing, &s.Exit.FileUpload, &s.Exit.Default} {
			if rapid.Bool().Draw(t, "given") {
				x := action("word")
				*a = &x
			}
		}
		s.Exit = s.Exit.Plain()
	}
	return s
}

// What a job file can't say is an error, never a file that says something else.
func TestFormatRefuses(t *testing.T) {
	for name, change := range map[string]func(*job.Spec){
		"session":     func(s *job.Spec) { s.Session = true },
		"stdin":       func(s *job.Spec) { s.Tasks[0].Stdin = true },
		"environment": func(s *job.Spec) { s.Tasks[0].EnvBase = []string{"A=1"} },
		"not UTF-8":   func(s *job.Spec) { s.Tasks[0].Command = []string{"a\xff"} },
		"relative":    func(s *job.Spec) { s.Tasks[0].WorkDir = "a" },
		"invalid":     func(s *job.Spec) { s.Tasks[0].MPI = "lam" },
		"no tasks":    func(s *job.Spec) { s.Tasks = nil },
	} {
		s := job.Spec{ID: "a", Tasks: []job.TaskSpec{{ID: "b", Command: []string{"x"}}}}
		if _, err := Format(s); err != nil {
			t.Fatal(err)
		}
		change(&s)
		if text, err := Format(s); err == nil {
			t.Errorf("%s: no error\n%s", name, text)
		}
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/jobs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		if _, err := Load(f); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"testdata/errors/*.yaml", "../../examples/jobs/*.yaml"} {
		files, err := filepath.Glob(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("a: &a {b: &c [*a, *c]}\n<<: *a\n"))
	f.Add([]byte("job: \"\\u0085\"\r\rtasks: [? a : b]\n%YAML 1.2\n--- !!map\n..."))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			t.Skip("long texts only take long")
		}
		got, err := Parse("f", text)
		if err != nil {
			checkErrors(t, text, err)
			return
		}
		if err := job.Validate(got); err != nil {
			t.Fatalf("an invalid job: %v", err)
		}
		again, err := Format(got)
		if err != nil {
			t.Fatalf("%v\n%+v", err, got)
		}
		back, err := Parse("f", again)
		if d := cmp.Diff(got, back, cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Fatalf("%v %s\n%s", err, d, again)
		}
	})
}
