package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
)

// clusterStatus is one look at a launcher, for programs.
type clusterStatus struct {
	Launcher string             `json:"launcher"`
	Version  string             `json:"version"`
	Epoch    uint64             `json:"epoch"` // grows with each start of the launcher
	Nodes    map[string]float64 `json:"nodes"` // by state, as are jobs and tasks
	Cores    float64            `json:"cores"`
	Used     float64            `json:"coresUsed"`
	Jobs     map[string]float64 `json:"jobs"`
	Tasks    map[string]float64 `json:"tasks"`
	Reasons  map[string]float64 `json:"waitingByReason"`
	Waiting  []waitingTask      `json:"longestWaiting"`
}

// waitingTask is a task that waits, and why.
type waitingTask struct {
	Job   string    `json:"job"`
	Task  string    `json:"task"`
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

func newStatusCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	c := &cobra.Command{
		Use: "status", Short: "Show how a launcher that stays is doing", Args: noArgs,
		Long: "Show on one screen how a launcher that stays is doing: its nodes, their cores, its\njobs and tasks, and which of your tasks wait longest, and for what.",
		RunE: l.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			m, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			s := clusterStatus{
				Launcher: c.Address(), Version: m.Label("gangway_build_info", "version"), Epoch: uint64(m.Value("gangway_epoch")),
				Nodes: m.By("gangway_nodes", "state"), Cores: m.Value("gangway_cores"), Used: m.Value("gangway_cores_used"),
				Jobs: m.By("gangway_jobs", "state"), Tasks: m.By("gangway_task_elements", "state"),
				Reasons: m.By("gangway_waiting_task_elements", "reason"),
			}
			if s.Waiting, err = longestWaiting(ctx, c, 3); err != nil {
				return err
			}
			if a.json {
				return a.encode(s)
			}
			tasks := maps.Clone(s.Tasks)
			tasks["waiting"] += tasks["active"]
			delete(tasks, "active")
			if err := a.facts("launcher", fmt.Sprintf("%s at %s, epoch %d", firstOf(s.Version, "?"), s.Launcher, s.Epoch),
				"nodes", tally(s.Nodes, "up"), "cores", fmt.Sprintf("%.0f of %.0f used", s.Used, s.Cores),
				"jobs", tally(s.Jobs, "active"), "tasks", tally(tasks, "waiting", "preparing", "running"),
				"waiting for", tally(s.Reasons)); err != nil {
				return err
			}
			for _, w := range s.Waiting {
				fmt.Fprintf(a.stdout, "%s/%s has waited %s: %s\n", w.Job, w.Task, ago(w.Since), printable(w.Why))
			}
			return nil
		}),
	}
	l.register(c.Flags())
	return c
}

// tally writes "3 up, 1 lost": those named first, then the others by name; what
// is none is left out.
func tally(by map[string]float64, first ...string) string {
	names := slices.Sorted(maps.Keys(by))
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(rank(first, x), rank(first, y)) })
	var parts []string
	for _, n := range names {
		if by[n] > 0 {
			parts = append(parts, fmt.Sprintf("%.0f %s", by[n], n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func rank(first []string, s string) int {
	if i := slices.Index(first, s); i >= 0 {
		return i
	}
	return len(first)
}

// maxLooked is how many jobs are looked at for what waits longest: the oldest.
const maxLooked = 50

// longestWaiting returns up to n tasks that wait, the first of each job, those
// that have waited longest first.
func longestWaiting(ctx context.Context, c *client.Client, n int) ([]waitingTask, error) {
	jobs, err := client.All(c.Jobs(ctx, client.Query{Filter: "state ne 'completed'"}), maxLooked)
	if err != nil {
		return nil, err
	}
	out := []waitingTask{}
	for _, j := range jobs {
		tasks, err := client.All(c.Tasks(ctx, j.ID, client.Query{Filter: "state eq 'active'", Page: 1}), 1)
		if client.Is(err, "JobNotFound") {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			out = append(out, waitingTask{Job: j.ID, Task: t.ID, Since: t.StateAt})
		}
	}
	slices.SortStableFunc(out, func(x, y waitingTask) int { return x.Since.Compare(y.Since) })
	out = out[:min(n, len(out))]
	for i := range out {
		x, err := c.Explain(ctx, out[i].Job, out[i].Task)
		if err == nil {
			out[i].Why = x.Sentence
		}
	}
	return out, nil
}
