package batchapi

import (
	"net/http"
	"time"
)

// The first looks for a job's end are leastLook apart, and later ones a hundredth
// of the time that the request waits, so that a look costs little and a wait is
// hardly longer than what is waited for.
const (
	leastLook = 20 * time.Millisecond
	mostLook  = time.Second
)

// jobEnd answers when the job has ended, as job wait understands it: completed, or
// left open with all of its tasks ended; or after the wait asked for. The answer is
// empty: what the job is then is for the caller to ask.
func (c *call) jobEnd() error {
	wait, err := time.ParseDuration(defaultTo(c.query.Get("wait"), "0s"))
	if err != nil || wait < 0 || wait > maxWait {
		return badQuery("wait", c.query.Get("wait"), "allowed is a duration such as 30s, up to "+maxWait.String())
	}
	begin := time.Now()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-c.ctx().Done():
			return &Unavailable{Message: "the request was given up"}
		case <-look.C:
		}
		over, err := c.jobOver()
		if err != nil {
			return err
		}
		waited := time.Since(begin)
		if over || waited >= wait {
			c.w.WriteHeader(http.StatusNoContent)
			return nil
		}
		look.Reset(min(max(waited/100, leastLook), mostLook, wait-waited))
	}
}

// jobOver says whether the job has ended.
func (c *call) jobOver() (bool, error) {
	j, err := c.job()
	if err != nil || j.State != JobActive || j.AutoEnd {
		return err == nil && j.State == JobCompleted, err
	}
	n, err := c.s.Backend.TaskCounts(c.ctx(), j.ID)
	t := n.Tasks
	return t.Completed > 0 && t.Active+t.Running == 0, err
}
