package batchapi

import (
	"testing"
	"time"

	"gangway/launcher/job"
)

// TestJobEnd: a request waits for a job's end, and no longer.
func TestJobEnd(t *testing.T) {
	f := newFixture(t)
	f.job("j", 2)
	path := "/gangway/v1/jobs/j/end"
	f.want(204, f.do("ann", "GET", path, ""))
	f.want(204, f.do("ann", "GET", path+"?wait=30ms", ""))
	f.want(400, f.do("ann", "GET", path+"?wait=2h", ""))
	f.want(400, f.do("ann", "GET", path+"?wait=-1s", ""))
	f.want(404, f.do("bob", "GET", path+"?wait=1m", ""))
	f.want(404, f.do("ann", "GET", "/gangway/v1/jobs/k/end?wait=1m", ""))

	begin := time.Now()
	answered := make(chan answer, 1)
	go func() { answered <- f.do("ann", "GET", path+"?wait=1m", "") }()
	j := f.m.jobs[0]
	unlock := f.m.lock()
	j.tasks[0].State = job.TaskCompleted
	unlock()
	select {
	case a := <-answered:
		t.Errorf("one task of two has ended: %d", a.status)
	default:
	}
	unlock = f.m.lock()
	j.tasks[1].State = job.TaskCompleted // the job stays open
	unlock()
	f.want(204, <-answered)

	unlock = f.m.lock()
	j.tasks[1].State, j.State = job.TaskActive, JobCompleted
	unlock()
	f.want(204, f.do("ann", "GET", path+"?wait=1m", ""))
	if d := time.Since(begin); d > 50*time.Second {
		t.Errorf("it took %v", d)
	}
}
