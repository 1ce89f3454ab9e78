package shim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gangway/mpi"
	"gangway/mpi/pmi"
	"gangway/nodeagent/mesh"
	"gangway/nodeagent/wire"
)

const (
	// tieWindow is within what time the order in which two nodes' news reach the
	// primary says nothing about which came first.
	tieWindow = 10 * time.Millisecond
)

// abortCall is a rank's call of MPI_Abort, as its PMI server heard it.
type abortCall struct {
	rank, node uint32
	code       int32
	message    string
	at         time.Time
}

// lostMember is a member that the primary can't reach any more.
type lostMember struct {
	node uint32
	err  error
	at   time.Time
}

// findings are what the primary gathers for the autopsy.
type findings struct {
	aborts  []abortCall  // in order of arrival
	lost    []lostMember // in order
	ooms    uint64       // the kernel's count when the attempt began; see kernelOOMs
	counted bool         // ooms is known
}

// aborted tells the primary that a rank of this node has called MPI_Abort, which
// ends the gang at once.
func (s *shim) aborted(rank, code int, message string) {
	s.tellPrimary(msgAbort, record{nums: []int64{int64(rank), int64(code)}, strs: []string{cutText(message, 400)}}.encode())
}

func decodeAbort(b []byte, from uint32) (abortCall, error) {
	r, err := decodeRecord(b, 2, 1)
	if err != nil {
		return abortCall{}, err
	}
	return abortCall{rank: uint32(r.nums[0]), node: from, code: int32(r.nums[1]), message: r.strs[0], at: time.Now()}, nil
}

// gangAborted is the primary's note of a call of MPI_Abort.
func (s *shim) gangAborted(c abortCall) {
	s.found.aborts = append(s.found.aborts, c)
	switch {
	case s.ending || s.finished: // it may still say more than what the end was put down to
	case c.library() && len(s.gang.failed) == 0:
		// It may have lost a rank whose death is still on its way here.
		s.after(failWindow, func() { s.blameAbort(c) })
	default:
		s.blameAbort(c)
	}
}

// library says that MPI itself gave up, as by MPI_ERRORS_ARE_FATAL: its codes have
// more than a class, which is below 256 (MPICH's errcodes.h). A program's own are
// statuses, as a rule.
func (c abortCall) library() bool { return c.code > 0xffff }

// blameAbort ends the attempt for a call of MPI_Abort. A rank that had been killed
// before comes first: nobody cleans up beside gangway, and whoever talked to that
// rank then gave up.
func (s *shim) blameAbort(c abortCall) {
	if s.ending || s.finished {
		return
	}
	if len(s.gang.failed) > 0 {
		s.blame(s.gang.failed[0])
		return
	}
	node := s.nameOf(c.node)
	s.verdict = verdict{code: c.code & 0xff, first: int32(c.rank), node: node}
	if s.verdict.code == 0 {
		s.verdict.code = 1 // a program that is aborted has not ended well
	}
	msg := fmt.Sprintf("rank %d on %s called MPI_Abort with %d", c.rank, node, c.code)
	if c.message != "" {
		msg += ": " + c.message
	}
	s.end(failed(wire.FailureCode_FAILURE_RANK, node, msg, ""), false)
}

