// Package launcher wires the launcher's parts together. Run is the launcher
// inside `gangway run`: it lives as long as its one job.
package launcher

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/control"
	"gangway/launcher/job"
	"gangway/launcher/pool"
	"gangway/launcher/sched"
	"gangway/launcher/state"
	"gangway/launcher/store"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// Lease is how long session jobs outlive a launcher that died.
const Lease = 10 * time.Second

// RunConfig is one `gangway run`.
type RunConfig struct {
	Provider pool.Provider
	Spec     job.Spec
	Base     string // of the directories on the nodes; "": /tmp
	Who      string // for messages on the nodes
	Stdin    io.Reader
	Fabric   *sched.Fabric // the network between the nodes; nil: not known
	Program  string        // file to copy to the nodes when the task says Bcast
	Out      Sink
	Log      *slog.Logger
	// Signals are forwarded to the ranks.
	Signals <-chan SignalRequest
	// Explain, when set, is served while the job lives.
	Explain func(ctx context.Context, waiting func() []sched.Waiting)
}

// SignalRequest is a signal for the ranks. Cancel ends the job as well, after
// Grace.
type SignalRequest struct {
	Number int
	Name   string
	Cancel bool
	Grace  time.Duration
}

// Sink takes what the user sees. Output is called by one goroutine, the other
// methods by others at the same time.
type Sink interface {
	// Output writes a rank's bytes (rank -1: mpirun's or the primary
	// command's own). It may block; the ranks then wait.
	Output(node string, rank int, stderr bool, data []byte) error
	Notice(node, text string, warning bool)
	Waiting(r job.Reason)
	Placed(rec job.AttemptRow)
	// Planned tells what starts, and where its ranks are bound, by rank.
	Planned(node string, p agents.Plan, ranks []Place)
}

// EndSink is a Sink that wants to know which ranks' streams have ended. It is
// called as Output is, behind the last of a stream's bytes, perhaps twice.
type EndSink interface {
	OutputEnd(rank int, stderr bool)
}

// RunResult is how the job ended.
type RunResult struct {
	Outcome job.Outcome
	Attempt *job.AttemptRow // the last one; nil: never placed
	Plan    *agents.Plan
	Ranks   map[uint32]Place // what the shims bound, by rank
	// Broken is why the output could not be written; the job was ended then.
	Broken error
}

// InterruptedError reports a signal that came before the job was submitted.
type InterruptedError struct {
	Number int
	Name   string
}

func (e *InterruptedError) Error() string {
	return "interrupted by " + e.Name + " while connecting to the nodes"
}

// Place is where a rank is.
type Place struct {
	Rank    int      `json:"rank"`
	Node    string   `json:"node"`
	CPUs    string   `json:"cpus"` // list of PUs; "": unbound
	GPUs    []string `json:"gpus"` // index, or UUID of a MIG instance
	Mem     []int    `json:"mem"`  // NUMA nodes that its memory comes from first
	NICs    []string `json:"nics"` // HCAs, nearest first
	Threads int      `json:"threads"`
	// Env is what the place sets in the rank's environment; of a plan only.
	Env map[string]string `json:"env,omitempty"`
}

// String is the place in one line: rank 3 n1 cpus 8-11 numa 1 gpus 2 nic mlx5_2 threads 4.
func (p Place) String() string {
	s := fmt.Sprintf("rank %d %s", p.Rank, p.Node)
	if p.CPUs == "" {
		s += " unbound"
	} else {
		s += " cpus " + p.CPUs
	}
	if len(p.Mem) > 0 {
		s += " numa " + topology.NewCPUSet(p.Mem...).String()
	}
	if len(p.GPUs) > 0 {
		s += " gpus " + strings.Join(p.GPUs, ",")
	}
	if len(p.NICs) > 0 {
		s += " nic " + strings.Join(p.NICs, ",")
	}
	return fmt.Sprintf("%s threads %d", s, p.Threads)
}

