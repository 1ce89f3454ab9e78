package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// maxLine is how much of an unfinished line is held back, in bytes. A longer
// one is written as it comes.
const maxLine = 64 << 10

// outputStream is stdout or stderr, with the ranks' lines labelled when asked
// for. The zero value with w set is usable.
type outputStream struct {
	mu    sync.Mutex // held in a write, which a stuck reader can make last for ever
	w     io.Writer
	tails map[int][]byte // unfinished lines by rank, at most maxLine each
	// A long line whose beginning is written but not its end. Only one can be
	// open: whoever else writes ends it first.
	open     bool
	openRank int
	broken   error // the first write that failed: all later ones would too
}

func (o *outputStream) write(b []byte) error {
	if o.broken == nil && len(b) > 0 {
		_, o.broken = o.w.Write(b)
	}
	return o.broken
}

// plain writes data as it is, on a line of its own if a labelled one is open.
func (o *outputStream) plain(data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alone(data)
}

func (o *outputStream) alone(data []byte) error {
	if o.open && len(data) > 0 {
		o.open = false
		data = append([]byte{'\n'}, data...)
	}
	return o.write(data)
}

// labelled writes the rank's lines, each with one prefix. A line is held back
// until it is whole, so that the ranks' lines don't mix. Of one that outgrows
// maxLine the rest follows without a prefix as long as no one else writes; then
// it goes on, on a line of its own, with its prefix again.
func (o *outputStream) labelled(rank int, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out bytes.Buffer
	if o.open && o.openRank == rank {
		i := bytes.IndexByte(data, '\n') + 1
		if i == 0 {
			return o.write(data)
		}
		out.Write(data[:i])
		data = data[i:]
		o.open = false
	}
	begin := func() {
		if o.open { // another rank's
			out.WriteByte('\n')
			o.open = false
		}
		fmt.Fprintf(&out, "[%d] ", rank)
	}
	tail := o.tails[rank]
	for {
		i := bytes.IndexByte(data, '\n') + 1
		if i == 0 {
			break
		}
		begin()
		out.Write(tail)
		out.Write(data[:i])
		tail, data = nil, data[i:]
	}
	if len(tail)+len(data) > maxLine {
		begin()
		out.Write(tail)
		out.Write(data)
		tail, data = nil, nil
		o.open, o.openRank = true, rank
	}
	if tail = append(tail, data...); len(tail) == 0 {
		delete(o.tails, rank)
	} else {
		if o.tails == nil {
			o.tails = map[int][]byte{}
		}
		o.tails[rank] = tail
	}
	return o.write(out.Bytes())
}

// last ends the lines that never got their end and then writes data. It drops
// all of it when a write still hangs: the end of a run waits for no reader.
func (o *outputStream) last(data []byte) error {
	if !o.mu.TryLock() {
		return nil
	}
	defer o.mu.Unlock()
	var out bytes.Buffer
	for _, r := range slices.Sorted(maps.Keys(o.tails)) {
		fmt.Fprintf(&out, "[%d] %s\n", r, o.tails[r])
	}
	o.tails = nil
	if out.Write(data); out.Len() > 0 || !o.open {
		return o.alone(out.Bytes())
	}
	o.open = false
	return o.write([]byte{'\n'})
}
