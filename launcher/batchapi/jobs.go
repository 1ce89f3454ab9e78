package batchapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"gangway/launcher/job"
)

// jobBody is what a client says of a job and reads back: JobSettings.API.
type jobBody struct {
	DisplayName string      `json:"displayName,omitempty"`
	Environment []nameValue `json:"commonEnvironmentSettings,omitempty"`
	Metadata    []nameValue `json:"metadata,omitempty"`
	// Dependencies lets tasks depend on others; it can't change.
	Dependencies bool `json:"usesTaskDependencies,omitempty"`
}

type jobConstraints struct {
	MaxWallClockTime string `json:"maxWallClockTime"`
	MaxTaskRetry     int    `json:"maxTaskRetryCount"`
}

type poolInfo struct {
	ID string `json:"poolId"`
}

// jobEntity is a job as clients see it.
type jobEntity struct {
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

	Priority     int              `json:"priority"`
	Preemption   bool             `json:"allowTaskPreemption"`
	MaxParallel  int              `json:"maxParallelTasks"`
	Dependencies bool             `json:"usesTaskDependencies"`
	Constraints  jobConstraints   `json:"constraints"`
	Environment  []nameValue      `json:"commonEnvironmentSettings,omitempty"`
	Pool         *poolInfo        `json:"poolInfo,omitempty"`
	OnAll        string           `json:"onAllTasksComplete"`
	OnFailure    string           `json:"onTaskFailure"`
	Metadata     []nameValue      `json:"metadata,omitempty"`
	Execution    jobExecutionInfo `json:"executionInfo"`
	Gangway      jobFacts         `json:"gangway"`
}

// jobFacts is the object "gangway" of a job; clients only read it.
type jobFacts struct {
	Owner string `json:"owner,omitempty"`
}

type jobExecutionInfo struct {
	Start  string `json:"startTime,omitempty"`
	End    string `json:"endTime,omitempty"`
	Pool   string `json:"poolId,omitempty"`
	Reason string `json:"terminateReason,omitempty"`
}

func (c *call) renderJob(j *Job) any {
	var b jobBody
	_ = json.Unmarshal(j.API, &b) // none is as good as empty
	e := jobEntity{
		ID: j.ID, DisplayName: b.DisplayName, URL: c.link("jobs", j.ID), ETag: etag(j.Version), Modified: when(j.Times.Modified), Created: when(j.Times.Created),
		State: string(j.State), StateAt: when(j.Times.StateAt), Prev: j.Times.Prev, PrevAt: when(j.Times.PrevAt),
		Priority: j.Priority, MaxParallel: -1, Constraints: jobConstraints{formatDuration(j.TimeLimit), j.Retries},
		Environment: b.Environment, OnAll: "noaction", OnFailure: "noaction", Metadata: b.Metadata, Gangway: jobFacts{j.Owner},
		Execution: jobExecutionInfo{when(firstTime(j.Times.StartedAt, j.Times.Created)), when(j.Times.EndedAt), j.Pool, j.Reason},
	}
	if j.Pool != "" {
		e.Pool = &poolInfo{j.Pool}
	}
	if j.AutoEnd {
		e.OnAll = "terminatejob"
	}
	if j.MaxRunning > 0 {
		e.MaxParallel = j.MaxRunning
	}
	if j.ExitActions {
		e.OnFailure = "performexitoptionsjobaction"
	}
	e.Dependencies = usesDependencies(*j)
	return e
}