// placeOf reads what a shim said. Lists are never nil: in JSON they are lists.
func placeOf(node string, r *wire.RankPlace) Place {
	p := Place{Rank: int(r.GetRank()), Node: node, CPUs: r.GetCpus(), Threads: int(r.GetThreads()),
		GPUs: append([]string{}, r.GetGpus()...), Mem: []int{}, NICs: append([]string{}, r.GetNics()...)}
	for _, n := range r.GetMemNodes() {
		p.Mem = append(p.Mem, int(n))
	}
	for _, v := range r.GetEnv() {
		if p.Env == nil {
			p.Env = map[string]string{}
		}
		name, value, _ := strings.Cut(v, "=")
		p.Env[name] = value
	}
	return p
}

// run is the state of one Run.
type run struct {
	cfg     RunConfig
	ctl     *control.Control
	fleet   *agents.Fleet
	notices chan state.Notice
	failed  chan error // a node that can't be reached at all
	traffic *traffic
	jobUID  string
	// interrupted: the user has asked for the end.
	interrupted bool
	last        *job.Outcome // of the try after which there is none, as its input was read
}

// Run carries the job through and returns when nothing of it is left, or ctx is
// done. The error is gangway's; the application's end is in the result.
func Run(ctx context.Context, cfg RunConfig) (RunResult, error) {
	r := newRun(cfg, store.NewMemory(), nil)
	var res RunResult
	err := r.embed(ctx, func(appDone <-chan struct{}) (err error) {
		res, err = r.follow(ctx, appDone)
		return err
	})
	return res, err
}

// newRun makes the parts of an embedded launcher. early, if it is set, is told of
// each notice by the applier, before what follows from it is sent to the nodes; it
// says whether the notice goes on to those who follow the job.
func newRun(cfg RunConfig, rows control.Store, early func(state.Notice) bool) *run {
	r := &run{cfg: cfg, notices: make(chan state.Notice, 1024), failed: make(chan error, len(cfg.Provider.Nodes())), jobUID: randomID(4)}
	cluster := randomID(8)
	r.traffic = newTraffic(r)
	empty := state.New(cluster, 1)
	empty.SetFabric(cfg.Fabric)
	notice := func(n state.Notice) { r.notices <- n }
	if early != nil {
		notice = func(n state.Notice) {
			if early(n) {
				r.notices <- n
			}
		}
	}
	r.ctl = control.New(control.Config{
		Cluster: empty, Store: rows, Fleet: fleetRef{r}, Log: cfg.Log, Notice: notice,
		NodeGrace: Lease, Lease: Lease,
	})
	r.fleet = agents.New(agents.Config{
		Connector: connector{cfg.Provider}, Inbox: r.ctl, Traffic: r.traffic,
		Cluster: cluster, Epoch: 1, Who: cfg.Who, Lease: Lease, Base: cfg.Base, Log: cfg.Log,
		Failed: r.connectFailed, Up: r.traffic.sessionUp,
	})
	return r
}

// embed runs the launcher for as long as follow takes, and clears up after it.
func (r *run) embed(ctx context.Context, follow func(appDone <-chan struct{}) error) error {
	cfg, nodes := r.cfg, r.cfg.Provider.Nodes()
	// The parts stop in the order in which they need each other.
	var applier, sessions, printer, drained sync.WaitGroup
	appCtx, stopApplier := context.WithCancel(context.WithoutCancel(ctx))
	sesCtx, stopSessions := context.WithCancel(context.WithoutCancel(ctx))
	var appErr error
	appDone := make(chan struct{})
	applier.Go(func() { appErr = r.ctl.Run(appCtx); close(appDone) })
	printer.Go(r.traffic.print)
	defer func() {
		stopSessions()
		sessions.Wait()
		stopApplier()
		applier.Wait()
		drained.Wait()
		r.traffic.stop()
		r.printed(ctx, &printer)
	}()
	for _, n := range nodes {
		if err := r.ctl.Do(ctx, state.NodeAdded{Node: n.Name}); err != nil {
			drained.Go(func() { drain(r.notices, appDone) })
			return err
		}
	}
	for _, n := range nodes {
		sessions.Go(func() { r.fleet.Keep(sesCtx, n.Name) })
	}
	err := follow(appDone)
	if err != nil && appErr != nil && errors.Is(err, control.ErrStopped) {
		err = appErr
	}
	drained.Go(func() { drain(r.notices, appDone) })
	// Whatever the end was: nothing of it stays on a node that answers.
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeWait)
	defer cancel()
	if gerr := r.fleet.Goodbye(bye); gerr != nil {
		cfg.Out.Notice("", gerr.Error(), true)
	}
	return err
}

