package batchapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/launcher/job"
)

// TestTaskWriter: what lists write of a task is what is shown of one task.
func TestTaskWriter(t *testing.T) {
	c := &call{s: &server{}, Request: httptest.NewRequest("GET", "/jobs", nil)}
	text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9_-]{1,8}`), rapid.String(), rapid.Just("a<b>&\"\\\x00\xff\u2028"))
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "none") {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).In(time.FixedZone("", 3600))
	})
	number := rapid.OneOf(rapid.Just(0), rapid.IntRange(-5, 1<<31))
	states := rapid.SampledFrom([]job.TaskState{job.TaskActive, job.TaskPreparing, job.TaskRunning, job.TaskCompleted})
	api := rapid.SampledFrom([]string{"", `{"commandLine":"/bin/true"}`, `{"commandLine":"a \"b\" é","displayName":"<x>","requiredSlots":3,"constraints":{"maxWallClockTime":"PT1H","retentionTime":"P7D","maxTaskRetryCount":-1}}`,
		`{"commandLine":"","environmentSettings":[{"name":"A","value":"1"}],"affinityInfo":{"affinityId":"n"},"userIdentity":{"autoUser":{"scope":"task"}},"multiInstanceSettings":{"numberOfInstances":2,"coordinationCommandLine":""},"gangway":{"ranks":4}}`, `{`})
	rapid.Check(t, func(t *rapid.T) {
		x := Task{ID: text.Draw(t, "id"), Version: Version(rapid.Uint64().Draw(t, "version")), State: states.Draw(t, "state"),
			Times:   Times{Created: moment.Draw(t, "created"), Modified: moment.Draw(t, "modified"), StateAt: moment.Draw(t, "stateAt"), Prev: text.Draw(t, "prev"), PrevAt: moment.Draw(t, "prevAt")},
			Retries: number.Draw(t, "retries"), RetriedAt: moment.Draw(t, "retriedAt"), Requeues: number.Draw(t, "requeues"), RequeueAt: moment.Draw(t, "requeueAt"),
			Run: Run{Node: text.Draw(t, "node"), Pool: text.Draw(t, "pool"), Folder: text.Draw(t, "folder"), Started: moment.Draw(t, "started"), Ended: moment.Draw(t, "ended"), Success: rapid.Bool().Draw(t, "success")}}
		if rapid.Bool().Draw(t, "exited") {
			n := number.Draw(t, "exit")
			x.Run.Exit = &n
		}
		if rapid.Bool().Draw(t, "failed") {
			x.Run.Failure = &job.Reason{Code: job.FailRank, Detail: text.Draw(t, "detail")}
		}
		x.Spec = job.TaskSpec{ID: x.ID, Command: []string{"x", text.Draw(t, "arg")}}
		if s := api.Draw(t, "api"); s != "" {
			x.Spec.API = []byte(s)
		}
		want, err := encodeJSON(c.renderTask("j", &x))
		if err != nil {
			t.Fatal(err)
		}
		w := c.taskWriter("j")
		for range 2 { // the second time its node is known
			if diff := cmp.Diff(string(want), string(w.write(nil, &x))); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// TestPagesOfBytes: a page of tasks with huge command lines stays a page that can
// be sent; the next ones go on exactly, whatever else is asked.
func TestPagesOfBytes(t *testing.T) {
	f := newFixture(t)
	f.job("j", 0)
	const tasks = 150
	for i := range tasks {
		line := "x"
		if i%10 != 3 {
			line = strings.Repeat("<", 100_000) // written as it is: <, not \u003c
		}
		f.want(201, f.do("ann", "POST", "/jobs/j/tasks", fmt.Sprintf(`{"id":"t%d","commandLine":"%s"}`, i, line)))
	}
	for query, want := range map[string]struct{ tasks, pages int }{
		"": {tasks, 4}, "maxresults=45": {tasks, 4}, "$filter=startswith(id,'t1')": {61, 2}, "$filter=startswith(id,'t13')%20and%20state%20eq%20'active'": {11, 1},
		"$select=id": {tasks, 1}, "$select=id,commandLine": {tasks, 4},
	} {
		seen, pages := 0, 0
		last := -1
		for next := "/jobs/j/tasks?" + query; next != ""; pages++ {
			a := f.want(http.StatusOK, f.do("ann", "GET", next, ""))
			if len(a.body) > maxPageBytes+1000 {
				t.Errorf("%s: a page of %d bytes", query, len(a.body))
			}
			for _, v := range a.json["value"].([]any) {
				var n int
				if _, err := fmt.Sscanf(v.(map[string]any)["id"].(string), "t%d", &n); err != nil || n <= last {
					t.Fatalf("%s: %v after t%d", query, n, last)
				}
				last = n
				seen++
			}
			next, _ = a.json["odata.nextLink"].(string)
		}
		if seen != want.tasks || pages != want.pages {
			t.Errorf("%s: %d tasks in %d pages, want %d in %d", query, seen, pages, want.tasks, want.pages)
		}
	}
}
