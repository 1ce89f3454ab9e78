package sched

import (
	"maps"
	"slices"
	"time"

	"gangway/launcher/job"
)

// Plan decides what starts now. It does not change v.
//
// A task that waits keeps those behind it off every node that it could use, so
// nothing delays it. Only nodes that could not serve it, up or not, go to
// others. A task that could not start though all work ended, because too few
// nodes are up, blocks nothing.
func Plan(now time.Time, v View, _ Policy) Decision {
	p := planner{now: now, fabric: v.Fabric, nodes: v.Nodes, slots: make([]*slots, len(v.Nodes)), room: maps.Clone(v.Room)}
	crews := slices.Clone(v.Crews)
	k := 0
	for i := range v.Pending {
		w := &v.Pending[i]
		p.turn = i
		if !w.Spec.Crewed() {
			p.pending(w)
			continue
		}
		for k < len(crews) && crews[k].Before <= i && crews[k].Task != w.Task {
			k++ // of tasks of which nothing waits
		}
		n := k
		for n < len(crews) && crews[n].Task == w.Task {
			n++
		}
		p.array(w, i, crews[k:n])
		k = n
	}
	p.crews(crews)
	return p.out
}

type planner struct {
	now     time.Time
	fabric  *Fabric
	nodes   []*Node
	slots   []*slots // made when first looked at
	head    *Pending // the first that waits, once it blocks something
	allHeld bool     // every node is blocked
	room    map[string]Room
	turn    int            // index of the pending that is looked at
	byName  map[string]int // nodes, once asked
	told    map[string]int // Orders by crew
	out     Decision
}

func (p *planner) pending(w *Pending) {
	if w.At != nil {
		p.elements(w)
		return
	}
	room, limited := p.room[w.Job]
	if limited && room.Left <= 0 {
		p.wait(w, w.Try.Range, room.full())
		return
	}
	if w.Try.NotBefore.After(p.now) {
		p.wake(w.Try.NotBefore)
		p.wait(w, w.Try.Range, pauses(w.Try))
		if !paused(w.Try) && !p.allHeld { // a pause of its own may be long: others go first
			p.block(w)
		}
		return
	}
	if p.allHeld {
		p.wait(w, w.Try.Range, p.behind())
		return
	}
	avoid := p.avoid(w)
	rest := w.Try
	if w.Spec.Kind == job.Gang {
		shares, why := p.spread(w, p.current(w.Spec, everything, avoid))
		switch {
		case shares != nil:
			p.gang(w, shares)
			p.started(w, 1)
			return
		case why != nil:
			p.wait(w, rest.Range, *why)
			if why.Code != job.Impossible {
				p.block(w)
			}
			return
		}
	} else {
		limit := w.Try.Len()
		if limited {
			limit = min(limit, uint64(room.Left))
		}
		rest.Range = p.singles(w, avoid, limit)
		p.started(w, int(w.Try.Len()-rest.Len()))
		if rest.Len() == 0 {
			return
		}
		if room, limited = p.room[w.Job]; limited && room.Left <= 0 {
			p.wait(w, rest.Range, room.full())
			return
		}
	}
	p.wait(w, rest.Range, p.explain(w))
	p.block(w)
}

// wake asks for another plan at a time.
func (p *planner) wake(at time.Time) {
	if p.out.WakeAt.IsZero() || at.Before(p.out.WakeAt) {
		p.out.WakeAt = at
	}
}

// gang places a whole gang.
func (p *planner) gang(w *Pending, shares []share) {
	pl := Placement{Task: w.Task, Try: w.Try, Parts: make([]Part, 0, len(shares))}
	rank := 0
	for _, s := range shares {
		part := p.at(s.node).take(w.Spec, s.ranks)
		part.FirstRank = rank
		rank += s.ranks
		pl.Parts = append(pl.Parts, part)
	}
	p.out.Place = append(p.out.Place, pl)
}

