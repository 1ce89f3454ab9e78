package sched

import (
	"time"

	"gangway/launcher/job"
)

// Plan decides what starts now. It does not change v.
func Plan(now time.Time, v View, _ Policy) Decision { return Decision{} }

// Impossible returns why the task can't run on the nodes even when they are
// idle, with the largest shape that could; nil if it can, or if a node is not
// known well enough to tell.
func Impossible(t job.TaskSpec, nodes []*Node) *job.Reason { return nil }
