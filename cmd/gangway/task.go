package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
	"gangway/launcher/job"
)

func newTaskCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	c := group("task", "See and change the tasks of a job, and read their output",
		"See and change the tasks of a job of a launcher that stays, and read their output.",
		newTaskList(a, l), newTaskShow(a, l), newTaskLogs(a, l), newTaskAutopsy(a, l),
		overTasks(a, l, "cancel", "End tasks", "is being cancelled", (*client.Client).CancelTask),
		overTasks(a, l, "reactivate", "Run tasks that failed again", "is active again", (*client.Client).ReactivateTask),
		overTasks(a, l, "delete", "End tasks and forget them, their output included", "is being deleted", (*client.Client).DeleteTask))
	l.register(c.PersistentFlags())
	return c
}

func newTaskList(a *app, l *launcherFlags) *cobra.Command {
	var state, filter, node string
	var exits []int
	var failed bool
	var limit int
	c := &cobra.Command{
		Use: "list JOB", Aliases: []string{"ls"}, Short: "List a job's tasks, an array's elements among them", Args: wants(1, 1, "JOB"),
		Example: "  gangway task list sweep --state active\n  gangway task list sweep --failed --node node17 --limit 20\n  gangway task list sweep --filter \"executionInfo/result eq 'failure'\"",
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			var parts []string
			switch state {
			case "":
			case "failed", "succeeded":
				parts = append(parts, "executionInfo/result eq '"+map[string]string{"failed": "failure", "succeeded": "success"}[state]+"'")
			case string(job.TaskActive), string(job.TaskPreparing), string(job.TaskRunning), string(job.TaskCompleted):
				parts = append(parts, "state eq '"+state+"'")
			default:
				return usagef("active, preparing, running, completed, succeeded or failed", "--state %q is unknown", state)
			}
			parts = append(parts, taskFilter(node, exits, failed)...)
			if filter != "" {
				parts = append(parts, "("+filter+")")
			}
			tasks, err := client.All(c.Tasks(ctx, args[0], client.Query{Filter: strings.Join(parts, " and ")}), limit)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(tasks)
			}
			rows := make([][]string, len(tasks))
			for i, t := range tasks {
				rows[i] = []string{t.ID, taskState(t), exitText(t), t.Node.ID, fmt.Sprint(t.Execution.Retries + t.Execution.Requeues),
					lasted(t.Execution.Start, t.Execution.End), ago(t.Created), shorten(t.CommandLine, 48)}
			}
			return a.table("TASK STATE EXIT NODE RESTARTS LASTED AGE COMMAND", rows)
		}),
	}
	c.Flags().StringVar(&state, "state", "", "only those that are active (waiting), preparing, running, completed, succeeded or failed")
	c.Flags().StringVar(&filter, "filter", "", "only those that an OData filter fits, as Azure Batch's $filter")
	c.Flags().StringVar(&node, "node", "", "only those on this node, or that ran there")
	c.Flags().IntSliceVar(&exits, "exit", nil, "only those that ended with this exit status, or one of them")
	c.Flags().BoolVar(&failed, "failed", false, "only those that failed")
	c.Flags().IntVar(&limit, "limit", 0, "no more than this many")
	return c
}

// taskState is a task's state in one word, with how it ended.
func taskState(t client.Task) string {
	switch t.Execution.Result {
	case "success":
		return "succeeded"
	case "failure":
		return "failed"
	}
	return string(t.State)
}

func exitText(t client.Task) string {
	if t.Execution.Exit == nil {
		return ""
	}
	return fmt.Sprint(*t.Execution.Exit)
}

func newTaskShow(a *app, l *launcherFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show JOB [TASK]", Short: "Show a task", Args: wants(1, 2, "JOB [TASK]"),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := onlyTask(ctx, c, args)
			if err != nil {
				return err
			}
			t, err := c.Task(ctx, args[0], id)
			if err != nil {
				return err
			}
			tries, err := c.Attempts(ctx, args[0], t.ID)
			if err != nil {
				return err
			}
			if a.json {
				return a.encodeTask(t, tries)
			}
			x := t.Execution
			if err := a.facts("job", args[0], "task", t.ID, "state", taskState(t)+since(t.StateAt), "exit status", exitText(t), "command", t.CommandLine,
				"node", t.Node.ID, "folder", t.Node.Folder, "submitted", moment(t.Created), "started", moment(x.Start), "ended", moment(x.End), "lasted", lasted(x.Start, x.End),
				"retries", some(x.Retries), "requeues", some(x.Requeues)); err != nil {
				return err
			}
			e, err := c.Explain(ctx, args[0], t.ID)
			if err != nil {
				return err
			}
			a.printExplanation("", e)
			if len(tries) > 0 {
				return a.printAttempts(tries)
			}
			return nil
		}),
	}
}