// kernelOOMs is how many processes the kernel has killed for lack of memory, on
// this machine, since it was booted: oom_kill in /proc/vmstat since Linux 4.13.
func kernelOOMs() (uint64, bool) {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// countOOMs notes where the kernel's count is when the attempt begins.
func (s *shim) countOOMs() { s.found.ooms, s.found.counted = kernelOOMs() }

// starved says whether the kernel has killed processes of this machine for lack
// of memory since the attempt began.
func (s *shim) starved() bool {
	n, ok := kernelOOMs()
	return ok && s.found.counted && n > s.found.ooms
}

// evidence is all that is known of an attempt that did not end well.
type evidence struct {
	failure *wire.Failure
	verdict verdict
	weak    bool // the verdict is a death that may be somebody's cleaning up
	ranks   []*wire.RankExit
	exits   map[uint32]gangExit // as they arrived
	aborts  []abortCall
	lost    []lostMember
	main    string // mpirun's last error output; "": there is none
	name    func(index uint32) string
	nodeOf  func(rank uint32) string
	peer    func(host string) string // name of the node that mpirun knows as host
	primary string
	nodes   int
}

// evidence gathers what there is once all have reported or can't.
func (s *shim) evidence(ranks []*wire.RankExit) evidence {
	e := evidence{failure: s.cause, verdict: s.verdict, ranks: ranks, exits: s.gang.exits, aborts: s.found.aborts, lost: s.found.lost,
		name: s.nameOf, primary: s.nodeName(), nodes: max(1, len(s.peers)),
		nodeOf: func(rank uint32) string { return s.placeOf(int64(rank)) }, peer: s.knownAs}
	if v := s.verdict; v.first >= 0 {
		e.weak = s.via != viaPMI && s.gang.exits[uint32(v.first)].weak()
	}
	if s.main != nil {
		e.main = s.main.tail.lines()
	}
	return e
}

// knownAs is the name of the node that mpirun calls by its address or host name.
func (s *shim) knownAs(host string) string {
	for _, p := range s.peers {
		if host == p.GetName() || host == p.GetAddress() || host == p.GetHostname() {
			return p.GetName()
		}
	}
	return host
}

// autopsyOf says how an attempt died. The first to die is the first that the
// primary heard of: the nodes' clocks differ. It is nil for one that ended well.
func autopsyOf(e evidence) *wire.Autopsy {
	if e.failure == nil && e.verdict.code == 0 && e.verdict.signal == 0 {
		return nil
	}
	a := &wire.Autopsy{Rank: -1, Node: e.failure.GetNode(), Told: uint32(len(e.ranks))}
	switch code := e.failure.GetCode(); {
	case e.aborted(a):
	case e.weak && mpi.LostDaemon(e.main) != "": // the first was killed in cleaning up
		a.Death, a.Node = wire.Death_DEATH_MPIRUN, e.peer(mpi.LostDaemon(e.main))
		a.How = "mpirun's daemon on " + a.GetNode() + " ended or was killed"
		suspect(a, a.GetNode(), "mpirun lost its daemon there")
	case e.verdict.first >= 0:
		e.rankDied(a)
	case code == wire.FailureCode_FAILURE_RANK: // the primary's command
		a.Death, a.Node, a.How = deathOf(e.verdict.code, e.verdict.signal), e.verdict.node, "the command "+verbOf(e.verdict.code, e.verdict.signal)
	case code == wire.FailureCode_FAILURE_PEER_LOST && e.nodes > 2 && e.alone(), code == wire.FailureCode_FAILURE_LEASE && e.alone():
		a.Death, a.Node, a.How = wire.Death_DEATH_SILENT, e.primary, "node "+e.primary+" was cut off: it heard none of the gang's other nodes any more"
		suspect(a, e.primary, "it was cut off from all other nodes of the gang")
	case code == wire.FailureCode_FAILURE_PEER_LOST:
		e.memberLost(a)
	case code == wire.FailureCode_FAILURE_SHIM_LOST:
		a.Death, a.How = wire.Death_DEATH_SHIM, firstLine(e.failure.GetMessage())
		suspect(a, a.GetNode(), "gangway's process there was lost")
	case code == wire.FailureCode_FAILURE_TIME_LIMIT:
		a.Death, a.Node, a.How = wire.Death_DEATH_LIMIT, "", firstLine(e.failure.GetMessage())
	case code == wire.FailureCode_FAILURE_CANCELLED, code == wire.FailureCode_FAILURE_LEASE:
		a.Death, a.Node, a.How = wire.Death_DEATH_CANCELLED, "", firstLine(e.failure.GetMessage())
	case code == wire.FailureCode_FAILURE_MPIRUN:
		a.Death, a.How = wire.Death_DEATH_MPIRUN, firstLine(e.failure.GetMessage())
		if e.verdict.signal == int32(syscall.SIGKILL) {
			suspect(a, a.GetNode(), "mpirun was killed there (signal 9) by something other than gangway")
		}
	case code == wire.FailureCode_FAILURE_PREFLIGHT:
		a.Death, a.How = wire.Death_DEATH_PREFLIGHT, firstLine(e.failure.GetMessage())
		e.suspectSome(a, strings.TrimPrefix(a.GetHow(), "preflight: "))
	case code == wire.FailureCode_FAILURE_LAUNCH_DEADLINE:
		a.Death, a.How = wire.Death_DEATH_LAUNCH, "did not start: "+firstLine(e.failure.GetMessage())
		if a.GetNode() != e.primary { // it is the one that tells
			e.suspectSome(a, "did not come to the start")
		}
	default:
		a.Death, a.How = wire.Death_DEATH_LAUNCH, "did not start: "+firstLine(e.failure.GetMessage())
		if code == wire.FailureCode_FAILURE_DISK {
			suspect(a, a.GetNode(), "its disk is full or broken")
		}
	}
	for _, k := range e.ranks {
		if int32(k.GetRank()) == a.GetRank() {
			a.Phase, a.AtNs = k.GetPhase(), k.GetEndNs()
		}
	}
	if x, ok := e.exits[uint32(a.GetRank())]; ok && a.GetRank() >= 0 && a.GetAtNs() == 0 {
		a.AtNs = x.at.UnixNano()
	}
	e.saysOfNodes(a)
	return a
}

// aborted sees whether MPI_Abort, or the MPI library's own giving up, was the
// beginning: as the PMI server heard it, or as the ranks have written.
func (e evidence) aborted(a *wire.Autopsy) bool {
	code := e.failure.GetCode()
	if code != wire.FailureCode_FAILURE_RANK && code != wire.FailureCode_FAILURE_MPIRUN {
		return false
	}
	for _, c := range e.aborts {
		if int32(c.rank) == e.verdict.first || e.weak || code == wire.FailureCode_FAILURE_MPIRUN {
			a.Death, a.Rank, a.Node, a.AtNs = wire.Death_DEATH_ABORT, int32(c.rank), e.name(c.node), c.at.UnixNano()
			a.How, a.Said = fmt.Sprintf("called MPI_Abort with %d", c.code), c.message
			return true
		}
	}
	find := mpi.NewAbortFinder()
	type said struct {
		mpi.Abort
		at time.Time
	}
	var all []said
	note := func(text string, writer int) {
		b, ok := find.Find(text)
		if !ok {
			return
		}
		if b.Rank < 0 {
			b.Rank = writer
		}
		if x, ok := e.exits[uint32(b.Rank)]; ok && b.Rank >= 0 {
			all = append(all, said{b, x.at})
		}
	}
	for _, k := range e.ranks {
		note(k.GetLastStderr(), int(k.GetRank()))
	}
	note(e.main, -1)
	// A rank that ended by itself first was the first, whatever others have
	// called because of it.
	strong := e.verdict.first >= 0 && !e.weak
	all = slices.DeleteFunc(all, func(x said) bool { return strong && int32(x.Rank) != e.verdict.first })
	if len(all) == 0 {
		return false
	}
	b := slices.MinFunc(all, func(x, y said) int { // a call before what the library says of its own
		if x.Called != y.Called {
			if x.Called {
				return -1
			}
			return 1
		}
		return x.at.Compare(y.at)
	})
	if strong && mpi.Crashed(int(e.verdict.code), int(e.verdict.signal)) {
		return false // what it wrote before it crashed
	}
	a.Death, a.Rank, a.Node, a.How = wire.Death_DEATH_ABORT, int32(b.Rank), e.nodeOf(uint32(b.Rank)), fmt.Sprintf("called MPI_Abort with %d", b.Code)
	if !b.Called {
		a.How, a.Said = "was ended by the MPI library", b.Message
	}
	return true
}

// rankDied tells of the rank that was the first to end badly.
func (e evidence) rankDied(a *wire.Autopsy) {
	v := e.verdict
	x, known := e.exits[uint32(v.first)]
	a.Rank, a.Node = v.first, v.node
	code, signal := v.code, v.signal
	switch {
	case v.spawned != "" && e.failure.GetCode() == wire.FailureCode_FAILURE_MEMORY:
		a.Death, a.How = wire.Death_DEATH_MEMORY, "out of memory: the job reached its memory limit there, in "+v.spawned
	case v.spawned != "":
		a.Death, a.How = deathOf(code, signal), v.spawned+" "+verbOf(code, signal)
	case x.why != "":
		a.Death, a.How = wire.Death_DEATH_LAUNCH, "did not start: "+firstLine(x.why)
	case x.oom:
		a.Death, a.How = wire.Death_DEATH_MEMORY, "out of memory: the job reached its memory limit there"
	case x.starved && signal == int32(syscall.SIGKILL):
		a.Death, a.How = wire.Death_DEATH_MEMORY, "out of memory: the kernel was ending processes on the node for lack of it"
		suspect(a, v.node, "the kernel ended processes there for lack of memory, though the job was within its limit")
	case known && x.ok() && x.phase == string(pmi.Start):
		a.Death, a.How = wire.Death_DEATH_EXIT, "ended with status 0 without MPI_Init, the others were waiting for it there"
	case known && x.ok():
		a.Death, a.How = wire.Death_DEATH_EXIT, "ended with status 0 without MPI_Finalize, the others were still running"
	case x.signal != 0 && signal == 0: // mpirun's status in place of its killing, see blameFirst
		a.Death, a.How = wire.Death_DEATH_ABORT, fmt.Sprintf("called MPI_Abort with %d, by mpirun's status; which rank did is not certain", code)
	default:
		a.Death, a.How = deathOf(code, signal), verbOf(code, signal)
	}
	switch syscall.Signal(signal) {
	case syscall.SIGKILL:
		if a.GetDeath() == wire.Death_DEATH_KILLED {
			if v.spawned == "" {
				a.How = "killed from outside (signal 9)"
			}
			suspect(a, v.node, "a process of the job was killed (signal 9) by something other than gangway")
		}
	case syscall.SIGBUS:
		suspect(a, v.node, "bus error: /dev/shm or a disk is full, or the memory is bad")
	}
	if n := e.ties(x); n != "" && a.GetDeath() != wire.Death_DEATH_LAUNCH {
		a.How += "; " + n
	}
	for _, l := range e.lost {
		if l.node == x.node && x.weak() && l.at.Sub(x.at).Abs() < time.Second {
			a.How += "; gangway's own process there ended too"
		}
	}
}

// ties names the ranks of other nodes whose bad ends the primary heard of within
// tieWindow of the first.
func (e evidence) ties(first gangExit) string {
	var near []gangExit
	for _, x := range e.exits {
		if x.rank == first.rank || x.node == first.node || x.ok() || x.byUs || x.weak() != first.weak() || x.at.Sub(first.at).Abs() > tieWindow {
			continue
		}
		near = append(near, x)
	}
	if len(near) == 0 {
		return ""
	}
	x := slices.MinFunc(near, func(x, y gangExit) int { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.rank, y.rank)) })
	who := fmt.Sprintf("rank %d on %s", x.rank, e.name(x.node))
	if n := len(near) - 1; n > 0 {
		who += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s ended within %d ms of it, so which was first is not certain", who, tieWindow.Milliseconds())
}

