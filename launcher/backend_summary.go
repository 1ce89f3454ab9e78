package launcher

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

const (
	// rateSpan is how far back a job's rate looks.
	rateSpan = time.Minute
	// topFailures is how many groups of failures a summary has.
	topFailures = 10
)

// Summary implements batchapi.Backend.
func (b *backend) Summary(ctx context.Context, id string) (batchapi.Summary, error) {
	var out batchapi.Summary
	counts, err := b.TaskCounts(ctx, id)
	if err != nil {
		return out, err
	}
	out.Counts = counts.Tasks
	z := jobSummary{now: time.Now()}
	z.recent = z.now.Add(-rateSpan)
	for from := 0; from >= 0; {
		var list []listedTask
		var views []taskView
		if list, views, from, err = b.someTasks(ctx, id, &batchapi.TaskQuery{}, from, 0, 1000); err != nil {
			return out, err
		}
		if err := b.recall(views); err != nil {
			return out, err
		}
		for _, l := range list {
			if l.array == nil {
				t := b.taskOf(&views[l.view])
				z.plain(&t)
				continue
			}
			s, err := b.elementsPast.Summarize(ctx, l.array.task.UID, z.recent)
			if err != nil {
				return out, err
			}
			z.array(l.array.task.Row.Spec.ID, s)
		}
	}
	z.fill(&out)
	return out, nil
}

// jobSummary adds up what a job's tasks tell.
type jobSummary struct {
	now, recent time.Time
	times       history.Times
	cpu         time.Duration
	rss         uint64
	ended       uint64    // since recent
	first       time.Time // the earliest start
	groups      []batchapi.FailureGroup
}

func (z *jobSummary) began(t time.Time) {
	if !t.IsZero() && (z.first.IsZero() || t.Before(z.first)) {
		z.first = t
	}
}

func (z *jobSummary) array(id string, s *history.Summary) {
	z.times.Join(&s.Times)
	z.cpu += s.CPU
	z.rss = max(z.rss, s.RSS)
	z.ended += s.Recent
	z.began(s.First)
	for _, f := range s.Failures {
		z.group(batchapi.FailureGroup{Count: f.Count, Exit: f.Exit, Signal: f.Signal, Reason: f.Reason, Detail: f.Detail,
			Line: f.Line, Task: job.ElementID(id, f.Index), Node: f.Node, Example: f.Example})
	}
}

func (z *jobSummary) plain(t *batchapi.Task) {
	if t.State != job.TaskCompleted {
		return
	}
	z.began(t.Run.Started)
	if !t.Run.Started.IsZero() && !t.Run.Ended.IsZero() {
		z.times.Add(t.Run.Ended.Sub(t.Run.Started))
	}
	if t.Run.Ended.After(z.recent) {
		z.ended++
	}
	if t.Run.Success {
		return
	}
	f := batchapi.FailureGroup{Count: 1, Task: t.ID, Node: t.Run.Node}
	if t.Run.Exit != nil {
		f.Exit = *t.Run.Exit
	}
	if r := t.Run.Failure; r != nil {
		f.Reason, f.Detail = r.Code, r.Detail
	}
	z.group(f)
}

// group adds failures to those that are alike.
func (z *jobSummary) group(f batchapi.FailureGroup) {
	i := slices.IndexFunc(z.groups, func(g batchapi.FailureGroup) bool {
		return g.Exit == f.Exit && g.Signal == f.Signal && g.Reason == f.Reason && g.Line == f.Line
	})
	if i < 0 {
		z.groups = append(z.groups, f)
		return
	}
	z.groups[i].Count += f.Count
}

func (z *jobSummary) fill(out *batchapi.Summary) {
	slices.SortStableFunc(z.groups, func(a, b batchapi.FailureGroup) int { return cmp.Compare(b.Count, a.Count) })
	out.Failures = z.groups[:min(topFailures, len(z.groups))]
	out.Others = len(z.groups) - len(out.Failures)
	out.CPU, out.Memory = z.cpu.Seconds(), z.rss<<10
	if t := &z.times; t.N > 0 {
		r := &batchapi.RunTimes{Count: t.N, Min: t.Min.Seconds(), Mean: t.Sum.Seconds() / float64(t.N), Max: t.Max.Seconds(),
			P50: t.Quantile(0.5).Seconds(), P90: t.Quantile(0.9).Seconds(), P99: t.Quantile(0.99).Seconds()}
		for _, k := range t.Buckets() {
			r.Buckets = append(r.Buckets, batchapi.TimeBucket{From: k.From.Seconds(), To: k.To.Seconds(), Count: k.Count})
		}
		out.Times = r
	}
	open := out.Counts.Active + out.Counts.Running
	if open == 0 || z.ended == 0 {
		return
	}
	span := rateSpan
	if since := z.now.Sub(z.first); !z.first.IsZero() && since < span {
		span = max(since, time.Second)
	}
	out.Rate = float64(z.ended) / span.Seconds()
	out.ETA = float64(open) / out.Rate
}

// mergePause is how often small rows are merged while arrays run.
const mergePause = time.Second

// merger merges the small rows of arrays that told results.
type merger struct {
	news chan string // uids of tasks; what does not fit comes again with the next block
}

func newMerger() *merger { return &merger{news: make(chan string, 1024)} }

// told notes a block of a crew; it never blocks.
func (m *merger) told(n state.Notice) {
	if n.Block == nil || n.Block.Costs == nil {
		return
	}
	select {
	case m.news <- n.Task:
	default:
	}
}

// mergeRows merges until ctx is done. Arrays that were not done when the launcher
// was started are looked at first.
func (b *backend) mergeRows(ctx context.Context, m *merger) error {
	due := map[string]bool{}
	if err := b.read(ctx, func(c *state.Cluster) error {
		for _, j := range c.Jobs() {
			c.EachTask(j.Row.UID, 0, func(s state.TaskStatus) bool {
				if hasElements(s.Spec) && s.State != job.TaskCompleted {
					due[s.UID] = true
				}
				return true
			})
		}
		return nil
	}); err != nil {
		return err
	}
	pause := time.NewTicker(mergePause)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case uid := <-m.news:
			due[uid] = true
			continue
		case <-pause.C:
		}
		for uid := range due {
			delete(due, uid)
			if err := b.mergeTask(ctx, uid); err != nil {
				return err
			}
		}
	}
}

// mergeTask merges what there is to merge of a task.
func (b *backend) mergeTask(ctx context.Context, uid string) error {
	for {
		var s state.TaskStatus
		var ok bool
		if err := b.read(ctx, func(c *state.Cluster) error { s, ok = c.Task(uid); return nil }); err != nil {
			return err
		}
		if !ok {
			b.elementsPast.Forget(uid)
			return nil
		}
		if some, err := b.mergeSome(ctx, uid, s.State == job.TaskCompleted); !some || err != nil {
			return err
		}
	}
}

// mergeSome merges some rows of a task; false: there are none to merge.
func (b *backend) mergeSome(ctx context.Context, uid string, final bool) (bool, error) {
	m, err := b.elementsPast.Merge(uid, final)
	if err != nil || m == nil {
		return false, err
	}
	if err := b.do(ctx, state.BlocksMerged{Task: m.Task, Drop: m.Drop, Rows: m.Rows}); err != nil {
		return false, err
	}
	return true, b.elementsPast.Merged(m)
}
