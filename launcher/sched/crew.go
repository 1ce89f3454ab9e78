package sched

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
)

// How far ahead of their rate crews are given elements.
const (
	aheadTime = time.Second            // of work beyond what runs
	keepTime  = 500 * time.Millisecond // of work that is not taken back for others
	aheadMost = 65_536                 // elements beyond what runs
)

// Crew is a crew as the scheduler sees it: a running worker of an array.
type Crew struct {
	ID     string // the attempt's
	Task   string // uid
	Name   string // for people: job/task
	Before int    // how many of View.Pending are of tasks before its own
	Node   string
	Slots  int       // elements at once
	Open   uint64    // elements that it has, without those that it is asked to give back
	Back   uint64    // elements that it is asked to give back
	Done   uint64    // elements that it has finished since the launcher knows its rate
	Rate   float64   // elements a second; 0: not known
	News   time.Time // when it last told or was given something
	Ready  bool      // it takes work
	Most   uint64    // elements that it may be given ahead; 0: no limit of its own
}

// Order changes what a crew has to do.
type Order struct {
	ID   string
	Give []job.Try // in the order to start them, behind what it has
	Back uint64    // elements to ask back, those it would start last
	Last bool      // nothing will follow: it ends
}

// rate is the crew's at this time: one that is silent for longer than its elements
// took does not keep a rate of better times.
func (c *Crew) rate(now time.Time) float64 {
	if quiet := now.Sub(c.News); quiet > aheadTime && c.Rate > 0 {
		return min(c.Rate, float64(c.Slots)/quiet.Seconds())
	}
	return c.Rate
}

// ahead is how many elements beyond those that run the crew shall have. It grows
// with what it has finished, as one block alone says little of its rate.
func (c *Crew) ahead(now time.Time) uint64 {
	if c.Most > 0 && c.Most < aheadMost {
		return min(c.pace(now), c.Most)
	}
	return c.pace(now)
}

func (c *Crew) pace(now time.Time) uint64 {
	if c.Done == 0 {
		return uint64(c.Slots)
	}
	n := uint64(max(1, min(c.rate(now)*aheadTime.Seconds(), aheadMost)))
	return min(n, max(uint64(c.Slots), 4*c.Done))
}

// Hungry reports whether a crew would be given more if there was something.
func (c *Crew) Hungry(now time.Time) bool {
	return c.Ready && c.Open < uint64(c.Slots)+(c.ahead(now)+1)/2
}

// Idle is how many of the crew's slots have nothing to do.
func (c *Crew) Idle() uint64 { return uint64(c.Slots) - min(c.Open, uint64(c.Slots)) }

// surplus is what the crew has beyond what it will start within keepTime.
func (c *Crew) surplus(now time.Time) uint64 {
	keep := uint64(c.Slots)
	if c.Done > 0 {
		keep += uint64(c.rate(now) * keepTime.Seconds())
	}
	return c.Open - min(c.Open, keep)
}

// supply hands out what waits of an array, in order, and skips what must wait or
// go elsewhere.
type supply struct {
	p       *planner
	w       *Pending
	next    int       // of w.Tries
	taken   uint64    // elements of that one
	aside   []job.Try // passed over: they avoid the nodes that asked so far
	later   *job.Try  // the first that waits for its time
	avoided map[string][]string
}

// avoid are the nodes that t leaves out, asked once for each list of them.
func (s *supply) avoid(t *job.Try) []string {
	if len(t.Avoid) == 0 {
		return nil
	}
	key := strings.Join(t.Avoid, " ")
	out, ok := s.avoided[key]
	if !ok {
		w := *s.w
		w.Try = *t
		out = s.p.avoid(&w)
		if s.avoided == nil {
			s.avoided = map[string][]string{}
		}
		s.avoided[key] = out
	}
	return out
}

// cut takes up to n elements for a node.
func (s *supply) cut(n uint64, node string) []job.Try {
	var out []job.Try
	rest := s.aside[:0]
	for _, t := range s.aside {
		if n > 0 && !slices.Contains(s.avoid(&t), node) {
			t, out, n = split(t, out, n)
		}
		if t.Len() > 0 {
			rest = append(rest, t)
		}
	}
	s.aside = rest
	for n > 0 && s.next < len(s.w.Tries) {
		t := s.w.Tries[s.next]
		t.Lo += s.taken
		switch {
		case t.NotBefore.After(s.p.now):
			s.p.wake(t.NotBefore)
			if s.later == nil {
				s.later = &s.w.Tries[s.next]
			}
		case slices.Contains(s.avoid(&t), node):
			s.aside = append(s.aside, t)
		default:
			before := t.Lo
			t, out, n = split(t, out, n)
			if t.Len() > 0 {
				s.taken += t.Lo - before
				continue
			}
		}
		s.next, s.taken = s.next+1, 0
	}
	return out
}

