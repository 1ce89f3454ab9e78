package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/client"
)

// encodeJob prints a job as the launcher sent it, with its summary.
func (a *app) encodeJob(j client.Job, s batchapi.Summary) error { return a.encodeWith(j, "summary", s) }

// encodeTask prints a task as the launcher sent it, with its attempts.
func (a *app) encodeTask(t client.Task, tries []batchapi.Attempt) error {
	return a.encodeWith(t, "attempts", tries)
}

// encodeWith prints an object with one more property.
func (a *app) encodeWith(v any, name string, more any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var all map[string]any // and not raw: that would keep what Marshal has escaped
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return err
	}
	all[name] = more
	return a.encode(all)
}

// paceOf is how fast a job's tasks end, and how long the rest will take.
func paceOf(s batchapi.Summary) string {
	if s.Rate == 0 {
		return ""
	}
	rate := fmt.Sprintf("%.0f a second", s.Rate)
	if s.Rate < 10 {
		rate = fmt.Sprintf("%.2g a second", s.Rate)
	}
	return rate + ", " + secs(s.ETA) + " to go"
}

// secs writes seconds with three digits or so.
func secs(s float64) string {
	if s >= 1<<32 {
		return fmt.Sprintf("%.0fh", s/3600)
	}
	d := time.Duration(s * float64(time.Second))
	step := time.Microsecond
	for step < time.Minute && step*100 <= d {
		step *= 10
	}
	return d.Round(min(step, time.Second)).String()
}

const (
	// histogramWidth is how long the longest bar of a histogram is.
	histogramWidth = 40
	// fewTimes are so few that a histogram says nothing.
	fewTimes = 2
)

// printSummary draws the run times and lists the failures.
func (a *app) printSummary(s batchapi.Summary) {
	if t := s.Times; t != nil && t.Count >= fewTimes {
		fmt.Fprintf(a.stdout, "\nrun times of %d: p50 %s, p90 %s, p99 %s, max %s\n", t.Count, secs(t.P50), secs(t.P90), secs(t.P99), secs(t.Max))
		drawTimes(a.stdout, t.Buckets)
	}
	if len(s.Failures) == 0 {
		return
	}
	fmt.Fprintln(a.stdout, "\nfailures:")
	for _, f := range s.Failures {
		fmt.Fprintf(a.stdout, "%9d  %s\n", f.Count, printable(failureText(f)))
	}
	if s.Others > 0 {
		fmt.Fprintf(a.stdout, "%9s  and %d other kinds\n", "", s.Others)
	}
}

func drawTimes(w io.Writer, buckets []batchapi.TimeBucket) {
	var most uint64
	for _, b := range buckets {
		most = max(most, b.Count)
	}
	for _, b := range buckets {
		n := 0
		if b.Count > 0 {
			n = max(1, int(b.Count*histogramWidth/most))
		}
		fmt.Fprintf(w, "%8s - %-8s %-*s %d\n", secs(b.From), secs(b.To), histogramWidth, strings.Repeat("#", n), b.Count)
	}
}

// failureText says how a group of tasks failed, with an example.
func failureText(f batchapi.FailureGroup) string {
	how := fmt.Sprintf("exit %d", f.Exit)
	switch {
	case f.Signal != 0:
		how = fmt.Sprintf("signal %d", f.Signal)
	case f.Reason != "" && f.Exit == 0:
		how = string(f.Reason)
	}
	if f.Reason != "" && f.Reason != "rank" && how != string(f.Reason) {
		how += " (" + string(f.Reason) + ")"
	}
	if f.Line != "" {
		how += ": " + shorten(f.Line, 100)
	} else if f.Detail != "" {
		how += ": " + shorten(f.Detail, 100)
	}
	how += "; " + f.Task
	if f.Node != "" {
		how += " on " + f.Node
	}
	return how
}

// printAttempts lists what ran of a task, where more is known than its last run.
func (a *app) printAttempts(all []batchapi.Attempt) error {
	rows := make([][]string, len(all))
	for i, x := range all {
		exit, cpu, memory := "", "", ""
		if x.Exit != nil {
			exit = fmt.Sprint(*x.Exit)
		}
		if x.CPU > 0 {
			cpu = secs(x.CPU)
		}
		if x.Memory > 0 {
			memory = fmt.Sprintf("%.1f MiB", float64(x.Memory)/(1<<20))
		}
		wall := ""
		if x.Wall > 0 {
			wall = secs(x.Wall)
		}
		rows[i] = []string{fmt.Sprint(x.Number), x.Node, moment(x.Started), moment(x.Ended), wall, cpu, memory, exit, shorten(x.Line, 60)}
	}
	fmt.Fprintln(a.stdout)
	return a.table("ATTEMPT NODE STARTED ENDED WALL CPU MEMORY EXIT STDERR", rows)
}

// taskFilter is what the flags of gangway task list ask for, in OData.
func taskFilter(node string, exits []int, failed bool) []string {
	var parts []string
	if failed {
		parts = append(parts, "executionInfo/result eq 'failure'")
	}
	if node != "" {
		parts = append(parts, "nodeInfo/nodeId eq '"+strings.ReplaceAll(node, "'", "''")+"'")
	}
	if len(exits) > 0 {
		any := make([]string, len(exits))
		for i, x := range exits {
			any[i] = fmt.Sprintf("executionInfo/exitCode eq %d", x)
		}
		parts = append(parts, "("+strings.Join(any, " or ")+")")
	}
	return parts
}
