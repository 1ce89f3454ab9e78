package batchapi

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
)

type nameValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// taskBody is what a client says of a task and reads back: job.TaskSpec.API.
type taskBody struct {
	DisplayName   string             `json:"displayName,omitempty"`
	CommandLine   string             `json:"commandLine"`
	Environment   []nameValue        `json:"environmentSettings,omitempty"`
	Affinity      *affinity          `json:"affinityInfo,omitempty"`
	Constraints   *taskConstraints   `json:"constraints,omitempty"`
	RequiredSlots int                `json:"requiredSlots,omitempty"`
	User          *userIdentity      `json:"userIdentity,omitempty"`
	MultiInstance *multiInstanceBody `json:"multiInstanceSettings,omitempty"`
	DependsOn     *dependsBody       `json:"dependsOn,omitempty"`
	Exit          *exitBody          `json:"exitConditions,omitempty"`
	Gangway       *extension         `json:"gangway,omitempty"`
}

type affinity struct {
	ID string `json:"affinityId"`
}

type taskConstraints struct {
	MaxWallClockTime string `json:"maxWallClockTime"`
	RetentionTime    string `json:"retentionTime"`
	MaxTaskRetry     int    `json:"maxTaskRetryCount"`
}

type userIdentity struct {
	Username string    `json:"username,omitempty"`
	AutoUser *autoUser `json:"autoUser,omitempty"`
}

type autoUser struct {
	Scope     string `json:"scope,omitempty"`
	Elevation string `json:"elevationLevel,omitempty"`
}

type multiInstanceBody struct {
	Instances    int    `json:"numberOfInstances"`
	Coordination string `json:"coordinationCommandLine"`
}

// readTask reads the body of a task to add.
func readTask(p *props, in Job) (job.TaskSpec, error) {
	t := taskBody{}
	id, ok := p.text("id", job.MaxID)
	p.need("id", ok)
	if ok && !goodID(id) {
		p.bad("id", id, "allowed are 1 to 64 characters of A-Z a-z 0-9 _ -")
	}
	t.DisplayName, _ = p.text("displayName", 1024)
	var argv []string
	t.CommandLine, ok = p.text("commandLine", 128<<10)
	p.need("commandLine", ok)
	if ok {
		var err error
		if argv, err = splitCommand(t.CommandLine); err != nil {
			p.bad("commandLine", t.CommandLine, err.Error())
		}
	}
	t.Environment = readEnvironment(p, "environmentSettings")
	if a := p.object("affinityInfo"); a != nil {
		s, ok := a.text("affinityId", 1024)
		a.need("affinityId", ok)
		a.close()
		t.Affinity = &affinity{s}
	}
	retries, limit := in.Retries, time.Duration(0)
	if k := p.object("constraints"); k != nil {
		t.Constraints = &taskConstraints{}
		*t.Constraints, retries, limit = readTaskConstraints(k, in.Retries)
	}
	t.RequiredSlots, _ = p.number("requiredSlots", 1, 1<<16)
	t.User = readUser(p, in)
	if m := p.object("multiInstanceSettings"); m != nil {
		t.MultiInstance = readMultiInstance(m)
	}
	t.DependsOn, t.Exit = readDepends(p, in), readExit(p, in)
	if g := p.object("gangway"); g != nil {
		t.Gangway = readExtension(g)
	}
	refuseTaskProps(p)
	if err := p.finish(); err != nil {
		return job.TaskSpec{}, err
	}
	return t.spec(id, argv, retries, limit, in)
}

func goodID(id string) bool {
	return id != "" && len(id) <= job.MaxID && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	})
}

// refuseTaskProps names what Batch's tasks have and gangway's do not.
func refuseTaskProps(p *props) {
	p.refuse("; let the command fetch them", "resourceFiles")
	p.refuse("; let the command store them", "outputFiles")
	p.refuse("; let the command fetch them", "applicationPackageReferences")
	p.refuse("; start it in the command, as with apptainer exec", "containerSettings")
	p.refuse("", "authenticationTokenSettings")
}

