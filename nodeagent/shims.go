package nodeagent

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
)

// shim is the agent's end of one shim. Its fields belong to the agent's run.
type shim struct {
	e       entry
	phase   wire.Phase
	conn    net.Conn
	out     *link.Queue[*wire.Frame]
	gen     int             // counts connections: news of an older one is dropped
	dialing bool            // a fresh connection is being made
	pending []*wire.Frame   // to be sent on it
	orders  [4]*wire.ToShim // the last of each kind, see orderOf
	blocks  []*wire.Block   // of a dead crew, which the launcher has not acknowledged
	acked   uint64          // number of the last block that it has
	seen    *wire.Result    // as it told it; nil: not yet
	removed bool            // the launcher wants it gone
	forget  bool            // the launcher has its result
	exited  bool
	cleared time.Time // when nothing of it was left but its spool; zero: not yet
	result  *wire.Result
	unread  error  // why there may be a result that can't be read
	how     string // it ended
}

func (sh *shim) name() *wire.AttemptName {
	return &wire.AttemptName{
		Cluster: sh.e.Cluster, TaskUid: sh.e.TaskUID, Range: &wire.Range{Lo: sh.e.Lo, Hi: sh.e.Hi},
		Attempt: sh.e.Attempt, Epoch: sh.e.Epoch,
	}
}

// orderOf is the place among a shim's orders of what it must be told for certain:
// it is said again on each new connection, for what was written to a broken one
// may not have arrived. Shims take a second one for the first. -1: no order.
func orderOf(m *wire.ToShim) int {
	switch {
	case m.GetLaunch() != nil:
		return 0
	case m.GetEnd() != nil:
		return 1
	case m.GetForget() != nil: // one that runs on is ended before
		return 2
	case m.GetWork() != nil:
		return 3
	}
	return -1
}

func (sh *shim) send(m *wire.ToShim) {
	if m.GetForget() != nil {
		sh.forget = true
	}
	sh.ack(m.GetBlockAck().GetSeq())
	kind := orderOf(m)
	if kind >= 0 {
		sh.orders[kind] = m
	}
	f := &wire.Frame{M: &wire.Frame_To{To: m}}
	switch {
	case sh.exited:
	case !sh.dialing && sh.out != nil:
		sh.out.Put(f)
	case m.GetLease() != nil: // it would renew from when it comes; there are more
	case kind >= 0: // repeat says it
	default: // the connection that is there may be another agent's dead one
		sh.pending = append(sh.pending, f)
	}
}

// repeat says what the shim has been told and may not have heard.
func (sh *shim) repeat() {
	for _, m := range sh.orders {
		if m != nil {
			sh.out.Put(&wire.Frame{M: &wire.Frame_To{To: m}})
		}
	}
	for _, f := range sh.pending {
		sh.out.Put(f)
	}
	sh.pending = nil
}

func (sh *shim) lease(d time.Duration) {
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_Lease{Lease: &wire.Lease{Ms: uint64(d.Milliseconds())}}})
}

// end ends a shim that nobody waits for any more.
func (a *agent) end(sh *shim, reason string) {
	sh.removed = true
	if !sh.cleared.IsZero() {
		a.report(sh)
		return
	}
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_End{End: &wire.End{Reason: reason, Now: true}}})
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
}

func (sh *shim) disconnect() {
	if sh.conn != nil {
		sh.out.Close()
		_ = sh.conn.Close()
		sh.conn, sh.out = nil, nil
	}
}

func (a *agent) sorted() []*shim {
	out := make([]*shim, 0, len(a.shims))
	for _, sh := range a.shims {
		out = append(out, sh)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].e.ID < out[j].e.ID })
	return out
}

func (a *agent) foreign(cluster string) []*wire.Claim {
	var out []*wire.Claim
	for _, sh := range a.sorted() {
		if sh.e.Cluster != cluster {
			out = append(out, &wire.Claim{Id: sh.e.ID, Cluster: sh.e.Cluster, Who: sh.e.Who,
				Cpus: sh.e.CPUs, MemoryBytes: sh.e.Memory, Gpus: sh.e.GPUs, Shared: sh.e.Shared})
		}
	}
	return out
}

