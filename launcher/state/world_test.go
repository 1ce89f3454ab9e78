package state

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

// tester is what *testing.T and *rapid.T share.
type tester interface {
	Helper()
	Fatalf(string, ...any)
}

// world is a cluster with a store, checked after every event.
type world struct {
	t    tester
	c    *Cluster
	rows map[string]job.Row
	now  time.Time
	ids  map[string]bool // attempts ever placed
	last map[string]job.AttemptState
	log  []Notice
	want map[string][]Part // Desired after the last event
	view string            // what the scheduler saw after it
	task map[string]job.TaskState
	// every n-th event the state is compared with what its rows load to.
	every, events int
}

func newWorld(t tester) *world {
	return &world{t: t, c: New("test", 1), rows: map[string]job.Row{}, now: time.Unix(1e9, 0),
		ids: map[string]bool{}, last: map[string]job.AttemptState{}, task: map[string]job.TaskState{}, every: 1}
}

// try applies an event and checks everything that must hold whatever it was.
func (w *world) try(what What) (Change, error) {
	w.t.Helper()
	w.now = w.now.Add(time.Millisecond)
	ch, err := w.c.Apply(Event{At: w.now, What: what})
	if err != nil && (len(ch.Rows) > 0 || len(ch.Notices) > 0) {
		w.t.Fatalf("%T: refused (%v) with effects", what, err)
	}
	for _, r := range ch.Rows {
		key := string(r.Table) + "/" + r.Key
		if r.Prefix {
			maps.DeleteFunc(w.rows, func(k string, _ job.Row) bool { return strings.HasPrefix(k, key) })
		} else if r.Value == nil {
			delete(w.rows, key)
		} else {
			w.rows[key] = r
		}
	}
	if err := w.c.Check(); err != nil {
		w.t.Fatalf("after %T%+v: %v", what, what, err)
	}
	if w.events++; w.every > 0 && w.events%w.every == 0 {
		w.reload(what)
	}
	want := map[string][]Part{}
	for _, n := range w.c.order {
		name := n.row.Name
		want[name] = w.c.Desired(name)
		d := Delta(w.want[name], want[name])
		if len(d.Set)+len(d.Remove) > 0 && !slices.Contains(ch.Touched, name) {
			w.t.Fatalf("%T%+v: %s has something else to do, and only %v are touched: %+v", what, what, name, ch.Touched, d)
		}
	}
	w.want = want
	for uid := range w.c.tasks {
		s := w.status(uid)
		was, ok := w.task[uid]
		if ok && s.Spec.Range.Len() == 1 && was != s.State && !was.MayBecome(s.State) {
			w.t.Fatalf("%T%+v: task %s went from %s to %s", what, what, uid, was, s.State)
		}
		w.task[uid] = s.State
	}
	view := ""
	for _, n := range w.c.View().Nodes {
		view += fmt.Sprintf("%+v\n", *n)
	}
	for _, p := range w.c.View().Pending {
		view += fmt.Sprintf("%s %+v %+v\n", p.Task, p.Try, p.Tries)
	}
	if view != w.view && !ch.Replan {
		w.t.Fatalf("%T%+v: the scheduler is not told of a change", what, what)
	}
	w.view = view
	for _, n := range ch.Notices {
		w.log = append(w.log, n)
		if n.Kind != AttemptState || n.Record == nil {
			continue
		}
		r := n.Record
		if r.State == job.AttemptPlaced {
			if w.ids[r.ID] {
				w.t.Fatalf("attempt %s exists for the second time", r.ID)
			}
			if len(r.ID) > 24 {
				w.t.Fatalf("attempt id %s is longer than 24 bytes", r.ID)
			}
			w.ids[r.ID] = true
		} else if was := w.last[r.ID]; was != r.State && !was.MayBecome(r.State) {
			w.t.Fatalf("attempt %s went from %s to %s", r.ID, was, r.State)
		}
		w.last[r.ID] = r.State
	}
	return ch, err
}

func (w *world) apply(what What) Change {
	w.t.Helper()
	ch, err := w.try(what)
	if err != nil {
		w.t.Fatalf("%T%+v: %v", what, what, err)
	}
	return ch
}

// reload compares the state with the one that its rows give.
func (w *world) reload(what What) {
	w.t.Helper()
	c, err := Load(slices.Collect(maps.Values(w.rows)))
	if err != nil {
		w.t.Fatalf("after %T: %v", what, err)
	}
	if c.meta.Cluster == "" {
		return // nothing has happened yet
	}
	if d := gocmp.Diff(dump(w.c), dump(c), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
		w.t.Fatalf("after %T%+v: applied (-) and loaded (+) differ:\n%s", what, what, d)
	}
	if err := c.Check(); err != nil {
		w.t.Fatalf("after %T, loaded: %v", what, err)
	}
}

