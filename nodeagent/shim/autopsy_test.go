package shim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"gangway/nodeagent/mesh"
	"gangway/nodeagent/wire"
)

// scene is a gang of four ranks on n0 to n3, whose rank died first as said.
func scene(code wire.FailureCode, first gangExit, change ...func(*evidence)) evidence {
	t0 := time.Unix(1e9, 0)
	name := func(i uint32) string { return fmt.Sprintf("n%d", i) }
	e := evidence{failure: failed(code, name(first.node), "what happened\nand more", ""), nodes: 4, primary: "n0",
		name: name, nodeOf: name, peer: strings.ToLower, exits: map[uint32]gangExit{}}
	first.at = t0
	for r := range uint32(4) {
		x := gangExit{rank: r, node: r, signal: 9, byUs: true, at: t0.Add(time.Second)}
		if r == first.rank {
			x = first
		}
		e.exits[r] = x
		e.ranks = append(e.ranks, &wire.RankExit{Rank: r, ExitCode: x.code, Signal: x.signal, KilledByGangway: x.byUs, EndNs: x.at.UnixNano()})
	}
	e.verdict = verdict{code: first.code, signal: first.signal, first: int32(first.rank), node: name(first.node)}
	e.weak = first.weak()
	for _, f := range change {
		f(&e)
	}
	return e
}

// noRank makes a scene one in which no rank was first.
func noRank(node string) func(*evidence) {
	return func(e *evidence) {
		e.verdict = verdict{code: 125, first: -1}
		e.failure.Node = node
	}
}