// abandonWait is how long the output of a cancelled job is waited for.
const abandonWait = 5 * time.Second

// printed waits until the rest of the output is written, which takes as long as
// its reader likes, unless the user asks for the end: the printer may hang in a
// write for ever.
func (r *run) printed(ctx context.Context, printer *sync.WaitGroup) {
	if r.traffic.gaveUp() {
		return
	}
	written := make(chan struct{})
	go func() { printer.Wait(); close(written) }()
	var abandon <-chan time.Time
	over := ctx.Done()
	if r.interrupted {
		abandon = time.After(abandonWait)
	}
	for {
		select {
		case <-written:
			return
		case <-over:
			over, abandon = nil, time.After(abandonWait)
			continue
		case s := <-r.cfg.Signals:
			if !s.Cancel {
				continue
			}
		case <-abandon:
		}
		r.traffic.giveUp()
		return
	}
}

// goodbyeWait is how long the end of a job may take to be confirmed by the
// nodes: a lease and its margin, after which they end it by themselves.
const goodbyeWait = 15 * time.Second

// drain keeps the applier from blocking on notices nobody reads any more.
func drain(ch <-chan state.Notice, done <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-done:
			return
		}
	}
}

func randomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}

// fleetRef breaks the circle between control and fleet.
type fleetRef struct{ r *run }

func (f fleetRef) Want(node string, parts []state.Part) { f.r.fleet.Want(node, parts) }

type connector struct{ p pool.Provider }

func (c connector) Connect(ctx context.Context, node string) (io.ReadWriteCloser, error) {
	return c.p.Connect(ctx, node)
}

// connectFailed decides about a connection that could not be made: before the
// first success it is the user's to mend, later the node may come back.
func (r *run) connectFailed(node string, err error, everUp bool) bool {
	if everUp {
		return true
	}
	select {
	case r.failed <- err:
	default:
	}
	return false
}

// follow submits the job and sees it through.
func (r *run) follow(ctx context.Context, appDone <-chan struct{}) (RunResult, error) {
	if err := r.connected(ctx, appDone); err != nil {
		return RunResult{}, err
	}
	if err := r.ctl.Do(ctx, state.JobSubmitted{UID: r.jobUID, Spec: r.cfg.Spec}); err != nil {
		return RunResult{}, err
	}
	if r.cfg.Explain != nil {
		ectx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { r.cfg.Explain(ectx, r.ctl.Waiting) })
		defer func() { cancel(); wg.Wait() }()
	}
	var res RunResult
	done := ctx.Done()
	waitNote := time.NewTicker(time.Second)
	defer waitNote.Stop()
	var escalate, abandon <-chan time.Time
	var by SignalRequest // escalate's
	cancel := func(why job.Reason) {
		r.cancel(why)
		if abandon == nil {
			abandon = time.After(abandonWait)
		}
	}
	var said string
	for {
		select {
		case n := <-r.notices:
			if r.notice(n, &res) {
				res.Plan, res.Ranks = r.traffic.plan()
				return res, nil
			}
		case <-waitNote.C:
			if w := r.ctl.Waiting(); len(w) > 0 {
				if s := w[0].Reason.String(); s != said {
					said = s
					r.cfg.Out.Waiting(w[0].Reason)
				}
			}
		case s := <-r.cfg.Signals:
			if !s.Cancel {
				r.traffic.signal(s.Number)
				break
			}
			r.interrupted = true
			if abandon != nil {
				r.traffic.giveUp() // asked once more
			}
			if escalate != nil || !r.traffic.running() {
				cancel(cancelledBy(s))
				break
			}
			r.traffic.signal(s.Number)
			escalate = time.After(s.Grace)
			by = s
		case <-escalate:
			escalate = nil
			cancel(cancelledBy(by))
		case <-abandon:
			r.traffic.giveUp()
		case err := <-r.traffic.broken:
			res.Broken = err
			r.traffic.giveUp()
			cancel(cancelled("its output can't be written"))
		case <-done:
			done = nil
			cancel(cancelled("the launcher was told to stop"))
		case err := <-r.failed:
			return res, err
		case <-appDone:
			return res, control.ErrStopped
		}
	}
}

