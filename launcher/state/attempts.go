package state

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/topology"
)

func (e Placed) apply(c *Cluster, t *change) error {
	if err := c.fits(e.Place, e.Orders); err != nil {
		return err
	}
	for _, pl := range e.Place {
		c.place(t, pl, e.Random)
	}
	for _, o := range e.Orders {
		t.obey(o)
	}
	return nil
}

// fits checks placements against what is pending and free now.
func (c *Cluster) fits(place []sched.Placement, orders []sched.Order) error {
	extra := map[string][]sched.Hold{}
	taken := map[string]ranges{}
	for _, pl := range place {
		task, ok := c.tasks[pl.Task]
		if !ok {
			return fmt.Errorf("placement of unknown task %s", pl.Task)
		}
		give := []job.Try{pl.Try}
		if crewed := task.spec.Crewed(); crewed != (pl.Slots > 0) || crewed && (len(pl.Tries) == 0 || !pl.Tries[0].SameHistory(pl.Try) || pl.Tries[0].Range != pl.Try.Range) {
			return fmt.Errorf("placement of task %s: %d slots for %d runs of elements", task.name, pl.Slots, len(pl.Tries))
		} else if crewed {
			give = pl.Tries
		}
		var err error
		if taken[pl.Task], err = task.fitsTries(give, taken[pl.Task]); err != nil {
			return err
		}
		spec := task.specOf(pl.Try)
		if task.elements != nil && pl.Try.Len() != 1 {
			return fmt.Errorf("placement of task %s: elements %s at once, which are placed by themselves", task.name, pl.Try.Range)
		}
		if len(pl.Parts) == 0 || task.spec.Kind == job.Single && len(pl.Parts) != 1 {
			return fmt.Errorf("placement of task %s: has %d parts", task.name, len(pl.Parts))
		}
		rank := 0
		for k, p := range pl.Parts {
			n, ok := c.nodes[p.Node]
			if !ok || n.view.State != sched.NodeUp || n.view.Draining {
				return fmt.Errorf("placement of task %s: node %s takes no work", task.name, p.Node)
			}
			if slices.ContainsFunc(pl.Parts[:k], func(q sched.Part) bool { return q.Node == p.Node }) {
				return fmt.Errorf("placement of task %s: node %s twice", task.name, p.Node)
			}
			if p.FirstRank != rank {
				return fmt.Errorf("placement of task %s: node %s starts at rank %d instead of %d", task.name, p.Node, p.FirstRank, rank)
			}
			rank += p.Ranks
			hold := sched.Hold{CPUs: p.CPUs, Memory: p.Memory, GPUs: p.GPUs, Shared: p.Shared}
			if err := admits(&n.view, extra[p.Node], hold); err != nil {
				return fmt.Errorf("placement of task %s on node %s: %w", task.name, p.Node, err)
			}
			extra[p.Node] = append(extra[p.Node], hold)
		}
		if task.spec.Kind == job.Gang && rank != spec.Ranks {
			return fmt.Errorf("placement of task %s: %d ranks instead of %d", task.name, rank, spec.Ranks)
		}
	}
	for _, o := range orders {
		a := c.attempts[o.ID]
		if a == nil || !a.listens() {
			return fmt.Errorf("an order to crew %s, which takes none", o.ID)
		}
		var err error
		if taken[a.Task], err = a.task.fitsTries(o.Give, taken[a.Task]); err != nil {
			return err
		}
	}
	return nil
}

// admits checks one more hold against those on a node.
func admits(n *sched.Node, extra []sched.Hold, want sched.Hold) error {
	var whole topology.CPUSet
	for _, core := range n.Cores {
		if core.Overlaps(want.CPUs) {
			whole = whole.Union(core)
		}
	}
	if want.CPUs.IsEmpty() || !whole.Equal(want.CPUs) {
		return fmt.Errorf("cpus %s are not whole cores of it", want.CPUs)
	}
	memory := want.Memory
	check := func(h sched.Hold) error {
		if h.CPUs.Overlaps(want.CPUs) && !(h.Foreign && h.Shared && want.Shared) {
			return fmt.Errorf("cpus %s are taken by %s", h.CPUs.Intersect(want.CPUs), h.Who)
		}
		for _, g := range want.GPUs {
			if slices.Contains(h.GPUs, g) {
				return fmt.Errorf("GPU %d is taken by %s", g, h.Who)
			}
		}
		memory += h.Memory
		return nil
	}
	for _, h := range n.Holds {
		if err := check(h); err != nil {
			return err
		}
	}
	for _, h := range extra {
		if err := check(h); err != nil {
			return err
		}
	}
	if n.Memory > 0 && want.Memory > 0 && memory > n.Memory {
		return fmt.Errorf("%s of memory are more than it has left", job.Bytes(want.Memory))
	}
	return nil
}

