package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"gangway/launcher/job"
)

// Submit adds a job with its tasks, all or nothing, and returns its id. The error
// is an [Error] with code JobExists if the id is taken.
func (c *Client) Submit(ctx context.Context, spec job.Spec) (string, error) {
	var out struct {
		ID string `json:"id"`
	}
	err := c.call(ctx, http.MethodPost, ours("jobs"), nil, spec, &out)
	return out.ID, err
}

// Preview says what Submit would take and refuse, and changes nothing.
func (c *Client) Preview(ctx context.Context, spec job.Spec) (p job.Preview, err error) {
	err = c.call(ctx, http.MethodPost, ours("preview"), nil, spec, &p)
	return p, err
}

// Jobs lists the jobs that the caller may see, oldest first.
func (c *Client) Jobs(ctx context.Context, q Query) iter.Seq2[Job, error] {
	return list[Job](ctx, c, "/jobs", q)
}

// Job returns one job.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return get[Job](ctx, c, path("jobs", id))
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.call(ctx, http.MethodGet, path, nil, nil, &v)
	return v, err
}

// Counts counts the elements of a job's tasks.
func (c *Client) Counts(ctx context.Context, id string) (Counts, error) {
	var b struct {
		Tasks Counts `json:"taskCounts"`
	}
	err := c.call(ctx, http.MethodGet, path("jobs", id, "taskcounts"), nil, nil, &b)
	return b.Tasks, err
}

// CancelJob ends a job's tasks and completes it; reason is kept with it.
func (c *Client) CancelJob(ctx context.Context, id, reason string) error {
	return c.post(ctx, path("jobs", id, "terminate"), map[string]string{"terminateReason": reason})
}

// DeleteJob ends a job and forgets it and its files.
func (c *Client) DeleteJob(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, path("jobs", id), nil, nil, nil)
}

// DisableJob starts no more of a job's tasks. What becomes of those that run is
// requeue, terminate or wait.
func (c *Client) DisableJob(ctx context.Context, id, running string) error {
	return c.post(ctx, path("jobs", id, "disable"), map[string]string{"disableTasks": running})
}

// EnableJob undoes DisableJob.
func (c *Client) EnableJob(ctx context.Context, id string) error {
	return c.post(ctx, path("jobs", id, "enable"), nil)
}

func (c *Client) post(ctx context.Context, path string, body any) error {
	return c.call(ctx, http.MethodPost, path, nil, body, nil)
}

// Tasks lists a job's tasks in the order they were added.
func (c *Client) Tasks(ctx context.Context, jobID string, q Query) iter.Seq2[Task, error] {
	return list[Task](ctx, c, path("jobs", jobID, "tasks"), q)
}

// Task returns one task.
func (c *Client) Task(ctx context.Context, jobID, id string) (Task, error) {
	return get[Task](ctx, c, path("jobs", jobID, "tasks", id))
}

// CancelTask ends a task.
func (c *Client) CancelTask(ctx context.Context, jobID, id string) error {
	return c.post(ctx, path("jobs", jobID, "tasks", id, "terminate"), nil)
}

// ReactivateTask runs a task that failed again, with its retries unused.
func (c *Client) ReactivateTask(ctx context.Context, jobID, id string) error {
	return c.post(ctx, path("jobs", jobID, "tasks", id, "reactivate"), nil)
}

// DeleteTask ends a task and forgets it and its files.
func (c *Client) DeleteTask(ctx context.Context, jobID, id string) error {
	return c.call(ctx, http.MethodDelete, path("jobs", jobID, "tasks", id), nil, nil, nil)
}

// Explain says why a task waits or failed.
func (c *Client) Explain(ctx context.Context, jobID, id string) (Explanation, error) {
	return get[Explanation](ctx, c, ours("jobs", jobID, "tasks", id, "explain"))
}

// Autopsy reports on a failed attempt of a task, or on the last one if attempt
// is 0.
func (c *Client) Autopsy(ctx context.Context, jobID, id string, attempt uint32) (Autopsy, error) {
	var q url.Values
	if attempt > 0 {
		q = url.Values{"attempt": {strconv.FormatUint(uint64(attempt), 10)}}
	}
	var a Autopsy
	err := c.call(ctx, http.MethodGet, ours("jobs", jobID, "tasks", id, "autopsy"), q, nil, &a)
	return a, err
}

// Pools lists the launcher's pools.
func (c *Client) Pools(ctx context.Context, q Query) iter.Seq2[Pool, error] {
	return list[Pool](ctx, c, "/pools", q)
}

// Pool returns one pool.
func (c *Client) Pool(ctx context.Context, id string) (Pool, error) {
	return get[Pool](ctx, c, path("pools", id))
}

// Nodes lists a pool's nodes.
func (c *Client) Nodes(ctx context.Context, pool string, q Query) iter.Seq2[Node, error] {
	return list[Node](ctx, c, path("pools", pool, "nodes"), q)
}

// Node returns one node.
func (c *Client) Node(ctx context.Context, pool, id string) (Node, error) {
	return get[Node](ctx, c, path("pools", pool, "nodes", id))
}

// Drain places nothing more on a node. What becomes of the tasks there is
// taskcompletion, requeue or terminate.
func (c *Client) Drain(ctx context.Context, pool, id, tasks string) (n Node, err error) {
	err = c.call(ctx, http.MethodPost, ours("pools", pool, "nodes", id, "drain"), nil, map[string]string{"tasks": tasks}, &n)
	return n, err
}

// Resume places tasks on a node again.
func (c *Client) Resume(ctx context.Context, pool, id string) (n Node, err error) {
	err = c.call(ctx, http.MethodPost, ours("pools", pool, "nodes", id, "resume"), nil, nil, &n)
	return n, err
}

// RemoveNodes drains nodes and forgets each once nothing runs there. tasks is as
// in Drain.
func (c *Client) RemoveNodes(ctx context.Context, pool, tasks string, ids ...string) error {
	return c.post(ctx, path("pools", pool, "removenodes"), map[string]any{"nodeList": ids, "nodeDeallocationOption": tasks})
}

// escapeFile escapes a file's path, which keeps its slashes.
func escapeFile(name string) string { return (&url.URL{Path: name}).EscapedPath() }