// alone says whether the primary hears nobody any more: it is more likely that it
// was cut off than that all others were.
func (e evidence) alone() bool {
	silent := map[uint32]bool{}
	for _, l := range e.lost {
		if errors.Is(l.err, mesh.ErrSilent) || errors.Is(l.err, mesh.ErrSlow) {
			silent[l.node] = true
		}
	}
	return e.primary != "" && e.nodes > 1 && len(silent) == e.nodes-1
}

// memberLost tells of a node that the primary lost.
func (e evidence) memberLost(a *wire.Autopsy) {
	a.Death, a.How = wire.Death_DEATH_SHIM, "gangway's process on "+a.GetNode()+" ended or was killed, or the node went down"
	why := "gangway's process there was lost"
	for _, l := range e.lost {
		if e.name(l.node) != a.GetNode() {
			continue
		}
		a.AtNs = l.at.UnixNano()
		switch {
		case errors.Is(l.err, mesh.ErrSilent):
			a.Death, a.How, why = wire.Death_DEATH_SILENT, "node "+a.GetNode()+" is silent: cut off or down", "it was silent: cut off or down"
		case errors.Is(l.err, mesh.ErrSlow):
			a.Death, a.How, why = wire.Death_DEATH_SILENT, "node "+a.GetNode()+" does not take what is sent to it: overloaded or cut off", "it did not take what was sent to it"
		}
		break
	}
	suspect(a, a.GetNode(), why)
}

