package shim

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gangway/mpi"
	"gangway/nodeagent/mesh"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// launchLimit is how long a launch may take if the assignment does not say.
const launchLimit = 60 * time.Second

// mpirunRank stands for mpirun or the primary's command in Started.
const mpirunRank = ^uint32(0)

// mainProcess is mpirun, or the primary's command.
type mainProcess struct {
	p     *proc.Process
	tail  *tail
	pumps []*pump
	ended bool
	st    proc.Status
}

// launch starts what was prepared: every member is ready.
func (s *shim) launch(l *wire.Launch) {
	if s.phase != wire.Phase_PHASE_READY || s.ending {
		return
	}
	s.peers = l.GetPeers()
	if len(s.peers) == 0 {
		s.peers = []*wire.Peer{{Name: s.nodeName(), Hostname: s.node.Hostname, Address: s.a.GetAddress(),
			Interface: s.a.GetInterface(), FirstRank: s.a.GetFirstRank(), Ranks: s.a.GetNodeRanks(), Cpus: s.a.GetCpus(), RankList: s.a.GetRankList()}}
	}
	if s.isCrew() {
		s.started = time.Now()
		s.launchCrew()
		return
	}
	own, err := s.ranksHere()
	if err != nil {
		s.end(failed(wire.FailureCode_FAILURE_INTERNAL, s.nodeName(), err.Error(), ""), false)
		return
	}
	s.started = time.Now()
	if s.a.GetPlanOnly() {
		if s.primary() {
			if _, f := s.plan(); f != nil {
				s.end(f, false)
				return
			}
		}
		s.finish()
		return
	}
	if err := s.spool.Append(&wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: s.a.GetId(), Name: s.a.GetName(),
		M: &wire.FromShim_Started{Started: &wire.Started{Rank: mpirunRank, UnixNs: s.started.UnixNano()}}}}}); err != nil {
		s.end(failed(wire.FailureCode_FAILURE_DISK, s.nodeName(), err.Error(), ""), false)
		return
	}
	s.setPhase(wire.Phase_PHASE_RUNNING)
	if d := time.Duration(s.a.GetTimeLimitMs()) * time.Millisecond; d > 0 {
		s.softSignal(d)
		s.after(d, func() {
			s.end(failed(wire.FailureCode_FAILURE_TIME_LIMIT, s.nodeName(), fmt.Sprintf("the time limit of %v is over", d), ""), true)
		})
	}
	s.limitMemory()
	s.countOOMs()
	s.confine()
	limit := time.Duration(s.a.GetLaunchDeadlineMs()) * time.Millisecond
	if limit <= 0 {
		limit = launchLimit
	}
	s.after(limit, func() { s.launchDeadline(limit) })
	s.gang.exits = make(map[uint32]gangExit)
	for i, n := range own {
		s.ranks = append(s.ranks, &rank{n: n, local: i, tail: new(tail)})
	}
	if s.a.GetLaunch() == wire.LaunchMode_LAUNCH_PRIMARY {
		s.ranks = nil
	}
	if s.mesh == nil {
		s.joined(nil)
		return
	}
	peers, err := meshPeers(s.peers)
	if err != nil {
		s.end(failed(wire.FailureCode_FAILURE_NETWORK, s.nodeName(), err.Error(), ""), false)
		return
	}
	if !s.primary() {
		// The primary's deadline comes first: a member that gives up before
		// it would be named as one that did not come.
		limit += 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	s.beginChecks()
	s.wg.Go(func() {
		defer cancel()
		err := s.mesh.Join(ctx, peers, meshHandler{s})
		s.post(func() { s.joined(err) })
	})
	if s.a.GetMpi() == string(mpi.None) && s.a.GetLaunch() == wire.LaunchMode_LAUNCH_RANKS && s.preflightMode() != preflightFull {
		s.go_(viaDirect) // nothing to wait for: the primary can't decide otherwise
	}
}

func meshPeers(peers []*wire.Peer) ([]mesh.Peer, error) {
	var out []mesh.Peer
	for _, p := range peers {
		addr, err := netip.ParseAddr(p.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("the data address %q of %s can't be read: %w", p.GetAddress(), p.GetName(), err)
		}
		out = append(out, mesh.Peer{Index: int(p.GetIndex()), Name: p.GetName(), Addr: addr, Port: uint16(p.GetPort())})
	}
	return out, nil
}

