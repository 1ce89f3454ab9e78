package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
	"gangway/launcher/job"
)

func newJobCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	c := group("job", "See and change the jobs of a launcher that stays",
		`See and change the jobs of a launcher that was started with "gangway up". You
see your own jobs, an administrator those of everyone.`,
		newJobList(a, l), newJobShow(a, l), newJobWait(a, l), newJobCancel(a, l), newJobDelete(a, l), newJobDisable(a, l), newJobEnable(a, l))
	l.register(c.PersistentFlags())
	return c
}

func newJobList(a *app, l *launcherFlags) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs,
		Short: "List the jobs that have not ended",
		RunE: l.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			q := client.Query{Filter: "state ne 'completed'"}
			if all {
				q.Filter = ""
			}
			jobs, err := client.All(c.Jobs(ctx, q), 0)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(jobs)
			}
			rows := make([][]string, len(jobs))
			for i, j := range jobs {
				n, err := c.Counts(ctx, j.ID)
				if err != nil && !client.Is(err, "JobNotFound") {
					return err
				}
				rows[i] = []string{j.ID, j.State, fmt.Sprint(n.Active), fmt.Sprint(n.Running), fmt.Sprint(n.Succeeded), fmt.Sprint(n.Failed),
					fmt.Sprint(j.Priority), j.Gangway.Owner, ago(j.Created)}
			}
			return a.table("JOB STATE WAITING RUNNING SUCCEEDED FAILED PRIORITY OWNER AGE", rows)
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "those that have ended, too")
	return c
}

func newJobShow(a *app, l *launcherFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show JOB", Short: "Show a job", Args: wants(1, 1, "JOB"),
		Long: `Show a job: its tasks counted, how fast they end, how long they ran and how they
failed. Failures are grouped by how they ended and the last line on stderr, in
which # stands for numbers; one of each group is named.`,
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			j, err := c.Job(ctx, args[0])
			if err != nil {
				return err
			}
			s, err := c.Summary(ctx, j.ID)
			if err != nil {
				return err
			}
			if a.json {
				return a.encodeJob(j, s)
			}
			n := client.Counts(s.Counts)
			open := ""
			if j.Open() {
				open = "yes: it takes more tasks until it is cancelled"
			}
			if err := a.facts("job", j.ID, "state", j.State+since(j.StateAt), "owner", j.Gangway.Owner, "pool", j.Pool.ID, "priority", fmt.Sprint(j.Priority),
				"tasks", counted(n), "pace", paceOf(s), "stays open", open, "submitted", moment(j.Created), "ended", moment(j.Execution.End), "reason", j.Execution.Reason,
				"lasted", lasted(j.Created, j.Execution.End)); err != nil {
				return err
			}
			if err := a.whyWaiting(ctx, c, j.ID); err != nil {
				return err
			}
			a.printSummary(s)
			return nil
		}),
	}
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " for " + ago(t)
}

