package state

import (
	"fmt"
	"reflect"
	"slices"

	"gangway/launcher/job"
)

// Check returns the first broken invariant: a core owned twice, a gang in parts,
// sums that differ, a state that its parts contradict, a view that lies.
func (c *Cluster) Check() error {
	for _, n := range c.order {
		if err := c.checkNode(n); err != nil {
			return fmt.Errorf("node %s: %w", n.row.Name, err)
		}
	}
	for _, j := range sortedJobs(c.jobs) {
		open, live := 0, 0
		for _, t := range j.tasks {
			if err := t.check(); err != nil {
				return fmt.Errorf("task %s: %w", t.uid, err)
			}
			if !t.completed() {
				open++
			}
			live += len(t.live)
			for _, a := range t.live {
				if c.attempts[a.ID] != a {
					return fmt.Errorf("attempt %s is not in the index", a.ID)
				}
				if err := c.checkAttempt(a); err != nil {
					return fmt.Errorf("attempt %s: %w", a.ID, err)
				}
			}
		}
		if err := j.checkKin(); err != nil {
			return err
		}
		if open != j.open || live != j.live {
			return fmt.Errorf("job %s: counts %d open and %d live, has %d and %d", j.row.UID, j.open, j.live, open, live)
		}
		if slices.Contains(c.active, j) != (open > 0) {
			return fmt.Errorf("job %s: %d tasks are open, queue says otherwise", j.row.UID, open)
		}
	}
	return nil
}

func sortedJobs(m map[string]*jobState) []*jobState {
	out := make([]*jobState, 0, len(m))
	for _, j := range m {
		out = append(out, j)
	}
	slices.SortFunc(out, func(a, b *jobState) int { return int(int64(a.row.Seq) - int64(b.row.Seq)) })
	return out
}

func (c *Cluster) checkNode(n *node) error {
	if !reflect.DeepEqual(n.view, n.look()) {
		return fmt.Errorf("the scheduler's view is stale")
	}
	for i, h := range n.view.Holds {
		if h.Foreign {
			continue
		}
		for _, o := range n.view.Holds[:i] {
			if o.CPUs.Overlaps(h.CPUs) {
				return fmt.Errorf("%s and %s both own cpus %s", h.ID, o.ID, o.CPUs.Intersect(h.CPUs))
			}
			for _, g := range h.GPUs {
				if slices.Contains(o.GPUs, g) {
					return fmt.Errorf("%s and %s both own GPU %d", h.ID, o.ID, g)
				}
			}
		}
	}
	for _, a := range n.live {
		if c.attempts[a.ID] != a {
			return fmt.Errorf("holds attempt %s, which has ended", a.ID)
		}
		if i, ok := a.part(n.row.Name); !ok || a.Parts[i].Gone {
			return fmt.Errorf("holds attempt %s, which has nothing here", a.ID)
		}
	}
	return nil
}

// check adds a task's elements up: each is in exactly one place.
func (t *taskState) check() error {
	var all ranges
	sum := uint64(0)
	count := func(what string, r job.Range) error {
		if all.overlaps(r) {
			return fmt.Errorf("elements %s are %s and something else", r, what)
		}
		if !t.spec.Range.Contains(r) {
			return fmt.Errorf("elements %s do not exist", r)
		}
		all = all.add(r)
		sum += r.Len()
		return nil
	}
	for i, p := range t.pending {
		if err := count("pending", p.Range); err != nil {
			return err
		}
		if p.Attempt == 0 || i > 0 && t.pending[i-1].Hi == p.Lo && p.SameHistory(t.pending[i-1]) {
			return fmt.Errorf("pending elements %s are badly kept", p.Range)
		}
	}
	for _, r := range t.good {
		if err := count("succeeded", r); err != nil {
			return err
		}
	}
	for _, r := range t.bad {
		if err := count("failed", r); err != nil {
			return err
		}
	}
	for _, a := range t.live {
		for _, r := range a.unsettled() {
			if err := count("in attempt "+a.ID, r); err != nil {
				return err
			}
		}
	}
	if sum != t.spec.Range.Len() {
		return fmt.Errorf("%d of %d elements are accounted for", sum, t.spec.Range.Len())
	}
	return nil
}

func (c *Cluster) checkAttempt(a *attempt) error {
	total, err := checkRanks(a.Parts)
	if err != nil {
		return err
	}
	if err := a.checkCrew(); err != nil {
		return err
	}
	gone, ready, lost := 0, 0, false
	for i, p := range a.Parts {
		n := c.nodes[p.Node]
		if n == nil {
			return fmt.Errorf("has a part on %s, which is not there", p.Node)
		}
		if slices.Contains(n.live, a) == p.Gone {
			return fmt.Errorf("the part on %s is gone: %t, the node says otherwise", p.Node, p.Gone)
		}
		if p.Gone {
			gone++
			lost = lost || !a.recorded(i)
		}
		if p.Ready {
			ready++
		}
		if p.Started && !p.Ready {
			return fmt.Errorf("the part on %s started before it was ready", p.Node)
		}
	}
	spec := a.runs()
	if spec.Kind == job.Gang && total != spec.Ranks {
		return fmt.Errorf("has %d of %d ranks", total, spec.Ranks)
	}
	if gone == len(a.Parts) {
		return fmt.Errorf("nothing is left of it, but it has not ended")
	}
	if !a.gang() && a.recorded(0) && a.State != job.AttemptEnding {
		return fmt.Errorf("its shim has told all it had, and it is %s", a.State)
	}
	if lost && a.State != job.AttemptEnding {
		return fmt.Errorf("is %s though a part is gone without a result", a.State)
	}
	if (a.End != nil || a.Verdict != nil) && a.State != job.AttemptEnding {
		return fmt.Errorf("is %s though it shall end", a.State)
	}
	if a.Requeue && a.settled() {
		return fmt.Errorf("has nothing left to try again")
	}
	switch a.State {
	case job.AttemptReady:
		return fmt.Errorf("is ready and was not told to go")
	case job.AttemptLaunching, job.AttemptRunning:
		if ready < len(a.Parts) {
			return fmt.Errorf("is %s with %d of %d parts ready", a.State, ready, len(a.Parts))
		}
	}
	return nil
}

// checkRanks reports whether the parts have every rank from 0 once, and how many
// they are.
func checkRanks(parts []job.PartRow) (total int, err error) {
	for i := range parts {
		total += parts[i].Ranks
	}
	seen := make([]bool, total)
	for i := range parts {
		p := &parts[i]
		ranks := p.RankNumbers()
		if len(ranks) != p.Ranks || len(ranks) > 0 && ranks[0] != p.FirstRank {
			return 0, fmt.Errorf("part on %s: the list %q is not of %d ranks from %d on", p.Node, p.RankList, p.Ranks, p.FirstRank)
		}
		for _, r := range ranks {
			if r >= total || seen[r] {
				return 0, fmt.Errorf("part on %s has rank %d, which is another's or not below %d", p.Node, r, total)
			}
			seen[r] = true
		}
	}
	return total, nil
}
