// Package job is the launcher's vocabulary: what a user asks for (Spec), how it
// is checked (Validate), the states that tasks and attempts go through, why
// something waits or fails (Reason), how something ended (Result), and the rows
// that a store keeps. It is pure data; launcher/state gives it life.
//
// A task stands for a range of indices, an array, and is never expanded into
// one object per element; a task that is no array is the range [0, 1).
package job

import (
	"encoding/json"
	"strconv"
	"time"

	"gangway/nodeagent/wire/sweep"
)

// Limits of a Spec.
const (
	MaxArray    = 10_000_000 // elements of one task
	MaxRanks    = 1 << 20    // ranks of one gang
	MaxPriority = 1000       // either side of 0
	MaxID       = 64         // bytes of a job's or task's id
	MaxAtOnce   = 4096       // elements of an array at once on a node
)

// Range is the half-open interval [Lo, Hi) of an array's indices.
type Range struct {
	Lo uint64 `json:"lo"`
	Hi uint64 `json:"hi"`
}

// Len returns the number of indices in the range.
func (r Range) Len() uint64 {
	if r.Hi <= r.Lo {
		return 0
	}
	return r.Hi - r.Lo
}

// Contains reports whether o lies within r.
func (r Range) Contains(o Range) bool { return r.Lo <= o.Lo && o.Hi <= r.Hi }

// String returns "3" for one index and "3-7" for several, the last included.
func (r Range) String() string {
	if r.Len() == 1 {
		return strconv.FormatUint(r.Lo, 10)
	}
	if r.Len() == 0 {
		return ""
	}
	return strconv.FormatUint(r.Lo, 10) + "-" + strconv.FormatUint(r.Hi-1, 10)
}

// Spec is a job as submitted.
type Spec struct {
	ID       string `json:"id"`                 // of A-Z a-z 0-9 _ -, at most MaxID
	Priority int    `json:"priority,omitempty"` // -MaxPriority to MaxPriority; higher goes first
	Pool     string `json:"pool,omitempty"`     // as ID; "": the launcher's only one
	Session  bool   `json:"session,omitempty"`  // ends with the launcher that submitted it
	Owner    string `json:"owner,omitempty"`    // principal who submitted it; only admins touch others' jobs
	User     string `json:"user,omitempty"`     // whom its tasks run as on the nodes; "": the agents' user
	// KeepOpen leaves the job open for more tasks until it is terminated;
	// without it the job ends with its last task.
	KeepOpen bool          `json:"keep_open,omitempty"`
	MaxTime  time.Duration `json:"max_time,omitempty"` // from submission to the end of all its tasks; 0: no limit
	Retries  int           `json:"retries,omitempty"`  // of its tasks that have none of their own; as TaskSpec.Retries
	// MaxFailures ends the job when more tasks and elements than that have failed
	// for good; nil: it goes on. Those that ended for a parent, or because someone
	// asked for it, don't count.
	MaxFailures *int `json:"max_failures,omitempty"`
	MaxRunning  int  `json:"max_running,omitempty"` // tasks and elements at once, 1 to MaxArray; 0: no limit
	// ExitActions carries out the job actions of its tasks' exit conditions.
	ExitActions bool `json:"exit_actions,omitempty"`
	// API is what the public API keeps for its clients: JSON that means
	// nothing to the launcher.
	API   json.RawMessage `json:"api,omitempty"`
	Tasks []TaskSpec      `json:"tasks,omitempty"`
}

// Kind says whether a task is one process tree on one node or a gang.
type Kind string

// The kinds of tasks.
const (
	Single Kind = "single"
	Gang   Kind = "gang" // ranks on one or more nodes, placed and ended together
)

// Launch says what gangway starts.
type Launch string

// The ways to launch a gang.
const (
	LaunchRanks   Launch = "ranks"   // the command once per rank
	LaunchPrimary Launch = "primary" // the command once, on the first node
)

// NodeLoss says what becomes of a task when a node that it runs on is lost.
type NodeLoss string

// The answers to the loss of a node; "" is NodeLossRequeue.
const (
	NodeLossRequeue NodeLoss = "requeue" // a new attempt, once the old one is surely gone
	NodeLossFail    NodeLoss = "fail"    // the task fails at once
	NodeLossWait    NodeLoss = "wait"    // until the node is back
)

// Spread says how the nodes of a gang that needs several leaf switches are dealt.
type Spread string

// The ways to spread.
const (
	SpreadPack    Spread = "pack"    // whole leaves, and the rest on the tightest that holds it
	SpreadBalance Spread = "balance" // as many on each of those leaves
)

