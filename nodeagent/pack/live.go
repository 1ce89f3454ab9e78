package pack

import (
	"encoding/binary"
	"os"
	"path/filepath"
)

// ScratchPath is where a crew's scratch file for a stream (0 stdout, 1 stderr) is.
func ScratchPath(dir, id string, slot int, serial uint32, stream int) string {
	return filepath.Join(dir, scratchName(id, slot, serial, stream))
}

// Live is the table of whose a crew's scratch files are. It belongs to one
// goroutine.
type Live struct {
	f    *os.File
	b    []byte
	from int // what of b is not written
	to   int
}

// CreateLive makes the table of the crew id in dir, which is there.
func CreateLive(dir, id string) (*Live, error) {
	f, err := os.OpenFile(filepath.Join(dir, id+liveEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Live{f: f}, nil
}

// Set notes that scratch pair n, with that serial number, is an element's.
func (l *Live) Set(n int, index uint64, attempt, serial uint32) {
	var b [liveSize]byte
	binary.BigEndian.PutUint64(b[:], index+1)
	binary.BigEndian.PutUint32(b[8:], attempt)
	binary.BigEndian.PutUint32(b[12:], serial)
	binary.BigEndian.PutUint32(b[16:], checksum(b[:16]))
	l.put(n, b)
}

// Clear notes that scratch pair n is nobody's.
func (l *Live) Clear(n int) { l.put(n, [liveSize]byte{}) }

func (l *Live) put(n int, b [liveSize]byte) {
	at := n * liveSize
	if need := at + liveSize; need > len(l.b) {
		l.b = append(l.b, make([]byte, need-len(l.b))...)
	}
	if [liveSize]byte(l.b[at:at+liveSize]) == b {
		return
	}
	copy(l.b[at:], b[:])
	if l.from == l.to {
		l.from, l.to = at, at+liveSize
		return
	}
	l.from, l.to = min(l.from, at), max(l.to, at+liveSize)
}

// Write writes what has changed.
func (l *Live) Write() error {
	if l.from == l.to {
		return nil
	}
	_, err := l.f.WriteAt(l.b[l.from:l.to], int64(l.from))
	if err == nil {
		l.from, l.to = 0, 0
	}
	return err
}

// Close closes the table and empties it: nothing runs any more.
func (l *Live) Close() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}
