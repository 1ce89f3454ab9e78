package job

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
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
	if rapid.Bool().Draw(t, "was") {
		b.Was = []Outcome{{Range: drawRange(t), ExitCode: 1}, {Range: drawRange(t), Success: true, Signal: 2}}
	}
	b.Node = rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node")
	if n := rapid.SampledFrom([]int{0, 1, 2, 127, 128, 129, 300}).Draw(t, "costs"); n > 0 {
		b.Costs = &Costs{}
		wide := rapid.Uint64().Draw(t, "wide")
		start := b.At.UnixMicro()
		for i := range n {
			c := Cost{Attempt: 1, Start: start + int64(i)*20, Wall: uint64(i*i) % 1000, CPU: 7, RSS: wide >> (i % 64)}
			if i%100 == 99 {
				c = Cost{Attempt: rapid.Uint32().Draw(t, "number"), Start: rapid.Int64().Draw(t, "start"),
					Wall: rapid.Uint64().Draw(t, "wall"), CPU: rapid.Uint64().Draw(t, "cpu"), RSS: rapid.Uint64().Draw(t, "rss")}
			}
			b.Costs.Add(c)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "last") {
		b.Last = append(b.Last, LastLine{Index: rapid.Uint64().Draw(t, "index"), Text: rapid.String().Draw(t, "text")})
	}
	return b
}

