package state

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"gangway/launcher/job"
)

// kin is a task among those that it waits for and those that wait for it. It
// follows from the rows: specifications and outcomes.
type kin struct {
	needs  []*link  // as in DependsOn, one each
	whole  []*link  // of others, for all of it
	some   []*link  // of others, for elements of it, by their first
	reach  []uint64 // of some: the highest Hi up to there
	dead   int      // of whole and some: links of tasks that are gone
	unmet  int      // needs that are not satisfied
	lost   int      // needs that will not be
	queued bool     // it is in its job's ready tasks
	ended  bool     // it had completed when whole was looked at last

	flip   ranges // elements that satisfy though they failed, or block though they did not
	orphan ranges // elements that ended because of a parent
	spared ranges // failed ones that don't count as failures of the job
}

// link is a dependency of one task on another.
type link struct {
	child  *taskState
	parent *taskState // nil: not in the job yet
	want   job.Range  // elements of the parent; all of them in whole
	state  linkState
	dead   bool
}

type linkState byte

const (
	linkOpen linkState = iota // something of the parent has not ended
	linkMet
	linkLost // all of it has ended, and not all well
)

// weigh says how a dependency stands. A parent counts as a whole, so that what
// waits for an array has it to the end.
func (l *link) weigh() linkState {
	if l.parent == nil {
		return linkOpen
	}
	p := l.parent
	met := true
	for at := l.want.Lo; at < l.want.Hi; {
		set, well := p.good, true
		i := set.after(at)
		if i == len(set) || set[i].Lo > at {
			set, well = p.bad, false
			if i = set.after(at); i == len(set) || set[i].Lo > at {
				return linkOpen
			}
		}
		next := min(set[i].Hi, l.want.Hi)
		if met {
			met = p.flips(well, job.Range{Lo: at, Hi: next})
		}
		at = next
	}
	if met {
		return linkMet
	}
	return linkLost
}

// flips reports whether elements that all ended well, or all failed, satisfy.
func (k *kin) flips(well bool, r job.Range) bool {
	if well {
		return !k.flip.overlaps(r)
	}
	return len(k.flip.missing(r)) == 0
}

// mark notes what an outcome means to others; unmark, before the elements are
// taken out of the failed ones, that they are tried again.
func (t *taskState) mark(o *job.Outcome) {
	if e := t.spec.Exit; e != nil && e.Satisfies(*o) != o.Success {
		t.flip = t.flip.add(o.Range)
	}
	if o.Success {
		return
	}
	code := job.Code("")
	if o.Reason != nil {
		code = o.Reason.Code
	}
	switch code {
	case job.FailParent:
		t.orphan = t.orphan.add(o.Range)
		t.spared = t.spared.add(o.Range)
	case job.FailCancelled, job.FailFailures, job.FailExitAction:
		t.spared = t.spared.add(o.Range)
	default:
		t.job.failed += o.Len()
	}
}

func (t *taskState) unmark(r job.Range) {
	if len(t.bad) > 0 {
		t.job.failed -= t.bad.count(r) - t.spared.count(r)
	}
	t.flip, t.orphan, t.spared = t.flip.remove(r), t.orphan.remove(r), t.spared.remove(r)
}

// count is the number of elements of r that are in the set.
func (s ranges) count(r job.Range) uint64 {
	var n uint64
	for i := s.after(r.Lo); i < len(s) && s[i].Lo < r.Hi; i++ {
		n += job.Range{Lo: max(s[i].Lo, r.Lo), Hi: min(s[i].Hi, r.Hi)}.Len()
	}
	return n
}

// connect makes a task's links; what they say follows from rows alone.
func (t *taskState) connect() {
	for _, d := range t.spec.DependsOn {
		l := &link{child: t}
		t.needs = append(t.needs, l)
		t.unmet++
		if p := t.job.byID[strings.ToLower(d.Task)]; p != nil {
			l.join(p, d.Range)
		} else {
			t.job.want(d.Task, l)
		}
		l.is(l.weigh())
	}
}

// want notes that a task waits for one that is not in the job yet. "A_3" may come
// to be a task, or an element of A.
func (j *jobState) want(id string, l *link) {
	if j.wanted == nil {
		j.wanted = map[string][]*link{}
	}
	keys := []string{id}
	if array, _, ok := job.Element(id); ok {
		keys = append(keys, array)
	}
	for _, k := range keys {
		k = strings.ToLower(k)
		j.wanted[k] = append(j.wanted[k], l)
	}
}

