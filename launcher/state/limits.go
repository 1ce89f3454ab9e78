package state

import (
	"slices"

	"gangway/launcher/job"
)

// retry is the next try of elements that failed: after the pause that the task
// asks for, and if it does, not on the nodes where they failed.
func (t *change) retry(spec *job.TaskSpec, r job.Range, was job.Try, avoid, failed []string) job.Try {
	next := job.Try{Range: r, Attempt: was.Attempt + 1, Retries: was.Retries + 1, Losses: was.Losses, Avoid: avoid}
	if pause := spec.RetryPause(next.Retries); pause > 0 {
		next.NotBefore = t.at.Add(pause)
	}
	if spec.RetryElsewhere {
		for _, n := range failed {
			if !slices.Contains(next.Avoid, n) {
				next.Avoid = append(slices.Clone(next.Avoid), n)
			}
		}
		slices.Sort(next.Avoid)
	}
	return next
}

// failedOn are the nodes where an attempt failed: those that its outcome names, or
// all that it had.
func failedOn(a *attempt, o job.Outcome) []string {
	var out []string
	if o.Reason != nil {
		for _, n := range o.Reason.Nodes {
			if _, ok := a.part(n.Node); ok {
				out = append(out, n.Node)
			}
		}
	}
	if len(out) == 0 {
		for i := range a.Parts {
			out = append(out, a.Parts[i].Node)
		}
	}
	return out
}

// running counts what of a job runs at once: ranges by their elements, crews by
// their slots, which they keep to their end.
func (j *jobState) running() int {
	n := 0
	for _, t := range j.tasks {
		for _, a := range t.live {
			switch {
			case a.Crew != nil:
				n += a.Crew.Slots
			case a.gang():
				if a.Verdict == nil {
					n++
				}
			default:
				n += int(a.Try.Len() - ranges(a.Settled).len())
			}
		}
	}
	return n
}