func readTaskConstraints(k *props, jobRetries int) (c taskConstraints, retries int, limit time.Duration) {
	limit = k.duration("maxWallClockTime")
	retention := job.DefaultRetention
	if k.has("retentionTime") {
		retention = k.duration("retentionTime")
	}
	retries = jobRetries
	if n, ok := k.number("maxTaskRetryCount", -1, math.MaxInt32); ok {
		if n > 1000 {
			k.bad("maxTaskRetryCount", fmt.Sprint(n), "allowed is -1 (no limit) to 1000")
		}
		retries = n
	}
	k.close()
	return taskConstraints{formatDuration(limit), formatDuration(retention), retries}, retries, limit
}

// retention is job.TaskSpec's Retention.
func (k *taskConstraints) retention() time.Duration {
	if k == nil {
		return 0
	}
	d, limited, err := parseDuration(k.RetentionTime)
	switch {
	case err != nil || d == job.DefaultRetention:
		return 0
	case !limited:
		return -1
	}
	return d
}

func readEnvironment(p *props, name string) []nameValue {
	var all []nameValue
	p.each(name, 10_000, func(e *props) {
		n, ok := e.text("name", 1024)
		e.need("name", ok)
		v, _ := e.text("value", 128<<10)
		if ok && (n == "" || strings.ContainsAny(n, "=\n")) {
			e.bad("name", n, "it is no name of an environment variable")
			return
		}
		all = append(all, nameValue{n, v})
	})
	return all
}

// readUser accepts what comes to the same: every task runs as its owner's user on
// the node.
func readUser(p *props, in Job) *userIdentity {
	u := p.object("userIdentity")
	if u == nil {
		return nil
	}
	defer u.close()
	r := &userIdentity{}
	if name, ok := u.text("username", 256); ok {
		r.Username = name
		if name != in.NodeUser {
			u.bad("username", name, "tasks run as the node user of the job's owner; leave it out")
		}
	}
	if a := u.object("autoUser"); a != nil {
		r.AutoUser = &autoUser{}
		r.AutoUser.Scope, _ = a.enum("scope", "task", "pool")
		r.AutoUser.Elevation, _ = a.enum("elevationLevel", "nonadmin", "admin")
		if r.AutoUser.Elevation == "admin" {
			a.bad("elevationLevel", "admin", "tasks never run with more rights than the node user of the job's owner")
		}
		a.close()
	}
	return r
}

func readMultiInstance(m *props) *multiInstanceBody {
	r := &multiInstanceBody{Instances: 1}
	if n, ok := m.number("numberOfInstances", 1, job.MaxRanks); ok {
		r.Instances = n
	}
	r.Coordination, _ = m.text("coordinationCommandLine", 128<<10)
	if strings.TrimSpace(r.Coordination) != "" {
		if _, err := splitCommand(r.Coordination); err != nil {
			m.bad("coordinationCommandLine", r.Coordination, err.Error())
		}
	}
	m.refuse("; let the command fetch them", "commonResourceFiles")
	m.close()
	return r
}

// spec makes the task's specification. in is the job that it is of.
func (t taskBody) spec(id string, argv []string, retries int, limit time.Duration, in Job) (job.TaskSpec, error) {
	var common jobBody
	_ = json.Unmarshal(in.API, &common) // "" has none
	s := job.TaskSpec{ID: id, Kind: job.Single, Command: argv, Retries: retries, TimeLimit: limit, Retention: t.Constraints.retention(),
		DependsOn: t.DependsOn.list(), Exit: t.Exit.conditions()}
	env, ext, err := splitEnvironment(slices.Concat(common.Environment, t.Environment))
	if err != nil {
		return s, err
	}
	s.Env = env
	if t.Gangway != nil {
		if ext, err = ext.merge(*t.Gangway); err != nil {
			return s, err
		}
	}
	slots := max(t.RequiredSlots, 1)
	switch m := t.MultiInstance; {
	case m != nil:
		s.Kind, s.Nodes = job.Gang, m.Instances
		s.Launch = job.LaunchPrimary
		if ext.MPI != nil {
			s.Launch = job.LaunchRanks
		}
		if ext.Ranks == nil && ext.RanksPerNode == nil {
			s.RanksPerNode = slots
		}
		if c := strings.TrimSpace(m.Coordination); c != "" {
			words, err := splitCommand(c)
			if err != nil {
				return s, invalidProperty("multiInstanceSettings.coordinationCommandLine", c, err.Error())
			}
			// A set-up script runs on every node before the launch and must succeed,
			// which is what a coordination command is for. The parentheses keep what
			// it does to its own shell.
			s.Setup = &job.Setup{Name: "coordinationCommandLine", Script: []byte("( exec " + joinCommand(words) + " )\n")}
		}
	case ext.MPI != nil || ext.Ranks != nil || ext.RanksPerNode != nil:
		s.Kind, s.Launch = job.Gang, job.LaunchRanks
		if ext.MPI == nil {
			s.Launch = job.LaunchPrimary
		}
		if ext.Ranks == nil {
			s.Nodes = 1
		}
		if ext.Ranks == nil && ext.RanksPerNode == nil {
			s.RanksPerNode = slots
		}
	default:
		s.CoresPerRank = slots
	}
	ext.apply(&s)
	if b, err := encodeJSON(t); err == nil {
		s.API = b
	}
	return s, checkSpec(s)
}

