package client

import (
	"encoding/json"
	"slices"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/topology"
)

// Job is a job as the API shows it. Encoded again as JSON it is what the launcher
// sent, whole. So are [Task], [Node] and [Pool].
type Job struct {
	ID        string    `json:"id"`
	State     string    `json:"state"` // active, disabling, disabled, terminating, completed, deleting
	Created   time.Time `json:"creationTime"`
	StateAt   time.Time `json:"stateTransitionTime"`
	Priority  int       `json:"priority"`
	OnAll     string    `json:"onAllTasksComplete"` // terminatejob; noaction: the job stays open for more
	Pool      PoolRef   `json:"poolInfo"`
	Execution struct {
		Start  time.Time `json:"startTime"`
		End    time.Time `json:"endTime"`
		Reason string    `json:"terminateReason"`
	} `json:"executionInfo"`
	Gangway struct {
		Owner string `json:"owner"`
	} `json:"gangway"`

	raw json.RawMessage
}

// PoolRef names a pool.
type PoolRef struct {
	ID string `json:"poolId"`
}

// Ended reports whether the job has completed.
func (j Job) Ended() bool { return j.State == string(job.JobCompleted) }

// Open reports whether the job stays open when its tasks have all ended.
func (j Job) Open() bool { return j.OnAll != "terminatejob" }

// Task is a task as the API shows it.
type Task struct {
	ID          string        `json:"id"`
	State       job.TaskState `json:"state"`
	Created     time.Time     `json:"creationTime"`
	StateAt     time.Time     `json:"stateTransitionTime"`
	CommandLine string        `json:"commandLine"`
	Execution   Execution     `json:"executionInfo"`
	Node        struct {
		ID     string `json:"nodeId"`
		Folder string `json:"taskRootDirectory"`
	} `json:"nodeInfo"`
	MultiInstance struct {
		Instances int `json:"numberOfInstances"`
	} `json:"multiInstanceSettings"`

	raw json.RawMessage
}

// Execution is how a task ran.
type Execution struct {
	Start    time.Time `json:"startTime"`
	End      time.Time `json:"endTime"`
	Exit     *int      `json:"exitCode"`
	Result   string    `json:"result"` // success, failure; "" until it has ended
	Retries  int       `json:"retryCount"`
	Requeues int       `json:"requeueCount"`
	Failure  *Failure  `json:"failureInfo"`
}

// Failure is why a task failed.
type Failure struct {
	Category string `json:"category"` // usererror, servererror
	Code     string `json:"code"`
	Message  string `json:"message"`
	Details  []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"details"`
}

// detail returns a detail; "" if it is not there.
func (f *Failure) detail(name string) string {
	if f == nil {
		return ""
	}
	for _, d := range f.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return ""
}

// Reason is gangway's code of why the task failed; "" if there is none: it only
// exited with a status other than 0.
func (f *Failure) Reason() job.Code { return job.Code(f.detail("GangwayCode")) }

// Sentence says why the task failed; "" of nil.
func (f *Failure) Sentence() string {
	if f == nil {
		return ""
	}
	if s := f.detail("Message"); s != "" {
		return s
	}
	return f.Message
}

// Counts are the elements of a job's tasks by state.
type Counts struct {
	Active    uint64 `json:"active"`
	Running   uint64 `json:"running"` // those that prepare too
	Completed uint64 `json:"completed"`
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`
}

// Total is how many there are.
func (n Counts) Total() uint64 { return n.Active + n.Running + n.Completed }

