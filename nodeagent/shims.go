package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
)

// shim is the agent's end of one shim. Its fields belong to the agent's run.
type shim struct {
	e        entry
	phase    wire.Phase
	conn     net.Conn
	out      *outbox[*wire.Frame]
	gen      int  // counts connections: news of an older one is dropped
	ended    bool // its result was seen
	removed  bool // the launcher wants it gone
	forget   bool // the launcher has its result
	exited   bool
	leasedAt time.Time
}

func (sh *shim) name() *wire.AttemptName {
	return &wire.AttemptName{
		Cluster: sh.e.Cluster, TaskUid: sh.e.TaskUID, Range: &wire.Range{Lo: sh.e.Lo, Hi: sh.e.Hi},
		Attempt: sh.e.Attempt, Epoch: sh.e.Epoch,
	}
}

func (sh *shim) send(m *wire.ToShim) {
	if m.GetForget() != nil {
		sh.forget = true
	}
	if sh.out != nil {
		sh.out.put(&wire.Frame{M: &wire.Frame_To{To: m}})
	}
}

func (sh *shim) lease(d time.Duration) {
	sh.leasedAt = time.Now()
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_Lease{Lease: &wire.Lease{Ms: uint64(d.Milliseconds())}}})
}

func (sh *shim) end(reason string) {
	sh.removed = true
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_End{End: &wire.End{Reason: reason, Now: true}}})
	sh.send(&wire.ToShim{Id: sh.e.ID, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
}

func (sh *shim) disconnect() {
	if sh.conn != nil {
		sh.out.close()
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
				Cpus: sh.e.CPUs, MemoryBytes: sh.e.Memory, Shared: sh.e.Shared})
		}
	}
	return out
}

// desired brings the node to what the launcher wants.
func (a *agent) desired(s *session, d *wire.Desired) {
	keep := map[string]bool{}
	for _, as := range d.GetSet() {
		keep[as.GetId()] = true
		if a.shims[as.GetId()] == nil {
			a.start(s, as)
		}
	}
	gone := d.GetRemove()
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
			sh.end("no longer wanted by its launcher")
		}
	}
}

// start makes a shim for an assignment, or says why not. Nothing of a refused
// one is left.
func (a *agent) start(s *session, as *wire.Assignment) {
	refuse := func(code wire.ErrorCode, err error) {
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_Error{Error: &wire.AgentError{
			Id: as.GetId(), Name: as.GetName(), Code: code, Message: err.Error()}}})
	}
	if err := checkAssignment(s, as); err != nil {
		refuse(wire.ErrorCode_ERROR_SPEC, err)
		return
	}
	if as.GetName().GetEpoch() < a.epochs[s.cluster] {
		refuse(wire.ErrorCode_ERROR_STALE_EPOCH, fmt.Errorf("epoch %d is over, this node has seen %d", as.GetName().GetEpoch(), a.epochs[s.cluster]))
		return
	}
	cpus, err := topology.ParseCPUSet(as.GetCpus())
	if err != nil {
		refuse(wire.ErrorCode_ERROR_SPEC, err)
		return
	}
	for _, sh := range a.sorted() {
		if sh.e.Cluster == s.cluster || (sh.e.Shared && as.GetShared()) {
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
		NodeDir: as.GetNodeDir(), CPUs: as.GetCpus(), Memory: as.GetMemoryBytes(), Shared: as.GetShared(),
		Who: fmt.Sprintf("job %s task %s of %s", as.GetJob(), as.GetTask(), s.who), Session: as.GetSession(),
	}
	sh, err := a.spawn(e, s, as)
	if err != nil {
		_ = os.Remove(a.dir.registry(e.ID))
		refuse(wire.ErrorCode_ERROR_NODE, err)
		return
	}
	a.shims[e.ID] = sh
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
	}
	return nil
}

// spawn registers a shim, starts it and says its assignment. The entry is on
// disk before the process is: a shim is never unknown.
func (a *agent) spawn(e entry, s *session, as *wire.Assignment) (*shim, error) {
	if err := a.dir.save(e); err != nil {
		return nil, diskHint(fmt.Errorf("registering the shim: %w", err), string(a.dir))
	}
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	logf, err := os.OpenFile(a.dir.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		_ = ours.Close()
		_ = theirs.Close()
		return nil, diskHint(fmt.Errorf("the agent's log: %w", err), string(a.dir))
	}
	defer logf.Close()
	p, err := proc.Start(proc.Cmd{
		Path: a.cfg.Executable, Args: []string{a.cfg.Executable, "shim"},
		Env:    append(os.Environ(), "GANGWAY_ID="+e.ID),
		Stderr: logf, Stdout: logf, Extra: []*os.File{theirs}, NewSession: true, Dir: "/",
	})
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("starting the shim: %w", err)
	}
	e.PID = p.Pid()
	sh := &shim{e: e, phase: wire.Phase_PHASE_PREPARING}
	a.wg.Go(func() {
		st, err := p.Wait()
		clean := err == nil && st.ExitCode == 0 && st.Signal == 0
		a.post(func(a *agent) { a.exited(e.ID, clean, fmt.Sprintf("exit %d, signal %d", st.ExitCode, st.Signal)) })
	})
	sh.attach(a, ours)
	sh.out.put(&wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{
		Assignment: as, NodeJson: a.hello.GetNodeJson(), Executable: a.cfg.Executable,
		SpoolDir: a.dir.spool(), NodeName: as.GetNode(), LeaseMs: uint64(s.lease.Milliseconds()),
	}}})
	if err := a.dir.save(e); err != nil {
		a.cfg.Log.Warn("the shim's pid is not in the registry", "id", e.ID, "err", err)
	}
	return sh, nil
}

