// Package control is the single applier: one goroutine owns the cluster's
// state. It is the only place where time and randomness enter and where
// effects leave, in this order: apply, commit, answer, plan, commit the
// placement, tell the nodes.
package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync/atomic"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/launcher/state"
)

// Store is where rows become durable before anything is sent.
type Store interface {
	Commit(rows []job.Row) error
}

// Fleet is told what shall live on a node. Want is called by the applier alone
// and must not block.
type Fleet interface {
	Want(node string, parts []state.Part)
}

// Config of a Control. All fields but the durations must be set.
type Config struct {
	Cluster *state.Cluster
	Store   Store
	Fleet   Fleet
	Policy  sched.Policy
	Log     *slog.Logger
	// Notice is called by the applier after the commit; it must not block.
	Notice func(state.Notice)
	// NodeGrace is how long a node may be without a session before its
	// attempts are given up, Lease how long attempts outlive the contact with
	// their launcher, after which a silent node can hold nothing of those
	// that Leases names.
	NodeGrace time.Duration
	Lease     time.Duration
	Leases    state.Leases // AllAttempts means SessionLeases
}

// Control applies events.
type Control struct {
	cfg     Config
	inbox   chan request
	done    chan struct{}
	waiting atomic.Pointer[[]sched.Waiting]
	down    map[string]*silent // nodes without a session
	last    time.Time          // of the last event
}

type silent struct {
	since      time.Time
	why        string
	lease      time.Duration // of what was left there
	lost, gone bool
}

type request struct {
	what  state.What
	read  func(*state.Cluster) // instead of an event
	reply chan error
	mine  *atomic.Bool // of a read: taken up, or given up, by whoever sets it
}

// New returns a Control; Run makes it work.
func New(cfg Config) *Control {
	c := &Control{cfg: cfg, inbox: make(chan request, 256), done: make(chan struct{}), down: map[string]*silent{}}
	c.waiting.Store(&[]sched.Waiting{})
	// Of a restarted launcher: no session is known before it begins.
	for _, n := range cfg.Cluster.Nodes() {
		// What it left on a node may have been given a longer lease.
		c.down[n.Row.Name] = &silent{since: time.Now(), lease: max(cfg.Lease, n.Row.Lease), why: "it has not been heard of since the launcher was started"}
	}
	return c
}

// ErrStopped reports that the applier has ended.
var ErrStopped = errors.New("the launcher is stopping")

// Post hands an event to the applier without waiting for it. What the state
// refuses is logged: a node's news can't be answered.
func (c *Control) Post(what state.What) {
	select {
	case c.inbox <- request{what: what}:
	case <-c.done:
	}
}

// Do applies an event and returns once it is committed, or why it was refused.
func (c *Control) Do(ctx context.Context, what state.What) error {
	return c.do(ctx, request{what: what, reply: make(chan error, 1)})
}

// Read lets f look at the state between two events: it must be quick, change
// nothing and keep nothing that the state's documentation does not allow. What
// it sees is committed. f is never called after Read has returned.
func (c *Control) Read(ctx context.Context, f func(*state.Cluster)) error {
	return c.do(ctx, request{read: f, reply: make(chan error, 1), mine: new(atomic.Bool)})
}

func (c *Control) do(ctx context.Context, r request) error {
	select {
	case c.inbox <- r:
	case <-c.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.reply:
		return err
	case <-c.done:
		return ErrStopped
	case <-ctx.Done():
	}
	if r.read != nil && !r.mine.CompareAndSwap(false, true) {
		<-r.reply // it is looking, and writes what the caller reads
	}
	return ctx.Err()
}

// Waiting returns why tasks wait, as of the last plan.
func (c *Control) Waiting() []sched.Waiting { return *c.waiting.Load() }

// fatal ends the process's work: memory would be ahead of the disk.
type fatal struct{ err error }

func (e fatal) Error() string {
	return fmt.Sprintf("the launcher's data can't be written: %v; nothing was acknowledged that is not on disk", e.err)
}
func (e fatal) Unwrap() error { return e.err }

// batchLimit bounds how many events are applied before the plan is made anew.
const batchLimit = 256

// Run applies events until ctx is done or a commit fails.
func (c *Control) Run(ctx context.Context) error {
	defer close(c.done)
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		round := round{touched: map[string]bool{}}
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.inbox:
			c.take(r, &round)
		case <-wake.C:
			round.replan = true
		case <-tick.C:
			if err := c.patience(&round); err != nil {
				return err
			}
		}
		for n := 1; n < batchLimit; n++ {
			select {
			case r := <-c.inbox:
				c.take(r, &round)
				continue
			default:
			}
			break
		}
		if err := c.flush(&round); err != nil {
			return err
		}
		if round.replan {
			at, err := c.plan(&round)
			if err != nil {
				return err
			}
			if err := c.flush(&round); err != nil {
				return err
			}
			if !at.IsZero() {
				wake.Reset(max(0, time.Until(at)))
			}
		}
		c.tell(&round)
	}
}

// round collects what one turn of the applier has to do. Its events are
// committed together: a commit costs the same for one as for hundreds.
type round struct {
	rows    []job.Row
	notices []state.Notice
	answers []func(failed error) // what waits for the commit; failed: it went wrong
	touched map[string]bool
	replan  bool
}