// connected waits until every node has a session, so that a job is never
// refused for a node that is just a little slower.
func (r *run) connected(ctx context.Context, appDone <-chan struct{}) error {
	up := map[string]bool{}
	want := len(r.cfg.Provider.Nodes())
	for len(up) < want {
		select {
		case n := <-r.notices:
			if n.Kind == state.NodeChanged && n.Up {
				up[n.Node] = true
			} else if n.Kind == state.NodeChanged {
				delete(up, n.Node)
			}
		case err := <-r.failed:
			return err
		case s := <-r.cfg.Signals:
			if s.Cancel {
				return &InterruptedError{Number: s.Number, Name: s.Name}
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-appDone:
			return control.ErrStopped
		}
	}
	return nil
}

// cancel ends the job without its grace.
func (r *run) cancel(why job.Reason) {
	r.ctl.Post(state.CancelRequested{Job: r.jobUID, Now: true, Reason: why})
}

func cancelled(why string) job.Reason { return job.Reason{Code: job.FailCancelled, Detail: why} }

func cancelledBy(s SignalRequest) job.Reason {
	return job.Reason{Code: job.FailCancelled, Detail: "cancelled by " + s.Name, Signal: s.Number}
}

// notice reports whether the job has ended.
func (r *run) notice(n state.Notice, res *RunResult) bool {
	switch n.Kind {
	case state.AttemptState:
		if n.Record != nil {
			res.Attempt = n.Record
			r.traffic.attempt(n.Record)
			if n.Record.State == job.AttemptPlaced {
				r.cfg.Out.Placed(*n.Record)
			}
		}
	case state.TaskDone:
		if n.Outcome != nil {
			res.Outcome = r.endOf(*n.Outcome)
		}
	case state.TaskAgain:
		if n.Outcome != nil {
			r.again(n.Node, *n.Outcome)
		}
	case state.JobEnded:
		return n.Job == r.jobUID
	}
	return false
}

// again is told that another try follows the one that ended as was. One that
// would find its input gone is not worth having: it would run on nothing.
func (r *run) again(node string, was job.Outcome) {
	why := string(job.FailUnknown)
	if was.Reason != nil {
		why = was.Reason.String()
	}
	if !r.traffic.inputRead() {
		r.cfg.Out.Notice(node, "trying again: "+why, true)
		return
	}
	r.last = &was
	r.cancel(job.Reason{Code: job.FailInput, Detail: "not tried again, as its input was already read; the try before: " + why,
		Hint: "let the program read its input from a file"})
}

// endOf is how the job ended, as the user sees it: of one that was not tried
// again, as its last try did.
func (r *run) endOf(o job.Outcome) job.Outcome {
	if r.last != nil && o.Reason != nil && o.Reason.Code == job.FailInput {
		o.ExitCode, o.Signal = r.last.ExitCode, r.last.Signal
	}
	return o
}