// desired brings the node to what the launcher wants.
func (a *agent) desired(s *session, d *wire.Desired) {
	keep := map[string]bool{}
	for _, as := range d.GetSet() {
		keep[as.GetId()] = true
	}
	a.release(s.cluster, func(id string) bool { return d.GetFull() || keep[id] || slices.Contains(d.GetRemove(), id) })
	for _, as := range d.GetSet() {
		// Nothing begins after a goodbye, and nothing for a second time: the
		// launcher may not have read yet that what it was shown has ended.
		if id := as.GetId(); a.shims[id] == nil && !s.bye && !s.shown[id] {
			a.start(s, as)
		}
	}
	gone := d.GetRemove()
	for _, id := range gone { // it knows now, and no id is used again
		delete(s.shown, id)
	}
	if d.GetFull() {
		gone = nil
		for _, sh := range a.sorted() {
			if sh.e.Cluster == s.cluster && !keep[sh.e.ID] {
				gone = append(gone, sh.e.ID)
			}
		}
	}
	for _, id := range gone {
		if sh := a.shims[id]; sh != nil && sh.e.Cluster == s.cluster {
			a.end(sh, "no longer wanted by its launcher")
		}
	}
}

// start makes a shim for an assignment, or says why not. Nothing of a refused
// one is left.
func (a *agent) start(s *session, as *wire.Assignment) {
	if a.sweeping > 0 {
		a.held = append(a.held, order{s, as})
		return
	}
	refuse := func(code wire.ErrorCode, err error) {
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_Error{Error: &wire.AgentError{
			Id: as.GetId(), Name: as.GetName(), Code: code, Message: err.Error()}}})
	}
	if err := checkAssignment(s, as); err != nil {
		refuse(wire.ErrorCode_ERROR_SPEC, err)
		return
	}
	// The order's epoch is the session's; the attempt may have been placed by an
	// earlier launcher, which had no time to send it.
	if s.epoch < a.epochs[s.cluster] || as.GetName().GetEpoch() > s.epoch {
		refuse(wire.ErrorCode_ERROR_STALE_EPOCH, fmt.Errorf("attempt of epoch %d from a launcher of epoch %d, and this node has seen %d",
			as.GetName().GetEpoch(), s.epoch, a.epochs[s.cluster]))
		return
	}
	cpus, err := topology.ParseCPUSet(as.GetCpus())
	if err != nil {
		refuse(wire.ErrorCode_ERROR_SPEC, err)
		return
	}
	if name, ok := a.gpus.left(as.GetGpus()); ok {
		// The launcher hears of it, or has: what it placed crossed that on the way.
		refuse(wire.ErrorCode_ERROR_CLAIMED, fmt.Errorf("%s is no longer on this node, or has a problem", name))
		return
	}
	for _, sh := range a.sorted() {
		if sh.e.Cluster == s.cluster {
			continue
		}
		for _, g := range as.GetGpus() {
			if slices.Contains(sh.e.GPUs, g) {
				refuse(wire.ErrorCode_ERROR_CLAIMED, fmt.Errorf("GPU %d is held by %s", g, sh.e.Who))
				return
			}
		}
		if sh.e.Shared && as.GetShared() {
			continue
		}
		held, err := topology.ParseCPUSet(sh.e.CPUs)
		if err != nil {
			continue // it was checked when it was started
		}
		if both := held.Intersect(cpus); !both.IsEmpty() {
			refuse(wire.ErrorCode_ERROR_CLAIMED, fmt.Errorf("cores %s are held by %s", both, sh.e.Who))
			return
		}
	}
	e := entry{
		ID: as.GetId(), Cluster: s.cluster, TaskUID: as.GetName().GetTaskUid(),
		Lo: as.GetName().GetRange().GetLo(), Hi: as.GetName().GetRange().GetHi(),
		Attempt: as.GetName().GetAttempt(), Epoch: as.GetName().GetEpoch(),
		NodeDir: as.GetNodeDir(), CPUs: as.GetCpus(), Memory: as.GetMemoryBytes(), Shared: as.GetShared(), GPUs: as.GetGpus(),
		Who: fmt.Sprintf("job %s task %s of %s", as.GetJob(), as.GetTask(), s.who), Session: as.GetSession(), Leased: as.GetLeased(),
	}
	e.Crew = int(as.GetCrew().GetSlots())
	if !as.GetPlanOnly() {
		e.TaskDir, e.Retention = as.GetTaskDir(), retentionOf(as)
	}
	acc, err := a.accountFor(as.GetUser())
	if err != nil {
		refuse(wire.ErrorCode_ERROR_SPEC, err)
		return
	}
	sh, err := a.spawn(e, s, as, acc)
	if err != nil {
		_ = os.Remove(a.dir.registry(e.ID))
		a.retain(e)
		refuse(wire.ErrorCode_ERROR_NODE, err)
		return
	}
	a.shims[e.ID] = sh
	a.disturbed()
	s.shown[e.ID] = true
	a.claimsChanged(s.cluster)
}

