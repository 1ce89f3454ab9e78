package job

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/nodeagent/wire/sweep"
)

// MaxElementwise is the most elements, of all arrays that are submitted together,
// that are each placed by themselves.
const MaxElementwise = 100_000

// Bounds of a command, in bytes with the zeros behind each argument: Linux's for
// one argument or variable, and for all together a quarter of the 8 MiB stack
// that a process begins with.
const (
	maxArgument = 128 << 10
	maxCommand  = 2 << 20
)

// maxTitle is the most bytes of a title.
const maxTitle = 1 << 10

// Elementwise reports whether each element of the task is placed by itself, as an
// attempt of its own: those of a gang, and those whose needs differ. A sweep of
// one element is its own array. The task need not be resolved.
func (t *TaskSpec) Elementwise() bool {
	n := t.Elements().Len()
	if n == 1 {
		return t.Sweep != nil
	}
	return n > 1 && (t.Kind == Gang || len(t.Vary) > 0)
}

// Elements is the task's range: that of its sweep, unless it says another.
func (t *TaskSpec) Elements() Range {
	switch {
	case t.Range != Range{}:
		return t.Range
	case t.Sweep != nil:
		return Range{1, 1 + min(t.Sweep.Len(), 1<<62)}
	}
	return Range{0, 1}
}

// varied are the fields that can differ between elements, by their names in job
// files.
func varied(key string) func(*TaskSpec, string) error {
	switch key {
	case "nodes":
		return wholeNumber(func(t *TaskSpec) *int { return &t.Nodes }, 1)
	case "ranks":
		return wholeNumber(func(t *TaskSpec) *int { return &t.Ranks }, 1)
	case "ranks-per-node":
		return wholeNumber(func(t *TaskSpec) *int { return &t.RanksPerNode }, 1)
	case "cores-per-rank":
		return wholeNumber(func(t *TaskSpec) *int { return &t.CoresPerRank }, 1)
	case "gpus-per-rank":
		return wholeNumber(func(t *TaskSpec) *int { return &t.GPUsPerRank }, 0)
	case "threads":
		return wholeNumber(func(t *TaskSpec) *int { return &t.Threads }, 1)
	case "smt":
		return wholeNumber(func(t *TaskSpec) *int { return &t.SMT }, 1)
	case "mem-per-rank":
		return func(t *TaskSpec, s string) (err error) {
			t.MemPerRank, err = ParseBytes(s)
			return err
		}
	case "time":
		return lengthOfTime(func(t *TaskSpec) *time.Duration { return &t.TimeLimit })
	case "kill-grace":
		return lengthOfTime(func(t *TaskSpec) *time.Duration { return &t.KillGrace })
	case "launch-deadline":
		return lengthOfTime(func(t *TaskSpec) *time.Duration { return &t.LaunchDeadline })
	case "mpi":
		return oneWord(func(t *TaskSpec) *string { return &t.MPI })
	case "via":
		return oneWord(func(t *TaskSpec) *string { return &t.Via })
	case "bind":
		return oneWord(func(t *TaskSpec) *string { return &t.Bind })
	case "optimize":
		return oneWord(func(t *TaskSpec) *string { return &t.Optimize })
	case "network":
		return oneWord(func(t *TaskSpec) *string { return &t.Network })
	case "distribution":
		return oneWord(func(t *TaskSpec) *Distribution { return &t.Distribution })
	}
	return nil
}

// CanVary reports whether the field with that name in job files can differ
// between the elements of a sweep.
func CanVary(key string) bool { return varied(key) != nil }

func wholeNumber(field func(*TaskSpec) *int, least int) func(*TaskSpec, string) error {
	return func(t *TaskSpec, s string) error {
		n, err := ParseInt(s)
		if err == nil && n < least {
			err = fmt.Errorf("%d is out of range: allowed is %d or more", n, least)
		}
		*field(t) = n
		return err
	}
}

func lengthOfTime(field func(*TaskSpec) *time.Duration) func(*TaskSpec, string) error {
	return func(t *TaskSpec, s string) (err error) {
		*field(t), err = ParseTime(s)
		return err
	}
}

func oneWord[T ~string](field func(*TaskSpec) *T) func(*TaskSpec, string) error {
	return func(t *TaskSpec, s string) error {
		*field(t) = T(s)
		return nil
	}
}

