package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker in releases.
var version = "0.1.0-dev"

// app is what the subcommands share.
type app struct {
	json           bool
	stdin          *os.File
	stdout, stderr io.Writer
}

// execute runs the command line and returns the exit status.
func execute(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	root := newRoot(a)
	root.SetArgs(args)
	err := root.Execute()
	if err != nil && strings.HasPrefix(err.Error(), "if any flags in the group") {
		err = usagef("this machine, ssh hosts and standing agents exclude each other", "give only one of --hosts, --hostfile and --agents")
	}
	return report(a.stderr, a.json, err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "gangway",
		Short: "Launch MPI programs over machines that you can reach",
		Long: `gangway turns machines you can reach into a cluster that runs MPI: it probes
their topology, places ranks on whole cores, starts them through the right
mpirun with the right hostfile, and ends everything everywhere when one fails.

Exit status: the application's; 125 gangway failed, 126 not executable,
127 not found, 128+n killed by signal n, 2 wrong usage.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see gangway --help"
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = "did you mean " + strings.Join(s, " or ") + "?"
			}
			return usagef(hint, "unknown command %q", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, errors included")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("see "+cmd.CommandPath()+" --help", "%v", err)
	})
	root.AddCommand(
		newRunCommand(a), newPlanCommand(a), newProbeCommand(a), newExplainCommand(a),
		newAgentCommand(a), newBridgeCommand(a), newKeyCommand(a), newVersionCommand(a),
		newSubmitCommand(a), newJobCommand(a), newTaskCommand(a), newNodeCommand(a), newPoolCommand(a), newStatusCommand(a),
		newTokenCommand(a), newAccountCommand(a), newJoinTokenCommand(a), newCACommand(a),
		newUpCommand(a), newFabricCommand(a), newMapCommand(a),
	)
	return root
}

func newVersionCommand(a *app) *cobra.Command {
	var digest bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if digest {
				exe, err := os.Executable()
				if err != nil {
					return err
				}
				d, err := fileDigest(exe)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, d)
				return nil
			}
			fmt.Fprintln(a.stdout, "gangway", versionString())
			return nil
		},
	}
	c.Flags().BoolVar(&digest, "digest", false, "print the SHA-256 of this program, by which copies on nodes are recognised")
	return c
}

func versionString() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return version + " (" + s.Value[:12] + ")"
			}
		}
	}
	return version
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("see "+cmd.CommandPath()+" --help", "%s takes no arguments, got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

var errNoExecutable = errors.New("this program can't find its own file")