func diskHint(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: the file system of %s is full; free space there or set GANGWAY_TMPDIR to another local directory", err, dir)
	}
	return err
}

// attach makes conn the shim's connection.
func (sh *shim) attach(a *agent, conn net.Conn) {
	sh.disconnect()
	sh.gen++
	sh.conn = conn
	sh.out = newOutbox[*wire.Frame]()
	id, gen, out := sh.e.ID, sh.gen, sh.out
	a.wg.Go(func() {
		for {
			f, ok := out.take()
			if !ok || link.WriteFrame(conn, f) != nil {
				return
			}
		}
	})
	a.wg.Go(func() {
		for {
			f, err := link.ReadFrame(conn)
			if err != nil {
				a.post(func(a *agent) { a.shimClosed(id, gen) })
				return
			}
			a.post(func(a *agent) { a.shimFrame(id, gen, f) })
		}
	})
}

// reconnect opens a fresh connection, on which the shim repeats everything
// that is not acknowledged.
func (sh *shim) reconnect(a *agent) {
	c, err := net.DialTimeout("unix", filepath.Join(sh.e.NodeDir, "shim.sock"), 2*time.Second)
	if err != nil {
		a.cfg.Log.Info("a shim does not answer", "id", sh.e.ID, "err", err)
		return
	}
	sh.attach(a, c)
}

// adopt takes over the shims that an earlier agent started.
func (a *agent) adopt(ctx context.Context) {
	entries, err := a.dir.entries()
	if err != nil {
		a.cfg.Log.Error("reading the registry", "err", err)
	}
	for _, e := range entries {
		sh := &shim{e: e, phase: wire.Phase_PHASE_RUNNING}
		a.shims[e.ID] = sh
		if e.Epoch > a.epochs[e.Cluster] {
			a.epochs[e.Cluster] = e.Epoch
		}
		sh.reconnect(a)
		a.wg.Go(func() { a.watch(ctx, e) })
	}
}

// watch waits for the end of a shim that is not our child.
func (a *agent) watch(ctx context.Context, e entry) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for proc.Alive(e.PID, "GANGWAY_ID="+e.ID) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	a.post(func(a *agent) { a.exited(e.ID, false, "gone") })
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
	m := f.GetFrom()
	if m == nil {
		return
	}
	if m.GetResult() != nil {
		sh.ended = true
		sh.phase = wire.Phase_PHASE_ENDED
	}
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

// exited clears up after a shim's process and reports it. clean: it ended by
// itself, so it has left nothing and no sweep over /proc is due.
func (a *agent) exited(id string, clean bool, how string) {
	sh := a.shims[id]
	if sh == nil || sh.exited {
		return
	}
	sh.exited = true
	sh.disconnect()
	cluster, nodeDir, name := sh.e.Cluster, sh.e.NodeDir, sh.name()
	// What a killed shim left must be gone before its cores go to others.
	spoolDir := a.dir.spool()
	a.wg.Go(func() {
		left := 0
		if !clean {
			left = sweep(id)
			_ = os.RemoveAll(nodeDir)
		}
		res, err := lastResult(spoolDir, id)
		a.post(func(a *agent) {
			if err != nil {
				a.cfg.Log.Error("reading the spool of a lost shim", "id", id, "err", err)
			}
			s := a.of(cluster)
			if res != nil && !sh.ended && s != nil {
				s.send(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{
					Id: id, Name: name, M: &wire.FromShim_Result{Result: res}}}})
			}
			lost := res == nil && !sh.ended && !sh.forget
			if s == nil && !sh.forget && !sh.removed && !sh.e.Session {
				return // kept for the launcher's return: its result is still in the spool
			}
			_ = spool.Remove(spoolDir, id)
			_ = os.Remove(a.dir.registry(id))
			delete(a.shims, id)
			if s != nil {
				s.send(&wire.AgentMessage{M: &wire.AgentMessage_ShimGone{ShimGone: &wire.ShimGone{
					Id: id, Name: name, Lost: lost, Reason: fmt.Sprintf("shim ended: %s; %d processes swept", how, left)}}})
			}
			a.claimsChanged(cluster)
		})
	})
}

// sweep kills whatever still carries the assignment's marker and returns how
// many it found.
func sweep(id string) int {
	n := 0
	for range 50 {
		pids := proc.ByEnv("GANGWAY_ID=" + id)
		if len(pids) == 0 {
			return n
		}
		n += len(pids)
		proc.Kill(pids)
		time.Sleep(2 * time.Millisecond)
	}
	return n
}

// lastResult is the result in a shim's spool, nil when there is none.
func lastResult(dir, id string) (*wire.Result, error) {
	recs, err := spool.Read(dir, id)
	if err != nil {
		return nil, err
	}
	for i := len(recs) - 1; i >= 0; i-- {
		if r := recs[i].GetFrom().GetResult(); r != nil {
			return r, nil
		}
	}
	return nil, nil
}