// dump is all of a cluster without its pointers.
func dump(c *Cluster) map[string]any {
	ids := func(as []*attempt) (out []string) {
		for _, a := range as {
			out = append(out, a.ID)
		}
		return out
	}
	d := map[string]any{"meta": c.meta}
	for uid, j := range c.jobs {
		d["job "+uid] = []any{j.row, j.open, j.live, len(j.tasks), len(j.byID), j.failed}
		for i, t := range j.ready {
			d[fmt.Sprint("ready ", uid, i)] = t.uid
		}
		for id, l := range j.wanted {
			d[fmt.Sprint("wanted ", uid, id)] = len(l)
		}
	}
	for id, j := range c.byID {
		d["id "+id] = j.row.UID
	}
	for i, j := range c.byAge {
		d[fmt.Sprint("age ", i)] = j.row.UID
	}
	for _, j := range c.active {
		d["queue"] = fmt.Sprint(d["queue"], " ", j.row.UID)
	}
	for uid, t := range c.tasks {
		d["task "+uid] = []any{t.name, *t.spec, []job.Try(t.pending), []job.Range(t.good), []job.Range(t.bad), ids(t.live), t.last,
			t.row, t.lastAttempt, t.tried, t.seq, t.at, t.unmet, t.lost, t.queued, len(t.needs),
			[]job.Range(t.flip), []job.Range(t.orphan), []job.Range(t.spared)}
	}
	for id, a := range c.attempts {
		d["attempt "+id] = a.AttemptRow
	}
	for i, n := range c.order {
		d[fmt.Sprintf("node %d", i)] = []any{n.row, n.topo, ids(n.live), n.view}
	}
	return d
}

// machine is a node of so many cores with two PUs each.
func machine(cores int, memory uint64, addr string) topology.Node {
	n := topology.Node{Hostname: "host-" + addr, Memory: topology.Memory{Total: &memory}}
	for i := range cores {
		pus := topology.NewCPUSet(i, i+cores)
		n.Cores = append(n.Cores, topology.Core{Index: i, PUs: pus})
		n.Online = n.Online.Union(pus)
	}
	n.Allowed = n.Online
	n.Interfaces = []topology.Interface{
		{Name: "lo", Index: 1, Up: true, Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(addr + "/24")}},
	}
	return n
}

// fleet adds nodes n1, n2, … and brings them up.
func (w *world) fleet(cores ...int) {
	w.t.Helper()
	for i := range cores {
		w.apply(NodeAdded{Node: nodeName(i)})
	}
	for i, n := range cores {
		w.up(i, n)
	}
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

func (w *world) up(i, cores int) {
	w.t.Helper()
	w.apply(NodeUp{Node: nodeName(i), Agent: "a", Boot: "b", GPUs: []uint32{0, 1},
		Topology: machine(cores, 8<<30, fmt.Sprintf("10.0.0.%d", i+1))})
	w.apply(Inventory{Node: nodeName(i)})
}

// plan lets the scheduler decide and carries it out.
func (w *world) plan() sched.Decision {
	w.t.Helper()
	d := sched.Plan(w.now, w.c.View(), sched.Policy{})
	if len(d.Place)+len(d.Orders) > 0 {
		w.apply(Placed{Place: d.Place, Orders: d.Orders})
	}
	return d
}

// submit puts a job in and returns the uids of it and its first task.
func (w *world) submit(uid string, t job.TaskSpec) (string, string) {
	w.t.Helper()
	if t.ID == "" {
		t.ID = "t"
	}
	t.Command = []string{"true"}
	w.apply(JobSubmitted{UID: uid, Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{t}, Session: true}})
	return uid, job.TaskUID(uid, 0)
}

// submitQuiet and planOnly do without the checks after every event.
func (w *world) submitQuiet(uid string, t job.TaskSpec) (string, string) {
	w.t.Helper()
	what := JobSubmitted{UID: uid, Spec: job.Spec{ID: "job", Tasks: []job.TaskSpec{t}}}
	if _, err := w.c.Apply(Event{At: w.now, What: what}); err != nil {
		w.t.Fatalf("%v", err)
	}
	return uid, job.TaskUID(uid, 0)
}

