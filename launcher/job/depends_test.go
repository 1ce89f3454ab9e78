package job

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func dependent(id string, on ...string) TaskSpec {
	t := TaskSpec{ID: id, Command: []string{"x"}}
	for _, s := range on {
		d, err := ParseDependency(s)
		if err != nil {
			panic(err)
		}
		t.DependsOn = append(t.DependsOn, d)
	}
	return t
}

func array(t TaskSpec, lo, hi uint64) TaskSpec {
	t.Range = Range{lo, hi}
	return t
}

func TestLink(t *testing.T) {
	old := Existing{
		Find: func(id string) (string, Range, bool) {
			if strings.EqualFold(id, "Old") {
				return "Old", Range{0, 5}, true
			}
			return "", Range{}, false
		},
		All: slices.Values([]string{"Old"}),
	}
	for name, c := range map[string]struct {
		tasks []TaskSpec
		later bool
		want  string // dependencies of the last task, or the problem
	}{
		"by id":                  {[]TaskSpec{dependent("A"), dependent("b", "a")}, false, "A"},
		"twice":                  {[]TaskSpec{dependent("A"), dependent("b", "a", "A", "*")}, false, "A"}, // and of the job: see below
		"forward":                {[]TaskSpec{dependent("c"), dependent("a", "c")}, false, "c"},
		"array":                  {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A")}, false, "A"},
		"elements":               {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A[3]", "A[2-5]")}, false, "A[3] A[2-5]"},
		"all elements":           {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A[1-10]")}, false, "A"},
		"element by id":          {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A_3")}, false, "A[3]"},
		"an id before elements":  {[]TaskSpec{array(dependent("A"), 1, 11), dependent("A_3"), dependent("b", "A_3")}, false, "A_3"},
		"pattern":                {[]TaskSpec{dependent("s1"), dependent("S2"), dependent("s-all", "s*")}, false, "s1 S2"},
		"of the job":             {[]TaskSpec{dependent("b", "old_4")}, false, "Old[4]"},
		"pattern of the job":     {[]TaskSpec{dependent("b", "o*")}, false, "Old"},
		"later":                  {[]TaskSpec{dependent("b", "x", "x_3")}, true, "x x_3"},
		"unknown":                {[]TaskSpec{dependent("b", "x")}, false, `tasks[0].depends-on[0]: "x" is not there: the job has no such task`},
		"unknown elements":       {[]TaskSpec{dependent("b", "x[3]")}, true, `tasks[0].depends-on[0]: "x" is not there: the job has no such task`},
		"no match":               {[]TaskSpec{dependent("b", "x*")}, false, `tasks[0].depends-on[0]: "x*" fits nothing: no other task of the job has such a name`},
		"outside":                {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A[0-3]")}, false, `tasks[1].depends-on[0]: "A[0-3]" is not there: A has elements 1-10`},
		"outside by id":          {[]TaskSpec{array(dependent("A"), 1, 11), dependent("b", "A_11")}, false, `tasks[1].depends-on[0]: "A_11" is not there: A has elements 1-10`},
		"no array":               {[]TaskSpec{dependent("A"), dependent("b", "A[0]")}, false, `tasks[1].depends-on[0]: "A[0]" is not there: A is no array, leave the elements out`},
		"itself":                 {[]TaskSpec{dependent("A", "a")}, false, `tasks[0].depends-on[0]: "a" is the task itself: a task can't depend on itself`},
		"own elements":           {[]TaskSpec{array(dependent("A", "A[1]"), 0, 9)}, false, `tasks[0].depends-on[0]: "A[1]" is the task itself: a task can't depend on itself`},
		"cycle":                  {[]TaskSpec{dependent("z", "b"), dependent("a", "c"), dependent("b", "a"), dependent("c", "b")}, false, "tasks[1].depends-on: a cycle of tasks that wait for each other: a needs c needs b needs a"},
		"cycle through elements": {[]TaskSpec{array(dependent("a", "b"), 0, 4), dependent("b", "a[2]")}, false, "tasks[0].depends-on: a cycle of tasks that wait for each other: a needs b needs a"},
	} {
		t.Run(name, func(t *testing.T) {
			have := old
			if name == "twice" {
				have = Existing{}
			}
			out, err := Link(c.tasks, have, c.later)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				var words []string
				for _, d := range out[len(out)-1].DependsOn {
					words = append(words, d.String())
				}
				got = strings.Join(words, " ")
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestLinkIsBounded: what is submitted together can't make the launcher work for
// hours.
func TestLinkIsBounded(t *testing.T) {
	var tasks []TaskSpec
	for i := range 20_000 {
		tasks = append(tasks, dependent("t-"+strings.Repeat("x", i%40)+Range{uint64(i), uint64(i) + 1}.String(), "none-*"))
	}
	if _, err := Link(tasks, Existing{}, false); err == nil || !strings.Contains(err.Error(), "too many patterns") {
		t.Errorf("patterns: %.200v", err)
	}
	for i := range tasks {
		tasks[i].DependsOn = []Dependency{{Task: "t*"}}
	}
	if _, err := Link(tasks, Existing{}, false); err == nil || !strings.Contains(err.Error(), "more than 4000000") {
		t.Errorf("links: %.200v", err)
	}
}

func FuzzParseDependency(f *testing.F) {
	for _, s := range []string{"A", "A[3]", "A[1-10]", "a*b", "A[", "A[1-]", "A[2-1]", "A[01]", "*[1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDependency(s)
		if err != nil {
			return
		}
		again, err := ParseDependency(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %+v, which reads as %+v, %v", s, d, again, err)
		}
	})
}

func TestExitConditions(t *testing.T) {
	e := &ExitConditions{
		Rules: []ExitRule{{3, 3, ExitAction{Job: JobTerminate}}, {0, 9, ExitAction{Depend: DependBlock}}, {137, 137, ExitAction{Job: JobDisable}},
			{10, 20, ExitAction{Depend: DependSatisfy}}},
		PreProcessing: &ExitAction{Job: JobTerminate, Depend: DependSatisfy},
		Default:       &ExitAction{Depend: DependSatisfy},
	}
	why := func(c Code) *Reason { return &Reason{Code: c} }
	for name, c := range map[string]struct {
		o         Outcome
		want      ExitAction
		satisfied bool
	}{
		"success that blocks":  {Outcome{Success: true}, ExitAction{Depend: DependBlock}, false},
		"the first rule":       {Outcome{ExitCode: 3, Reason: why(FailRank)}, ExitAction{Job: JobTerminate}, false},
		"a range":              {Outcome{ExitCode: 20, Reason: why(FailRank)}, ExitAction{Depend: DependSatisfy}, true},
		"a signal":             {Outcome{Signal: 9, Reason: why(FailRank)}, ExitAction{Job: JobDisable}, false},
		"default":              {Outcome{ExitCode: 21, Reason: why(FailRank)}, ExitAction{Depend: DependSatisfy}, true},
		"it did not run":       {Outcome{ExitCode: 127, Reason: why(FailNotFound)}, ExitAction{Job: JobTerminate, Depend: DependSatisfy}, true},
		"time limit":           {Outcome{ExitCode: 3, Reason: why(FailTimeLimit)}, ExitAction{Depend: DependSatisfy}, true},
		"ended by a person":    {Outcome{ExitCode: 3, Reason: why(FailCancelled)}, ExitAction{}, false},
		"a parent":             {Outcome{ExitCode: 15, Reason: why(FailParent)}, ExitAction{}, false},
		"a signal by number 0": {Outcome{ExitCode: 12, Signal: 9, Reason: why(FailRank)}, ExitAction{Depend: DependSatisfy}, true},
	} {
		if got := e.After(c.o); got != c.want || e.Satisfies(c.o) != c.satisfied {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	var none *ExitConditions
	if !none.Satisfies(Outcome{Success: true}) || none.Satisfies(Outcome{ExitCode: 1}) || none.HasJobAction() || !e.HasJobAction() {
		t.Error("no conditions are not as a success that satisfies")
	}
}

func TestRetryPause(t *testing.T) {
	var got []time.Duration
	s := TaskSpec{Backoff: 3 * time.Second, BackoffMax: 20 * time.Second}
	for n := range uint32(6) {
		got = append(got, s.RetryPause(n)/time.Second)
	}
	got = append(got, s.RetryPause(1<<31)/time.Second, (&TaskSpec{Backoff: time.Second}).RetryPause(1<<31)/time.Second,
		(&TaskSpec{Backoff: 5 * time.Hour}).RetryPause(7)/time.Second, (&TaskSpec{}).RetryPause(7))
	if d := cmp.Diff([]time.Duration{0, 3, 6, 12, 20, 20, 20, 3600, 18000, 0}, got); d != "" {
		t.Error(d)
	}
}
