package job

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Code classifies a Reason; programs branch on it, people read the rest.
type Code string

// Why a task waits.
const (
	WaitCores      Code = "cores"       // too few are free
	WaitMemory     Code = "memory"      // too little is free
	WaitGPUs       Code = "gpus"        // too few are free
	WaitNodes      Code = "nodes"       // down, draining or not yet connected
	WaitClaimed    Code = "claimed"     // held by another launcher
	WaitSwitches   Code = "switches"    // free nodes are on too many leaf switches
	WaitQueue      Code = "queue"       // behind another task
	WaitBackoff    Code = "backoff"     // until a time, after a refusal
	WaitHeld       Code = "held"        // its job is disabled
	WaitDepends    Code = "depends"     // for tasks that it depends on
	WaitRunning    Code = "max-running" // as many of its job run as may
	Impossible     Code = "impossible"  // no such nodes, ever
	FailNoNetwork  Code = "no-network"  // its nodes share none
	FailNodeLost   Code = "node-lost"
	FailNodeAgent  Code = "node" // the node's agent could not do its part
	FailStaleEpoch Code = "stale-epoch"
)

// Why a task failed, as its shims say.
const (
	FailUnknown        Code = "unknown"
	FailNotFound       Code = "not-found"
	FailNotExecutable  Code = "not-executable"
	FailMPIMismatch    Code = "mpi-mismatch"
	FailMPIMissing     Code = "mpi-missing"
	FailWorkDir        Code = "workdir"
	FailSetup          Code = "setup"
	FailDisk           Code = "disk"
	FailNetwork        Code = "network"
	FailLaunchDeadline Code = "launch-deadline"
	FailRank           Code = "rank"
	FailPeerLost       Code = "peer-lost"
	FailTimeLimit      Code = "time-limit"
	FailCancelled      Code = "cancelled"
	FailRequeued       Code = "requeued" // ended to run again, because its job was disabled
	FailLease          Code = "lease"
	FailShimLost       Code = "shim-lost"
	FailBinding        Code = "binding"
	FailInternal       Code = "internal"
	FailMPIRun         Code = "mpirun"
	FailMemory         Code = "memory-limit"
	FailPreflight      Code = "preflight"
	FailParent         Code = "parent"       // a task that it depends on failed, or is gone
	FailFailures       Code = "max-failures" // too many of its job have failed
	FailExitAction     Code = "exit-action"  // the exit condition of another task ends the job
	FailInput          Code = "input"        // another try would need the input that this one has read
)

// Reason is why something waits, is refused or failed. Want and Have are in the
// unit of the code: cores, bytes, GPUs, nodes.
type Reason struct {
	Code   Code        `json:"code"`
	Want   uint64      `json:"want,omitempty"`
	Have   uint64      `json:"have,omitempty"`
	Nodes  []NodeShort `json:"nodes,omitempty"`  // each node that matters, in the user's order
	Detail string      `json:"detail,omitempty"` // what, where
	Hint   string      `json:"hint,omitempty"`   // what to do
	Signal int         `json:"signal,omitempty"` // FailCancelled: the one that asked for it; 0: none did
}

// NodeShort is one node's side of a Reason, in the Reason's unit.
type NodeShort struct {
	Node   string `json:"node"`
	Want   uint64 `json:"want,omitempty"`
	Have   uint64 `json:"have,omitempty"`
	Detail string `json:"detail,omitempty"` // "down since …", "held by …"
}

// maxShown is how many nodes a sentence names before it only counts them.
const maxShown = 4

// String returns the reason as a sentence without its period.
func (r Reason) String() string {
	var b strings.Builder
	switch {
	case r.Detail != "":
		b.WriteString(r.Detail)
	case r.Want > 0 || r.Have > 0:
		b.WriteString("needs " + needs(r.Code, r.Want, r.Have))
	default:
		b.WriteString(string(r.Code))
	}
	nodes := slices.Clone(r.Nodes)
	nodes = slices.DeleteFunc(nodes, func(n NodeShort) bool {
		return n.Want == 0 && n.Detail == "" && names(r.Detail, n.Node) // said already
	})
	for i, n := range nodes {
		if i == maxShown {
			fmt.Fprintf(&b, ", and %d more nodes", len(nodes)-i)
			break
		}
		b.WriteString([]string{": ", ", "}[min(i, 1)] + n.Node)
		switch {
		case n.Want > 0 && r.Code == WaitMemory:
			fmt.Fprintf(&b, " has %s of %s", Bytes(n.Have), Bytes(n.Want))
		case n.Want > 0:
			fmt.Fprintf(&b, " has %d of %d", n.Have, n.Want)
		}
		if n.Detail != "" {
			b.WriteString(" " + n.Detail)
		}
	}
	if r.Hint != "" {
		b.WriteString("; " + r.Hint)
	}
	return b.String()
}

// names reports whether a word of the text is the name.
func names(text, name string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == ':' || r == ';' }), name)
}

// needs writes "4 cores, 2 free" in the unit of the code.
func needs(c Code, want, have uint64) string {
	unit := "core"
	switch c {
	case WaitMemory:
		return Bytes(want) + ", " + Bytes(have) + " free"
	case WaitGPUs:
		unit = "GPU"
	case WaitNodes:
		unit = "node"
	}
	if want != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s, %d free", want, unit, have)
}

// Bytes writes a size as people do: "1.5 GiB".
func Bytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i:i+1] + "iB"
}

// Result is a node's final record for its part of an attempt, or, on the node
// of index 0, the record of the whole gang.
type Result struct {
	Range     Range         `json:"range"`
	ExitCode  int           `json:"exit_code,omitempty"`
	Signal    int           `json:"signal,omitempty"` // 0: exited
	Failure   *Reason       `json:"failure,omitempty"`
	Ranks     []RankExit    `json:"ranks,omitempty"`
	Start     time.Time     `json:"start,omitzero"` // node's clock
	End       time.Time     `json:"end,omitzero"`
	MaxRSS    uint64        `json:"max_rss,omitempty"` // bytes, of the largest process
	User      time.Duration `json:"user,omitempty"`
	System    time.Duration `json:"system,omitempty"`
	OutputEnd uint64        `json:"output_end,omitempty"` // length of the part's output sequence, bytes
	FirstRank int           `json:"first_rank"`           // that failed; -1: none
	FirstNode string        `json:"first_node,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"` // such as output lost on a full disk
	Autopsy   *Autopsy      `json:"autopsy,omitempty"`  // of an attempt that did not end well
}

// Success reports whether the part ended well.
func (r Result) Success() bool { return r.Failure == nil && r.ExitCode == 0 && r.Signal == 0 }

// RankExit is how one rank ended.
type RankExit struct {
	Rank       int       `json:"rank"`
	ExitCode   int       `json:"exit_code,omitempty"`
	Signal     int       `json:"signal,omitempty"`
	Killed     bool      `json:"killed,omitempty"` // by gangway, after another's failure
	LastStderr string    `json:"last_stderr,omitempty"`
	End        time.Time `json:"end,omitzero"`
	Phase      string    `json:"phase,omitempty"` // where it was in MPI: start, init, running, finalize, done; "": unknown
}
