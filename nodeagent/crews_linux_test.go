package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/proc"
	shimmain "gangway/nodeagent/shim"
	"gangway/nodeagent/wire"
	"gangway/topology/probe"
)

// realShims makes this program's shims the real ones.
const realShims = "GWTEST_REAL_SHIMS"

func realShim() {
	conn, err := net.FileConn(os.NewFile(3, "agent"))
	fatal(err)
	fatal(shimmain.Main(context.Background(), conn))
}

// execution names one try of an element.
type execution struct {
	index   uint64
	attempt uint32
}

// crewWatch is what a launcher knows of crews.
type crewWatch struct {
	t        *testing.T
	done     map[execution]bool // with a result
	returned map[execution]bool
}

func (c *crewWatch) take(b *wire.Block) {
	c.t.Helper()
	each := func(runs []*wire.Run, f func(execution)) {
		for _, r := range runs {
			for i := r.GetRange().GetLo(); i < r.GetRange().GetHi(); i++ {
				f(execution{i, r.GetAttempt()})
			}
		}
	}
	each(b.GetRuns(), func(e execution) {
		if c.done[e] || c.returned[e] {
			c.t.Errorf("block %d: %v is told twice", b.GetSeq(), e)
		}
		c.done[e] = true
	})
	each(b.GetReturned(), func(e execution) {
		if c.done[e] || c.returned[e] {
			c.t.Errorf("block %d: %v is given back though it was told before", b.GetSeq(), e)
		}
		c.returned[e] = true
	})
}

// TestCrewsKilled kills crews at random moments, in some rounds the session with
// them, and looks at what their elements did.
func TestCrewsKilled(t *testing.T) {
	node, err := probe.Live()
	if err != nil {
		t.Skip(err)
	}
	t.Setenv(realShims, "1")
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	l, _ := dial(t, base, "c", 1)
	log := filepath.Join(t.TempDir(), "log")
	rounds, n := 4, uint64(3000)
	if testing.Short() {
		rounds, n = 2, 500
	}
	random := rand.New(rand.NewPCG(1, 2))
	watch := &crewWatch{t, map[execution]bool{}, map[execution]bool{}}
	finished := map[uint64]bool{}
	open := []*wire.Run{{Range: &wire.Range{Lo: 1, Hi: n + 1}, Attempt: 1}}
	for round := 1; len(open) > 0; round++ {
		id := fmt.Sprintf("crew%d", round)
		as := l.assignment(id, "/bin/sh", node.Allowed.String())
		as.Command = append(as.Command, "-c", `echo $GANGWAY_ARRAY_INDEX $GANGWAY_ATTEMPT >> "$0"`, log)
		as.Name.Attempt = uint32(round)
		as.Session, as.TaskDir, as.Workdir = false, "workitems/j/job-1/A", "/tmp"
		as.Crew, as.Bind, as.CoresPerRank, as.Oversubscribe, as.NodeCount = &wire.Crew{Slots: 2}, "none", 1, true, 1
		l.set(as)
		l.ready(id)
		l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
		l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_Work{Work: &wire.Work{Seq: 1, Runs: open, Last: true}}})
		kill := round <= rounds
		var after int // blocks
		if kill {
			after = random.IntN(20)
		}
		seq, acked := uint64(0), 0
		var gone *wire.ShimGone
		for gone == nil {
			m := l.wait("the end of "+id, func(m *wire.AgentMessage) bool { return m.GetFromShim().GetId() == id || m.GetShimGone().GetId() == id })
			gone = m.GetShimGone()
			f := m.GetFromShim()
			switch b := f.GetBlock(); {
			case b != nil && b.GetSeq() <= seq: // again
				l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_BlockAck{BlockAck: &wire.BlockAck{Seq: seq}}})
			case b != nil:
				if b.GetSeq() != seq+1 {
					t.Fatalf("block %d follows block %d", b.GetSeq(), seq)
				}
				seq = b.GetSeq()
				watch.take(b)
				if acked++; kill && acked == after+1 {
					pid := pidOf(t, base, id)
					_ = syscall.Kill(pid, syscall.SIGKILL)
					if round%2 == 0 { // what it has told meanwhile is told again to the next session
						l.close()
						l, _ = dial(t, base, "c", uint64(1+round))
					}
				}
				l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_BlockAck{BlockAck: &wire.BlockAck{Seq: seq}}})
			case f.GetResult() != nil:
				l.forget(id)
			}
		}
		// The process of a shim that has said its last word ends behind that.
		left := proc.ByEnv("GANGWAY_ID=" + id)
		for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			left = proc.ByEnv("GANGWAY_ID=" + id)
		}
		if len(left) > 0 {
			t.Errorf("%s left %v", id, left)
		}
		// Whatever has no result is to be run again, in the next attempt.
		for e := range watch.done {
			finished[e.index] = true
		}
		open = nil
		for i := uint64(1); i <= n; i++ {
			if !finished[i] {
				open = append(open, &wire.Run{Range: &wire.Range{Lo: i, Hi: i + 1}, Attempt: uint32(round + 1)})
			}
		}
		t.Logf("round %d: lost %v, %d elements left, %d given back so far", round, gone.GetLost(), len(open), len(watch.returned))
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[execution]int{}
	for line := range strings.Lines(string(b)) {
		var e execution
		if _, err := fmt.Sscan(line, &e.index, &e.attempt); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		ran[e]++
	}
	last := map[uint64]uint32{}
	for e, times := range ran {
		if times > 1 {
			t.Errorf("%v ran %d times", e, times)
		}
		if watch.returned[e] {
			t.Errorf("%v was given back and ran", e)
		}
		last[e.index] = max(last[e.index], e.attempt)
	}
	for e := range watch.done {
		if ran[e] != 1 {
			t.Errorf("%v has a result and ran %d times", e, ran[e])
		}
		if last[e.index] != e.attempt {
			t.Errorf("%v has a result, and ran again in attempt %d", e, last[e.index])
		}
	}
	if len(watch.done) != int(n) {
		t.Errorf("%d results, want %d", len(watch.done), n)
	}
}