// checkAssignment refuses what must not become a path or a process.
func checkAssignment(s *session, as *wire.Assignment) error {
	id := as.GetId()
	switch {
	case id == "" || len(id) > wire.IDLimit || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return fmt.Errorf("assignment id %q: want 1 to %d letters, digits, - or _", id, wire.IDLimit)
	case as.GetName().GetCluster() != s.cluster:
		return fmt.Errorf("assignment %s is of cluster %q, the session of %q", id, as.GetName().GetCluster(), s.cluster)
	case !filepath.IsAbs(as.GetNodeDir()) || filepath.Base(as.GetNodeDir()) != "gangway-"+id:
		return fmt.Errorf("assignment %s: node directory %q must be an absolute path that ends in gangway-%s", id, as.GetNodeDir(), id)
	case !validTaskDir(as.GetTaskDir()):
		return fmt.Errorf("assignment %s: task directory %q must be a relative path without . and ..", id, as.GetTaskDir())
	}
	return nil
}

// spawn registers a shim, starts it and says its assignment. The entry is on
// disk before the process is, and its pid before the assignment is said: a shim
// is never unknown, and one without a pid was told nothing and ends by itself.
func (a *agent) spawn(e entry, s *session, as *wire.Assignment, acc *account) (*shim, error) {
	start := &wire.ShimStart{
		Assignment: as, NodeJson: a.hello.GetNodeJson(), Executable: a.cfg.Executable,
		SpoolDir: a.dir.spool(), NodeName: as.GetNode(), LeaseMs: uint64(s.lease.Milliseconds()),
	}
	cmd := proc.Cmd{Env: os.Environ()}
	logPath := ""
	if acc != nil {
		u, err := a.dir.makeUser(acc)
		if err == nil {
			start.Executable, err = a.forUsers()
		}
		if err != nil {
			return nil, err
		}
		cmd.User, cmd.Env = &acc.cred, acc.environ()
		logPath, start.SpoolDir, e.Spool = u.log, u.spool, u.spool
	}
	if as.GetTaskDir() != "" && !as.GetPlanOnly() {
		if err := a.noteFolder(s.cluster, as.GetTaskDir()); err != nil {
			return nil, err
		}
		p, err := a.dir.makeTask(as.GetTaskDir(), acc)
		if err != nil {
			return nil, diskHint(err, a.dir.tasks())
		}
		start.TaskRoot, start.TaskPath = a.dir.tasks(), p
	}
	if acc == nil {
		if sp := a.takeSpare(); sp != nil {
			return a.employ(sp, e, start)
		}
	}
	if err := a.dir.save(e); err != nil {
		return nil, diskHint(fmt.Errorf("registering the shim: %w", err), string(a.dir))
	}
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	openLog := a.dir.openLog
	if acc != nil {
		openLog = func() (*os.File, error) { return os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) }
	}
	logf, err := openLog()
	if err != nil {
		_ = ours.Close()
		_ = theirs.Close()
		return nil, err
	}
	defer logf.Close()
	cmd.Path, cmd.Args, cmd.Dir = start.Executable, []string{start.Executable, "shim"}, "/"
	cmd.Env = append(cmd.Env, e.marker())
	cmd.Stdout, cmd.Stderr, cmd.Extra, cmd.NewSession = logf, logf, []*os.File{theirs}, true
	p, err := a.forker.Start(cmd)
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("starting the shim: %w", err)
	}
	e.PID, e.Start = p.Pid(), proc.StartTime(p.Pid())
	sh := &shim{e: e, phase: wire.Phase_PHASE_PREPARING}
	// Nobody waits for this goroutine: shims outlive the agent.
	go func() {
		st, err := p.Wait()
		clean := err == nil && st.ExitCode == 0 && st.Signal == 0
		a.post(func(a *agent) { a.exited(sh, clean, howEnded(st)) })
	}()
	if err := a.dir.save(e); err != nil {
		_ = ours.Close() // at which it ends
		return nil, diskHint(fmt.Errorf("registering the shim: %w", err), string(a.dir))
	}
	sh.attach(a, ours)
	sh.out.Put(&wire.Frame{M: &wire.Frame_Start{Start: start}})
	return sh, nil
}

