package job

import "errors"

// Preview is what a job would be, for its author: submitting it is left undone.
type Preview struct {
	Tasks    []TaskPreview `json:"tasks"`
	Elements uint64        `json:"elements"` // of all tasks
	Cores    uint64        `json:"cores"`    // that all elements want, added up
	Refused  []Refusal     `json:"refused,omitempty"`
}

// Refusal is why the job would not be taken.
type Refusal struct {
	Field  string `json:"field"` // as in "tasks[0].ranks"
	Reason string `json:"reason"`
}

// TaskPreview is what a task would be. Of a task that can't be read only its id is
// there.
type TaskPreview struct {
	ID       string           `json:"id"`
	Elements uint64           `json:"elements"`
	Cores    uint64           `json:"cores"`                 // of all elements, added up
	Alone    bool             `json:"elementwise,omitempty"` // each element is placed by itself
	First    []ElementPreview `json:"first,omitempty"`       // three at most
	Last     *ElementPreview  `json:"last,omitempty"`        // if it is not among First
}

// ElementPreview is what an element would be.
type ElementPreview struct {
	ID      string         `json:"id"`
	Title   string         `json:"title,omitempty"`
	Values  []PreviewValue `json:"values,omitempty"`
	Command []string       `json:"command"`
	Nodes   int            `json:"nodes,omitempty"` // 0: as many as it takes
	Ranks   int            `json:"ranks"`
	Cores   uint64         `json:"cores"`
}

// PreviewValue is a value of an element; Name is "" where it has none.
type PreviewValue struct {
	Name  string `json:"name,omitempty"`
	Value string `json:"value"`
}

// firstOf is how many elements a preview shows of a task's begin.
const firstOf = 3

// PreviewOf counts a job's elements and shows some of them.
func PreviewOf(s Spec) Preview {
	var p Preview
	var problems Problems
	err := Validate(s)
	if errors.As(err, &problems) {
		for _, x := range problems {
			p.Refused = append(p.Refused, Refusal{Field: x.Field, Reason: x.Text})
		}
	}
	for i := range s.Tasks {
		t := TaskPreview{ID: s.Tasks[i].ID}
		if ValidateTasks(s.Tasks[i:i+1]) == nil {
			t = s.Tasks[i].preview()
		}
		p.Tasks = append(p.Tasks, t)
		p.Elements += t.Elements
		p.Cores += t.Cores
	}
	return p
}

// preview is that of a valid task.
func (t *TaskSpec) preview() TaskPreview {
	r := t.Elements()
	out := TaskPreview{ID: t.ID, Elements: r.Len(), Alone: t.Elementwise()}
	e, err := t.Expander()
	if err != nil {
		return out
	}
	var names []string
	if t.Sweep != nil {
		names = t.Sweep.Names()
	}
	show := func(index uint64) ElementPreview {
		one, _ := e.At(index) // every element of a valid task is valid
		one = one.Resolve()
		p := ElementPreview{ID: one.ID, Title: one.Title, Command: one.Command, Nodes: one.Nodes, Ranks: one.Ranks, Cores: one.cores()}
		for i, v := range e.Values(index, nil) {
			p.Values = append(p.Values, PreviewValue{Name: names[i], Value: v})
		}
		return p
	}
	for i := r.Lo; i < min(r.Hi, r.Lo+firstOf); i++ {
		out.First = append(out.First, show(i))
	}
	if r.Len() > firstOf {
		last := show(r.Hi - 1)
		out.Last = &last
	}
	if len(t.Vary) == 0 {
		out.Cores = r.Len() * out.First[0].Cores
		return out
	}
	for i := r.Lo; i < r.Hi; i++ { // of an elementwise task, which are not many
		one, _ := e.At(i)
		one = one.Resolve()
		out.Cores += one.cores()
	}
	return out
}

// cores is what one element of a resolved task wants.
func (t *TaskSpec) cores() uint64 { return uint64(max(t.Ranks, 0)) * uint64(max(t.CoresPerRank, 0)) }
