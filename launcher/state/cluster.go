package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

// Change is what an event did.
type Change struct {
	Rows    []job.Row // to commit, in order; a nil value deletes
	Touched []string  // nodes whose Desired may have changed, sorted
	Replan  bool      // slots, nodes or pending work changed: Plan may decide anew
	Notices []Notice  // in order
}

// Notice tells what people and waiting clients want to hear.
type Notice struct {
	Kind     NoticeKind
	Job      string          // uid
	Task     string          // uid
	Attempt  string          // id
	Node     string          // where it happened; "" if nowhere in particular
	Folder   string          // TaskForgotten, JobForgotten: of its files on the nodes
	Elements bool            // TaskForgotten: its elements have folders of their own, beside Folder
	Outcome  *job.Outcome    // TaskDone: of these elements; TaskAgain: of the try before
	Block    *job.BlockRow   // TaskDone, TaskAgain: all of the block that tells it; not to be changed
	Record   *job.AttemptRow // AttemptState, Planned: the attempt as it is now; not to be changed
	Up       bool            // NodeChanged: the node is up now, and takes work unless it drains
}

// NoticeKind says what a Notice tells.
type NoticeKind string

// The kinds of notices.
const (
	TaskDone      NoticeKind = "task-done"      // elements have their outcome
	TaskAgain     NoticeKind = "task-again"     // elements are pending again
	AttemptState  NoticeKind = "attempt-state"  // an attempt is in another state
	Planned       NoticeKind = "planned"        // the attempt's Plan is known
	JobDone       NoticeKind = "job-done"       // every task of the job is completed
	JobEnded      NoticeKind = "job-ended"      // and nothing of it is left on any node
	TaskForgotten NoticeKind = "task-forgotten" // it was deleted
	JobForgotten  NoticeKind = "job-forgotten"  // it was deleted
	NodeChanged   NoticeKind = "node"           // a node is in another state
)

// ImpossibleError refuses a task that none of the nodes could ever run.
type ImpossibleError struct {
	ID     string // the task's
	Task   string
	Reason job.Reason
}

func (e *ImpossibleError) Error() string { return "task " + e.Task + ": " + e.Reason.String() }

// Cluster is the state of a cluster. It is not safe for concurrent use.
type Cluster struct {
	meta     job.MetaRow
	jobs     map[string]*jobState
	byID     map[string]*jobState // by id in lower case: the latest of that id
	byAge    []*jobState          // in the order of submission
	active   []*jobState          // those with work left, in the order of the queue
	tasks    map[string]*taskState
	attempts map[string]*attempt
	nodes    map[string]*node
	order    []*node // the user's
	fabric   *sched.Fabric

	drainAfter int
}

// SetFabric says what network the nodes are on: the launcher's configuration,
// not of the rows. It comes before the first event; nil is not known.
func (c *Cluster) SetFabric(f *sched.Fabric) { c.fabric = f }

type jobState struct {
	row   job.JobRow
	tasks []*taskState          // by index
	byID  map[string]*taskState // by id in lower case
	open  int                   // tasks that are not completed
	live  int                   // attempts that have not ended

	ready  []*taskState       // those that may start or have, in the order to do so
	wanted map[string][]*link // by id in lower case: of tasks that are not there yet
	failed uint64             // elements that count for MaxFailures
}

type taskState struct {
	uid      string
	name     string // for people
	job      *jobState
	row      job.TaskRow
	spec     *job.TaskSpec // resolved
	elements *job.Expander // nil: they are not placed one by one
	pending  tries
	good     ranges         // succeeded
	bad      ranges         // failed for good
	live     []*attempt     // by first index
	sweep    *job.CrewSweep // made when a crew first needs it, see crewSweep
	last     *job.Outcome

	kin

	lastAttempt string    // that had an outcome
	tried       uint32    // highest number of an attempt with an outcome
	seq         uint64    // of the last block
	at          time.Time // of the last block
}

func (t *taskState) completed() bool { return t.good.len()+t.bad.len() == t.spec.Range.Len() }

type attempt struct {
	job.AttemptRow
	task *taskState
	spec *job.TaskSpec // the element that it runs, resolved; nil: its task
	pace pace          // of a crew
}

func (a *attempt) gang() bool { return a.task.spec.Kind == job.Gang }

