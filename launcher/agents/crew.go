package agents

import (
	"errors"
	"fmt"
	"slices"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
)

// maxBlock is how many elements a block may have: crews gather about 4,096.
const maxBlock = 1 << 20

// workOf is what a crew is to be told, which was told what was says in this
// session; nil: nothing.
//
// A crew can give back only what it knows. What it is asked for and was not told
// of before, because the session before it ended or because it was given and
// asked for at once, is named first and left out then: the crew answers for it,
// and nothing of it is in doubt.
func workOf(p, was *state.Part) []*wire.ToShim {
	c := p.Crew
	if c == nil || p.Phase == state.PhasePrepare || p.Phase == state.PhaseForget {
		return nil
	}
	told := was != nil && was.Phase == state.PhaseLaunch
	var out []*wire.ToShim
	if p.Phase == state.PhaseLaunch && !(told && was.Crew.Seq == c.Seq && was.Crew.Last == c.Last) {
		if slices.ContainsFunc(c.Back, func(t job.Try) bool { return !told || !knows(was.Crew, t) }) {
			all := slices.Concat(c.Work, c.Back)
			out = append(out, work(p, all, 2*c.Seq, false))
		}
		out = append(out, work(p, c.Work, 2*c.Seq+1, c.Last))
	}
	if c.Block > 0 && !(was != nil && was.Phase != state.PhasePrepare && was.Crew.Block == c.Block) {
		out = append(out, &wire.ToShim{Id: p.ID, M: &wire.ToShim_BlockAck{BlockAck: &wire.BlockAck{Seq: c.Block}}})
	}
	return out
}

// knows reports whether the crew was told of t.
func knows(c *state.Crew, t job.Try) bool {
	has := func(o job.Try) bool { return o.Attempt == t.Attempt && o.Contains(t.Range) }
	return slices.ContainsFunc(c.Work, has) || slices.ContainsFunc(c.Back, has)
}

func work(p *state.Part, runs []job.Try, seq uint64, last bool) *wire.ToShim {
	w := &wire.Work{Seq: seq, Last: last, Runs: make([]*wire.Run, len(runs))}
	for i, t := range runs {
		w.Runs[i] = &wire.Run{Range: &wire.Range{Lo: t.Lo, Hi: t.Hi}, Attempt: t.Attempt, SweepJson: p.Crew.Sweep.Cut(t.Range)}
	}
	return &wire.ToShim{Id: p.ID, M: &wire.ToShim_Work{Work: w}}
}

// blockOf reads a crew's block. Its columns are made here, beside the state: it is
// the only work that each element costs.
func blockOf(id, node string, b *wire.Block) (state.CrewBlock, error) {
	out := state.CrewBlock{ID: id, Node: node, Seq: b.GetSeq(), Runs: runsOf(b.GetRuns()), Returned: runsOf(b.GetReturned())}
	n := 0
	for _, r := range out.Runs {
		if r.Len() > maxBlock || n > maxBlock {
			return out, fmt.Errorf("of more than %d elements", maxBlock)
		}
		n += int(r.Len())
	}
	for _, have := range []int{len(b.GetStartUs()), len(b.GetWallUs()), len(b.GetCpuUs()), len(b.GetRssKib())} {
		if have != n {
			return out, fmt.Errorf("with %d elements and %d entries in a column", n, have)
		}
	}
	for _, e := range b.GetEndings() {
		if e.GetCount() == 0 {
			return out, errors.New("with an ending of nothing")
		}
		out.Endings = append(out.Endings, state.Ending{Count: e.GetCount(), ExitCode: int(e.GetExitCode()), Signal: int(e.GetSignal()),
			Failure: reasonOf(e.GetFailure(), node)})
	}
	for _, l := range b.GetLast() {
		out.Last = append(out.Last, job.LastLine{Index: l.GetIndex(), Text: l.GetText()})
	}
	if n == 0 {
		return out, nil
	}
	k := &job.Costs{Attempt: make([]uint32, 0, n), Start: make([]int64, n), Wall: b.GetWallUs(), CPU: b.GetCpuUs(), RSS: b.GetRssKib()}
	for _, r := range out.Runs {
		for range r.Len() {
			k.Attempt = append(k.Attempt, r.Attempt)
		}
	}
	var at int64
	for i, d := range b.GetStartUs() {
		at += d
		k.Start[i] = at
	}
	out.Costs = k
	return out, nil
}

func runsOf(in []*wire.Run) []state.CrewRun {
	out := make([]state.CrewRun, 0, len(in))
	for _, r := range in {
		out = append(out, state.CrewRun{Range: job.Range{Lo: r.GetRange().GetLo(), Hi: r.GetRange().GetHi()}, Attempt: r.GetAttempt()})
	}
	return out
}
