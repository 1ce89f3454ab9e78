package main

import (
	"github.com/spf13/pflag"

	"gangway/launcher/job"
	"gangway/launcher/jobfile"
)

// orderFlags are submit's flags about retries, warnings and a job's limits.
type orderFlags struct {
	maxFailures, maxRunning int
	backoff, signal         string
	elsewhere               bool
}

func (o *orderFlags) register(fl *pflag.FlagSet) {
	fl.IntVar(&o.maxFailures, "max-failures", 0, "end the job when more tasks than that have failed for good; without it, it goes on")
	fl.IntVar(&o.maxRunning, "max-running", 0, "how many tasks of the job run at once; 0: as many as there is room for")
	fl.StringVar(&o.backoff, "backoff", "", "the pause before the first retry, as 30s, or also the longest, as 30s..10m: each is twice the one before")
	fl.BoolVar(&o.elsewhere, "retry-elsewhere", false, "a retry leaves out the nodes where it failed, if others will do")
	fl.StringVar(&o.signal, "signal", "", "a signal and how long before --time is over the program gets it, as USR1@60s")
}

// job writes the flags that were given for the whole job into it; they hold for
// job files too.
func (o *orderFlags) job(fl *pflag.FlagSet, spec *job.Spec) error {
	if fl.Changed("max-failures") {
		if o.maxFailures < 0 {
			return usagef("give 0 to end the job with the first failure, or leave it out", "--max-failures %d is less than 0", o.maxFailures)
		}
		spec.MaxFailures = &o.maxFailures
	}
	if fl.Changed("max-running") {
		if o.maxRunning < 0 {
			return usagef("give a number from 1, or 0 for no limit", "--max-running %d is less than 0", o.maxRunning)
		}
		spec.MaxRunning = o.maxRunning
	}
	return nil
}

// task writes the flags of a command's task into it.
func (o *orderFlags) task(t *job.TaskSpec) error {
	var err error
	if o.backoff != "" {
		if t.Backoff, t.BackoffMax, err = jobfile.ParseBackoff(o.backoff); err != nil {
			return usagef("give the first pause, as --backoff 30s, or also the longest, as --backoff 30s..10m", "--backoff: %v", err)
		}
	}
	if o.signal != "" {
		if t.SoftSignal, t.SoftBefore, err = jobfile.ParseSignal(o.signal); err != nil {
			return usagef("give a signal and a time, as --signal USR1@60s", "--signal: %v", err)
		}
	}
	t.RetryElsewhere = o.elsewhere
	return nil
}
