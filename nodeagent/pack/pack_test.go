package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func read(t testing.TB, dir string, p *Piece) string {
	t.Helper()
	if p == nil {
		return ""
	}
	f, err := os.Open(filepath.Join(dir, p.File))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, p.Length)
	if _, err := f.ReadAt(b, p.Offset); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	rapid.Check(t, func(t *rapid.T) {
		d, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]map[int]string{}
		newest := map[uint64]uint32{}
		for c := range rapid.IntRange(1, 3).Draw(t, "crews") {
			w, err := Create(d, fmt.Sprint("crew", c))
			if err != nil {
				t.Fatal(err)
			}
			for i := range rapid.IntRange(0, 20).Draw(t, fmt.Sprint("outputs ", c)) {
				index := rapid.Uint64Range(0, 10).Draw(t, fmt.Sprint("index ", c, i))
				attempt := newest[index] + 1
				newest[index], want[index] = attempt, map[int]string{}
				for s := range 2 {
					text := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, fmt.Sprint("text ", c, i, s))
					if rapid.IntRange(0, 9).Draw(t, fmt.Sprint("big ", c, i, s)) == 0 {
						text = bytes.Repeat(text, bufferSize/len(text)+1)
					}
					want[index][s] = string(text)
					if rapid.Bool().Draw(t, fmt.Sprint("own ", c, i, s)) {
						p := filepath.Join(d, "scratch")
						if err := errors.Join(os.WriteFile(p, text, 0o600), w.Keep(index, attempt, s, p, int64(len(text)), time.Unix(int64(i), 0))); err != nil {
							t.Fatal(err)
						}
					} else if err := w.Add(index, attempt, s, bytes.NewReader(text), int64(len(text)), time.Unix(int64(i), 0)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for index := range uint64(11) {
			f, err := Find(root, filepath.Base(d), index)
			if newest[index] == 0 {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("element %d: %+v, %v", index, f, err)
				}
				continue
			}
			if err != nil || f.Attempt != newest[index] || f.Running {
				t.Fatalf("element %d: %+v, %v", index, f, err)
			}
			for s := range 2 {
				p := f.Streams[s]
				file, err := os.Open(filepath.Join(dir, p.File))
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, p.Length)
				_, err = file.ReadAt(b, p.Offset)
				_ = file.Close()
				if err != nil || string(b) != want[index][s] {
					t.Fatalf("element %d, stream %d: %d bytes, %v", index, s, len(b), err)
				}
			}
		}
	})
}

func TestTornPack(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, "c")
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := w.Add(i, 1, 0, bytes.NewReader([]byte("text")), 4, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "c.index")
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	b[len(magic)+recordSize+3] ^= 1 // the second
	if err := os.WriteFile(p, b[:len(b)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	for i, want := range []bool{true, false, false} {
		f, err := Find(root, ".", uint64(i))
		if (err == nil) != want || want && read(t, dir, f.Streams[0]) != "text" {
			t.Errorf("element %d: %+v, %v", i, f, err)
		}
	}
}

func TestLive(t *testing.T) {
	dir := t.TempDir()
	l, err := CreateLive(dir, "c")
	if err != nil {
		t.Fatal(err)
	}
	l.Set(2, 17, 3, 5)
	if err := errors.Join(l.Write(), os.WriteFile(ScratchPath(dir, "c", 2, 5, 0), []byte("so far"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	f, err := Find(root, ".", 17)
	if err != nil || !f.Running || f.Attempt != 3 || read(t, dir, f.Streams[0]) != "so far" || f.Streams[1] != nil {
		t.Errorf("%+v, %v", f, err)
	}
	l.Clear(2)
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	if f, err := Find(root, ".", 17); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", f, err)
	}
	l.Close()
}

// FuzzFind reads any files as a pack.
func FuzzFind(f *testing.F) {
	index := append([]byte(magic), record{index: 1, attempt: 1, length: 5}.appendTo(nil)...)
	var live [liveSize]byte
	f.Add(index, live[:])
	f.Add(index[:20], []byte{})
	f.Add(append([]byte(magic), record{index: 1, attempt: 2, own: true, offset: 1 << 63, length: 1 << 63}.appendTo(nil)...), live[:5])
	f.Fuzz(func(t *testing.T, index, live []byte) {
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "c.index"), index, 0o600), os.WriteFile(filepath.Join(dir, "c.live"), live, 0o600)); err != nil {
			t.Fatal(err)
		}
		root := openRoot(t, dir)
		for i := range uint64(3) {
			found, err := Find(root, ".", i)
			if err != nil {
				continue
			}
			for _, p := range found.Streams {
				if p != nil && (p.Offset < 0 || p.Length < 0) {
					t.Fatalf("%+v", p)
				}
			}
		}
	})
}