func (a *attempt) part(node string) (int, bool) {
	i := slices.IndexFunc(a.Parts, func(p job.PartRow) bool { return p.Node == node })
	return i, i >= 0
}

type node struct {
	row   job.NodeRow
	topo  *topology.Node    // nil: never seen
	cores []topology.CPUSet // its usable cores
	live  []*attempt        // with a part here that is not gone, by id
	view  sched.Node
}

// New returns an empty cluster.
func New(id string, epoch uint64) *Cluster {
	return &Cluster{
		meta:     job.MetaRow{Cluster: id, Epoch: epoch},
		jobs:     map[string]*jobState{},
		byID:     map[string]*jobState{},
		tasks:    map[string]*taskState{},
		attempts: map[string]*attempt{},
		nodes:    map[string]*node{},
	}
}

// Apply takes an event in. On an error nothing has changed.
func (c *Cluster) Apply(e Event) (Change, error) {
	t := &change{c: c, at: e.At.UTC().Round(0), seq: c.meta.Seq, epoch: c.meta.Epoch}
	if err := e.What.apply(c, t); err != nil {
		return Change{}, err
	}
	t.follow()
	return t.finish(), nil
}

// ID returns the cluster's name, which is random and stays with its data.
func (c *Cluster) ID() string { return c.meta.Cluster }

// Epoch returns the epoch of the launcher that the cluster belongs to.
func (c *Cluster) Epoch() uint64 { return c.meta.Epoch }

// View returns what the scheduler may look at until the next Apply.
func (c *Cluster) View() sched.View {
	v := sched.View{Nodes: c.views(), Fabric: c.fabric, Room: map[string]sched.Room{}}
	for _, j := range c.active {
		if j.row.Held {
			continue
		}
		if most := j.row.Spec.MaxRunning; most > 0 {
			v.Room[j.row.UID] = sched.Room{Most: most, Left: most - j.running()}
		}
		for _, t := range j.ready {
			if t.spec.Crewed() {
				c.viewArray(&v, t)
				continue
			}
			if t.elements != nil {
				t.viewElements(&v)
				continue
			}
			for _, try := range t.pending {
				v.Pending = append(v.Pending, sched.Pending{Task: t.uid, Job: j.row.UID, Name: t.name, Spec: t.spec,
					Priority: j.row.Spec.Priority, Since: t.row.Created, Try: try})
			}
		}
	}
	return v
}

// viewArray shows an array's crews, and what of it waits as one.
func (c *Cluster) viewArray(v *sched.View, t *taskState) {
	for _, a := range t.live {
		if a.listens() {
			v.Crews = append(v.Crews, a.look(len(v.Pending)))
		}
	}
	if len(t.pending) > 0 {
		v.Pending = append(v.Pending, sched.Pending{Task: t.uid, Job: t.job.row.UID, Name: t.name, Spec: t.spec,
			Priority: t.job.row.Spec.Priority, Since: t.row.Created, Try: t.pending[0], Tries: t.pending})
	}
}

func (c *Cluster) views() []*sched.Node {
	out := make([]*sched.Node, len(c.order))
	for i, n := range c.order {
		out[i] = &n.view
	}
	return out
}

// Attempt returns a copy of a living attempt.
func (c *Cluster) Attempt(id string) (job.AttemptRow, bool) {
	a, ok := c.attempts[id]
	if !ok {
		return job.AttemptRow{}, false
	}
	return a.copy(), true
}

// copy keeps readers apart from later events: parts and what they append to.
func (a *attempt) copy() job.AttemptRow {
	row := a.AttemptRow
	row.Parts = slices.Clone(row.Parts)
	row.Settled = slices.Clone(row.Settled)
	if row.Crew != nil {
		crew := *row.Crew
		crew.Open, crew.Back = slices.Clone(crew.Open), slices.Clone(crew.Back)
		row.Crew = &crew
	}
	return row
}

// addJob puts a job in, without tasks.
func (c *Cluster) addJob(row job.JobRow) *jobState {
	j := &jobState{row: row, byID: map[string]*taskState{}}
	c.jobs[row.UID] = j
	c.byID[strings.ToLower(row.Spec.ID)] = j
	c.byAge = append(c.byAge, j)
	return j
}

