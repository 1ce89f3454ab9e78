package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// backend answers the public API from the applier's state and the store's
// history. Every change is an event.
type backend struct {
	ctl     *control.Control
	history store.Store
	// elementsPast finds what ended of arrays in the history.
	elementsPast *history.History
	expanders    expanders
	fleet        *agents.Fleet
	pool         string
	since        time.Time

	life    context.Context   // the launcher's
	leaving sync.WaitGroup    // nodes that are being removed
	expel   func(node string) // a removed node must not come back by itself

	recalled  recalled
	unreached unreached
}

var _ batchapi.Backend = (*backend)(nil)

// read looks at the state; what f returns is passed on.
func (b *backend) read(ctx context.Context, f func(*state.Cluster) error) error {
	var err error
	if rerr := b.ctl.Read(ctx, func(c *state.Cluster) { err = f(c) }); rerr != nil {
		return stopping(rerr)
	}
	return err
}

func (b *backend) do(ctx context.Context, what state.What) error {
	return stopping(b.ctl.Do(ctx, what))
}

// stopping turns what the state says into what the API knows.
func stopping(err error) error {
	var exists *state.ExistsError
	var closed *state.ClosedError
	var impossible *state.ImpossibleError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrStopped):
		return &batchapi.Unavailable{Message: "the launcher is stopping", RetryAfter: time.Second}
	case errors.As(err, &exists):
		code := batchapi.CodeTaskExists
		if exists.What == "job" {
			code = batchapi.CodeJobExists
		}
		return &batchapi.Conflict{Code: code, Message: exists.Error()}
	case errors.As(err, &closed):
		return &batchapi.Conflict{Code: closedCode(closed), Message: closed.Error()}
	case errors.As(err, &impossible):
		return &batchapi.Invalid{Property: "gangway", Reason: impossible.Error()}
	}
	return err
}

func closedCode(e *state.ClosedError) string {
	switch {
	case e.What == "task" && e.State == string(job.TaskCompleted):
		return batchapi.CodeTaskCompleted
	case e.What == "task":
		return batchapi.CodeWrongState
	}
	switch job.JobState(e.State) {
	case job.JobTerminating:
		return batchapi.CodeJobTerminating
	case job.JobDeleting:
		return batchapi.CodeJobBeingDeleted
	case job.JobDisabled, job.JobDisabling:
		return batchapi.CodeJobDisabled
	}
	return batchapi.CodeJobCompleted
}

// jobByID finds a job that the principal of ctx may see. The API has asked that
// before, but since then, while it read a body or sent a file, the job may have
// been deleted and another user's made under its id.
func (b *backend) jobByID(ctx context.Context, c *state.Cluster, id string) (state.JobStatus, error) {
	j, ok := c.JobByID(id)
	if who, asked := batchapi.PrincipalOf(ctx); !ok || asked && !who.May(batchapi.Reader, j.Row.Spec.Owner) {
		return state.JobStatus{}, &batchapi.NotFound{Kind: batchapi.KindJob, ID: id}
	}
	return j, nil
}

// change decides on an event for a job that is still at the version seen, and
// applies it, in one step.
func (b *backend) change(ctx context.Context, id string, seen batchapi.Version, what func(state.JobStatus) (state.What, error)) error {
	return b.do(ctx, state.Decided(func(c *state.Cluster) (state.What, error) {
		j, err := b.jobByID(ctx, c, id)
		if err != nil {
			return nil, err
		}
		if seen != 0 && seen != jobVersion(j) {
			return nil, batchapi.Stale{}
		}
		return what(j)
	}))
}

func (b *backend) AddJob(ctx context.Context, n batchapi.NewJob) (batchapi.Job, error) {
	if err := b.checkPool(n.Pool); err != nil {
		return batchapi.Job{}, err
	}
	spec := job.Spec{ID: n.ID, Priority: n.Priority, Owner: n.Owner, User: n.NodeUser, KeepOpen: !n.AutoEnd,
		MaxTime: n.TimeLimit, Retries: n.Retries, MaxRunning: n.MaxRunning, ExitActions: n.ExitActions, API: n.API}
	if _, err := b.submit(ctx, spec); err != nil {
		return batchapi.Job{}, err
	}
	return b.Job(ctx, n.ID)
}

// submit adds a job, with its tasks if it has some, and returns its uid.
func (b *backend) submit(ctx context.Context, spec job.Spec) (string, error) {
	uid := randomID(4)
	return uid, stopping(ofTask(spec, b.ctl.Do(ctx, state.JobSubmitted{UID: uid, Spec: spec, Unique: true, Open: len(spec.Tasks) == 0})))
}

func (b *backend) checkPool(id string) error {
	if id != "" && id != b.pool {
		return &batchapi.NotFound{Kind: batchapi.KindPool, ID: id}
	}
	return nil
}

func (b *backend) Job(ctx context.Context, id string) (out batchapi.Job, err error) {
	err = b.read(ctx, func(c *state.Cluster) error {
		j, err := b.jobByID(ctx, c, id)
		if err == nil {
			out = b.jobOf(j)
		}
		return err
	})
	return out, err
}