// place makes the attempt of a placement that fits.
func (c *Cluster) place(t *change, pl sched.Placement, random [32]byte) {
	task := c.tasks[pl.Task]
	try, _ := task.pending.find(pl.Try.Range)
	try.Range = pl.Try.Range
	if pl.Slots == 0 {
		task.pending = task.pending.remove(try.Range)
	}
	spec := task.specOf(try)
	a := &attempt{task: task, AttemptRow: job.AttemptRow{
		ID: job.AttemptID(task.uid, try.Lo, try.Attempt), Task: task.uid, Try: try,
		Epoch: c.meta.Epoch, State: job.AttemptPlaced, Placed: t.at,
	}}
	mac := hmac.New(sha256.New, random[:])
	mac.Write([]byte(a.ID))
	a.MeshKey = mac.Sum(nil)
	if pl.Slots > 0 {
		a.Crew = &job.CrewRow{Slots: pl.Slots}
		a.pace.given(0, pl.Slots, t.at)
		t.give(a, pl.Tries)
	}
	nodes := make([]topology.Node, len(pl.Parts))
	for i, p := range pl.Parts {
		nodes[i] = *c.nodes[p.Node].topo
		nodes[i].Hostname = p.Node // errors name nodes as the user does
		a.Parts = append(a.Parts, job.PartRow{Node: p.Node, FirstRank: p.FirstRank, Ranks: p.Ranks, CPUs: p.CPUs,
			Memory: p.Memory, GPUs: p.GPUs, Shared: p.Shared})
	}
	job.Deal(a.Parts, spec.Distribution)
	addrs, ifaces, err := topology.SharedNetwork(nodes, spec.Network)
	if err != nil && (len(nodes) > 1 || spec.Network != "") {
		t.replan = true // the plan counted on these cores being taken
		why := job.Reason{Code: job.FailNoNetwork, Detail: err.Error()}
		done := []job.Outcome{{Range: try.Range, ExitCode: exitFor(why.Code), Reason: &why}}
		if a.Crew != nil {
			done = nil
			for _, try := range a.Crew.Open {
				done = append(done, job.Outcome{Range: try.Range, ExitCode: exitFor(why.Code), Reason: &why})
			}
			delete(t.attempts, a.ID)
		}
		t.block(task, a.ID, done, nil, job.Outcome{})
		return
	}
	for i := range addrs {
		a.Parts[i].Address, a.Parts[i].Interface = addrs[i].String(), ifaces[i]
	}
	a.Nodes = len(a.Parts)
	c.addAttempt(a)
	t.changed(a)
	for i, p := range a.Parts {
		t.part(a, i)
		t.freed(p.Node)
	}
	row := a.copy()
	t.notice(Notice{Kind: AttemptState, Job: task.job.row.UID, Task: task.uid, Attempt: a.ID, Record: &row})
}

// find returns a living attempt's part; ok is false for news that came late.
func (c *Cluster) find(id, node string) (a *attempt, i int, ok bool) {
	if a, ok = c.attempts[id]; !ok {
		return nil, 0, false
	}
	if i, ok = a.part(node); !ok || a.Parts[i].Gone {
		return nil, 0, false
	}
	return a, i, true
}

func (e ShimReady) apply(c *Cluster, t *change) error {
	a, i, ok := c.find(e.ID, e.Node)
	if !ok || a.Parts[i].Ready {
		return nil
	}
	p := &a.Parts[i]
	p.Seen = true
	if e.Failure != nil {
		why := *e.Failure
		if len(why.Nodes) == 0 {
			why.Nodes = []job.NodeShort{{Node: e.Node}}
		}
		p.Failure = &why
		t.end(a, why, true)
	} else {
		p.MeshPort = e.MeshPort
		t.ready(a, i)
	}
	t.part(a, i)
	t.settle(a)
	return nil
}

// ready notes that a part is prepared; with the last one, all are told to go.
func (t *change) ready(a *attempt, i int) {
	t.part(a, i)
	if p := &a.Parts[i]; !p.Ready {
		p.Ready = true
		if a.launched() {
			t.touch(a)
			t.crewNews(a)
			t.replan = t.replan || a.Crew != nil
		}
	}
}