// split moves up to n elements from the front of t to out.
func split(t job.Try, out []job.Try, n uint64) (job.Try, []job.Try, uint64) {
	k := min(n, t.Len())
	head := t
	head.Hi = t.Lo + k
	t.Lo += k
	return t, append(out, head), n - k
}

// left is how many elements can be handed out still, counted up to most, and the
// first of them; and it finds those that wait for their time.
func (s *supply) left(most uint64) (n uint64, first job.Range) {
	add := func(t job.Try) {
		if n == 0 {
			first = t.Range
		}
		n += t.Len()
	}
	for _, t := range s.aside {
		add(t)
	}
	for i := s.next; i < len(s.w.Tries) && n < most; i++ {
		t := s.w.Tries[i]
		if i == s.next {
			t.Lo += s.taken
		}
		if t.NotBefore.After(s.p.now) {
			s.p.wake(t.NotBefore)
			if s.later == nil {
				s.later = &s.w.Tries[i]
			}
			continue
		}
		add(t)
	}
	return min(n, most), first
}

// taker is a crew that takes elements: a running one, or one of this plan.
type taker struct {
	crew *Crew
	give *[]job.Try
	want uint64
	idle uint64
}

// array starts crews for what waits of an array, as far as there are free slots,
// and gives the crews that run elements ahead.
func (p *planner) array(w *Pending, index int, crews []Crew) {
	if len(w.Tries) == 0 {
		one := *w
		one.Tries = []job.Try{w.Try}
		w = &one
	}
	if p.allHeld {
		p.wait(w, job.Range{Lo: w.Try.Lo, Hi: w.Tries[len(w.Tries)-1].Hi}, p.behind())
		return
	}
	s := &supply{p: p, w: w}
	first := len(p.out.Place)
	room, limited := p.room[w.Job]
	for i, c := range p.current(w.Spec, everything, nil) {
		if limited {
			c.most = min(c.most, room.Left)
		}
		if c.most <= 0 || len(w.Spec.PerNode) > 0 && w.Spec.PerNode[0].Node != p.nodes[i].Name {
			continue
		}
		slots := uint64(c.most)
		if w.Spec.AtOnce > 0 {
			have := uint64(0)
			for k := range crews {
				if crews[k].Node == p.nodes[i].Name {
					have += uint64(crews[k].Slots)
				}
			}
			if slots = min(slots, uint64(w.Spec.AtOnce)-min(have, uint64(w.Spec.AtOnce))); slots == 0 {
				continue
			}
		}
		give := s.cut(slots, p.nodes[i].Name)
		if len(give) == 0 {
			if s.next == len(w.Tries) && len(s.aside) == 0 {
				break
			}
			continue
		}
		n := 0
		for _, t := range give {
			n += int(t.Len())
		}
		part := p.at(i).take(w.Spec, n)
		part.Ranks = 1
		p.started(w, n)
		room = p.room[w.Job]
		p.out.Place = append(p.out.Place, Placement{Task: w.Task, Try: give[0], Parts: []Part{part}, Slots: n, Tries: give})
	}
	var takers []taker
	gifts := make([][]job.Try, len(crews))
	for i := range crews {
		c := &crews[i]
		if c.Hungry(p.now) && p.serves(c, index) {
			takers = append(takers, taker{c, &gifts[i], uint64(c.Slots) + c.ahead(p.now) - c.Open, c.Idle()})
		}
	}
	for i := first; i < len(p.out.Place); i++ {
		pl := &p.out.Place[i]
		takers = append(takers, taker{&Crew{Node: pl.Parts[0].Node}, &pl.Tries, uint64(pl.Slots), 0})
	}
	p.share(s, takers)
	for i := first; i < len(p.out.Place); i++ {
		p.out.Place[i].Try = p.out.Place[i].Tries[0] // it may be longer now
	}
	for i := range crews {
		if len(gifts[i]) > 0 {
			p.order(&crews[i]).Give = gifts[i]
			for _, t := range gifts[i] {
				crews[i].Open += t.Len()
			}
		}
	}
	n, rest := s.left(1)
	if s.later != nil {
		p.wait(w, s.later.Range, pauses(*s.later))
	}
	if n == 0 && (s.later == nil || s.later.Refusals == 0) {
		return
	}
	if n > 0 {
		rest.Hi = max(rest.Hi, w.Tries[len(w.Tries)-1].Hi)
		if limited && room.Left <= 0 {
			p.wait(w, rest, room.full())
			return
		}
		p.wait(w, rest, p.explain(w))
	}
	p.block(w)
}

