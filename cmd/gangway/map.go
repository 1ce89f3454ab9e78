package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher"
	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
	"gangway/topology"
)

// mapFlags are map's; of runFlags it has those that mean something to one
// process.
type mapFlags struct {
	run     runFlags
	in      mapInput
	null    bool
	jobs    string
	order   bool
	tag     bool
	results string
	joblog  string
	resume  bool
	again   bool // --resume-failed
	retries int
	halt    string
	timeout time.Duration
	dryRun  bool
	bar     bool
	noBar   bool
	tmp     string
	shell   string
}

func newMapCommand(a *app) *cobra.Command {
	f := &mapFlags{}
	c := &cobra.Command{
		Use:   "map [flags] CMD [ARG...] [::: VALUE...]",
		Short: "Run a command once for each value, as GNU Parallel and xargs do",
		Long: `Run a command once for each value, several at once, on this machine or on
others. Values follow ":::", come from files behind "::::", or are the lines of
standard input. Several sources make all combinations; ":::+" goes through its
list together with the source before it.

In the command, {} is the value, {.} without its extension, {/} without its
folders, {//} its folder, {/.} both; {1}, {2.}, ... are those of one source; {#}
is the command's number and {%} that of its slot. Without any of these the value
is the last argument. A single argument with blanks or other signs is run by a
shell, in which no value can be more than a word; several arguments are run as
they are.

Exit status: how many commands failed, 101 for more than 100; 125 gangway failed.`,
		Example: `  gangway map 'convert {} small/{/.}.png' ::: *.jpg
  ls *.log | gangway map -j 8 gzip
  gangway map --hosts 'n[1-4]' --results out 'solve -p {1} -t {2}' ::: 1 2 3 ::: 10 20`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.mapJob(cmd.Context(), f, args) },
	}
	fl := c.Flags()
	fl.SetInterspersed(false)
	f.run.given = fl.Changed
	fl.StringArrayVarP(&f.in.files, "arg-file", "a", nil, "read values from a file, - for standard input (repeatable: all combinations)")
	fl.BoolVarP(&f.null, "null", "0", false, "values read end with a zero byte, as find -print0 writes them")
	fl.StringVarP(&f.in.delim, "delimiter", "d", "", "what ends a value that is read, for example , (default: the line)")
	fl.IntVarP(&f.in.per, "max-args", "N", 1, "values for each command: {1}, {2}, ...")
	fl.IntVarP(&f.in.per, "max-values", "n", 1, "as -N, for who knows xargs")
	fl.StringVarP(&f.in.columns, "colsep", "C", "", "cut each value into columns at this text: {1}, {2}, ...")
	fl.BoolVarP(&f.in.noEmpty, "no-run-if-empty", "r", false, "leave out values that are blank")
	fl.StringVarP(&f.in.replace, "replace", "I", "", "text to put the value in place of, instead of {}, as xargs and GNU Parallel have it")
	fl.StringVarP(&f.jobs, "jobs", "j", "0", "commands at once on each node: a number, or 50% of the cores, or +1; 0: one a core")
	fl.StringVarP(&f.jobs, "max-procs", "P", "0", "as -j, for who knows xargs")
	fl.IntVarP(&f.run.cores, "cpus-per-task", "c", 1, "whole cores for each command")
	fl.BoolVarP(&f.order, "keep-order", "k", false, "print output in the order of the values")
	fl.BoolVar(&f.tag, "tag", false, "begin each line of output with the values and a tab")
	fl.StringVar(&f.results, "results", "", "write each command's output to DIR/1/VALUE/stdout and stderr instead, and a list to DIR/results.jsonl")
	fl.StringVar(&f.joblog, "joblog", "", "write a line for each command that has ended, in GNU Parallel's columns")
	fl.BoolVar(&f.resume, "resume", false, "leave out what the job log, or without one the results, has already")
	fl.BoolVar(&f.again, "resume-failed", false, "as --resume, but run what has failed once more")
	fl.IntVar(&f.retries, "retries", 0, "how often to try a command again that fails")
	fl.StringVar(&f.halt, "halt", "never", "when to end early: never, or now|soon,fail|success|done=N or N%")
	fl.Var((*seconds)(&f.timeout), "timeout", "time limit of each command: 90s, 5m, or a number of seconds")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the commands and run nothing")
	fl.BoolVar(&f.bar, "bar", false, "show progress on standard error (default: if that is a terminal, and standard output is not)")
	fl.BoolVar(&f.bar, "eta", false, "as --bar")
	fl.BoolVar(&f.bar, "progress", false, "as --bar")
	fl.BoolVar(&f.noBar, "no-bar", false, "show no progress")
	fl.StringVar(&f.tmp, "spool", "", "local directory for output that has to wait (default: $TMPDIR or /tmp)")
	fl.StringVar(&f.shell, "shell", "/bin/sh", "shell for commands that need one")
	fl.StringVar(&f.run.hosts, "hosts", "", "hosts to use, by ssh: a hostlist such as n[1-4,7]")
	fl.StringVar(&f.run.hostfile, "hostfile", "", "file with hosts and slots, in MPICH's or Open MPI's dialect")
	fl.StringVar(&f.run.agents, "agents", "", "standing agents to use: a hostlist with a port, such as n[1-4]:7700")
	fl.StringVar(&f.run.key, "key", "", "file with the standing agents' key")
	fl.StringVarP(&f.run.chdir, "chdir", "D", "", "working directory on the nodes (default: the current one)")
	fl.StringArrayVarP(&f.run.env, "env", "x", nil, "NAME=VALUE to set, or NAME to pass on, on the nodes (repeatable)")
	fl.StringVar(&f.run.setup, "setup", "", "shell script to source on every node first (module load …)")
	fl.StringVar(&f.run.mem, "mem", "", "memory for each command, for example 2G; enforced where cgroups allow")
	fl.IntVar(&f.run.gpus, "gpus", 0, "GPUs for each command")
	fl.DurationVar(&f.run.grace, "kill-grace", 2*time.Second, "from SIGTERM to SIGKILL at the time limit and on cancel")
	fl.StringVar(&f.run.base, "tmpdir", "", "local directory on the nodes for sockets and scratch files (default /tmp)")
	fl.StringVarP(&f.run.sshConfig, "ssh-config", "F", "", "ssh configuration to use in place of ~/.ssh/config")
	fl.StringVar(&f.run.agentBinary, "agent-binary", "", "gangway built for the nodes' architecture, if it differs")
	c.MarkFlagsMutuallyExclusive("hosts", "hostfile", "agents")
	return c
}

