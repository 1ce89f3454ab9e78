package launcher

import (
	"context"
	"log/slog"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/control"
	"gangway/launcher/job"
	"gangway/launcher/pool"
	"gangway/launcher/state"
)

// ArrayConfig is a session job of one array, as `gangway map` has it.
type ArrayConfig struct {
	Provider pool.Provider
	Spec     job.Spec // with one task
	Base     string   // of the directories on the nodes; "": /tmp
	Who      string   // for messages on the nodes
	Out      ArraySink
	Log      *slog.Logger
	// Signals end the job; a second one does so at once.
	Signals <-chan SignalRequest
	Orders  <-chan ArrayOrder
	// Ready is called, if it is set, before the job is submitted, with the number
	// of the smallest node's cores; it may change the task.
	Ready func(cores int, t *job.TaskSpec) error
}

// ArrayOrder is how an array is to end early.
type ArrayOrder int

// The ways to end early.
const (
	ArrayStop ArrayOrder = iota + 1 // what runs goes on, nothing more is started
	ArrayEnd                        // what runs is ended, with its grace
)

// ArraySink takes what the elements write and how they end. Output and Ended are
// called by one goroutine, the other methods by others at the same time.
type ArraySink interface {
	// Output writes bytes of an element, of which it may be called again before
	// Ended. It may block; the nodes then wait.
	Output(index uint64, stderr bool, data []byte) error
	// Ended tells of elements whose output has all come: those of done have their
	// outcome, those of again will be tried again. b has what they cost.
	Ended(b *job.BlockRow, done []job.Outcome, again []job.Try) error
	// Crew tells of a worker that was started on a node or has ended there.
	Crew(rec job.AttemptRow)
	Notice(node, text string, warning bool)
	Waiting(r job.Reason)
}

// ArrayResult is how an array ended.
type ArrayResult struct {
	Interrupted *SignalRequest // by which it was ended; nil: it was not
	// Broken is why the output could not be written; the job was ended then.
	Broken error
}

// arraySink is a Sink that hands on what an array's is told.
type arraySink struct {
	ArraySink
	all job.Range // the elements; a single one is no array, but a task with a rank 0
}

func (s arraySink) Output(_ string, rank int, stderr bool, data []byte) error {
	if rank < 0 {
		return nil // no element's
	}
	if s.all.Len() == 1 {
		rank = int(s.all.Lo)
	}
	return s.ArraySink.Output(uint64(rank), stderr, data)
}
func (arraySink) Placed(job.AttemptRow)                {}
func (arraySink) Planned(string, agents.Plan, []Place) {}

// noRows is a store of which nothing is ever read: a session's rows end with it.
type noRows struct{}

func (noRows) Commit([]job.Row) error { return nil }

// RunArray carries a session job of one array through and returns when nothing of
// it is left. The error is gangway's; the elements' ends are told to Out.
func RunArray(ctx context.Context, cfg ArrayConfig) (ArrayResult, error) {
	x := &arrayRun{cfg: cfg, live: map[string]bool{}}
	x.run = newRun(RunConfig{Provider: cfg.Provider, Spec: cfg.Spec, Base: cfg.Base, Who: cfg.Who,
		Out: arraySink{cfg.Out, cfg.Spec.Tasks[0].Elements()}, Log: cfg.Log, Signals: cfg.Signals}, noRows{}, x.early)
	var res ArrayResult
	err := x.run.embed(ctx, func(appDone <-chan struct{}) (err error) {
		res, err = x.follow(ctx, appDone)
		return err
	})
	return res, err
}

// arrayRun is the state of one RunArray.
type arrayRun struct {
	cfg  ArrayConfig
	run  *run
	last *job.BlockRow   // that the sink was told of; the applier's
	live map[string]bool // attempts that have not ended
	one  *job.AttemptRow // of a job of one element, the last attempt; the applier's
}

// early puts elements' ends into the queue of the output, behind what they wrote
// and before anything that they write when they are tried again. Those notices go
// no further: there are many, and who follows the job may wait for the applier.
func (x *arrayRun) early(n state.Notice) bool {
	if n.Block == nil {
		if n.Kind == state.AttemptState && n.Record != nil && n.Record.Crew == nil {
			x.one = n.Record
		}
		return true
	}
	if n.Block == x.last {
		return false
	}
	x.last = n.Block
	b := x.costs(n.Block)
	done, again := b.Done, b.Again
	if n.Kind == state.TaskAgain { // its other elements have a notice of their own
		done = nil
	} else {
		again = nil
	}
	t := x.run.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(outItem{tell: func() {
		if err := x.cfg.Out.Ended(b, done, again); err != nil {
			select {
			case t.broken <- err:
			default: // the first one decides
			}
		}
	}})
	return false
}

