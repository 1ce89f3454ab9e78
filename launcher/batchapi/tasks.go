package batchapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"gangway/launcher/job"
)

// taskEntity is a task as clients see it.
type taskEntity struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName,omitempty"`
	URL         string `json:"url"`
	ETag        string `json:"eTag"`
	Modified    string `json:"lastModified,omitempty"`
	Created     string `json:"creationTime,omitempty"`
	State       string `json:"state"`
	StateAt     string `json:"stateTransitionTime,omitempty"`
	Prev        string `json:"previousState,omitempty"`
	PrevAt      string `json:"previousStateTransitionTime,omitempty"`

	CommandLine   string             `json:"commandLine"`
	Environment   []nameValue        `json:"environmentSettings,omitempty"`
	Affinity      *affinity          `json:"affinityInfo,omitempty"`
	Constraints   *taskConstraints   `json:"constraints,omitempty"`
	RequiredSlots int                `json:"requiredSlots"`
	User          *userIdentity      `json:"userIdentity,omitempty"`
	MultiInstance *multiInstanceBody `json:"multiInstanceSettings,omitempty"`
	DependsOn     *dependsBody       `json:"dependsOn,omitempty"`
	Exit          *exitBody          `json:"exitConditions,omitempty"`
	Execution     executionInfo      `json:"executionInfo"`
	Node          *nodeInfo          `json:"nodeInfo,omitempty"`
	Gangway       *extension         `json:"gangway,omitempty"`
}

type executionInfo struct {
	Start     string       `json:"startTime,omitempty"`
	End       string       `json:"endTime,omitempty"`
	Exit      *int         `json:"exitCode,omitempty"`
	Failure   *failureInfo `json:"failureInfo,omitempty"`
	Result    string       `json:"result,omitempty"`
	Retries   int          `json:"retryCount"`
	RetriedAt string       `json:"lastRetryTime,omitempty"`
	Requeues  int          `json:"requeueCount"`
	RequeueAt string       `json:"lastRequeueTime,omitempty"`
}

type failureInfo struct {
	Category string      `json:"category"`
	Code     string      `json:"code"`
	Message  string      `json:"message"`
	Details  []nameValue `json:"details,omitempty"`
}

type nodeInfo struct {
	Affinity string `json:"affinityId"`
	URL      string `json:"nodeUrl"`
	Pool     string `json:"poolId"`
	Node     string `json:"nodeId"`
	Root     string `json:"taskRootDirectory,omitempty"`
	RootURL  string `json:"taskRootDirectoryUrl,omitempty"`
}

func (c *call) renderTask(jobID string, t *Task) any {
	b := bodyOf(t.Spec)
	x := execution(t.Run, t.State == job.TaskCompleted)
	x.Retries, x.RetriedAt, x.Requeues, x.RequeueAt = t.Retries, when(t.RetriedAt), t.Requeues, when(t.RequeueAt)
	return taskEntity{
		ID: t.ID, DisplayName: b.DisplayName, URL: c.link("jobs", jobID, "tasks", t.ID), ETag: etag(t.Version),
		Modified: when(t.Times.Modified), Created: when(t.Times.Created), State: string(t.State), StateAt: when(t.Times.StateAt), Prev: t.Times.Prev, PrevAt: when(t.Times.PrevAt),
		CommandLine: b.CommandLine, Environment: b.Environment, Affinity: b.Affinity, Constraints: b.Constraints, RequiredSlots: b.RequiredSlots, User: b.User,
		MultiInstance: b.MultiInstance, DependsOn: b.DependsOn, Exit: b.Exit, Execution: x, Node: c.renderRunNode(t.Run), Gangway: b.Gangway,
	}
}

func (c *call) renderRunNode(r Run) *nodeInfo {
	if r.Node == "" {
		return nil
	}
	n := &nodeInfo{Affinity: r.Node, URL: c.link("pools", r.Pool, "nodes", r.Node), Pool: r.Pool, Node: r.Node, Root: r.Folder}
	if r.Folder != "" {
		n.RootURL = c.link(append([]string{"pools", r.Pool, "nodes", r.Node, "files"}, strings.Split(r.Folder, "/")...)...)
	}
	return n
}

// execution words how something ran; result and failure are there once it is done.
func execution(r Run, done bool) executionInfo {
	x := executionInfo{Start: when(r.Started)}
	if !done {
		return x
	}
	x.End, x.Exit = when(r.Ended), r.Exit
	x.Result = "success"
	if !r.Success {
		x.Result = "failure"
		x.Failure = failureOf(r)
	}
	return x
}

