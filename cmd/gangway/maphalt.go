package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gangway/launcher/job"
)

// haltRule says after which ends no more commands are started.
type haltRule struct {
	now     bool   // what runs is ended too
	on      string // fail, success or done; "": never
	count   uint64
	percent float64 // in place of count; 0: none
}

// parseHalt reads GNU Parallel's --halt: never, or now|soon,fail|success|done=N or N%.
func parseHalt(s string) (haltRule, error) {
	bad := usagef("never, or for example soon,fail=1 or now,fail=10%", "--halt %q can't be read", s)
	switch s {
	case "", "never", "0":
		return haltRule{}, nil
	case "1":
		return haltRule{on: "fail", count: 1}, nil
	case "2":
		return haltRule{now: true, on: "fail", count: 1}, nil
	}
	when, why, ok := strings.Cut(s, ",")
	on, n, ok2 := strings.Cut(why, "=")
	if !ok || !ok2 || when != "now" && when != "soon" || on != "fail" && on != "success" && on != "done" {
		return haltRule{}, bad
	}
	r := haltRule{now: when == "now", on: on}
	if p, ok := strings.CutSuffix(n, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v > 0 && v <= 100) {
			return haltRule{}, bad
		}
		r.percent = v
		return r, nil
	}
	v, err := strconv.ParseUint(n, 10, 32)
	if err != nil || v == 0 {
		return haltRule{}, bad
	}
	r.count = v
	return r, nil
}

// leastForPercent is how many commands must have ended before a share of them
// means something, as with GNU Parallel.
const leastForPercent = 3

// met reports whether the rule applies.
func (r haltRule) met(failed, done, total uint64) bool {
	var n uint64
	switch r.on {
	case "fail":
		n = failed
	case "success":
		n = done - failed
	case "done":
		n = done
	default:
		return false
	}
	if r.percent > 0 {
		return done >= min(leastForPercent, total) && float64(n)*100 >= r.percent*float64(total) && n > 0
	}
	return n >= r.count
}

// parseJobs reads how many commands run at once on a node: a number, a share of
// the cores such as 50%, or a number more or less than those; 0: one on each core.
func parseJobs(s string, cores, perCommand int) (int, error) {
	fit := max(1, cores/perCommand)
	bad := usagef("a number, or for example 50% or +2", "-j %q is no number of commands", s)
	switch {
	case s == "" || s == "0":
		return 0, nil
	case strings.HasSuffix(s, "%"):
		v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || !(v > 0 && v <= 10_000) {
			return 0, bad
		}
		return min(max(1, int(math.Round(v/100*float64(cores)))), maxJobs), nil
	}
	v, err := strconv.Atoi(s)
	switch {
	case err != nil || v > maxJobs:
		return 0, bad
	case s[0] == '+' || s[0] == '-':
		return min(max(1, fit+v), maxJobs), nil
	}
	return v, nil
}

// maxJobs is the most commands at once on a node.
const maxJobs = job.MaxAtOnce

// mapStatus is GNU Parallel's exit status: the number of commands that failed,
// 101 for more than 100.
func mapStatus(failed uint64) int { return int(min(failed, 101)) }

// timeText is a length of time for people.
func timeText(seconds float64) string {
	s := int64(math.Ceil(max(seconds, 0)))
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
}
