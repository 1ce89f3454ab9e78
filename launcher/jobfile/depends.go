package jobfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/topology/yamltree"
)

// orderKeys are the keys of a task that are about other tasks and other tries.
func orderKeys() []taskKey {
	return []taskKey{
		{name: "depends-on", set: setDependsOn},
		{name: "merge", set: setMerge},
		{name: "exit", set: setExit},
		{name: "priority", set: integer(func(s *job.TaskSpec) *int { return &s.Priority })},
		{name: "backoff", set: setBackoff},
		{name: "retry-elsewhere", set: boolean(func(s *job.TaskSpec) *bool { return &s.RetryElsewhere })},
		{name: "signal", set: setSignal},
	}
}

// ofOneTask reports whether a key makes no sense as a default of all tasks.
func ofOneTask(key string) bool { return key == "depends-on" || key == "merge" }

// setDependsOn reads a task or a list of them.
func setDependsOn(d *decoder, t *task, n *yamltree.Node) error {
	list := []*yamltree.Node{n}
	if n.Kind == yamltree.Sequence {
		list = n.Items
	}
	for _, item := range list {
		s, err := d.text(item)
		if err != nil {
			return valueError{what: "a task is not a single value", hint: "write a list of tasks such as [prepare, A, B[1-10]], in quotes if they have brackets", at: item.At}
		}
		dep, err := job.ParseDependency(s)
		if err != nil {
			what, hint, _ := strings.Cut(err.Error(), ": ")
			return valueError{what: what, hint: hint, at: item.At}
		}
		t.places[fmt.Sprintf("depends-on[%d]", len(t.spec.DependsOn))] = item.At
		t.spec.DependsOn = append(t.spec.DependsOn, dep)
	}
	return nil
}

func setMerge(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	if t.merge, err = parseBool(s); err != nil {
		return valueError{what: err.Error(), hint: "write true or false"}
	}
	return nil
}

// afterAll makes a merge task depend on the tasks before it.
func (d *decoder) afterAll(t *task, before []task) {
	if !t.merge {
		return
	}
	at := t.places["merge"]
	if len(before) == 0 {
		d.bad(at, "put it behind the tasks whose results it is to merge", "merge: there is no task before this one")
		t.faults++
		return
	}
	if _, own := t.places["depends-on"]; !own {
		t.places["depends-on"] = at
	}
	for i := range before {
		d.spend(32)
		if id := before[i].spec.ID; id != "" {
			t.places[fmt.Sprintf("depends-on[%d]", len(t.spec.DependsOn))] = at
			t.spec.DependsOn = append(t.spec.DependsOn, job.Dependency{Task: id})
		}
	}
}

const exitHint = "write exit codes, ranges such as 10-20, not-run, upload-failed or default, each with what follows: {job: terminate, dependants: satisfy}"

// setExit reads exit conditions: by code, range or word what follows.
func setExit(d *decoder, t *task, n *yamltree.Node) error {
	if n.Kind != yamltree.Mapping || len(n.Pairs) == 0 {
		return valueError{what: "must say what follows from which exit code", hint: exitHint}
	}
	e := &job.ExitConditions{}
	for _, p := range n.Pairs {
		a, err := d.exitAction(p)
		if err != nil {
			return err
		}
		d.spend(64)
		switch p.Key {
		case "not-run":
			e.PreProcessing = &a
		case "upload-failed":
			e.FileUpload = &a
		case "default":
			e.Default = &a
		default:
			first, last, several := strings.Cut(p.Key, "-")
			if !several {
				last = first
			}
			lo, err := parseInt(first)
			hi, err2 := parseInt(last)
			if err != nil || err2 != nil || lo < 0 || hi < lo {
				return valueError{what: quote(p.Key) + " are not exit codes", hint: exitHint, at: p.At}
			}
			e.Rules = append(e.Rules, job.ExitRule{Lo: lo, Hi: hi, ExitAction: a})
		}
	}
	t.spec.Exit = e
	return nil
}

// exitAction reads what follows: one word, or job and dependants.
func (d *decoder) exitAction(p yamltree.Pair) (a job.ExitAction, err error) {
	word := func(key string, n *yamltree.Node) error {
		s, err := d.text(n)
		if err != nil {
			return err
		}
		isJob := s == string(job.JobNone) || s == string(job.JobDisable) || s == string(job.JobTerminate)
		isDep := s == string(job.DependSatisfy) || s == string(job.DependBlock)
		switch {
		case isJob && (key == "job" || key == "" && s != string(job.JobNone)):
			a.Job = job.JobAction(s)
		case isDep && (key == "dependants" || key == ""):
			a.Depend = job.DependAction(s)
		case key == "job":
			return valueError{what: quote(s) + " is not what can become of a job", hint: "write none, disable or terminate", at: n.At}
		case key == "dependants":
			return valueError{what: quote(s) + " is not what can become of tasks that depend on it", hint: "write satisfy or block", at: n.At}
		default:
			return valueError{what: quote(s) + " is not what can follow", hint: "write satisfy, block, disable or terminate, or {job: …, dependants: …}", at: n.At}
		}
		return nil
	}
	if p.Value.Kind != yamltree.Mapping {
		return a, word("", p.Value)
	}
	for _, q := range p.Value.Pairs {
		if q.Key != "job" && q.Key != "dependants" {
			return a, valueError{what: quote(q.Key) + " is not a part of what follows", hint: "write job: and dependants:", at: q.At}
		}
		if err := word(q.Key, q.Value); err != nil {
			return a, err
		}
	}
	return a, nil
}