// failureOf words why something failed, by Batch's codes where it has one.
func failureOf(r Run) *failureInfo {
	f := &failureInfo{Category: "usererror", Code: "FailureExitCode", Message: "The task exited with an exit code representing a failure"}
	if r.Failure == nil {
		if r.Exit != nil {
			f.Details = []nameValue{{"Message", fmt.Sprintf("exit code %d", *r.Exit)}}
		}
		return f
	}
	switch r.Failure.Code {
	case job.FailRank, job.FailMPIRun:
	case job.FailNotFound:
		f.Code, f.Message = "CommandProgramNotFound", "The specified command program is not found"
	case job.FailNotExecutable:
		f.Code, f.Message = "CommandLaunchFailed", "The specified command could not be started"
	case job.FailParent:
		f.Code, f.Message = "DependencyFailed", "A task that this one depends on failed"
	case job.FailFailures, job.FailExitAction:
		f.Code, f.Message = "TaskEnded", "The job was ended for what became of others of its tasks"
	case job.FailCancelled:
		f.Code, f.Message = "TaskEnded", "Task Was Ended by User Request"
	case job.FailTimeLimit:
		f.Code, f.Message = "TaskEnded", "The task exceeded its maximum wall clock time"
	case job.FailNodeLost, job.FailNodeAgent, job.FailShimLost, job.FailPeerLost, job.FailInternal, job.FailLease, job.FailDisk, job.FailNetwork, job.FailNoNetwork:
		f.Category, f.Code, f.Message = "servererror", "NodeFailure", "The task failed for a reason that is not its own"
	default:
		f.Code, f.Message = "TaskPreparationFailed", "The task could not be prepared or was ended on its node"
	}
	f.Details = []nameValue{{"Message", r.Failure.String()}, {"GangwayCode", string(r.Failure.Code)}}
	return f
}

func taskFields() fields[Task] {
	done := func(t *Task) bool { return t.State == job.TaskCompleted }
	states := []string{string(job.TaskActive), string(job.TaskPreparing), string(job.TaskRunning), string(job.TaskCompleted)}
	return fields[Task]{
		"id":                          {text: func(t *Task) (string, bool) { return t.ID, true }},
		"displayName":                 {text: func(t *Task) (string, bool) { s := bodyOf(t.Spec).DisplayName; return s, s != "" }},
		"state":                       {text: func(t *Task) (string, bool) { return string(t.State), true }, enum: states},
		"previousState":               {text: func(t *Task) (string, bool) { return t.Times.Prev, t.Times.Prev != "" }, enum: states},
		"creationTime":                {time: func(t *Task) time.Time { return t.Times.Created }},
		"lastModified":                {time: func(t *Task) time.Time { return t.Times.Modified }},
		"stateTransitionTime":         {time: func(t *Task) time.Time { return t.Times.StateAt }},
		"previousStateTransitionTime": {time: func(t *Task) time.Time { return t.Times.PrevAt }},
		"requiredSlots":               {number: func(t *Task) (float64, bool) { return float64(bodyOf(t.Spec).RequiredSlots), true }},
		"executionInfo/startTime":     {time: func(t *Task) time.Time { return t.Run.Started }},
		"executionInfo/endTime":       {time: func(t *Task) time.Time { return t.Run.Ended }},
		"executionInfo/retryCount":    {number: func(t *Task) (float64, bool) { return float64(t.Retries), true }},
		"executionInfo/requeueCount":  {number: func(t *Task) (float64, bool) { return float64(t.Requeues), true }},
		"nodeInfo/nodeId":             {text: func(t *Task) (string, bool) { return t.Run.Node, t.Run.Node != "" }},
		"nodeInfo/poolId":             {text: func(t *Task) (string, bool) { return t.Run.Pool, t.Run.Node != "" }},
		"nodeInfo/affinityId":         {text: func(t *Task) (string, bool) { return t.Run.Node, t.Run.Node != "" }},
		"executionInfo/lastRetryTime": {time: func(t *Task) time.Time { return t.RetriedAt }},
		"executionInfo/failureInfo/category": {text: func(t *Task) (string, bool) {
			if !done(t) || t.Run.Success {
				return "", false
			}
			return failureOf(t.Run).Category, true
		}, enum: []string{"usererror", "servererror"}},
		"executionInfo/failureInfo/code": {text: func(t *Task) (string, bool) {
			if !done(t) || t.Run.Success {
				return "", false
			}
			return failureOf(t.Run).Code, true
		}},
		"executionInfo/exitCode": {number: func(t *Task) (float64, bool) {
			if t.Run.Exit == nil || !done(t) {
				return 0, false
			}
			return float64(*t.Run.Exit), true
		}},
		"executionInfo/result": {text: func(t *Task) (string, bool) {
			return map[bool]string{true: "success", false: "failure"}[t.Run.Success], done(t)
		}, enum: []string{"success", "failure"}},
	}
}

// task returns the job and the task that the path names.
func (c *call) task() (Job, Task, error) {
	j, err := c.job()
	if err != nil {
		return j, Task{}, err
	}
	t, err := c.s.Backend.Task(c.ctx(), j.ID, c.params["taskId"])
	return j, t, err
}

