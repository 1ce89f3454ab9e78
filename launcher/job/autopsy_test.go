package job

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gangRow is an attempt of four ranks on two nodes.
func gangRow(change func(*AttemptRow)) *AttemptRow {
	a := &AttemptRow{ID: "j-0-0-1", Try: Try{Range: Range{Lo: 0, Hi: 1}, Attempt: 1}, Nodes: 2,
		Parts: []PartRow{{Node: "n1", Ranks: 2, Ready: true}, {Node: "n2", FirstRank: 2, Ranks: 2, Ready: true}}}
	change(a)
	return a
}

func TestDiagnose(t *testing.T) {
	lost := &Reason{Code: FailShimLost, Detail: "the shim on n1 was lost", Nodes: []NodeShort{{Node: "n1"}}}
	for name, c := range map[string]struct {
		a    *AttemptRow
		want *Autopsy
	}{
		"nothing yet": {gangRow(func(*AttemptRow) {}), nil},
		"it ended well": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Results = []Result{{FirstRank: -1}}
			a.Parts[1].Failure = lost
		}), nil},
		"the primary's": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Results = []Result{{ExitCode: 3, Autopsy: &Autopsy{Death: DeathAbort, How: "x"}}}
		}), &Autopsy{Death: DeathAbort, How: "x"}},
		"a member's": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Failure = lost
			a.Parts[1].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathShim, Rank: -1, Node: "n1", How: "x"}}}
		}), &Autopsy{Death: DeathShim, Rank: -1, Node: "n1", How: "x"}},
		"the launcher's": {gangRow(func(a *AttemptRow) { a.Parts[0].Failure = lost }),
			&Autopsy{Death: DeathShim, Rank: -1, Node: "n1", How: "the shim on n1 was lost", Suspects: []Suspect{{"n1", "the shim on n1 was lost"}}}},
		"told to end for another's loss": {gangRow(func(a *AttemptRow) {
			a.End = &Reason{Code: FailNodeLost, Detail: "node n2 was lost"}
			a.Parts[1].Failure = a.End
			a.Parts[0].Results = []Result{{ExitCode: 125, Failure: &Reason{Code: FailCancelled}, Autopsy: &Autopsy{Death: DeathCancelled, Rank: -1, How: "node n2 was lost"}}}
		}), &Autopsy{Death: DeathSilent, Rank: -1, Node: "n2", How: "node n2 was lost", Suspects: []Suspect{{"n2", "node n2 was lost"}}}},
		"the primary was cut off and is back, its lease over": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Results = []Result{{ExitCode: 125, Failure: &Reason{Code: FailLease}, Autopsy: &Autopsy{Death: DeathCancelled, Rank: -1, How: "lease"}}}
			a.Parts[1].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "x"}}}
		}), &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "x"}},
		"the primary was cut off and is back, and accuses": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Failure = &Reason{Code: FailNodeLost}
			a.Parts[0].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n2", How: "y"}}}
			a.Parts[1].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "x"}}}
		}), &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "x"}},
		"a member was cut off and is back, and accuses": {gangRow(func(a *AttemptRow) {
			a.Parts[1].Failure = &Reason{Code: FailNodeLost}
			a.Parts[0].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n2", How: "y"}}}
			a.Parts[1].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "x"}}}
		}), &Autopsy{Death: DeathSilent, Rank: -1, Node: "n2", How: "y"}},
		"the primary takes itself for cut off, the other is lost": {gangRow(func(a *AttemptRow) {
			a.Parts[1].Failure = &Reason{Code: FailNodeLost, Detail: "node n2 was lost"}
			a.Parts[0].Results = []Result{{ExitCode: 125, Autopsy: &Autopsy{Death: DeathSilent, Rank: -1, Node: "n1", How: "y"}}}
		}), &Autopsy{Death: DeathSilent, Rank: -1, Node: "n2", How: "node n2 was lost", Suspects: []Suspect{{"n2", "node n2 was lost"}}}},
		"the lease of all": {gangRow(func(a *AttemptRow) {
			a.Parts[0].Results = []Result{{ExitCode: 125, Failure: &Reason{Code: FailLease}, Autopsy: &Autopsy{Death: DeathCancelled, Rank: -1, How: "lease"}}}
		}), &Autopsy{Death: DeathCancelled, Rank: -1, How: "lease"}},
		"a failed preparation": {gangRow(func(a *AttemptRow) {
			a.End = &Reason{Code: FailNotFound, Detail: "n2: no program", Nodes: []NodeShort{{Node: "n2"}}}
			a.Parts[1].Failure = a.End
		}), &Autopsy{Death: DeathLaunch, Rank: -1, Node: "n2", How: "n2: no program"}},
		"cancelled": {gangRow(func(a *AttemptRow) {
			a.End = &Reason{Code: FailCancelled, Detail: "by ann", Nodes: []NodeShort{{Node: "n1"}}}
		}),
			&Autopsy{Death: DeathCancelled, Rank: -1, How: "by ann: n1"}},
		"a result of old": {gangRow(func(a *AttemptRow) { a.Parts[0].Results = []Result{{Signal: 11, FirstRank: 2, FirstNode: "n2"}} }),
			&Autopsy{Death: DeathCrash, Rank: 2, Node: "n2", How: "segmentation fault (signal 11)"}},
		"no parts": {&AttemptRow{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, c.a.Diagnose()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReport(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	a := gangRow(func(a *AttemptRow) {
		a.Parts[0].Results = []Result{{ExitCode: 139, FirstRank: 2, FirstNode: "n2",
			Autopsy: &Autopsy{Death: DeathCrash, Rank: 2, Node: "n2", How: "segmentation fault (signal 11)", At: at, Told: 3},
			Ranks: []RankExit{
				{Rank: 0, Signal: 9, Killed: true, LastStderr: "hello", End: at.Add(12 * time.Millisecond)},
				{Rank: 1, Signal: 9, Killed: true, LastStderr: "hello", End: at.Add(40 * time.Millisecond)},
				{Rank: 2, Signal: 11, LastStderr: "oops\n", End: at},
			}}}
	})
	want := &Report{Autopsy: *a.Parts[0].Results[0].Autopsy, Attempt: 1, ID: "j-0-0-1", Nodes: []string{"n1", "n2"}, Ranks: 4,
		Fates: []Fate{
			{How: "segmentation fault (signal 11)", Count: 1, Ranks: "2", Nodes: []string{"n2"}},
			{How: "killed by gangway 12 to 40 ms later", Count: 2, Ranks: "0-1", Nodes: []string{"n1"}},
			{How: "not heard of", Count: 1, Ranks: "3", Nodes: []string{"n2"}},
		},
		Words: []Words{{Ranks: "2", Lines: []string{"oops"}}, {Ranks: "0-1", Lines: []string{"hello"}}}}
	if d := cmp.Diff(want, a.Report()); d != "" {
		t.Error(d)
	}
	if h := a.Report().Headline(); h != "rank 2 on n2: segmentation fault (signal 11)" {
		t.Error(h)
	}
	if r := gangRow(func(*AttemptRow) {}).Report(); r != nil {
		t.Errorf("%+v", r)
	}
}

// A result of 8,192 ranks stays small enough to be sent and kept.
func TestReportOfManyRanks(t *testing.T) {
	a := &AttemptRow{Parts: []PartRow{{Node: "n1", Ranks: 8192, Ready: true, Results: []Result{{ExitCode: 1, FirstRank: 0,
		Autopsy: &Autopsy{Death: DeathExit, How: "ended with status 1", Node: "n1"}}}}}}
	for r := range 8192 {
		a.Parts[0].Results[0].Ranks = append(a.Parts[0].Results[0].Ranks, RankExit{Rank: r, Signal: 9, Killed: r > 0, End: time.Unix(1e9, int64(r)), Phase: "running"})
	}
	row, err := json.Marshal(a)
	if err != nil || len(row) > 4<<20 {
		t.Errorf("a row of %d bytes, %v", len(row), err)
	}
	report, err := json.Marshal(a.Report())
	if err != nil || len(report) > 2000 {
		t.Errorf("a report of %d bytes, %v", len(report), err)
	}
}
