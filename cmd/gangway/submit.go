package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gangway/launcher/client"
	"gangway/launcher/job"
	"gangway/launcher/jobfile"
)

// commandTask is the id of the task of a job that was given as a command.
const commandTask = "main"

// submitFlags are those of submit beside what run has too.
type submitFlags struct {
	file                string // the job file's name, for messages, and what is in it
	text                []byte
	run                 runFlags
	launcher            launcherFlags
	wait, follow, exact bool
	dry                 bool
	retries             int
	array               string
	onNodeLoss          string
	made                bool // of a command and not of a file
	order               orderFlags
}

func newSubmitCommand(a *app) *cobra.Command {
	f := &submitFlags{}
	c := &cobra.Command{
		Use:   "submit FILE.yaml | [flags] -- CMD [ARG...]",
		Short: "Give a job to a launcher that stays",
		Long: `Give a job to a launcher that was started with "gangway up", and print its id:
a job file (- is standard input), or a command, with the flags of "gangway run".
The command runs in the current directory, which the nodes must have too, or that
of --chdir, with the environment of the nodes; -x adds to it.

If the id is taken, -2, -3 … is added to it, unless --exact is given. With --wait
the exit status is the task's, as that of run; of a job of several tasks it is 0 if
all succeeded, else 1.`,
		Example: "  gangway submit -n 64 --time 2h -- ./solver case.in\n  gangway submit sweep.yaml\n  gangway submit --wait -- ./check && gangway submit -n 64 -- ./solver",
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec(a, cmd, args)
			if err != nil {
				return err
			}
			if f.dry {
				return a.dry(cmd, f, spec)
			}
			return f.launcher.asks(func(ctx context.Context, c *client.Client, _ []string) error { return a.submit(ctx, c, f, spec) })(cmd, nil)
		},
	}
	f.register(c)
	return c
}

func (f *submitFlags) register(c *cobra.Command) {
	f.run.register(c)
	f.launcher.register(c.Flags())
	fl := c.Flags()
	fl.SetInterspersed(true) // flags may follow the file
	for _, name := range notSubmit() {
		_ = fl.MarkHidden(name)
	}
	fl.BoolVar(&f.wait, "wait", false, "wait until the job has ended, with its output if it is one task, and exit with its status")
	fl.BoolVarP(&f.follow, "follow", "f", false, "print the task's output until it has ended, and exit with 0")
	fl.BoolVar(&f.dry, "dry-run", false, "show what the job would be: its elements, the first and the last, and the cores they want; submit nothing")
	fl.BoolVar(&f.exact, "exact", false, "refuse an id that is taken instead of adding a number to it")
	fl.StringVar(&f.array, "array", "", "run the command once per index: a number of them, from 0, or the first and the last, as in 1-100; GANGWAY_ARRAY_INDEX says which")
	fl.IntVar(&f.retries, "retries", 0, "how often a task that exits with a status other than 0 is tried again; -1: without limit")
	fl.StringVar(&f.onNodeLoss, "on-node-loss", string(job.NodeLossRequeue), "if a node is lost: requeue starts the task elsewhere, fail ends it, wait waits for the node")
	f.order.register(fl)
}

// notSubmit are flags of run that a launcher that stays has settled already, or
// that only make sense while this process lives.
func notSubmit() []string {
	return []string{"hosts", "hostfile", "agents", "key", "ssh-config", "agent-binary", "tmpdir", "label", "fold", "verbose", "bcast", "fabric", "report-bindings"}
}

// spec makes the job of a file or a command.
func (f *submitFlags) spec(a *app, cmd *cobra.Command, args []string) (job.Spec, error) {
	fl := cmd.Flags()
	for _, name := range notSubmit() {
		if fl.Changed(name) {
			return job.Spec{}, usagef("the nodes are those of the launcher: see gangway up --help", "--%s is of gangway run, not of gangway submit", name)
		}
	}
	if f.wait && f.follow {
		return job.Spec{}, usagef("--wait prints the output too", "--wait and --follow exclude each other")
	}
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash == 0:
		f.made = true
		spec, err := f.command(args)
		if err != nil {
			return spec, err
		}
		return spec, f.order.job(fl, &spec)
	case len(args) == 0:
		return job.Spec{}, usagef("gangway submit FILE.yaml, or gangway submit -- CMD", "nothing to submit")
	case dash > 0, len(args) > 1:
		return job.Spec{}, usagef("gangway submit FILE.yaml, or gangway submit [flags] -- CMD: the command comes after --", "submit takes one file, or a command after --; there is %q", strings.Join(args, " "))
	}
	var bad string
	fl.Visit(func(x *pflag.Flag) {
		switch x.Name {
		case "wait", "follow", "exact", "dry-run", "name", "priority", "max-failures", "max-running", "launcher", "ca", "fingerprint", "json":
		default:
			bad = x.Name
		}
	})
	if bad != "" {
		return job.Spec{}, usagef("say it in the file; --name, --priority, --max-failures and --max-running can be given here", "--%s is of a command, not of a job file", bad)
	}
	spec, err := f.readJobFile(a, args[0])
	if err != nil {
		return job.Spec{}, err
	}
	if fl.Changed("name") {
		spec.ID = f.run.name
	}
	if fl.Changed("priority") {
		spec.Priority = f.run.priority
	}
	if err := f.order.job(fl, &spec); err != nil {
		return spec, err
	}
	if f.follow && (len(spec.Tasks) != 1 || spec.Tasks[0].Resolve().Range.Len() != 1) {
		return job.Spec{}, usagef("submit it without, then: gangway task logs -f JOB TASK", "--follow follows one task; %s has more", args[0])
	}
	return spec, nil
}

