package launcher

import (
	"context"
	"fmt"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
)

// explainElement says why an element is where it is.
func (b *backend) explainElement(ctx context.Context, jobID string, x *oneElement) (batchapi.Explanation, error) {
	e := batchapi.Explanation{State: x.one.State}
	switch {
	case x.one.State == job.TaskCompleted && x.one.Run.Success:
		e.Sentence = "it has ended well"
	case x.one.State == job.TaskCompleted:
		e.Reason = x.one.Run.Failure
		if e.Reason == nil && x.one.Run.Exit != nil {
			e.Reason = &job.Reason{Code: job.FailRank, Detail: "it ended with an exit status other than 0"}
		}
	case len(x.now.Live) > 0 && !x.now.Live[0].Begun:
		e.Sentence = "it is next on " + nodesOf(x.now.Live[0].Attempt) + ", where its array runs"
	case len(x.now.Live) > 0:
		e.Sentence = "it is " + string(x.one.State) + " on " + nodesOf(x.now.Live[0].Attempt)
	default:
		return b.Explain(ctx, jobID, x.task.Row.Spec.ID) // it waits as its array does
	}
	if e.Reason != nil {
		e.Sentence = e.Reason.String()
	}
	if e.Reason != nil && e.Reason.Code == job.FailRank {
		e.Sentence = x.died()
	}
	return e, nil
}

// alone is the element as a task with its living or last attempt.
func (x *oneElement) alone() taskView {
	v := taskView{TaskStatus: x.task, job: x.job}
	v.LastAttempt = ""
	if n := len(x.past); n > 0 {
		v.LastAttempt = x.past[n-1].AttemptID
	}
	if len(x.now.Live) > 0 {
		v.attempt = x.now.Live[0].Attempt
		v.attempt.Try = x.now.Live[0].Try
	}
	return v
}

// died says how an element ended that failed by itself, and its last words.
func (x *oneElement) died() string {
	for i := len(x.past) - 1; i >= 0; i-- {
		p := &x.past[i]
		if !p.Ended {
			continue
		}
		s := fmt.Sprintf("it ended with exit status %d", p.Outcome.ExitCode)
		if p.Outcome.Signal != 0 {
			s = fmt.Sprintf("it was ended by signal %d", p.Outcome.Signal)
		}
		if p.Node != "" {
			s += " on " + p.Node
		}
		if p.Last != "" {
			s += "; the last that it wrote to stderr: " + p.Last
		}
		return s
	}
	return "it failed"
}

// files is where an element's files are: on the node that it runs on or ran on
// last.
func (x *oneElement) files() (node, folder string, err error) {
	r := x.one.Run
	for i := len(x.past) - 1; i >= 0 && r.Node == ""; i-- { // it waits for another try
		r.Node = x.past[i].Node
		r.Folder = job.TaskFolder(x.job.Row.Spec.ID, x.job.Row.UID, x.one.ID)
	}
	switch {
	case r.Node != "":
		return r.Node, r.Folder, nil
	case x.one.State == job.TaskCompleted:
		return "", "", &batchapi.Conflict{Code: "TaskFilesCleanedup", Message: "task " + x.one.ID + " never ran on a node: it has no files"}
	}
	return "", "", &batchapi.Conflict{Code: "TaskFilesUnavailable", Message: "task " + x.one.ID + " has not started: it has no files yet"}
}
