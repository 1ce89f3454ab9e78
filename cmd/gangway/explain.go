package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
)

func newExplainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [JOB]",
		Short: "Say why your jobs on this machine wait",
		Long: `Ask the launchers of this user on this machine (each gangway run is one) what
their tasks wait for: cores, memory, nodes, or another launcher's job that holds
them. With a job's name or its launcher's process id, only that one.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("gangway explain [JOB]", "gangway explain takes one job")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return a.explain(cmd.Context(), name)
		},
	}
}

func (a *app) explain(ctx context.Context, name string) error {
	if ctx == nil {
		ctx = context.Background()
	}
	all, err := client.Explain(ctx, os.Getuid())
	if err != nil && len(all) == 0 {
		return err
	}
	found := []client.Status{}
	for _, s := range all {
		if name == "" || s.Job == name || fmt.Sprint(s.PID) == name {
			found = append(found, s)
		}
	}
	if name != "" && len(found) == 0 {
		return usagef("gangway explain, without a name, lists them all", "no launcher of yours on this machine runs a job %q", name)
	}
	if a.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(found)
	}
	if len(found) == 0 {
		fmt.Fprintln(a.stdout, "no launcher of yours runs on this machine")
	}
	for _, s := range found {
		if len(s.Waiting) == 0 {
			fmt.Fprintf(a.stdout, "%s (pid %d): nothing waits\n", s.Job, s.PID)
		}
		for _, w := range s.Waiting {
			fmt.Fprintf(a.stdout, "%s (pid %d): waits: %s\n", s.Job, s.PID, w.Text)
		}
	}
	return nil
}