func (c *call) taskToChange() (Job, Task, Version, error) {
	j, t, err := c.task()
	if err != nil {
		return j, t, 0, err
	}
	v, err := c.condition(t.Version, t.Times.Modified)
	return j, t, v, err
}

func (c *call) listTasks() error {
	j, err := c.job()
	if err != nil {
		return err
	}
	w := c.taskWriter(j.ID)
	known := taskFields()
	return writeList(c, lister[Task]{
		set: "tasks", fields: known, shown: propertyNames(taskEntity{}),
		fetch: func(after string, limit int, filter node) ([]Task, error) {
			q := TaskQuery{After: after, Limit: limit}
			if filter.op != "" {
				q.May = spanOf(known, filter)
				q.Match, _ = known.compile(filter) // writeList has compiled it too
			}
			for _, s := range filter.oneOf("state") {
				q.States = append(q.States, job.TaskState(s))
			}
			return c.s.Backend.Tasks(c.ctx(), j.ID, q)
		},
		cursor: func(t *Task) string { return t.Cursor },
		render: func(t *Task) any { return c.renderTask(j.ID, t) },
		write:  w.write,
	})
}

func (c *call) getTask() error {
	j, t, _, err := c.taskToChange()
	if err != nil {
		return err
	}
	c.object(t.Version, t.Times.Modified)
	return c.entity("tasks", c.renderTask(j.ID, &t), propertyNames(taskEntity{}))
}

func (c *call) addTask() error {
	j, err := c.job()
	if err != nil {
		return err
	}
	p, err := c.body(false)
	if err != nil {
		return err
	}
	spec, err := readTask(p, j)
	if err != nil {
		return err
	}
	added, errs, err := c.s.Backend.AddTasks(c.ctx(), j.ID, []job.TaskSpec{spec})
	if err != nil {
		return err
	}
	if errs[0] != nil {
		return errs[0]
	}
	c.object(added[0].Version, added[0].Times.Modified)
	c.created(c.link("jobs", j.ID, "tasks", added[0].ID))
	return nil
}

type taskAddResult struct {
	Status   string     `json:"status"` // success, clienterror, servererror
	TaskID   string     `json:"taskId"`
	ETag     string     `json:"eTag,omitempty"`
	Modified string     `json:"lastModified,omitempty"`
	Location string     `json:"location,omitempty"`
	Error    *errorBody `json:"error,omitempty"`
}

// addTasks adds up to 100 tasks, each for itself: one that is refused does not
// keep the others out.
func (c *call) addTasks() error {
	j, err := c.job()
	if err != nil {
		return err
	}
	p, err := c.body(false)
	if err != nil {
		return err
	}
	items, ok := read[[]json.RawMessage](p, "value", "a list of tasks")
	p.need("value", ok)
	if err := p.finish(); err != nil {
		return err
	}
	if len(items) > maxCollection {
		return newFault(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit.",
			detail{"MaxLimit", fmt.Sprintf("%d tasks", maxCollection)})
	}
	results := make([]any, len(items))
	var specs []job.TaskSpec
	var places []int // of specs in results
	for i, raw := range items {
		spec, err := readItem(raw, j)
		if err != nil {
			results[i] = c.addResult(spec.ID, j.ID, Task{}, err)
			continue
		}
		specs, places = append(specs, spec), append(places, i)
	}
	if len(specs) > 0 {
		added, errs, err := c.s.Backend.AddTasks(c.ctx(), j.ID, specs)
		if err != nil {
			return err
		}
		for k, i := range places {
			results[i] = c.addResult(specs[k].ID, j.ID, added[k], errs[k])
		}
	}
	c.write(http.StatusOK, listBody{Metadata: c.base() + "/$metadata#taskaddresult", Value: results})
	return nil
}

// readItem reads one task of a collection; its id is returned even if the rest is wrong.
func readItem(raw json.RawMessage, j Job) (job.TaskSpec, error) {
	p, err := readProps(raw)
	if err != nil {
		return job.TaskSpec{}, err
	}
	var id string
	_ = json.Unmarshal(p.m["id"], &id) // readTask reports it
	spec, err := readTask(p, j)
	spec.ID = id
	return spec, err
}

func (c *call) addResult(id, jobID string, t Task, err error) taskAddResult {
	r := taskAddResult{Status: "success", TaskID: id}
	if err == nil {
		r.ETag, r.Modified, r.Location = etag(t.Version), when(t.Times.Modified), c.link("jobs", jobID, "tasks", t.ID)
		return r
	}
	f := faultOf(err)
	r.Status = "clienterror"
	if f.status >= 500 {
		r.Status = "servererror"
		c.s.Log.Error("a task was not added", "request", c.id, "job", jobID, "task", id, "err", err)
	}
	r.Error = &errorBody{Code: f.code, Message: errorMessage{"en-US", f.message + "\nRequestId:" + c.id}, Values: f.values}
	return r
}