func TestAutopsy(t *testing.T) {
	rank, mpirun := wire.FailureCode_FAILURE_RANK, wire.FailureCode_FAILURE_MPIRUN
	lost := wire.FailureCode_FAILURE_PEER_LOST
	at := time.Unix(1e9, 0).UnixNano()
	said := func(r int, text string) func(*evidence) {
		return func(e *evidence) { e.ranks[r].LastStderr = text }
	}
	down := func(node uint32, err error) func(*evidence) {
		return func(e *evidence) {
			e.lost = append(e.lost, lostMember{node, err, time.Unix(1e9, 0).Add(50 * time.Millisecond)})
		}
	}
	suspects := func(pairs ...string) (out []*wire.Suspect) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, &wire.Suspect{Node: pairs[i], Why: pairs[i+1]})
		}
		return out
	}
	two := gangExit{rank: 2, node: 2}
	with := func(x gangExit, f func(*gangExit)) gangExit { f(&x); return x }
	code := func(n int32) gangExit { return with(two, func(x *gangExit) { x.code = n }) }
	signal := func(n int32) gangExit { return with(two, func(x *gangExit) { x.signal = n }) }
	for name, c := range map[string]struct {
		e    evidence
		want *wire.Autopsy
	}{
		"a status": {scene(rank, code(3)), &wire.Autopsy{Death: wire.Death_DEATH_EXIT, Rank: 2, Node: "n2", How: "ended with status 3", AtNs: at}},
		"a crash":  {scene(rank, signal(11)), &wire.Autopsy{Death: wire.Death_DEATH_CRASH, Rank: 2, Node: "n2", How: "segmentation fault (signal 11)", AtNs: at}},
		"a script's crash": {scene(rank, code(139)), &wire.Autopsy{Death: wire.Death_DEATH_CRASH, Rank: 2, Node: "n2",
			How: "ended with status 139, as after a segmentation fault (signal 11)", AtNs: at}},
		"a bus error": {scene(rank, signal(7)), &wire.Autopsy{Death: wire.Death_DEATH_CRASH, Rank: 2, Node: "n2", How: "bus error (signal 7)", AtNs: at,
			Suspects: suspects("n2", "bus error: /dev/shm or a disk is full, or the memory is bad")}},
		"killed": {scene(rank, signal(9)), &wire.Autopsy{Death: wire.Death_DEATH_KILLED, Rank: 2, Node: "n2", How: "killed from outside (signal 9)", AtNs: at,
			Suspects: suspects("n2", "a process of the job was killed (signal 9) by something other than gangway")}},
		"terminated": {scene(rank, signal(15)), &wire.Autopsy{Death: wire.Death_DEATH_KILLED, Rank: 2, Node: "n2", How: "ended from outside: terminated (signal 15)", AtNs: at}},
		"its limit": {scene(wire.FailureCode_FAILURE_MEMORY, with(signal(9), func(x *gangExit) { x.oom = true })),
			&wire.Autopsy{Death: wire.Death_DEATH_MEMORY, Rank: 2, Node: "n2", How: "out of memory: the job reached its memory limit there", AtNs: at}},
		"the node's memory": {scene(rank, with(signal(9), func(x *gangExit) { x.starved = true })),
			&wire.Autopsy{Death: wire.Death_DEATH_MEMORY, Rank: 2, Node: "n2", How: "out of memory: the kernel was ending processes on the node for lack of it", AtNs: at,
				Suspects: suspects("n2", "the kernel ended processes there for lack of memory, though the job was within its limit")}},
		"left": {scene(rank, with(two, func(x *gangExit) { x.phase = "running" }), func(e *evidence) { e.verdict.code = 1 }),
			&wire.Autopsy{Death: wire.Death_DEATH_EXIT, Rank: 2, Node: "n2", How: "ended with status 0 without MPI_Finalize, the others were still running", AtNs: at}},
		"never in MPI": {scene(rank, with(two, func(x *gangExit) { x.phase = "start" }), func(e *evidence) { e.verdict.code = 1 }),
			&wire.Autopsy{Death: wire.Death_DEATH_EXIT, Rank: 2, Node: "n2", How: "ended with status 0 without MPI_Init, the others were waiting for it there", AtNs: at}},
		"not started": {scene(wire.FailureCode_FAILURE_NOT_FOUND, with(code(127), func(x *gangExit) { x.why = "rank 2 on n2: no such file" })),
			&wire.Autopsy{Death: wire.Death_DEATH_LAUNCH, Rank: 2, Node: "n2", How: "did not start: rank 2 on n2: no such file", AtNs: at}},
		"a full disk": {scene(rank, code(1), said(2, "write: No space left on device")), &wire.Autopsy{Death: wire.Death_DEATH_EXIT, Rank: 2, Node: "n2", How: "ended with status 1", AtNs: at,
			Suspects: suspects("n2", "the program said: No space left on device")}},
		"abort by its server": {scene(rank, gangExit{rank: 1, node: 1, signal: 9}, func(e *evidence) {
			e.aborts = []abortCall{{rank: 2, node: 2, code: 7, message: "sorry", at: time.Unix(1e9, 0)}}
			e.ranks[2].Phase = "running"
		}), &wire.Autopsy{Death: wire.Death_DEATH_ABORT, Rank: 2, Node: "n2", How: "called MPI_Abort with 7", Said: "sorry", Phase: "running", AtNs: time.Unix(1e9, 0).Add(time.Second).UnixNano()}},
		"abort after a crash": {scene(rank, signal(11), func(e *evidence) {
			e.aborts = []abortCall{{rank: 1, node: 1, code: 7}}
		}), &wire.Autopsy{Death: wire.Death_DEATH_CRASH, Rank: 2, Node: "n2", How: "segmentation fault (signal 11)", AtNs: at}},
		"abort as it says": {scene(rank, gangExit{rank: 0, signal: 9}, said(2, "application called MPI_Abort(MPI_COMM_WORLD, 7) - process 2")),
			&wire.Autopsy{Death: wire.Death_DEATH_ABORT, Rank: 2, Node: "n2", How: "called MPI_Abort with 7", AtNs: time.Unix(1e9, 0).Add(time.Second).UnixNano()}},
		"abort as mpirun says": {scene(mpirun, gangExit{rank: 0, signal: 9}, noRank("n0"), func(e *evidence) {
			e.main = "MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\nwith errorcode 9."
		}), &wire.Autopsy{Death: wire.Death_DEATH_ABORT, Rank: 2, Node: "n2", How: "called MPI_Abort with 9", AtNs: time.Unix(1e9, 0).Add(time.Second).UnixNano()}},
		"the library": {scene(rank, code(15), said(2, "Abort(15) on node 2 (rank 2 in comm 0): Fatal error in internal_Init: bad")),
			&wire.Autopsy{Death: wire.Death_DEATH_ABORT, Rank: 2, Node: "n2", How: "was ended by the MPI library", Said: "Fatal error in internal_Init: bad", AtNs: at}},
		"mpirun": {scene(mpirun, gangExit{rank: 0, signal: 9}, noRank("n0")), &wire.Autopsy{Death: wire.Death_DEATH_MPIRUN, Rank: -1, Node: "n0", How: "what happened"}},
		"mpirun's daemon": {scene(rank, gangExit{rank: 0, signal: 15}, func(e *evidence) {
			e.main = "ORTE has lost communication with a remote daemon.\n  HNP daemon   : [[1,0],0] on node N0\n  Remote daemon: [[1,0],1] on node N2\n"
		}), &wire.Autopsy{Death: wire.Death_DEATH_MPIRUN, Rank: -1, Node: "n2", How: "mpirun's daemon on n2 ended or was killed",
			Suspects: suspects("n2", "mpirun lost its daemon there")}},
		"silent": {scene(lost, gangExit{}, noRank("n3"), down(3, fmt.Errorf("x: %w", mesh.ErrSilent))), &wire.Autopsy{Death: wire.Death_DEATH_SILENT, Rank: -1, Node: "n3",
			How: "node n3 is silent: cut off or down", AtNs: time.Unix(1e9, 0).Add(50 * time.Millisecond).UnixNano(), Suspects: suspects("n3", "it was silent: cut off or down")}},
		"all silent but the primary": {scene(lost, gangExit{}, noRank("n1"), down(1, mesh.ErrSilent), down(2, mesh.ErrSilent), down(3, mesh.ErrSilent)),
			&wire.Autopsy{Death: wire.Death_DEATH_SILENT, Rank: -1, Node: "n0", How: "node n0 was cut off: it heard none of the gang's other nodes any more",
				Suspects: suspects("n0", "it was cut off from all other nodes of the gang")}},
		"all silent, and the launcher": {scene(wire.FailureCode_FAILURE_LEASE, gangExit{}, noRank("n0"), down(1, mesh.ErrSilent), down(2, mesh.ErrSilent), down(3, mesh.ErrSilent)),
			&wire.Autopsy{Death: wire.Death_DEATH_SILENT, Rank: -1, Node: "n0", How: "node n0 was cut off: it heard none of the gang's other nodes any more",
				Suspects: suspects("n0", "it was cut off from all other nodes of the gang")}},
		"the launcher is silent": {scene(wire.FailureCode_FAILURE_LEASE, gangExit{}, noRank("n0")), &wire.Autopsy{Death: wire.Death_DEATH_CANCELLED, Rank: -1, How: "what happened"}},
		"a shim": {scene(lost, gangExit{}, noRank("n3"), down(3, mesh.ErrClosed)), &wire.Autopsy{Death: wire.Death_DEATH_SHIM, Rank: -1, Node: "n3",
			How:  "gangway's process on n3 ended or was killed, or the node went down",
			AtNs: time.Unix(1e9, 0).Add(50 * time.Millisecond).UnixNano(), Suspects: suspects("n3", "gangway's process there was lost")}},
		"rank and shim": {scene(rank, signal(9), down(2, mesh.ErrClosed)), &wire.Autopsy{Death: wire.Death_DEATH_KILLED, Rank: 2, Node: "n2",
			How: "killed from outside (signal 9); gangway's own process there ended too", AtNs: at, Suspects: suspects("n2", "a process of the job was killed (signal 9) by something other than gangway")}},
		"preflight": {scene(wire.FailureCode_FAILURE_PREFLIGHT, gangExit{}, noRank("n1,n3")), &wire.Autopsy{Death: wire.Death_DEATH_PREFLIGHT, Rank: -1, Node: "n1,n3", How: "what happened",
			Suspects: suspects("n1", "what happened", "n3", "what happened")}},
		"preflight of all": {scene(wire.FailureCode_FAILURE_PREFLIGHT, gangExit{}, noRank("n0,n1,n2,n3")), &wire.Autopsy{Death: wire.Death_DEATH_PREFLIGHT, Rank: -1, Node: "n0,n1,n2,n3", How: "what happened"}},
		"late": {scene(wire.FailureCode_FAILURE_LAUNCH_DEADLINE, gangExit{}, noRank("n1")), &wire.Autopsy{Death: wire.Death_DEATH_LAUNCH, Rank: -1, Node: "n1", How: "did not start: what happened",
			Suspects: suspects("n1", "did not come to the start")}},
		"disk":      {scene(wire.FailureCode_FAILURE_DISK, gangExit{}, noRank("n1")), &wire.Autopsy{Death: wire.Death_DEATH_LAUNCH, Rank: -1, Node: "n1", How: "did not start: what happened", Suspects: suspects("n1", "its disk is full or broken")}},
		"limit":     {scene(wire.FailureCode_FAILURE_TIME_LIMIT, gangExit{}, noRank("n0")), &wire.Autopsy{Death: wire.Death_DEATH_LIMIT, Rank: -1, How: "what happened"}},
		"cancelled": {scene(wire.FailureCode_FAILURE_CANCELLED, gangExit{}, noRank("n0")), &wire.Autopsy{Death: wire.Death_DEATH_CANCELLED, Rank: -1, How: "what happened"}},
		"shim lost": {scene(wire.FailureCode_FAILURE_SHIM_LOST, gangExit{}, noRank("n1")), &wire.Autopsy{Death: wire.Death_DEATH_SHIM, Rank: -1, Node: "n1", How: "what happened", Suspects: suspects("n1", "gangway's process there was lost")}},
		"a tie": {scene(rank, code(3), func(e *evidence) {
			e.exits[1] = gangExit{rank: 1, node: 1, code: 4, at: time.Unix(1e9, 0).Add(5 * time.Millisecond)}
		}), &wire.Autopsy{Death: wire.Death_DEATH_EXIT, Rank: 2, Node: "n2", How: "ended with status 3; rank 1 on n1 ended within 10 ms of it, so which was first is not certain", AtNs: at}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Told = 4
			if d := cmp.Diff(c.want, autopsyOf(c.e), protocmp.Transform()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if a := autopsyOf(evidence{}); a != nil {
		t.Errorf("of an attempt that ended well: %v", a)
	}
}

// The last lines of very many ranks must not make a result that can't be sent.
// TestAbortOfLibrary knows the codes of MPI itself from those of programs.
func TestAbortOfLibrary(t *testing.T) {
	for code, want := range map[int32]bool{0: false, 1: false, 7: false, 300: false, 255: false, 134357006: true, 1010421263: true, -1: false} {
		if got := (abortCall{code: code}).library(); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

func TestBoundedWords(t *testing.T) {
	var ranks []*wire.RankExit
	for r := range uint32(8192) {
		text := strings.Repeat("same\n", 400)
		if r%2 == 1 {
			text = fmt.Sprintf("rank %d %s", r, strings.Repeat("x", 2000))
		}
		ranks = append(ranks, &wire.RankExit{Rank: r, LastStderr: text, EndNs: 1})
	}
	boundWords(ranks, 8191)
	sum, different := 0, map[string]bool{}
	for _, k := range ranks {
		sum += len(k.GetLastStderr())
		different[k.GetLastStderr()] = true
	}
	own := 0
	for text := range different {
		own += len(text)
	}
	if own > lastWordsLimit || sum > lastWordsLimit+sameWordsLimit {
		t.Errorf("%d different bytes, %d in all", own, sum)
	}
	if ranks[8191].GetLastStderr() == "" || ranks[0].GetLastStderr() == "" {
		t.Error("the first rank's words are gone")
	}
	b, err := marshal(&wire.Result{Ranks: ranks})
	if err != nil || len(b) > 4<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestAbortMessage(t *testing.T) {
	c, err := decodeAbort(record{nums: []int64{5, -1}, strs: []string{"why"}}.encode(), 3)
	if err != nil || c.rank != 5 || c.code != -1 || c.node != 3 || c.message != "why" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := decodeAbort([]byte{1}, 0); err == nil {
		t.Error("half a message was read")
	}
}
