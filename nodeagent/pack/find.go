package pack

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Piece is where a stream's output is: length bytes of File from Offset on. File
// is relative to the root that was searched.
type Piece struct {
	File   string
	Offset int64
	Length int64
	At     time.Time // of the element's end; zero: it runs
}

// Found is the output of an element's newest attempt that has written anything.
type Found struct {
	Attempt uint32
	Running bool
	Streams [2]*Piece // stdout, stderr; nil: nothing was written
}

// mostFiles bounds how many names of a pack's directory are looked at.
const mostFiles = 100_000

// Find looks in the packs of dir, below root, for the output of the element with
// that index. An element of which nothing is there is fs.ErrNotExist.
func Find(root *os.Root, dir string, index uint64) (Found, error) {
	d, err := open(root, dir)
	if err != nil {
		return Found{}, err
	}
	names, err := d.Readdirnames(mostFiles)
	_ = d.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return Found{}, err
	}
	slices.Sort(names)
	var out Found
	has := false
	newer := func(attempt uint32) bool {
		switch {
		case has && attempt < out.Attempt:
			return false
		case !has || attempt > out.Attempt:
			out, has = Found{Attempt: attempt}, true
		}
		return true
	}
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, indexEnd); ok {
			err = scan(root, path.Join(dir, name), func(r record) {
				if r.index != index || r.length == 0 || !newer(r.attempt) {
					return
				}
				p := &Piece{File: path.Join(dir, id+dataEnd), Offset: int64(r.offset), Length: int64(r.length), At: time.Unix(0, r.at)}
				if r.own {
					p.File, p.Offset = path.Join(dir, ownName(id, r.index, r.attempt, int(r.stream))), 0
				}
				if p.Offset >= 0 && p.Length > 0 {
					out.Streams[r.stream] = p
				}
			})
			if err != nil {
				return Found{}, err
			}
		}
	}
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, liveEnd); ok {
			if err := scanLive(root, path.Join(dir, name), func(n int, i uint64, attempt, serial uint32) {
				// What ended meanwhile is in the index, or will be.
				if i != index || has && attempt <= out.Attempt {
					return
				}
				f := Found{Attempt: attempt, Running: true}
				for s := range f.Streams {
					file := path.Join(dir, scratchName(id, n, serial, s))
					if fi, err := root.Lstat(file); err == nil && fi.Mode().IsRegular() {
						f.Streams[s] = &Piece{File: file, Length: fi.Size()}
					}
				}
				if f.Streams[0] != nil || f.Streams[1] != nil {
					out, has = f, true
				}
			}); err != nil {
				return Found{}, err
			}
		}
	}
	if !has {
		return Found{}, fs.ErrNotExist
	}
	return out, nil
}

// open opens what is below root without waiting for a writer of a pipe.
func open(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// scan calls f with the records of an index. A file that is no index has none: a
// task may put anything there.
func scan(root *os.Root, name string, f func(record)) error {
	file, err := open(root, name)
	if err != nil {
		return gone(err)
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	return scanIndex(file, f)
}

func scanIndex(r io.Reader, f func(record)) error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != magic {
		return whole(err)
	}
	b := make([]byte, 1024*recordSize)
	for {
		n, err := io.ReadFull(r, b)
		for at := 0; at+recordSize <= n; at += recordSize {
			if rec, ok := parseRecord(b[at:]); ok {
				f(rec)
			}
		}
		if err != nil {
			return whole(err)
		}
	}
}

// scanLive calls f with the entries of a table of scratch files.
func scanLive(root *os.Root, name string, f func(n int, index uint64, attempt, serial uint32)) error {
	file, err := open(root, name)
	if err != nil {
		return gone(err)
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(file, mostFiles*liveSize))
	if err != nil {
		return err
	}
	parseLive(b, f)
	return nil
}

func parseLive(b []byte, f func(n int, index uint64, attempt, serial uint32)) {
	for n := 0; (n+1)*liveSize <= len(b); n++ {
		e := b[n*liveSize:]
		if i := binary.BigEndian.Uint64(e); i > 0 && checksum(e[:16]) == binary.BigEndian.Uint32(e[16:]) {
			f(n, i-1, binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:]))
		}
	}
}

// whole takes the end of a file, wherever it is, for its end.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// gone takes what is no longer there for nothing.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