func some(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// onlyTask is the task that the arguments JOB [TASK] name: without TASK, the
// job's only one.
func onlyTask(ctx context.Context, c *client.Client, args []string) (string, error) {
	if len(args) > 1 {
		return args[1], nil
	}
	tasks, err := client.All(c.Tasks(ctx, args[0], client.Query{Page: 2}), 2)
	switch {
	case err != nil:
		return "", err
	case len(tasks) == 0:
		return "", usagef("", "job %s has no tasks", args[0])
	case len(tasks) > 1:
		return "", usagef("name one, such as "+tasks[0].ID+": gangway task list "+args[0], "job %s has more than one task", args[0])
	}
	return tasks[0].ID, nil
}

func newTaskLogs(a *app, l *launcherFlags) *cobra.Command {
	var follow, stderr bool
	c := &cobra.Command{
		Use: "logs JOB [TASK]", Short: "Print a task's output", Args: wants(1, 2, "[-f] [--stderr] JOB [TASK]"),
		Long: "Print what a task has written to its standard output by now, on all of its nodes; with\n-f, go on until the task has ended. TASK may be left out if the job has only one.",
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if a.json {
				return usagef("leave --json out", "output is printed as it is, not as JSON")
			}
			id, err := onlyTask(ctx, c, args)
			if err != nil {
				return err
			}
			file := client.Stdout
			if stderr {
				file = client.Stderr
			}
			if follow {
				return c.Follow(ctx, args[0], id, file, a.stdout, a.waits(ctx, c, args[0], id))
			}
			err = c.Copy(ctx, args[0], id, file, a.stdout)
			if client.Is(err, "FileNotFound") {
				// It may have written nothing, and that is all there is to print;
				// but a task that is not there is an error.
				_, err = c.Task(ctx, args[0], id)
			}
			return err
		}),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has ended")
	c.Flags().BoolVar(&stderr, "stderr", false, "its standard error instead")
	return c
}

// waits says on stderr why a task that is being followed does not start, once
// for each reason.
func (a *app) waits(ctx context.Context, c *client.Client, jobID, taskID string) func() {
	told, looks := "", 0
	return func() {
		looks++
		if a.json || looks < 6 || looks%4 != 2 { // what starts at once needs no words
			return
		}
		x, err := c.Explain(ctx, jobID, taskID)
		if err != nil || x.Sentence == told || x.State != job.TaskActive {
			return
		}
		told = x.Sentence
		fmt.Fprintf(a.stderr, "gangway: %s/%s waits: %s\n", jobID, taskID, printable(told))
	}
}

// overTasks is a command that does one thing to each of a job's tasks.
func overTasks(a *app, l *launcherFlags, use, short, done string, do func(c *client.Client, ctx context.Context, jobID, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " JOB TASK...", Short: short, Args: wants(2, 0, "JOB TASK..."),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEach(args[1:], func(id string) error {
				if err := do(c, ctx, args[0], id); err != nil {
					return err
				}
				return a.did(args[0]+"/"+id, done)
			})
		}),
	}
}

// statusOf is the exit status that a task's end stands for, as that of gangway
// run would be.
func statusOf(t client.Task) int {
	if t.Execution.Result == "success" {
		return exitOK
	}
	switch t.Execution.Failure.Reason() {
	case job.FailNotFound:
		return exitNotFound
	case job.FailNotExecutable:
		return exitNotExecutable
	case job.FailTimeLimit:
		return exitTimeLimit
	case "", job.FailRank, job.FailMemory, job.FailMPIRun:
		if x := t.Execution.Exit; x != nil && *x != 0 {
			return *x
		}
	}
	return exitFailed
}
