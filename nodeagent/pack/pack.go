// Package pack keeps the output of many programs in few files: for each crew that
// ran some of them a data file and an index, both only appended to, so that they
// may be read while they are written. What is torn at the end, or missing, costs
// the reader that piece alone.
//
// The index is the magic line, then records of 48 bytes, big endian: the
// element's index (8), attempt (4), stream (1; 0 stdout, 1 stderr), place (1; 0 the
// crew's data file, 1 a file of its own), zero (2), offset (8), length (8), time of
// the end in unix nanoseconds (8), CRC-32C of these 40 bytes (4), zero (4).
//
// What an element writes while it runs is in one of the crew's scratch files. A
// table of 24 bytes each says whose: index + 1, 0: nobody's (8), attempt (4), serial
// number of the file (4), CRC-32C of these (4), zero (4).
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Dir is the directory of an array's packs in its task's directory.
const Dir = "packed"

// Large is the length in bytes from which on an output keeps its own file.
const Large = 8 << 20

const (
	magic      = "gangway pack 1\n\x00"
	recordSize = 48
	liveSize   = 24
	indexEnd   = ".index"
	dataEnd    = ".data"
	liveEnd    = ".live"
)

// record is an entry of the index.
type record struct {
	index   uint64
	attempt uint32
	stream  uint8
	own     bool
	offset  uint64
	length  uint64
	at      int64 // unix ns
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (r record) appendTo(b []byte) []byte {
	from := len(b)
	b = binary.BigEndian.AppendUint64(b, r.index)
	b = binary.BigEndian.AppendUint32(b, r.attempt)
	own := byte(0)
	if r.own {
		own = 1
	}
	b = append(b, r.stream, own, 0, 0)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	b = binary.BigEndian.AppendUint64(b, r.length)
	b = binary.BigEndian.AppendUint64(b, uint64(r.at))
	b = binary.BigEndian.AppendUint32(b, checksum(b[from:]))
	return append(b, 0, 0, 0, 0)
}

// parseRecord reads a record; false when it was not written whole.
func parseRecord(b []byte) (record, bool) {
	if len(b) < recordSize || checksum(b[:40]) != binary.BigEndian.Uint32(b[40:]) || b[12] > 1 {
		return record{}, false
	}
	r := record{
		index: binary.BigEndian.Uint64(b), attempt: binary.BigEndian.Uint32(b[8:]), stream: b[12], own: b[13] == 1,
		offset: binary.BigEndian.Uint64(b[16:]), length: binary.BigEndian.Uint64(b[24:]), at: int64(binary.BigEndian.Uint64(b[32:])),
	}
	return r, true
}

// scratchName is the name of a scratch file.
func scratchName(id string, slot int, serial uint32, stream int) string {
	return fmt.Sprintf("%s.%d-%d.%s", id, slot, serial, streamNames[stream])
}

// ownName is the name of the file that an output keeps for itself.
func ownName(id string, index uint64, attempt uint32, stream int) string {
	return id + "." + strconv.FormatUint(index, 10) + "." + strconv.FormatUint(uint64(attempt), 10) + "." + streamNames[stream]
}

var streamNames = [2]string{"out", "err"}

// Writer writes a crew's pack. It belongs to one goroutine.
type Writer struct {
	dir, id string
	data    *os.File
	index   *os.File
	end     int64 // of data
	indexed int64 // length of index
	buf     []byte
	records []byte
}

// Create makes the pack of id in dir, which is there.
func Create(dir, id string) (*Writer, error) {
	w := &Writer{dir: dir, id: id}
	var err error
	if w.data, err = os.OpenFile(filepath.Join(dir, id+dataEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	if w.index, err = os.OpenFile(filepath.Join(dir, id+indexEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		_ = w.data.Close()
		return nil, err
	}
	if _, err = w.index.WriteAt([]byte(magic), 0); err != nil {
		_ = w.Close()
		return nil, err
	}
	w.indexed = int64(len(magic))
	return w, nil
}

// bufferSize is how much is gathered before it is written, in bytes.
const bufferSize = 256 << 10

// Add takes length bytes of f as what an element wrote to a stream. They can be
// read after Flush. An error means that this output, or some gathered before, is
// lost; the writer may still be used.
func (w *Writer) Add(index uint64, attempt uint32, stream int, f io.ReaderAt, length int64, at time.Time) error {
	r := record{index: index, attempt: attempt, stream: uint8(stream), offset: uint64(w.end + int64(len(w.buf))), length: uint64(length), at: at.UnixNano()}
	from := int64(0)
	for from < length {
		n := min(length-from, bufferSize)
		at := len(w.buf)
		w.buf = append(w.buf, make([]byte, n)...)
		got, err := f.ReadAt(w.buf[at:], from)
		if int64(got) < n { // it was cut meanwhile, which its program may do
			clear(w.buf[at+got:])
			if err != nil && !errors.Is(err, io.EOF) {
				w.buf = w.buf[:at]
				return err
			}
		}
		from += n
		if len(w.buf) >= bufferSize {
			if err := w.flushData(); err != nil {
				return err
			}
		}
	}
	w.records = r.appendTo(w.records)
	if len(w.records) >= bufferSize {
		return w.Flush()
	}
	return nil
}

// Keep takes the file at path, in the pack's directory, as what an element wrote
// to a stream, whole.
func (w *Writer) Keep(index uint64, attempt uint32, stream int, path string, length int64, at time.Time) error {
	if err := os.Rename(path, filepath.Join(w.dir, ownName(w.id, index, attempt, stream))); err != nil {
		return err
	}
	w.records = record{index: index, attempt: attempt, stream: uint8(stream), own: true, length: uint64(length), at: at.UnixNano()}.appendTo(w.records)
	return nil
}

func (w *Writer) flushData() error {
	n, err := w.data.WriteAt(w.buf, w.end)
	if err != nil {
		// What was written of it is written over: no record points there.
		w.buf, w.records = w.buf[:0], w.records[:0]
		return err
	}
	w.end += int64(n)
	w.buf = w.buf[:0]
	return nil
}

// Flush writes what was gathered.
func (w *Writer) Flush() error {
	if len(w.buf) > 0 {
		if err := w.flushData(); err != nil {
			return err
		}
	}
	if len(w.records) == 0 {
		return nil
	}
	_, err := w.index.WriteAt(w.records, w.indexed)
	if err == nil {
		w.indexed += int64(len(w.records))
	}
	w.records = w.records[:0]
	return err
}

// Close writes what was gathered and closes the files.
func (w *Writer) Close() error {
	return errors.Join(w.Flush(), w.data.Close(), w.index.Close())
}
