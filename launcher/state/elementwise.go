package state

import (
	"slices"
	"strconv"
	"strings"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// maxShapes is how many different needs of an array's elements are looked at
// when it is submitted; those of the rest are when their turn comes.
const maxShapes = 1000

// expand makes what gives an elementwise task's elements, or takes it away.
func (t *taskState) expand() {
	t.elements = nil
	if !t.row.Spec.Elementwise() {
		return
	}
	if e, err := t.row.Spec.Expander(); err == nil { // it was checked when it was taken
		t.elements = e
	}
}

// specOf is what an attempt at a try runs, resolved: the task or, where each
// element is placed by itself, the element.
func (t *taskState) specOf(try job.Try) *job.TaskSpec {
	if t.elements == nil {
		return t.spec
	}
	e, err := t.elements.At(try.Lo)
	if err != nil {
		return t.spec
	}
	e.Env = slices.Insert(e.Env, 2, "GANGWAY_ATTEMPT="+strconv.FormatUint(uint64(try.Attempt), 10))
	e = e.Resolve()
	return &e
}

// viewElements shows runs of elements that are placed one by one.
func (t *taskState) viewElements(v *sched.View) {
	for _, try := range t.pending {
		at := func(index uint64) *job.TaskSpec {
			try.Lo = index
			return t.specOf(try)
		}
		v.Pending = append(v.Pending, sched.Pending{Task: t.uid, Name: t.name, Spec: t.specOf(try), At: at,
			Priority: t.job.row.Spec.Priority, Since: t.row.Created, Try: try})
	}
}

// runs is what the attempt runs, resolved.
func (a *attempt) runs() *job.TaskSpec {
	if a.spec != nil {
		return a.spec
	}
	return a.task.spec
}

// name is what people call what the attempt runs.
func (a *attempt) name() string {
	if a.task.elements == nil {
		return a.task.name
	}
	return a.task.job.row.Spec.ID + "/" + a.runs().ID
}

// shapes are the elements of a task, or some of them, that have among them what
// each needs; the task itself if they are not placed by themselves.
func shapes(t job.TaskSpec) ([]job.TaskSpec, error) {
	if !t.Elementwise() {
		return []job.TaskSpec{t.Resolve()}, nil
	}
	e, err := t.Expander()
	if err != nil {
		return nil, err
	}
	var out []job.TaskSpec
	for index := range e.Shapes() {
		one, err := e.At(index)
		if err != nil {
			return nil, err
		}
		if out = append(out, one.Resolve()); len(out) == maxShapes {
			break
		}
	}
	return out, nil
}

// ownsElement reports whether a folder's name is that of an element of a task whose
// elements have folders of their own.
func (j *jobState) ownsElement(name string) bool {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return false
	}
	t := j.byID[strings.ToLower(name[:i])]
	index, err := strconv.ParseUint(name[i+1:], 10, 64)
	return err == nil && t != nil && t.elements != nil && t.spec.Range.Contains(job.Range{Lo: index, Hi: index + 1}) &&
		job.ElementID(t.spec.ID, index) == name
}
