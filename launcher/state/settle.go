package state

import (
	"slices"

	"gangway/launcher/job"
)

// maxLosses is how often the same elements may lose their shims or nodes before
// they fail: a program that kills its shim would otherwise go round for ever.
const maxLosses = 3

// recorded reports whether a part has told all its outcomes.
func (a *attempt) recorded(i int) bool {
	return len(a.Parts[i].Results) > 0 || !a.gang() && a.settled()
}

func (a *attempt) settled() bool {
	if a.Crew != nil {
		return len(a.Parts[0].Results) > 0 && len(a.Crew.Open) == 0
	}
	return ranges(a.Settled).len() == a.Try.Len()
}

// launched reports whether every part was ready, which is when all are told to
// go.
func (a *attempt) launched() bool {
	return !slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return !p.Ready })
}

// end asks for the end of what has no result yet. The first reason stays.
func (t *change) end(a *attempt, why job.Reason, now bool) {
	if a.End == nil {
		a.End = &why
		t.touch(a)
	}
	if now && !a.EndNow {
		a.EndNow = true
		t.touch(a)
	}
	t.changed(a)
	if a.State != job.AttemptEnding {
		t.become(a, job.AttemptEnding)
	}
}

// gone frees a part's slots. Without a record, what it ran is lost.
func (t *change) gone(a *attempt, i int, why job.Reason) {
	p := &a.Parts[i]
	p.Gone = true
	n := t.c.nodes[p.Node]
	n.live = slices.DeleteFunc(n.live, func(x *attempt) bool { return x == a })
	t.freed(p.Node)
	t.part(a, i)
	if !a.recorded(i) {
		if p.Failure == nil && a.End == nil {
			p.Failure = &why
		}
		if a.End == nil {
			t.end(a, why, true)
		}
	}
	t.settle(a)
}

// settle draws the conclusions from what is known of an attempt.
func (t *change) settle(a *attempt) {
	if a.gang() {
		t.verdict(a)
	} else if p := &a.Parts[0]; a.End != nil && !a.Requeue && (!p.Ready || p.Gone || p.Cut) {
		t.leave(a, a.outcomeOfEnd())
	}
	if a.State != job.AttemptEnding {
		switch {
		case a.gang() && a.Verdict != nil || a.settled():
			t.become(a, job.AttemptEnding)
		case slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return p.Cut && !p.Gone }):
			t.become(a, job.AttemptLost)
		default:
			t.progress(a)
		}
	}
	if !slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return !p.Gone }) {
		t.ended(a)
	}
}

// leave decides what becomes of all that has no outcome.
func (t *change) leave(a *attempt, o job.Outcome) {
	if a.Crew != nil {
		t.release(a, o)
		return
	}
	t.decide(a, ranges(a.Settled).missing(a.Try.Range), o)
}

// progress walks an attempt forward to where its parts are.
func (t *change) progress(a *attempt) {
	has := func(f func(job.PartRow) bool) bool { return slices.ContainsFunc(a.Parts, f) }
	goal := 0
	switch {
	case has(func(p job.PartRow) bool { return p.Started }):
		goal = 4
	case a.launched():
		goal = 3
	case has(func(p job.PartRow) bool { return p.Seen }):
		goal = 1
	}
	way := []job.AttemptState{job.AttemptPlaced, job.AttemptPreparing, job.AttemptReady, job.AttemptLaunching, job.AttemptRunning}
	if a.State == job.AttemptLost { // the node is back
		if goal == 4 {
			t.become(a, job.AttemptRunning)
		} else {
			t.become(a, job.AttemptPreparing)
		}
	}
	for i := slices.Index(way, a.State) + 1; i <= goal; i++ {
		t.become(a, way[i])
	}
}