func (e LaunchPlanned) apply(c *Cluster, t *change) error {
	a, _, ok := c.find(e.ID, e.Node)
	if !ok {
		return nil
	}
	a.Plan = slices.Clone(e.Plan)
	t.changed(a)
	row := a.copy()
	t.notice(Notice{Kind: Planned, Job: a.task.job.row.UID, Task: a.task.uid, Attempt: a.ID, Node: e.Node, Record: &row})
	return nil
}

func (e ShimStarted) apply(c *Cluster, t *change) error {
	a, i, ok := c.find(e.ID, e.Node)
	if !ok || a.Parts[i].Started {
		return nil
	}
	p := &a.Parts[i]
	p.Seen, p.Started = true, true
	t.ready(a, i)
	t.settle(a)
	return nil
}

func (e AttemptRefused) apply(c *Cluster, t *change) error {
	a, i, ok := c.find(e.ID, e.Node)
	if !ok {
		return nil
	}
	why := e.Failure
	if len(why.Nodes) == 0 {
		why.Nodes = []job.NodeShort{{Node: e.Node}}
	}
	if e.Claimed {
		why.Code = job.WaitClaimed
	} else if why.Code == "" {
		why.Code = job.FailNodeAgent
	}
	if p := &a.Parts[i]; p.Failure == nil {
		p.Failure = &why
	}
	t.gone(a, i, why) // the agent started nothing
	return nil
}

func (e AttemptResult) apply(c *Cluster, t *change) error {
	a, i, ok := c.find(e.ID, e.Node)
	if !ok {
		return nil
	}
	p := &a.Parts[i]
	r := e.Result
	if r.Failure != nil && len(r.Failure.Nodes) == 0 {
		f := *r.Failure
		f.Nodes = []job.NodeShort{{Node: e.Node}}
		r.Failure = &f
	}
	r.Start, r.End = r.Start.UTC(), r.End.UTC()
	p.Seen = true
	if a.gang() {
		if len(p.Results) > 0 {
			return nil
		}
		r.Range = a.Try.Range
		p.Results = append(p.Results, r)
		t.part(a, i)
		mark(&t.touched, e.Node)
		if i == 0 && a.Verdict != nil && a.Requeue && r.Success() {
			// It was given up too early, and has done its work after all.
			a.Verdict, a.Requeue = nil, false
			t.changed(a)
		}
		if r.Success() && !a.launched() { // against the rules; the others must not wait for ever
			t.end(a, job.Reason{Code: job.FailInternal, Nodes: []job.NodeShort{{Node: e.Node}},
				Detail: "the part on " + e.Node + " ended before the gang was launched"}, true)
		}
		if i > 0 && !r.Success() {
			if a.End == nil {
				o := outcomeOf(r, e.Node)
				a.EndExit, a.EndSignal = o.ExitCode, o.Signal
			}
			t.end(a, reasonOf(r, e.Node), false)
		}
		t.settle(a)
		return nil
	}
	if a.Crew != nil {
		t.crewResult(a, i, r)
		return nil
	}
	if r.Range.Len() == 0 {
		r.Range = a.Try.Range
	}
	if !a.Try.Range.Contains(r.Range) {
		return fmt.Errorf("result of attempt %s for elements %s, which it does not have", a.ID, r.Range)
	}
	if r.Range == a.Try.Range && len(p.Results) == 0 {
		p.Results = append(p.Results, r) // pieces of a range have blocks
		mark(&t.touched, e.Node)
	}
	o := a.outcomeOf(r, e.Node)
	t.part(a, i)
	t.decide(a, ranges(a.Settled).missing(r.Range), o)
	if a.Requeue && a.End == nil && len(p.Results) > 0 {
		t.end(a, *o.Reason, false) // it has ended by itself, and is tried again
	}
	t.settle(a)
	return nil
}

func (e ShimGone) apply(c *Cluster, t *change) error {
	if a, i, ok := c.find(e.ID, e.Node); ok {
		why := shimLost(e.Node, e.Why)
		if e.Unread && !a.recorded(i) {
			a.Parts[i].Unread = true
			why.Hint = "it may have finished, so it is not run again by itself: look at its output, then reactivate it"
			if i == 0 && a.Requeue { // its node was given up before
				a.Requeue = false
				t.changed(a)
			}
		}
		t.gone(a, i, why)
	}
	return nil
}

func shimLost(node, why string) job.Reason {
	detail := "the shim on " + node + " was lost"
	if why != "" {
		detail += ": " + why
	}
	return job.Reason{Code: job.FailShimLost, Detail: detail, Nodes: []job.NodeShort{{Node: node}}}
}
