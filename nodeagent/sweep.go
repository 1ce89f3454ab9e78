package nodeagent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
)

// order is a start that waits. A sweep ends every child of the agent but the
// shims that were there when it began, so none is started meanwhile.
type order struct {
	s  *session
	as *wire.Assignment
}

// release drops the held starts of a cluster that which names.
func (a *agent) release(cluster string, which func(id string) bool) {
	a.held = slices.DeleteFunc(a.held, func(o order) bool { return o.s.cluster == cluster && which(o.as.GetId()) })
}

// sweptUp ends a sweep's ban on starts.
func (a *agent) sweptUp() {
	if a.sweeping--; a.sweeping > 0 {
		return
	}
	held := a.held
	a.held = nil
	for _, o := range held {
		if _, ok := a.sessions[o.s]; ok && a.shims[o.as.GetId()] == nil {
			a.start(o.s, o.as)
		}
	}
	a.gpus.startHeld()
}

// spared are the children that a sweep leaves alone.
func (a *agent) spared() []int {
	out := append(slices.Clone(a.bystanders), a.gpus.pids...)
	if sp := a.spares.ready; sp != nil {
		out = append(out, sp.p.Pid())
	}
	for _, sh := range a.shims {
		if !sh.exited && sh.e.PID > 0 {
			out = append(out, sh.e.PID)
		}
	}
	return out
}

// exited clears up after a shim's process and reports it. clean: it ended by
// itself, so it has left nothing and no sweep over /proc is due.
func (a *agent) exited(sh *shim, clean bool, how string) {
	if a.shims[sh.e.ID] != sh || sh.exited {
		return
	}
	sh.exited = true
	a.disturbed()
	sh.disconnect()
	e, spoolDir, told := sh.e, a.dir.spoolOf(sh.e), sh.orders[3].GetWork()
	var spared []int
	if !clean {
		a.sweeping++
		spared = a.spared()
	}
	a.wg.Go(func() {
		var serr, ferr error
		if !clean {
			// What a killed shim left must be gone before its cores go to others.
			serr = sweep(e.marker(), spared)
			_ = os.RemoveAll(e.NodeDir)
			_ = proc.RemoveSharedMemory(proc.SharedMemoryDir(e.NodeDir))
			_ = proc.RemoveGroups(filepath.Base(e.NodeDir))
			removeCrewGroups(e)
			ferr = a.dir.discardScratch(e)
		}
		recs, err := a.readSpool(spoolDir, e.ID)
		res, spooled := lastResult(recs), len(recs) > 0
		var blocks []*wire.Block
		if e.Crew > 0 && err == nil && !clean {
			blocks, e.Returned, err = recoverCrew(recs, told, e.Returned, res == nil)
		}
		a.retain(e)
		a.post(func(a *agent) {
			// A shim writes that it starts its program before it says so.
			if ran := sh.phase == wire.Phase_PHASE_RUNNING || sh.phase == wire.Phase_PHASE_ENDED; err == nil && ran && !spooled && !clean && !e.Session {
				err = errors.New("its spool is gone")
			}
			if err := errors.Join(err, serr, ferr); err != nil {
				a.cfg.Log.Error("clearing up after a shim", "id", e.ID, "err", err)
			}
			// What it told may not have reached the launcher, which was away. One
			// that ended by itself was told to forget, or nobody waits for it.
			if res == nil && !clean && !e.Session {
				res = sh.seen
			}
			if res == nil {
				sh.unread = err
			}
			sh.cleared, sh.result, sh.how, sh.blocks = time.Now(), res, how, blocks
			if len(e.Returned) > len(sh.e.Returned) {
				sh.e.Returned = e.Returned
				if err := a.dir.save(sh.e); err != nil {
					a.cfg.Log.Warn("what a dead crew gives back is not in the registry", "id", e.ID, "err", err)
				}
			}
			sh.ack(sh.acked)
			if serr != nil {
				sh.how += "; " + serr.Error()
			}
			a.report(sh)
			if !clean {
				a.sweptUp()
			}
		})
	})
}

// report says what became of a shim that has ended, and forgets it as soon as
// its result is the launcher's or there is none.
func (a *agent) report(sh *shim) {
	s := a.of(sh.e.Cluster)
	if !sh.forget && !sh.removed {
		if s == nil && (sh.result != nil || len(sh.blocks) > 0 || !sh.e.Session) {
			return // for the launcher's return
		}
		sh.tellBlocks(s)
		if sh.result != nil {
			s.send(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{
				Id: sh.e.ID, Name: sh.name(), M: &wire.FromShim_Result{Result: sh.result}}}})
			return // until it is told to forget it
		}
		if len(sh.blocks) > 0 {
			return // until the last is acknowledged
		}
	}
	_ = spool.Remove(a.dir.spoolOf(sh.e), sh.e.ID)
	_ = os.Remove(a.dir.registry(sh.e.ID))
	delete(a.shims, sh.e.ID)
	if s != nil {
		gone := &wire.ShimGone{Id: sh.e.ID, Name: sh.name(), Lost: sh.result == nil && sh.seen == nil && !sh.forget, Reason: "shim ended: " + sh.how}
		if gone.GetLost() && sh.unread != nil {
			gone.Unread = true
			gone.Reason += "; its result can't be read: " + sh.unread.Error()
		}
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_ShimGone{ShimGone: gone}})
	}
	a.claimsChanged(sh.e.Cluster)
}

// expire forgets the results of session jobs whose launcher has not come back.
func (a *agent) expire(now time.Time) {
	for _, sh := range a.sorted() {
		if sh.e.Session && !sh.cleared.IsZero() && now.Sub(sh.cleared) >= silence && a.of(sh.e.Cluster) == nil {
			sh.removed = true
			a.report(sh)
		}
	}
}

// sweepWait is how long killed processes may take to end.
const sweepWait = 5 * time.Second

// sweep ends what a killed shim left: whatever carries its marker, and what has
// become the agent's child, for a program may clear its environment but not
// choose its parent. Processes that hang in the kernel are an error.
func sweep(marker string, spared []int) error {
	byMark, err1 := proc.KillByEnv(marker, sweepWait)
	adopted, err2 := proc.KillTree(os.Getpid(), sweepWait, spared...)
	left := append(byMark, adopted...)
	if len(left) > 0 {
		return errors.Join(err1, err2, fmt.Errorf("processes %v can't be ended, they hang in the kernel", left))
	}
	return errors.Join(err1, err2)
}

// Reading a spool is tried again for as long as the node may only be short of
// descriptors or memory.
const (
	readTries = 5
	readPause = 200 * time.Millisecond
)

// readSpool returns the records in a shim's spool.
func (a *agent) readSpool(dir, id string) ([]*wire.Frame, error) {
	for try := 1; ; try++ {
		recs, err := spool.Read(dir, id)
		if err == nil {
			return recs, nil
		}
		if try == readTries {
			return nil, err
		}
		select {
		case <-a.done:
			return nil, err
		case <-time.After(readPause):
		}
	}
}

// lastResult is the last result among records, nil when there is none.
func lastResult(recs []*wire.Frame) *wire.Result {
	for i := len(recs) - 1; i >= 0; i-- {
		if r := recs[i].GetFrom().GetResult(); r != nil {
			return r
		}
	}
	return nil
}
