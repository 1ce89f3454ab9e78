package shim

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gangway/nodeagent/wire"
)

const (
	// coalesce is how long a short read waits for more before it is sent.
	coalesce = 2 * time.Millisecond
	// quiet is how long a pipe must have given nothing before its reader ends,
	// once the pipe's rank has ended but something still holds its other end.
	quiet = 200 * time.Millisecond
	// tailSize is how much of a rank's last error output its record keeps.
	tailSize = 2 << 10
	// tailLines is how many lines of it are shown.
	tailLines = 8
)

// pump reads one pipe to where its stream goes.
type pump struct {
	f       *os.File
	rank    int32
	stream  wire.Stream
	out     output
	tail    *tail // nil: not kept
	closing atomic.Bool
}

// startPump reads f to its end, then closes it and says so. f must support
// deadlines, as pipes do.
func startPump(wg *sync.WaitGroup, out output, f *os.File, rank int32, stream wire.Stream, t *tail) *pump {
	p := &pump{f: f, rank: rank, stream: stream, out: out, tail: t}
	done := out.reader()
	wg.Go(func() {
		defer done()
		p.run()
	})
	return p
}

// hurry makes the pump end when its pipe has been quiet for a while, though
// somebody still holds the other end.
func (p *pump) hurry() {
	p.closing.Store(true)
	_ = p.f.SetReadDeadline(time.Now())
}

func (p *pump) run() {
	defer p.f.Close()
	defer func() { p.out.write(p.rank, p.stream, nil, true) }()
	var rest []byte // an unfinished line that waits for its end
	for {
		buf := make([]byte, chunkSize)
		n := copy(buf, rest)
		// The first read waits for as long as it takes, unless a line has
		// been begun.
		wait := coalesce
		if n == 0 {
			wait = 0
		}
		eof, full := false, false
		for {
			m, err := p.read(buf[n:], wait)
			n += m
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				eof = true
				break
			}
			if err != nil && n > 0 {
				break
			}
			if full = n == len(buf); full {
				break
			}
			wait = coalesce
		}
		data := buf[:n]
		rest = nil
		if full && !eof {
			// Cut behind a line's end if there is one.
			if i := bytes.LastIndexByte(data, '\n'); i >= 0 && i+1 < n {
				rest = bytes.Clone(data[i+1:])
				data = data[:i+1]
			}
		}
		if len(data) > 0 {
			if p.tail != nil {
				p.tail.add(data)
			}
			if len(data) < chunkSize/4 {
				// Small pieces may wait long for their acknowledgement:
				// let them not hold a whole buffer.
				data = bytes.Clone(data)
			}
			p.out.write(p.rank, p.stream, data, false)
		}
		if eof {
			return
		}
	}
}

// read reads once. wait 0 waits for ever, or for the quiet time when the pump
// is to end, and then returns io.EOF.
func (p *pump) read(b []byte, wait time.Duration) (int, error) {
	for {
		deadline := time.Time{}
		closing := p.closing.Load()
		switch {
		case wait > 0:
			deadline = time.Now().Add(wait)
		case closing:
			deadline = time.Now().Add(quiet)
		}
		if err := p.f.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		// hurry may have come between the load and the deadline above.
		if wait == 0 && !closing && p.closing.Load() {
			continue
		}
		n, err := p.f.Read(b)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && wait == 0 {
			if closing {
				return 0, io.EOF
			}
			continue
		}
		return n, err
	}
}

// tail keeps the end of a stream.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
}

// lines returns the last lines, without the last line's end.
func (t *tail) lines() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return lastLines(string(t.buf))
}

func lastLines(s string) string {
	if len(s) > tailSize {
		s = s[len(s)-tailSize:]
		if _, after, ok := strings.Cut(s, "\n"); ok {
			s = after
		}
	}
	s = strings.TrimRight(strings.ToValidUTF8(s, "�"), "\n")
	lines := strings.Split(s, "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return strings.Join(lines, "\n")
}
