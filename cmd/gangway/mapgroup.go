package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// mapHeld bounds what of the elements' output waits in memory, in bytes; the rest
// waits in a file.
const mapHeld = 64 << 20

// piece is a part of an element's output: in memory, or in the file.
type piece struct {
	stderr bool
	data   []byte // nil: in the file
	off, n int64
}

// outputs keeps what elements have written until it may be printed.
type outputs struct {
	dir   string // of the file
	limit int    // bytes in memory
	held  map[uint64][]piece
	mem   int
	file  *os.File
	end   int64 // of the file
	out   int64 // bytes in it that wait
}

func newOutputs(dir string, limit int) *outputs {
	return &outputs{dir: dir, limit: limit, held: map[uint64][]piece{}}
}

// add keeps a piece; data must not be changed afterwards.
func (o *outputs) add(index uint64, stderr bool, data []byte) error {
	p := piece{stderr: stderr, data: data, n: int64(len(data))}
	if o.mem+len(data) > o.limit {
		if o.file == nil {
			f, err := os.CreateTemp(o.dir, "gangway-map-*")
			if err != nil {
				return fmt.Errorf("output that has to wait needs a file: %w; --keep-order and big outputs need space there", err)
			}
			_ = os.Remove(f.Name()) // it lives as long as it is open
			o.file = f
		}
		if _, err := o.file.WriteAt(data, o.end); err != nil {
			return fmt.Errorf("output that has to wait can't be kept: %w; free space in %s", err, o.dir)
		}
		p.data, p.off = nil, o.end
		o.end += p.n
		o.out += p.n
	} else {
		o.mem += len(data)
	}
	o.held[index] = append(o.held[index], p)
	return nil
}

// size is how much of an element's output waits, in bytes.
func (o *outputs) size(index uint64) uint64 {
	var n int64
	for _, p := range o.held[index] {
		n += p.n
	}
	return uint64(n)
}

// take gives an element's pieces to f in their order and forgets them.
func (o *outputs) take(index uint64, f func(stderr bool, data []byte) error) error {
	pieces, ok := o.held[index]
	if !ok {
		return nil
	}
	delete(o.held, index)
	var err error
	for _, p := range pieces {
		if p.data != nil {
			o.mem -= len(p.data)
			if err == nil {
				err = f(p.stderr, p.data)
			}
			continue
		}
		for off := p.off; off < p.off+p.n && err == nil; {
			b := make([]byte, min(p.off+p.n-off, 64<<10))
			if _, err = o.file.ReadAt(b, off); err != nil {
				err = fmt.Errorf("output that waited can't be read again: %w", err)
				break
			}
			off += int64(len(b))
			err = f(p.stderr, b)
		}
		o.out -= p.n
	}
	if o.out == 0 && o.end > 0 { // nothing waits there: begin anew
		o.end = 0
		err = errors.Join(err, o.file.Truncate(0))
	}
	return err
}

// drop forgets an element's output.
func (o *outputs) drop(index uint64) error {
	return o.take(index, func(bool, []byte) error { return nil })
}

func (o *outputs) close() {
	if o.file != nil {
		_ = o.file.Close()
	}
}

// indexSet is a set of array indices, for numbers that come nearly in order.
type indexSet map[uint64]uint64

func (s indexSet) add(i uint64)      { s[i/64] |= 1 << (i % 64) }
func (s indexSet) has(i uint64) bool { return s[i/64]&(1<<(i%64)) != 0 }

// below forgets what is less than i.
func (s indexSet) below(i uint64) {
	if i%64 == 0 && i > 0 {
		delete(s, i/64-1)
	}
}

// tagger writes lines with a text in front of each.
type tagger struct {
	w     io.Writer
	tag   []byte
	inner bool // within a line
}

func (t *tagger) Write(b []byte) (int, error) {
	n := len(b)
	var out bytes.Buffer
	for len(b) > 0 {
		if !t.inner {
			out.Write(t.tag)
		}
		i := bytes.IndexByte(b, '\n') + 1
		t.inner = i == 0
		if i == 0 {
			i = len(b)
		}
		out.Write(b[:i])
		b = b[i:]
	}
	_, err := t.w.Write(out.Bytes())
	return n, err
}