// verdict settles a gang: by its primary's result or, if there will be none, by
// the first failure seen.
func (t *change) verdict(a *attempt) {
	if a.Verdict != nil {
		return
	}
	var o job.Outcome
	switch p := &a.Parts[0]; {
	case len(p.Results) > 0:
		o = a.outcomeOf(p.Results[0], p.Node)
	case a.End != nil && (!a.launched() || p.Gone || p.Cut):
		o = a.outcomeOfEnd()
	default:
		return
	}
	o.Range = a.Try.Range
	a.Verdict = &o
	t.changed(a)
	if !o.Success {
		why := job.Reason{Code: job.FailUnknown}
		if o.Reason != nil {
			why = *o.Reason
		}
		t.end(a, why, false)
	}
	t.decide(a, []job.Range{a.Try.Range}, o)
}

// follows reports whether a failure is only the echo of an end elsewhere.
func follows(c job.Code) bool {
	return c == job.FailCancelled || c == job.FailPeerLost || c == job.FailLease
}

// decide gives elements their outcome, or another try: at once after an exit
// other than 0, once the attempt has ended after a refusal or a loss.
func (t *change) decide(a *attempt, open []job.Range, o job.Outcome) {
	if len(open) == 0 {
		return
	}
	spec := a.task.spec
	code := codeOf(o)
	claimed := code == job.WaitClaimed
	lost := lostCode(code) || code == job.FailPreflight && a.bereft() // what the checks could not reach is gone
	switch {
	case o.Success:
	case a.Cancel != nil:
		if claimed || lost {
			o = outcomeOfReason(*a.Cancel)
		}
	case claimed, code == job.FailRequeued, lost && !a.Parts[0].Unread && spec.OnNodeLoss != job.NodeLossFail && a.Try.Losses < maxLosses:
		a.Requeue = true
		t.changed(a)
		return
	case retryable(code) && a.task.retriesLeft(a.Try):
		again := make([]job.Try, len(open))
		for i, r := range open {
			again[i] = t.retried(a, a.Try, o)
			again[i].Range = r
		}
		t.settleAs(a, open, nil, again, o)
		return
	}
	done := make([]job.Outcome, len(open))
	for i, r := range open {
		done[i] = o
		done[i].Range = r
	}
	t.settleAs(a, open, done, nil, o)
}

func codeOf(o job.Outcome) job.Code {
	if o.Reason == nil {
		return ""
	}
	return o.Reason.Code
}

// lostCode reports whether a failure is the loss of what ran, not its own.
func lostCode(c job.Code) bool {
	return c == job.FailNodeLost || c == job.FailShimLost || c == job.FailPeerLost || c == job.FailLease
}

// bereft reports whether a node is gone, or given up, before its part had a result.
func (a *attempt) bereft() bool {
	return slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return (p.Gone || p.Cut) && len(p.Results) == 0 })
}

// retriesLeft reports whether elements may be tried again after a failure.
func (task *taskState) retriesLeft(try job.Try) bool {
	n := task.spec.Retries
	if n == 0 {
		n = task.job.row.Spec.Retries
	}
	return n < 0 || int(try.Retries) < n
}

// retried is the next try of elements that failed.
func (t *change) retried(a *attempt, try job.Try, o job.Outcome) job.Try {
	return t.retry(a.task.spec, try.Range, try, t.guilty(a, try), failedOn(a, o))
}

func (t *change) settleAs(a *attempt, open []job.Range, done []job.Outcome, again []job.Try, was job.Outcome) {
	for _, r := range open {
		a.Settled = ranges(a.Settled).add(r)
	}
	a.Requeue = a.Requeue && !a.settled()
	t.changed(a)
	if !a.gang() {
		t.touch(a) // it may have recorded everything
	}
	t.block(a.task, a.ID, done, again, was)
}

// guilty names the nodes that the next try should leave out.
func (t *change) guilty(a *attempt, try job.Try) []string {
	out := slices.Clone(try.Avoid)
	for _, p := range a.Parts {
		if p.Failure != nil && p.Failure.Code != job.WaitClaimed && !slices.Contains(out, p.Node) {
			out = append(out, p.Node)
		}
	}
	for _, s := range t.c.suspects(a) {
		if !slices.Contains(out, s.Node) {
			out = append(out, s.Node)
		}
	}
	slices.Sort(out)
	return out
}

