package launcher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// past is what a list tells of an attempt: the rest of it can be millions of
// lines of its ranks' errors.
type past struct {
	retries, losses uint32
	started         time.Time
	instances       int          // its parts
	run             batchapi.Run // of its first part, without Pool and Folder; no Node: it has no parts
}

// pastOf sums an attempt up.
func pastOf(a *job.AttemptRow) *past {
	p := &past{retries: a.Try.Retries, losses: a.Try.Losses, started: a.Started, instances: len(a.Parts)}
	if len(a.Parts) > 0 {
		p.run = partRun(&a.Parts[0], a.Started)
	}
	return p
}

// pastRow is what past needs of an attempt's row.
type pastRow struct {
	Try struct {
		Retries uint32 `json:"retries"`
		Losses  uint32 `json:"losses"`
	} `json:"try"`
	Started time.Time `json:"started"`
	Parts   []struct {
		Node    string `json:"node"`
		Results []struct {
			ExitCode int         `json:"exit_code"`
			Signal   int         `json:"signal"`
			Failure  *job.Reason `json:"failure"`
			Start    time.Time   `json:"start"`
			End      time.Time   `json:"end"`
		} `json:"results"`
		Failure *job.Reason `json:"failure"`
	} `json:"parts"`
}

func decodePast(r job.Row) (*past, error) {
	var row pastRow
	if err := r.Decode(&row); err != nil {
		return nil, err
	}
	a := job.AttemptRow{Started: row.Started, Try: job.Try{Retries: row.Try.Retries, Losses: row.Try.Losses}}
	if len(row.Parts) > 0 {
		p := row.Parts[0]
		part := job.PartRow{Node: p.Node, Failure: p.Failure}
		if n := len(p.Results); n > 0 {
			x := p.Results[n-1]
			part.Results = []job.Result{{ExitCode: x.ExitCode, Signal: x.Signal, Failure: x.Failure, Start: x.Start, End: x.End}}
		}
		a.Parts = []job.PartRow{part}
	}
	sum := pastOf(&a)
	sum.instances = len(row.Parts)
	return sum, nil
}

// recall looks the last attempts up in the history where none is alive. What
// was deleted meanwhile stays without.
func (b *backend) recall(views []taskView) error {
	var ids []string
	want := map[string]int{}
	b.recalled.mu.Lock()
	for i := range views {
		v := &views[i]
		if v.attempt != nil || v.LastAttempt == "" {
			continue
		}
		if v.past = b.recalled.get(v.LastAttempt); v.past == nil {
			want[v.LastAttempt] = i
			ids = append(ids, v.LastAttempt)
		}
	}
	b.recalled.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	found, err := b.history.GetAll(job.TableAutopsy, ids)
	if err != nil {
		return err
	}
	for id, raw := range found {
		if views[want[id]].past, err = decodePast(job.Row{Table: job.TableAutopsy, Key: id, Value: raw}); err != nil {
			return err
		}
	}
	b.recalled.mu.Lock()
	defer b.recalled.mu.Unlock()
	for id := range found {
		b.recalled.put(id, views[want[id]].past)
	}
	return nil
}

// whole returns all that is known of a task's living or last attempt; nil: nothing.
func (b *backend) whole(v taskView) (*job.AttemptRow, error) {
	if v.attempt != nil || v.LastAttempt == "" {
		return v.attempt, nil
	}
	raw, err := b.history.Get(job.TableAutopsy, v.LastAttempt)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := new(job.AttemptRow)
	return a, job.Row{Table: job.TableAutopsy, Key: v.LastAttempt, Value: raw}.Decode(a)
}

// ended keeps an attempt that has just ended: who polls for it lists it next.
func (b *backend) ended(n state.Notice) {
	if n.Kind != state.AttemptState || n.Record == nil || n.Record.State != job.AttemptEnded {
		return
	}
	if n.Record.Crew != nil {
		return // an array's: it is not kept in the history either
	}
	p := pastOf(n.Record)
	b.recalled.mu.Lock()
	defer b.recalled.mu.Unlock()
	b.recalled.put(n.Attempt, p)
}

// The history is read ahead in pieces with pauses between them: the nodes come
// back at the same time.
const (
	aheadPiece = 500
	aheadPause = 20 * time.Millisecond
)

// readAhead fills what is remembered after a start, with the latest jobs' tasks,
// so that the first to list them does not pay for all.
func (b *backend) readAhead(ctx context.Context) error {
	var jobs []state.JobStatus
	if err := b.read(ctx, func(c *state.Cluster) error { jobs = c.Jobs(); return nil }); err != nil {
		return err
	}
	slices.Reverse(jobs)
	pause := time.NewTicker(aheadPause)
	defer pause.Stop()
	seen := 0
	for _, j := range jobs {
		for from := 0; from >= 0 && seen < recallLimit; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-pause.C:
			}
			next := -1
			views := make([]taskView, 0, aheadPiece)
			if err := b.read(ctx, func(c *state.Cluster) error {
				c.EachTask(j.Row.UID, from, func(s state.TaskStatus) bool {
					if len(views) == aheadPiece {
						next = s.Row.Index
						return false
					}
					views = append(views, viewOf(c, &j, s))
					return true
				})
				return nil
			}); err != nil {
				return err
			}
			if err := b.recall(views); err != nil {
				return err
			}
			for i := range views {
				if v := &views[i]; hasElements(v.Spec) {
					if err := b.elementsPast.Warm(v.UID); err != nil {
						return err
					}
				}
			}
			seen += len(views)
			from = next
		}
	}
	return nil
}

// recallLimit is half of how many attempts of history are kept: about 10 MiB in
// all, when they are full. Clients that poll list the same tasks again and again.
const recallLimit = 1 << 15

// recalled holds attempts that are over. Their names are never reused: what is
// here stays true. Nobody may change what it returns. When the younger half is
// full it becomes the older one. mu is held by those who call its methods, of
// whom most do so a thousand times at once.
type recalled struct {
	mu         sync.Mutex
	young, old map[string]*past
}

func (r *recalled) get(id string) *past {
	if p := r.young[id]; p != nil {
		return p
	}
	p := r.old[id]
	if p != nil {
		r.put(id, p)
	}
	return p
}

func (r *recalled) put(id string, p *past) {
	if len(r.young) >= recallLimit {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = map[string]*past{}
	}
	r.young[id] = p
}