func (c *Control) take(r request, rd *round) {
	if r.read != nil {
		rd.answers = append(rd.answers, func(failed error) {
			if !r.mine.CompareAndSwap(false, true) {
				return // nobody waits for it any more
			}
			if failed == nil {
				r.read(c.cfg.Cluster)
			}
			r.reply <- failed
		})
		return
	}
	err := c.apply(r.what, rd)
	if r.reply == nil {
		if err != nil {
			c.cfg.Log.Error("event refused", "event", fmt.Sprintf("%T", r.what), "err", err)
		}
		return
	}
	// A refusal waits too: its reason may be an event that is not yet durable.
	rd.answers = append(rd.answers, func(failed error) {
		if failed != nil {
			err = failed
		}
		r.reply <- err
	})
}

// flush commits what the round has applied, then lets it be known.
func (c *Control) flush(rd *round) error {
	var failed error
	if len(rd.rows) > 0 {
		if err := c.cfg.Store.Commit(rd.rows); err != nil {
			failed = fatal{err}
		}
	}
	for _, answer := range rd.answers {
		answer(failed)
	}
	if failed == nil {
		for _, n := range rd.notices {
			c.cfg.Notice(n)
		}
	}
	rd.rows, rd.answers, rd.notices = nil, nil, nil
	return failed
}

func (c *Control) apply(what state.What, rd *round) error {
	now := time.Now()
	if !now.After(c.last) { // versions are made of times: no two events have the same
		now = c.last.Add(1)
	}
	c.last = now
	ch, err := c.cfg.Cluster.Apply(state.Event{At: now, What: what})
	if err != nil {
		return err
	}
	rd.rows = append(rd.rows, ch.Rows...)
	for _, n := range ch.Touched {
		rd.touched[n] = true
	}
	rd.replan = rd.replan || ch.Replan
	switch w := what.(type) {
	case state.NodeUp:
		delete(c.down, w.Node)
	case state.NodeDown:
		if c.down[w.Node] == nil {
			c.down[w.Node] = &silent{since: now, lease: c.cfg.Lease, why: w.Why}
		}
	case state.Inventory:
		// A new session is told everything, also that there is nothing.
		rd.touched[w.Node] = true
	case state.NodeRemoved:
		delete(c.down, w.Node)
	}
	rd.notices = append(rd.notices, ch.Notices...)
	return nil
}

// patience gives nodes up that have been without a session for too long.
func (c *Control) patience(rd *round) error {
	names := make([]string, 0, len(c.down))
	for n := range c.down {
		names = append(names, n)
	}
	sort.Strings(names)
	now := time.Now()
	overdue, _ := c.cfg.Cluster.Overdue(now)
	for _, uid := range overdue {
		why := job.Reason{Code: job.FailTimeLimit, Detail: "the job's time limit is over"}
		if err := c.apply(state.CancelRequested{Job: uid, Reason: why}, rd); err != nil {
			return err
		}
	}
	for _, n := range names {
		s := c.down[n]
		quiet := now.Sub(s.since)
		if !s.lost && quiet >= c.cfg.NodeGrace {
			s.lost = true
			if err := c.apply(state.NodeLost{Node: n, Why: s.why}, rd); err != nil {
				return err
			}
		}
		// Half the lease on top covers clocks that run at different speeds
		// and a kill that takes its time.
		if !s.gone && quiet >= s.lease+s.lease/2 {
			s.gone = true
			leases := c.cfg.Leases
			if leases == state.AllAttempts {
				leases = state.SessionLeases
			}
			what := state.NodeGone{Node: n, Leases: leases, Why: "the lease of what ran there has lapsed"}
			if err := c.apply(what, rd); err != nil {
				return err
			}
		}
	}
	return nil
}

// planLimit bounds how often one turn plans: events must not wait for ever on a
// plan that always wants another.
const planLimit = 4

// plan carries out what the scheduler decides, and asks it again for as long as
// carrying it out changes what it decides upon: places that are taken change
// why the others wait, and an attempt that ends at its placement frees some. It
// returns when to plan next; zero: when something happens.
func (c *Control) plan(rd *round) (time.Time, error) {
	for range planLimit {
		rd.replan = false
		d := sched.Plan(time.Now(), c.cfg.Cluster.View(), c.cfg.Policy)
		c.waiting.Store(&d.Waiting)
		if len(d.Place)+len(d.Orders) > 0 {
			placed := state.Placed{Place: d.Place, Orders: d.Orders}
			_, _ = rand.Read(placed.Random[:]) // never fails, see crypto/rand
			if err := c.apply(placed, rd); err != nil {
				return time.Time{}, fmt.Errorf("the state refuses what was planned on it: %w", err)
			}
		}
		if !rd.replan {
			return d.WakeAt, nil
		}
	}
	return time.Now(), nil
}

func (c *Control) tell(rd *round) {
	names := make([]string, 0, len(rd.touched))
	for n := range rd.touched {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		c.cfg.Fleet.Want(n, c.cfg.Cluster.Desired(n))
	}
}