// Node is a machine of a pool as the API shows it.
type Node struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`           // idle, running, offline, unusable, unknown, starting, …
	Scheduling string    `json:"schedulingState"` // enabled, disabled
	StateAt    time.Time `json:"stateTransitionTime"`
	Address    string    `json:"ipAddress"`
	Running    int       `json:"runningTasksCount"`
	RunSlots   int       `json:"runningTaskSlotsCount"`
	Agent      struct {
		Version string `json:"version"`
	} `json:"nodeAgentInfo"`
	Recent []struct {
		Job   string        `json:"jobId"`
		Task  string        `json:"taskId"`
		State job.TaskState `json:"taskState"`
	} `json:"recentTasks"`
	Errors  []Trouble `json:"errors"`
	Gangway struct {
		Cores    int            `json:"cores"`
		Memory   uint64         `json:"memory"`   // bytes
		Usage    *Usage         `json:"usage"`    // nil: not sampled yet
		Topology *topology.Node `json:"topology"` // of a single node; nil: never seen, or a list
	} `json:"gangway"`

	raw json.RawMessage
}

// Drained reports whether nothing is placed on the node and nothing runs there.
func (n Node) Drained() bool { return n.Scheduling == "disabled" && n.Running == 0 }

// Trouble is an error of a node or a pool.
type Trouble struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Pool is a set of nodes as the API shows it.
type Pool struct {
	ID      string    `json:"id"`
	State   string    `json:"state"`
	Created time.Time `json:"creationTime"`
	Nodes   int       `json:"currentDedicatedNodes"`
	Slots   int       `json:"taskSlotsPerNode"`
	Size    string    `json:"vmSize"`
	Errors  []Trouble `json:"resizeErrors"`

	raw json.RawMessage
}

// Explanation is why a task is where it is.
type Explanation struct {
	Job      string        `json:"job"`
	Task     string        `json:"task"`
	State    job.TaskState `json:"state"`
	Reason   *job.Reason   `json:"reason,omitempty"`
	Sentence string        `json:"sentence"`
	StartAt  time.Time     `json:"startAt,omitzero"` // when it can start at the latest, if that is known
	Autopsy  []RankEnd     `json:"autopsy,omitempty"`
	Death    string        `json:"death,omitempty"` // of a gang that failed: its last failed attempt's, in a line
}

// Autopsy is the report on a failed attempt, and what was done about the nodes
// that it suspects.
type Autopsy struct {
	Job  string `json:"job"`
	Task string `json:"task"`
	batchapi.Autopsy
}

// RankEnd is how one rank of a gang ended.
type RankEnd struct {
	Rank   int      `json:"rank"`
	Node   string   `json:"node"`
	Exit   int      `json:"exit"`
	Signal int      `json:"signal,omitempty"`
	Stderr []string `json:"stderr,omitempty"` // its last lines
}

// decode keeps what was sent beside what is read of it.
func decode(text []byte, raw *json.RawMessage, into any) error {
	*raw = slices.Clone(text)
	return json.Unmarshal(text, into)
}

func encode(raw json.RawMessage) ([]byte, error) {
	if raw == nil {
		return []byte("null"), nil
	}
	return raw, nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (j *Job) UnmarshalJSON(text []byte) error {
	type plain Job
	return decode(text, &j.raw, (*plain)(j))
}

// MarshalJSON returns what the launcher sent.
func (j Job) MarshalJSON() ([]byte, error) { return encode(j.raw) }

// UnmarshalJSON implements json.Unmarshaler.
func (t *Task) UnmarshalJSON(text []byte) error {
	type plain Task
	return decode(text, &t.raw, (*plain)(t))
}

// MarshalJSON returns what the launcher sent.
func (t Task) MarshalJSON() ([]byte, error) { return encode(t.raw) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Node) UnmarshalJSON(text []byte) error {
	type plain Node
	return decode(text, &n.raw, (*plain)(n))
}

// MarshalJSON returns what the launcher sent.
func (n Node) MarshalJSON() ([]byte, error) { return encode(n.raw) }

// UnmarshalJSON implements json.Unmarshaler.
func (p *Pool) UnmarshalJSON(text []byte) error {
	type plain Pool
	return decode(text, &p.raw, (*plain)(p))
}

// MarshalJSON returns what the launcher sent.
func (p Pool) MarshalJSON() ([]byte, error) { return encode(p.raw) }
