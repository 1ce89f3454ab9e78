package batchapi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"gangway/launcher/job"
)

// dependsBody is a task's dependsOn. Tasks may be named before they are added: a
// collection of tasks has no order.
type dependsBody struct {
	IDs    []string      `json:"taskIds,omitempty"` // "A_3" is element 3 of the array A
	Ranges []taskIDRange `json:"taskIdRanges,omitempty"`
}

// taskIDRange stands for the tasks whose ids are its numbers, both ends included,
// in decimal digits without zeros in front.
type taskIDRange struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

type exitBody struct {
	Codes   []exitCodeBody  `json:"exitCodes,omitempty"`
	Ranges  []exitRangeBody `json:"exitCodeRanges,omitempty"`
	Pre     *exitOptions    `json:"preProcessingError,omitempty"`
	Upload  *exitOptions    `json:"fileUploadError,omitempty"`
	Default *exitOptions    `json:"default,omitempty"`
}

type exitCodeBody struct {
	Code    int         `json:"code"`
	Options exitOptions `json:"exitOptions"`
}

type exitRangeBody struct {
	Start   int         `json:"start"`
	End     int         `json:"end"`
	Options exitOptions `json:"exitOptions"`
}

type exitOptions struct {
	Job    string `json:"jobAction,omitempty"`
	Depend string `json:"dependencyAction,omitempty"`
}

func (o *exitOptions) action() *job.ExitAction {
	if o == nil {
		return nil
	}
	return &job.ExitAction{Job: job.JobAction(o.Job), Depend: job.DependAction(o.Depend)}
}

// usesDependencies reports whether tasks of the job may depend on others. Those of
// gangway submit always may.
func usesDependencies(in Job) bool {
	var b jobBody
	return len(in.API) == 0 || json.Unmarshal(in.API, &b) == nil && b.Dependencies
}

// readDepends reads dependsOn.
func readDepends(p *props, in Job) *dependsBody {
	d := p.object("dependsOn")
	if d == nil {
		return nil
	}
	defer d.close()
	r := &dependsBody{}
	r.IDs, _ = read[[]string](d, "taskIds", "a list of task ids")
	for i, id := range r.IDs {
		if !goodID(id) {
			d.bad(fmt.Sprintf("taskIds[%d]", i), id, "allowed are 1 to 64 characters of A-Z a-z 0-9 _ -")
		}
	}
	n := len(r.IDs)
	d.each("taskIdRanges", job.MaxDependencies, func(e *props) {
		lo, ok := e.number("start", 0, 1<<31-1)
		e.need("start", ok)
		hi, ok2 := e.number("end", 0, 1<<31-1)
		e.need("end", ok2)
		if ok && ok2 && hi < lo {
			e.bad("end", strconv.Itoa(hi), "it is less than start")
			return
		}
		n += hi - lo + 1
		r.Ranges = append(r.Ranges, taskIDRange{lo, hi})
	})
	if n > job.MaxDependencies {
		d.bad("taskIdRanges", "", fmt.Sprintf("it names more than %d tasks: use an array, with gangway.dependsOn", job.MaxDependencies))
		return nil
	}
	if n == 0 {
		return nil
	}
	if !usesDependencies(in) {
		p.bad("dependsOn", "", "the job was added with usesTaskDependencies false")
	}
	return r
}

func (d *dependsBody) list() []job.Dependency {
	if d == nil {
		return nil
	}
	var out []job.Dependency
	for _, id := range d.IDs {
		out = append(out, job.Dependency{Task: id})
	}
	for _, r := range d.Ranges {
		for n := r.Start; n <= r.End; n++ {
			out = append(out, job.Dependency{Task: strconv.Itoa(n)})
		}
	}
	return out
}