func (s *shim) limitMemory() {
	limit := s.a.GetMemoryBytes()
	if limit == 0 {
		return
	}
	g, err := proc.NewMemoryGroup("gangway-"+s.a.GetId(), limit)
	if err != nil {
		s.notice(true, "%s: %v", s.nodeName(), err)
		return
	}
	s.memory = g
}

// joined goes on when the gang's members are connected.
func (s *shim) joined(err error) {
	if s.ending {
		return
	}
	if err != nil {
		s.end(failed(wire.FailureCode_FAILURE_LAUNCH_DEADLINE, s.nodeName(), err.Error(), ""), false)
		return
	}
	s.gang.joined = true
	for _, m := range s.gang.waiting {
		m()
	}
	s.gang.waiting = nil
	if !s.primary() || !s.checked() {
		return
	}
	l, f := s.plan()
	if f != nil {
		s.end(f, false)
		return
	}
	for _, file := range l.Files {
		if err := os.WriteFile(file.Path, []byte(file.Content), os.FileMode(file.Mode)); err != nil {
			s.end(s.dirFailure(err), false)
			return
		}
	}
	via := s.prep.mpi.via
	s.saySlice()
	s.tellAll(msgGo, []byte(via))
	s.go_(via)
	switch via {
	case viaMPIRun:
		s.startMain(l.Argv[0], l.Argv, l.Environ(s.taskEnv()), false)
	case viaPrimary:
		s.startMain(s.prep.program, s.a.GetCommand(), mergeEnv(s.taskEnv(), append(l.Env, s.batchVars()...)), s.a.GetStdin())
	}
}

// go_ starts this node's ranks if that is the shim's work.
func (s *shim) go_(via string) {
	if s.via != "" || s.ending {
		return
	}
	s.via = via
	switch via {
	case viaDirect:
		s.startRanks()
	case viaPMI:
		s.whenJoined(s.startPMI) // the exchange needs the mesh
	}
}

// plan asks package mpi what to run and tells the launcher.
func (s *shim) plan() (mpi.Launch, *wire.Failure) {
	d := s.prep.mpi
	if d.notice != "" {
		s.notice(true, "%s", d.notice)
	}
	var layout mpi.Layout
	over := false
	for _, p := range s.peers {
		if p.GetRanks() == 0 {
			continue
		}
		slot := mpi.NodeSlot{Name: p.GetAddress(), Hostname: p.GetHostname(), Ranks: int(p.GetRanks()), Interface: p.GetInterface()}
		if addr, err := netip.ParseAddr(p.GetAddress()); err == nil {
			slot.Address = addr
		}
		if slot.Name == "" || slot.Address.Is6() {
			slot.Name = p.GetHostname()
		}
		layout.Nodes = append(layout.Nodes, slot)
	}
	layout.Order = layoutOrder(s.peers)
	over = s.a.GetOversubscribe() || s.a.GetShared()
	dir := s.a.GetNodeDir()
	facts := mpi.Facts{
		Launcher: d.launcher, RankWrapper: filepath.Join(dir, RankName), Rsh: filepath.Join(dir, RshName), Dir: dir,
		Subnet: s.subnet(), Root: os.Geteuid() == 0, Oversubscribed: over, Env: s.prep.env,
	}
	build := func() (mpi.Launch, error) { return mpi.Build(facts, layout, s.a.GetCommand()) }
	switch d.via {
	case viaPrimary:
		build = func() (mpi.Launch, error) { return mpi.BuildPrimary(facts, layout) }
	case viaPMI:
		build = func() (mpi.Launch, error) { return mpi.BuildPMI(facts, layout) }
	}
	l, err := build()
	if err != nil {
		return l, failed(wire.FailureCode_FAILURE_INTERNAL, s.nodeName(), err.Error(), "")
	}
	if d.via != viaMPIRun {
		l.Argv = slices.Clone(s.a.GetCommand())
	}
	vars := s.gangVars()
	if d.via == viaPrimary {
		vars = append(vars, s.batchVars()...)
	}
	if d.via == viaPMI && len(layout.Nodes) > 0 {
		l.Env = append(l.Env, pmiVars(0, layout.Ranks(), 0, layout.Nodes[0].Ranks)...) // rank 0's
	}
	plan := &wire.LaunchPlan{
		Mpi: string(d.launcher.Flavour), MpiVersion: d.launcher.Version.Text, MpiLauncher: d.launcher.Path, Linked: d.linked,
		Argv: l.Argv, Env: mergeEnv(vars, l.Env), Unset: l.Unset, HostfilePath: l.Hostfile, Program: s.prep.program, Via: d.via,
	}
	for _, f := range l.Files {
		if f.Path == l.Hostfile {
			plan.Hostfile = f.Content
		}
	}
	s.box.say(&wire.FromShim{M: &wire.FromShim_Plan{Plan: plan}})
	return l, nil
}

