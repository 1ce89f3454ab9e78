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
	switch {
	case err == nil:
		p.silent = time.Time{}
		return false
	case errors.As(err, &away), busy(err):
	default:
		return false
	}
	now := time.Now()
	if p.silent.IsZero() {
		p.silent = now
	}
	return now.Sub(p.silent) < patience
}

// busy reports whether the launcher has answered that it, or a node, can't now.
func busy(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable
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
		if err == nil && each == nil && c.untilEnd(ctx, id) {
			continue
		}
		if err := p.sleep(ctx); err != nil {
			return j, n, err
		}
	}
}

// oneWait is how long one request waits for the end of a job, and shortWait what
// is no wait at all.
const (
	oneWait   = 30 * time.Second
	shortWait = 5 * time.Millisecond
)

// untilEnd has the launcher answer when the job has ended, and says whether it is
// worth looking. It is not if that failed: a launcher of an earlier version can't,
// and one that is away is waited for elsewhere.
func (c *Client) untilEnd(ctx context.Context, id string) bool {
	begin := time.Now()
	resp, err := c.send(ctx, http.MethodGet, ours("jobs", id, "end"), url.Values{"wait": {oneWait.String()}}, nil)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return time.Since(begin) > shortWait
}

// part is one node's file of a task.
type part struct {
	job, task, file string
	instance        int // which of the task's nodes, from 0
}

// follow copies what is written to a file to w until the task has ended. waits, if
// not nil, is called while the task has no files yet, several before the first
// write and whenever the number of the task's nodes has changed. over, if not nil,
// tells that the task is known to have ended: a node that can't be asked then is
// not waited for.
func (c *Client) follow(ctx context.Context, f part, w io.Writer, waits func(), several func(nodes int), over <-chan struct{}) error {
	var p pace
	offset, nodes, wait := int64(0), 1, 20*time.Second
	for known := false; ; {
		t, err := c.tail(ctx, f, offset, wait)
		switch {
		case err == nil:
			known = true
			p.bear(nil)
			if t.instances != nodes {
				if nodes = t.instances; several != nil {
					several(nodes)
				}
			}
			if _, err := w.Write(t.data); err != nil {
				return fmt.Errorf("writing the task's output: %w", err)
			}
			offset += int64(len(t.data))
			if t.done {
				return nil
			}
			if nodes <= fewNodes || f.instance == 0 || len(t.data) > 0 {
				p.next = 0
				continue
			}
			// A request that waits costs the launcher a question to the node every
			// moment: with many nodes they are asked in turns.
			wait, p.next = 0, time.Duration(nodes)*20*time.Millisecond
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
			t, err := c.Task(ctx, f.job, f.task)
			if err == nil && t.State == job.TaskCompleted {
				return nil // it ended without having written any
			}
			if err != nil && !p.bear(err) {
				return err
			}
		case f.instance > 0 && closed(over):
			return err
		case !known && busy(err):
			// Its node can't be asked: that passes, unless there is nothing to wait for.
			if t, e := c.Task(ctx, f.job, f.task); e != nil || t.State == job.TaskCompleted {
				return err
			}
			known = true
		case known && p.bear(err):
		default:
			return err
		}
		if err := p.sleep(ctx); err != nil {
			return err
		}
	}
}

// tailed is what a node's file of a task has from some offset on.
type tailed struct {
	data      []byte
	done      bool // nothing more will come
	instances int  // nodes of the task, at least 1
}

// tail reads what a file has from an offset on, waiting for it if asked to.
func (c *Client) tail(ctx context.Context, f part, offset int64, wait time.Duration) (tailed, error) {
	q := url.Values{"offset": {strconv.FormatInt(offset, 10)}, "wait": {wait.String()}}
	if f.instance > 0 {
		q.Set("instance", strconv.Itoa(f.instance))
	}
	resp, err := c.send(ctx, http.MethodGet, ours("jobs", f.job, "tasks", f.task, "files")+"/"+escapeFile(f.file), q, nil)
	if err != nil {
		return tailed{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil && ctx.Err() != nil:
		return tailed{}, context.Cause(ctx)
	case err != nil:
		return tailed{}, &Unreachable{c.address, err}
	}
	n, _ := strconv.Atoi(resp.Header.Get("Gangway-Instances")) // 0 from a launcher that knows of the first only
	return tailed{data, resp.Header.Get("Gangway-Done") == "true", max(n, 1)}, nil
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
