package state

import (
	"fmt"
	"slices"
	"time"

	"gangway/launcher/job"
)

// CrewBlock is a crew's numbered block: how elements ended, and which were given
// back. One that was taken in before is dropped, and so is the outcome of an
// element that the crew no longer has. A block that leaves one out is an error.
type CrewBlock struct {
	ID, Node string
	Seq      uint64 // from 1
	Runs     []CrewRun
	Endings  []Ending
	Costs    *job.Costs     // with an entry for each element of Runs, by index; nil: not said
	Last     []job.LastLine // by index
	Returned []CrewRun      // never started
}

// CrewRun is a range of elements in the same attempt.
type CrewRun struct {
	job.Range
	Attempt uint32
}

// Ending is how so many of a block's elements ended, in the order of its runs.
type Ending struct {
	Count    uint64
	ExitCode int
	Signal   int
	Failure  *job.Reason // why, where it was not the program's own end
}

func (e CrewBlock) apply(c *Cluster, t *change) error {
	a, i, ok := c.find(e.ID, e.Node)
	if !ok {
		return nil
	}
	crew := a.Crew
	switch {
	case crew == nil:
		return fmt.Errorf("block %d of attempt %s, which is no crew", e.Seq, e.ID)
	case e.Seq <= crew.Block:
		return nil
	case e.Seq != crew.Block+1:
		return fmt.Errorf("block %d of crew %s: block %d is missing", e.Seq, e.ID, crew.Block+1)
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("block %d of crew %s: %w", e.Seq, e.ID, err)
	}
	p := &a.Parts[i]
	if len(e.Runs) > 0 && !p.Started {
		p.Seen, p.Started = true, true
		t.ready(a, i)
	}
	open := a.open()
	n := t.finished(a, e)
	asked := t.returned(a, e.Returned)
	crew.Block = e.Seq
	a.Requeue = a.Requeue && len(crew.Open) > 0
	t.changed(a)
	mark(&t.touched, e.Node) // to be told that it is in
	a.pace.told(n, open, crew, t.at)
	if !asked { // it ends, or has: more would be lost with it
		t.windDown(a)
	}
	t.crewNews(a)
	t.settle(a)
	return nil
}

// check compares the block with itself.
func (e *CrewBlock) check() error {
	var n, ends, last uint64
	for _, r := range e.Runs {
		if r.Len() == 0 || r.Lo < last || r.Attempt == 0 {
			return fmt.Errorf("its elements %d-%d are empty or out of order", r.Lo, r.Hi)
		}
		last = r.Hi
		n += r.Len()
	}
	for _, x := range e.Endings {
		if ends += x.Count; x.Count == 0 || x.Count > n {
			return fmt.Errorf("it has %d elements and an end of %d", n, x.Count)
		}
	}
	if ends != n {
		return fmt.Errorf("it has %d elements and the ends of %d", n, ends)
	}
	if k := e.Costs; k != nil {
		for _, have := range []int{len(k.Attempt), len(k.Start), len(k.Wall), len(k.CPU), len(k.RSS)} {
			if uint64(have) != n {
				return fmt.Errorf("it has %d elements and the costs of %d", n, have)
			}
		}
	}
	return nil
}

