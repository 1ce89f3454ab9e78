// Package spool keeps a shim's durable records on the node until the launcher
// has them: a start before the spawn, a result after the wait. One file a shim,
// append-only; whatever killed the writer, and whenever, reading yields the
// records that were written whole and nothing else.
//
// The file is the magic line, then records: payload length (4 bytes, big
// endian), CRC-32C of length and payload (4 bytes), payload (a wire.Frame).
// The file is longer than its records: room for a result is written as zeros
// when it is made, so a disk that fills up during the job costs no result.
package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

const (
	magic  = "gangway spool 1\n"
	suffix = ".spool"
	head   = 8
	// reserve is enough for the result of some hundred ranks.
	reserve = 64 << 10
)

// file is what a spool needs of *os.File; tests let it fail.
type file interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// Spool is an open spool. It belongs to one goroutine of one process.
type Spool struct {
	dir, path string
	f         file
	brief     bool  // see OpenBrief
	end       int64 // of the records
	size      int64 // of the file
}

// Open opens the spool of id in dir, making it where missing. Records that are
// there stay; a torn one at the end is dropped.
func Open(dir, id string) (*Spool, error) {
	s, err := openFile(dir, id, false)
	if err != nil {
		return nil, err
	}
	// The name must survive a crash too. Not every system can sync a directory.
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return s, nil
}

// OpenBrief is Open for records that nobody wants after the death of the node: they
// survive that of the process, and nothing waits for the disk.
func OpenBrief(dir, id string) (*Spool, error) { return openFile(dir, id, true) }

func openFile(dir, id string, brief bool) (*Spool, error) {
	path, err := pathOf(dir, id)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explain(dir, fmt.Errorf("spool: %w", err))
	}
	b, err := io.ReadAll(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	s, err := open(dir, path, f, b, brief)
	if err != nil {
		_ = f.Close()
		if len(b) == 0 {
			_ = os.Remove(path)
		}
		return nil, err
	}
	return s, nil
}

func open(dir, path string, f file, content []byte, brief bool) (*Spool, error) {
	_, end, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", path, err)
	}
	s := &Spool{dir: dir, path: path, f: f, brief: brief, end: end, size: int64(len(content))}
	if end < int64(len(magic)) { // empty, or torn within the magic
		s.end = int64(len(magic))
		if err := s.put([]byte(magic), 0); err != nil {
			return nil, err
		}
		s.size = max(s.size, s.end)
	}
	// Zeros from the end on: the torn record goes, and the room is taken now.
	room := make([]byte, max(s.size-s.end, reserve))
	if err := s.put(room, s.end); err != nil {
		return nil, err
	}
	s.size = s.end + int64(len(room))
	if err := s.sync(); err != nil {
		return nil, explain(dir, fmt.Errorf("spool %s: %w", path, err))
	}
	return s, nil
}

// put writes b at off.
func (s *Spool) put(b []byte, off int64) error {
	if _, err := s.f.WriteAt(b, off); err != nil {
		return explain(s.dir, fmt.Errorf("spool %s: %w", s.path, err))
	}
	return nil
}

func (s *Spool) sync() error {
	if s.brief {
		return nil
	}
	return s.f.Sync()
}

// Append adds a record. A result is on the disk when Append returns (see OpenBrief); other
// records survive the death of this process, not that of the node, which ends
// what they speak of. After an error the record is not in the spool and the
// spool may still be used.
func (s *Spool) Append(f *wire.Frame) error {
	payload, err := proto.Marshal(f)
	if err != nil {
		return fmt.Errorf("spool %s: %w", s.path, err)
	}
	if len(payload) == 0 {
		return fmt.Errorf("spool %s: an empty record says nothing", s.path)
	}
	if len(payload) > wire.MaxFrame {
		return fmt.Errorf("spool %s: a record of %d bytes is more than %d", s.path, len(payload), wire.MaxFrame)
	}
	b := make([]byte, head, head+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[4:], sum(b[:4], payload))
	durable := f.GetFrom().GetResult() != nil
	err = s.put(b, s.end)
	if err == nil && durable {
		if serr := s.sync(); serr != nil {
			err = explain(s.dir, fmt.Errorf("spool %s: %w", s.path, serr))
		}
	}
	if err != nil {
		// Zeros within the old size need no new room; beyond it the file is cut.
		_, _ = s.f.WriteAt(make([]byte, min(int64(len(b)), s.size-s.end)), s.end)
		_ = s.f.Truncate(s.size)
		return err
	}
	s.end += int64(len(b))
	s.size = max(s.size, s.end)
	return nil
}

// Close closes the file and leaves it in place.
func (s *Spool) Close() error { return s.f.Close() }

// Read returns the whole records of id's spool in dir in their order, also
// while another process appends to it; none when there is no spool. It fails
// when the file can't be read or is no spool.
func Read(dir, id string) ([]*wire.Frame, error) {
	path, err := pathOf(dir, id)
	if err != nil {
		return nil, err
	}
	b, err := readRegular(dir, filepath.Base(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	recs, _, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", path, err)
	}
	return recs, nil
}

// longest is the longest spool that is read: many times what shims write.
const longest = 4 * wire.MaxFrame

// readRegular reads a file that another user may have put into dir: nothing
// outside of it, no pipe that never ends, no more than memory should hold.
func readRegular(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > longest {
		return nil, fmt.Errorf("%s is no spool: %v of %d bytes", filepath.Join(dir, name), fi.Mode().Type(), fi.Size())
	}
	return io.ReadAll(io.LimitReader(f, longest))
}

// Remove forgets id's spool. A spool that is not there is forgotten already.
func Remove(dir, id string) error {
	path, err := pathOf(dir, id)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// List returns the ids that have a spool in dir, sorted.
func List(dir string) ([]string, error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var ids []string
	for _, e := range ents {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok && e.Type().IsRegular() && validID(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// parse returns the whole records at the start of b and where they end; what
// follows is room, or torn. Bytes that are no spool's are an error.
func parse(b []byte) (recs []*wire.Frame, end int64, err error) {
	if len(b) < len(magic) && strings.HasPrefix(magic, string(b)) {
		return nil, 0, nil
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, 0, errors.New("the file does not begin as a spool does; remove it")
	}
	end = int64(len(magic))
	for {
		r := b[end:]
		if len(r) < head {
			return recs, end, nil
		}
		n := binary.BigEndian.Uint32(r)
		if n == 0 || n > wire.MaxFrame || int64(n) > int64(len(r)-head) {
			return recs, end, nil
		}
		payload := r[head : head+int(n)]
		if sum(r[:4], payload) != binary.BigEndian.Uint32(r[4:]) {
			return recs, end, nil
		}
		f := new(wire.Frame)
		if proto.Unmarshal(payload, f) != nil {
			return recs, end, nil
		}
		recs = append(recs, f)
		end += int64(head) + int64(n)
	}
}

func sum(length, payload []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, t, length), t, payload)
}

func pathOf(dir, id string) (string, error) {
	if !validID(id) {
		return "", fmt.Errorf("spool: %q is not an id", id)
	}
	return filepath.Join(dir, id+suffix), nil
}

func validID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// explain says what to do about a full disk.
func explain(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: the file system or quota of %s is full: free space there, or give --tmpdir another local directory", err, dir)
	}
	return err
}
