package shim

import (
	"errors"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/mesh"
	"gangway/nodeagent/wire"
)

// What members of a gang say to each other: one byte, then the body. The
// primary decides: members report to it, and it says how things go on.
const (
	msgGo         = 'g' // primary: how the ranks start (via…)
	msgRegistered = 'r' // member: all its ranks have started
	msgExit       = 'x' // member: a rank has ended (gangExit)
	msgAbort      = 'a' // member: a rank called MPI_Abort (rank, code, message)
	msgInit       = 'i' // member: the first of its ranks is in MPI_Init, over PMI
	msgAbsent     = 'n' // member: a rank has ended well without MPI_Init (rank)
	msgEnd        = 'e' // both: the attempt ends; a Result with the failure, exit code 1 with grace
	msgDone       = 'd' // member: nothing is left here; its Result
	msgSpawned    = 's' // member: a process that a rank spawned has ended badly (spawnedEnd)
	msgName       = 'q' // member: about a published name
	msgNamed      = 'Q' // primary: the answer
	// msgPreflight: preflight.go
)

// failWindow is how long a death by SIGKILL or SIGTERM waits for another
// explanation: mpirun's own cleaning up races with the news of what it cleans
// up after.
const failWindow = 100 * time.Millisecond

// leftGrace is how long the others may go on when a rank has ended well in the
// middle of MPI.
const leftGrace = 2 * time.Second

// gang is what the primary keeps of the whole gang; members use the first
// fields only.
type gang struct {
	joined  bool
	waiting []func() // said before the mesh was there

	exits      map[uint32]gangExit // by rank
	failed     []gangExit          // in order of arrival
	registered map[uint32]bool     // by member
	done       map[uint32]*wire.Result
	down       map[uint32]bool
	began      bool // a rank is in MPI_Init
	absent     int  // the first rank that has ended without it, and one; 0: none
	window     bool // a death waits for an explanation
}

// gangExit is how a rank ended.
type gangExit struct {
	rank, node   uint32
	code, signal int32
	byUs, oom    bool
	starved      bool   // the kernel was killing for lack of memory on the node
	left         bool   // it ended well, but not its MPI
	phase        string // where it was in MPI; "" unknown
	rss          uint64
	user, system uint64 // µs
	why          string // the program did not start
	at           time.Time
}

func (e gangExit) ok() bool { return e.code == 0 && e.signal == 0 }

// weak says that the death may be somebody's cleaning up.
func (e gangExit) weak() bool {
	return e.signal == int32(syscall.SIGKILL) && !e.oom || e.signal == int32(syscall.SIGTERM)
}

func (e gangExit) encode() []byte {
	flag := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	return record{nums: []int64{int64(e.rank), int64(e.node), int64(e.code), int64(e.signal), flag(e.byUs), flag(e.oom) | flag(e.starved)<<1,
		int64(e.rss), int64(e.user), int64(e.system), flag(e.left)}, strs: []string{e.why, e.phase}}.encode()
}

func decodeExit(b []byte) (gangExit, error) {
	r, err := decodeRecord(b, 10, 2)
	if err != nil {
		return gangExit{}, err
	}
	n := r.nums
	return gangExit{rank: uint32(n[0]), node: uint32(n[1]), code: int32(n[2]), signal: int32(n[3]), byUs: n[4] != 0, oom: n[5]&1 != 0, starved: n[5]&2 != 0,
		rss: uint64(n[6]), user: uint64(n[7]), system: uint64(n[8]), left: n[9] != 0, why: r.strs[0], phase: r.strs[1], at: time.Now()}, nil
}

// meshHandler takes the mesh's calls to run.
type meshHandler struct{ s *shim }

func (h meshHandler) Message(from int, msg []byte) {
	h.s.post(func() { h.s.gangSaid(uint32(from), msg) })
}

func (h meshHandler) Down(peer int, err error) {
	h.s.post(func() { h.s.peerDown(uint32(peer), err) })
}

func (h meshHandler) Stream(_ int, meta []byte, st mesh.Stream) {
	if string(meta) == measureMeta {
		serveMeasure(st)
		return
	}
	h.s.runShell(st, string(meta))
}

// tellPrimary reports to the primary, which may be this shim itself.
func (s *shim) tellPrimary(kind byte, body []byte) {
	if s.primary() {
		s.gangSaid(0, append([]byte{kind}, body...))
		return
	}
	if s.mesh == nil {
		return
	}
	s.whenJoined(func() { _ = s.mesh.Send(0, append([]byte{kind}, body...)) })
}

// tellAll speaks for the primary to all members.
func (s *shim) tellAll(kind byte, body []byte) {
	if s.mesh == nil {
		return
	}
	s.whenJoined(func() { _ = s.mesh.Broadcast(append([]byte{kind}, body...)) })
}

// whenJoined sends now or when the mesh is there. That nobody is reached is
// told by peerDown.
func (s *shim) whenJoined(send func()) {
	if s.gang.joined {
		send()
		return
	}
	s.gang.waiting = append(s.gang.waiting, send)
}