func (w *world) planOnly() []sched.Placement {
	return sched.Plan(w.now, w.c.View(), sched.Policy{}).Place
}

func (w *world) status(task string) TaskStatus {
	w.t.Helper()
	s, ok := w.c.Task(task)
	if !ok {
		w.t.Fatalf("no task %s", task)
	}
	return s
}

// only returns the task's one living attempt.
func (w *world) only(task string) job.AttemptRow {
	w.t.Helper()
	s := w.status(task)
	if len(s.Attempts) != 1 {
		w.t.Fatalf("task %s has attempts %v", task, s.Attempts)
	}
	a, _ := w.c.Attempt(s.Attempts[0])
	return a
}

func (w *world) phase(node, id string) Phase {
	for _, p := range w.c.Desired(node) {
		if p.ID == id {
			return p.Phase
		}
	}
	return 0
}

// run takes an attempt to running.
func (w *world) run(task string) job.AttemptRow {
	w.t.Helper()
	w.plan()
	a := w.only(task)
	for i, p := range a.Parts {
		w.apply(ShimReady{ID: a.ID, Node: p.Node, MeshPort: uint16(1000 + i)})
	}
	for _, p := range a.Parts {
		w.apply(ShimStarted{ID: a.ID, Node: p.Node})
	}
	return w.only(task)
}

// serve plays nodes that do what is wanted until nothing moves any more, with
// results by the given function.
func (w *world) serve(result func(p Part) job.Result) {
	w.t.Helper()
	for range 1000 {
		w.now = w.now.Add(10 * time.Second) // past every pause
		d := w.plan()
		moved := len(d.Place)+len(d.Orders) > 0
		for _, n := range w.c.order {
			for _, p := range w.c.Desired(n.row.Name) {
				if a, _ := w.c.Attempt(p.ID); p.Phase == PhasePrepare && a.Parts[p.NodeIndex].Ready {
					continue // waits for the others
				}
				if p.Crew != nil && w.crew(p, result) {
					moved = true
					continue
				} else if p.Crew != nil && p.Phase == PhaseLaunch {
					continue // has nothing to do, and may be given more
				}
				moved = true
				switch p.Phase {
				case PhasePrepare:
					w.apply(ShimReady{ID: p.ID, Node: p.Node, MeshPort: 1})
				case PhaseLaunch:
					w.apply(ShimStarted{ID: p.ID, Node: p.Node})
					w.apply(AttemptResult{ID: p.ID, Node: p.Node, Result: result(p)})
				case PhaseEnd:
					w.apply(AttemptResult{ID: p.ID, Node: p.Node, Result: job.Result{Range: p.Range, ExitCode: 143,
						Failure: &job.Reason{Code: job.FailCancelled}}})
					w.apply(ShimGone{ID: p.ID, Node: p.Node})
				case PhaseForget:
					w.apply(ShimGone{ID: p.ID, Node: p.Node})
				}
			}
		}
		if !moved {
			return
		}
	}
	w.t.Fatalf("the cluster does not come to rest")
}

// crew plays a crew's node for a step; false: it has nothing to do, or does what
// other parts do.
func (w *world) crew(p Part, result func(p Part) job.Result) bool {
	c := p.Crew
	e := CrewBlock{ID: p.ID, Node: p.Node, Seq: c.Block + 1, Returned: runsOf(c.Back)}
	switch {
	case p.Phase == PhaseEnd:
		e.Returned = append(e.Returned, runsOf(c.Work)...)
	case p.Phase != PhaseLaunch:
		return false
	default:
		r := result(p)
		e.Runs = runsOf(c.Work)
		slices.SortFunc(e.Runs, func(a, b CrewRun) int { return cmp.Compare(a.Lo, b.Lo) })
		for _, x := range e.Runs {
			e.Endings = append(e.Endings, Ending{Count: x.Len(), ExitCode: r.ExitCode, Signal: r.Signal, Failure: r.Failure})
		}
	}
	if len(e.Runs)+len(e.Returned) > 0 {
		w.apply(e)
		return true
	}
	if p.Phase == PhaseLaunch && c.Last {
		w.apply(AttemptResult{ID: p.ID, Node: p.Node})
		return true
	}
	return false
}

func runsOf(in []job.Try) (out []CrewRun) {
	for _, t := range in {
		out = append(out, CrewRun{Range: t.Range, Attempt: t.Attempt})
	}
	return out
}

func good(p Part) job.Result { return job.Result{Range: p.Range} }

var _ tester = (*testing.T)(nil)