// Expander gives the elements of a task. It is for concurrent use.
type Expander struct {
	task  TaskSpec
	texts *sweep.Texts // command, env, workdir, title, vary by key, all of vary together
	keys  []string     // of vary, sorted
	table *sweep.Table // nil: no sweep
}

// Expander reads the task's sweep and the texts that it is filled into; what is
// wrong with them is Problems.
func (t *TaskSpec) Expander() (*Expander, error) {
	e := &Expander{task: *t, keys: slices.Sorted(maps.Keys(t.Vary))}
	e.task.Range = t.Elements()
	texts := slices.Concat(t.Command, t.Env, []string{t.WorkDir, t.Title})
	var together strings.Builder
	for _, k := range e.keys {
		texts = append(texts, t.Vary[k])
		together.WriteString(t.Vary[k] + "\n")
	}
	texts = append(texts, together.String())
	var err error
	if t.Sweep == nil {
		e.texts, err = sweep.Compile(nil, e.task.Range.Lo, texts)
	} else if e.table, err = t.Sweep.Table(); err == nil {
		e.texts, err = e.table.Compile(e.task.Range.Lo, texts)
	}
	var f *sweep.Fault
	if errors.As(err, &f) {
		text := f.What
		if f.Place != "" {
			text += " (" + f.Place + ")"
		}
		if f.Hint != "" {
			text += ": " + f.Hint
		}
		return nil, Problems{{Field: e.field(f.Text), Text: text}}
	}
	return e, err
}

// field is the name of the field that a text is of, or a part of.
func (e *Expander) field(text int) string {
	t := &e.task
	n := text - len(t.Command) - len(t.Env)
	switch {
	case text < 0:
		return "sweep"
	case text < len(t.Command):
		return "command"
	case n < 0:
		return "env"
	case n == 0:
		return "workdir"
	case n == 1 || len(e.keys) == 0:
		return "id"
	}
	return e.keys[min(n-2, len(e.keys)-1)]
}

// Values appends the values of the element with that index, in the order of the
// sweep's names.
func (e *Expander) Values(index uint64, dst []string) []string {
	if e.table == nil {
		return dst
	}
	return e.table.Values(index-e.task.Range.Lo, dst)
}

// At returns the element with that index, with everything filled in: a range of
// one, with the id of an element unless it is the only one. It is not resolved.
// An element of an array knows its index from its environment. The error is
// Problems: a varied field has no legal value there.
func (e *Expander) At(index uint64) (TaskSpec, error) {
	t := e.task
	if index < t.Range.Lo || index >= t.Range.Hi {
		return t, Problems{{Field: "range", Text: fmt.Sprintf("has no element %d: its elements are %s", index, t.Range)}}
	}
	texts := e.texts.Expand(index, 0, nil)
	n := len(t.Command)
	t.Command, texts = texts[:n:n], texts[n:]
	n = len(t.Env)
	env, texts := texts[:n], texts[n:]
	t.Env = make([]string, 0, n+3) // a place more for the number of the attempt
	t.Env = append(t.Env, "GANGWAY_ARRAY_INDEX="+strconv.FormatUint(index, 10), "GANGWAY_ARRAY_SIZE="+strconv.FormatUint(t.Range.Len(), 10))
	t.Env = append(t.Env, env...)
	t.WorkDir, t.Title = texts[0], texts[1]
	for i, k := range e.keys {
		set := varied(k)
		if set == nil {
			return t, Problems{{Field: k, Text: "can't vary between elements"}}
		}
		if err := set(&t, texts[2+i]); err != nil {
			return t, Problems{{Field: k, Text: ofElement(err.Error(), ElementID(t.ID, index))}}
		}
	}
	if t.Range.Len() > 1 {
		t.ID = ElementID(t.ID, index)
	}
	t.Range = Range{index, index + 1}
	t.Sweep, t.Vary = nil, nil
	return t, nil
}

// Shapes yields elements that have among them, of the fields that vary, all values
// that come together.
func (e *Expander) Shapes() iter.Seq[uint64] {
	return e.texts.Distinct(len(e.task.Command) + len(e.task.Env) + 2 + len(e.keys))
}