func firstTime(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func jobFields() fields[Job] {
	return fields[Job]{
		"id":                          {text: func(j *Job) (string, bool) { return j.ID, true }},
		"displayName":                 {text: func(j *Job) (string, bool) { return jobText(j, func(b jobBody) string { return b.DisplayName }) }},
		"state":                       {text: func(j *Job) (string, bool) { return string(j.State), true }, enum: jobStates()},
		"previousState":               {text: func(j *Job) (string, bool) { return j.Times.Prev, j.Times.Prev != "" }, enum: jobStates()},
		"creationTime":                {time: func(j *Job) time.Time { return j.Times.Created }},
		"lastModified":                {time: func(j *Job) time.Time { return j.Times.Modified }},
		"stateTransitionTime":         {time: func(j *Job) time.Time { return j.Times.StateAt }},
		"previousStateTransitionTime": {time: func(j *Job) time.Time { return j.Times.PrevAt }},
		"priority":                    {number: func(j *Job) (float64, bool) { return float64(j.Priority), true }},
		"poolInfo/poolId":             {text: func(j *Job) (string, bool) { return j.Pool, true }},
		"executionInfo/poolId":        {text: func(j *Job) (string, bool) { return j.Pool, true }},
		"executionInfo/startTime":     {time: func(j *Job) time.Time { return firstTime(j.Times.StartedAt, j.Times.Created) }},
		"executionInfo/endTime":       {time: func(j *Job) time.Time { return j.Times.EndedAt }},
		"executionInfo/terminateReason": {text: func(j *Job) (string, bool) {
			return j.Reason, j.Reason != ""
		}},
		"onAllTasksComplete": {text: func(j *Job) (string, bool) {
			if j.AutoEnd {
				return "terminatejob", true
			}
			return "noaction", true
		}, enum: []string{"noaction", "terminatejob"}},
	}
}

func jobText(j *Job, get func(jobBody) string) (string, bool) {
	var b jobBody
	_ = json.Unmarshal(j.API, &b)
	s := get(b)
	return s, s != ""
}

func jobStates() []string {
	return []string{string(JobActive), string(JobDisabling), string(JobDisabled), string(JobEnabling), string(JobTerminating), string(JobCompleted), string(JobDeleting)}
}

// job returns the job that the path names, if the caller may see it: to one who
// may not, it does not exist.
func (c *call) job() (Job, error) {
	id := c.params["jobId"]
	if !goodID(id) {
		return Job{}, &NotFound{KindJob, id}
	}
	j, err := c.s.Backend.Job(c.ctx(), id)
	if err == nil && c.who.Role < Admin && j.Owner != c.who.Name {
		err = &NotFound{KindJob, id}
	}
	return j, err
}

// jobToChange is job with the request's conditions.
func (c *call) jobToChange() (Job, Version, error) {
	j, err := c.job()
	if err != nil {
		return j, 0, err
	}
	v, err := c.condition(j.Version, j.Times.Modified)
	return j, v, err
}

func (c *call) listJobs() error {
	owner := ""
	if c.who.Role < Admin {
		owner = c.who.Name
	}
	return writeList(c, lister[Job]{
		set: "jobs", fields: jobFields(), shown: propertyNames(jobEntity{}),
		fetch: func(after string, limit int, _ node) ([]Job, error) {
			return c.s.Backend.Jobs(c.ctx(), JobQuery{Owner: owner, After: after, Limit: limit})
		},
		cursor: func(j *Job) string { return j.Cursor },
		render: c.renderJob,
	})
}

func (c *call) getJob() error {
	j, _, err := c.jobToChange()
	if err != nil {
		return err
	}
	c.object(j.Version, j.Times.Modified)
	return c.entity("jobs", c.renderJob(&j), propertyNames(jobEntity{}))
}

func (c *call) addJob() error {
	p, err := c.body(false)
	if err != nil {
		return err
	}
	n := NewJob{Owner: c.who.Name, NodeUser: c.who.NodeUser}
	var ok bool
	n.ID, ok = p.text("id", 1024)
	p.need("id", ok)
	if ok && !goodID(n.ID) {
		p.bad("id", n.ID, "allowed are 1 to 64 characters of A-Z a-z 0-9 _ -")
	}
	var b jobBody
	b.DisplayName, _ = p.text("displayName", 1024)
	b.Environment = readEnvironment(p, "commonEnvironmentSettings")
	readSettings(p, &n.JobSettings, &b, true)
	if v, ok := p.enum("onTaskFailure", "noaction", "performexitoptionsjobaction"); ok {
		n.ExitActions = v != "noaction"
	}
	b.Dependencies, _ = read[bool](p, "usesTaskDependencies", "true or false")
	if err := p.finish(); err != nil {
		return err
	}
	if _, _, err := splitEnvironment(b.Environment); err != nil {
		return err
	}
	n.API, err = encodeJSON(b)
	if err != nil {
		return err
	}
	j, err := c.s.Backend.AddJob(c.ctx(), n)
	if err != nil {
		return err
	}
	c.object(j.Version, j.Times.Modified)
	c.created(c.link("jobs", j.ID))
	return nil
}

// created answers 201 with the address of what was added.
func (c *call) created(link string) {
	h := c.w.Header()
	h.Set("Location", link)
	h.Set("DataServiceId", link)
	c.write(http.StatusCreated, nil)
}

// readSettings reads what may change of a job. whole says that what is absent
// gets its default, as in add and PUT; otherwise it stays.
func readSettings(p *props, s *JobSettings, b *jobBody, whole bool) {
	if whole {
		s.Priority, s.TimeLimit, s.Retries, s.AutoEnd, s.MaxRunning = 0, 0, 0, false, 0
		b.Metadata = nil
	}
	if n, ok := p.number("priority", -job.MaxPriority, job.MaxPriority); ok {
		s.Priority = n
	}
	if n, ok := p.number("maxParallelTasks", -1, job.MaxArray); ok {
		if n == 0 {
			p.bad("maxParallelTasks", "0", fmt.Sprintf("allowed is -1 (no limit) and 1 to %d", job.MaxArray))
		}
		s.MaxRunning = max(n, 0)
	}
	if k := p.object("constraints"); k != nil {
		s.TimeLimit = k.duration("maxWallClockTime")
		s.Retries, _ = k.number("maxTaskRetryCount", -1, 1000)
		k.close()
	}
	if v, ok := p.enum("onAllTasksComplete", "noaction", "terminatejob"); ok {
		s.AutoEnd = v == "terminatejob"
	}
	if p.has("metadata") {
		b.Metadata = nil
	}
	p.each("metadata", 1000, func(m *props) {
		n, ok := m.text("name", 1024)
		m.need("name", ok)
		v, ok := m.text("value", 1024)
		m.need("value", ok)
		b.Metadata = append(b.Metadata, nameValue{n, v})
	})
	info := p.object("poolInfo")
	if whole {
		p.need("poolInfo", info != nil)
	}
	if info != nil {
		id, ok := info.text("poolId", 1024)
		info.refuse("; name one of the launcher's pools in poolId", "autoPoolSpecification")
		info.need("poolId", ok)
		info.close()
		s.Pool = id
	}
	p.refuse("", "allowTaskPreemption", "jobManagerTask", "jobPreparationTask", "jobReleaseTask", "networkConfiguration")
	if g := p.object("gangway"); g != nil {
		g.ignore("owner") // clients that send back what they read
		g.close()
	}
}

// updateJob is PUT and PATCH. Clients send whole jobs back: what can't change is
// passed over. It changes the version that it has read: another's change of other
// properties is not undone.
func (c *call) updateJob() error {
	return c.changeJob(http.StatusOK, func(j Job, seen Version) error {
		p, err := c.body(false)
		if err != nil {
			return err
		}
		s := j.JobSettings
		var b jobBody
		_ = json.Unmarshal(s.API, &b)
		p.ignore("id", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "previousState", "previousStateTransitionTime",
			"displayName", "commonEnvironmentSettings", "executionInfo", "stats", "onTaskFailure", "usesTaskDependencies")
		readSettings(p, &s, &b, c.Method == http.MethodPut)
		if err := p.finish(); err != nil {
			return err
		}
		if s.API, err = encodeJSON(b); err != nil {
			return err
		}
		return c.s.Backend.UpdateJob(c.ctx(), j.ID, cmp.Or(seen, j.Version), s)
	})
}

func (c *call) disableJob() error {
	return c.changeJob(http.StatusAccepted, func(j Job, seen Version) error {
		p, err := c.body(false)
		if err != nil {
			return err
		}
		what, ok := p.enum("disableTasks", string(DisableRequeue), string(DisableTerminate), string(DisableWait))
		p.need("disableTasks", ok)
		if err := p.finish(); err != nil {
			return err
		}
		return c.s.Backend.DisableJob(c.ctx(), j.ID, seen, DisableTasks(what))
	})
}

func (c *call) enableJob() error {
	return c.changeJob(http.StatusAccepted, func(j Job, seen Version) error {
		return c.s.Backend.EnableJob(c.ctx(), j.ID, seen)
	})
}

func (c *call) terminateJob() error {
	return c.changeJob(http.StatusAccepted, func(j Job, seen Version) error {
		p, err := c.body(true)
		if err != nil {
			return err
		}
		reason, ok := p.text("terminateReason", 1024)
		if err := p.finish(); err != nil {
			return err
		}
		if !ok {
			reason = "UserTerminate"
		}
		if _, err := c.flag("force"); err != nil {
			return err
		}
		return c.s.Backend.TerminateJob(c.ctx(), j.ID, seen, reason)
	})
}

func (c *call) deleteJob() error {
	j, seen, err := c.jobToChange()
	if err != nil {
		return err
	}
	if _, err := c.flag("force"); err != nil {
		return err
	}
	if err := c.s.Backend.DeleteJob(c.ctx(), j.ID, seen); err != nil {
		return err
	}
	c.write(http.StatusAccepted, nil)
	return nil
}

type taskCountsBody struct {
	Tasks stateCountsBody `json:"taskCounts"`
	Slots stateCountsBody `json:"taskSlotCounts"`
}

type stateCountsBody struct {
	Active    uint64 `json:"active"`
	Running   uint64 `json:"running"`
	Completed uint64 `json:"completed"`
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`
}

func (c *call) taskCounts() error {
	j, err := c.job()
	if err != nil {
		return err
	}
	n, err := c.s.Backend.TaskCounts(c.ctx(), j.ID)
	if err != nil {
		return err
	}
	return c.entity("taskcountsresult", taskCountsBody{stateCountsBody(n.Tasks), stateCountsBody(n.Slots)}, nil)
}

// noPreparation lists what jobs of this version never have.
func (c *call) noPreparation() error {
	if _, err := c.job(); err != nil {
		return err
	}
	return c.emptyList("jobpreparationandreleasetaskstatuslist")
}

func (c *call) emptyList(set string) error {
	c.write(http.StatusOK, listBody{Metadata: fmt.Sprintf("%s/$metadata#%s", c.base(), set), Value: []any{}})
	return nil
}
