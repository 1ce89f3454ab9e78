package batchapi

import (
	"math"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
)

// Span is a run of an array's elements, of which less is known than of each.
type Span struct {
	Array string // its id
	job.Range
	// Sample has what all of them share: State, Spec, Times.Created, Times.Prev and
	// Run but for its times. It may be changed between two questions.
	Sample   *Task
	Exact    bool      // Sample's Run.Failure is theirs
	From, To time.Time // they began and ended between; zero: that is not known
}

// Answer says which elements of a span a filter wants.
type Answer int

// The answers.
const (
	None  Answer = iota
	Some         // perhaps some: each has to be looked at
	Every        // all of them
)

func sure(yes bool) Answer {
	if yes {
		return Every
	}
	return None
}

// spanOf compiles a filter on tasks, which f has accepted, into a question about
// spans.
func spanOf(f fields[Task], n node) func(*Span) Answer {
	switch n.op {
	case "not":
		kid := spanOf(f, n.kids[0])
		return func(s *Span) Answer { return Every - kid(s) }
	case "and", "or":
		kids := make([]func(*Span) Answer, len(n.kids))
		for i, k := range n.kids {
			kids[i] = spanOf(f, k)
		}
		worst, pick := Every, func(a, b Answer) Answer { return min(a, b) }
		if n.op == "or" {
			worst, pick = None, func(a, b Answer) Answer { return max(a, b) }
		}
		return func(s *Span) Answer {
			a := worst
			for _, k := range kids {
				if a = pick(a, k(s)); a == Every-worst {
					break
				}
			}
			return a
		}
	}
	if n.field == "id" && (n.op == "eq" || n.op == "startswith") && n.value.kind == litString {
		return func(s *Span) Answer { return s.named(n) }
	}
	test, err := f.compile(n)
	if err != nil {
		return func(*Span) Answer { return Some }
	}
	switch n.field {
	case "state", "creationTime", "requiredSlots", "displayName", "previousState", "executionInfo/exitCode", "executionInfo/result",
		"nodeInfo/nodeId", "nodeInfo/poolId", "nodeInfo/affinityId":
		return func(s *Span) Answer { return sure(test(s.Sample)) }
	case "executionInfo/failureInfo/category", "executionInfo/failureInfo/code":
		return func(s *Span) Answer {
			if s.Exact || s.Sample.Run.Success || s.Sample.State != job.TaskCompleted {
				return sure(test(s.Sample))
			}
			return Some
		}
	case "executionInfo/startTime", "executionInfo/endTime":
		if n.value.kind == litTime {
			return func(s *Span) Answer { return s.timed(n) }
		}
	}
	return func(*Span) Answer { return Some }
}

// timed compares when elements began or ended.
func (s *Span) timed(n node) Answer {
	if s.From.IsZero() || s.Sample.State != job.TaskCompleted {
		return Some
	}
	a, b := s.From.Compare(n.value.t), s.To.Compare(n.value.t)
	var all, none bool
	switch n.op {
	case "lt":
		all, none = b < 0, a >= 0
	case "le":
		all, none = b <= 0, a > 0
	case "gt":
		all, none = a > 0, b <= 0
	case "ge":
		all, none = a >= 0, b < 0
	case "eq":
		none = a > 0 || b < 0
	case "ne":
		all = a > 0 || b < 0
	}
	switch {
	case none && n.op != "ne":
		return None
	case all && n.field == "executionInfo/endTime":
		return Every // a start may be unknown, and then fits nothing
	}
	return Some
}

// named compares ids.
func (s *Span) named(n node) Answer {
	want := n.value.s
	digits, ok := strings.CutPrefix(want, s.Array+"_")
	if n.op == "eq" {
		_, index, fits := job.ParseElement(want)
		switch {
		case !ok || !fits || index < s.Lo || index >= s.Hi:
			return None
		case s.Len() == 1:
			return Every
		}
		return Some
	}
	if !ok || digits == "" {
		return sure(strings.HasPrefix(s.Array+"_", want))
	}
	lo, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || digits[0] == '+' || digits[0] == '0' && digits != "0" {
		return None
	}
	// Those with k more digits are a range.
	for size := uint64(1); ; size *= 10 {
		from, to := lo*size, (lo+1)*size
		switch {
		case from <= s.Lo && s.Hi <= to:
			return Every
		case from < s.Hi && s.Lo < to:
			return Some
		case lo == 0 || from >= s.Hi || size > math.MaxUint64/10/(lo+1)/10:
			return None
		}
	}
}