// command makes the job of a command line.
func (f *submitFlags) command(args []string) (job.Spec, error) {
	if len(args) == 0 {
		return job.Spec{}, usagef("gangway submit -n 4 -- ./program", "no command given")
	}
	f.run.standing = true
	spec, err := f.run.spec(nil, args)
	if err != nil {
		return job.Spec{}, err
	}
	t := &spec.Tasks[0]
	// The shell's own environment is of this machine, and has secrets: it stays here.
	t.ID, t.Stdin, t.EnvBase = commandTask, false, nil
	t.Retries, t.OnNodeLoss = f.retries, job.NodeLoss(f.onNodeLoss)
	if err := f.order.task(t); err != nil {
		return job.Spec{}, err
	}
	spec.Session = false
	if f.array != "" {
		var ok bool
		if t.Range, ok = jobfile.ParseArray(f.array); !ok {
			return job.Spec{}, usagef(arrayHint(f.array), "--array %q is not an array", f.array)
		}
		if t.Ranks <= 1 && t.Nodes <= 1 && t.RanksPerNode <= 1 { // no gangs
			t.Kind, t.Launch = job.Single, job.LaunchRanks
			if t.MPI == "auto" {
				t.MPI = "none"
			}
		}
	}
	if err := job.Validate(spec); err != nil {
		return job.Spec{}, submitProblems(err)
	}
	return spec, nil
}

// arrayHint is what to write in place of an --array that can't be read: other
// launchers' throttles, steps and lists have other places here.
func arrayHint(text string) string {
	switch {
	case strings.Contains(text, "%"):
		return "how many run at once is --max-running"
	case strings.ContainsAny(text, ",:"):
		return "indices have no steps or lists: give a job file with a sweep, such as {i: 1..9/2} or {i: [1, 5, 7]}"
	}
	return fmt.Sprintf("give a number of elements from 1 to %d, or indices such as 1-100", job.MaxArray)
}

func submitProblems(err error) error {
	err = problems(err)
	var u *userError
	if errors.As(err, &u) {
		u.hint = "see gangway submit --help"
	}
	return err
}

// submit adds the job, says its id, and waits for it if asked to.
func (a *app) submit(ctx context.Context, c *client.Client, f *submitFlags, spec job.Spec) error {
	id, err := addJob(ctx, c, spec, f.exact, f.refusal)
	if err != nil {
		return err
	}
	switch {
	case a.json && !f.wait:
		err = a.encode(map[string]string{"id": id})
	case f.wait || f.follow: // stdout is the task's
		if !a.json {
			_, err = fmt.Fprintf(a.stderr, "gangway: submitted %s\n", id)
		}
	default:
		_, err = fmt.Fprintln(a.stdout, id)
	}
	if err != nil {
		return err
	}
	one := ""
	if len(spec.Tasks) == 1 && spec.Tasks[0].Resolve().Range.Len() == 1 {
		one = spec.Tasks[0].ID
	}
	if (f.wait || f.follow) && one != "" && !a.json {
		if err := a.output(ctx, c, id, one); err != nil {
			return err
		}
	}
	if !f.wait {
		return nil
	}
	j, n, err := c.WaitJob(ctx, id, nil)
	if err != nil {
		return err
	}
	return a.ended(ctx, c, endOf(j, n), one)
}

// output copies a task's output to this process's, until the task has ended.
func (a *app) output(ctx context.Context, c *client.Client, jobID, taskID string) error {
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() {
		errs[0] = c.Follow(ctx, jobID, taskID, client.Stdout, a.stdout, a.waits(ctx, c, jobID, taskID))
	})
	both.Go(func() { errs[1] = c.Follow(ctx, jobID, taskID, client.Stderr, a.stderr, nil) })
	both.Wait()
	return firstError(errs[:]...)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// submitEnd is how a job that was waited for ended, for programs.
type submitEnd struct {
	jobEnd
	Status int    `json:"status"` // this process's exit status
	Why    string `json:"why,omitempty"`
}