// At is Expander's At, for one element.
func (t *TaskSpec) At(index uint64) (TaskSpec, error) {
	e, err := t.Expander()
	if err != nil {
		return *t, err
	}
	return e.At(index)
}

// whole checks a task with its sweep.
func (c *checker) whole(t TaskSpec) {
	if t.Sweep == nil {
		if len(t.Vary) > 0 {
			c.bad(slices.Min(slices.Collect(maps.Keys(t.Vary))), "varies, but there is no sweep: give one")
			return
		}
		if c.elementwise("range", t) {
			c.task(t.Resolve())
		}
		c.size(t.Command, t.Env, nil)
		return
	}
	keep := c.prefix
	e, err := t.Expander()
	var problems Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			c.bad(p.Field, "%s", p.Text)
		}
		return
	case t.Range != Range{} && t.Range != Range{1, 1 + t.Sweep.Len()}:
		c.bad("range", "is %s, but the sweep has elements 1-%d: give one of the two", t.Range, t.Sweep.Len())
		return
	case !c.elementwise("sweep", t):
		return
	}
	longest := e.texts.Longest()
	if n := longest[len(t.Command)+len(t.Env)+1]; n > maxTitle {
		c.bad("id", "comes to %d bytes with its values: at most %d are possible", n, maxTitle)
	}
	c.size(t.Command, t.Env, longest)
	before := len(c.problems)
	first, err := e.At(e.task.Range.Lo)
	if err == nil {
		whole := first
		whole.ID, whole.Range, whole.Env = t.ID, e.task.Range, first.Env[2:]
		c.task(whole.Resolve())
	}
	if len(c.problems) > before {
		return
	}
	if err != nil {
		c.element(err)
		return
	}
	// The other elements differ, as far as it can be illegal, in what varies.
	for index := range e.Shapes() {
		element, err := e.At(index)
		if err == nil {
			err = element.legal(t.ID)
		}
		if err != nil {
			c.element(err)
			break
		}
	}
	c.prefix = keep
}

// elementwise counts the elements that are placed by themselves, of all tasks.
func (c *checker) elementwise(field string, t TaskSpec) bool {
	if !t.Elementwise() {
		return true
	}
	n := t.Elements().Len()
	c.alone += min(n, MaxElementwise+1)
	if c.alone <= MaxElementwise {
		return true
	}
	c.bad(field, "has %d elements that are each placed by themselves, since they are gangs or their needs vary: at most %d are possible, of all tasks together", n, MaxElementwise)
	return false
}

// element tells what is wrong with one element.
func (c *checker) element(err error) {
	var problems Problems
	if errors.As(err, &problems) {
		c.bad(problems[0].Field, "%s", problems[0].Text)
	}
}

// legal checks an element of the task with that id.
func (t TaskSpec) legal(id string) error {
	var c checker
	name := t.ID
	t.ID, t.Range = id, Range{0, 1}
	c.task(t.Resolve())
	for i := range c.problems {
		c.problems[i].Text = ofElement(c.problems[i].Text, name)
	}
	return c.result()
}

// ofElement puts the element that a problem is of in front of what is allowed.
func ofElement(text, name string) string {
	what, hint, ok := strings.Cut(text, ": ")
	what += " (element " + name + ")"
	if ok {
		what += ": " + hint
	}
	return what
}

// size refuses commands that no kernel takes. longest has the lengths of command
// and env with their values; nil: they have none.
func (c *checker) size(command, env []string, longest []int) {
	total := 0
	for i, s := range slices.Concat(command, env) {
		n := len(s)
		if longest != nil {
			n = longest[i]
		}
		n++ // its zero
		total += n
		switch {
		case n <= maxArgument:
		case i < len(command):
			c.bad("command", "argument %d comes to %d bytes: Linux takes %d at most; put it into a file", i, n-1, maxArgument-1)
		default:
			name, _, _ := strings.Cut(s, "=")
			c.bad("env", "%s comes to %d bytes: Linux takes %d at most; put it into a file", name, n-1, maxArgument-1)
		}
	}
	if total > maxCommand {
		c.bad("command", "comes to %d bytes with its environment: Linux takes %d at most; put its arguments into a file", total, maxCommand)
	}
}