func (s *shim) gangSaid(from uint32, msg []byte) {
	if len(msg) == 0 {
		return
	}
	kind, body := msg[0], msg[1:]
	switch {
	case kind == msgGo && from == 0 && !s.primary():
		s.go_(string(body))
	case kind == msgPreflight:
		s.heardChecks(int(from), body)
	case kind == msgRegistered && s.primary():
		if s.gang.registered == nil {
			s.gang.registered = map[uint32]bool{}
		}
		s.gang.registered[from] = true
	case kind == msgExit && s.primary():
		if e, err := decodeExit(body); err == nil {
			e.node = from
			s.gangExited(e)
		}
	case kind == msgAbort && s.primary():
		if c, err := decodeAbort(body, from); err == nil {
			s.gangAborted(c)
		}
	case kind == msgSpawned && s.primary():
		s.gangSpawned(from, body)
	case kind == msgName && s.primary():
		s.askedName(from, body)
	case kind == msgNamed && from == 0:
		s.answeredName(body)
	case kind == msgInit && s.primary():
		if !s.gang.began {
			s.gang.began = true
			s.checkAbsent()
		}
	case kind == msgAbsent && s.primary():
		if r, err := decodeRecord(body, 1, 0); err == nil {
			if _, known := s.gang.exits[uint32(r.nums[0])]; known && s.gang.absent == 0 {
				s.gang.absent = int(r.nums[0]) + 1
				s.checkAbsent()
			}
		}
	case kind == msgEnd && (s.primary() || from == 0):
		r := new(wire.Result)
		if proto.Unmarshal(body, r) == nil {
			s.endBy(r)
		}
	case kind == msgDone && s.primary():
		r := new(wire.Result)
		if proto.Unmarshal(body, r) == nil {
			if s.gang.done == nil {
				s.gang.done = map[uint32]*wire.Result{}
			}
			s.gang.done[from] = r
			s.checkGang()
		}
	}
}

// endBy ends this part because another member, or the primary, says so.
func (s *shim) endBy(r *wire.Result) {
	if r.GetFailure() == nil {
		s.endWell()
		return
	}
	s.end(r.GetFailure(), r.GetExitCode() == 1)
}

// tellEnd says that the attempt ends here: members to the primary, the primary
// to all.
func (s *shim) tellEnd(f *wire.Failure, grace bool) {
	r := &wire.Result{Failure: f}
	if grace {
		r.ExitCode = 1
	}
	b, err := marshal(r)
	if err != nil {
		return
	}
	if s.primary() {
		s.tellAll(msgEnd, b)
	} else {
		s.tellPrimary(msgEnd, b)
	}
}

func marshal(r *wire.Result) ([]byte, error) { return proto.Marshal(r) }

// peerDown ends the attempt when a member is gone that still belongs to it.
func (s *shim) peerDown(peer uint32, err error) {
	if s.gang.down == nil {
		s.gang.down = map[uint32]bool{}
	}
	s.gang.down[peer] = true
	if s.gang.done[peer] == nil {
		s.found.lost = append(s.found.lost, lostMember{peer, err, time.Now()})
	}
	if s.ended || !s.primary() && peer != 0 {
		return // the primary sees to its members
	}
	if s.primary() && s.gang.done[peer] != nil {
		return
	}
	name := "a node"
	for _, p := range s.peers {
		if p.GetIndex() == peer {
			name = p.GetName()
		}
	}
	hint := "look at the node and at the shim's end there"
	if errors.Is(err, mesh.ErrSilent) {
		hint = "the node is down or cut off from the network of this job"
	}
	s.end(failed(wire.FailureCode_FAILURE_PEER_LOST, name, name+" was lost: "+err.Error(), hint), false)
	s.checkGang()
}

// gangExited is the primary's note of a rank's end.
func (s *shim) gangExited(e gangExit) {
	if _, ok := s.gang.exits[e.rank]; ok || s.gang.exits == nil {
		return
	}
	s.gang.exits[e.rank] = e
	if e.ok() || s.ending {
		if e.left && !s.ending {
			s.after(leftGrace, func() { s.blameLeft(e) })
		}
		s.checkGang()
		return
	}
	s.gang.failed = append(s.gang.failed, e)
	if !e.weak() {
		s.blame(e)
		return
	}
	if !s.gang.window {
		s.gang.window = true
		s.after(failWindow, s.blameFirst)
	}
}

// blameFirst ends the attempt for the first death, when nothing better has
// explained it.
func (s *shim) blameFirst() {
	if s.ending || s.finished || len(s.gang.failed) == 0 {
		return
	}
	e := s.gang.failed[0]
	if m := s.main; m != nil && m.ended && m.st.Signal != 0 {
		s.blameMain() // its proxies killed the ranks when it was gone
		return
	}
	// MPI_Abort: Hydra kills all ranks, the one that called it too, and takes
	// its code for its own.
	if m := s.main; m != nil && m.ended && s.via == viaMPIRun && m.st.Signal == 0 && e.signal == int32(syscall.SIGKILL) {
		if c := m.st.ExitCode; c != 0 && c != 9 && c != 128+9 && c != 15 && c != 128+15 && c != 255 {
			e.code, e.signal = int32(c), 0
		}
	}
	s.blame(e)
}

func (s *shim) nameOf(index uint32) string {
	for _, p := range s.peers {
		if p.GetIndex() == index {
			return p.GetName()
		}
	}
	return s.nodeName()
}
