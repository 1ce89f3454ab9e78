package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gangway/launcher/job"
)

// The files that a task's output is in.
const (
	Stdout = "stdout.txt"
	Stderr = "stderr.txt"
)

// patience is how long a wait goes on while the launcher does not answer: it is
// started again, perhaps on another machine, and jobs go on meanwhile.
const patience = 10 * time.Minute

// pace spaces the requests of a wait: often at first, for what is short.
type pace struct {
	next   time.Duration
	silent time.Time // since when the launcher does not answer
}

// sleep waits a while before the next request, longer each time.
func (p *pace) sleep(ctx context.Context) error {
	p.next = min(max(p.next*3/2, 50*time.Millisecond), 2*time.Second)
	t := time.NewTimer(p.next)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// bear reports whether err is one that passes: the launcher is being restarted,
// or is busy, or its node can't be asked now.
func (p *pace) bear(err error) bool {
	var away *Unreachable
	var refused *Error
	switch {
	case err == nil:
		p.silent = time.Time{}
		return false
	case errors.As(err, &away), errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable:
	default:
		return false
	}
	now := time.Now()
	if p.silent.IsZero() {
		p.silent = now
	}
	return now.Sub(p.silent) < patience
}

// WaitJob waits until a job has ended and returns it: completed, or, if it stays
// open, with all of its tasks ended. A launcher that does not answer for some time
// is waited for, once it has answered. each, if not nil, is told what the job looks
// like at every look.
func (c *Client) WaitJob(ctx context.Context, id string, each func(Job, Counts)) (Job, Counts, error) {
	var p pace
	for known := false; ; {
		j, err := c.Job(ctx, id)
		var n Counts
		if err == nil {
			n, err = c.Counts(ctx, id)
		}
		switch {
		case known && p.bear(err):
		case err != nil:
			return j, n, err
		default:
			known = true
			p.bear(nil)
			if each != nil {
				each(j, n)
			}
			if j.Ended() || j.State == string(job.JobActive) && j.Open() && n.Total() > 0 && n.Completed == n.Total() {
				return j, n, nil
			}
		}
		if err := p.sleep(ctx); err != nil {
			return j, n, err
		}
	}
}

// Follow copies what a task writes to a file to w, as it is written, from an
// offset in bytes on, until the task has ended. waits, if not nil, is called while
// the task has no files yet.
func (c *Client) Follow(ctx context.Context, jobID, taskID, file string, offset int64, w io.Writer, waits func()) error {
	var p pace
	for known := false; ; {
		data, next, done, err := c.tail(ctx, jobID, taskID, file, offset, 20*time.Second)
		switch {
		case err == nil:
			known, p.next = true, 0
			p.bear(nil)
			if _, err := w.Write(data); err != nil {
				return fmt.Errorf("writing the task's output: %w", err)
			}
			offset = next
			if done {
				return nil
			}
			continue
		case Is(err, "TaskFilesUnavailable"):
			known = true
			p.bear(nil)
			if waits != nil {
				waits()
			}
		case Is(err, "TaskFilesCleanedup"):
			return nil // it ended without having started
		case Is(err, "FileNotFound"):
			known = true
			t, err := c.Task(ctx, jobID, taskID)
			if err == nil && t.State == job.TaskCompleted {
				return nil // it ended without having written any
			}
			if err != nil && !p.bear(err) {
				return err
			}
		case known && p.bear(err):
		default:
			return err
		}
		if err := p.sleep(ctx); err != nil {
			return err
		}
	}
}

// Copy copies what a file of a task has by now to w.
func (c *Client) Copy(ctx context.Context, jobID, taskID, file string, w io.Writer) error {
	for offset := int64(0); ; {
		data, next, _, err := c.tail(ctx, jobID, taskID, file, offset, 0)
		if err != nil || len(data) == 0 {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("writing the task's output: %w", err)
		}
		offset = next
	}
}

// tail reads what a file has from an offset on, waiting for it if asked to.
func (c *Client) tail(ctx context.Context, jobID, taskID, file string, offset int64, wait time.Duration) (data []byte, next int64, done bool, err error) {
	q := url.Values{"offset": {strconv.FormatInt(offset, 10)}, "wait": {wait.String()}}
	resp, err := c.send(ctx, http.MethodGet, ours("jobs", jobID, "tasks", taskID, "files")+"/"+escapeFile(file), q, nil)
	if err != nil {
		return nil, 0, false, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, 0, false, context.Cause(ctx)
	case err != nil:
		return nil, 0, false, &Unreachable{c.address, err}
	}
	return data, offset + int64(len(data)), resp.Header.Get("Gangway-Done") == "true", nil
}

// WaitDrained waits until nothing is placed on a node and nothing runs there, or
// the node is gone.
func (c *Client) WaitDrained(ctx context.Context, pool, id string) error {
	var p pace
	for known := false; ; {
		n, err := c.Node(ctx, pool, id)
		switch {
		case err == nil && n.Drained(), known && Is(err, "NodeNotFound"):
			return nil
		case err == nil && n.Scheduling != "disabled":
			return fmt.Errorf("node %s takes tasks again: someone has resumed it", id)
		case err == nil:
			known = true
			p.bear(nil)
		case known && p.bear(err):
		default:
			return err
		}
		if err := p.sleep(ctx); err != nil {
			return err
		}
	}
}
