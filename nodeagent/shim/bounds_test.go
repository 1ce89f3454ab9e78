package shim

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/mesh"
	"gangway/nodeagent/wire"
)

func TestResultsOfBigGangsFit(t *testing.T) {
	const nodes, ranks = 1024, 8
	all := &wire.Result{}
	for n := range nodes {
		part := &wire.Result{}
		for i := range ranks {
			k := &wire.RankExit{Rank: uint32(n*ranks + i), Signal: 9, KilledByGangway: true, EndNs: int64(n*ranks + i + 10),
				LastStderr: strings.Repeat("ä", tailSize/2)}
			if n == 700 && i == 3 { // the culprit, and it was the last to be seen
				k.KilledByGangway, k.Signal, k.EndNs = false, 11, 1<<40
				k.LastStderr = strings.Repeat("culprit ", tailSize/8)
			}
			part.Ranks = append(part.Ranks, k)
		}
		part.Warnings = append(part.Warnings, fmt.Sprintf("n%d: something", n))
		bound(part, tailsOf(nodes))
		b, err := proto.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > mesh.MaxMessage/64 {
			t.Fatalf("a member's result has %d bytes", len(b))
		}
		all.Ranks = append(all.Ranks, part.Ranks...)
		all.Warnings = append(all.Warnings, part.Warnings...)
	}
	bound(all, resultTails)
	b, err := proto.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > wire.MaxFrame/2 {
		t.Errorf("the gang's result has %d bytes, a frame at most %d", len(b), wire.MaxFrame)
	}
	sum := 0
	for _, k := range all.Ranks {
		sum += len(k.LastStderr)
		if !utf8.ValidString(k.LastStderr) {
			t.Fatalf("rank %d: a character was cut", k.Rank)
		}
	}
	if sum > resultTails {
		t.Errorf("%d bytes of last words, want at most %d", sum, resultTails)
	}
	if k := all.Ranks[700*ranks+3]; len(k.LastStderr) != tailSize {
		t.Errorf("the culprit's last words were cut to %d bytes", len(k.LastStderr))
	}
	if len(all.Warnings) != maxWarnings || all.Warnings[maxWarnings-1] != fmt.Sprintf("and %d warnings more", nodes-maxWarnings+1) {
		t.Errorf("%d warnings, the last: %s", len(all.Warnings), all.Warnings[len(all.Warnings)-1])
	}
}

func TestSmallResultsStayWhole(t *testing.T) {
	r := &wire.Result{Ranks: []*wire.RankExit{{LastStderr: "a"}, {Rank: 1, ExitCode: 1, LastStderr: "b"}}, Warnings: []string{"w"}}
	want := proto.Clone(r)
	bound(r, tailsOf(2))
	if !proto.Equal(r, want) {
		t.Errorf("became %v", r)
	}
}
