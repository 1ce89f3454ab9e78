package state

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

func TestRefusedEvents(t *testing.T) {
	w := newWorld(t)
	w.fleet(2)
	spec := func(s job.TaskSpec) job.Spec {
		s.ID, s.Command = "t", []string{"x"}
		return job.Spec{ID: "j", Tasks: []job.TaskSpec{s}}
	}
	w.submit("took", gang(1, 2))
	d := sched.Plan(w.now, w.c.View(), sched.Policy{})
	stale := d.Place
	w.apply(Placed{Place: stale})
	cases := []struct {
		name string
		what What
		want string
	}{
		{"invalid", JobSubmitted{UID: "abcd", Spec: spec(job.TaskSpec{Kind: job.Gang})}, "tasks[0].ranks"},
		{"impossible", JobSubmitted{UID: "abcd", Spec: spec(gang(1, 3))}, "task j/t: 1 node × 3 ranks can never fit"},
		{"uid taken", JobSubmitted{UID: "took", Spec: spec(gang(1, 1))}, "taken"},
		{"uid", JobSubmitted{UID: "A", Spec: spec(gang(1, 1))}, "characters"},
		{"unknown job", CancelRequested{Job: "nope"}, "no job"},
		{"unknown task", CancelRequested{Job: "took", Task: "nope"}, "no task"},
		{"node twice", NodeAdded{Node: "n1"}, "already"},
		{"node without a name", NodeAdded{}, "name"},
		{"unknown node", NodeUp{Node: "n7"}, "no node"},
		{"unknown node down", NodeDown{Node: "n7"}, "no node"},
		{"unknown node lost", NodeLost{Node: "n7"}, "no node"},
		{"unknown node gone", NodeGone{Node: "n7"}, "no node"},
		{"unknown node drained", NodeDrained{Node: "n7"}, "no node"},
		{"unknown node's claims", NodeClaims{Node: "n7"}, "no node"},
		{"unknown node's inventory", Inventory{Node: "n7"}, "no node"},
		{"busy node", NodeRemoved{Node: "n1"}, "drain"},
		{"old epoch", Restarted{Epoch: 1}, "another launcher"},
		{"stale placement", Placed{Place: stale}, "not pending"},
		{"placement of nothing", Placed{Place: []sched.Placement{{Task: "nope"}}}, "unknown task"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := w.try(c.what); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	_, err := w.try(JobSubmitted{UID: "abcd", Spec: spec(gang(1, 3))})
	var imp *ImpossibleError
	if !errors.As(err, &imp) || imp.Reason.Code != job.Impossible {
		t.Errorf("%T %v is not impossible", err, err)
	}
}

func TestPlacementsThatDoNotFit(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2)
	_, task := w.submit("abcd", gang(2, 1))
	ok := sched.Plan(w.now, w.c.View(), sched.Policy{}).Place[0]
	_, other := w.submit("othr", gang(1, 1))
	w.apply(NodeClaims{Node: "n2", Claims: []job.Claim{{Who: "bob", CPUs: topology.NewCPUSet(1, 3), Shared: true}}})
	change := func(f func(*sched.Placement)) sched.Placement {
		p := ok
		p.Parts = slices.Clone(ok.Parts)
		f(&p)
		return p
	}
	both := sched.Placement{Task: other, Try: ok.Try, Parts: ok.Parts[:1]}
	for name, place := range map[string][]sched.Placement{
		"the same twice":    {ok, ok},
		"the same cores":    {ok, both},
		"half a core":       {change(func(p *sched.Placement) { p.Parts[0].CPUs = topology.NewCPUSet(0) })},
		"no core":           {change(func(p *sched.Placement) { p.Parts[0].CPUs = topology.CPUSet{} })},
		"a foreign core":    {change(func(p *sched.Placement) { p.Parts[1].CPUs = topology.NewCPUSet(1, 3) })},
		"too much memory":   {change(func(p *sched.Placement) { p.Parts[1].Memory = 9 << 30 })},
		"one node twice":    {change(func(p *sched.Placement) { p.Parts[1].Node = "n1" })},
		"half a gang":       {change(func(p *sched.Placement) { p.Parts = p.Parts[:1] })},
		"a hole in ranks":   {change(func(p *sched.Placement) { p.Parts[1].FirstRank = 2 })},
		"unknown node":      {change(func(p *sched.Placement) { p.Parts[1].Node = "n9" })},
		"another try":       {change(func(p *sched.Placement) { p.Try.Attempt = 2 })},
		"no parts":          {change(func(p *sched.Placement) { p.Parts = nil })},
		"elements it lacks": {change(func(p *sched.Placement) { p.Try.Range.Hi = 2 })},
	} {
		if _, err := w.try(Placed{Place: place}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	w.apply(NodeDrained{Node: "n2", On: true})
	if _, err := w.try(Placed{Place: []sched.Placement{ok}}); err == nil {
		t.Error("placed on a draining node")
	}
	w.apply(NodeDrained{Node: "n2"})
	w.apply(Placed{Place: []sched.Placement{ok}})
	w.only(task)
}

func TestDelta(t *testing.T) {
	p := func(id string, ph Phase) Part { return Part{ID: id, Phase: ph} }
	old := []Part{p("a", PhasePrepare), p("b", PhasePrepare), p("d", PhaseForget)}
	now := p("e", PhaseEnd)
	now.EndNow = true
	for _, c := range []struct {
		old, new []Part
		set, rm  []string
	}{
		{nil, nil, nil, nil},
		{old, old, nil, nil},
		{nil, old, []string{"a", "b", "d"}, nil},
		{old, nil, nil, []string{"a", "b", "d"}},
		{old, []Part{p("b", PhaseLaunch), p("c", PhasePrepare), p("d", PhaseForget)}, []string{"b", "c"}, []string{"a"}},
		{[]Part{p("e", PhaseEnd)}, []Part{now}, []string{"e"}, nil},
	} {
		d := Delta(c.old, c.new)
		var set []string
		for _, x := range d.Set {
			set = append(set, x.ID)
		}
		wantEqual(t, "set", c.set, set)
		wantEqual(t, "remove", c.rm, d.Remove)
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	w := newWorld(t)
	w.fleet(2)
	_, task := w.submit("abcd", gang(1, 1))
	w.run(task)
	w.submit("efgh", job.TaskSpec{})
	w.apply(CancelRequested{Job: "efgh"})
	for key, r := range w.rows {
		rows := func(change func(job.Row) (job.Row, bool)) (out []job.Row) {
			for k, x := range w.rows {
				keep := true
				if k == key {
					x, keep = change(x)
				}
				if keep {
					out = append(out, x)
				}
			}
			return out
		}
		if _, err := Load(rows(func(r job.Row) (job.Row, bool) { r.Value = r.Value[:len(r.Value)-1]; return r, true })); err == nil {
			t.Errorf("%s: half a row was taken", key)
		}
		if r.Table != job.TableMeta && r.Table != job.TableJob && r.Table != job.TablePart {
			continue
		}
		if _, err := Load(rows(func(r job.Row) (job.Row, bool) { return r, false })); err == nil {
			t.Errorf("%s: missing, and nobody said so", key)
		}
	}
	if _, err := Load([]job.Row{{Table: "future", Key: "x", Value: []byte("{}")}}); err == nil {
		t.Error("a table of a newer version was taken")
	}
}

// TestRefusalPause keeps the pause within its bounds.
func TestRefusalPause(t *testing.T) {
	for n, want := range map[uint32]time.Duration{1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 6: 8 * time.Second, 1000: 8 * time.Second} {
		if got := refusalPause(n); got != want {
			t.Errorf("after %d refusals: %v, want %v", n, got, want)
		}
	}
}

// TestChangedWork: a task gets other resources while it waits, not while it runs.
func TestChangedWork(t *testing.T) {
	w := newWorld(t)
	w.fleet(2, 2)
	_, task := w.submit("abcd", gang(2, 1))
	to := w.c.tasks[task].row.Spec
	to.CoresPerRank = 2
	other := to
	other.Command = []string{"another"}
	if _, err := w.try(TaskChanged{Task: task, Spec: &other}); err == nil {
		t.Error("the command was changed")
	}
	never := to
	never.CoresPerRank = 3
	var imp *ImpossibleError
	if _, err := w.try(TaskChanged{Task: task, Spec: &never}); !errors.As(err, &imp) {
		t.Errorf("what no node has: %v", err)
	}
	w.apply(TaskChanged{Task: task, Spec: &to})
	p := sched.Plan(w.now, w.c.View(), sched.Policy{}).Place
	if len(p) != 1 || p[0].Parts[0].CPUs.Count() != 4 {
		t.Fatalf("placed %+v, want all cores of a node", p)
	}
	w.apply(Placed{Place: p})
	to.CoresPerRank = 1
	var closed *ClosedError
	if _, err := w.try(TaskChanged{Task: task, Spec: &to}); !errors.As(err, &closed) {
		t.Errorf("while it runs: %v", err)
	}
}
