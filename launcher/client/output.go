package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
)

// fewNodes is up to how many nodes are each followed by a request that waits.
const fewNodes = 32

// maxHeld bounds the piece of a line that waits for its end, in bytes.
const maxHeld = 64 << 10

// Follow copies what a task writes to a file to w, as it is written, until the task
// has ended: on all of its nodes, line by line if there are several. waits, if not
// nil, is called while the task has no files yet.
func (c *Client) Follow(ctx context.Context, jobID, taskID, file string, w io.Writer, waits func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &merged{w: w}
	over := make(chan struct{})
	var others sync.WaitGroup
	var mu sync.Mutex
	var missing error
	started := 1
	several := func(nodes int) {
		m.share()
		for ; started < nodes; started++ {
			f := part{jobID, taskID, file, started}
			others.Go(func() {
				l := m.lines()
				err := c.follow(ctx, f, l, nil, nil, over)
				if end := l.flush(); err == nil {
					err = end
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					missing = fmt.Errorf("output of the task's node %d: %w", f.instance+1, err)
				}
			})
		}
	}
	first := m.lines()
	err := c.follow(ctx, part{job: jobID, task: taskID, file: file}, first, waits, several, nil)
	if err != nil {
		cancel() // it is the first error that counts
	}
	close(over)
	others.Wait()
	if end := first.flush(); err == nil {
		err = end
	}
	if err == nil {
		err = missing
	}
	return err
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Copy copies what a file of a task has by now to w, one node's after the other's.
// What some nodes have is copied also if others can't be asked.
func (c *Client) Copy(ctx context.Context, jobID, taskID, file string, w io.Writer) error {
	nodes := 1
	m := &merged{w: w}
	var missing error
	for i := 0; i < nodes; i++ {
		l := m.lines()
		for offset := int64(0); ; {
			t, err := c.tail(ctx, part{jobID, taskID, file, i}, offset, 0)
			if Is(err, "FileNotFound") && (i > 0 || offset > 0) {
				break
			}
			if err != nil {
				if i == 0 || ctx.Err() != nil {
					return err
				}
				missing = fmt.Errorf("output of the task's node %d: %w", i+1, err)
				break
			}
			nodes = max(nodes, t.instances)
			if len(t.data) == 0 {
				break
			}
			if _, err := l.Write(t.data); err != nil {
				return fmt.Errorf("writing the task's output: %w", err)
			}
			offset += int64(len(t.data))
		}
	}
	return missing
}

// merged is a writer of the output of several nodes.
type merged struct {
	mu     sync.Mutex
	w      io.Writer
	shared bool   // by several: only whole lines are written
	open   *lines // whose last line has no end
}

// write writes what l has; a line of another's that has no end gets one.
func (m *merged) write(l *lines, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if m.open != nil && m.open != l {
		if _, err := m.w.Write([]byte{'\n'}); err != nil {
			return err
		}
	}
	if m.open = nil; b[len(b)-1] != '\n' {
		m.open = l
	}
	_, err := m.w.Write(b)
	return err
}

func (m *merged) share() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shared = true
}

func (m *merged) lines() *lines { return &lines{to: m} }

// lines writes one node's output.
type lines struct {
	to   *merged
	held []byte // the beginning of a line
}

func (l *lines) Write(b []byte) (int, error) {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	if !l.to.shared {
		return len(b), l.to.write(l, b)
	}
	l.held = append(l.held, b...)
	n := bytes.LastIndexByte(l.held, '\n') + 1
	if len(l.held)-n > maxHeld {
		n = len(l.held)
	}
	if n > 0 {
		if err := l.to.write(l, l.held[:n]); err != nil {
			return 0, err
		}
		l.held = append(l.held[:0], l.held[n:]...)
	}
	return len(b), nil
}

// flush writes a last line without an end.
func (l *lines) flush() error {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	err := l.to.write(l, l.held)
	l.held = nil
	return err
}