// unwant forgets a link that waits no longer.
func (j *jobState) unwant(l *link) {
	i := slices.Index(l.child.needs, l)
	id := l.child.spec.DependsOn[i].Task
	array, _, _ := job.Element(id)
	for _, k := range []string{strings.ToLower(id), strings.ToLower(array)} {
		left := slices.DeleteFunc(j.wanted[k], func(x *link) bool { return x == l })
		if len(left) > 0 {
			j.wanted[k] = left
		} else {
			delete(j.wanted, k)
		}
	}
}

// join makes p the link's parent.
func (l *link) join(p *taskState, some job.Range) {
	l.parent, l.want = p, p.spec.Range
	if some == (job.Range{}) {
		if len(p.whole) == 0 {
			p.ended = p.completed()
		}
		p.whole = append(p.whole, l)
		return
	}
	l.want = some
	i := sort.Search(len(p.some), func(i int) bool { return p.some[i].want.Lo > some.Lo })
	p.some = slices.Insert(p.some, i, l)
	p.reach = slices.Insert(p.reach, i, 0)
	for ; i < len(p.some); i++ {
		p.reach[i] = p.some[i].want.Hi
		if i > 0 {
			p.reach[i] = max(p.reach[i], p.reach[i-1])
		}
	}
}

// is sets the link's state and counts for its child.
func (l *link) is(s linkState) {
	k := &l.child.kin
	switch l.state {
	case linkMet:
		k.unmet++
	case linkLost:
		k.lost--
	}
	l.state = s
	switch s {
	case linkMet:
		k.unmet--
	case linkLost:
		k.lost++
	}
}

// heirs calls f with the links of those that wait for something of r; of those that
// wait for all of the task, when it has completed or is active again.
func (t *taskState) heirs(r job.Range, f func(*link)) {
	k := &t.kin
	if len(k.whole) > 0 && t.completed() != k.ended {
		k.ended = !k.ended
		for _, l := range slices.Clone(k.whole) {
			if !l.dead {
				f(l)
			}
		}
	}
	i := sort.Search(len(k.some), func(i int) bool { return k.some[i].want.Lo >= r.Hi })
	var hit []*link
	for i--; i >= 0 && k.reach[i] > r.Lo; i-- {
		if l := k.some[i]; !l.dead && l.want.Hi > r.Lo {
			hit = append(hit, l)
		}
	}
	for _, l := range slices.Backward(hit) {
		f(l)
	}
}

// leave takes the links of a task that is gone out of those of its parents, once
// most of a parent's are such.
func (k *kin) leave(of []*link) {
	for _, l := range of {
		l.dead = true
		p := l.parent
		if p == nil {
			l.child.job.unwant(l)
			continue
		}
		if p.dead++; 2*p.dead < len(p.whole)+len(p.some) {
			continue
		}
		gone := func(l *link) bool { return l.dead }
		p.whole = slices.DeleteFunc(p.whole, gone)
		p.some = slices.DeleteFunc(p.some, gone)
		p.reach = p.reach[:0]
		high := uint64(0)
		for _, l := range p.some {
			high = max(high, l.want.Hi)
			p.reach = append(p.reach, high)
		}
		p.dead = 0
	}
}

// compareTasks is the order in which the tasks of a job start.
func compareTasks(a, b *taskState) int {
	return cmp.Or(cmp.Compare(b.spec.Priority, a.spec.Priority), cmp.Compare(a.row.Index, b.row.Index))
}

// place puts a task among those of its job that may start, or takes it out, and
// reports whether that changed anything.
func (t *taskState) place() bool {
	want := t.unmet == 0 && !t.completed()
	if want == t.queued {
		return false
	}
	j := t.job
	i, found := slices.BinarySearchFunc(j.ready, t, compareTasks)
	switch {
	case want && !found:
		j.ready = slices.Insert(j.ready, i, t)
	case !want && found:
		j.ready = slices.Delete(j.ready, i, i+1)
	}
	t.queued = want
	return true
}

// unplace takes a task out whatever its state.
func (t *taskState) unplace() {
	if !t.queued {
		return
	}
	if i, found := slices.BinarySearchFunc(t.job.ready, t, compareTasks); found {
		t.job.ready = slices.Delete(t.job.ready, i, i+1)
	}
	t.queued = false
}