// saysOfNodes suspects the node of the first rank for what the rank's last lines
// say of it.
func (e evidence) saysOfNodes(a *wire.Autopsy) {
	if a.GetRank() < 0 {
		return
	}
	for _, k := range e.ranks {
		if int32(k.GetRank()) != a.GetRank() {
			continue
		}
		for _, sign := range []string{"No space left on device", "Input/output error", "uncorrectable ECC error", "GPU is lost", "fallen off the bus"} {
			if strings.Contains(k.GetLastStderr(), sign) {
				suspect(a, a.GetNode(), "the program said: "+sign)
			}
		}
	}
}

// suspectSome suspects the nodes that a failure names, unless they are all: then
// it is not them.
func (e evidence) suspectSome(a *wire.Autopsy, why string) {
	names := strings.FieldsFunc(a.GetNode(), func(r rune) bool { return r == ',' || r == ' ' })
	if len(names) >= e.nodes && e.nodes > 1 {
		return
	}
	for _, n := range names {
		suspect(a, n, cutText(why, 400))
	}
}

// suspect adds a node with the reason; one that is suspected already gets no
// second.
func suspect(a *wire.Autopsy, node, why string) {
	if node == "" || slices.ContainsFunc(a.GetSuspects(), func(s *wire.Suspect) bool { return s.GetNode() == node }) {
		return
	}
	a.Suspects = append(a.Suspects, &wire.Suspect{Node: node, Why: why})
}

