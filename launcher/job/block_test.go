package job

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func drawRange(t *rapid.T) Range {
	return Range{Lo: rapid.Uint64().Draw(t, "lo"), Hi: rapid.Uint64().Draw(t, "hi")}
}

func drawBlock(t *rapid.T) BlockRow {
	reasons := []*Reason{nil, {Code: FailRank}, {Code: FailRank}, {Code: FailNodeLost, Nodes: []NodeShort{{Node: "n1"}}}}
	b := BlockRow{
		Seq: rapid.Uint64().Draw(t, "seq"), Task: rapid.String().Draw(t, "task"), Attempt: rapid.String().Draw(t, "attempt"),
		At: time.Unix(rapid.Int64Range(-1<<36, 1<<37).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
	}
	for range rapid.IntRange(0, 6).Draw(t, "done") {
		b.Done = append(b.Done, Outcome{Range: drawRange(t), Success: rapid.Bool().Draw(t, "success"),
			ExitCode: rapid.IntRange(-1, 2).Draw(t, "exit"), Signal: rapid.IntRange(0, 1).Draw(t, "signal"),
			Reason: rapid.SampledFrom(reasons).Draw(t, "reason")})
	}
	for range rapid.IntRange(0, 6).Draw(t, "again") {
		try := Try{Range: drawRange(t), Attempt: uint32(rapid.IntRange(0, 2).Draw(t, "n")), Losses: uint32(rapid.IntRange(0, 1).Draw(t, "losses")),
			Avoid: rapid.SampledFrom([][]string{nil, {"n1"}, {"n1", "n2"}}).Draw(t, "avoid")}
		if rapid.Bool().Draw(t, "wait") {
			try.NotBefore = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		}
		b.Again = append(b.Again, try)
	}
	return b
}

func TestBlockRoundTrip(t *testing.T) {
	var got BlockRow // used again each time
	rapid.Check(t, func(t *rapid.T) {
		b := drawBlock(t)
		r := EncodeBlock(b)
		if err := r.DecodeBlock(&got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

func TestDamagedBlock(t *testing.T) {
	r := EncodeBlock(BlockRow{Seq: 7, Task: "abcd-0", Done: []Outcome{{Range: Range{Hi: 64}, Success: true}, {Range: Range{Lo: 70, Hi: 71}, ExitCode: 3}}})
	if len(r.Value) > 64 {
		t.Errorf("a small block takes %d bytes", len(r.Value))
	}
	var b BlockRow
	for i := range r.Value {
		for _, bad := range []Row{
			{Table: r.Table, Key: r.Key, Value: r.Value[:i]},
			{Table: r.Table, Key: r.Key, Value: slices.Concat(r.Value[:i], []byte{r.Value[i] ^ 0x10}, r.Value[i+1:])},
		} {
			if err := bad.DecodeBlock(&b); err == nil || !strings.Contains(err.Error(), "is damaged") {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	r.Key = BlockKey("abcd-0", 8)
	if err := r.DecodeBlock(&b); err == nil {
		t.Error("block 7 went through as block 8")
	}
}

// FuzzBlock reads bodies whose checksum is right: a wrong one ends it at once.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{})
	r := EncodeBlock(BlockRow{Seq: 7, Task: "abcd-0", Attempt: "x",
		Done:  []Outcome{{Range: Range{Hi: 64}, Success: true}, {Range: Range{Lo: 70, Hi: 71}, ExitCode: 3}},
		Again: []Try{{Range: Range{Lo: 64, Hi: 70}, Attempt: 2}}})
	f.Add(r.Value[1 : len(r.Value)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		var b, again BlockRow
		_ = decodeBlock(body, &b)
		if decodeBody(body, &b) != nil {
			return
		}
		for i := range b.Again { // a time that JSON reads and can't write again
			if y := b.Again[i].NotBefore.Year(); y < 0 || y > 9999 {
				return
			}
		}
		if err := EncodeBlock(b).DecodeBlock(&again); err != nil {
			t.Fatal(err)
		}
	})
}
