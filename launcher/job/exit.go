package job

import "time"

// DefaultBackoffMax bounds the pause before a retry when a task does not say.
const DefaultBackoffMax = time.Hour

// MaxSignal is Linux's last signal.
const MaxSignal = 64

// maxExitRules bounds an exit condition's list.
const maxExitRules = 256

// ExitConditions say what follows from how a task ends, an array's each element,
// once it is not tried again. The first of Rules that holds its exit code is
// taken; then PreProcessing or FileUpload, for what they are about; then Default,
// for what has failed. They are Azure Batch's exitConditions.
type ExitConditions struct {
	Rules         []ExitRule  `json:"rules,omitempty"`
	PreProcessing *ExitAction `json:"pre_processing,omitempty"` // it did not come to run
	FileUpload    *ExitAction `json:"file_upload,omitempty"`
	Default       *ExitAction `json:"default,omitempty"`
}

// ExitRule is about exit codes Lo to Hi, both included. A signal counts as 128 and
// its number.
type ExitRule struct {
	Lo int `json:"lo"`
	Hi int `json:"hi"`
	ExitAction
}

// ExitAction is what follows. "" leaves it as it is without: the job goes on,
// success satisfies and failure blocks.
type ExitAction struct {
	Job    JobAction    `json:"job,omitempty"`    // only where Spec.ExitActions
	Depend DependAction `json:"depend,omitempty"` // for tasks that depend on it
}

// JobAction is what becomes of the job.
type JobAction string

// The job actions.
const (
	JobNone      JobAction = "none"
	JobDisable   JobAction = "disable" // what runs is ended, and starts anew when it is enabled
	JobTerminate JobAction = "terminate"
)

// DependAction is what becomes of tasks that depend on it.
type DependAction string

// The dependency actions.
const (
	DependSatisfy DependAction = "satisfy" // they may start
	DependBlock   DependAction = "block"   // they never will
)

// After returns what follows from an outcome; the zero value: nothing special. What
// someone ended, or what ended for a parent, has no exit condition. Safe on nil.
func (e *ExitConditions) After(o Outcome) ExitAction {
	code := Code("")
	if o.Reason != nil {
		code = o.Reason.Code
	}
	if e == nil {
		return ExitAction{}
	}
	switch code {
	case FailParent, FailCancelled, FailFailures, FailExitAction, FailRequeued:
		return ExitAction{}
	case "", FailUnknown, FailRank, FailMPIRun, FailMemory:
		exit := o.ExitCode
		if exit == 0 && o.Signal != 0 {
			exit = 128 + o.Signal
		}
		for _, r := range e.Rules {
			if r.Lo <= exit && exit <= r.Hi {
				return r.ExitAction
			}
		}
	case FailTimeLimit, FailNodeLost, FailShimLost, FailPeerLost, FailLease, FailInput, FailInternal:
	default: // it did not come to run
		if e.PreProcessing != nil {
			return *e.PreProcessing
		}
	}
	if o.Success || e.Default == nil {
		return ExitAction{}
	}
	return *e.Default
}

// Satisfies reports whether tasks that depend on one with this outcome may start.
func (e *ExitConditions) Satisfies(o Outcome) bool {
	switch e.After(o).Depend {
	case DependSatisfy:
		return true
	case DependBlock:
		return false
	}
	return o.Success
}

// HasJobAction reports whether an end of the task could end or disable its job.
func (e *ExitConditions) HasJobAction() bool {
	if e == nil {
		return false
	}
	acts := func(a *ExitAction) bool { return a != nil && a.Job != "" && a.Job != JobNone }
	for i := range e.Rules {
		if acts(&e.Rules[i].ExitAction) {
			return true
		}
	}
	return acts(e.PreProcessing) || acts(e.FileUpload) || acts(e.Default)
}

// exit checks exit conditions.
func (c *checker) exit(e *ExitConditions) {
	if e == nil {
		return
	}
	if len(e.Rules) > maxExitRules {
		c.bad("exit", "has %d rules: at most %d are allowed; use ranges", len(e.Rules), maxExitRules)
	}
	action := func(a *ExitAction) {
		if a == nil {
			return
		}
		if a.Job != "" {
			c.oneOf("exit", string(a.Job), string(JobNone), string(JobDisable), string(JobTerminate))
		}
		if a.Depend != "" {
			c.oneOf("exit", string(a.Depend), string(DependSatisfy), string(DependBlock))
		}
	}
	for i := range e.Rules {
		r := &e.Rules[i]
		if r.Lo > r.Hi || r.Lo < -1<<31 || r.Hi > 1<<31-1 {
			c.bad("exit", "%d to %d is not a range of exit codes: give the lower one first", r.Lo, r.Hi)
		}
		action(&r.ExitAction)
	}
	action(e.PreProcessing)
	action(e.FileUpload)
	action(e.Default)
}

// RetryPause is the pause before the retry with this number, from 1.
func (t *TaskSpec) RetryPause(retry uint32) time.Duration {
	if t.Backoff <= 0 || retry == 0 {
		return 0
	}
	most := t.BackoffMax
	if most == 0 {
		most = max(DefaultBackoffMax, t.Backoff)
	}
	d := t.Backoff
	for ; retry > 1 && d < most; retry-- {
		d = min(2*d, most)
	}
	return min(d, most)
}

// Plain returns the conditions without empty lists, nil if nothing is left: as good,
// and the same for all that are.
func (e *ExitConditions) Plain() *ExitConditions {
	if e == nil || len(e.Rules) == 0 && e.PreProcessing == nil && e.FileUpload == nil && e.Default == nil {
		return nil
	}
	out := *e
	if len(out.Rules) == 0 {
		out.Rules = nil
	}
	return &out
}
