package batchapi

import (
	"net/http"
	"time"

	"gangway/launcher/job"
)

// Summary is what the ends of a job's tasks come to.
type Summary struct {
	Counts StateCounts `json:"counts"`
	// Run times of those that ended, in seconds.
	Times    *RunTimes      `json:"times,omitempty"`
	CPU      float64        `json:"cpuSeconds,omitempty"`   // of all together
	Memory   uint64         `json:"peakMemory,omitempty"`   // bytes, of the largest
	Failures []FailureGroup `json:"failures,omitempty"`     // the largest first, ten at most
	Others   int            `json:"moreFailures,omitempty"` // groups beyond these
	Rate     float64        `json:"rate,omitempty"`         // tasks that end in a second, over the last minute
	ETA      float64        `json:"etaSeconds,omitempty"`   // until all have ended, at this rate
}

// RunTimes is how long tasks ran, in seconds.
type RunTimes struct {
	Count   uint64       `json:"count"`
	Min     float64      `json:"min"`
	Mean    float64      `json:"mean"`
	P50     float64      `json:"p50"`
	P90     float64      `json:"p90"`
	P99     float64      `json:"p99"`
	Max     float64      `json:"max"`
	Buckets []TimeBucket `json:"buckets"`
}

// TimeBucket is how many ran for at least From and less than To seconds.
type TimeBucket struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Count uint64  `json:"count"`
}

// FailureGroup are tasks that failed alike.
type FailureGroup struct {
	Count   uint64   `json:"count"`
	Exit    int      `json:"exit"`
	Signal  int      `json:"signal,omitempty"`
	Reason  job.Code `json:"reason,omitempty"`
	Detail  string   `json:"detail,omitempty"`  // of the example's reason
	Line    string   `json:"line,omitempty"`    // last of stderr, with # for what varies
	Task    string   `json:"task"`              // an example
	Node    string   `json:"node,omitempty"`    // where it ran
	Example string   `json:"example,omitempty"` // its line
}

// Attempt is one execution of a task.
type Attempt struct {
	Number  uint32      `json:"attempt"`
	Node    string      `json:"node,omitempty"`
	Started time.Time   `json:"startTime,omitzero"`
	Ended   time.Time   `json:"endTime,omitzero"`
	Wall    float64     `json:"wallSeconds,omitempty"`
	CPU     float64     `json:"cpuSeconds,omitempty"`
	Memory  uint64      `json:"peakMemory,omitempty"` // bytes
	Exit    *int        `json:"exitCode,omitempty"`   // nil: not said
	Signal  int         `json:"signal,omitempty"`
	Result  string      `json:"result,omitempty"` // success, failure; "": it runs, or was tried again
	Reason  *job.Reason `json:"reason,omitempty"`
	Line    string      `json:"lastStderr,omitempty"`
}

// summaryBody is the answer to summary.
type summaryBody struct {
	Job string `json:"job"`
	Summary
}

func (c *call) summary() error {
	j, err := c.job()
	if err != nil {
		return err
	}
	s, err := c.s.Backend.Summary(c.ctx(), j.ID)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, summaryBody{j.ID, s})
	return nil
}

// attemptsBody is the answer to attempts.
type attemptsBody struct {
	Job      string    `json:"job"`
	Task     string    `json:"task"`
	Attempts []Attempt `json:"attempts"`
}

func (c *call) attempts() error {
	j, t, err := c.task()
	if err != nil {
		return err
	}
	all, err := c.s.Backend.Attempts(c.ctx(), j.ID, t.ID)
	if err != nil {
		return err
	}
	if all == nil {
		all = []Attempt{}
	}
	c.write(http.StatusOK, attemptsBody{j.ID, t.ID, all})
	return nil
}
