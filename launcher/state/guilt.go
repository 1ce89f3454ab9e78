package state

import (
	"fmt"
	"slices"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

const (
	// guiltLife is how long an attempt speaks against a node.
	guiltLife = 24 * time.Hour
	// maxFirsts is how many gangs of several nodes may begin to fail on the same
	// one, for reasons that are the program's as likely, before it is suspected.
	maxFirsts = 3
	// maxGuilt bounds what is kept of a node.
	maxGuilt = 16
)

// SetDrainAfter sets how many guilty attempts within a day drain a node: the
// launcher's configuration, not of the rows. It comes before the first event; 0,
// as before it, drains none.
func (c *Cluster) SetDrainAfter(n int) { c.drainAfter = n }

// suspects are the nodes that an attempt's end speaks against, with the reasons.
func (c *Cluster) suspects(a *attempt) []job.Suspect {
	var out []job.Suspect
	add := func(s job.Suspect) {
		if _, ours := a.part(s.Node); ours && !slices.ContainsFunc(out, func(x job.Suspect) bool { return x.Node == s.Node }) {
			out = append(out, s)
		}
	}
	if a.gang() {
		if d := a.Diagnose(); d != nil {
			for _, s := range d.Suspects {
				add(s)
			}
		}
	}
	for _, p := range a.Parts {
		if f := p.Failure; f != nil && speaksAgainst(f.Code) {
			add(job.Suspect{Node: p.Node, Why: f.Detail})
		}
		n := c.nodes[p.Node]
		for _, g := range p.GPUs {
			if n != nil && n.topo != nil && !slices.Contains(n.row.GPUs, g) { // see NodeProbed
				add(job.Suspect{Node: p.Node, Why: fmt.Sprintf("GPU %d, which it had been given, is gone or broken", g)})
			}
		}
	}
	return out
}

// speaksAgainst reports whether a part's failure may be its node's.
func speaksAgainst(c job.Code) bool {
	switch c {
	case job.FailNodeLost, job.FailShimLost, job.FailNodeAgent, job.FailDisk:
		return true
	}
	return false
}

// judge counts what an attempt that has ended says of its nodes, and drains one
// that was guilty again and again.
func (t *change) judge(a *attempt) {
	if a.Verdict != nil && a.Verdict.Success {
		for _, p := range a.Parts { // whatever failed there before, this did not
			if n := t.c.nodes[p.Node]; n != nil && len(n.row.Firsts) > 0 {
				n.row.Firsts = nil
				t.nodeChanged(n)
			}
		}
		return
	}
	if a.Cancel != nil || a.End != nil && (a.End.Code == job.FailRequeued || a.End.Code == job.WaitClaimed) {
		return
	}
	all := t.c.suspects(a)
	if len(all) == 0 {
		if s, ok := t.habit(a); ok {
			all = append(all, s)
		}
	}
	for _, s := range all {
		n := t.c.nodes[s.Node]
		if n == nil {
			continue
		}
		g := t.guilt(a, s.Why)
		if grown, ok := incriminate(n.row.Guilt, g, a.Placed); ok {
			n.row.Guilt = grown
			t.nodeChanged(n)
			t.drainGuilty(n)
		}
	}
}

func (t *change) guilt(a *attempt, why string) job.Guilt {
	return job.Guilt{At: t.at, Attempt: a.ID, Name: a.name(), Why: why}
}

// habit notes that a gang of several nodes began to fail on one of them, for no
// reason that is the node's. When several jobs have in a row, with no attempt
// that ended well there, the node is suspected.
func (t *change) habit(a *attempt) (job.Suspect, bool) {
	d := a.Diagnose()
	if !a.gang() || len(a.Parts) < 2 || d == nil || d.Rank < 0 {
		return job.Suspect{}, false
	}
	switch d.Death {
	case job.DeathExit, job.DeathCrash, job.DeathAbort, job.DeathKilled, job.DeathMemory:
	default:
		return job.Suspect{}, false
	}
	n := t.c.nodes[d.Node]
	if n == nil {
		return job.Suspect{}, false
	}
	grown, ok := incriminate(n.row.Firsts, t.guilt(a, d.How), a.Placed)
	if !ok {
		return job.Suspect{}, false
	}
	n.row.Firsts = grown
	t.nodeChanged(n)
	if len(grown) < maxFirsts || !slices.ContainsFunc(grown, func(g job.Guilt) bool { return g.Name != a.name() }) {
		return job.Suspect{}, false
	}
	return job.Suspect{Node: d.Node, Why: fmt.Sprintf("the last %d gangs that failed here all began to fail here", len(grown))}, true
}

// incriminate adds g to what speaks against a node, without what is too old. An
// attempt that ran beside the last that is counted says nothing more: a node
// that goes down takes all with it.
func incriminate(old []job.Guilt, g job.Guilt, placed time.Time) ([]job.Guilt, bool) {
	out := make([]job.Guilt, 0, len(old)+1)
	for _, x := range old {
		if g.At.Sub(x.At) < guiltLife {
			out = append(out, x)
		}
	}
	if n := len(out); n > 0 && !placed.After(out[n-1].At) {
		return nil, false
	}
	out = append(out, g)
	return out[max(0, len(out)-maxGuilt):], true
}

// drainGuilty drains a node that was guilty often enough, unless less than half
// of all nodes would then take work.
func (t *change) drainGuilty(n *node) {
	c := t.c
	if c.drainAfter <= 0 || len(n.row.Guilt) < min(c.drainAfter, maxGuilt) || n.row.Draining {
		return
	}
	left := 0
	for _, x := range c.order {
		if x != n && !x.row.Draining && sched.NodeState(x.row.State) == sched.NodeUp {
			left++
		}
	}
	if 2*left < len(c.order) {
		return
	}
	last := n.row.Guilt[len(n.row.Guilt)-1]
	n.row.Draining = true
	n.row.DrainedFor = fmt.Sprintf("drained by the launcher: suspected %d times within a day, last: %s", len(n.row.Guilt), last.Why)
	t.notice(Notice{Kind: NodeChanged, Node: n.row.Name, Up: sched.NodeState(n.row.State) == sched.NodeUp})
}

// absolve forgets what speaks against a node: it was looked after.
func (n *node) absolve() {
	n.row.Guilt, n.row.Firsts, n.row.DrainedFor = nil, nil, ""
}