func (b *backend) jobOf(j state.JobStatus) batchapi.Job {
	s := j.Row.Spec
	out := batchapi.Job{
		NewJob: batchapi.NewJob{ID: s.ID, Owner: s.Owner, NodeUser: s.User, JobSettings: batchapi.JobSettings{Pool: b.pool,
			Priority: s.Priority, TimeLimit: s.MaxTime, Retries: s.Retries, AutoEnd: !s.KeepOpen,
			MaxRunning: s.MaxRunning, ExitActions: s.ExitActions, API: s.API}},
		Version: jobVersion(j), State: batchapi.JobState(j.State), Cursor: job.NumberKey(j.Row.Seq),
		Times: batchapi.Times{Created: j.Row.Submitted, Modified: j.Row.Submitted, StateAt: j.Row.Submitted,
			StartedAt: j.Row.Submitted, EndedAt: j.Row.Ended},
	}
	if !j.Row.Changed.IsZero() {
		out.Times.Modified = j.Row.Changed
	}
	if j.State != job.JobActive {
		out.Times.StateAt, out.Times.Prev, out.Times.PrevAt = out.Times.Modified, string(job.JobActive), j.Row.Submitted
	}
	if j.State == job.JobCompleted {
		out.Times.StateAt, out.Times.Prev = j.Row.Ended, string(job.JobActive)
		if j.Row.Cancel != nil {
			out.Times.Prev = string(job.JobTerminating)
		}
	}
	if j.Row.Cancel != nil {
		out.Reason = j.Row.Cancel.Detail
		if j.Row.Cancel.Code == job.FailTimeLimit {
			out.Reason = "MaxWallClockTimeExpiry"
		} else if j.Row.Cancel.Code == job.FailExitAction {
			out.Reason = "TaskFailed"
		}
	} else if j.State == job.JobCompleted {
		out.Reason = "AllTasksComplete"
	}
	return out
}

// jobVersion changes with whatever of a job a client can see, and only with it.
func jobVersion(j state.JobStatus) batchapi.Version {
	return newVersion().text(j.Row.UID).text(string(j.State)).time(j.Row.Changed).time(j.Row.Ended).sum()
}

// version is FNV-1a of what makes an object's version; lists make thousands.
type version uint64

func newVersion() version { return 14695981039346656037 }

func (h version) byte(b byte) version { return (h ^ version(b)) * 1099511628211 }

// text ends with a byte that ids do not have, so that "ab", "c" is not "a", "bc".
func (h version) text(s string) version {
	for i := range len(s) {
		h = h.byte(s[i])
	}
	return h.byte(0)
}

func (h version) number(n uint64) version {
	for range 8 {
		h = h.byte(byte(n))
		n >>= 8
	}
	return h
}

func (h version) time(t time.Time) version { return h.number(uint64(t.UnixNano())) }

// sum is never 0, and fits where ETags are read as signed numbers.
func (h version) sum() batchapi.Version { return batchapi.Version(max(h>>1, 1)) }

func (b *backend) Jobs(ctx context.Context, q batchapi.JobQuery) (out []batchapi.Job, err error) {
	after, err := cursor(q.After)
	if err != nil {
		return nil, err
	}
	err = b.read(ctx, func(c *state.Cluster) error {
		for _, j := range c.Jobs() {
			if len(out) == q.Limit {
				break
			}
			if j.Row.Seq > after && (q.Owner == "" || q.Owner == j.Row.Spec.Owner) {
				out = append(out, b.jobOf(j))
			}
		}
		return nil
	})
	return out, err
}

// cursor reads the number of the last thing that a client has seen.
func cursor(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, &batchapi.Invalid{Property: "$skiptoken", Value: s, Reason: "it is not from a link of this server"}
	}
	return n, nil
}

func (b *backend) UpdateJob(ctx context.Context, id string, seen batchapi.Version, s batchapi.JobSettings) error {
	if err := b.checkPool(s.Pool); err != nil {
		return err
	}
	return b.change(ctx, id, seen, func(j state.JobStatus) (state.What, error) {
		open, api := !s.AutoEnd, s.API
		if api == nil {
			api = json.RawMessage("null")
		}
		return state.JobChanged{Job: j.Row.UID, Priority: &s.Priority, KeepOpen: &open, MaxTime: &s.TimeLimit, Retries: &s.Retries, MaxRunning: &s.MaxRunning, API: &api}, nil
	})
}

func (b *backend) DisableJob(ctx context.Context, id string, seen batchapi.Version, what batchapi.DisableTasks) error {
	return b.change(ctx, id, seen, func(j state.JobStatus) (state.What, error) {
		return state.JobHeld{Job: j.Row.UID, On: true, Running: state.HeldRunning(what)}, nil
	})
}

func (b *backend) EnableJob(ctx context.Context, id string, seen batchapi.Version) error {
	return b.change(ctx, id, seen, func(j state.JobStatus) (state.What, error) {
		return state.JobHeld{Job: j.Row.UID}, nil
	})
}

func (b *backend) TerminateJob(ctx context.Context, id string, seen batchapi.Version, reason string) error {
	return b.change(ctx, id, seen, func(j state.JobStatus) (state.What, error) {
		switch j.State {
		case job.JobTerminating, job.JobCompleted, job.JobDeleting:
			return nil, &state.ClosedError{What: "job", ID: j.Row.Spec.ID, State: string(j.State), Need: "active or disabled"}
		}
		if reason == "" {
			reason = "UserTerminate"
		}
		return state.CancelRequested{Job: j.Row.UID, Reason: job.Reason{Code: job.FailCancelled, Detail: reason}}, nil
	})
}

func (b *backend) DeleteJob(ctx context.Context, id string, seen batchapi.Version) error {
	return b.change(ctx, id, seen, func(j state.JobStatus) (state.What, error) {
		return state.JobDeleted{Job: j.Row.UID}, nil
	})
}