// Distribution is which ranks of a gang are on which of its nodes. How many each
// node has is the placement's.
type Distribution string

// The distributions.
const (
	DistributionBlock  Distribution = "block"  // a node's ranks follow each other
	DistributionCyclic Distribution = "cyclic" // dealt in rounds: a rank for each node that still lacks one
)

// NodeRanks is a number of ranks on one named node.
type NodeRanks struct {
	Node  string `json:"node"`
	Ranks int    `json:"ranks"`
}

// TaskSpec is a task as submitted. Zero values are defaults: a task of kind
// single is one element, one rank, one core.
type TaskSpec struct {
	ID    string `json:"id"` // as Spec.ID
	Kind  Kind   `json:"kind"`
	Range Range  `json:"range"` // [0, 1) unless an array; Lo is 0 or 1; of a sweep [1, N+1)

	// Sweep is what varies between the elements of an array. Its values replace
	// placeholders, as package sweep has them, in Command, the values of Env,
	// WorkDir and Title, and those in Vary, where they make up other fields, by
	// their names in job files.
	Sweep *sweep.Sweep      `json:"sweep,omitempty"`
	Vary  map[string]string `json:"vary,omitempty"`
	Title string            `json:"title,omitempty"` // what each element is called, for people

	Nodes int `json:"nodes,omitempty"` // of a gang; 0: as many as it takes
	Ranks int `json:"ranks,omitempty"` // of a gang; 0: Nodes × RanksPerNode, or PerNode's sum
	// RanksPerNode is exact; without Nodes, the last node may have fewer. 0: as
	// they fit.
	RanksPerNode int         `json:"ranks_per_node,omitempty"`
	PerNode      []NodeRanks `json:"per_node,omitempty"` // uneven, by name, in rank order; excludes RanksPerNode

	Distribution Distribution `json:"distribution,omitempty"` // of a gang; "" is block

	CoresPerRank  int    `json:"cores_per_rank,omitempty"` // whole cores; 0: as many as Threads need, or 1
	GPUsPerRank   int    `json:"gpus_per_rank,omitempty"`  // 0: none; with bind gpu 1
	MemPerRank    uint64 `json:"mem_per_rank,omitempty"`   // bytes; 0: not counted
	Oversubscribe bool   `json:"oversubscribe,omitempty"`  // ranks may share cores when there are too few

	// Switches is the number of leaf switches (leaf sets, where every rail has a
	// leaf of its own) that a gang is to be on at most, 0: any. It waits for
	// such a place until SwitchesWait after its submission, 0: for ever. Both
	// mean nothing to a launcher that knows no fabric.
	Switches     int           `json:"switches,omitempty"`
	SwitchesWait time.Duration `json:"switches_wait,omitempty"`
	Spread       Spread        `json:"spread,omitempty"` // over leaf switches, if it must; "" is SpreadPack

	// AtOnce is how many elements of an array run at once on a node, 0: as many as
	// fit. With Oversubscribe so many do, however few cores a node has.
	AtOnce int `json:"at_once,omitempty"`

	MPI    string `json:"mpi,omitempty"` // auto, mpich, intel, openmpi, msmpi or none; "" is auto, of a single task none
	Launch Launch `json:"launch,omitempty"`
	Via    string `json:"via,omitempty"`  // auto, mpirun or pmi; "" is auto
	Bind   string `json:"bind,omitempty"` // auto, core, numa, socket, gpu or none; "" is auto
	// Threads, SMT, Optimize and NoGreedy are what package bind maps ranks by.
	// Optimize and NoGreedy are for bind auto.
	Threads  int    `json:"threads,omitempty"`   // of a rank; 0: one a core of its own
	SMT      int    `json:"smt,omitempty"`       // PUs to use of each core; 0: as the binding has it
	Optimize string `json:"optimize,omitempty"`  // gpu or cpu: what decides how many ranks a NUMA node gets; "" is gpu
	NoGreedy bool   `json:"no_greedy,omitempty"` // a rank stays within a NUMA node also when there are fewer ranks

	Preflight string `json:"preflight,omitempty"` // off, fast or full: checks on the nodes before the start; "" is fast

	Network string `json:"network,omitempty"` // data plane: an interface's name or a CIDR; "" chooses

	TimeLimit      time.Duration `json:"time_limit,omitempty"`      // 0: none
	KillGrace      time.Duration `json:"kill_grace,omitempty"`      // from SIGTERM to SIGKILL
	LaunchDeadline time.Duration `json:"launch_deadline,omitempty"` // for all ranks to be there; 0: the launcher's default

	Command  []string `json:"command"`
	WorkDir  string   `json:"workdir,omitempty"`  // "": the user's home
	Env      []string `json:"env,omitempty"`      // K=V, applied after the set-up script
	EnvBase  []string `json:"env_base,omitempty"` // K=V to begin with; empty: the node's own environment
	Setup    *Setup   `json:"setup,omitempty"`
	Stdin    bool     `json:"stdin,omitempty"` // rank 0, or the primary, reads the client's stdin
	StdinTTY bool     `json:"stdin_tty,omitempty"`
	Bcast    bool     `json:"bcast,omitempty"`     // copy the program to the nodes first
	PlanOnly bool     `json:"plan_only,omitempty"` // prepare and tell; start nothing

	Retries int `json:"retries,omitempty"` // attempts after the first when it exits other than 0; -1: no limit
	// Backoff is the pause before the first retry; each that follows waits twice as
	// long as the one before, at most BackoffMax (0: DefaultBackoffMax). 0: none.
	Backoff        time.Duration `json:"backoff,omitempty"`
	BackoffMax     time.Duration `json:"backoff_max,omitempty"`
	RetryElsewhere bool          `json:"retry_elsewhere,omitempty"` // leave the node out where it failed, if others will do

	Priority  int             `json:"priority,omitempty"`   // within the job, before the order of submission; as Spec.Priority
	DependsOn []Dependency    `json:"depends_on,omitempty"` // it starts when all are satisfied
	Exit      *ExitConditions `json:"exit,omitempty"`       // what follows from how it ends; nil: nothing does

	// SoftSignal is sent to its processes SoftBefore ahead of TimeLimit; both or
	// neither.
	SoftSignal int           `json:"soft_signal,omitempty"` // Linux's number, 1 to 64
	SoftBefore time.Duration `json:"soft_before,omitempty"`

	OnNodeLoss NodeLoss `json:"on_node_loss,omitempty"`

	// Retention is how long a kept task's directories stay on the nodes after
	// its end; 0: DefaultRetention, negative: until the task is deleted.
	Retention time.Duration `json:"retention,omitempty"`

	API json.RawMessage `json:"api,omitempty"` // as Spec.API
}

