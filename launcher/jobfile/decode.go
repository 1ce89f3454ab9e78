package jobfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gangway/launcher/job"
	"gangway/topology/yamltree"
)

// maxValues bounds what a file's values come to, in bytes, once aliases and
// defaults stand where they are used: a few lines could fill any memory.
const maxValues = 64 << 20

// decoder turns nodes into a specification.
type decoder struct {
	file   string
	open   func(path string) ([]byte, error) // nil: files can't be read
	keys   map[string]taskKey
	faults []yamltree.Fault
	left   int // of maxValues
	reach  reach
	sweeps bool // some task has a sweep
}

// errSpent ends the decoding of a file that expands too far.
var errSpent = errors.New("expands too far")

func (d *decoder) bad(at yamltree.Place, hint, format string, args ...any) {
	d.faults = append(d.faults, yamltree.Fault{At: at, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// spend counts n bytes of values.
func (d *decoder) spend(n int) {
	if d.left -= n; d.left < 0 {
		panic(errSpent)
	}
}

// task is a task, or the defaults of all, while it is read.
type task struct {
	spec   job.TaskSpec
	at     yamltree.Place
	places map[string]yamltree.Place // of the values of its keys
	own    map[string]string         // the keys it has itself, by field
	gang   bool                      // a key says so
	script bool                      // the command is a script
	merge  bool                      // it depends on all tasks before it
	faults int
	size   int // of its values, bytes
}

// job reads the whole file.
func (d *decoder) job(root *yamltree.Node) (spec job.Spec) {
	defer func() {
		if r := recover(); r == errSpent {
			d.bad(root.At, "use an array, or fewer aliases and defaults", "the file's values come to more than %d MiB once aliases and defaults are in place", maxValues>>20)
		} else if r != nil {
			panic(r)
		}
	}()
	places := map[string]yamltree.Place{"": root.At, "id": root.At, "tasks": root.At}
	var defaults, list *yamltree.Node
	failed := map[string]bool{}
	for _, p := range root.Pairs {
		var err error
		switch p.Key {
		case "job":
			spec.ID, err = d.text(p.Value)
			places["id"] = p.Value.At
			failed["id"] = err != nil
		case "priority":
			err = number(&spec.Priority)(d, nil, p.Value)
			places["priority"] = p.Value.At
		case "max-failures":
			spec.MaxFailures = new(int)
			err = number(spec.MaxFailures)(d, nil, p.Value)
			places["max-failures"] = p.Value.At
		case "max-running":
			if err = number(&spec.MaxRunning)(d, nil, p.Value); err == nil && spec.MaxRunning < 1 {
				err = valueError{what: fmt.Sprintf("%d is out of range", spec.MaxRunning), hint: "write a number from 1, or leave it out for no limit"}
			}
			places["max-running"] = p.Value.At
		case "pool":
			spec.Pool, err = d.text(p.Value)
			places["pool"] = p.Value.At
		case "defaults":
			defaults = p.Value
		case "tasks":
			list = p.Value
			places["tasks"] = p.Value.At
		default:
			d.unknownJobKey(p)
		}
		d.failed(p.Value.At, p.Key, err)
	}
	if _, ok := places["id"]; ok && spec.ID == "" && !failed["id"] && !slices.ContainsFunc(root.Pairs, func(p yamltree.Pair) bool { return p.Key == "job" }) {
		d.bad(root.At, "add a line job: NAME", "the job has no name")
		failed["id"] = true
	}
	d.sweeps = hasSweep(defaults, list)
	base := d.defaults(defaults)
	tasks := d.tasks(list, base, root.At)
	for _, t := range tasks {
		spec.Tasks = append(spec.Tasks, t.spec)
		spec.ExitActions = spec.ExitActions || t.spec.Exit.HasJobAction()
	}
	failed["tasks"] = list == nil || list.Kind != yamltree.Sequence || len(list.Items) == 0
	d.validate(spec, tasks, places, failed)
	return spec
}

// defaults reads the keys that hold for all tasks.
func (d *decoder) defaults(n *yamltree.Node) task {
	t := task{places: map[string]yamltree.Place{}, own: map[string]string{}}
	switch {
	case n == nil:
		return t
	case n.Kind != yamltree.Mapping:
		d.bad(n.At, "write keys of tasks below it, such as nodes: 2", "defaults: must be a mapping, but this is %s", n.Kind)
		return t
	}
	for _, p := range n.Pairs {
		if p.Key == "name" || p.Key == "id" {
			d.bad(p.At, "leave it out", "defaults can't name a task")
			continue
		}
		if ofOneTask(p.Key) {
			d.bad(p.At, "put it below the task that waits for others", "%s: is of one task, not of all", p.Key)
			continue
		}
		d.taskKey(&t, p)
	}
	t.faults = 0 // told already, and no task's own
	return t
}

// tasks reads the list of tasks.
func (d *decoder) tasks(n *yamltree.Node, base task, at yamltree.Place) []task {
	const hint = "list the tasks below it, each beginning with - name: NAME"
	switch {
	case n == nil:
		d.bad(at, "add a line tasks: and "+hint, "the job has no tasks")
		return nil
	case n.Kind != yamltree.Sequence:
		d.bad(n.At, hint, "tasks: must be a list, but this is %s", n.Kind)
		return nil
	case len(n.Items) == 0:
		d.bad(n.At, hint, "the job has no tasks")
		return nil
	}
	var out []task
	for _, item := range n.Items {
		t := base
		t.at, t.places, t.own = item.At, maps.Clone(base.places), map[string]string{}
		t.spec.Env, t.spec.Vary = slices.Clone(base.spec.Env), maps.Clone(base.spec.Vary)
		d.spend(base.size + 64)
		if item.Kind != yamltree.Mapping {
			d.bad(item.At, "write - name: NAME, and the task's other keys below name", "a task must be a mapping, but this is %s", item.Kind)
			t.faults++
		}
		for _, p := range item.Pairs {
			d.taskKey(&t, p)
		}
		if t.spec.ID == "" && t.faults == 0 {
			d.bad(t.at, "add a line name: NAME", "the task has no name")
			t.faults++
		}
		d.afterAll(&t, out)
		d.finish(&t)
		out = append(out, t)
	}
	return out
}

// taskKey reads one key of a task.
func (d *decoder) taskKey(t *task, p yamltree.Pair) {
	k, ok := d.keys[p.Key]
	if !ok {
		d.unknownTaskKey(p)
		t.faults++
		return
	}
	before, field := len(d.faults), k.field()
	if first, twice := t.own[field]; twice && !d.titled(t, p) {
		d.bad(p.At, "keep one of the two", "%s: says the same as %s:, which is here too", p.Key, first)
	}
	t.own[field] = p.Key
	left := d.left
	t.places[field] = p.Value.At
	t.gang = t.gang || k.gang
	if !d.vary(t, field, p.Value) {
		d.failed(p.Value.At, p.Key, k.set(d, t, p.Value))
	}
	t.size += left - d.left
	t.faults += len(d.faults) - before
}

// finish fills in what follows from several keys together.
func (d *decoder) finish(t *task) {
	if t.spec.Kind == "" {
		t.spec.Kind = job.Single
		if t.gang {
			t.spec.Kind = job.Gang
		}
	}
	if len(t.spec.Vary) == 0 {
		t.spec.Vary = nil
	}
	if d.title(t); t.spec.Range == (job.Range{}) {
		t.spec.Range = t.spec.Elements()
	}
	if t.script && t.spec.Kind == job.Gang && t.spec.Launch == "" {
		t.spec.Launch = job.LaunchPrimary // a script calls mpirun itself
	}
}

// validate adds what the specification as a whole has against it. Parts that
// could not be read are left out: what follows from them helps no one.
func (d *decoder) validate(spec job.Spec, tasks []task, places map[string]yamltree.Place, failed map[string]bool) {
	var problems job.Problems
	if !errors.As(job.Validate(spec), &problems) {
		return
	}
	for _, p := range problems {
		field, at, known := p.Field, yamltree.Place{}, false
		if rest, ok := strings.CutPrefix(field, "tasks["); ok {
			number, rest, _ := strings.Cut(rest, "].")
			i, err := strconv.Atoi(number)
			if err != nil || i >= len(tasks) || tasks[i].faults > 0 {
				continue
			}
			field = rest
			name, _, _ := strings.Cut(field, "[")
			if at, known = tasks[i].places[field]; !known {
				if at, known = tasks[i].places[name]; !known {
					at = tasks[i].at
				}
			}
			if _, own := tasks[i].own[name]; known && !own { // the place is in the defaults
				field = fmt.Sprintf("task %s: %s", spec.Tasks[i].ID, keyOf(field))
			} else {
				field = keyOf(field)
			}
			p.Text = d.inTasks(p.Text, tasks)
		} else if at, known = places[field]; failed[field] || !known {
			continue
		} else if field == "id" {
			field = "job"
		}
		what, hint, _ := strings.Cut(p.Text, ": ")
		d.bad(at, hint, "%s: %s", field, what)
	}
}

// inTasks replaces tasks[N] by the line of that task.
func (d *decoder) inTasks(text string, tasks []task) string {
	before, rest, ok := strings.Cut(text, "tasks[")
	number, after, closed := strings.Cut(rest, "]")
	i, err := strconv.Atoi(number)
	if !ok || !closed || err != nil || i >= len(tasks) {
		return text
	}
	return fmt.Sprintf("%sthe task in line %d%s", before, tasks[i].at.Line, after)
}

// failed adds a value's error: its text, and what would be right after it.
func (d *decoder) failed(at yamltree.Place, key string, err error) {
	if err == nil {
		return
	}
	var v valueError
	if errors.As(err, &v) {
		if v.at != (yamltree.Place{}) {
			at = v.at
		}
		d.bad(at, v.hint, "%s: %s", key, v.what)
		return
	}
	d.bad(at, "", "%s: %s", key, err)
}

// valueError is what is wrong with a value.
type valueError struct {
	what, hint string
	at         yamltree.Place // zero: where the value is
}

func (e valueError) Error() string { return e.what }

// text returns a scalar's text.
func (d *decoder) text(n *yamltree.Node) (string, error) {
	switch n.Kind {
	case yamltree.Null:
		return "", valueError{what: "there is no value", hint: `give one, or remove the line; "" is the empty text`, at: n.At}
	case yamltree.Scalar:
		d.spend(len(n.Text) + 16)
		return n.Text, nil
	}
	if s, ok := d.bare(n); ok {
		return s, nil
	}
	return "", valueError{what: fmt.Sprintf("must be a single value, but this is %s", n.Kind), at: n.At}
}