// setBackoff reads the first pause and, behind two dots, the longest.
func setBackoff(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err == nil {
		t.spec.Backoff, t.spec.BackoffMax, err = ParseBackoff(s)
	}
	if err != nil {
		return valueError{what: err.Error(), hint: "write the first pause, such as 30s, or the first and the longest: 30s..10m"}
	}
	return nil
}

// ParseBackoff reads FIRST or FIRST..LONGEST: the pause before the first retry, and
// what it may double up to (0: the default).
func ParseBackoff(s string) (first, longest time.Duration, err error) {
	low, high, limited := strings.Cut(s, "..")
	if first, err = parseTime(low); err != nil || !limited {
		return first, 0, err
	}
	if longest, err = parseTime(high); err == nil && longest < first {
		err = fmt.Errorf("the longest pause, %s, is less than the first", quote(high))
	}
	return first, longest, err
}

func setSignal(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err == nil {
		t.spec.SoftSignal, t.spec.SoftBefore, err = ParseSignal(s)
	}
	if err != nil {
		return valueError{what: err.Error(), hint: "write a signal, @ and how long before the time limit it comes: USR1@60s"}
	}
	return nil
}

// signals are Linux's, on all its architectures but MIPS, as signal(7) names them.
func signals() map[string]int {
	return map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14,
		"TERM": 15, "CHLD": 17, "CONT": 18, "TSTP": 20, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30}
}

// ParseSignal reads SIGNAL@TIME: a signal by its name, with or without SIG, or its
// number on Linux, and how long before the time limit it is sent.
func ParseSignal(s string) (number int, before time.Duration, err error) {
	name, when, ok := strings.Cut(s, "@")
	if !ok {
		return 0, 0, fmt.Errorf("%s does not say when the signal comes", quote(s))
	}
	number, known := signals()[strings.TrimPrefix(strings.ToUpper(name), "SIG")]
	if !known {
		if number, err = parseInt(name); err != nil || number < 1 || number > job.MaxSignal {
			return 0, 0, fmt.Errorf("%s is not a signal", quote(name))
		}
	}
	if before, err = parseTime(when); err == nil && before == 0 {
		err = errors.New("a signal at the limit itself comes too late")
	}
	return number, before, err
}

// order writes the keys that are about other tasks and other tries.
func (w *writer) order(t job.TaskSpec) {
	w.number("priority", t.Priority)
	if len(t.DependsOn) > 0 {
		w.line("    depends-on:")
		for _, d := range t.DependsOn {
			w.line("      - %s", text(d.String()))
		}
	}
	if e := t.Exit.Plain(); e != nil {
		w.line("    exit:")
		for _, r := range e.Rules {
			key := strconv.Itoa(r.Lo)
			if r.Hi != r.Lo {
				key += "-" + strconv.Itoa(r.Hi)
			}
			w.follows(quoted(key), &r.ExitAction)
		}
		w.follows("not-run", e.PreProcessing)
		w.follows("upload-failed", e.FileUpload)
		w.follows("default", e.Default)
	}
	if t.Backoff != 0 {
		v := t.Backoff.String()
		if t.BackoffMax != 0 {
			v += ".." + t.BackoffMax.String()
		}
		w.key("backoff", v)
	}
	w.flag("retry-elsewhere", t.RetryElsewhere)
	if t.SoftSignal != 0 {
		w.key("signal", quoted(fmt.Sprintf("%s@%s", signalName(t.SoftSignal), t.SoftBefore)))
	}
}

func signalName(number int) string {
	for name, n := range signals() {
		if n == number {
			return name
		}
	}
	return strconv.Itoa(number)
}

// follows writes what follows from an exit code.
func (w *writer) follows(key string, a *job.ExitAction) {
	if a == nil {
		return
	}
	var parts []string
	if a.Job != "" {
		parts = append(parts, "job: "+string(a.Job))
	}
	if a.Depend != "" {
		parts = append(parts, "dependants: "+string(a.Depend))
	}
	w.line("      %s: {%s}", key, strings.Join(parts, ", "))
}
