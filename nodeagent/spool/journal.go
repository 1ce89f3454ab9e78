package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

// Journal is a spool that is written for as long as there is work: it can be
// begun anew, so that it does not grow with what has been acknowledged. Its file
// is a spool like any other for Read, List and Remove. Its methods may be called
// from several goroutines: Sync does not keep others from appending.
type Journal struct {
	dir, path string

	mu   sync.Mutex
	f    *os.File
	end  int64
	buf  []byte
	gone bool
}

// OpenJournal begins the spool of id in dir anew.
func OpenJournal(dir, id string) (*Journal, error) {
	path, err := pathOf(dir, id)
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, path: path}
	if err := j.Rewrite(); err != nil {
		return nil, err
	}
	return j, nil
}

// Append adds records: all, or after an error none. They survive the death of
// this process; that of the node only after Sync.
func (j *Journal) Append(frames ...*wire.Frame) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return fmt.Errorf("spool %s: %w", j.path, os.ErrClosed)
	}
	j.buf = j.buf[:0]
	var err error
	for _, f := range frames {
		if j.buf, err = appendRecord(j.buf, f); err != nil {
			return fmt.Errorf("spool %s: %w", j.path, err)
		}
	}
	n, err := j.f.WriteAt(j.buf, j.end)
	if err != nil {
		if n > 0 {
			_ = j.f.Truncate(j.end)
		}
		return explain(j.dir, fmt.Errorf("spool %s: %w", j.path, err))
	}
	j.end += int64(n)
	return nil
}

// Sync returns when what was appended before is on the disk.
func (j *Journal) Sync() error {
	j.mu.Lock()
	f := j.f
	j.mu.Unlock()
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // a new file was synced when it was made
		return explain(j.dir, fmt.Errorf("spool %s: %w", j.path, err))
	}
	return nil
}

// Size is the length of the file in bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end
}

// Rewrite puts a file with these records alone in the place of the present one.
// They are on the disk when it returns; after an error the present one stays.
func (j *Journal) Rewrite(frames ...*wire.Frame) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return fmt.Errorf("spool %s: %w", j.path, os.ErrClosed)
	}
	b := []byte(magic)
	var err error
	for _, f := range frames {
		if b, err = appendRecord(b, f); err != nil {
			return fmt.Errorf("spool %s: %w", j.path, err)
		}
	}
	fresh := j.path + ".new"
	_ = os.Remove(fresh)
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return explain(j.dir, fmt.Errorf("spool: %w", err))
	}
	if _, err = io.Copy(f, bytes.NewReader(b)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(fresh, j.path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(fresh)
		return explain(j.dir, fmt.Errorf("spool %s: %w", j.path, err))
	}
	// The name must survive a crash too. Not every system can sync a directory.
	if d, err := os.Open(filepath.Dir(j.path)); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	if j.f != nil {
		_ = j.f.Close()
	}
	j.f, j.end = f, int64(len(b))
	return nil
}

// Close closes the file and leaves it in place.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return nil
	}
	j.gone = true
	return j.f.Close()
}

// appendRecord appends a record to b.
func appendRecord(b []byte, f *wire.Frame) ([]byte, error) {
	from, before := len(b), b
	b = append(b, make([]byte, head)...)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, f)
	if err != nil {
		return before, err
	}
	payload := b[from+head:]
	switch {
	case len(payload) == 0:
		return b[:from], errors.New("an empty record says nothing")
	case len(payload) > wire.MaxFrame:
		return b[:from], fmt.Errorf("a record of %d bytes is more than %d", len(payload), wire.MaxFrame)
	}
	binary.BigEndian.PutUint32(b[from:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[from+4:], sum(b[from:from+4], payload))
	return b, nil
}
