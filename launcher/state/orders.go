package state

import (
	"cmp"
	"slices"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// windDown asks a crew for all that it has not begun, and to end after the rest.
func (t *change) windDown(a *attempt) {
	if !a.listens() {
		return
	}
	a.Crew.Last = true
	t.recall(a, a.open())
	t.changed(a)
	t.touch(a)
}

// recall asks a crew to give back up to n elements, those that it would begin
// last. What it was never told of it can't give back: that is taken.
func (t *change) recall(a *attempt, n uint64) {
	crew := a.Crew
	wanted := crew.Wanted()
	var back []CrewRun
	for i := len(wanted) - 1; i >= 0 && n > 0; i-- {
		r := wanted[i].Range
		if r.Len() > n {
			r.Lo = r.Hi - n
		}
		n -= r.Len()
		crew.Back = ranges(crew.Back).add(r)
		back = append(back, CrewRun{Range: r, Attempt: wanted[i].Attempt})
	}
	crew.Seq++
	t.changed(a)
	t.touch(a)
	if !a.launched() {
		slices.SortFunc(back, func(x, y CrewRun) int { return cmp.Compare(x.Lo, y.Lo) })
		t.returned(a, back)
	}
}

// give takes elements out of what waits and puts them behind what a crew has.
func (t *change) give(a *attempt, give []job.Try) {
	for _, g := range give {
		try, _ := a.task.pending.find(g.Range)
		try.Range = g.Range
		a.task.pending = a.task.pending.remove(g.Range)
		if n := len(a.Crew.Open); n > 0 && a.Crew.Open[n-1].Hi == try.Lo && try.SameHistory(a.Crew.Open[n-1]) {
			a.Crew.Open[n-1].Hi = try.Hi
		} else {
			a.Crew.Open = append(a.Crew.Open, try)
		}
	}
	a.Crew.Seq++
	t.changed(a)
	t.touch(a)
}

// obey carries out an order of the plan.
func (t *change) obey(o sched.Order) {
	a := t.c.attempts[o.ID]
	if len(o.Give) > 0 {
		a.pace.given(a.open(), a.Crew.Slots, t.at)
		t.give(a, o.Give)
	}
	if o.Back > 0 {
		t.recall(a, o.Back)
	}
	if o.Last {
		t.windDown(a)
	}
	t.replan = true
}

// listens reports whether a crew can still be told what to do.
func (a *attempt) listens() bool {
	return a.Crew != nil && !a.Crew.Last && a.End == nil && a.State != job.AttemptEnding
}

// look is what the scheduler sees of a crew.
func (a *attempt) look(before int) sched.Crew {
	back := ranges(a.Crew.Back).len()
	most := uint64(0)
	if s := a.task.crewSweep(); s != nil {
		most = s.Most
	}
	return sched.Crew{Most: most, ID: a.ID, Task: a.task.uid, Name: a.task.name, Before: before, Node: a.Parts[0].Node,
		Slots: a.Crew.Slots, Open: a.open() - back, Back: back,
		Done: a.pace.done, Rate: a.pace.rate, News: a.pace.news, Ready: a.Parts[0].Ready}
}

// crewNews asks for a plan if a crew could be given something, or others be
// relieved by it.
func (t *change) crewNews(a *attempt) {
	if !a.listens() {
		return
	}
	v := a.look(0)
	if len(a.task.pending) > 0 && v.Hungry(t.at) || v.Idle() > 0 {
		t.replan = true
	}
}
