package batchapi

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/launcher/job"
)

// TestDependencies: Batch's words for what a task waits for and what follows from
// its end, there and back.
func TestDependencies(t *testing.T) {
	in := Job{NewJob: NewJob{JobSettings: JobSettings{ExitActions: true, API: []byte(`{"usesTaskDependencies":true}`)}}}
	const body = `"dependsOn":{"taskIds":["a","A_3"],"taskIdRanges":[{"start":9,"end":11}]},` +
		`"exitConditions":{"exitCodes":[{"code":3,"exitOptions":{"jobAction":"terminate"}}],` +
		`"exitCodeRanges":[{"start":1,"end":9,"exitOptions":{"dependencyAction":"satisfy"}}],"default":{"jobAction":"disable","dependencyAction":"block"}},`
	p, err := readProps([]byte(`{"id":"t","commandLine":"x",` + body + `"constraints":{"maxWallClockTime":"PT1H"},
		"gangway":{"dependsOn":"B[1-10], sim-*","priority":-3,"backoff":"PT30S","backoffMax":"PT10M","retryElsewhere":true,"signal":10,"signalBefore":"PT1M"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readTask(p, in)
	if err != nil {
		t.Fatal(err)
	}
	want := job.TaskSpec{ID: "t", Kind: job.Single, CoresPerRank: 1, Command: []string{"x"}, TimeLimit: time.Hour,
		DependsOn: []job.Dependency{{Task: "a"}, {Task: "A_3"}, {Task: "9"}, {Task: "10"}, {Task: "11"}, {Task: "B", Range: job.Range{Lo: 1, Hi: 11}}, {Task: "sim-*"}},
		Exit: &job.ExitConditions{
			Rules: []job.ExitRule{{Lo: 3, Hi: 3, ExitAction: job.ExitAction{Job: job.JobTerminate}},
				{Lo: 1, Hi: 9, ExitAction: job.ExitAction{Depend: job.DependSatisfy}}},
			Default: &job.ExitAction{Job: job.JobDisable, Depend: job.DependBlock}},
		Priority: -3, Backoff: 30 * time.Second, BackoffMax: 10 * time.Minute, RetryElsewhere: true, SoftSignal: 10, SoftBefore: time.Minute}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(job.TaskSpec{}, "API")); d != "" {
		t.Error(d)
	}
	b := bodyOf(got)
	text, err := encodeJSON(struct {
		D *dependsBody `json:"dependsOn"`
		E *exitBody    `json:"exitConditions"`
	}{b.DependsOn, b.Exit})
	if err != nil || "{"+body[:len(body)-1]+"}" != string(text) {
		t.Errorf("a client reads %s, %v", text, err)
	}
	got.API = nil // one that came by gangway submit
	b = bodyOf(got)
	var words []string
	for _, d := range b.DependsOn.list() {
		words = append(words, d.Task)
	}
	if d := cmp.Diff([]string{"a", "A_3", "9", "10", "11", "sim-*"}, words); d != "" || *b.Gangway.DependsOn != "B[1-10]" {
		t.Errorf("%s%v", d, b.Gangway)
	}
	if d := cmp.Diff(want.Exit, b.Exit.conditions()); d != "" {
		t.Error(d)
	}
}

// TestJobLimits: a job's settings for all its tasks, as clients read them.
func TestJobLimits(t *testing.T) {
	f := newFixture(t)
	f.want(201, f.do("ann", "POST", "/jobs", `{"id":"j","poolInfo":{"poolId":"default"},"usesTaskDependencies":true,"onTaskFailure":"performExitOptionsJobAction","maxParallelTasks":7}`))
	show := func() string {
		j := f.want(200, f.do("ann", "GET", "/jobs/j", "")).json
		b, _ := json.Marshal([]any{j["usesTaskDependencies"], j["onTaskFailure"], j["maxParallelTasks"]})
		return string(b)
	}
	if got := show(); got != `[true,"performexitoptionsjobaction",7]` {
		t.Error(got)
	}
	f.want(200, f.do("ann", "PATCH", "/jobs/j", `{"maxParallelTasks":-1}`))
	if got := show(); got != `[true,"performexitoptionsjobaction",-1]` {
		t.Error(got)
	}
	f.want(201, f.do("ann", "POST", "/jobs/j/tasks", `{"id":"a","commandLine":"x","dependsOn":{"taskIds":["b"]}}`))
	if a := f.want(200, f.do("ann", "GET", "/jobs/j/tasks/a", "")); a.json["dependsOn"] == nil {
		t.Error(a.body)
	}
}