// whyWaiting says of a job's first task that waits what it waits for.
func (a *app) whyWaiting(ctx context.Context, c *client.Client, jobID string) error {
	tasks, err := client.All(c.Tasks(ctx, jobID, client.Query{Filter: "state eq 'active'", Page: 1}), 1)
	if err != nil || len(tasks) == 0 {
		return err
	}
	x, err := c.Explain(ctx, jobID, tasks[0].ID)
	if err != nil || x.State != job.TaskActive { // it has started meanwhile
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s waits: %s\n", tasks[0].ID, printable(x.Sentence))
	return err
}

// counted is what a job's tasks do, in words.
func counted(n client.Counts) string {
	var parts []string
	for _, x := range []struct {
		n    uint64
		what string
	}{{n.Active, "waiting"}, {n.Running, "running"}, {n.Succeeded, "succeeded"}, {n.Failed, "failed"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// jobEnd is how a job ended, for programs.
type jobEnd struct {
	ID     string        `json:"id"`
	State  string        `json:"state"`
	Reason string        `json:"reason,omitempty"`
	Tasks  client.Counts `json:"tasks"`
	OK     bool          `json:"ok"`
}

// endOf says how a job ended. A job that was told to end while it stayed open has
// ended well if its tasks have.
func endOf(j client.Job, n client.Counts) jobEnd {
	return jobEnd{j.ID, j.State, j.Execution.Reason, n, n.Failed == 0 && j.Execution.Reason != "MaxWallClockTimeExpiry"}
}

func newJobWait(a *app, l *launcherFlags) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "wait JOB...", Short: "Wait until jobs have ended", Args: wants(1, 0, "JOB..."),
		Long: `Wait until jobs have ended; a job that stays open has when all of its tasks have.
Exit status: 0 if all tasks succeeded, 1 if one failed, 125 if the time was up or
the launcher could not be asked.`,
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if timeout > 0 {
				var cancel context.CancelFunc
				up := &userError{msg: fmt.Sprintf("not ended after %v", timeout), hint: "they go on; gangway explain JOB says what tasks wait for", code: exitFailed}
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, up)
				defer cancel()
			}
			ends, bad := []jobEnd{}, false
			err := a.forEach(args, func(id string) error {
				j, n, err := c.WaitJob(ctx, id, nil)
				if err != nil {
					return err
				}
				e := endOf(j, n)
				ends, bad = append(ends, e), bad || !e.OK
				if !a.json {
					fmt.Fprintf(a.stdout, "%s: %s\n", id, counted(n))
				}
				return nil
			})
			if a.json {
				if jerr := a.encode(ends); jerr != nil {
					return jerr
				}
			}
			if err == nil && bad {
				return &statusError{1}
			}
			return err
		}),
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "wait no longer than this, for example 10m")
	return c
}

// overJobs is a command that does one thing to each of some jobs.
func overJobs(a *app, l *launcherFlags, use, short, done string, do func(ctx context.Context, c *client.Client, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " JOB...", Short: short, Args: wants(1, 0, "JOB..."),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEach(args, func(id string) error {
				if err := do(ctx, c, id); err != nil {
					return err
				}
				return a.did(id, done)
			})
		}),
	}
}

func newJobCancel(a *app, l *launcherFlags) *cobra.Command {
	c := overJobs(a, l, "cancel", "End jobs: their tasks are ended, those that wait don't start", "is being cancelled",
		func(ctx context.Context, c *client.Client, id string) error {
			return c.CancelJob(ctx, id, "UserTerminate")
		})
	c.Aliases = []string{"terminate"}
	return c
}

func newJobDelete(a *app, l *launcherFlags) *cobra.Command {
	return overJobs(a, l, "delete", "End jobs and forget them, their output included", "is being deleted",
		func(ctx context.Context, c *client.Client, id string) error { return c.DeleteJob(ctx, id) })
}

func newJobDisable(a *app, l *launcherFlags) *cobra.Command {
	var running string
	c := overJobs(a, l, "disable", "Start no more tasks of jobs until they are enabled", "is being disabled",
		func(ctx context.Context, c *client.Client, id string) error { return c.DisableJob(ctx, id, running) })
	c.Flags().StringVar(&running, "tasks", "wait", "what becomes of tasks that run: requeue, terminate or wait")
	c.PreRunE = oneOf("--tasks", &running, "requeue", "terminate", "wait")
	return c
}

func newJobEnable(a *app, l *launcherFlags) *cobra.Command {
	return overJobs(a, l, "enable", "Let disabled jobs' tasks start again", "is enabled",
		func(ctx context.Context, c *client.Client, id string) error { return c.EnableJob(ctx, id) })
}

// oneOf refuses a flag's value that is none of those allowed.
func oneOf(flag string, value *string, allowed ...string) func(*cobra.Command, []string) error {
	return func(*cobra.Command, []string) error {
		for _, v := range allowed {
			if *value == v {
				return nil
			}
		}
		return usagef(strings.Join(allowed[:len(allowed)-1], ", ")+" or "+allowed[len(allowed)-1], "%s %q is unknown", flag, *value)
	}
}