// updateTask replaces a task's constraints, and its extension if that is given. It
// changes the version that it has read.
func (c *call) updateTask() error {
	return c.changeTask(http.StatusOK, func(j Job, t Task, seen Version) error {
		p, err := c.body(true)
		if err != nil {
			return err
		}
		spec, err := readUpdate(p, j, t)
		if err != nil {
			return err
		}
		if t.State == job.TaskCompleted {
			return &Conflict{CodeTaskCompleted, "The specified task is already in a completed state."}
		}
		return c.s.Backend.UpdateTask(c.ctx(), j.ID, t.ID, cmp.Or(seen, t.Version), spec)
	})
}

// readUpdate reads what shall be of a task.
func readUpdate(p *props, j Job, t Task) (job.TaskSpec, error) {
	b := bodyOf(t.Spec)
	spec := t.Spec
	p.ignore("id", "displayName", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "previousState", "previousStateTransitionTime",
		"commandLine", "environmentSettings", "affinityInfo", "requiredSlots", "userIdentity", "multiInstanceSettings", "executionInfo", "nodeInfo", "stats", "dependsOn", "exitConditions")
	refuseTaskProps(p)
	b.Constraints, spec.Retries, spec.TimeLimit = nil, j.Retries, 0
	if k := p.object("constraints"); k != nil {
		b.Constraints = &taskConstraints{}
		*b.Constraints, spec.Retries, spec.TimeLimit = readTaskConstraints(k, j.Retries)
	}
	spec.Retention = b.Constraints.retention()
	again := p.has("gangway")
	if again {
		b.Gangway = nil
		if g := p.object("gangway"); g != nil {
			b.Gangway = readExtension(g)
		}
		p.ignore("gangway")
	}
	err := p.finish()
	switch {
	case err != nil:
	case len(t.Spec.API) == 0 && again && !sameExtension(b.Gangway, bodyOf(t.Spec).Gangway):
		err = &Conflict{CodeWrongState, "The task came by gangway submit and not by this API: its gangway object can't be changed; delete the task and add it anew."}
	case len(t.Spec.API) == 0:
	case again:
		return b.spec(t.Spec.ID, t.Spec.Command, spec.Retries, spec.TimeLimit, j)
	default:
		spec.API, err = encodeJSON(b)
	}
	return spec, err
}

func sameExtension(a, b *extension) bool {
	if a == nil {
		a = &extension{}
	}
	if b == nil {
		b = &extension{}
	}
	return reflect.DeepEqual(a, b)
}

func (c *call) terminateTask() error { return c.taskVerb(c.s.Backend.TerminateTask) }

func (c *call) reactivateTask() error { return c.taskVerb(c.s.Backend.ReactivateTask) }

func (c *call) deleteTask() error {
	j, t, seen, err := c.taskToChange()
	if err != nil {
		return err
	}
	if err := c.s.Backend.DeleteTask(c.ctx(), j.ID, t.ID, seen); err != nil {
		return err
	}
	c.write(http.StatusOK, nil)
	return nil
}

type subtaskEntity struct {
	ID      int          `json:"id"`
	Node    *nodeInfo    `json:"nodeInfo,omitempty"`
	Start   string       `json:"startTime,omitempty"`
	End     string       `json:"endTime,omitempty"`
	Exit    *int         `json:"exitCode,omitempty"`
	Failure *failureInfo `json:"failureInfo,omitempty"`
	State   string       `json:"state"`
	StateAt string       `json:"stateTransitionTime,omitempty"`
	Prev    string       `json:"previousState,omitempty"`
	PrevAt  string       `json:"previousStateTransitionTime,omitempty"`
	Result  string       `json:"result,omitempty"`
}

func (c *call) subtasks() error {
	j, t, err := c.task()
	if err != nil {
		return err
	}
	all, err := c.s.Backend.Subtasks(c.ctx(), j.ID, t.ID)
	if err != nil {
		return err
	}
	only, err := c.selection(propertyNames(subtaskEntity{}))
	if err != nil {
		return err
	}
	body := listBody{Metadata: c.base() + "/$metadata#subtaskinfo", Value: make([]any, len(all))}
	for i, s := range all {
		x := execution(s.Run, s.State == "completed")
		body.Value[i] = pick(subtaskEntity{
			ID: s.Index, Node: c.renderRunNode(s.Run), Start: x.Start, End: x.End, Exit: x.Exit, Failure: x.Failure,
			State: s.State, StateAt: when(s.StateAt), Prev: s.Prev, PrevAt: when(s.PrevAt), Result: x.Result,
		}, only)
	}
	c.write(http.StatusOK, body)
	return nil
}