// subnet is the network of this node's data-plane address.
func (s *shim) subnet() netip.Prefix {
	addr, err := netip.ParseAddr(s.a.GetAddress())
	if err != nil {
		return netip.Prefix{}
	}
	for _, i := range s.node.Interfaces {
		for _, p := range i.Addrs {
			if p.Addr() == addr {
				return p
			}
		}
	}
	return netip.Prefix{}
}

// batchVars are the variables that Azure Batch and HPC Pack give to a
// multi-instance task's primary.
func (s *shim) batchVars() []string {
	return append(s.hostVars(), "AZ_BATCH_IS_CURRENT_NODE_MASTER=true", "AZ_BATCH_TASK_WORKING_DIR="+s.prep.workdir)
}

// taskEnv is the environment of whatever runs for the task on this node.
func (s *shim) taskEnv() []string {
	var hosts []string
	for _, p := range s.peers {
		hosts = append(hosts, p.GetAddress())
	}
	vars := append(s.gangVars()[:2], "GANGWAY_HOSTS="+strings.Join(hosts, ","))
	vars = append(vars, s.prep.gpuVars...)
	return mergeEnv(s.prep.env, append(vars, s.keptGangVars()...))
}

// command is a process of the task on the cores granted.
func (s *shim) command(path string, args, env []string) proc.Cmd {
	return proc.Cmd{Path: path, Args: args, Env: env, Dir: s.prep.workdir, CPUs: s.prep.cpus,
		NewSession: true, KillWithParent: true, Group: s.memory, CPUSet: s.cpuset, Slice: s.slice()}
}

// startMain starts mpirun or the primary's command.
func (s *shim) startMain(path string, args, env []string, stdin bool) {
	m := &mainProcess{tail: new(tail)}
	p, pipes, err := startPiped(s.forker, s.command(path, args, env))
	if err != nil {
		f := programFailure(s.nodeName(), err)
		s.verdict.code = int32(startCode(err))
		s.end(f, false)
		return
	}
	m.p = p
	s.main = m
	s.feed(stdin, pipes[0])
	m.pumps = []*pump{
		startPump(&s.wg, s.sink(), pipes[1], wire.MPIRunRank, s.mainStdout(), nil),
		startPump(&s.wg, s.sink(), pipes[2], wire.MPIRunRank, wire.Stream_STREAM_STDERR, m.tail),
	}
	s.saidStarted(mpirunRank, p.Pid())
	s.wg.Go(func() {
		st, err := p.Wait()
		if err != nil {
			st = proc.Status{ExitCode: exitGangway, End: time.Now()}
		}
		s.post(func() { s.mainEnded(st) })
	})
}

// feed gives w the launcher's stdin, or nothing.
func (s *shim) feed(stdin bool, w *os.File) {
	if !stdin {
		_ = w.Close()
		return
	}
	s.wg.Go(func() { s.in.run(w) })
}

func (s *shim) saidStarted(rank uint32, pid int) {
	s.box.say(&wire.FromShim{M: &wire.FromShim_Started{Started: &wire.Started{Rank: rank, Pid: int64(pid), UnixNs: time.Now().UnixNano()}}})
}

// launchDeadline ends a launch that has not come about.
func (s *shim) launchDeadline(limit time.Duration) {
	if s.ending || s.finished || !s.primary() || s.via == viaPrimary {
		return
	}
	if s.mesh != nil && !s.gang.joined {
		return // Join's deadline is the same, and it knows who did not come
	}
	var missing []string
	for _, p := range s.peers {
		if p.GetRanks() > 0 && !s.gang.registered[p.GetIndex()] {
			missing = append(missing, p.GetName())
		}
	}
	if len(missing) == 0 {
		return
	}
	f := failed(wire.FailureCode_FAILURE_LAUNCH_DEADLINE, strings.Join(missing, ","),
		fmt.Sprintf("%v after the launch not all ranks had started on %s", limit, strings.Join(missing, ", ")),
		"look whether these nodes reach "+s.nodeName()+" ("+s.a.GetAddress()+") by TCP, and the other way round")
	if s.main != nil {
		if l := s.main.tail.lines(); l != "" {
			f.Message += "\n" + l
		}
	}
	s.end(f, false)
}
