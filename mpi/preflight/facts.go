// Package preflight judges, before a gang's application starts, whether its
// nodes will carry it: what each node found out about itself (Facts) becomes
// findings that name nodes and say what to do. Who gathers the facts and what
// happens with findings is elsewhere.
//
// A fact that could not be had is nil and is not judged: a check speaks only
// where there is proof.
package preflight

import (
	"net/netip"
	"time"

	"gangway/mpi"
	"gangway/topology"
)

// Facts are what one node says of itself. Sizes are bytes.
type Facts struct {
	Node     string     `json:"node"`     // as the user knows it
	Hostname string     `json:"hostname"` // as the node calls itself
	Index    int        `json:"index"`    // of the member; 0 is the primary
	Ranks    int        `json:"ranks"`
	Address  netip.Addr `json:"address,omitzero"` // of the data plane
	// Interface carries Address.
	Interface  string               `json:"interface,omitempty"`
	Interfaces []topology.Interface `json:"interfaces,omitempty"`
	HCAs       []topology.HCA       `json:"hcas,omitempty"` // without counters

	Memlock   *uint64   `json:"memlock,omitempty"`   // RLIMIT_MEMLOCK of the ranks; MaxUint64: none
	OpenFiles *uint64   `json:"files,omitempty"`     // RLIMIT_NOFILE that a rank can have
	Processes *uint64   `json:"processes,omitempty"` // RLIMIT_NPROC; nil also where it does not bind the user
	Tasks     *uint64   `json:"tasks,omitempty"`     // the user's threads now
	Shm       *Space    `json:"shm,omitempty"`       // /dev/shm
	Tmp       *Space    `json:"tmp,omitempty"`       // TMPDIR of the ranks
	TaskRoot  *Space    `json:"task_root,omitempty"` // where output goes; nil: it is streamed
	Stale     []Stale   `json:"stale,omitempty"`
	Missing   []string  `json:"missing,omitempty"` // libraries that the program's loader does not find
	MPI       *Library  `json:"mpi,omitempty"`     // that the program would get
	Helpers   []string  `json:"helpers,omitempty"` // of those asked for, not there
	Names     []Name    `json:"names,omitempty"`
	Dials     []Dial    `json:"dials,omitempty"`
	Sent      time.Time `json:"sent,omitzero"` // the node's clock when it sent this

	Granted  topology.CPUSet `json:"granted,omitzero"`
	Affinity topology.CPUSet `json:"affinity,omitzero"` // of the process that starts the ranks; empty: unknown
	// Cores are the granted ones; 0: unknown.
	Cores        int `json:"cores,omitempty"`
	CoresPerRank int `json:"cores_per_rank,omitempty"`

	// Failed says what could not be found out, and why.
	Failed []string `json:"failed,omitempty"`
}

// Space is a directory and the file system it is on.
type Space struct {
	Path   string `json:"path"`
	Free   uint64 `json:"free"`
	Inodes uint64 `json:"inodes"`           // free
	NoIno  bool   `json:"no_ino,omitempty"` // the file system has no fixed number of inodes
	Denied string `json:"denied,omitempty"` // why no file can be made there; "": one can
}

// Stale is what dead processes of the same user left.
type Stale struct {
	Path  string `json:"path"` // of the largest
	Kind  string `json:"kind"` // whose, in words
	Glob  string `json:"glob"` // that matches them all
	Count int    `json:"count"`
	Bytes uint64 `json:"bytes"`
}

// Library is a shared library as the node's loader finds it.
type Library struct {
	Soname string `json:"soname"`
	Path   string `json:"path"`           // "": it is not found
	File   string `json:"file,omitempty"` // base name behind all links: libmpich.so.12.2.1
	Size   int64  `json:"size,omitempty"`
	Build  string `json:"build,omitempty"` // GNU build ID; "" unknown
	// Flavour is of the library, "" unknown.
	Flavour mpi.Flavour `json:"flavour,omitempty"`
}

// Name is what a member's host name resolves to on the node.
type Name struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs,omitempty"`
	Err   string       `json:"err,omitempty"`
}

// Dial is a TCP connection that the node tried to make to another's port.
type Dial struct {
	To   int           `json:"to"` // Facts.Index
	Addr string        `json:"addr"`
	Took time.Duration `json:"took"`
	Err  string        `json:"err,omitempty"` // "": connected
}

// Plan is what the gang is about to do.
type Plan struct {
	Flavour mpi.Flavour
	Via     string // mpirun, pmi, direct or primary
	// NeedNames: the launcher finds nodes by their names rather than by their addresses.
	NeedNames     bool
	Full          bool
	Bound         bool // ranks are bound to cpus
	Oversubscribe bool
	Env           []string // of the ranks, K=V
	// Asked is the primary's clock when it asked for facts, Got when each
	// node's came, by Facts.Index; absent: not compared.
	Asked time.Time
	Got   map[int]time.Time
	// Silent are nodes that did not answer.
	Silent []string
}

// parallel says whether ranks of several processes talk through an MPI.
func (p Plan) parallel() bool { return p.Flavour != "" && p.Flavour != mpi.None }

// Level is how bad a finding is.
type Level string

// An error ends the gang before it starts; a warning is told; a note says
// what was set differently because of it.
const (
	Error   Level = "error"
	Warning Level = "warning"
	Note    Level = "note"
)

// Finding is one thing that is not as it should be. Findings of several nodes
// with the same words are one.
type Finding struct {
	Level   Level    `json:"level"`
	Check   string   `json:"check"`
	Nodes   []string `json:"nodes,omitempty"`
	Message string   `json:"message"` // without the nodes' names
	Hint    string   `json:"hint,omitempty"`
}

// Node returns the nodes as a hostlist: n[1-3,7].
func (f Finding) Node() string { return topology.CompactHosts(f.Nodes) }

// String returns "n[1-2]: message; hint".
func (f Finding) String() string {
	s := f.Message
	if n := f.Node(); n != "" {
		s = n + ": " + s
	}
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	return s
}
