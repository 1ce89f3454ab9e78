package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gangway/nodeagent/crew"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/sweep"
	"gangway/topology"
	"gangway/topology/bind"
)

// A crew's attempt has no ranks: the shim prepares as for any task, and what the
// launcher gives then is package crew's to run. Here is what binds the two.

// crewState is the crew of an attempt that is one.
type crewState struct {
	w     *crew.Crew
	begun bool
	done  bool
	work  *wire.Work // that came before there was a crew
	dir   string     // of its scratch files and pack
}

// mostSlots bounds a crew: each slot has a thread and some files.
const mostSlots = 4096

// isCrew says whether the attempt is a crew.
func (s *shim) isCrew() bool { return s.a.GetCrew() != nil }

// prepareCrew is prepareAll for a crew. What program an element runs is not known
// before its texts are.
func (s *shim) prepareCrew(ctx context.Context) (*prepared, *wire.Failure) {
	p := new(prepared)
	fail := func(code wire.FailureCode, message, hint string) (*prepared, *wire.Failure) {
		return nil, failed(code, s.nodeName(), message, hint)
	}
	c := s.a.GetCrew()
	var err error
	if p.cpus, err = topology.ParseCPUSet(s.a.GetCpus()); err != nil {
		return fail(wire.FailureCode_FAILURE_INTERNAL, "the granted cpus can't be read: "+err.Error(), "")
	}
	switch n := c.GetSlots(); {
	case n == 0 || n > mostSlots:
		return fail(wire.FailureCode_FAILURE_INTERNAL, fmt.Sprintf("%d elements at once: want 1 to %d", n, mostSlots), "")
	case len(s.a.GetCommand()) == 0:
		return fail(wire.FailureCode_FAILURE_NOT_FOUND, "no command was given", "")
	}
	var failure *wire.Failure
	if slices.Contains(c.GetTemplates(), "workdir") && s.a.GetWorkdir() != "" {
		p.workdir = "/" // each element's own is looked at when it starts
	} else if p.workdir, failure = s.workdir(); failure != nil {
		return nil, failure
	}
	if p.env, failure = s.environment(ctx, p.workdir); failure != nil {
		return nil, failure
	}
	a := s.a
	p.places, err = bind.Map(bind.Request{
		Node: s.node, Granted: p.cpus, Ranks: int(c.GetSlots()), CoresPerRank: int(a.GetCoresPerRank()),
		Mode: bind.Mode(a.GetBind()), Oversubscribe: a.GetOversubscribe() || a.GetShared(),
		Threads: int(a.GetThreads()), SMT: int(a.GetSmt()), Optimize: bind.Optimize(a.GetOptimize()), NoGreedy: a.GetNoGreedy(),
		GPUs: s.grantedGPUs(), GPUsPerRank: int(a.GetGpusPerRank()),
	})
	if err != nil {
		return fail(wire.FailureCode_FAILURE_BINDING, err.Error(), "")
	}
	return p, nil
}

// openCrewTask makes the task's directory ready for a crew. What crews before have
// packed there stays.
func (s *shim) openCrewTask() *wire.Failure {
	dir := filepath.Join(s.a.GetNodeDir(), "crew")
	made := []string{dir}
	if s.kept() {
		path := s.start.GetTaskPath()
		dir = crew.PackDir(path)
		made = []string{dir, filepath.Join(path, workName)}
	}
	for _, d := range made {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return failed(wire.FailureCode_FAILURE_DISK, s.nodeName(), fmt.Sprintf("the directory of the elements' output can't be made: %v", err), "")
		}
	}
	s.crew.dir = dir
	return nil
}

// makeCrew makes the crew of what was prepared.
func (s *shim) makeCrew(p *prepared) *wire.Failure {
	s.prep = p
	env := s.taskEnv()
	c := s.a.GetCrew()
	conf := crew.Config{
		ID: s.a.GetId(), Name: s.a.GetName(), SpoolDir: s.start.GetSpoolDir(), Dir: s.crew.dir, Keep: s.kept(),
		Command: s.a.GetCommand(), Workdir: p.workdir, Env: env, Over: s.a.GetEnv(),
		Sweep: c.GetSweepJson(), First: c.GetFirst(), Fields: c.GetTemplates(),
		TimeLimit: milliseconds(s.a.GetTimeLimitMs()), KillGrace: milliseconds(s.a.GetKillGraceMs()),
		SoftSignal: int(s.a.GetSoftSignal()), SoftBefore: milliseconds(s.a.GetSoftBeforeMs()),
		Memory: c.GetElementMemory(), Group: "gangway-" + s.a.GetId(), Node: s.nodeName(),
	}
	if slices.Contains(c.GetTemplates(), "workdir") && s.a.GetWorkdir() != "" {
		conf.Workdir = s.a.GetWorkdir()
	}
	if s.kept() {
		conf.Task = s.a.GetTask()
	}
	if all := new(sweep.Sweep); len(conf.Sweep) > 0 && json.Unmarshal(conf.Sweep, all) == nil {
		conf.Size = all.Len() // where there is none the task's environment says it
	}
	for _, pl := range p.places {
		cpus := pl.CPUs
		if cpus.IsEmpty() { // not bound to cores of its own, but to the task's
			cpus = p.cpus
		}
		conf.Slots = append(conf.Slots, crew.Slot{CPUs: cpus, Env: s.placeVars(pl, env)})
	}
	w, err := crew.New(conf, s.crewHost(env))
	if err != nil {
		return failed(wire.FailureCode_FAILURE_DISK, s.nodeName(), err.Error(), "")
	}
	s.crew.w = w
	if s.crew.work != nil {
		w.Work(s.crew.work)
		s.crew.work = nil
	}
	return nil
}

