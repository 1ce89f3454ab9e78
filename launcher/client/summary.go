package client

import (
	"context"

	"gangway/launcher/batchapi"
)

// Summary is what the ends of a job's tasks come to.
func (c *Client) Summary(ctx context.Context, jobID string) (batchapi.Summary, error) {
	return get[batchapi.Summary](ctx, c, ours("jobs", jobID, "summary"))
}

// Attempts returns all that ran of a task, the first one first.
func (c *Client) Attempts(ctx context.Context, jobID, id string) ([]batchapi.Attempt, error) {
	b, err := get[struct {
		Attempts []batchapi.Attempt `json:"attempts"`
	}](ctx, c, ours("jobs", jobID, "tasks", id, "attempts"))
	return b.Attempts, err
}