// singles cuts the first limit elements of a range over the nodes and returns what
// is left of it.
func (p *planner) singles(w *Pending, avoid []string, limit uint64) job.Range {
	rest := w.Try.Range
	for i, c := range p.current(w.Spec, everything, avoid) {
		if len(w.Spec.PerNode) > 0 && w.Spec.PerNode[0].Node != p.nodes[i].Name {
			continue
		}
		n := min(uint64(max(c.most, 0)), rest.Len(), limit)
		if n == 0 {
			continue
		}
		part := p.at(i).take(w.Spec, int(n))
		part.Ranks = 1
		try := w.Try
		try.Range = job.Range{Lo: rest.Lo, Hi: rest.Lo + n}
		p.out.Place = append(p.out.Place, Placement{Task: w.Task, Try: try, Parts: []Part{part}})
		limit -= n
		if rest.Lo += n; rest.Len() == 0 {
			break
		}
	}
	return rest
}

func (p *planner) name(i int) string { return p.nodes[i].Name }

func (p *planner) at(i int) *slots {
	if p.slots[i] == nil {
		p.slots[i] = left(p.nodes[i], everyHold)
	}
	return p.slots[i]
}

// current is what the nodes can take of t at this moment.
func (p *planner) current(t *job.TaskSpec, count resource, avoid []string) []capacity {
	return capacities(len(p.nodes), func(i int) *slots {
		n := p.nodes[i]
		if n.State != NodeUp || !n.Known || n.Draining || slices.Contains(avoid, n.Name) || n.NoCrews && t.Crewed() {
			return nil
		}
		if s := p.at(i); !s.blocked {
			return s
		}
		return nil
	}, t, count)
}

// capacities asks n nodes how much of t they take; those without slots nothing.
func capacities(n int, at func(int) *slots, t *job.TaskSpec, count resource) []capacity {
	total := max(t.Ranks, 1)
	if t.Kind == job.Single {
		total = job.MaxArray
	}
	caps := make([]capacity, n)
	for i := range caps {
		caps[i] = capacity{-1, -1}
		if s := at(i); s != nil {
			caps[i] = capacity{min(s.plain(t, count), total), min(s.most(t, count), total)}
		}
	}
	return caps
}

// avoid returns the nodes to leave out: those that failed the task before, if
// it could ever run without them.
func (p *planner) avoid(w *Pending) []string {
	if len(w.Try.Avoid) == 0 {
		return nil
	}
	caps := capacities(len(p.nodes), func(i int) *slots {
		n := p.nodes[i]
		if n.State != NodeUp || !n.Known || n.Draining || slices.Contains(w.Try.Avoid, n.Name) || n.NoCrews && w.Spec.Crewed() {
			return nil
		}
		return left(n, noHold)
	}, w.Spec, everything)
	if fit(w.Spec, p.name, caps) == nil {
		return nil
	}
	return w.Try.Avoid
}

// block keeps those behind w off the nodes that w may use.
func (p *planner) block(w *Pending) {
	caps := capacities(len(p.nodes), func(i int) *slots {
		n := p.nodes[i]
		if n.State == NodeLost || n.Draining || n.NoCrews && w.Spec.Crewed() {
			return nil
		}
		return left(n, noHold)
	}, w.Spec, everything)
	unknown := func(i int) bool {
		n := p.nodes[i]
		return n.State != NodeLost && !n.Draining && !n.Known
	}
	for i := range caps {
		if unknown(i) { // it may turn out to have anything
			caps[i] = capacity{max(w.Spec.Ranks, 1), max(w.Spec.Ranks, 1)}
		}
	}
	if fit(w.Spec, p.name, caps) == nil {
		return
	}
	if p.head == nil {
		p.head = w
	}
	p.allHeld = true
	need := smallest(w.Spec)
	hopeless := p.hopeless(w.Spec)
	for i, c := range caps {
		use := c.most >= need
		if len(w.Spec.PerNode) > 0 {
			use = slices.ContainsFunc(w.Spec.PerNode, func(r job.NodeRanks) bool { return r.Node == p.nodes[i].Name })
		}
		if s := p.at(i); use && !hopeless[i] && !s.blocked {
			s.blocked, s.blocker = true, p.turn
		}
		p.allHeld = p.allHeld && p.at(i).blocked
	}
}

func (p *planner) wait(w *Pending, r job.Range, why job.Reason) {
	p.out.Waiting = append(p.out.Waiting, Waiting{Task: w.Task, Range: r, Reason: why})
}

func (p *planner) behind() job.Reason {
	return job.Reason{Code: job.WaitQueue, Detail: "waits behind " + p.head.Name + ", which is next for these nodes"}
}