// finished gives the elements of a block that the crew has their outcome, and
// returns how many these were.
func (t *change) finished(a *attempt, e CrewBlock) (n uint64) {
	b := job.BlockRow{Task: a.task.uid, Attempt: a.ID, Node: e.Node, Costs: e.Costs, Last: e.Last}
	var was job.Outcome
	var total, pos uint64
	var drop []job.Range // positions of elements that are not the crew's
	ends, left := e.Endings, uint64(0)
	var o job.Outcome
	for _, r := range e.Runs {
		total += r.Len()
		for r.Len() > 0 {
			for left == 0 {
				o, left = a.outcomeOf(resultOf(ends[0]), e.Node), ends[0].Count
				ends = ends[1:]
			}
			k := min(left, r.Len())
			piece := job.Range{Lo: r.Lo, Hi: r.Lo + k}
			found := a.take(piece, r.Attempt)
			got := uint64(0)
			for _, try := range found {
				got += try.Len()
				t.conclude(a, try, o, &b)
			}
			if len(found) > 0 && !o.Success {
				was = o
			}
			if got < k {
				at := pos
				for _, x := range missingOf(piece, found) {
					drop = append(drop, job.Range{Lo: at + x.Lo - piece.Lo, Hi: at + x.Hi - piece.Lo})
				}
			}
			n += got
			pos, left, r.Lo = pos+k, left-k, r.Lo+k
		}
	}
	if n == 0 {
		return 0
	}
	if len(drop) > 0 {
		b.Costs = without(b.Costs, drop, total)
		b.Last = slices.DeleteFunc(slices.Clone(b.Last), func(l job.LastLine) bool { return !holds(&b, l.Index) })
	}
	t.keep(a.task, b, was)
	return n
}

func resultOf(e Ending) job.Result {
	return job.Result{ExitCode: e.ExitCode, Signal: e.Signal, Failure: e.Failure}
}

// conclude adds elements that ended as o says to a block: with that outcome, or
// with their next try.
func (t *change) conclude(a *attempt, try job.Try, o job.Outcome, b *job.BlockRow) {
	if again, ok := t.nextTry(a, try, o); ok {
		b.Again = append(b.Again, again)
		o.Range = try.Range
		b.Was = append(b.Was, o)
		return
	}
	o.Range = try.Range
	if n := len(b.Done); n > 0 {
		if l := &b.Done[n-1]; l.Hi == o.Lo && l.Success == o.Success && l.ExitCode == o.ExitCode && l.Signal == o.Signal && l.Reason == o.Reason {
			l.Hi = o.Hi
			return
		}
	}
	b.Done = append(b.Done, o)
}

// nextTry returns the next try of elements of a crew that have ended as o says;
// false: there is none.
func (t *change) nextTry(a *attempt, try job.Try, o job.Outcome) (job.Try, bool) {
	next := job.Try{Range: try.Range, Attempt: try.Attempt + 1, Retries: try.Retries, Losses: try.Losses, Avoid: try.Avoid}
	if o.Success {
		return next, false
	}
	code := codeOf(o)
	switch {
	case a.Cancel != nil:
		return next, false
	case code == job.FailRequeued:
		return next, true
	case code == job.WaitClaimed:
		next.Avoid, next.Refusals = t.guilty(a, try), try.Refusals+1
		next.NotBefore = t.at.Add(refusalPause(next.Refusals))
		return next, true
	case lostCode(code):
		next.Avoid, next.Losses = t.guilty(a, try), try.Losses+1
		return next, !a.Parts[0].Unread && a.task.spec.OnNodeLoss != job.NodeLossFail && try.Losses < maxLosses
	case retryable(code) && a.task.retriesLeft(try):
		return t.retried(a, try, o), true
	}
	return next, false
}

// take removes from what the crew has the elements of r in the given attempt, and
// returns what of them it had.
func (a *attempt) take(r job.Range, number uint32) []job.Try {
	crew := a.Crew
	var found []job.Try
	for i := 0; i < len(crew.Open) && r.Len() > 0; i++ {
		t := &crew.Open[i]
		if t.Attempt != number || t.Lo >= r.Hi || t.Hi <= r.Lo {
			continue
		}
		hit := *t
		hit.Lo, hit.Hi = max(t.Lo, r.Lo), min(t.Hi, r.Hi)
		found = append(found, hit)
		switch {
		case hit.Range == t.Range:
			crew.Open = slices.Delete(crew.Open, i, i+1)
			i--
		case hit.Lo == t.Lo:
			t.Lo = hit.Hi
		case hit.Hi == t.Hi:
			t.Hi = hit.Lo
		default:
			right := *t
			right.Lo = hit.Hi
			t.Hi = hit.Lo
			crew.Open = slices.Insert(crew.Open, i+1, right)
			i++
		}
		if hit.Range == r {
			break
		}
	}
	if len(crew.Back) > 0 {
		for _, t := range found {
			crew.Back = ranges(crew.Back).remove(t.Range)
		}
	}
	return found
}

