package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/topology"
)

// Table names a kind of row.
type Table string

// The tables of a store. Ended attempts move from TableAttempt to TableAutopsy,
// which nothing but a reader of history loads.
const (
	TableMeta     Table = "meta"
	TableJob      Table = "job"
	TableTask     Table = "task"
	TableAttempt  Table = "attempt"
	TablePart     Table = "part"
	TableNode     Table = "node"
	TableTopology Table = "topology"
	TableBlock    Table = "block"
	TableAutopsy  Table = "autopsy"
)

// Row is what a store keeps: a value under a table and a key. In a change, a nil
// Value deletes; with Prefix, it deletes every row of the table whose key begins
// with Key. Values are JSON, but for those of blocks (EncodeBlock); unknown
// fields are ignored, so that rows can gain fields.
type Row struct {
	Table  Table
	Key    string
	Value  []byte
	Prefix bool
}

// CompareRows orders rows by table and key.
func CompareRows(a, b Row) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key))
}

// NumberKey is the key of the numbered row n: keys sort as the numbers do.
func NumberKey(n uint64) string { return fmt.Sprintf("%020d", n) }

// MetaRow is the data set's own row; its key is "meta".
type MetaRow struct {
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"` // of the launcher that wrote last
	Seq     uint64 `json:"seq"`   // last number given to a job, node or block
}

// JobRow is a job, keyed by its uid. Its tasks have rows of their own: Spec has
// none.
type JobRow struct {
	UID       string    `json:"uid"`
	Seq       uint64    `json:"seq"` // order of submission
	Spec      Spec      `json:"spec"`
	Submitted time.Time `json:"submitted"`
	Changed   time.Time `json:"changed,omitzero"` // the last time by a person
	Next      int       `json:"next"`             // index of the next task
	Held      bool      `json:"held,omitempty"`   // disabled: nothing of it is placed
	Cancel    *Reason   `json:"cancel,omitempty"` // asked to end; takes no more tasks
	Deleting  bool      `json:"deleting,omitempty"`
	Ended     time.Time `json:"ended,omitzero"` // nothing of it is left anywhere
}

// TaskRow is a task, keyed by its uid.
type TaskRow struct {
	UID      string    `json:"uid"`
	Job      string    `json:"job"` // uid
	Index    int       `json:"index"`
	Spec     TaskSpec  `json:"spec"` // as submitted
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed,omitzero"`
	Deleting bool      `json:"deleting,omitempty"`
}

// NodeRow is a node, keyed by its name.
type NodeRow struct {
	Name     string    `json:"name"`
	Seq      uint64    `json:"seq"` // the user's order
	State    string    `json:"state"`
	Draining bool      `json:"draining,omitempty"`
	Leaving  bool      `json:"leaving,omitempty"` // removed as soon as nothing is left there
	Since    time.Time `json:"since,omitzero"`
	Why      string    `json:"why,omitempty"` // it is not up
	Agent    string    `json:"agent,omitempty"`
	Boot     string    `json:"boot,omitempty"`
	// Lease is how long what runs there outlives the contact with the launcher
	// of the node's last session.
	Lease time.Duration `json:"lease,omitempty"`
	// NoCrews: the agent of its last session knows none.
	NoCrews bool     `json:"no_crews,omitempty"`
	GPUs    []uint32 `json:"gpus,omitempty"`
	Claims  []Claim  `json:"claims,omitempty"`
	// Guilt are the attempts that speak against the node, Firsts those that
	// began to fail there for reasons that may be the program's; oldest first.
	Guilt      []Guilt `json:"guilt,omitempty"`
	Firsts     []Guilt `json:"firsts,omitempty"`
	DrainedFor string  `json:"drained_for,omitempty"` // drained by the launcher itself, and why
}

// Guilt is an attempt that speaks against a node.
type Guilt struct {
	At      time.Time `json:"at"`
	Attempt string    `json:"attempt"` // id
	Name    string    `json:"name"`    // job and task, for people
	Why     string    `json:"why"`
}

