package crew

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// clock does what is due, and sets the timer for what comes next.
func (w *Crew) clock(now time.Time) {
	next := time.Hour
	soon := func(at time.Time) { next = min(next, max(at.Sub(now), time.Millisecond)) }
	for _, s := range w.slots {
		switch {
		case s.soft.IsZero():
		case s.soft.After(now):
			soon(s.soft)
		case w.spawner.Signal(s.queue[0].slot, s.queue[0].tag, w.c.SoftSignal):
			s.soft = time.Time{}
		default:
			soon(now.Add(unheardPause))
		}
		switch {
		case s.due.IsZero():
			continue
		case s.due.After(now):
			soon(s.due)
			continue
		}
		s.due, s.soft = time.Time{}, time.Time{}
		e := s.queue[0]
		if e.stop != nil {
			continue
		}
		e.stop = &wire.Failure{Code: wire.FailureCode_FAILURE_TIME_LIMIT, Node: w.c.Node, Message: fmt.Sprintf("the time limit of %v is over", w.c.TimeLimit)}
		if !w.spawner.Signal(e.slot, e.tag, int(syscall.SIGTERM)) {
			w.unheard = append(w.unheard, e.tag)
		}
		w.graces = append(w.graces, deadline{e.tag, now.Add(w.c.KillGrace)})
	}
	w.unheard = slices.DeleteFunc(w.unheard, func(tag uint64) bool {
		e := w.flight[tag]
		return e == nil || w.spawner.Signal(e.slot, tag, int(syscall.SIGTERM))
	})
	if len(w.unheard) > 0 {
		soon(now.Add(unheardPause))
	}
	for len(w.graces) > 0 {
		d := w.graces[0]
		if d.at.After(now) {
			soon(d.at)
			break
		}
		w.graces = w.graces[1:]
		if e := w.flight[d.tag]; e != nil && !w.spawner.Signal(e.slot, e.tag, int(syscall.SIGKILL)) {
			w.graces = append(w.graces, deadline{e.tag, now.Add(20 * time.Millisecond)}) // it is just being started, or has ended
		}
	}
	if len(w.flight) > 0 {
		if now.Sub(w.strays) >= strayPause {
			w.strays = now
			w.killStrays(proc.Children())
		}
		soon(w.strays.Add(strayPause))
	}
	if !w.held.IsZero() {
		soon(w.held)
	}
	w.tick.Reset(next)
}

// unheardPause is how soon a signal is sent again to an element that was just being
// started.
const unheardPause = 10 * time.Millisecond

// arm notes the deadline of the element that a slot runs now.
func (w *Crew) arm(s *slotState, now time.Time) {
	s.due, s.soft = time.Time{}, time.Time{}
	if len(s.queue) > 0 && w.c.TimeLimit > 0 {
		s.due = now.Add(w.c.TimeLimit)
		if w.c.SoftSignal > 0 {
			s.soft = s.due.Add(-w.c.SoftBefore)
		}
	}
}

func sortDeadlines(list []deadline) {
	slices.SortFunc(list, func(a, b deadline) int { return a.at.Compare(b.at) })
}
