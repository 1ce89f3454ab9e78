package agents

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
)

func try(lo, hi uint64, attempt uint32) job.Try {
	return job.Try{Range: job.Range{Lo: lo, Hi: hi}, Attempt: attempt}
}

func crewPart(phase state.Phase, c state.Crew) state.Part {
	p := part("crew", phase)
	p.Range, p.Crew = job.Range{Lo: 1, Hi: 5}, &c
	p.Task = &job.TaskSpec{ID: "t", Command: []string{"x"}, Range: job.Range{Lo: 1, Hi: 101}, MemPerRank: 1 << 20}
	return p
}

// said writes what a crew is told in a few words.
func said(m *wire.ToShim) string {
	switch {
	case m.GetLaunch() != nil:
		return "launch"
	case m.GetEnd() != nil:
		return "end"
	case m.GetForget() != nil:
		return "forget"
	case m.GetBlockAck() != nil:
		return fmt.Sprintf("ack %d", m.GetBlockAck().GetSeq())
	}
	out := fmt.Sprintf("work %d:", m.GetWork().GetSeq())
	for _, r := range m.GetWork().GetRuns() {
		out += fmt.Sprintf(" %d-%d/%d", r.GetRange().GetLo(), r.GetRange().GetHi(), r.GetAttempt())
	}
	if m.GetWork().GetLast() {
		out += " last"
	}
	return out
}

// TestWork: a crew hears what is new, once, and of what it shall give back what
// it was not told of before.
func TestWork(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	hear := func(what string, want ...string) {
		t.Helper()
		var got []string
		for range want {
			got = append(got, said(a.hear().GetToShim()))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s (-want +got):\n%s", what, d)
		}
	}
	first := []job.Try{try(1, 5, 1)}
	w.fleet.Want("n", []state.Part{crewPart(state.PhasePrepare, state.Crew{Slots: 2, Seq: 1, Work: first})})
	set := a.hear().GetDesired().GetSet()
	if len(set) != 1 || set[0].GetCrew().GetSlots() != 2 || set[0].GetCrew().GetElementMemory() != 1<<20 {
		t.Fatalf("assignment %v", set)
	}
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseLaunch, state.Crew{Slots: 2, Seq: 1, Work: first})})
	hear("the launch", "launch", "work 3: 1-5/1")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseLaunch, state.Crew{Slots: 2, Seq: 1, Work: []job.Try{try(3, 5, 1)}, Block: 1})})
	hear("a block is in", "ack 1")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseLaunch, state.Crew{Slots: 2, Seq: 3, Work: []job.Try{try(3, 5, 1)}, Back: []job.Try{try(9, 11, 2)}, Block: 2})})
	hear("given and asked for at once", "work 6: 3-5/1 9-11/2", "work 7: 3-5/1", "ack 2")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseLaunch, state.Crew{Slots: 2, Seq: 4, Last: true,
		Back: []job.Try{try(3, 5, 1), try(10, 11, 2)}, Block: 2})})
	hear("asked for what it knows", "work 9: last")
	// A new session does not know what the old one had sent.
	a.cut()
	next(t, w.posted, "the node's loss")
	a = w.begin("crew")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseLaunch, state.Crew{Slots: 2, Seq: 4, Last: true, Back: []job.Try{try(10, 11, 2)}, Block: 3})})
	if !a.hear().GetDesired().GetFull() {
		t.Error("the session does not begin with everything")
	}
	hear("the second session", "launch", "work 8: 10-11/2", "work 9: last", "ack 3")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseEnd, state.Crew{Slots: 2, Seq: 4, Last: true, Block: 4})})
	hear("the end", "end", "ack 4")
	w.fleet.Want("n", []state.Part{crewPart(state.PhaseForget, state.Crew{Slots: 2, Seq: 4, Last: true, Block: 5})})
	hear("the last", "forget")
}

func TestBlock(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin("crew")
	say := func(b *wire.Block) {
		a.say(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{Id: "crew", M: &wire.FromShim_Block{Block: b}}}})
	}
	run := func(lo, hi uint64, attempt uint32) *wire.Run {
		return &wire.Run{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: attempt}
	}
	say(&wire.Block{Seq: 7, Runs: []*wire.Run{run(1, 3, 1), run(5, 6, 2)}, StartUs: []int64{100, 5, -7}, WallUs: []uint64{1, 2, 3},
		CpuUs: []uint64{4, 5, 6}, RssKib: []uint64{7, 8, 9}, Endings: []*wire.Ending{{Count: 2}, {Count: 1, Signal: 9, Failure: &wire.Failure{Code: wire.FailureCode_FAILURE_MEMORY}}},
		Last: []*wire.LastWords{{Index: 5, Text: "bye"}}, Returned: []*wire.Run{run(8, 9, 1)}})
	got, _ := next(t, w.posted, "the block").(state.CrewBlock)
	if len(got.Endings) == 2 && got.Endings[1].Failure != nil {
		got.Endings[1].Failure = &job.Reason{Code: got.Endings[1].Failure.Code}
	}
	want := state.CrewBlock{ID: "crew", Node: "n", Seq: 7,
		Runs:     []state.CrewRun{{Range: job.Range{Lo: 1, Hi: 3}, Attempt: 1}, {Range: job.Range{Lo: 5, Hi: 6}, Attempt: 2}},
		Endings:  []state.Ending{{Count: 2}, {Count: 1, Signal: 9, Failure: &job.Reason{Code: job.FailMemory}}},
		Costs:    &job.Costs{Attempt: []uint32{1, 1, 2}, Start: []int64{100, 105, 98}, Wall: []uint64{1, 2, 3}, CPU: []uint64{4, 5, 6}, RSS: []uint64{7, 8, 9}},
		Last:     []job.LastLine{{Index: 5, Text: "bye"}},
		Returned: []state.CrewRun{{Range: job.Range{Lo: 8, Hi: 9}, Attempt: 1}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("block (-want +got):\n%s", d)
	}
	// What is wrong in itself ends the session, and is not read.
	say(&wire.Block{Seq: 8, Runs: []*wire.Run{run(0, 1<<40, 1)}})
	if d, ok := next(t, w.posted, "the session's end").(state.NodeDown); !ok || !strings.Contains(d.Why, "block 8: of more than") {
		t.Errorf("posted %+v", d)
	}
}

// FuzzBlock: whatever a node sends is refused or made of its own columns.
func FuzzBlock(f *testing.F) {
	f.Add(uint64(1), uint64(3), uint64(2), 2)
	f.Add(uint64(0), uint64(1<<63), uint64(1), 0)
	f.Add(uint64(9), uint64(3), uint64(1<<64-1), 1)
	f.Fuzz(func(t *testing.T, lo, hi, count uint64, columns int) {
		columns = min(max(columns, 0), 1<<12)
		b := &wire.Block{Seq: 1, Runs: []*wire.Run{{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: 1}}, Endings: []*wire.Ending{{Count: count}},
			StartUs: make([]int64, columns), WallUs: make([]uint64, columns), CpuUs: make([]uint64, columns), RssKib: make([]uint64, columns)}
		out, err := blockOf("x", "n", b)
		if err == nil && out.Costs != nil && len(out.Costs.Attempt) != columns {
			t.Fatalf("%d attempts of %d elements", len(out.Costs.Attempt), columns)
		}
	})
}