// checkSpec holds a task against what every task must be, and words what is
// wrong by the properties that it came from.
func checkSpec(s job.TaskSpec) error {
	err := job.ValidateTasks([]job.TaskSpec{s}) // what it depends on is the job's to know
	problems, ok := err.(job.Problems)
	if !ok {
		return err
	}
	names := map[string]string{
		"id": "id", "command": "commandLine", "env": "environmentSettings", "time": "constraints.maxWallClockTime", "retention": "constraints.retentionTime", "retries": "constraints.maxTaskRetryCount",
		"nodes": "multiInstanceSettings.numberOfInstances", "cores-per-rank": "requiredSlots", "ranks": "gangway.ranks", "ranks-per-node": "gangway.ranksPerNode",
		"gpus-per-rank": "gangway.gpusPerRank", "mem-per-rank": "gangway.memPerRank", "mpi": "gangway.mpi", "via": "gangway.via", "bind": "gangway.bind",
		"threads": "gangway.threads", "smt": "gangway.smt", "optimize": "gangway.optimize", "no-greedy": "gangway.noGreedy", "preflight": "gangway.preflight",
		"launch": "gangway.launch", "switches": "gangway.switches", "switches-wait": "gangway.switchesWait", "spread": "gangway.spread", "distribution": "gangway.distribution", "on-node-loss": "gangway.onNodeLoss", "kill-grace": "gangway.killGrace", "launch-deadline": "gangway.launchDeadline",
		"range": "gangway.array", "sweep": "gangway.sweep", "workdir": "gangway.workdir", "exit": "exitConditions", "depends-on": "dependsOn", "priority": "gangway.priority",
		"backoff": "gangway.backoff", "backoff-max": "gangway.backoffMax", "signal": "gangway.signal",
	}
	f := invalidProperty("", "", "")
	f.values = nil
	for _, p := range problems {
		field := strings.TrimPrefix(p.Field, "tasks[0].")
		if n := names[field]; n != "" {
			field = n
		}
		f.values = append(f.values, detail{"PropertyName", field}, detail{"Reason", p.Text})
	}
	return f
}

// bodyOf is what a client reads of a task; one that did not come through the API
// is described by its specification.
func bodyOf(s job.TaskSpec) taskBody {
	var t taskBody
	if len(s.API) > 0 && json.Unmarshal(s.API, &t) == nil {
		if t.Constraints == nil {
			t.Constraints = constraintsOf(s)
		}
		t.RequiredSlots = max(t.RequiredSlots, 1)
		return t
	}
	s = s.Resolve()
	t = taskBody{CommandLine: joinCommand(s.Command), Constraints: constraintsOf(s), RequiredSlots: s.CoresPerRank}
	for _, e := range s.Env {
		k, v, _ := strings.Cut(e, "=")
		t.Environment = append(t.Environment, nameValue{k, v})
	}
	if s.Kind == job.Gang {
		t.MultiInstance = &multiInstanceBody{Instances: max(s.Nodes, 1)}
		t.RequiredSlots = max(s.RanksPerNode, 1) * s.CoresPerRank
		ext := extensionOf(s)
		t.Gangway = &ext
	}
	t.order(s)
	return t
}

func constraintsOf(s job.TaskSpec) *taskConstraints {
	keep := s.Retention
	if keep == 0 {
		keep = job.DefaultRetention
	}
	return &taskConstraints{formatDuration(s.TimeLimit), formatDuration(keep), s.Retries}
}
