package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"gangway/nodeagent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(id string) *wire.Frame {
	return &wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{Assignment: &wire.Assignment{Id: id}}}}
}

func result(exit int32, stderr string) *wire.Frame {
	return &wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{
		ExitCode: exit, Ranks: []*wire.RankExit{{LastStderr: stderr}}}}}}}
}

func mustOpen(t interface{ Fatal(...any) }, dir, id string) *Spool {
	s, err := Open(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t *testing.T, dir, id string, want ...*wire.Frame) {
	t.Helper()
	got, err := Read(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	check(t, dir, "a") // none yet
	s := mustOpen(t, dir, "a")
	check(t, dir, "a")
	if err := s.Append(start("a")); err != nil {
		t.Fatal(err)
	}
	check(t, dir, "a", start("a")) // while it is open
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, "a")
	big := strings.Repeat("e", 3*reserve) // beyond the room taken at the start
	for _, f := range []*wire.Frame{result(3, big), result(4, "")} {
		if err := s.Append(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(&wire.Frame{}); err == nil {
		t.Error("an empty record was accepted")
	}
	_ = s.Close()
	check(t, dir, "a", start("a"), result(3, big), result(4, ""))

	mustOpen(t, dir, "b").Close()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, ids); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		if err := Remove(dir, "a"); err != nil {
			t.Error(err)
		}
	}
	check(t, dir, "a")
}

func TestBadArguments(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"", "../x", "a/b", "a.b", strings.Repeat("x", 65)} {
		if _, err := Open(dir, id); err == nil {
			t.Errorf("id %q was accepted", id)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing"), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	p := filepath.Join(dir, "x"+suffix)
	if err := os.WriteFile(p, []byte("something else entirely"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, "x"); err == nil || !strings.Contains(err.Error(), p) {
		t.Errorf("foreign file: %v", err)
	}
	if _, err := Open(dir, "x"); err == nil {
		t.Error("a foreign file was opened")
	}
	if b, _ := os.ReadFile(p); string(b) != "something else entirely" {
		t.Error("a foreign file was changed")
	}
}

// TestTorn cuts the file at every byte: what is read is a prefix of what was
// written, and writing goes on after it.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, "a")
	all := []*wire.Frame{start("a"), result(1, "one"), result(2, "two")}
	ends := []int64{int64(len(magic))}
	for _, f := range all {
		if err := s.Append(f); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.end)
	}
	_ = s.Close()
	path := filepath.Join(dir, "a"+suffix)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut <= s.end; cut++ {
		n := 0
		for n < len(all) && ends[n+1] <= cut {
			n++
		}
		for _, tail := range [][]byte{nil, make([]byte, 100), bytes.Repeat([]byte{0xff}, 100)} {
			if cut < int64(len(magic)) && tail != nil || cut == s.end && tail != nil && tail[0] != 0 {
				continue
			}
			if err := os.WriteFile(path, append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			check(t, dir, "a", all[:n]...)
		}
		s := mustOpen(t, dir, "a")
		if err := s.Append(result(9, "after")); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		check(t, dir, "a", append(all[:n:n], result(9, "after"))...)
		if t.Failed() {
			t.Fatalf("cut at %d", cut)
		}
	}
}

// disk is a file on a full or failing disk.
type disk struct {
	*os.File
	room    int64 // writes up to this offset succeed
	err     error
	syncErr error
}

func (d *disk) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= d.room {
		return d.File.WriteAt(b, off)
	}
	n := max(d.room-off, 0)
	m, _ := d.File.WriteAt(b[:n], off)
	return m, &fs.PathError{Op: "write", Path: d.Name(), Err: d.err}
}

func (d *disk) Sync() error { return d.syncErr }

func TestFullDisk(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a"+suffix)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{File: f, room: 1 << 20, err: errno}
		s, err := open(dir, path, d, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		d.room = s.size // from now on full
		if err := s.Append(start("a")); err != nil {
			t.Errorf("a record for which room was taken: %v", err)
		}
		err = s.Append(result(1, strings.Repeat("x", 2*reserve)))
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), dir+" is full") || !strings.Contains(err.Error(), "--tmpdir") {
			t.Errorf("full disk: %v", err)
		}
		check(t, dir, "a", start("a"))
		if err := s.Append(result(1, "short")); err != nil {
			t.Errorf("a short result after the refused one: %v", err)
		}
		check(t, dir, "a", start("a"), result(1, "short"))
		d.syncErr = syscall.EIO
		if err := s.Append(result(2, "unsure")); !errors.Is(err, syscall.EIO) {
			t.Errorf("failing sync: %v", err)
		}
		check(t, dir, "a", start("a"), result(1, "short"))
		_ = s.Close()
		// Full before it begins.
		g, err := os.Create(filepath.Join(dir, "b"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(dir, g.Name(), &disk{File: g, room: 5, err: errno}, nil, false); !errors.Is(err, errno) {
			t.Errorf("open on a full disk: %v", err)
		}
		_ = g.Close()
	}
}

// TestFullFileSystem fills a real one.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("needs root to mount a small file system: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	s := mustOpen(t, dir, "a")
	defer s.Close()
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for b := make([]byte, 4096); ; {
		if _, err := fill.Write(b); err != nil {
			break
		}
	}
	if err := s.Append(start("a")); err != nil {
		t.Error(err)
	}
	if err := s.Append(result(1, "last words")); err != nil {
		t.Error(err)
	}
	check(t, dir, "a", start("a"), result(1, "last words"))
	if _, err := Open(dir, "b"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("open on a full file system: %v", err)
	}
	if ids, err := List(dir); err != nil || len(ids) != 1 {
		t.Errorf("after the failed open: %v %v", ids, err)
	}
}

func TestReadIsWhatWasAppended(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		id := "p" + strings.Repeat("x", n%40)
		defer Remove(dir, id)
		var want []*wire.Frame
		s := mustOpen(t, dir, id)
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "reopen") {
				_ = s.Close()
				s = mustOpen(t, dir, id)
			}
			f := result(rapid.Int32().Draw(t, "exit"), strings.Repeat("e", rapid.IntRange(0, reserve).Draw(t, "len")))
			if err := s.Append(f); err != nil {
				t.Fatal(err)
			}
			want = append(want, f)
		}
		_ = s.Close()
		got, err := Read(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	s := mustOpen(f, dir, "a")
	_ = s.Append(start("a"))
	_ = s.Append(result(1, "x"))
	_ = s.Close()
	b, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:s.end])
	f.Add(b[:s.end-1])
	f.Add([]byte(magic))
	f.Add([]byte("gang"))
	f.Fuzz(func(t *testing.T, b []byte) {
		recs, end, err := parse(b)
		if err != nil {
			return
		}
		if end > int64(len(b)) {
			t.Fatalf("end %d of %d bytes", end, len(b))
		}
		again, end2, err := parse(b[:end])
		if err != nil || end2 != end || len(again) != len(recs) {
			t.Fatalf("the whole part reads differently: %d of %d records, %v", len(again), len(recs), err)
		}
	})
}

func BenchmarkAppendResult(b *testing.B) {
	s := mustOpen(b, b.TempDir(), "a")
	defer s.Close()
	for b.Loop() {
		if err := s.Append(result(0, "")); err != nil {
			b.Fatal(err)
		}
	}
}