func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := []BlockRow{drawBlock(t)}
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			b := drawBlock(t)
			b.Task, b.Seq = blocks[0].Task, blocks[len(blocks)-1].Seq+rapid.Uint64Range(1, 1000).Draw(t, "step")
			blocks = append(blocks, b)
		}
		got, err := EncodeBlocks(blocks).DecodeBlocks()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(blocks, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// TestBlockFormat1 reads what earlier versions wrote.
func TestBlockFormat1(t *testing.T) {
	raw := []byte{1, 7}
	raw = appendText(raw, "abcd-0")
	raw = appendText(raw, "abcd-0-0-1")
	raw = binary.AppendVarint(raw, 1767323045)
	raw = binary.AppendUvarint(raw, 6)
	raw = append(raw, 1)
	raw = appendText(raw, `{"lo":0,"hi":0,"exit_code":3}`)
	raw = append(raw, 1)
	raw = appendText(raw, `{"lo":0,"hi":0,"attempt":2,"retries":1}`)
	raw = append(raw, 2)
	raw = appendRun(raw, 0, Range{Hi: 64}, 0)
	raw = appendRun(raw, 64, Range{Lo: 70, Hi: 71}, 1)
	raw = append(raw, 1)
	raw = appendRun(raw, 0, Range{Lo: 64, Hi: 70}, 0)
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	got, err := Row{Table: TableBlock, Key: BlockKey("abcd-0", 7), Value: raw}.DecodeBlocks()
	if err != nil {
		t.Fatal(err)
	}
	want := []BlockRow{{Seq: 7, Task: "abcd-0", Attempt: "abcd-0-0-1", At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Done:  []Outcome{{Range: Range{Hi: 64}, Success: true}, {Range: Range{Lo: 70, Hi: 71}, ExitCode: 3}},
		Again: []Try{{Range: Range{Lo: 64, Hi: 70}, Attempt: 2, Retries: 1}}}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDamagedBlock(t *testing.T) {
	r := EncodeBlock(BlockRow{Seq: 7, Task: "abcd-0", Done: []Outcome{{Range: Range{Hi: 64}, Success: true}, {Range: Range{Lo: 70, Hi: 71}, ExitCode: 3}}})
	if len(r.Value) > 80 {
		t.Errorf("a small block takes %d bytes", len(r.Value))
	}
	for i := range r.Value {
		for _, bad := range []Row{
			{Table: r.Table, Key: r.Key, Value: r.Value[:i]},
			{Table: r.Table, Key: r.Key, Value: slices.Concat(r.Value[:i], []byte{r.Value[i] ^ 0x10}, r.Value[i+1:])},
		} {
			if _, err := bad.DecodeBlocks(); err == nil || !strings.Contains(err.Error(), "is damaged") {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	r.Key = BlockKey("abcd-0", 8)
	if _, err := r.DecodeBlocks(); err == nil {
		t.Error("block 7 went through as block 8")
	}
}

// benchBlock is a crew's block as a node with many short tasks sends it.
func benchBlock(n int) BlockRow {
	rng := rand.New(rand.NewPCG(1, 2))
	b := BlockRow{Seq: 7, Task: "abcdef01-0", Attempt: "abcdef01-0-0-1", Node: "node17", At: time.Unix(1767323045, 0).UTC(), Costs: &Costs{}}
	start := b.At.UnixMicro() - 1_000_000
	for i := range n {
		o := Outcome{Range: Range{Lo: uint64(i), Hi: uint64(i) + 1}, Success: true}
		if i%100 == 99 {
			o.Success, o.ExitCode = false, 1
			b.Last = append(b.Last, LastLine{Index: uint64(i), Text: "error: no such file"})
		}
		if k := len(b.Done); k > 0 && o.Success && b.Done[k-1].Success {
			b.Done[k-1].Hi++
		} else {
			b.Done = append(b.Done, o)
		}
		start += rng.Int64N(40)
		b.Costs.Add(Cost{Attempt: 1, Start: start, Wall: 400 + rng.Uint64N(800), CPU: 300 + rng.Uint64N(500), RSS: 1800 + rng.Uint64N(200)})
	}
	return b
}

// BenchmarkBlock fails if a task takes more than 300 ns or 10 bytes.
func BenchmarkBlock(b *testing.B) {
	const n = 4096
	blk := benchBlock(n)
	row := EncodeBlock(blk)
	bound := func(b *testing.B) {
		each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / n
		b.ReportMetric(each, "ns/task")
		b.ReportMetric(float64(len(row.Value))/n, "bytes/task")
		if each > 300 || len(row.Value) > 10*n {
			b.Errorf("%.0f ns, %.1f bytes a task", each, float64(len(row.Value))/n)
		}
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			row = EncodeBlock(blk)
		}
		bound(b)
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := row.DecodeBlocks(); err != nil {
				b.Fatal(err)
			}
		}
		bound(b)
	})
	b.Run("outcomes", func(b *testing.B) {
		var in BlockReader
		var got BlockRow
		for b.Loop() {
			if err := in.Open(row); err != nil || !in.Next(&got) {
				b.Fatal(err)
			}
		}
		bound(b)
	})
}

// FuzzBlock reads bodies whose checksum is right: a wrong one ends it at once.
func FuzzBlock(f *testing.F) {
	f.Add(byte(1), []byte{})
	blk := benchBlock(200)
	blk.Again = []Try{{Range: Range{Lo: 64, Hi: 70}, Attempt: 2}}
	r := EncodeBlock(blk)
	f.Add(byte(2), r.Value[1:len(r.Value)-4])
	next := blk
	next.Seq++
	r = EncodeBlocks([]BlockRow{blk, next})
	f.Add(byte(2), r.Value[1:len(r.Value)-4])
	f.Fuzz(func(t *testing.T, format byte, body []byte) {
		_, _ = Row{Value: body}.DecodeBlocks()
		raw := append([]byte{format}, body...)
		raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
		blocks, err := Row{Value: raw}.DecodeBlocks()
		if err != nil || len(blocks) == 0 {
			return
		}
		for _, b := range blocks {
			for i := range b.Again { // a time that JSON reads and can't write again
				if y := b.Again[i].NotBefore.Year(); y < 0 || y > 9999 {
					return
				}
			}
		}
		again, err := EncodeBlocks(blocks).DecodeBlocks()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(EncodeBlocks(blocks).Value, EncodeBlocks(again).Value) {
			t.Fatal("read again, the blocks are others")
		}
	})
}