// share gives takers what they want: first work for slots that have none, then
// ahead, in proportion when there is not enough.
func (p *planner) share(s *supply, takers []taker) {
	var want uint64
	for i := range takers {
		t := &takers[i]
		if t.idle > 0 {
			got := s.cut(min(t.idle, t.want), t.crew.Node)
			for _, x := range got {
				t.want -= x.Len()
			}
			*t.give = append(*t.give, got...)
		}
		want += t.want
	}
	have, _ := s.left(want)
	for i := range takers {
		t := &takers[i]
		n := t.want
		if have < want {
			n = n * have / want
		}
		if n > 0 {
			*t.give = join(*t.give, s.cut(n, t.crew.Node))
		}
	}
}

// join appends runs, and makes the last one longer where it can.
func join(to, more []job.Try) []job.Try {
	for _, t := range more {
		if n := len(to); n > 0 && to[n-1].Hi == t.Lo && t.SameHistory(to[n-1]) {
			to[n-1].Hi = t.Hi
			continue
		}
		to = append(to, t)
	}
	return to
}

// serves reports whether a crew may be given more: its node is there and no task
// ahead of it waits for it.
func (p *planner) serves(c *Crew, before int) bool {
	i, ok := p.index(c.Node)
	if !ok {
		return false
	}
	n := p.nodes[i]
	return n.State == NodeUp && !n.Draining && !p.holds(i, before)
}

// holds reports whether a task that comes before the given index of Pending waits
// for the node.
func (p *planner) holds(i, before int) bool {
	return p.slots[i] != nil && p.slots[i].blocked && p.slots[i].blocker < before
}

func (p *planner) index(node string) (int, bool) {
	if p.byName == nil {
		p.byName = make(map[string]int, len(p.nodes))
		for i, n := range p.nodes {
			p.byName[n.Name] = i
		}
	}
	i, ok := p.byName[node]
	return i, ok
}

// order is what the crew is told by this plan.
func (p *planner) order(c *Crew) *Order {
	i, ok := p.told[c.ID]
	if !ok {
		if p.told == nil {
			p.told = map[string]int{}
		}
		i = len(p.out.Orders)
		p.told[c.ID] = i
		p.out.Orders = append(p.out.Orders, Order{ID: c.ID})
	}
	return &p.out.Orders[i]
}

// crews looks after those that run, once everything that waits had its turn: those
// on nodes that a task ahead of theirs waits for give back what they have not
// begun and end; where nothing waits any more, those with slots to spare get what
// others would begin late.
func (p *planner) crews(all []Crew) {
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Task == all[0].Task {
			n++
		}
		p.even(all[:n])
		all = all[n:]
	}
}

// even does so for the crews of one task.
func (p *planner) even(crews []Crew) {
	var idle []*Crew
	var need, asked uint64
	for i := range crews {
		c := &crews[i]
		asked += c.Back
		if k, ok := p.index(c.Node); ok && p.holds(k, c.Before) {
			o := p.order(c)
			o.Give, o.Back, o.Last = nil, c.Open, true
			continue
		}
		if c.Ready && c.Idle() > 0 && p.serves(c, c.Before) {
			idle = append(idle, c)
			need += c.Idle()
			if c.Done > 0 {
				need += uint64(min(c.rate(p.now)*keepTime.Seconds(), aheadMost))
			}
		}
	}
	if len(idle) == 0 {
		return
	}
	// Idle, with something pending: only what waits for its time, or avoids them.
	need -= min(need, asked)
	late := false
	donors := make([]*Crew, 0, len(crews))
	for i := range crews {
		c := &crews[i]
		if c.Open > uint64(c.Slots) && p.serves(c, c.Before) {
			donors = append(donors, c)
		}
	}
	slices.SortStableFunc(donors, func(a, b *Crew) int { return cmp.Compare(b.surplus(p.now), a.surplus(p.now)) })
	for _, c := range donors {
		if n := min(need, c.surplus(p.now)); n > 0 {
			p.order(c).Back = n
			need -= n
			asked += n
		} else {
			late = true
		}
	}
	if late {
		p.wake(p.now.Add(keepTime)) // it may turn out to be slow
	}
	for _, c := range idle {
		if c.Open == 0 && c.Back == 0 && asked == 0 && !late {
			p.order(c).Last = true
		}
	}
}