// retryable reports whether another try may end differently.
func retryable(c job.Code) bool {
	switch c {
	case "", job.FailUnknown, job.FailRank, job.FailMPIRun, job.FailMemory:
		return true
	}
	return false
}

// ended closes an attempt of which nothing is left.
func (t *change) ended(a *attempt) {
	if a.Crew != nil {
		t.crewEnded(a)
	} else if open := ranges(a.Settled).missing(a.Try.Range); len(open) > 0 {
		was := a.outcomeOfEnd()
		if a.Verdict != nil {
			was = *a.Verdict
		}
		if a.Requeue {
			next := job.Try{Attempt: a.Try.Attempt + 1, Retries: a.Try.Retries, Losses: a.Try.Losses, Avoid: t.guilty(a, a.Try)}
			if a.End != nil && a.End.Code == job.WaitClaimed {
				next.Refusals = a.Try.Refusals + 1
				next.NotBefore = t.at.Add(refusalPause(next.Refusals))
			} else if a.End == nil || a.End.Code != job.FailRequeued {
				next.Losses++
			}
			again := make([]job.Try, len(open))
			for i, r := range open {
				again[i] = next
				again[i].Range = r
			}
			t.settleAs(a, open, nil, again, was)
		} else {
			done := make([]job.Outcome, len(open))
			for i, r := range open {
				done[i] = was
				done[i].Range = r
			}
			t.settleAs(a, open, done, nil, was)
		}
	}
	t.judge(a)
	t.become(a, job.AttemptEnded)
	c, task := t.c, a.task
	delete(c.attempts, a.ID)
	for i := range a.Parts {
		t.part(a, i)
	}
	task.live = slices.DeleteFunc(task.live, func(x *attempt) bool { return x == a })
	if a.gang() || a.End != nil || a.Crew == nil && a.Try.Len() == 1 { // blocks tell enough of an array's
		t.rows = append(t.rows, job.Encode(job.TableAutopsy, a.ID, a.AttemptRow))
	}
	task.job.live--
	t.taskEnded(task)
	t.jobEnded(task.job)
}

func outcomeOf(r job.Result, node string) job.Outcome {
	if r.Success() {
		return job.Outcome{Range: r.Range, Success: true}
	}
	why := reasonOf(r, node)
	o := job.Outcome{Range: r.Range, ExitCode: r.ExitCode, Signal: r.Signal, Reason: &why}
	if o.ExitCode == 0 && o.Signal == 0 {
		o.ExitCode = exitFor(why.Code)
	}
	return o
}

func reasonOf(r job.Result, node string) job.Reason {
	if r.Failure != nil {
		return *r.Failure
	}
	return job.Reason{Code: job.FailRank, Nodes: []job.NodeShort{{Node: node}}}
}

// outcomeOf is the outcome of a part's result. A part that was only told to end
// does not know why; who told it does.
func (a *attempt) outcomeOf(r job.Result, node string) job.Outcome {
	o := outcomeOf(r, node)
	if a.End == nil || o.Reason == nil || !follows(o.Reason.Code) {
		return o
	}
	end := a.outcomeOfEnd()
	if a.End.Code == job.FailCancelled && (o.ExitCode != 0 || o.Signal != 0) {
		end.ExitCode, end.Signal = o.ExitCode, o.Signal
	}
	return end
}

// outcomeOfEnd is the outcome that the end of an attempt stands for.
func (a *attempt) outcomeOfEnd() job.Outcome {
	o := outcomeOfReason(*a.End)
	if a.EndExit != 0 || a.EndSignal != 0 {
		o.ExitCode, o.Signal = a.EndExit, a.EndSignal
	}
	return o
}

func outcomeOfReason(why job.Reason) job.Outcome {
	return job.Outcome{ExitCode: exitFor(why.Code), Reason: &why}
}

// exitFor is the exit status that stands for a failure without one.
func exitFor(c job.Code) int {
	switch c {
	case job.FailNotFound:
		return 127
	case job.FailNotExecutable:
		return 126
	}
	return 125
}
