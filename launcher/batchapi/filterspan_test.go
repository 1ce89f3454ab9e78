package batchapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gangway/launcher/job"
)

// TestSpansAgree holds the answers for runs of elements to those for each element:
// none may be left out that the filter wants, nor any be taken unseen that it does
// not want.
func TestSpansAgree(t *testing.T) {
	base := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	stamp := func(n int) string {
		return "DateTime'" + base.Add(time.Duration(n)*time.Second).Format(time.RFC3339) + "'"
	}
	leaf := func(t *rapid.T) string {
		op := rapid.SampledFrom([]string{"eq", "ne", "lt", "le", "gt", "ge"}).Draw(t, "op")
		n := rapid.IntRange(0, 12).Draw(t, "n")
		return rapid.SampledFrom([]string{
			"state eq 'completed'", "state ne 'running'", fmt.Sprintf("executionInfo/exitCode %s %d", op, n%3), "executionInfo/exitCode eq null",
			"nodeInfo/nodeId eq 'n1'", "executionInfo/result eq 'failure'", "executionInfo/failureInfo/code eq 'TaskEnded'",
			"executionInfo/startTime " + op + " " + stamp(n), "executionInfo/endTime " + op + " " + stamp(n), "executionInfo/endTime ne null",
			fmt.Sprintf("id %s 'A_%d'", op, n), fmt.Sprintf("startswith(id,'A_%d')", n), "startswith(id,'A')", "startswith(id,'A_')", "startswith(id,'A_01')",
			fmt.Sprintf("executionInfo/retryCount %s %d", op, n%2), "creationTime gt " + stamp(n),
		}).Draw(t, "leaf")
	}
	var filter func(t *rapid.T, depth int) string
	filter = func(t *rapid.T, depth int) string {
		switch k := rapid.IntRange(0, 5).Draw(t, "kind"); {
		case depth == 0 || k < 2:
			return leaf(t)
		case k == 2:
			return "not (" + filter(t, depth-1) + ")"
		default:
			op := map[bool]string{true: " and ", false: " or "}[k == 3]
			return "(" + strings.Join([]string{filter(t, depth-1), filter(t, depth-1)}, op) + ")"
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := filter(t, 3)
		n, err := parseFilter(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		known := taskFields()
		match, err := known.compile(n)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		sample := Task{State: job.TaskCompleted, Times: Times{Created: base}, Run: Run{Node: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"), Pool: "p"}}
		span := Span{Array: "A", Sample: &sample, Exact: rapid.Bool().Draw(t, "exact")}
		span.Lo = rapid.Uint64Range(0, 130).Draw(t, "lo")
		span.Hi = span.Lo + rapid.Uint64Range(1, 30).Draw(t, "len")
		open := rapid.IntRange(0, 3).Draw(t, "open") == 0
		failure := &job.Reason{Code: job.FailTimeLimit}
		if open {
			sample.State = job.TaskRunning
		} else {
			exit := rapid.IntRange(0, 2).Draw(t, "exit")
			sample.Run.Exit, sample.Run.Success = &exit, exit == 0
			if exit > 0 && span.Exact {
				sample.Run.Failure = failure
			}
			from := rapid.IntRange(0, 12).Draw(t, "from")
			span.From = base.Add(time.Duration(from) * time.Second)
			span.To = span.From.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "to")) * time.Second)
		}
		answer := spanOf(known, n)(&span)
		for i := span.Lo; i < span.Hi; i++ {
			one := sample
			one.ID, one.Retries = job.ElementID("A", i), int(i%2)
			if !open {
				width := int(span.To.Sub(span.From) / time.Second)
				one.Run.Started = span.From.Add(time.Duration(rapid.IntRange(0, width).Draw(t, "began")) * time.Second)
				one.Run.Ended = span.To.Add(-time.Duration(rapid.IntRange(0, int(span.To.Sub(one.Run.Started)/time.Second)).Draw(t, "ended")) * time.Second)
				if rapid.IntRange(0, 9).Draw(t, "unmeasured") == 0 {
					one.Run.Started = time.Time{}
				}
				if !one.Run.Success && rapid.Bool().Draw(t, "why") && !span.Exact {
					one.Run.Failure = failure
				}
			}
			if yes := match(&one); yes && answer == None || !yes && answer == Every {
				t.Fatalf("%s: answer %d for %d-%d, but %v for %s, %v to %v", text, answer, span.Lo, span.Hi, yes, one.ID, one.Run.Started, one.Run.Ended)
			}
		}
	})
}