// TestCrewFiles reads what a kept array's elements wrote.
func TestCrewFiles(t *testing.T) {
	node, err := probe.Live()
	if err != nil {
		t.Skip(err)
	}
	t.Setenv(realShims, "1")
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	l, _ := dial(t, base, "c", 1)
	as := l.assignment("files", "/bin/sh", node.Allowed.String())
	as.Command = append(as.Command, "-c", `case $GANGWAY_ARRAY_INDEX in
3) exit 0;;
4) head -c 9000000 /dev/zero;;
5) echo begun; exec sleep 60;;
*) echo out $GANGWAY_ARRAY_INDEX $AZ_BATCH_TASK_ID; echo err $GANGWAY_ARRAY_INDEX >&2;;
esac`)
	const dir = "workitems/j/job-1"
	as.Task, as.Session, as.TaskDir = "A", false, dir+"/A"
	as.Crew, as.Bind, as.CoresPerRank, as.Oversubscribe, as.NodeCount = &wire.Crew{Slots: 2}, "none", 1, true, 1
	l.set(as)
	l.ready("files")
	l.toShim(&wire.ToShim{Id: "files", M: &wire.ToShim_Launch{Launch: &wire.Launch{}}})
	l.toShim(&wire.ToShim{Id: "files", M: &wire.ToShim_Work{Work: &wire.Work{Seq: 1, Runs: []*wire.Run{{Range: &wire.Range{Lo: 1, Hi: 6}, Attempt: 1}}}}})
	told := uint64(0)
	l.wait("four results", func(m *wire.AgentMessage) bool {
		for _, r := range m.GetFromShim().GetBlock().GetRuns() {
			told += r.GetRange().GetHi() - r.GetRange().GetLo()
		}
		return told == 4
	})
	d := dirOf(base)
	ask := func(op wire.FileOp, p string, offset uint64) *wire.FileReply {
		return d.serveFile(&wire.FileRequest{Op: op, Path: dir + "/" + p, Offset: offset})
	}
	for p, want := range map[string]string{
		"A_1/stdout.txt": "out 1 A_1\n", "A_1/stderr.txt": "err 1\n", "A_2/stdout.txt": "out 2 A_2\n", "A_4/stderr.txt": "",
	} {
		if r := ask(opRead, p, 0); r.GetCode() != 0 || string(r.GetData()) != want || !r.GetEof() || r.GetEntries()[0].GetSize() != uint64(len(want)) {
			t.Errorf("%s: %v", p, r)
		}
	}
	if r := ask(opRead, "A_1/stdout.txt", 4); string(r.GetData()) != "1 A_1\n" {
		t.Errorf("from an offset: %v", r)
	}
	if r := ask(opStat, "A_4/stdout.txt", 0); r.GetEntries()[0].GetSize() != 9_000_000 {
		t.Errorf("large output: %v", r)
	}
	if r := ask(opRead, "A_4/stdout.txt", 8_999_990); len(r.GetData()) != 10 || !r.GetEof() {
		t.Errorf("end of large output: %v", r)
	}
	if r := ask(opRead, "A_3/stdout.txt", 0); r.GetCode() != wire.FileError_FILE_ERROR_NOT_FOUND {
		t.Errorf("one that wrote nothing: %v", r)
	}
	if r := ask(opRead, "A_99/stdout.txt", 0); r.GetCode() != wire.FileError_FILE_ERROR_NOT_FOUND {
		t.Errorf("one that is not there: %v", r)
	}
	if got := paths(ask(opList, "A_1", 0)); len(got) != 2 || got[0] != dir+"/A_1/stderr.txt" || got[1] != dir+"/A_1/stdout.txt" {
		t.Errorf("listed: %v", got)
	}
	if r := ask(opStat, "A_1", 0); r.GetCode() != 0 || !r.GetEntries()[0].GetDir() {
		t.Errorf("the directory: %v", r)
	}
	deadline := time.Now().Add(20 * time.Second)
	for { // what runs may not have written yet
		r := ask(opRead, "A_5/stdout.txt", 0)
		if string(r.GetData()) == "begun\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("of what runs: %v", r)
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.end("files")
	l.result("files")
	l.forget("files")
	l.gone("files")
	if r := ask(opRead, "A_5/stdout.txt", 0); string(r.GetData()) != "begun\n" {
		t.Errorf("after the end: %v", r)
	}
	if err := errors.Join(os.RemoveAll(base)); err != nil {
		t.Error(err)
	}
}

// TestRecoveredOnce tells the same of a crew whose agent was killed too.
func TestRecoveredOnce(t *testing.T) {
	run := func(lo, hi uint64) []*wire.Run {
		return []*wire.Run{{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: 1}}
	}
	recs := []*wire.Frame{
		{M: &wire.Frame_To{To: &wire.ToShim{M: &wire.ToShim_Work{Work: &wire.Work{Runs: run(0, 10)}}}}},
		{M: &wire.Frame_From{From: &wire.FromShim{M: &wire.FromShim_Block{Block: &wire.Block{Runs: run(0, 4)}}}}},
		{M: &wire.Frame_From{From: &wire.FromShim{M: &wire.FromShim_Block{Block: &wire.Block{Seq: 7, Runs: run(0, 2)}}}}},
	}
	blocks, said, err := recoverCrew(recs, &wire.Work{Seq: 2, Runs: run(5, 20)}, nil, true)
	if err != nil || len(blocks) != 2 || blocks[1].GetSeq() != 8 {
		t.Fatalf("%v, %v", blocks, err)
	}
	if got, want := fmt.Sprint(blocks[1].GetReturned()), fmt.Sprint(run(4, 20)); got != want {
		t.Errorf("given back %s, want %s", got, want)
	}
	again, _, err := recoverCrew(recs, nil, said, true)
	if err != nil || len(again) != 2 || !proto.Equal(again[1], blocks[1]) {
		t.Errorf("the second time: %v, %v", again, err)
	}
	if _, _, err := recoverCrew(recs, nil, []byte{0xff}, true); err == nil {
		t.Error("garbage was taken for a block")
	}
}
