package batchapi

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// found is what a path names, as it was read.
type found struct {
	version  Version
	modified time.Time
	link     string
}

// mergeTries bounds how often a change is made again because the object has
// changed between the look and the change.
const mergeTries = 16

// change makes a change to what find returns and answers with the new version,
// without a body. do gets the version that the client insists on, 0 if it insists
// on none. A do that builds on what find has read names that version instead:
// when another change was faster and the client did not insist, both are called again.
func (c *call) change(status int, find func() (found, error), do func(seen Version) error) error {
	for try := 0; ; try++ {
		f, err := find()
		if err != nil {
			return err
		}
		seen, err := c.condition(f.version, f.modified)
		if err != nil {
			return err
		}
		err = do(seen)
		var stale Stale
		switch {
		case seen != 0 || !errors.As(err, &stale):
		case try < mergeTries:
			continue
		default:
			err = &Unavailable{Message: "The object changes all the time; try again.", RetryAfter: time.Second}
		}
		if err != nil {
			return err
		}
		break
	}
	f, err := find()
	if err == nil { // else it is gone already
		c.object(f.version, f.modified)
		c.w.Header().Set("DataServiceId", f.link)
	}
	c.write(status, nil)
	return nil
}

func (c *call) changeJob(status int, do func(j Job, seen Version) error) error {
	var j Job
	return c.change(status, func() (f found, err error) {
		j, err = c.job()
		return found{j.Version, j.Times.Modified, c.link("jobs", j.ID)}, err
	}, func(seen Version) error { return do(j, seen) })
}

func (c *call) changeTask(status int, do func(j Job, t Task, seen Version) error) error {
	var j Job
	var t Task
	return c.change(status, func() (f found, err error) {
		j, t, err = c.task()
		return found{t.Version, t.Times.Modified, c.link("jobs", j.ID, "tasks", t.ID)}, err
	}, func(seen Version) error { return do(j, t, seen) })
}

func (c *call) changePool(do func(p Pool, seen Version) error) error {
	var p Pool
	return c.change(http.StatusAccepted, func() (f found, err error) {
		p, err = c.pool()
		return found{p.Version, p.Times.Modified, c.link("pools", p.ID)}, err
	}, func(seen Version) error { return do(p, seen) })
}

// taskVerb is a change of a task that needs no body.
func (c *call) taskVerb(do func(ctx context.Context, jobID, taskID string, seen Version) error) error {
	return c.changeTask(http.StatusNoContent, func(j Job, t Task, seen Version) error {
		if err := c.emptyBody(); err != nil {
			return err
		}
		return do(c.ctx(), j.ID, t.ID, seen)
	})
}

// emptyBody refuses a body with anything in it.
func (c *call) emptyBody() error {
	p, err := c.body(true)
	if err != nil {
		return err
	}
	return p.finish()
}