// parseDepends reads gangway.dependsOn: tasks as job files name them, with commas
// between them.
func parseDepends(s string) ([]job.Dependency, error) {
	var out []job.Dependency
	for word := range strings.SplitSeq(s, ",") {
		d, err := job.ParseDependency(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		if out = append(out, d); len(out) > job.MaxDependencies {
			return nil, fmt.Errorf("it names more than %d tasks: use an array, whose elements count as one", job.MaxDependencies)
		}
	}
	return out, nil
}

// readExit reads exitConditions.
func readExit(p *props, in Job) *exitBody {
	e := p.object("exitConditions")
	if e == nil {
		return nil
	}
	defer e.close()
	r := &exitBody{}
	options := func(o *props) (x exitOptions) {
		if o == nil {
			return x
		}
		x.Job, _ = o.enum("jobAction", string(job.JobNone), string(job.JobDisable), string(job.JobTerminate))
		if x.Job != "" && x.Job != string(job.JobNone) && !in.ExitActions {
			o.bad("jobAction", x.Job, "the job's onTaskFailure is noaction: nothing would follow")
		}
		x.Depend, _ = o.enum("dependencyAction", string(job.DependSatisfy), string(job.DependBlock))
		if x.Depend == string(job.DependSatisfy) && !usesDependencies(in) {
			o.bad("dependencyAction", x.Depend, "the job was added with usesTaskDependencies false")
		}
		o.close()
		return x
	}
	code := func(o *props, name string) int {
		n, ok := o.number(name, -1<<31, 1<<31-1)
		o.need(name, ok)
		return n
	}
	given := func(o *props) exitOptions {
		x := o.object("exitOptions")
		o.need("exitOptions", x != nil)
		return options(x)
	}
	e.each("exitCodes", 256, func(o *props) {
		r.Codes = append(r.Codes, exitCodeBody{code(o, "code"), given(o)})
	})
	e.each("exitCodeRanges", 256, func(o *props) {
		r.Ranges = append(r.Ranges, exitRangeBody{code(o, "start"), code(o, "end"), given(o)})
	})
	for _, x := range []struct {
		name string
		to   **exitOptions
	}{{"preProcessingError", &r.Pre}, {"fileUploadError", &r.Upload}, {"default", &r.Default}} {
		if o := e.object(x.name); o != nil {
			v := options(o)
			*x.to = &v
		}
	}
	if r.conditions() == nil {
		return nil
	}
	return r
}

// conditions are job's. A code counts before a range that holds it.
func (e *exitBody) conditions() *job.ExitConditions {
	if e == nil {
		return nil
	}
	c := &job.ExitConditions{PreProcessing: e.Pre.action(), FileUpload: e.Upload.action(), Default: e.Default.action()}
	for _, x := range e.Codes {
		c.Rules = append(c.Rules, job.ExitRule{Lo: x.Code, Hi: x.Code, ExitAction: *x.Options.action()})
	}
	for _, x := range e.Ranges {
		c.Rules = append(c.Rules, job.ExitRule{Lo: x.Start, Hi: x.End, ExitAction: *x.Options.action()})
	}
	return c.Plain()
}

// maxShownParents is how many of the tasks that it depends on a task shows, if it
// did not come through the API.
const maxShownParents = 1000

// order writes dependencies and exit conditions of a task that did not come
// through the API.
func (t *taskBody) order(s job.TaskSpec) {
	var ranges []string
	for _, d := range s.DependsOn[:min(len(s.DependsOn), maxShownParents)] {
		if d.Range != (job.Range{}) {
			ranges = append(ranges, d.String())
			continue
		}
		if t.DependsOn == nil {
			t.DependsOn = &dependsBody{}
		}
		t.DependsOn.IDs = append(t.DependsOn.IDs, d.Task)
	}
	if len(ranges) > 0 {
		if t.Gangway == nil {
			t.Gangway = &extension{}
		}
		text := strings.Join(ranges, ",")
		t.Gangway.DependsOn = &text
	}
	e := s.Exit.Plain()
	if e == nil {
		return
	}
	options := func(a *job.ExitAction) *exitOptions {
		if a == nil {
			return nil
		}
		return &exitOptions{string(a.Job), string(a.Depend)}
	}
	t.Exit = &exitBody{Pre: options(e.PreProcessing), Upload: options(e.FileUpload), Default: options(e.Default)}
	for i := range e.Rules {
		r := &e.Rules[i]
		t.Exit.Ranges = append(t.Exit.Ranges, exitRangeBody{r.Lo, r.Hi, *options(&r.ExitAction)})
	}
}

// orderExtension reads what the object gangway says of a task's place among
// others and of its retries.
func orderExtension(g *props, e *extension) {
	e.Priority = opt(g.number("priority", -job.MaxPriority, job.MaxPriority))
	e.DependsOn = g.optText("dependsOn")
	if e.DependsOn != nil {
		if _, err := parseDepends(*e.DependsOn); err != nil {
			g.bad("dependsOn", *e.DependsOn, err.Error())
		}
	}
	e.Backoff, e.BackoffMax, e.RetryElsewhere = g.optDuration("backoff"), g.optDuration("backoffMax"), g.optFlag("retryElsewhere")
	e.Signal, e.SignalBefore = g.optNumber("signal", job.MaxSignal), g.optDuration("signalBefore")
}

// order writes those fields into a specification.
func (e extension) order(s *job.TaskSpec) {
	set(&s.Priority, e.Priority)
	set(&s.RetryElsewhere, e.RetryElsewhere)
	set(&s.SoftSignal, e.Signal)
	if e.DependsOn != nil {
		if more, err := parseDepends(*e.DependsOn); err == nil { // it was read before
			s.DependsOn = append(s.DependsOn, more...)
		}
	}
	setDuration(&s.Backoff, e.Backoff)
	setDuration(&s.BackoffMax, e.BackoffMax)
	setDuration(&s.SoftBefore, e.SignalBefore)
}