func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

func (s *shim) crewHost(env []string) crew.Host {
	return crew.Host{
		Block:  func(b *wire.Block) { s.box.block(b) },
		Output: s.box.write,
		Notice: func(warning bool, text string) { s.notice(warning, "%s", text) },
		Done:   func() { s.post(s.crewDone) },
		Resolve: func(name, dir string) (string, error) {
			path, err := lookProgram(name, dir, env)
			if err == nil {
				err = checkProgram(path)
			}
			return path, err
		},
		Failure: func(err error) (*wire.Failure, int32) {
			f := programFailure(s.nodeName(), err)
			switch {
			case errors.Is(err, proc.ErrWorkdir):
				f.Code = wire.FailureCode_FAILURE_WORKDIR
			case !errors.Is(err, proc.ErrNotFound) && !errors.Is(err, proc.ErrNotExecutable):
				f.Code = wire.FailureCode_FAILURE_INTERNAL
			}
			return f, int32(startCode(err))
		},
		Compile: compileTexts,
		Spawn: func(n int, ended func([]crew.Ended)) (crew.Spawner, error) {
			return crew.Slots(s.forker, n, ended)
		},
	}
}

// textError is a sweep that can't be read, or does not fit the texts.
type textError struct{ err error }

func (e *textError) Error() string { return "the sweep can't be used: " + e.err.Error() }
func (e *textError) Unwrap() error { return e.err }

// launchCrew starts the crew.
func (s *shim) launchCrew() {
	started := &wire.FromShim{Id: s.a.GetId(), Name: s.a.GetName(),
		M: &wire.FromShim_Started{Started: &wire.Started{Rank: mpirunRank, Pid: int64(os.Getpid()), UnixNs: s.started.UnixNano()}}}
	err := s.crew.w.Record(&wire.Frame{M: &wire.Frame_From{From: started}})
	if err == nil {
		err = s.crew.w.Start()
	}
	if err != nil {
		s.end(failed(wire.FailureCode_FAILURE_DISK, s.nodeName(), err.Error(), ""), false)
		return
	}
	s.crew.begun = true
	s.setPhase(wire.Phase_PHASE_RUNNING)
	s.saidStarted(mpirunRank, os.Getpid())
}

// work passes on what the launcher gives.
func (s *shim) work(m *wire.Work) {
	switch {
	case !s.isCrew():
	case s.crew.w != nil:
		s.crew.w.Work(m)
	case s.crew.work == nil || s.crew.work.GetSeq() <= m.GetSeq():
		s.crew.work = m
	}
}

// blockAck lets blocks go that the launcher has.
func (s *shim) blockAck(seq uint64) {
	s.box.ackBlocks(seq)
	if s.crew.w != nil {
		s.crew.w.Ack(seq)
	}
}

// crewStuck is how long killed elements may take to be gone.
const crewStuck = 10 * time.Second

// endCrew ends a running crew; false when there is none.
func (s *shim) endCrew(f *wire.Failure, grace bool) bool {
	if !s.crew.begun || s.crew.done {
		return false
	}
	s.crew.w.End(f, !grace)
	limit := crewStuck
	if grace {
		d := milliseconds(s.a.GetKillGraceMs())
		if d <= 0 {
			d = killGrace
		}
		limit += d
	}
	s.after(limit, s.crewDone) // what hangs in the kernel must not keep the rest
	return true
}

// crewDone goes on when the crew has nothing more to do.
func (s *shim) crewDone() {
	if s.crew.done {
		return
	}
	s.crew.done = true
	if !s.ending {
		s.endWell()
		return
	}
	s.killing = true
	s.sweep()
}

// closeCrew lets go of what the crew has on the node.
func (s *shim) closeCrew() error {
	if s.crew.w == nil {
		return nil
	}
	closed := make(chan error, 1)
	go func() { closed <- s.crew.w.Close() }()
	late := time.NewTimer(crewStuck)
	defer late.Stop()
	var err error
	select {
	case err = <-closed:
	case <-late.C: // a process hangs in the kernel; this one ends all the same
	}
	return errors.Join(err, spool.Remove(s.start.GetSpoolDir(), s.a.GetId()))
}

// crewWarnings is what did not go as it should.
func (s *shim) crewWarnings() []string {
	if s.crew.w == nil {
		return nil
	}
	if loss := s.crew.w.Loss(); loss != "" {
		return []string{loss}
	}
	return nil
}

// compileTexts makes the texts of a sweep.
func compileTexts(sweepJSON []byte, first uint64, texts []string) (crew.Texts, error) {
	s := new(sweep.Sweep)
	if err := json.Unmarshal(sweepJSON, s); err != nil {
		return nil, &textError{err}
	}
	t, err := sweep.Compile(s, first, texts)
	if err != nil {
		return nil, &textError{err}
	}
	return t, nil
}