// open is how many elements a crew has.
func (a *attempt) open() uint64 {
	if a.Crew == nil {
		return 0
	}
	return tries(a.Crew.Open).len()
}

// missingOf returns what of r is in none of the tries.
func missingOf(r job.Range, in []job.Try) []job.Range {
	var have ranges
	for _, t := range in {
		have = have.add(t.Range)
	}
	return have.missing(r)
}

// without returns the costs without the elements at the given positions of n.
func without(k *job.Costs, drop []job.Range, n uint64) *job.Costs {
	if k == nil {
		return nil
	}
	out := &job.Costs{}
	keep := missingRanges(drop, n)
	for _, r := range keep {
		out.Attempt = append(out.Attempt, k.Attempt[r.Lo:r.Hi]...)
		out.Start = append(out.Start, k.Start[r.Lo:r.Hi]...)
		out.Wall = append(out.Wall, k.Wall[r.Lo:r.Hi]...)
		out.CPU = append(out.CPU, k.CPU[r.Lo:r.Hi]...)
		out.RSS = append(out.RSS, k.RSS[r.Lo:r.Hi]...)
	}
	return out
}

func missingRanges(drop []job.Range, n uint64) []job.Range {
	var gone ranges
	for _, r := range drop {
		gone = gone.add(r)
	}
	return gone.missing(job.Range{Hi: n})
}

// holds reports whether an element is in the block.
func holds(b *job.BlockRow, index uint64) bool {
	in := func(r job.Range) bool { return r.Lo <= index && index < r.Hi }
	return slices.ContainsFunc(b.Done, func(o job.Outcome) bool { return in(o.Range) }) ||
		slices.ContainsFunc(b.Again, func(t job.Try) bool { return in(t.Range) })
}

// returned makes elements that a crew had not begun pending again, or ends them
// with the task. That is a block of its own: they cost nothing. It reports whether
// the crew was asked for all of them.
func (t *change) returned(a *attempt, runs []CrewRun) (asked bool) {
	back := ranges(slices.Clone(a.Crew.Back))
	asked = true
	b := job.BlockRow{Task: a.task.uid, Attempt: a.ID}
	for _, r := range runs {
		for _, try := range a.take(r.Range, r.Attempt) {
			asked = asked && len(back.missing(try.Range)) == 0
			if a.Cancel != nil {
				o := outcomeOfReason(*a.Cancel)
				o.Range = try.Range
				b.Done = append(b.Done, o)
				continue
			}
			try.Attempt, try.NotBefore = try.Attempt+1, time.Time{}
			b.Again = append(b.Again, try)
		}
	}
	if len(b.Done)+len(b.Again) > 0 {
		t.changed(a)
		t.keepQuiet(a.task, b)
	}
	return asked
}

// release decides what becomes of all that a crew still has, which ended as o
// says or never began. What may still run somewhere is tried again only once
// nothing of the crew is left: until then, Requeue.
func (t *change) release(a *attempt, o job.Outcome) {
	if len(a.Crew.Open) == 0 {
		return
	}
	if a.Cancel != nil && (codeOf(o) == job.WaitClaimed || lostCode(codeOf(o))) {
		o = outcomeOfReason(*a.Cancel)
	}
	waits := codeOf(o) == job.WaitClaimed || codeOf(o) == job.FailRequeued || lostCode(codeOf(o))
	b := job.BlockRow{Task: a.task.uid, Attempt: a.ID, Node: a.Parts[0].Node}
	var keep []job.Try
	for _, try := range a.Crew.Open {
		if _, ok := t.nextTry(a, try, o); ok && waits {
			keep = append(keep, try)
			continue
		}
		t.conclude(a, try, o, &b)
	}
	t.drop(a, keep)
	a.Requeue = len(keep) > 0
	if len(b.Done)+len(b.Again) > 0 {
		t.keep(a.task, b, o)
	}
}

