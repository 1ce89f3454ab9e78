package nodeagent

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"gangway/nodeagent/pack"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// The elements of a kept array have no directories: what they wrote is in the
// packs of their array's task. The file service shows it under the paths that an
// element's own directory would have: for the task A, A_17/stdout.txt.

// streamFiles are the files of a task's streams, by stream.
var streamFiles = [...]string{"stdout.txt", "stderr.txt"}

// packedPath says whether p can be an element's directory or file: dir is where
// its array's packs would be, stream -1 for the directory.
func packedPath(p string) (dir string, index uint64, stream int, ok bool) {
	stream = -1
	for i, name := range streamFiles {
		if d, has := strings.CutSuffix(p, "/"+name); has {
			p, stream = d, i
			break
		}
	}
	at := strings.LastIndexByte(p, '_')
	if at < 0 || at < strings.LastIndexByte(p, '/')+2 {
		return "", 0, 0, false
	}
	n := p[at+1:]
	index, err := strconv.ParseUint(n, 10, 64)
	if err != nil || strconv.FormatUint(index, 10) != n {
		return "", 0, 0, false
	}
	return path.Join(p[:at], pack.Dir), index, stream, true
}

// packedFile does what is asked of an element's files; false when p is none of
// them. What is there under its own name goes first.
func packedFile(tasks *os.Root, q *wire.FileRequest, r *wire.FileReply) (bool, error) {
	p := q.GetPath()
	dir, index, stream, ok := packedPath(p)
	switch q.GetOp() {
	case wire.FileOp_FILE_OP_LIST, wire.FileOp_FILE_OP_STAT, wire.FileOp_FILE_OP_READ:
	default:
		ok = false
	}
	if !ok {
		return false, nil
	}
	if _, err := tasks.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	in, err := placeOf(tasks, dir)
	if err != nil {
		return true, err
	}
	defer in.close()
	if _, err := in.root.Lstat(in.rel); err != nil {
		return false, nil // no array's: the usual answer fits
	}
	found, err := pack.Find(in.root, in.rel, index)
	if err != nil {
		return true, err
	}
	base := p
	if stream >= 0 {
		base = path.Dir(p)
	}
	switch op := q.GetOp(); {
	case op == wire.FileOp_FILE_OP_LIST && stream >= 0:
		return true, fileErr(wire.FileError_FILE_ERROR_KIND, "it is not a directory")
	case op == wire.FileOp_FILE_OP_READ && stream < 0:
		return true, fileErr(wire.FileError_FILE_ERROR_KIND, "it is a directory")
	case op == wire.FileOp_FILE_OP_LIST:
		for i := len(streamFiles) - 1; i >= 0; i-- { // by name
			if e := pieceEntry(base+"/"+streamFiles[i], found.Streams[i]); e.GetPath() > q.GetCursor() {
				if limit := int(q.GetLimit()); limit > 0 && len(r.Entries) == limit {
					r.More = true
					break
				}
				r.Entries, r.Cursor = append(r.Entries, e), e.GetPath()
			}
		}
		return true, nil
	case op == wire.FileOp_FILE_OP_STAT && stream < 0:
		e := pieceEntry(base, nil)
		e.Dir, e.Mode = true, uint32(fs.ModeDir|0o700)
		for _, s := range found.Streams {
			e.MtimeNs = max(e.MtimeNs, pieceEntry("", s).GetMtimeNs())
		}
		r.Entries = []*wire.FileEntry{e}
		return true, nil
	case op == wire.FileOp_FILE_OP_STAT:
		r.Entries = []*wire.FileEntry{pieceEntry(p, found.Streams[stream])}
		return true, nil
	}
	return true, in.readPiece(found.Streams[stream], q, r)
}

// pieceEntry is how a stream's output is shown; nil: it is empty.
func pieceEntry(shown string, s *pack.Piece) *wire.FileEntry {
	e := &wire.FileEntry{Path: shown, Mode: 0o600}
	if s == nil {
		return e
	}
	at := s.At
	if at.IsZero() {
		at = time.Now() // it is being written
	}
	e.Size, e.MtimeNs, e.CtimeNs = uint64(s.Length), at.UnixNano(), at.UnixNano()
	return e
}

// readPiece reads of a stream's output.
func (p *place) readPiece(s *pack.Piece, q *wire.FileRequest, r *wire.FileReply) error {
	n := q.GetLength()
	switch {
	case n > wire.FileReadLimit:
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "%d bytes are more than the %d that one request may read", n, wire.FileReadLimit)
	case q.GetOffset() > math.MaxInt64-wire.FileReadLimit:
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "offset %d is beyond what a file can hold", q.GetOffset())
	case n == 0:
		n = wire.FileReadLimit
	}
	r.Entries = []*wire.FileEntry{pieceEntry(q.GetPath(), s)}
	if s == nil {
		r.Eof = true
		return nil
	}
	f, fi, err := p.open(s.File)
	if err != nil {
		return err
	}
	defer f.Close()
	switch uid, _, ok := proc.FileOwner(fi); {
	case !fi.Mode().IsRegular():
		return fileErr(wire.FileError_FILE_ERROR_KIND, "it is not a regular file")
	case p.inner && p.owner != anyone && (!ok || uid != p.owner):
		return fileErr(wire.FileError_FILE_ERROR_DENIED, "it belongs to another user than the task's directory")
	}
	off := int64(q.GetOffset())
	buf := make([]byte, min(int64(n), max(s.Length-off, 0)))
	got, err := io.NewSectionReader(f, s.Offset, s.Length).ReadAt(buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.Data = buf[:got]
	r.Eof = off+int64(got) >= s.Length || errors.Is(err, io.EOF)
	return nil
}
