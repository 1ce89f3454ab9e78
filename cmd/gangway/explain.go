package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
	"gangway/launcher/job"
)

func newExplainCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	c := &cobra.Command{
		Use:   "explain [JOB[/TASK]]",
		Short: "Say why your jobs wait, or why one failed",
		Long: `Without an argument: ask the launchers of this user on this machine (each gangway
run is one), and the launcher that stays if there is one, what their tasks wait
for: cores, memory, nodes, or another launcher's job that holds them.

With a job of gangway run, or its launcher's process id: only that one. With a job
of the launcher that stays: what its tasks wait for and why some failed, rank by
rank if it was a gang; with a task of it, only that task.`,
		Args: wants(0, 2, "[JOB[/TASK]]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.explainAll(cmd.Context(), l)
			}
			jobID, taskID, _ := strings.Cut(args[0], "/")
			if len(args) == 2 {
				taskID = args[1]
			}
			if taskID == "" {
				if done, err := a.explainRun(cmd.Context(), jobID); done || err != nil {
					return err
				}
			}
			err := l.asks(func(ctx context.Context, c *client.Client, _ []string) error {
				return a.explainJob(ctx, c, jobID, taskID)
			})(cmd, nil)
			var away *client.Unreachable
			if taskID == "" && errors.As(err, &away) {
				return usagef("gangway explain, without a name, lists them all", "no launcher of yours on this machine runs a job %q, and %v", jobID, away)
			}
			return err
		},
	}
	l.register(c.Flags())
	return c
}

// maxRanks is how many ranks' ends an explanation lists; the autopsy folds them.
const maxRanks = 16

// maxExplained is how many tasks are explained at once: the reasons repeat.
const maxExplained = 20

// explainAll says what everything waits for.
func (a *app) explainAll(ctx context.Context, l *launcherFlags) error {
	found, err := client.Explain(ctx, os.Getuid())
	if err != nil && len(found) == 0 {
		return err
	}
	staying, err := a.stayingWaits(ctx, l)
	if err != nil {
		return err
	}
	return a.printStatuses(append(found, staying...))
}

// stayingWaits is what waits at the launcher that stays; none is no error unless
// it was named.
func (a *app) stayingWaits(ctx context.Context, l *launcherFlags) ([]client.Status, error) {
	c, err := l.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tasks, err := longestWaiting(ctx, c, maxExplained)
	var away *client.Unreachable
	if errors.As(err, &away) && firstOf(l.address, os.Getenv("GANGWAY_LAUNCHER")) == "" {
		return nil, nil
	}
	var out []client.Status
	for _, t := range tasks {
		out = append(out, client.Status{Job: t.Job, Since: t.Since, Waiting: []client.Waiting{{Task: t.Task, Text: t.Why}}})
	}
	return out, refusal(err)
}

// explainRun explains a job of gangway run; done says that there is one.
func (a *app) explainRun(ctx context.Context, name string) (done bool, err error) {
	all, err := client.Explain(ctx, os.Getuid())
	if err != nil && len(all) == 0 {
		return false, err
	}
	var found []client.Status
	for _, s := range all {
		if s.Job == name || fmt.Sprint(s.PID) == name {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return false, nil
	}
	return true, a.printStatuses(found)
}

func (a *app) printStatuses(found []client.Status) error {
	if a.json {
		if found == nil {
			found = []client.Status{}
		}
		return a.encode(found)
	}
	if len(found) == 0 {
		fmt.Fprintln(a.stdout, "no launcher of yours runs on this machine, or nothing waits")
	}
	for _, s := range found {
		name := fmt.Sprintf("%s (pid %d)", s.Job, s.PID)
		if len(s.Waiting) == 0 {
			fmt.Fprintf(a.stdout, "%s: nothing waits\n", name)
		}
		for _, w := range s.Waiting {
			if s.PID == 0 { // of the launcher that stays
				name = s.Job + "/" + w.Task
			}
			fmt.Fprintf(a.stdout, "%s: waits: %s\n", name, printable(w.Text))
		}
	}
	return nil
}

// explainJob explains a task, or those of a job's tasks that wait or failed.
func (a *app) explainJob(ctx context.Context, c *client.Client, jobID, taskID string) error {
	ids := []string{taskID}
	if taskID == "" {
		ids = nil
		// Those that have ended badly say most; then those that wait.
		for _, filter := range []string{"executionInfo/result eq 'failure'", "state eq 'active'", ""} {
			tasks, err := client.All(c.Tasks(ctx, jobID, client.Query{Filter: filter}), maxExplained-len(ids))
			if err != nil {
				return err
			}
			if filter == "" && len(ids) > 0 {
				break
			}
			for _, t := range tasks {
				ids = append(ids, t.ID)
			}
			if len(ids) == maxExplained {
				break
			}
		}
	}
	all := []client.Explanation{}
	for _, id := range ids {
		x, err := c.Explain(ctx, jobID, id)
		if err != nil {
			return err
		}
		all = append(all, x)
	}
	switch {
	case a.json && taskID != "":
		return a.encode(all[0])
	case a.json:
		return a.encode(all)
	case len(all) == 0:
		_, err := fmt.Fprintf(a.stdout, "%s: it has no tasks\n", jobID)
		return err
	}
	for _, x := range all {
		a.printExplanation(x.Job+"/"+x.Task+": ", x)
	}
	return nil
}

// printExplanation says why a task waits or failed, and how its ranks ended.
func (a *app) printExplanation(prefix string, x client.Explanation) {
	verb := ""
	switch {
	case x.State == job.TaskActive && x.Reason != nil:
		verb = "waits: "
	case x.State == job.TaskCompleted && x.Reason != nil:
		verb = "failed: "
	}
	if x.Sentence != "" {
		fmt.Fprintf(a.stdout, "%s%s%s\n", prefix, verb, printable(x.Sentence))
	}
	if !x.StartAt.IsZero() {
		fmt.Fprintf(a.stdout, "  it can start %s\n", moment(x.StartAt))
	}
	if x.Death != "" {
		fmt.Fprintf(a.stdout, "  died of: %s\n  more: gangway task autopsy %s %s\n", printable(x.Death), x.Job, x.Task)
	}
	for i, r := range x.Autopsy {
		if i == maxRanks {
			fmt.Fprintf(a.stdout, "  and %d more ranks\n", len(x.Autopsy)-maxRanks)
			break
		}
		how := fmt.Sprintf("exited with %d", r.Exit)
		if r.Signal != 0 {
			how = fmt.Sprintf("ended by signal %d", r.Signal)
		}
		fmt.Fprintf(a.stdout, "  rank %d on %s %s\n", r.Rank, r.Node, how)
		for _, line := range r.Stderr {
			fmt.Fprintf(a.stdout, "    %s\n", printable(line))
		}
	}
}