// DefaultRetention is Azure Batch's.
const DefaultRetention = 7 * 24 * time.Hour

// Setup is a script that a shell sources before detection and launch.
type Setup struct {
	Name   string `json:"name"` // for messages
	Script []byte `json:"script"`
}

// Resolve returns the specification with what follows from its other fields
// filled in: kinds, ranges, counts, defaults. It changes nothing that is set;
// Validate says whether the whole makes sense.
func (t TaskSpec) Resolve() TaskSpec {
	if t.Kind == "" {
		t.Kind = Single
	}
	if t.Range == (Range{}) {
		t.Range = t.Elements()
	}
	if t.Kind == Single {
		t.Ranks, t.Nodes = max1(t.Ranks), max1(t.Nodes)
		if t.MPI == "" {
			t.MPI = "none" // one process needs no mpirun, whatever it links
		}
	}
	if len(t.PerNode) > 0 {
		if t.Nodes == 0 {
			t.Nodes = len(t.PerNode)
		}
		if t.Ranks == 0 {
			for _, p := range t.PerNode {
				t.Ranks += min(max(p.Ranks, 0), MaxRanks+1)
			}
		}
	} else if p := t.RanksPerNode; p > 0 && p <= MaxRanks {
		switch {
		case t.Ranks == 0 && t.Nodes > 0 && t.Nodes <= MaxRanks:
			t.Ranks = t.Nodes * p
		case t.Nodes == 0 && t.Ranks > 0 && t.Ranks%p == 0: // else the last node has fewer
			t.Nodes = t.Ranks / p
		}
	}
	if t.CoresPerRank == 0 && t.Threads > 0 {
		pus := max1(max(t.SMT, 0))
		t.CoresPerRank = (t.Threads-1)/pus + 1
	}
	t.CoresPerRank = max1(t.CoresPerRank)
	if t.Bind == "gpu" && t.Launch != LaunchPrimary {
		t.GPUsPerRank = max1(t.GPUsPerRank)
	}
	t.MPI, t.Via, t.Bind = orAuto(t.MPI), orAuto(t.Via), orAuto(t.Bind)
	if t.Launch == "" {
		t.Launch = LaunchRanks
	}
	if t.OnNodeLoss == "" {
		t.OnNodeLoss = NodeLossRequeue
	}
	return t
}

func max1(n int) int {
	if n == 0 {
		return 1
	}
	return n
}

func orAuto(s string) string {
	if s == "" {
		return "auto"
	}
	return s
}