// addTask puts a task into its job; nothing of it has run.
func (c *Cluster) addTask(j *jobState, row job.TaskRow) *taskState {
	spec := row.Spec.Resolve()
	t := &taskState{uid: row.UID, name: j.row.Spec.ID + "/" + spec.ID, job: j, row: row, spec: &spec}
	t.expand()
	t.pending = tries{{Range: spec.Range, Attempt: 1}}
	j.tasks = append(j.tasks, t)
	j.byID[strings.ToLower(spec.ID)] = t
	c.tasks[t.uid] = t
	return t
}

// unqueue takes a job out of the queue.
func (c *Cluster) unqueue(j *jobState) {
	c.active = slices.DeleteFunc(c.active, func(x *jobState) bool { return x == j })
}

// queue puts a job with open tasks into its place in the queue.
func (c *Cluster) queue(j *jobState) {
	i, _ := slices.BinarySearchFunc(c.active, j, func(a, b *jobState) int {
		return cmp.Or(cmp.Compare(b.row.Spec.Priority, a.row.Spec.Priority), cmp.Compare(a.row.Seq, b.row.Seq))
	})
	c.active = slices.Insert(c.active, i, j)
}

// addAttempt links an attempt to its task and nodes.
func (c *Cluster) addAttempt(a *attempt) {
	if a.task.elements != nil {
		a.spec = a.task.specOf(a.Try)
	}
	c.attempts[a.ID] = a
	a.task.job.live++
	i, _ := slices.BinarySearchFunc(a.task.live, a, func(x, y *attempt) int {
		return cmp.Or(cmp.Compare(x.Try.Lo, y.Try.Lo), cmp.Compare(x.Try.Attempt, y.Try.Attempt))
	})
	a.task.live = slices.Insert(a.task.live, i, a)
	for _, p := range a.Parts {
		if n := c.nodes[p.Node]; n != nil && !p.Gone {
			i, _ := slices.BinarySearchFunc(n.live, a, func(x, y *attempt) int { return cmp.Compare(x.ID, y.ID) })
			n.live = slices.Insert(n.live, i, a)
		}
	}
}

func (n *node) setTopology(topo *topology.Node) {
	n.topo, n.cores = topo, nil
	for _, core := range topo.Usable() {
		n.cores = append(n.cores, core.PUs)
	}
}

// refresh makes the node's view anew.
func (n *node) refresh() {
	n.view = n.look()
}

// look builds what the scheduler sees of the node.
func (n *node) look() sched.Node {
	v := sched.Node{Name: n.row.Name, State: sched.NodeState(n.row.State), Draining: n.row.Draining,
		Why: cmp.Or(n.row.Why, n.row.DrainedFor), Known: n.topo != nil, GPUs: n.row.GPUs, NoCrews: n.row.NoCrews}
	if n.topo != nil {
		v.Cores = n.cores
		v.Memory = usableMemory(n.topo.Memory)
	}
	for _, a := range n.live {
		i, _ := a.part(n.row.Name)
		p := &a.Parts[i]
		v.Holds = append(v.Holds, sched.Hold{ID: a.ID, Who: a.name(), CPUs: p.CPUs, Memory: p.Memory,
			GPUs: p.GPUs, Shared: p.Shared})
	}
	for _, cl := range n.row.Claims {
		v.Holds = append(v.Holds, sched.Hold{ID: cl.ID, Who: cl.Who, Foreign: true, CPUs: cl.CPUs,
			Memory: cl.Memory, GPUs: cl.GPUs, Shared: cl.Shared})
	}
	return v
}

// usableMemory is the machine's memory or the cgroup's limit, whichever is
// less; 0: unknown.
func usableMemory(m topology.Memory) uint64 {
	switch {
	case m.Total == nil && m.Limit == nil:
		return 0
	case m.Total == nil:
		return *m.Limit
	case m.Limit == nil:
		return *m.Total
	}
	return min(*m.Total, *m.Limit)
}

func (c *Cluster) node(name string) (*node, error) {
	if n, ok := c.nodes[name]; ok {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node named %q", name)
}

// refusalPause is how long an attempt waits after its n-th refusal in a row.
func refusalPause(n uint32) time.Duration {
	return min(250*time.Millisecond<<min(n-1, 5), 8*time.Second)
}
