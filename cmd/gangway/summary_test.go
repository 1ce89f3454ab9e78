package main

import (
	"bytes"
	"strings"
	"testing"

	"gangway/launcher/batchapi"
)

func TestSummaryText(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	a.printSummary(batchapi.Summary{
		Times: &batchapi.RunTimes{Count: 1010, P50: 0.0012, P90: 0.0049, P99: 12.3456, Max: 4000,
			Buckets: []batchapi.TimeBucket{{From: 0.001, To: 0.002, Count: 1000}, {From: 0.002, To: 0.005}, {From: 0.005, To: 0.01, Count: 10}}},
		Failures: []batchapi.FailureGroup{
			{Count: 9, Exit: 3, Reason: "rank", Line: "no \x1b[31mfile #", Task: "A_7", Node: "n1"},
			{Count: 2, Signal: 9, Reason: "memory", Detail: "over 1 GiB", Task: "A_9", Node: "n2"},
			{Count: 1, Reason: "cancelled", Detail: "the task was terminated", Task: "B"},
		},
		Others: 4,
	})
	want := `
run times of 1010: p50 1.2ms, p90 4.9ms, p99 12s, max 1h6m40s
     1ms - 2ms      ######################################## 1000
     2ms - 5ms                                               0
     5ms - 10ms     #                                        10

failures:
        9  exit 3: no �[31mfile #; A_7 on n1
        2  signal 9 (memory): over 1 GiB; A_9 on n2
        1  cancelled: the task was terminated; B
           and 4 other kinds
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := paceOf(batchapi.Summary{Rate: 0.5, ETA: 95.4321}); got != "0.5 a second, 1m35s to go" {
		t.Errorf("pace %q", got)
	}
	if got := strings.Join(taskFilter("n'1", []int{1, 137}, true), " and "); got !=
		"executionInfo/result eq 'failure' and nodeInfo/nodeId eq 'n''1' and (executionInfo/exitCode eq 1 or executionInfo/exitCode eq 137)" {
		t.Errorf("filter %q", got)
	}
}
