package sched

import (
	"fmt"
	"time"

	"gangway/launcher/job"
)

// started counts n tasks or elements of w's job that start.
func (p *planner) started(w *Pending, n int) {
	if room, ok := p.room[w.Job]; ok {
		room.Left -= n
		p.room[w.Job] = room
	}
}

// full is why something waits for others of its own job.
func (r Room) full() job.Reason {
	return job.Reason{Code: job.WaitRunning, Want: 1, Detail: fmt.Sprintf("%s of its job run, and max-running is %d", count(r.Most-min(r.Left, 0), "task"), r.Most)}
}

// paused reports whether a try waits because the one before failed, and not for
// cores that it was refused.
func paused(t job.Try) bool { return t.Refusals == 0 && t.Retries > 0 }

// pauses says until when a try waits, and what for.
func pauses(t job.Try) job.Reason {
	r := job.Reason{Code: job.WaitBackoff, Detail: "tries again shortly: another launcher was faster to take its cores"}
	if paused(t) {
		r.Detail = fmt.Sprintf("pauses until %s before retry %d", t.NotBefore.UTC().Format(time.RFC3339), t.Retries)
	}
	return r
}
