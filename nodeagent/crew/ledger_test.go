package crew

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
)

func readBack(t testing.TB, dir string, told *wire.Work) Found {
	t.Helper()
	recs, err := spool.Read(dir, "crew")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Recover(recs, told)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func openLedger(t testing.TB) (*ledger, string) {
	t.Helper()
	dir := t.TempDir()
	l, err := newLedger(dir, "crew", &wire.AttemptName{TaskUid: "u"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.j.Close() })
	return l, dir
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func runs(attempt uint32, lo, hi uint64) []*wire.Run { return []*wire.Run{run(attempt, lo, hi)} }

func TestLedgerRecovered(t *testing.T) {
	l, dir := openLedger(t)
	if f := readBack(t, dir, nil); f.Returned != nil || len(f.Blocks) > 0 {
		t.Errorf("of an empty one: %+v", f)
	}
	must(t, l.give(runs(1, 0, 100)), l.begin(runs(1, 0, 10)))
	if f := readBack(t, dir, nil); cmp.Diff(asModel(runs(1, 10, 100)), asModel(f.Returned.GetReturned())) != "" || f.Returned.GetSeq() != 1 {
		t.Errorf("given back: %v", f.Returned)
	}
	must(t, l.commit(&wire.Block{Runs: runs(1, 0, 5), Returned: runs(1, 90, 100)}), l.give(runs(2, 90, 95)))
	f := readBack(t, dir, nil)
	want := asModel(runs(1, 10, 90))
	want.fill(2, 90, 95, true)
	if d := cmp.Diff(want, asModel(f.Returned.GetReturned())); d != "" || len(f.Blocks) != 1 || f.Returned.GetSeq() != 2 {
		t.Errorf("%+v\n%s", f, d)
	}
	f = readBack(t, dir, &wire.Work{Runs: runs(1, 200, 201)})
	want.fill(1, 200, 201, true)
	if d := cmp.Diff(want, asModel(f.Returned.GetReturned())); d != "" {
		t.Error(d)
	}
}

// TestLedgerNumbersGoOn begins the file anew when every block is acknowledged: what
// is given back after the crew's death must not have the number of one of these.
func TestLedgerNumbersGoOn(t *testing.T) {
	l, dir := openLedger(t)
	must(t, l.give(runs(1, 0, 100)))
	for i := range uint64(3) {
		must(t, l.begin(runs(1, i, i+1)), l.commit(&wire.Block{Runs: runs(1, i, i+1)}))
	}
	l.ack(3)
	l.kept = -rewriteAt
	must(t, l.tidy())
	f := readBack(t, dir, nil)
	if len(f.Blocks) > 0 || f.Returned.GetSeq() != 4 || cmp.Diff(asModel(runs(1, 3, 100)), asModel(f.Returned.GetReturned())) != "" {
		t.Errorf("%d blocks, given back %v", len(f.Blocks), f.Returned)
	}
	must(t, l.commit(&wire.Block{Runs: runs(1, 3, 4)}))
	if f := readBack(t, dir, nil); len(f.Blocks) != 1 || f.Returned.GetSeq() != 5 {
		t.Errorf("%d blocks, given back %v", len(f.Blocks), f.Returned)
	}
}

// TestLedgerBounded runs a crew for long: neither its file nor its memory grows.
func TestLedgerBounded(t *testing.T) {
	l, dir := openLedger(t)
	must(t, l.record(&wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{M: &wire.FromShim_Started{Started: &wire.Started{Pid: 1}}}}}))
	const step = 4000
	var most int64
	for i := range uint64(150) {
		lo := i * step
		must(t, l.give(runs(1, lo, lo+2*step)))
		for k := range uint64(40) {
			must(t, l.begin(runs(1, lo+k*100, lo+k*100+100)))
		}
		var b wire.Block
		b.Runs = runs(1, lo, lo+step)
		for range step {
			b.StartUs, b.WallUs, b.CpuUs, b.RssKib = append(b.StartUs, 1_000_000), append(b.WallUs, 100_000), append(b.CpuUs, 100_000), append(b.RssKib, 100_000)
		}
		must(t, l.commit(&b))
		if i > 3 {
			l.ack(i - 3)
		}
		must(t, l.tidy())
		most = max(most, l.j.Size())
	}
	if most > 2*rewriteAt {
		t.Errorf("the spool grew to %d bytes", most)
	}
	f := readBack(t, dir, nil)
	if d := cmp.Diff(asModel(runs(1, 150*step, 151*step)), asModel(f.Returned.GetReturned())); d != "" {
		t.Error(d)
	}
	if last := f.Blocks[len(f.Blocks)-1]; last.GetSeq() != 150 {
		t.Errorf("the last block is %d", last.GetSeq())
	}
	recs, err := spool.Read(dir, "crew")
	if err != nil || recs[0].GetFrom().GetStarted().GetPid() != 1 {
		t.Errorf("the first record: %v, %v", recs[0], err)
	}
}

// FuzzRecover reads any records: length-delimited frames.
func FuzzRecover(f *testing.F) {
	add := func(frames ...*wire.Frame) {
		var b []byte
		for _, fr := range frames {
			p, err := proto.Marshal(fr)
			must(f, err)
			b = protowire.AppendBytes(b, p)
		}
		f.Add(b)
	}
	l := &ledger{id: "crew"}
	add(givenFrame("crew", runs(1, 0, 10)), l.blockFrame(&wire.Block{Runs: runs(1, 0, 3)}), l.blockFrame(&wire.Block{Seq: 4, Runs: runs(1, 0, 2), Returned: runs(1, 8, 10)}))
	add(givenFrame("crew", runs(1, 5, 2)), l.blockFrame(&wire.Block{Seq: 1}), l.blockFrame(&wire.Block{Seq: 3}))
	add(givenFrame("crew", runs(1, 0, 1<<63)))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var recs []*wire.Frame
		for len(b) > 0 && len(recs) < 1000 {
			p, n := protowire.ConsumeBytes(b)
			if n < 0 {
				break
			}
			b = b[n:]
			fr := new(wire.Frame)
			if proto.Unmarshal(p, fr) != nil {
				break
			}
			recs = append(recs, fr)
		}
		found, err := Recover(recs, nil)
		if err != nil || found.Returned == nil {
			return
		}
		back := set{}
		back.addRuns(found.Returned.GetReturned())
		for _, fr := range recs {
			if blk := fr.GetFrom().GetBlock(); blk != nil {
				for _, r := range blk.GetRuns() {
					if lo := r.GetRange().GetLo(); lo < r.GetRange().GetHi() && back.has(r.GetAttempt(), lo) {
						t.Fatalf("what was begun is given back: %v", r)
					}
				}
			}
		}
	})
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\n\n": "b", "x": "x", "": "", "a\n\xff\xfe": "�", "a\r\nb\r\n": "b",
		string(bytes.Repeat([]byte("ä"), 400)): string(bytes.Repeat([]byte("ä"), 256)),
	} {
		if got := lastOf(bytes.NewReader([]byte(in)), int64(len(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