// costs adds to the block of a single element, which no crew ran, what its attempt
// tells of them.
func (x *arrayRun) costs(b *job.BlockRow) *job.BlockRow {
	if b.Costs != nil || x.one == nil || x.one.ID != b.Attempt || x.one.Started.IsZero() || len(x.one.Parts) == 0 {
		return b
	}
	out := *b
	out.Node = x.one.Parts[0].Node
	wall := max(time.Since(x.one.Started), 0)
	out.Costs = &job.Costs{Attempt: []uint32{x.one.Try.Attempt}, Start: []int64{x.one.Started.UnixMicro()}, Wall: []uint64{uint64(wall.Microseconds())},
		CPU: []uint64{0}, RSS: []uint64{0}}
	return &out
}

// follow submits the job and sees it through.
func (x *arrayRun) follow(ctx context.Context, appDone <-chan struct{}) (ArrayResult, error) {
	r := x.run
	var res ArrayResult
	if err := r.connected(ctx, appDone); err != nil {
		return res, err
	}
	if x.cfg.Ready != nil {
		cores := 0
		err := r.ctl.Read(ctx, func(c *state.Cluster) {
			for _, n := range c.View().Nodes {
				if k := len(n.Cores); cores == 0 || k > 0 && k < cores {
					cores = k
				}
			}
		})
		if err == nil {
			err = x.cfg.Ready(max(cores, 1), &x.cfg.Spec.Tasks[0])
		}
		if err != nil {
			return res, err
		}
	}
	if err := r.ctl.Do(ctx, state.JobSubmitted{UID: r.jobUID, Spec: x.cfg.Spec}); err != nil {
		return res, err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var abandon <-chan time.Time
	var said string
	done := ctx.Done()
	stopping, ended := false, false
	end := func(why job.Reason, now bool) {
		ended = true
		r.ctl.Post(state.CancelRequested{Job: r.jobUID, Now: now, Reason: why})
		if now && abandon == nil {
			abandon = time.After(abandonWait)
		}
	}
	halted := cancelled("enough is known: --halt")
	for {
		if stopping && !ended && len(x.live) == 0 && len(r.notices) == 0 {
			end(halted, false)
		}
		select {
		case n := <-r.notices:
			switch n.Kind {
			case state.AttemptState:
				x.attempt(n.Record)
			case state.JobEnded:
				return res, nil
			}
		case <-tick.C:
			if w := r.ctl.Waiting(); len(w) > 0 && len(x.live) == 0 && !stopping {
				if s := w[0].Reason.String(); s != said {
					said = s
					x.cfg.Out.Waiting(w[0].Reason)
				}
			}
		case o := <-x.cfg.Orders:
			switch {
			case o == ArrayEnd:
				end(halted, false)
			case !stopping && !ended:
				// What is placed by then is told of before this returns.
				if err := r.ctl.Do(ctx, state.JobHeld{Job: r.jobUID, On: true, Running: state.HeldWait}); err != nil {
					return res, err
				}
				stopping = true
			}
		case s := <-x.cfg.Signals:
			if !s.Cancel {
				break
			}
			if res.Interrupted != nil { // asked once more
				end(cancelledBy(s), true)
				r.traffic.giveUp()
				break
			}
			res.Interrupted, r.interrupted = &s, true
			end(cancelledBy(s), false)
		case <-abandon:
			r.traffic.giveUp()
		case err := <-r.traffic.broken:
			res.Broken = err
			r.traffic.giveUp()
			end(cancelled("its output can't be written"), true)
		case <-done:
			done = nil
			end(cancelled("the launcher was told to stop"), true)
		case err := <-r.failed:
			return res, err
		case <-appDone:
			return res, control.ErrStopped
		}
	}
}

// attempt follows a crew.
func (x *arrayRun) attempt(rec *job.AttemptRow) {
	if rec == nil {
		return
	}
	if rec.State == job.AttemptEnded {
		delete(x.live, rec.ID)
		t := x.run.traffic
		t.mu.Lock()
		t.put(outItem{tell: func() { t.whole(rec) }})
		t.mu.Unlock()
	} else {
		x.live[rec.ID] = true
	}
	x.cfg.Out.Crew(*rec)
}
