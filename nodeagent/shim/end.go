package shim

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

const (
	// lastWords is how long killed ranks may take to be reported by their
	// wrappers, before the wrappers are killed too.
	lastWords = 150 * time.Millisecond
	// sweepLimit is how long killing everything may take; what lives on hangs
	// in the kernel.
	sweepLimit = 5 * time.Second
	// doneLimit is how long the primary waits for its members' last reports.
	doneLimit = 3 * time.Second
	// stuckLimit is how long mpirun may outlive its ranks.
	stuckLimit = 10 * time.Second
	// killGrace is between SIGTERM and SIGKILL if the assignment does not say.
	killGrace = 5 * time.Second
)

// verdict is the gang's exit status, on the primary.
type verdict struct {
	code, signal int32
	first        int32 // rank that failed first; -1: none
	node         string
	spawned      string // process that the rank spawned, which failed in its place; "": itself
}

// end ends the attempt for a cause; the first one counts. With grace the
// programs get SIGTERM and some time, without it everything is killed at once.
func (s *shim) end(f *wire.Failure, grace bool) {
	if s.forget {
		s.box.close()
	}
	if s.finished || s.ended {
		return
	}
	if s.ending {
		if !grace && !s.killing && !s.endCrew(f, grace) {
			s.killAll()
		}
		return
	}
	running := s.phase == wire.Phase_PHASE_RUNNING
	s.ending, s.cause = true, f
	s.setPhase(wire.Phase_PHASE_ENDING)
	s.cancel()
	s.tellEnd(f, grace)
	if s.endCrew(f, grace) {
		return
	}
	if !grace || !running {
		s.killAll()
		return
	}
	for _, r := range s.ranks {
		r.termed = !r.ended
	}
	s.signalRanks(int(syscall.SIGTERM))
	d := time.Duration(s.a.GetKillGraceMs()) * time.Millisecond
	if d <= 0 {
		d = killGrace
	}
	s.after(d, s.killAll)
	s.checkLocal()
}

// endWell ends an attempt of which all ranks have ended well. What they left
// behind may still write for a moment.
func (s *shim) endWell() {
	if s.ending || s.finished {
		return
	}
	s.ending = true
	s.setPhase(wire.Phase_PHASE_ENDING)
	if s.primary() {
		s.tellEnd(nil, false)
	}
	drained := make(chan struct{})
	s.wg.Go(func() {
		s.box.drained()
		close(drained)
	})
	s.wg.Go(func() {
		t := time.NewTimer(quiet)
		defer t.Stop()
		select {
		case <-drained:
		case <-t.C:
		case <-s.done:
		}
		s.post(s.sweep)
	})
}

// killAll kills the programs first, so that their wrappers can tell, then
// everything.
func (s *shim) killAll() {
	if s.killing || s.finished {
		return
	}
	s.killing = true
	s.signalRanks(int(syscall.SIGKILL))
	if s.allEnded() {
		s.sweep()
		return
	}
	s.after(lastWords, s.sweep)
}

// allEnded says whether nothing more will be heard of this node's ranks.
func (s *shim) allEnded() bool {
	for _, r := range s.ranks {
		if r.registered && !r.ended {
			return false
		}
	}
	return true
}

// checkLocal goes on with an end when this node's ranks have ended.
func (s *shim) checkLocal() {
	switch {
	case !s.ending || !s.allEnded():
	case s.swept:
		s.finish()
	case s.killing:
		s.sweep()
	case s.cause != nil && (s.main == nil || s.main.ended || s.via == viaMPIRun):
		s.killAll() // the grace was not needed
	}
}

// sweep ends every process below this one, whatever it is.
func (s *shim) sweep() {
	if s.lingered {
		return
	}
	s.lingered = true
	s.wg.Go(func() {
		left, err := proc.KillTree(os.Getpid(), sweepLimit)
		s.post(func() {
			if err != nil || len(left) > 0 {
				s.notice(true, "%s: processes %v could not be ended: %v", s.nodeName(), left, err)
			}
			s.sweptUp()
		})
	})
}

func (s *shim) sweptUp() {
	s.swept = true
	s.killing = true // what is told from now on was our doing
	for _, r := range s.ranks {
		if r.registered && !r.ended && r.p == nil {
			s.rankEnded(r, gangExit{signal: int32(syscall.SIGKILL)})
		}
	}
	s.checkLocal()
}

// mainEnded is the end of mpirun or of the primary's command.
func (s *shim) mainEnded(st proc.Status) {
	m := s.main
	m.ended, m.st = true, st
	if s.ending {
		s.checkLocal()
		return
	}
	bad := st.ExitCode != 0 || st.Signal != 0
	switch {
	case s.via == viaPrimary && bad:
		s.verdict.code, s.verdict.signal, s.verdict.node = int32(st.ExitCode), int32(st.Signal), s.nodeName()
		s.end(failed(wire.FailureCode_FAILURE_RANK, s.nodeName(), "the command "+howEnded(int32(st.ExitCode), int32(st.Signal)), ""), false)
	case s.via == viaPrimary:
		s.endWell()
	case s.complete():
		s.checkGang()
	case bad:
		// The ranks' own reports may be on their way, and say more.
		s.after(5*failWindow, s.blameMain)
	default:
		s.after(2*time.Second, s.blameMain)
	}
}

