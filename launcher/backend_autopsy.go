package launcher

import (
	"context"
	"errors"
	"slices"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// maxAutopsies is how many attempts of a task are looked at for reports.
const maxAutopsies = 64

// Autopsy implements batchapi.Backend.
func (b *backend) Autopsy(ctx context.Context, jobID, taskID string, attempt uint32) (out batchapi.Autopsy, err error) {
	x, err := b.element(ctx, jobID, taskID)
	if err != nil {
		return out, err
	}
	var v taskView
	if x != nil {
		v = x.alone()
	} else if v, err = b.view(ctx, jobID, taskID); err != nil {
		return out, err
	}
	last := job.AttemptNumber(v.LastAttempt)
	if v.attempt != nil {
		last = max(last, v.attempt.Try.Attempt)
	}
	from := uint32(1)
	if last > maxAutopsies {
		from = last - maxAutopsies + 1
	}
	if attempt > 0 && attempt < from {
		from, last = attempt, max(last, attempt) // an old one was asked for by its number
	}
	var ids []string
	for n := from; n <= last; n++ {
		lo := v.Spec.Range.Lo
		if x != nil {
			lo = x.index
		}
		ids = append(ids, job.AttemptID(v.UID, lo, n))
	}
	found, err := b.history.GetAll(job.TableAutopsy, ids)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return out, err
	}
	var report *job.Report
	avoided := map[uint32][]string{}
	for _, id := range ids {
		var a *job.AttemptRow
		switch {
		case v.attempt != nil && v.attempt.ID == id:
			a = v.attempt
		case found[id] != nil:
			a = new(job.AttemptRow)
			if err := (job.Row{Table: job.TableAutopsy, Key: id, Value: found[id]}).Decode(a); err != nil {
				return out, err
			}
		default:
			continue
		}
		n := a.Try.Attempt
		avoided[n] = a.Try.Avoid
		r := a.Report()
		if r == nil {
			continue
		}
		out.Attempts = append(out.Attempts, n)
		if n == attempt || attempt == 0 {
			report = r
		}
	}
	if report == nil {
		return batchapi.Autopsy{}, &batchapi.NotFound{Kind: batchapi.KindAutopsy, ID: taskID}
	}
	out.Report = *report
	return out, b.read(ctx, func(c *state.Cluster) error {
		out.Actions = actions(c, v.UID, report, avoided[report.Attempt+1])
		return nil
	})
}

// actions is what was done about a report's suspects; avoid are the nodes that the
// attempt after it left out, as far as that is history.
func actions(c *state.Cluster, task string, r *job.Report, avoid []string) []batchapi.NodeAction {
	if s, ok := c.Task(task); ok && avoid == nil {
		if s.Next != nil {
			avoid = s.Next.Avoid
		}
		for _, id := range s.Attempts {
			if a, ok := c.Attempt(id); ok && a.Try.Attempt > r.Attempt {
				avoid = a.Try.Avoid
			}
		}
	}
	var out []batchapi.NodeAction
	for _, s := range r.Suspects {
		x := batchapi.NodeAction{Node: s.Node, LeftOut: slices.Contains(avoid, s.Node)}
		if n, ok := c.Node(s.Node); ok {
			x.Draining, x.Why, x.Guilty = n.Row.Draining, n.Row.DrainedFor, len(n.Row.Guilt)
		}
		out = append(out, x)
	}
	return out
}