// deathOf is the kind of a process's end.
func deathOf(code, signal int32) wire.Death {
	switch {
	case mpi.Crashed(int(code), int(signal)):
		return wire.Death_DEATH_CRASH
	case signal != 0:
		return wire.Death_DEATH_KILLED
	}
	return wire.Death_DEATH_EXIT
}

// verbOf is how a process ended, after its name.
func verbOf(code, signal int32) string {
	if signal != 0 && deathOf(code, signal) == wire.Death_DEATH_KILLED && signal != int32(syscall.SIGKILL) {
		return "ended from outside: " + mpi.HowEnded(int(code), int(signal))
	}
	return mpi.HowEnded(int(code), int(signal))
}

// memberAutopsy is what a member finds when its primary is lost: nobody else
// may be left to say it.
func (s *shim) memberAutopsy() *wire.Autopsy {
	if s.primary() || s.cause.GetCode() != wire.FailureCode_FAILURE_PEER_LOST {
		return nil
	}
	return autopsyOf(evidence{failure: s.cause, verdict: verdict{code: exitGangway, first: -1}, lost: s.found.lost, name: s.nameOf, nodes: len(s.peers)})
}

// examine puts the autopsy into the gang's result, and bounds the last lines.
func (s *shim) examine(own *wire.Result) {
	own.Autopsy = autopsyOf(s.evidence(own.GetRanks()))
	if a := own.GetAutopsy(); a.GetDeath() == wire.Death_DEATH_ABORT && a.GetRank() != own.GetFirstRank() && own.GetFailure() != nil {
		own.FirstRank, own.FirstNode = a.GetRank(), a.GetNode()
		own.Failure.Node = a.GetNode()
		own.Failure.Message = fmt.Sprintf("rank %d on %s %s", a.GetRank(), a.GetNode(), a.GetHow())
	}
	boundWords(own.GetRanks(), own.GetFirstRank())
}

// firstLine is a text's first line.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// cutText shortens a text to n bytes at most, as UTF-8.
func cutText(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