// complete says whether the ends of all ranks are known.
func (s *shim) complete() bool { return len(s.gang.exits) == int(s.a.GetTotalRanks()) }

// blameMain ends an attempt whose mpirun has ended though ranks have not, or
// are unheard of.
func (s *shim) blameMain() {
	switch {
	case s.ending || s.finished:
		return
	case len(s.gang.failed) > 0 && s.main.st.Signal == 0:
		s.blameFirst()
		return
	}
	st := s.main.st
	msg := "mpirun " + howEnded(int32(st.ExitCode), int32(st.Signal))
	if n := int(s.a.GetTotalRanks()) - len(s.gang.exits); n > 0 {
		msg += fmt.Sprintf("; %d of %d ranks had not ended or never started", n, s.a.GetTotalRanks())
	}
	if l := s.main.tail.lines(); l != "" {
		msg += "\n" + l
	}
	s.verdict.code, s.verdict.signal = int32(st.ExitCode), int32(st.Signal)
	s.end(failed(wire.FailureCode_FAILURE_MPIRUN, s.nodeName(), msg, ""), false)
}

// checkGang goes on when something of the gang has come to its end: on the
// primary only.
func (s *shim) checkGang() {
	if s.finished {
		s.conclude(false)
		return
	}
	if s.ending || s.via == viaPrimary || !s.complete() || len(s.gang.failed) > 0 {
		return
	}
	switch m := s.main; {
	case m == nil:
		s.endWell()
	case !m.ended:
		s.after(stuckLimit, func() {
			if !m.ended && !s.ending {
				s.notice(true, "mpirun did not end with its ranks and was killed")
				s.endWell()
			}
		})
	case m.st.ExitCode != 0 || m.st.Signal != 0:
		s.blameMain()
	default:
		s.endWell()
	}
}

// blame ends the attempt because of a rank.
func (s *shim) blame(e gangExit) {
	if s.ending {
		return
	}
	node := s.nameOf(e.node)
	s.verdict = verdict{code: e.code, signal: e.signal, first: int32(e.rank), node: node}
	f := failed(wire.FailureCode_FAILURE_RANK, node, fmt.Sprintf("rank %d on %s %s", e.rank, node, howEnded(e.code, e.signal)), "")
	switch {
	case e.oom:
		f.Code = wire.FailureCode_FAILURE_MEMORY
		f.Message = fmt.Sprintf("rank %d on %s was killed because the job reached its memory limit there", e.rank, node)
		f.Hint = "ask for more with --mem-per-rank"
	case e.why != "" && e.code == exitNotFound:
		f.Code, f.Message = wire.FailureCode_FAILURE_NOT_FOUND, e.why
	case e.why != "" && e.code == exitNotExecutable:
		f.Code, f.Message = wire.FailureCode_FAILURE_NOT_EXECUTABLE, e.why
	case e.why != "":
		f.Code, f.Message = wire.FailureCode_FAILURE_INTERNAL, e.why
	}
	s.end(f, false)
}

func howEnded(code, signal int32) string {
	if signal != 0 {
		return fmt.Sprintf("was ended by signal %d (%v)", signal, syscall.Signal(signal))
	}
	return fmt.Sprintf("ended with status %d", code)
}

// finish puts the result together when no process is left.
func (s *shim) finish() {
	if s.finished {
		return
	}
	s.finished = true
	s.in.close()
	s.pmi.hangUp()
	s.spawns.hangUp()
	if s.cause != nil && s.shm != "" { // the result may have to wait, memory need not
		_ = proc.RemoveSharedMemory(s.shm) // whatever stays is told of in the end
	}
	if s.forget {
		s.box.close()
	}
	if s.main != nil {
		for _, p := range s.main.pumps {
			p.hurry()
		}
	}
	for _, r := range s.ranks {
		r.closeOuts()
		for _, p := range r.pumps {
			p.hurry()
		}
	}
	s.wg.Go(func() {
		end := s.box.drained()
		s.post(func() { s.drained(end) })
	})
}

// drained is called when all output of this node is in the outbox.
func (s *shim) drained(end uint64) {
	r := s.part(end)
	if s.gang.done == nil {
		s.gang.done = map[uint32]*wire.Result{}
	}
	s.gang.done[s.a.GetNodeIndex()] = r
	if !s.primary() {
		r.Autopsy = s.memberAutopsy()
		if b, err := marshal(r); err == nil {
			s.tellPrimary(msgDone, b)
		}
		s.record(r)
		return
	}
	s.after(doneLimit, func() { s.conclude(true) })
	s.conclude(false)
}