// Claim is what one attempt of another launcher holds on a node.
type Claim struct {
	ID     string          `json:"id"`
	Who    string          `json:"who"`
	CPUs   topology.CPUSet `json:"cpus"`
	Memory uint64          `json:"memory,omitempty"` // bytes
	Shared bool            `json:"shared,omitempty"` // other shared claims may have the same cores
	GPUs   []uint32        `json:"gpus,omitempty"`   // topology.GPUSlot.ID
}

// Try is a run of elements that wait for their next attempt.
type Try struct {
	Range
	Attempt   uint32    `json:"attempt"`             // number of the next attempt, from 1
	Retries   uint32    `json:"retries,omitempty"`   // used up
	Losses    uint32    `json:"losses,omitempty"`    // shims that died under it
	Refusals  uint32    `json:"refusals,omitempty"`  // in a row
	NotBefore time.Time `json:"not_before,omitzero"` // waits until then
	Avoid     []string  `json:"avoid,omitempty"`     // nodes to leave out where others will do
}

// SameHistory reports whether t and o differ in nothing but their elements.
func (t Try) SameHistory(o Try) bool {
	return t.Attempt == o.Attempt && t.Retries == o.Retries && t.Losses == o.Losses && t.Refusals == o.Refusals &&
		t.NotBefore.Equal(o.NotBefore) && slices.Equal(t.Avoid, o.Avoid)
}

// Outcome is a run of elements that ended in the same way.
type Outcome struct {
	Range
	Success  bool    `json:"success,omitempty"`
	ExitCode int     `json:"exit_code,omitempty"`
	Signal   int     `json:"signal,omitempty"`
	Reason   *Reason `json:"reason,omitempty"` // of a failure
}

// BlockRow is a numbered block of outcomes, keyed by BlockKey; EncodeBlock writes
// it. What is
// pending is not stored: it is a task's range without the outcomes of its
// blocks and the ranges of its attempts, with Again added in the blocks' order.
type BlockRow struct {
	Seq     uint64
	Task    string // uid
	Attempt string // id; "": never placed
	At      time.Time
	Done    []Outcome
	Again   []Try
	Node    string     // where its elements ran; "": not said
	Costs   *Costs     // of a crew's elements; nil: not said
	Last    []LastLine // of elements that failed, by index
}

// Costs are what the elements of a crew's block took: an entry for each that ran,
// by index. Those are the elements of Done and Again together.
type Costs struct {
	Attempt []uint32 // number of the attempt
	Start   []int64  // unix microseconds, the node's clock
	Wall    []uint64 // microseconds
	CPU     []uint64 // microseconds, user and system
	RSS     []uint64 // KiB, of the largest process
}

// LastLine is the last line that an element wrote to stderr, at most 512 bytes.
type LastLine struct {
	Index uint64
	Text  string
}

// PartRow is one node's part of an attempt, keyed by PartKey. Parts have rows of
// their own because most news concerns one of them.
type PartRow struct {
	Node      string          `json:"node"`
	FirstRank int             `json:"first_rank"`
	Ranks     int             `json:"ranks"`
	RankList  string          `json:"rank_list,omitempty"` // as topology.FormatRanks, where they are not consecutive
	CPUs      topology.CPUSet `json:"cpus"`                // PUs granted
	Memory    uint64          `json:"memory,omitempty"`
	GPUs      []uint32        `json:"gpus,omitempty"`
	Shared    bool            `json:"shared,omitempty"`
	Address   string          `json:"address,omitempty"`
	Interface string          `json:"interface,omitempty"`

	Seen     bool     `json:"seen,omitempty"` // the node has spoken of it
	Ready    bool     `json:"ready,omitempty"`
	MeshPort uint16   `json:"mesh_port,omitempty"`
	Started  bool     `json:"started,omitempty"`
	Results  []Result `json:"results,omitempty"` // a gang's part has one at most
	Cut      bool     `json:"cut,omitempty"`     // its node is given up, perhaps alive
	Gone     bool     `json:"gone,omitempty"`    // nothing of it is left on the node
	Failure  *Reason  `json:"failure,omitempty"` // refused, not ready, lost
	Unread   bool     `json:"unread,omitempty"`  // lost with a result that its node can't read
}