func howEnded(st proc.Status) string {
	return fmt.Sprintf("exit %d, signal %d", st.ExitCode, st.Signal)
}

// employ makes a spare the shim of an assignment, by the rule of spawn: on disk
// with its pid, then told.
func (a *agent) employ(sp *spare, e entry, start *wire.ShimStart) (*shim, error) {
	e.PID, e.Start = sp.p.Pid(), sp.start
	if err := a.dir.save(e); err != nil {
		sp.drop()
		return nil, diskHint(fmt.Errorf("registering the shim: %w", err), string(a.dir))
	}
	sh := &shim{e: e, phase: wire.Phase_PHASE_PREPARING}
	sp.taken = sh
	sh.attach(a, sp.conn)
	sh.out.Put(&wire.Frame{M: &wire.Frame_Start{Start: start}})
	return sh, nil
}

func diskHint(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: the file system of %s is full; free space there or give --tmpdir another local directory", err, dir)
	}
	return err
}

// attach makes conn the shim's connection.
func (sh *shim) attach(a *agent, conn net.Conn) {
	sh.disconnect()
	sh.gen++
	sh.conn = conn
	sh.out = link.NewQueue[*wire.Frame]()
	id, gen, out := sh.e.ID, sh.gen, sh.out
	a.wg.Go(func() {
		for {
			f, ok := out.Take()
			if !ok || link.WriteFrame(conn, f) != nil {
				return
			}
		}
	})
	a.wg.Go(func() {
		r := bufio.NewReader(conn)
		for {
			f, err := link.ReadFrame(r)
			if err != nil {
				a.post(func(a *agent) { a.shimClosed(id, gen) })
				return
			}
			a.post(func(a *agent) { a.shimFrame(id, gen, f) })
		}
	})
}

func (a *agent) shimFrame(id string, gen int, f *wire.Frame) {
	sh := a.shims[id]
	if sh == nil || sh.gen != gen {
		return
	}
	if st := f.GetState(); st != nil {
		sh.phase = st.GetPhase()
		return
	}
	if f.GetTo().GetForget() != nil { // its last word: nothing but its process is left, and that ends
		a.exited(sh, true, howEnded(proc.Status{}))
		return
	}
	m := f.GetFrom()
	if m == nil {
		return
	}
	if m.GetResult() != nil {
		sh.seen = m.GetResult()
		sh.phase = wire.Phase_PHASE_ENDED
	}
	// A shim runs as its user, who can speak in its place: of itself alone.
	m.Id, m.Name = id, sh.name()
	if s := a.of(sh.e.Cluster); s != nil {
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: m}})
	}
}

func (a *agent) shimClosed(id string, gen int) {
	sh := a.shims[id]
	if sh == nil || sh.gen != gen {
		return
	}
	sh.disconnect()
}