// part is what this node has to say of its own ranks.
func (s *shim) part(outputEnd uint64) *wire.Result {
	r := &wire.Result{
		Range: s.a.GetName().GetRange(), Failure: s.cause, FirstRank: -1, OutputEnd: outputEnd,
		StartNs: s.started.UnixNano(), EndNs: time.Now().UnixNano(),
	}
	if s.started.IsZero() {
		r.StartNs = r.EndNs
	}
	for _, k := range s.ranks {
		if !k.ended {
			continue
		}
		e := k.exit
		r.Ranks = append(r.Ranks, &wire.RankExit{Rank: e.rank, ExitCode: e.code, Signal: e.signal, KilledByGangway: e.byUs,
			LastStderr: k.tail.lines(), EndNs: e.at.UnixNano(), Phase: e.phase})
		r.MaxRssBytes = max(r.MaxRssBytes, e.rss)
		r.UserUs += e.user
		r.SystemUs += e.system
		if !e.ok() && !e.byUs && r.FirstRank < 0 {
			r.ExitCode, r.Signal, r.FirstRank, r.FirstNode = e.code, e.signal, int32(e.rank), s.nodeName()
		}
	}
	r.Warnings = append(s.task.warnings(s.nodeName()), s.crewWarnings()...)
	if m := s.main; m != nil && m.ended {
		r.MaxRssBytes = max(r.MaxRssBytes, m.st.MaxRSS)
		r.UserUs += uint64(m.st.User.Microseconds())
		r.SystemUs += uint64(m.st.System.Microseconds())
	}
	if s.memory != nil {
		if peak, err := s.memory.Peak(); err == nil {
			r.MaxRssBytes = max(r.MaxRssBytes, peak)
		}
	}
	bound(r, tailsOf(len(s.peers)))
	return r
}

// conclude makes the gang's result on the primary, when all members have
// reported or can't any more.
func (s *shim) conclude(late bool) {
	own := s.gang.done[0]
	if s.ended || own == nil {
		return
	}
	if s.gang.joined && !late {
		for _, p := range s.peers {
			if i := p.GetIndex(); s.gang.done[i] == nil && !s.gang.down[i] {
				return
			}
		}
	}
	have := map[uint32]bool{}
	for _, k := range own.GetRanks() {
		have[k.GetRank()] = true
	}
	for _, p := range s.peers {
		if p.GetIndex() == 0 {
			continue
		}
		own.Warnings = append(own.Warnings, s.gang.done[p.GetIndex()].GetWarnings()...)
		for _, k := range s.gang.done[p.GetIndex()].GetRanks() {
			if !have[k.GetRank()] {
				have[k.GetRank()] = true
				own.Ranks = append(own.Ranks, k)
			}
		}
	}
	for n, e := range s.gang.exits {
		if !have[n] {
			own.Ranks = append(own.Ranks, &wire.RankExit{Rank: n, ExitCode: e.code, Signal: e.signal, KilledByGangway: e.byUs, EndNs: e.at.UnixNano(), Phase: e.phase})
			have[n] = true
		}
	}
	slices.SortFunc(own.Ranks, func(a, b *wire.RankExit) int { return int(a.GetRank()) - int(b.GetRank()) })
	v := s.verdict
	own.ExitCode, own.Signal, own.FirstRank, own.FirstNode = v.code, v.signal, v.first, v.node
	if s.cause != nil && v.code == 0 && v.signal == 0 {
		own.ExitCode = codeOf(s.cause)
		if lost := s.missingRanks(have); lost != "" && s.cause.GetCode() != wire.FailureCode_FAILURE_PREFLIGHT {
			own.Failure.Message += "; not heard of: rank " + lost
		}
	}
	s.examine(own)
	bound(own, resultTails)
	s.record(own)
}

// missingRanks lists the ranks that ran and whose end nobody has told.
func (s *shim) missingRanks(have map[uint32]bool) string {
	var out []string
	for _, p := range s.peers {
		if !s.gang.down[p.GetIndex()] || p.GetRanks() == 0 {
			continue
		}
		for _, n := range peerRanks(p) {
			if !have[n] {
				out = append(out, ranksText(p)+" on "+p.GetName())
				break
			}
		}
	}
	return strings.Join(out, ", ")
}

// codeOf is the exit status for a failure that is no rank's.
func codeOf(f *wire.Failure) int32 {
	switch f.GetCode() {
	case wire.FailureCode_FAILURE_NOT_FOUND:
		return exitNotFound
	case wire.FailureCode_FAILURE_NOT_EXECUTABLE:
		return exitNotExecutable
	}
	return exitGangway
}

// record makes the result durable, then says it.
func (s *shim) record(r *wire.Result) {
	if s.ended {
		return
	}
	s.ended = true
	m := &wire.FromShim{Id: s.a.GetId(), Name: s.a.GetName(), M: &wire.FromShim_Result{Result: r}}
	if s.spool != nil {
		if err := s.spool.Append(&wire.Frame{M: &wire.Frame_From{From: m}}); err != nil {
			s.notice(true, "%s: the result is not durable: %v", s.nodeName(), err)
		}
	}
	if s.crew.w != nil {
		if err := s.crew.w.Result(m); err != nil {
			s.notice(true, "%s: the result is not durable: %v", s.nodeName(), err)
		}
	}
	s.setPhase(wire.Phase_PHASE_ENDED)
	s.box.say(m)
	if s.mesh != nil {
		s.wg.Go(func() { _ = s.mesh.Close() })
	}
	s.leaveIfDone()
}