// AttemptRow is an attempt, keyed by its id. Parts are in rows of their own,
// except in TableAutopsy.
type AttemptRow struct {
	ID        string          `json:"id"`
	Task      string          `json:"task"` // uid
	Try       Try             `json:"try"`  // what it is a try of
	Epoch     uint64          `json:"epoch"`
	State     AttemptState    `json:"state"`
	Placed    time.Time       `json:"placed"`
	Started   time.Time       `json:"started,omitzero"`
	Ended     time.Time       `json:"ended,omitzero"`
	MeshKey   []byte          `json:"mesh_key,omitempty"`
	Nodes     int             `json:"nodes"` // number of parts
	Parts     []PartRow       `json:"parts,omitempty"`
	End       *Reason         `json:"end,omitempty"` // told to end
	EndNow    bool            `json:"end_now,omitempty"`
	EndExit   int             `json:"end_exit,omitempty"` // exit status and signal of what made it end, if a rank did
	EndSignal int             `json:"end_signal,omitempty"`
	Cancel    *Reason         `json:"cancel,omitempty"`  // by whoever may: no further try
	Settled   []Range         `json:"settled,omitempty"` // elements whose outcome is in a block
	Requeue   bool            `json:"requeue,omitempty"` // what is not settled is tried again once it has ended
	Plan      json.RawMessage `json:"plan,omitempty"`
	Verdict   *Outcome        `json:"verdict,omitempty"` // of a gang
	Crew      *CrewRow        `json:"crew,omitempty"`    // nil: it is no crew
}

// CrewRow is what makes an attempt a crew: the worker of an array on one node,
// which is given elements for as long as there are some. Its Try is the first
// that it was given.
type CrewRow struct {
	Slots int   `json:"slots"`          // elements at once
	Open  []Try `json:"open,omitempty"` // given and without a result, in the order to start them
	// Back is what of Open it is asked to give back, sorted and disjoint; what it
	// has started by then it finishes.
	Back  []Range `json:"back,omitempty"`
	Seq   uint64  `json:"seq"`            // grows with each change of Open that the crew is to be told
	Last  bool    `json:"last,omitempty"` // it will be given no more
	Block uint64  `json:"block"`          // number of the last block that was taken in
}

// AttemptID is the id of the attempt that starts at index lo: unique for ever,
// at most 24 bytes, safe as a file name. uid is the task's.
func AttemptID(uid string, lo uint64, attempt uint32) string {
	return uid + "-" + strconv.FormatUint(lo, 36) + "-" + strconv.FormatUint(uint64(attempt), 36)
}

// AttemptNumber is the number in an attempt's id, 0 when it is none.
func AttemptNumber(id string) uint32 {
	n, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 36, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// BlockKey is the key of the block with number seq of a task.
func BlockKey(task string, seq uint64) string { return task + "/" + NumberKey(seq) }

// TaskFolder is where a kept task's files are on its nodes, relative to the
// agents' task root. The layout is Azure Batch's; the job's uid keeps a later
// job of the same id apart.
func TaskFolder(jobID, jobUID, taskID string) string {
	return Folder(jobID, jobUID) + "/" + taskID
}

// Folder is where TaskFolder puts a job's tasks.
func Folder(jobID, jobUID string) string { return "workitems/" + jobID + "/job-" + jobUID }

// PartKey is the key of the part with the given index.
func PartKey(attempt string, index int) string { return fmt.Sprintf("%s/%07d", attempt, index) }

// TaskUID is the uid of the task with the given index in the job.
func TaskUID(jobUID string, index int) string {
	return jobUID + "-" + strconv.FormatInt(int64(index), 36)
}

// Encode returns the row of value, which must be of a type that JSON can hold.
func Encode(t Table, key string, value any) Row {
	b, err := json.Marshal(value)
	if err != nil { // only a value of a foreign type can fail
		panic(fmt.Sprintf("job: row %s/%s can't be encoded: %v", t, key, err))
	}
	return Row{Table: t, Key: key, Value: b}
}

// Decode reads the row's value into v.
func (r Row) Decode(v any) error {
	if err := json.Unmarshal(r.Value, v); err != nil {
		return fmt.Errorf("row %s/%s is damaged: %w; restore the data directory from a backup", r.Table, r.Key, err)
	}
	return nil
}