// check refuses flags that can't be.
func (f *mapFlags) check() error {
	given := f.run.given
	switch {
	case f.null && given("delimiter"):
		return usagef("give one of them", "-0 and -d exclude each other")
	case given("delimiter") && f.in.delim == "":
		return usagef("for example -d ,", "-d is empty")
	case f.in.per < 1 || f.in.per > sweep.MaxNames-1:
		return usagef("", "-N %d: allowed is 1 to %d", f.in.per, sweep.MaxNames-1)
	case f.in.columns != "" && f.in.per > 1:
		return usagef("give one of them", "-N and --colsep exclude each other")
	case given("replace") && f.in.replace == "":
		return usagef("for example -I %", "-I is empty")
	case f.in.replace != "" && f.in.per > 1:
		return usagef("give one of them", "-N and -I exclude each other")
	case f.run.cores < 1:
		return usagef("give a number from 1", "-c %d", f.run.cores)
	case f.retries < 0 || f.retries > 1000:
		return usagef("", "--retries %d: allowed is 0 to 1000", f.retries)
	case f.timeout < 0:
		return usagef("", "--timeout %v is below 0", f.timeout)
	case (f.resume || f.again) && f.joblog == "" && f.results == "":
		return usagef("give --joblog FILE, or --results DIR", "--resume needs to know what is done")
	case f.again && f.joblog == "":
		return usagef("give --joblog FILE", "--resume-failed needs to know what has failed")
	case f.shell == "":
		return usagef("for example --shell /bin/bash", "--shell is empty")
	}
	if f.null {
		f.in.delim = "\x00"
	}
	if d := strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\0`, "\x00", `\\`, `\`); len(f.in.delim) > 1 {
		f.in.delim = d.Replace(f.in.delim)
	}
	if len(f.in.columns) > 1 {
		f.in.columns = strings.NewReplacer(`\t`, "\t", `\\`, `\`).Replace(f.in.columns)
	}
	f.resume = f.resume || f.again
	return nil
}

// mapWork is what is to be done.
type mapWork struct {
	command *mapCommand
	sweep   *sweep.Sweep
	table   *sweep.Table
	show    *mapShow
	total   uint64
	skipped uint64 // done before, says the job log
}

// work reads the values and makes the commands; nil: there are none.
func (f *mapFlags) work(args []string) (*mapWork, error) {
	words, rest := cutCommand(args)
	words, err := f.in.replaced(words)
	if err != nil {
		return nil, err
	}
	sources, err := f.in.sources(rest)
	if err != nil {
		return nil, err
	}
	width, ragged := 0, false
	for i := range sources {
		width += len(sources[i].columns)
		if len(sources) == 1 && sources[i].short > 0 {
			ragged = true
		}
	}
	w := &mapWork{}
	if w.command, err = commandOf(words, width, f.shell, ragged); err != nil {
		if errors.Is(err, errColumn) {
			return nil, usagef(fmt.Sprintf("each command has %d", width), "the command: %v", err)
		}
		return nil, err
	}
	if w.command.ragged {
		sources[0].present(width)
	}
	if w.sweep, err = sweepOf(sources); err != nil || w.sweep == nil {
		return nil, err
	}
	if err := w.compile(); err != nil {
		return nil, err
	}
	return w, nil
}

// present adds the column that says how many of a command's values are there.
func (s *mapSource) present(width int) {
	var b bytes.Buffer
	for i := range s.n {
		n := uint64(width)
		if i+1 == s.n {
			n -= s.short
		}
		fmt.Fprintln(&b, n)
	}
	s.columns = append(s.columns, sweep.Column{Name: presentColumn, Lines: b.String()})
}

// compile reads the sweep that the work has.
func (w *mapWork) compile() error {
	var err error
	if w.table, err = w.sweep.Table(); err != nil {
		return sweepError(err)
	}
	w.total = w.table.Len()
	if w.show, err = newMapShow(w.command, w.table); err != nil {
		return sweepError(err)
	}
	return nil
}

// keep leaves only those for which f is true.
func (w *mapWork) keep(f func(index uint64) bool) error {
	var indices []uint64
	for i := uint64(1); i <= w.total; i++ {
		if f(i) {
			indices = append(indices, i)
		}
	}
	w.skipped = w.total - uint64(len(indices))
	if w.skipped == 0 {
		return nil
	}
	if len(indices) == 0 {
		w.total = 0
		return nil
	}
	names := w.sweep.Names()
	w.sweep = only(w.table, len(names), indices)
	// That which says how many values there are keeps its name.
	for i, n := range names {
		w.sweep.Axes[0].Columns[i].Name = n
	}
	w.command.number = "{" + numberColumn + "}"
	return w.compile()
}

// resumed leaves out what was done before.
func (f *mapFlags) resumed(w *mapWork) error {
	if !f.resume {
		return nil
	}
	if f.joblog != "" {
		if err := mend(f.joblog); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("--joblog: %w", err)
		}
		r, err := os.Open(f.joblog)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return usagef("", "--joblog: %v", err)
		}
		defer r.Close()
		known, err := readJoblog(r, f.joblog)
		if err != nil {
			return err
		}
		return w.keep(func(i uint64) bool {
			failed, done := known[i]
			return !done || failed && f.again
		})
	}
	r := &results{dir: f.results}
	return w.keep(func(i uint64) bool { return !r.has(w.show.number(i), w.show.values(i)) })
}

// mapJob is the command.
func (a *app) mapJob(ctx context.Context, f *mapFlags, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	rule, err := parseHalt(f.halt)
	if err != nil {
		return err
	}
	// All that can be wrong is found before a node is asked for anything.
	entries, err := f.run.hostEntries()
	if err != nil {
		return err
	}
	if _, err := parseJobs(f.jobs, 1, 1); err != nil {
		return err
	}
	f.in.stdin = a.stdin
	w, err := f.work(args)
	if err != nil {
		return err
	}
	if w != nil {
		if err := f.resumed(w); err != nil {
			return err
		}
	}
	if w == nil || w.total == 0 {
		return a.mapDone(&mapPrinter{}, w, 0)
	}
	if f.dryRun {
		return a.mapDry(w)
	}
	spec, err := f.spec(w, len(entries) == 0)
	if err != nil {
		return err
	}
	if err := job.Validate(spec); err != nil {
		var ue *userError
		if err = problems(err); errors.As(err, &ue) {
			ue.hint = "see gangway map --help"
		}
		return err
	}
	return a.mapRun(ctx, f, entries, w, spec, rule)
}

// mapDry prints the commands.
func (a *app) mapDry(w *mapWork) error {
	p := newMapPrinter(w.total, w.show, a.stdout, a.stderr, "")
	for i := uint64(1); i <= w.total; i++ {
		text := []byte(w.show.command(i) + "\n")
		if a.json {
			text = eventLine(map[string]any{"type": "element", "seq": i, "command": w.show.command(i), "values": w.show.values(i)})
		}
		if _, err := p.stdout.Write(text); err != nil {
			return mapBroken(err)
		}
	}
	if err := p.stdout.Flush(); err != nil {
		return mapBroken(err)
	}
	return nil
}

func mapBroken(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return &statusError{code: exitSignal + int(syscall.SIGPIPE)}
	}
	return fmt.Errorf("the output can't be written: %w", err)
}

// spec makes the job.
func (f *mapFlags) spec(w *mapWork, local bool) (job.Spec, error) {
	t := job.TaskSpec{
		ID: "map", Kind: job.Single, Range: job.Range{Lo: 1, Hi: w.total + 1}, CoresPerRank: f.run.cores, GPUsPerRank: f.run.gpus,
		TimeLimit: f.timeout, KillGrace: f.run.grace, Retries: f.retries,
		Command: w.command.argv(), Sweep: w.sweep,
	}
	if f.run.mem != "" {
		n, err := parseBytes(f.run.mem)
		if err != nil {
			return job.Spec{}, usagef("for example 512M or 2G", "--mem: %v", err)
		}
		t.MemPerRank = n
	}
	if err := f.run.surroundings(&t, local); err != nil {
		return job.Spec{}, err
	}
	// They are not texts of this sweep, but would be read as such.
	for i := range t.Env {
		t.Env[i] = escapeBraces(t.Env[i])
	}
	t.WorkDir = escapeBraces(t.WorkDir)
	name, _, _ := strings.Cut(strings.TrimSpace(w.show.command(1)), " ")
	id := f.run.jobName(name)
	if id == "" || w.command.value {
		id = "map"
	}
	return job.Spec{ID: id, Session: true, Tasks: []job.TaskSpec{t}}, nil
}

// mapRun runs the commands.
func (a *app) mapRun(ctx context.Context, f *mapFlags, entries []topology.HostEntry, w *mapWork, spec job.Spec, rule haltRule) error {
	orders := make(chan launcher.ArrayOrder, 1)
	p := newMapPrinter(w.total, w.show, a.stdout, a.stderr, f.tmp)
	p.keepOrder, p.tag, p.json, p.local, p.halt, p.orders = f.order, f.tag, a.json, len(entries) == 0, rule, orders
	var err error
	if f.joblog != "" {
		if p.log, err = openJoblog(f.joblog, f.resume); err != nil {
			return err
		}
	}
	if f.results != "" {
		if p.results, err = openResults(f.results, f.resume); err != nil {
			return err
		}
	}
	provider, err := f.run.provider(entries, func(s string) { p.Notice("", s, true) })
	if err != nil {
		return poolError(err)
	}
	defer provider.Close()
	signals, stop := forwardSignals(f.run.grace)
	defer stop()
	endBar := a.mapBar(f, p)
	began := time.Now()
	res, err := launcher.RunArray(ctx, launcher.ArrayConfig{
		Provider: provider, Spec: spec, Base: f.run.base, Who: who(), Out: p, Signals: signals, Orders: orders, Ready: f.slots,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	endBar()
	ferr := p.finish()
	switch {
	case err != nil:
		return runError(err)
	case res.Broken != nil:
		return mapBroken(res.Broken)
	case ferr != nil:
		return mapBroken(ferr)
	case res.Interrupted != nil:
		if err := a.mapDone(p, w, time.Since(began)); err != nil {
			var st *statusError
			if !errors.As(err, &st) {
				return err
			}
		}
		return &statusError{code: exitSignal + res.Interrupted.Number}
	}
	return a.mapDone(p, w, time.Since(began))
}

// slots says how many commands run at once on a node.
func (f *mapFlags) slots(cores int, t *job.TaskSpec) error {
	n, err := parseJobs(f.jobs, cores, t.CoresPerRank)
	if err != nil || n == 0 {
		return err
	}
	t.AtOnce = n
	// Whoever says a number means it, as for commands that mostly wait.
	t.Oversubscribe = f.jobs[0] >= '0' && f.jobs[0] <= '9' && n*t.CoresPerRank > cores
	return nil
}

// mapBar shows progress until the function that it returns is called.
func (a *app) mapBar(f *mapFlags, p *mapPrinter) func() {
	if f.noBar || a.json || !f.bar && (!terminal(os.Stderr) || terminal(os.Stdout)) {
		return func() {}
	}
	p.mu.Lock()
	p.bar = &progress{}
	p.mu.Unlock()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressPause)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				s := p.state()
				p.mu.Lock()
				p.bar.draw(p.stderr, s, now)
				_ = p.stderr.Flush()
				p.mu.Unlock()
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// terminal reports whether f is one.
func terminal(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0 && fi.Name() != os.DevNull && !isNull(fi)
}

// isNull reports whether a file is the one that takes everything.
func isNull(fi os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(fi, null)
}

// mapDone tells how all ended and returns the exit status.
func (a *app) mapDone(p *mapPrinter, w *mapWork, took time.Duration) error {
	code := mapStatus(p.failed)
	if p.stopped && p.halt.on == "fail" {
		code = p.first
	} else if p.stopped && p.halt.on == "success" {
		code = exitOK
	}
	if a.json {
		var total, before uint64
		if w != nil {
			total, before = w.total, w.skipped
		}
		line := map[string]any{"type": "result", "status": code, "total": total, "succeeded": p.done - p.failed, "failed": p.failed,
			"retried": p.retried, "not_run": total - min(total, p.done), "done_before": before, "seconds": math.Round(took.Seconds()*1e3) / 1e3}
		if _, err := a.stdout.Write(eventLine(line)); err != nil {
			return mapBroken(err)
		}
	}
	if code == exitOK {
		return nil
	}
	return &statusError{code: code}
}
