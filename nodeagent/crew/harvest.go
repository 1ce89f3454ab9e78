package crew

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"syscall"
	"time"

	"gangway/nodeagent/pack"
)

// result is how an element ended.
type result struct {
	index   uint64
	attempt uint32
	start   int64  // unix µs
	wall    uint64 // µs
	cpu     uint64 // µs
	rss     uint64 // KiB
	code    int32
	signal  int32
	failure failure
	last    string
	end     time.Time
	scratch *scratch // that holds its output; nil: there is none
	left    bool     // something may still write to it
}

func (r *result) bad() bool { return r.code != 0 || r.signal != 0 || r.failure != nil }

// chunk is the longest piece of output that is sent.
const chunk = 64 << 10

// lastLine bounds the last line of a failed element, in bytes.
const lastLine = 512

// harvester takes elements' output out of their scratch files.
type harvester struct {
	w *Crew
	p *pack.Writer // nil: the output is sent

	mu     sync.Mutex
	change *sync.Cond
	queue  []*result
	busy   bool
	closed bool
	wg     sync.WaitGroup

	lost uint64 // bytes
	why  error  // the first reason
}

func newHarvester(w *Crew, p *pack.Writer) *harvester {
	h := &harvester{w: w, p: p}
	h.change = sync.NewCond(&h.mu)
	h.wg.Go(h.run)
	return h
}

// put takes a result whose output is to be taken before it is told. There are
// never more than there are scratch files.
func (h *harvester) put(r *result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, r)
	h.change.Broadcast()
}

// drain waits until nothing is left to take.
func (h *harvester) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for (len(h.queue) > 0 || h.busy) && !h.closed {
		h.change.Wait()
	}
}

func (h *harvester) close() {
	h.mu.Lock()
	h.closed = true
	h.change.Broadcast()
	h.mu.Unlock()
	h.wg.Wait()
	if h.p != nil {
		_ = h.p.Close()
	}
}

func (h *harvester) run() {
	for {
		h.mu.Lock()
		h.busy = false
		h.change.Broadcast()
		for len(h.queue) == 0 && !h.closed {
			h.change.Wait()
		}
		if len(h.queue) == 0 {
			h.mu.Unlock()
			return
		}
		batch := h.queue
		h.queue, h.busy = nil, true
		h.mu.Unlock()
		for _, r := range batch {
			h.take(r)
		}
		if h.p != nil {
			if err := h.p.Flush(); err != nil {
				h.lose(0, err)
			}
		}
		h.w.commit.put(batch...)
		h.w.post(func() {
			for _, r := range batch {
				if r.scratch != nil {
					h.w.scratch.back(r.scratch)
				}
			}
		})
	}
}

// take takes one element's output and makes its scratch files ready for the next.
func (h *harvester) take(r *result) {
	s := r.scratch
	fresh := r.left
	for i, f := range s.files {
		fi, err := f.Stat()
		if err != nil {
			h.lose(0, err)
			continue
		}
		n := fi.Size()
		if n == 0 {
			continue
		}
		if i == 1 && r.bad() {
			r.last = lastOf(f, n)
		}
		switch {
		case h.p == nil:
			h.send(r, i, n)
		case n >= pack.Large:
			if err := h.p.Keep(r.index, r.attempt, i, s.paths[i], n, r.end); err != nil {
				h.lose(n, err)
			}
			fresh = true
		default:
			if err := h.p.Add(r.index, r.attempt, i, f, n, r.end); err != nil {
				h.lose(n, err)
			}
		}
		if !fresh {
			if err := f.Truncate(0); err != nil {
				fresh = true
			}
		}
	}
	if fresh {
		if err := h.w.scratch.renew(s); err != nil {
			// What is in the files would be taken for the next one's: better none.
			h.lose(0, err)
			for i := range s.files {
				_ = s.files[i].Truncate(0)
			}
		}
	}
}

// send sends a stream's output to the launcher.
func (h *harvester) send(r *result, i int, n int64) {
	if r.index > math.MaxInt32 {
		h.lose(n, errors.New("the element's index is too high for output that is sent"))
		return
	}
	for off := int64(0); off < n; {
		b := make([]byte, min(n-off, chunk))
		got, err := r.scratch.files[i].ReadAt(b, off)
		if got == 0 && err != nil {
			if !errors.Is(err, io.EOF) {
				h.lose(n-off, err)
			}
			h.w.h.Output(int32(r.index), streamOf(i), nil, true)
			return
		}
		off += int64(got)
		h.w.h.Output(int32(r.index), streamOf(i), b[:got], off >= n)
	}
}

// lose notes that output was lost, and tells the first time.
func (h *harvester) lose(n int64, err error) {
	h.mu.Lock()
	first := h.why == nil
	if first {
		h.why = err
	}
	h.lost += uint64(n)
	h.mu.Unlock()
	if first {
		h.w.h.Notice(true, fmt.Sprintf("%s: output of elements is being lost: %v%s", h.w.c.Node, err, hintOf(err)))
	}
}

func (h *harvester) loss() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why == nil {
		return ""
	}
	return fmt.Sprintf("%s: %d bytes of the elements' output were lost: %v%s", h.w.c.Node, h.lost, h.why, hintOf(h.why))
}

func hintOf(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "; free space there"
	}
	return ""
}

// lastOf is the last line that is not blank of what was written, at most lastLine
// bytes of it.
func lastOf(f io.ReaderAt, size int64) string {
	b := make([]byte, min(size, 4*lastLine))
	n, _ := f.ReadAt(b, size-int64(len(b)))
	b = bytes.TrimRight(b[:n], " \t\r\n\x00")
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	s := strings.ToValidUTF8(string(b), "�")
	if len(s) > lastLine {
		s = s[:lastLine]
		for len(s) > 0 && !validEnd(s) {
			s = s[:len(s)-1]
		}
	}
	return strings.TrimSpace(s)
}