// ended says how the job ended, and returns the status that it stands for: that of
// its one task if it has one.
func (a *app) ended(ctx context.Context, c *client.Client, e jobEnd, one string) error {
	out := submitEnd{jobEnd: e}
	if !e.OK {
		out.Status, out.Why = 1, counted(e.Tasks)
	}
	if one != "" {
		t, err := c.Task(ctx, e.ID, one)
		if err != nil {
			return err
		}
		if out.Status = statusOf(t); out.Status != 0 {
			out.Why = t.Execution.Failure.Sentence()
		}
	}
	if a.json {
		if err := a.encode(out); err != nil {
			return err
		}
	} else if out.Status != 0 {
		fmt.Fprintf(a.stderr, "gangway: %s failed: %s\n", e.ID, printable(out.Why))
	}
	if out.Status != 0 {
		return &statusError{out.Status}
	}
	return nil
}

// maxNumbered is how many ids are tried before a taken one is an error.
const maxNumbered = 100_000

// addJob submits a job, under an id with a number if its own is taken and that is
// allowed. refused words what the launcher says of it.
func addJob(ctx context.Context, c *client.Client, spec job.Spec, exact bool, refused func(error) error) (string, error) {
	base := spec.ID
	id, err := c.Submit(ctx, spec)
	if !client.Is(err, "JobExists") || exact {
		if exact && client.Is(err, "JobExists") {
			return "", &userError{msg: fmt.Sprintf("there is a job %q already", base), hint: "give another --name, or leave --exact out", code: exitFailed, err: err}
		}
		return id, refused(err)
	}
	next, err := nextNumber(ctx, c, base)
	if err != nil {
		return "", err
	}
	for ; next < maxNumbered; next++ {
		suffix := "-" + strconv.Itoa(next)
		spec.ID = base[:min(len(base), job.MaxID-len(suffix))] + suffix
		id, err = c.Submit(ctx, spec)
		if !client.Is(err, "JobExists") {
			return id, refused(err)
		}
	}
	return "", &userError{msg: fmt.Sprintf("there are too many jobs named %q", base), hint: "give another --name, or delete some", code: exitFailed}
}

// nextNumber is one more than the highest number that a job of this name has, of
// those that can be seen.
func nextNumber(ctx context.Context, c *client.Client, base string) (int, error) {
	next := 2
	for j, err := range c.Jobs(ctx, client.Query{Filter: "startswith(id,'" + base + "-')"}) {
		if err != nil {
			return 0, err
		}
		if n, err := strconv.Atoi(j.ID[min(len(j.ID), len(base)+1):]); err == nil && n >= next && n < maxNumbered {
			next = n + 1
		}
	}
	return next, nil
}

// refusal words what the launcher says of the job by what the user wrote: flags, or
// a file.
func (f *submitFlags) refusal(err error) error {
	if f.made {
		return submitRefusal(err)
	}
	var no *client.Error
	if !errors.As(err, &no) {
		return err
	}
	task := -1
	for _, v := range no.Values {
		switch v.Key {
		case "PropertyName":
			rest, ok := strings.CutPrefix(v.Value, "tasks[")
			n, _, _ := strings.Cut(rest, "]")
			i, err := strconv.Atoi(n)
			if task = -1; ok && err == nil {
				task = i
			}
		case "Reason":
			if task >= 0 {
				err = jobfile.Refused(f.file, f.text, task, v.Value, "")
				return &userError{msg: err.Error(), code: exitUsage, err: err}
			}
		}
	}
	return err
}

// submitRefusal words what the launcher says of the job's fields by flags.
func submitRefusal(err error) error {
	var no *client.Error
	if !errors.As(err, &no) {
		return err
	}
	var found job.Problems
	field := ""
	for _, v := range no.Values {
		switch v.Key {
		case "PropertyName":
			field = v.Value
		case "Reason":
			if field != "" && field != "gangway" && !strings.HasSuffix(field, "]") {
				found = append(found, job.Problem{Field: field, Text: v.Value})
			}
			field = ""
		}
	}
	if len(found) == 0 {
		return err
	}
	return submitProblems(found)
}

// maxJobFile bounds what is read of standard input, in bytes; the parser refuses
// what is too large with more to say.
const maxJobFile = jobfile.MaxSize + 1

// readJobFile reads the job file at path; "-" is standard input. Tasks that name
// no directory get the current one, as those of a command.
func (f *submitFlags) readJobFile(a *app, path string) (job.Spec, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return job.Spec{}, fmt.Errorf("the current directory: %w", err)
	}
	var spec job.Spec
	f.file = path
	if path == "-" {
		f.file = "standard input"
		if f.text, err = io.ReadAll(io.LimitReader(a.stdin, maxJobFile)); err == nil {
			spec, err = jobfile.ParseIn(cwd, f.file, f.text)
		}
	} else if f.text, err = jobfile.ReadFile(path); err == nil {
		spec, err = jobfile.ParseIn(filepath.Dir(path), path, f.text)
	}
	var wrong *jobfile.Errors
	switch {
	case errors.As(err, &wrong):
		return spec, &userError{msg: wrong.Error(), code: exitUsage, err: err}
	case err != nil:
		return spec, usagef("to submit a command, put -- before it", "%v", err)
	}
	for i := range spec.Tasks {
		if spec.Tasks[i].WorkDir == "" {
			spec.Tasks[i].WorkDir = cwd
		}
	}
	return spec, nil
}
