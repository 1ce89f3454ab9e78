package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gangway/launcher"
	"gangway/launcher/client"
	"gangway/launcher/job"
	"gangway/topology"
)

func newTaskAutopsy(a *app, l *launcherFlags) *cobra.Command {
	var attempt uint32
	c := &cobra.Command{
		Use: "autopsy JOB [TASK]", Short: "Show what a failed attempt of a task died of", Args: wants(1, 2, "[--attempt N] JOB [TASK]"),
		Long: `Show which rank and node of a gang failed first, and how; what became of the
other ranks; the last lines that they wrote; and which nodes are suspected, and
what was done about them. It is that of the last attempt that failed, also when
a later one has ended well. TASK may be left out if the job has only one.`,
		Example: "  gangway task autopsy sweep\n  gangway task autopsy sweep t7 --attempt 1 --json",
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := onlyTask(ctx, c, args)
			if err != nil {
				return err
			}
			x, err := c.Autopsy(ctx, args[0], id, attempt)
			if client.Is(err, "AutopsyNotFound") {
				if attempt > 0 {
					return &userError{msg: fmt.Sprintf("%s/%s: nothing is known of attempt %d, or it has not failed", args[0], id, attempt), hint: "leave --attempt out for the last that failed", code: exitFailed, err: err}
				}
				return &userError{msg: fmt.Sprintf("%s/%s: no attempt of it has failed", args[0], id), code: exitFailed, err: err}
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(x)
			}
			return a.printAutopsy(x)
		}),
	}
	c.Flags().Uint32Var(&attempt, "attempt", 0, "number of the attempt, from 1 (default: the last that failed)")
	return c
}

// printAutopsy prints a report to be read in seconds: what died first, then the
// rest.
func (a *app) printAutopsy(x client.Autopsy) error {
	where := fmt.Sprintf("%d ranks on %s", x.Ranks, topology.CompactHosts(x.Nodes))
	if x.Ranks == 1 {
		where = "on " + topology.CompactHosts(x.Nodes)
	}
	fmt.Fprintf(a.stdout, "%s/%s, attempt %d, %s\n", x.Job, x.Task, x.Attempt, where)
	fmt.Fprintf(a.stdout, "  %s: %s\n", x.Death, printable(x.Headline()))
	if len(x.Fates) > 0 {
		fmt.Fprintln(a.stdout)
		rows := make([][]string, len(x.Fates))
		for i, f := range x.Fates {
			rows[i] = []string{f.Ranks, fmt.Sprint(f.Count), topology.CompactHosts(f.Nodes), printable(f.How)}
		}
		if err := a.table("RANKS COUNT NODES FATE", rows); err != nil {
			return err
		}
	}
	if len(x.Words) > 0 {
		fmt.Fprintln(a.stdout)
	}
	for _, w := range x.Words {
		fmt.Fprintf(a.stdout, "last lines of %s:\n", ranksText(w.Ranks))
		for _, line := range w.Lines {
			fmt.Fprintf(a.stdout, "  %s\n", printable(line))
		}
	}
	if len(x.Suspects) > 0 {
		fmt.Fprintln(a.stdout)
	}
	for _, s := range x.Suspects {
		fmt.Fprintf(a.stdout, "suspected: %s: %s\n", s.Node, printable(s.Why))
		for _, y := range x.Actions {
			if y.Node == s.Node {
				if done := actionText(y.LeftOut, y.Draining, y.Why, y.Guilty); done != "" {
					fmt.Fprintf(a.stdout, "  %s\n", printable(done))
				}
			}
		}
	}
	if len(x.Attempts) > 1 {
		var numbers []string
		for _, n := range x.Attempts {
			numbers = append(numbers, fmt.Sprint(n))
		}
		fmt.Fprintf(a.stdout, "\nfailed attempts: %s\n", strings.Join(numbers, ", "))
	}
	return nil
}

// actionText says what was done about a suspected node.
func actionText(leftOut, draining bool, why string, guilty int) string {
	var parts []string
	if leftOut {
		parts = append(parts, "left out of the next attempt")
	}
	switch {
	case draining && why != "":
		parts = append(parts, why+" (gangway node resume puts it back)")
	case draining:
		parts = append(parts, "takes no work")
	case guilty == 1:
		parts = append(parts, "1 attempt speaks against it")
	case guilty > 1:
		parts = append(parts, fmt.Sprintf("%d attempts speak against it", guilty))
	}
	return strings.Join(parts, "; ")
}

func ranksText(list string) string {
	if strings.ContainsAny(list, ",-") {
		return "ranks " + list
	}
	return "rank " + list
}

// maxBrief is how many fates and suspects a run prints of a gang that failed.
const maxBrief = 4

// reportOf is the report on a run's last attempt, if it was a gang's that failed.
func reportOf(res launcher.RunResult) *job.Report {
	if res.Attempt == nil || res.Outcome.Success {
		return nil
	}
	r := res.Attempt.Report()
	if r == nil || r.Ranks < 2 {
		return nil
	}
	return r
}

// brief prints what a gang died of, in a few lines.
func brief(w io.Writer, r *job.Report) {
	switch r.Death {
	case job.DeathCancelled, job.DeathLimit, job.DeathPreflight, job.DeathUnknown:
		return // the reason has said it
	case job.DeathLaunch:
		if r.Told == 0 {
			return
		}
	}
	fmt.Fprintf(w, "  first: %s\n", printable(r.Headline()))
	said := 0
	for _, f := range r.Fates {
		if f.How == r.How || r.Rank >= 0 && f.Ranks == fmt.Sprint(r.Rank) {
			continue
		}
		if said == maxBrief {
			fmt.Fprintf(w, "  and %d more kinds of ends\n", len(r.Fates)-maxBrief-1)
			break
		}
		said++
		fmt.Fprintf(w, "  %s on %s: %s\n", ranksText(f.Ranks), topology.CompactHosts(f.Nodes), printable(f.How))
	}
	for _, s := range r.Suspects[:min(len(r.Suspects), maxBrief)] {
		fmt.Fprintf(w, "  suspected: %s: %s\n", s.Node, printable(s.Why))
	}
}
