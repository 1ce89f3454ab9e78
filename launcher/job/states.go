package job

import "slices"

// TaskState is a task's state as Azure Batch names it. An array is in the state
// of its liveliest element: running before preparing before active before
// completed.
type TaskState string

// The states of a task.
const (
	TaskActive    TaskState = "active"    // waits for a place
	TaskPreparing TaskState = "preparing" // its nodes make ready
	TaskRunning   TaskState = "running"
	TaskCompleted TaskState = "completed" // its outcome is durable
)

// AttemptState is the state of one try of a range of tasks.
//
//	placed     its cores are its own; the agents are being told
//	preparing  a node has begun
//	ready      every node is prepared
//	launching  every node has been told to go
//	running    a process has started
//	ending     its outcome is known or it was told to end; parts may still live
//	lost       a node is out of reach, so the outcome is open
//	ended      nothing of it is left on any node; its cores are free
type AttemptState string

// The states of an attempt.
const (
	AttemptPlaced    AttemptState = "placed"
	AttemptPreparing AttemptState = "preparing"
	AttemptReady     AttemptState = "ready"
	AttemptLaunching AttemptState = "launching"
	AttemptRunning   AttemptState = "running"
	AttemptEnding    AttemptState = "ending"
	AttemptLost      AttemptState = "lost"
	AttemptEnded     AttemptState = "ended"
)

// Next returns the states that may follow s: the one table of an attempt's
// transitions.
func (s AttemptState) Next() []AttemptState {
	switch s {
	case AttemptPlaced:
		return []AttemptState{AttemptPreparing, AttemptEnding, AttemptLost}
	case AttemptPreparing:
		return []AttemptState{AttemptReady, AttemptEnding, AttemptLost}
	case AttemptReady:
		return []AttemptState{AttemptLaunching, AttemptEnding, AttemptLost}
	case AttemptLaunching:
		return []AttemptState{AttemptRunning, AttemptEnding, AttemptLost}
	case AttemptRunning:
		return []AttemptState{AttemptEnding, AttemptLost}
	case AttemptLost: // the node may come back with what it ran
		return []AttemptState{AttemptPreparing, AttemptRunning, AttemptEnding}
	case AttemptEnding:
		return []AttemptState{AttemptEnded}
	}
	return nil
}

// MayBecome reports whether the table lets next follow s.
func (s AttemptState) MayBecome(next AttemptState) bool { return slices.Contains(s.Next(), next) }

// Next returns the states that may follow s. What has completed is active again
// only when someone asks for it.
func (s TaskState) Next() []TaskState {
	switch s {
	case TaskActive:
		return []TaskState{TaskPreparing, TaskCompleted}
	case TaskPreparing:
		return []TaskState{TaskRunning, TaskActive, TaskCompleted}
	case TaskRunning:
		return []TaskState{TaskPreparing, TaskActive, TaskCompleted}
	case TaskCompleted:
		return []TaskState{TaskActive}
	}
	return nil
}

// JobState is a job's state as Azure Batch names it.
type JobState string

// The states of a job.
const (
	JobActive      JobState = "active"
	JobDisabling   JobState = "disabling" // held, and attempts still live
	JobDisabled    JobState = "disabled"
	JobTerminating JobState = "terminating"
	JobCompleted   JobState = "completed"
	JobDeleting    JobState = "deleting"
)

// MayBecome reports whether the table lets next follow s.
func (s TaskState) MayBecome(next TaskState) bool { return slices.Contains(s.Next(), next) }
