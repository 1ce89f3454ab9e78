package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher"
	"gangway/launcher/client"
	"gangway/launcher/job"
	"gangway/launcher/pool"
	"gangway/launcher/state"
	"gangway/nodeagent/proc"
)

func newRunCommand(a *app) *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Run a program, over several nodes if asked, and wait for it",
		Long: `Run a program on this machine or, with --hosts, --hostfile or --agents, on
others. Everything a run starts ends with it, also when gangway itself is
killed. Standard input goes to rank 0, signals to all ranks; the exit status is
that of the first rank that failed.`,
		Example: `  gangway run -n 4 -- ./hello
  gangway run --hosts 'n[1-4]' --ppn 2 -- ./hello
  gangway run --hosts 'n[1-4]' --launch primary -- ./script-with-mpirun.sh`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runJob(cmd.Context(), f, args, false) },
	}
	f.register(c)
	return c
}

func newPlanCommand(a *app) *cobra.Command {
	f, m := &runFlags{}, &fromFlags{}
	c := &cobra.Command{
		Use:   "plan [flags] -- CMD [ARG...]",
		Short: "Show what run would use: placement, hostfile, command line, environment",
		Long: `Prepare a run on its nodes as "gangway run" would with the same flags, print
the placement, the binding, the hostfile, mpirun's command line and environment,
and start nothing.

With --from, print how ranks would be placed on a machine that is not here.`,
		Example: `  gangway plan --hosts 'n[1-4]' -n 8 -- ./hello
  gangway plan --from lassen.xml -n 8 --json
  gangway plan --from 'pack:2 numa:4 core:8 pu:2' -n 8 --threads 4`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if m.from != "" || f.given("from") {
				return a.planFrom(f, m)
			}
			if err := m.unused(f.given); err != nil {
				return err
			}
			return a.runJob(cmd.Context(), f, args, true)
		},
	}
	f.register(c)
	m.register(c)
	return c
}

// runJob is run and plan.
func (a *app) runJob(ctx context.Context, f *runFlags, command []string, planOnly bool) error {
	entries, err := f.hostEntries()
	if err != nil {
		return err
	}
	spec, err := f.spec(entries, command)
	if err != nil {
		return err
	}
	entries = used(spec.Tasks[0], entries)
	frugal(len(entries))
	spec.Tasks[0].PlanOnly = planOnly
	if planOnly {
		spec.Tasks[0].Stdin = false
	}
	if err := job.Validate(spec); err != nil {
		return problems(err)
	}
	if f.fold && a.json && !planOnly {
		return usagef("drop one of them", "--fold is for reading; --json prints each rank's output as it comes")
	}
	out := newSink(a, f, planOnly)
	provider, err := f.provider(entries, func(s string) { out.Notice("", s, true) })
	if err != nil {
		return poolError(err)
	}
	defer provider.Close()
	cfg := launcher.RunConfig{
		Provider: provider, Spec: spec, Base: f.base, Who: who(), Out: out,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if cfg.Fabric, err = readFabric(f.fabric, entries, func(s string) { out.Notice("", s, true) }); err != nil {
		return err
	}
	out.fabric = cfg.Fabric
	if f.switches != "" && cfg.Fabric == nil {
		return usagef("give --fabric FILE: what ibnetdiscover printed, a topology.conf or YAML", "--switches, but the fabric is not known")
	}
	if f.bcast {
		if cfg.Program, err = exec.LookPath(command[0]); err != nil && !errors.Is(err, exec.ErrDot) {
			return usagef("--bcast copies a program of this machine", "--bcast: %v", err)
		}
	}
	if !planOnly {
		cfg.Stdin = a.stdin
		cfg.Explain = client.Serve(spec.ID)
	}
	requests, stop := forwardSignals(f.grace)
	defer stop()
	cfg.Signals = requests
	res, err := launcher.Run(ctx, cfg)
	if err != nil {
		return runError(err)
	}
	return a.finish(f, out, res, planOnly)
}

// fewNodes is how many nodes one core connects to in the time that waking
// others would take.
const fewNodes = 16

// frugal sets the Go runtime up for a process that lives as long as a launch: no
// collection of garbage before 16 MB, and for few nodes one core at a time. What
// the environment says (GOGC, GOMAXPROCS) goes first.
func frugal(nodes int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if nodes <= fewNodes {
		oneProcessor()
	}
}

// forwardSignals turns the process's signals into requests for the ranks.
func forwardSignals(grace time.Duration) (<-chan launcher.SignalRequest, func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, append(proc.Forwarded(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)...)
	// A reader of our output that goes away is an error of a write, not the
	// end of this process: the nodes have to be cleared up first.
	signal.Ignore(syscall.SIGPIPE)
	out := make(chan launcher.SignalRequest, 8)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-ch:
				n, ok := s.(syscall.Signal)
				if !ok {
					continue
				}
				r := launcher.SignalRequest{Number: int(n), Name: signalName(n), Grace: min(grace, 2*time.Second)}
				switch n {
				case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
					r.Cancel = true
				}
				select {
				case out <- r:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(ch); close(done) }
}

func signalName(n syscall.Signal) string {
	switch n {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	}
	return fmt.Sprintf("signal %d (%v)", int(n), n)
}

func who() string {
	name := "?"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // "" only makes a message shorter
	return fmt.Sprintf("%s@%s pid %d", name, host, os.Getpid())
}

func poolError(err error) error {
	var pe *pool.Error
	if errors.As(err, &pe) {
		msg := pe.Msg
		if pe.Node != "" {
			msg = pe.Node + ": " + msg
		}
		code := exitFailed
		if pe.Kind == pool.Config {
			code = exitUsage
		}
		return &userError{msg: msg, hint: pe.Fix, code: code, err: err}
	}
	return err
}

func runError(err error) error {
	var in *launcher.InterruptedError
	if errors.As(err, &in) {
		return &userError{msg: in.Error(), code: exitSignal + in.Number, err: err}
	}
	var imp *state.ImpossibleError
	if errors.As(err, &imp) {
		hint := imp.Reason.Hint
		r := imp.Reason
		r.Hint = ""
		return &userError{msg: "can't run: " + r.String(), hint: hint, code: exitFailed, err: err}
	}
	return poolError(err)
}