// drop leaves the crew with these elements alone.
func (t *change) drop(a *attempt, open []job.Try) {
	a.Crew.Open, a.Crew.Back = open, nil
	t.changed(a)
	t.touch(a)
}

// crewEnded makes what a crew left behind pending again, or ends it.
func (t *change) crewEnded(a *attempt) {
	a.Requeue = false
	if len(a.Crew.Open) == 0 {
		return
	}
	o := outcomeOfReason(job.Reason{Code: job.FailUnknown})
	if a.End != nil {
		o = a.outcomeOfEnd()
	}
	b := job.BlockRow{Task: a.task.uid, Attempt: a.ID, Node: a.Parts[0].Node}
	for _, try := range a.Crew.Open {
		t.conclude(a, try, o, &b)
	}
	t.drop(a, nil)
	t.keep(a.task, b, o)
}

// crewResult is a crew's own end.
func (t *change) crewResult(a *attempt, i int, r job.Result) {
	p := &a.Parts[i]
	if len(p.Results) > 0 {
		return
	}
	r.Range = a.Try.Range
	p.Results = append(p.Results, r)
	t.part(a, i)
	mark(&t.touched, p.Node)
	if len(a.Crew.Open) > 0 {
		o := a.outcomeOf(r, p.Node)
		if o.Success { // against the rules: whether they ran, nobody knows
			o = outcomeOfReason(shimLost(p.Node, "it ended with elements left"))
		}
		t.release(a, o)
		if a.Requeue && a.End == nil {
			t.end(a, *o.Reason, false)
		}
	}
	t.settle(a)
}

// fitsTries checks elements that are to be given against what waits.
func (task *taskState) fitsTries(give []job.Try, taken ranges) (ranges, error) {
	for _, g := range give {
		try, ok := task.pending.find(g.Range)
		if !ok || try.Attempt != g.Attempt || taken.overlaps(g.Range) {
			return taken, fmt.Errorf("placement of task %s: elements %s are not pending", task.name, g.Range)
		}
		taken = taken.add(g.Range)
	}
	return taken, nil
}

// checkCrew returns what is wrong with a crew.
func (a *attempt) checkCrew() error {
	crew := a.Crew
	if crew == nil {
		if a.task.spec.Crewed() {
			return fmt.Errorf("is of an array and no crew")
		}
		return nil
	}
	if crew.Slots < 1 || len(a.Parts) != 1 {
		return fmt.Errorf("is a crew of %d slots on %d nodes", crew.Slots, len(a.Parts))
	}
	var all ranges
	for _, t := range crew.Open {
		if t.Attempt == 0 || t.Len() == 0 {
			return fmt.Errorf("has elements %s badly kept", t.Range)
		}
		all = all.add(t.Range)
	}
	for i, r := range crew.Back {
		if i > 0 && crew.Back[i-1].Hi >= r.Lo || len(all.missing(r)) > 0 {
			return fmt.Errorf("is asked for elements %s, which it has not", r)
		}
	}
	if len(crew.Open) > 0 && len(a.Parts[0].Results) > 0 && !a.Requeue {
		return fmt.Errorf("has elements left after its end")
	}
	return nil
}

// crewSweep is the task's sweep as crews are told it; nil: it has none.
func (task *taskState) crewSweep() *job.CrewSweep {
	if task.sweep == nil && task.spec.Sweep != nil {
		task.sweep = job.NewCrewSweep(task.spec)
	}
	return task.sweep
}

// unsettled are the elements of an attempt that have no outcome.
func (a *attempt) unsettled() []job.Range {
	if a.Crew == nil {
		return ranges(a.Settled).missing(a.Try.Range)
	}
	out := make([]job.Range, len(a.Crew.Open))
	for i, t := range a.Crew.Open {
		out[i] = t.Range
	}
	return out
}
