package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// crewOf returns the crew that runs the array of a job.
func crewOf(t *testing.T, b *backend, jobID, id string) (a job.AttemptRow) {
	t.Helper()
	if err := b.read(t.Context(), func(c *state.Cluster) error {
		s, _ := c.TaskByID(jobID, id)
		if len(s.Attempts) == 0 {
			return fmt.Errorf("array %s has no attempt: %+v", id, s)
		}
		a, _ = c.Attempt(s.Attempts[0])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

// endSome tells a block in which a crew's next elements ended, up to n: every
// tenth fails.
func endSome(t *testing.T, b *backend, jobID, id string, n uint64) (ended []uint64) {
	t.Helper()
	a := crewOf(t, b, jobID, id)
	node := a.Parts[0].Node
	if a.Crew.Block == 0 {
		must(t, b, state.ShimReady{ID: a.ID, Node: node}, state.ShimStarted{ID: a.ID, Node: node})
	}
	e := state.CrewBlock{ID: a.ID, Node: node, Seq: a.Crew.Block + 1, Costs: &job.Costs{}}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	runs := a.Crew.Wanted()
	slices.SortFunc(runs, func(x, y job.Try) int { return int(x.Lo) - int(y.Lo) })
	for _, try := range runs {
		try.Hi = min(try.Hi, try.Lo+n-min(n, uint64(len(ended))))
		if try.Len() == 0 {
			continue
		}
		e.Runs = append(e.Runs, state.CrewRun{Range: try.Range, Attempt: try.Attempt})
		for i := try.Lo; i < try.Hi; i++ {
			ended = append(ended, i)
			end := state.Ending{Count: 1}
			if i%10 == 7 {
				end.ExitCode = 3
				e.Last = append(e.Last, job.LastLine{Index: i, Text: fmt.Sprintf("input %d is bad", i)})
			}
			e.Endings = append(e.Endings, end)
			e.Costs.Add(job.Cost{Attempt: try.Attempt, Start: start.Add(time.Duration(i) * time.Second).UnixMicro(), Wall: 1_500_000, CPU: 700_000, RSS: 2048})
		}
	}
	must(t, b, e)
	return ended
}

// list asks the API for all pages of a job's tasks.
func list(t *testing.T, b *backend, who context.Context, jobID, filter, more string) (ids []string, pages int) {
	t.Helper()
	h := batchapi.New(batchapi.Config{Backend: b})
	address := "/jobs/" + jobID + "/tasks?api-version=2024-07-01.20.0&$filter=" + url.QueryEscape(filter) + more
	for ; address != ""; pages++ {
		r := httptest.NewRequest("GET", address, nil).WithContext(who)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body struct {
			Value []struct {
				ID string `json:"id"`
			} `json:"value"`
			Next string `json:"odata.nextLink"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", address, w.Code, w.Body)
		}
		for _, v := range body.Value {
			ids = append(ids, v.ID)
		}
		address = ""
		if u, err := url.Parse(body.Next); err == nil && body.Next != "" {
			address = u.RequestURI()
		}
	}
	return ids, pages
}

func TestElements(t *testing.T) {
	b := bare(t)
	ops := as(t, "ops", auth.Admin)
	must(t, b, nodeUp("n1")...)
	const size = 500
	spec := job.Spec{ID: "j", Owner: "ops", KeepOpen: true, Tasks: []job.TaskSpec{
		{ID: "first", Command: []string{"x"}, Ranks: 1},
		{ID: "A", Command: []string{"run", "it"}, Range: job.Range{Lo: 1, Hi: size + 1}},
		{ID: "last", Command: []string{"x"}, Ranks: 1},
	}}
	if _, err := b.submit(ops, spec); err != nil {
		t.Fatal(err)
	}
	runsFirst(t, b)
	ended := map[uint64]bool{}
	for len(ended) < 300 {
		some := endSome(t, b, "j", "A", 7)
		if len(some) == 0 {
			t.Fatal("the crew is given nothing")
		}
		for _, i := range some {
			ended[i] = true
		}
	}
	uid := ""
	_ = b.read(ops, func(c *state.Cluster) error { s, _ := c.TaskByID("j", "A"); uid = s.UID; return nil })
	for round := range 2 {
		t.Run(fmt.Sprintf("merged=%v", round == 1), func(t *testing.T) { checkLists(t, b, ops, ended, size) })
		if some, err := b.mergeSome(ops, uid, true); err != nil || some != (round == 0) {
			t.Fatal(some, err)
		}
	}
	checkElement(t, b, ops, ended)
	sum, err := b.Summary(ops, "j")
	if err != nil {
		t.Fatal(err)
	}
	if sum.Times == nil || sum.Times.Count != uint64(len(ended))+1 || len(sum.Failures) != 1 || sum.Failures[0].Line != "input # is bad" || sum.Failures[0].Node != "n1" ||
		sum.Failures[0].Count != sum.Counts.Failed || sum.Rate == 0 || sum.ETA == 0 {
		t.Errorf("summary: %+v, times %+v", sum, sum.Times)
	}
	loadsEqual(t, b, uid)
}

// runsFirst lets the task "first" run to its end.
func runsFirst(t *testing.T, b *backend) {
	t.Helper()
	v, err := b.view(t.Context(), "j", "first")
	if err != nil || v.attempt == nil {
		t.Fatal(v, err)
	}
	must(t, b, ending(v.attempt, "n1", job.Result{Start: time.Unix(1, 0), End: time.Unix(2, 0)})...)
}

func checkLists(t *testing.T, b *backend, ops context.Context, ended map[uint64]bool, size uint64) {
	var all, failed, waiting, tens []string
	for i := uint64(1); i <= size; i++ {
		id := job.ElementID("A", i)
		all = append(all, id)
		if ended[i] && i%10 == 7 {
			failed = append(failed, id)
		}
		if strings.HasPrefix(id, "A_1") {
			tens = append(tens, id)
		}
		if !ended[i] {
			waiting = append(waiting, id)
		}
	}
	crew := crewOf(t, b, "j", "A")
	running := crew.Crew.Open[0].Lo // one core: one slot
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"", slices.Concat([]string{"first"}, all, []string{"last"})},
		{"executionInfo/exitCode eq 3", failed},
		{"executionInfo/exitCode eq 3 and nodeInfo/nodeId eq 'n1'", failed},
		{"executionInfo/exitCode eq 3 and nodeInfo/nodeId eq 'n2'", nil},
		{"executionInfo/result eq 'failure'", failed},
		{"not (state eq 'completed')", slices.Concat(waiting, []string{"last"})},
		{"state eq 'running'", []string{job.ElementID("A", running)}},
		{"startswith(id,'A_1')", tens},
		{"id eq 'A_17' or id eq 'A_500' or id eq 'A_501' or id eq 'A_017'", []string{"A_17", "A_500"}},
		{"executionInfo/endTime gt DateTime'2026-01-02T03:05:00Z' and executionInfo/endTime lt DateTime'2026-01-02T03:05:03Z'", []string{"A_54", "A_55", "A_56"}},
		{"executionInfo/retryCount gt 3", nil},
	} {
		for _, more := range []string{"", "&maxresults=7", "&$select=id"} {
			got, _ := list(t, b, ops, "j", c.filter, more)
			if d := cmp.Diff(c.want, got); d != "" && len(c.want)+len(got) > 0 {
				t.Errorf("%s%s (-want +got):\n%s", c.filter, more, d)
			}
		}
	}
}

func checkElement(t *testing.T, b *backend, ops context.Context, ended map[uint64]bool) {
	x, err := b.Task(ops, "J", "a_17")
	if err != nil || x.ID != "A_17" || x.State != job.TaskCompleted || x.Run.Exit == nil || *x.Run.Exit != 3 || x.Run.Node != "n1" || x.Run.Success ||
		!strings.HasSuffix(x.Run.Folder, "/A_17") || !x.Run.Ended.Equal(x.Run.Started.Add(1500*time.Millisecond)) {
		t.Errorf("task A_17: %+v, %v", x, err)
	}
	tries, err := b.Attempts(ops, "j", "A_17")
	if err != nil || len(tries) != 1 || tries[0].Line != "input 17 is bad" || tries[0].Memory != 2<<20 || tries[0].CPU != 0.7 || *tries[0].Exit != 3 {
		t.Errorf("attempts of A_17: %+v, %v", tries, err)
	}
	for _, id := range []string{"A_0", "A_501", "A_017", "A_", "B_1", "A_-1"} {
		var no *batchapi.NotFound
		if _, err := b.Task(ops, "j", id); !errors.As(err, &no) {
			t.Errorf("task %s: %v", id, err)
		}
	}
	var no *batchapi.Conflict
	if err := b.DeleteTask(ops, "j", "A_17", 0); !errors.As(err, &no) || !strings.Contains(no.Message, "whole array") {
		t.Errorf("delete: %v", err)
	}
	if err := b.ReactivateTask(ops, "j", "A_17", x.Version+1); !errors.As(err, new(batchapi.Stale)) {
		t.Errorf("reactivate at a version that is not there: %v", err)
	}
	if err := b.ReactivateTask(ops, "j", "A_17", x.Version); err != nil {
		t.Errorf("reactivate: %v", err)
	}
	if y, err := b.Task(ops, "j", "A_17"); err != nil || y.State == job.TaskCompleted {
		t.Errorf("after it was reactivated: %+v, %v", y, err)
	}
	if err := b.ReactivateTask(ops, "j", "A_16", 0); !errors.As(err, &no) {
		t.Errorf("reactivate one that succeeded: %v", err)
	}
	delete(ended, 17)
	if ids, _ := list(t, b, ops, "j", "executionInfo/exitCode eq 3 and startswith(id,'A_1')", ""); slices.Contains(ids, "A_17") || !slices.Contains(ids, "A_107") {
		t.Errorf("failed ones after it was reactivated: %v", ids)
	}
	if err := b.TerminateTask(ops, "j", "A_500", 0); !errors.As(err, &no) || !strings.Contains(no.Message, "whole array") {
		t.Errorf("terminate what a crew has: %v", err)
	}
	// This one waits: the only core is taken.
	if _, err := b.submit(ops, job.Spec{ID: "k", KeepOpen: true, Tasks: []job.TaskSpec{{ID: "B", Command: []string{"x"}, Range: job.Range{Hi: 3}}}}); err != nil {
		t.Fatal(err)
	}
	if err := b.TerminateTask(ops, "k", "B_2", 0); err != nil {
		t.Errorf("terminate: %v", err)
	}
	if y, err := b.Task(ops, "k", "B_2"); err != nil || y.State != job.TaskCompleted || y.Run.Failure == nil || y.Run.Failure.Code != job.FailCancelled || y.Run.Exit != nil {
		t.Errorf("after it was terminated: %+v, %v", y, err)
	}
	if ids, _ := list(t, b, ops, "k", "state eq 'active'", ""); !slices.Equal(ids, []string{"B_0", "B_1"}) {
		t.Errorf("those that wait: %v", ids)
	}
	if err := b.ReactivateTask(ops, "k", "B_2", 0); err != nil {
		t.Errorf("reactivate what was terminated: %v", err)
	}
	if x, err := b.Explain(ops, "k", "B_2"); err != nil || x.State != job.TaskActive || x.Sentence == "" {
		t.Errorf("why it waits: %+v, %v", x, err)
	}
}

// loadsEqual compares the state with what its rows make after they were merged.
func loadsEqual(t *testing.T, b *backend, uid string) {
	t.Helper()
	rows, err := b.history.Load(job.TableAutopsy)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, r := range rows {
		if r.Table == job.TableBlock && strings.HasPrefix(r.Key, uid+"/") {
			blocks++
		}
	}
	loaded, err := state.Load(rows)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := loaded.Task(uid)
	var got state.TaskStatus
	_ = b.read(t.Context(), func(c *state.Cluster) error { got, _ = c.Task(uid); return nil })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the state is not what its rows make (-rows +state):\n%s", d)
	}
	if blocks > 20 {
		t.Errorf("%d rows of blocks", blocks)
	}
}

// How the element that ended last did is not how its array did.
func TestEndOfAnArray(t *testing.T) {
	bad, parent := &job.Reason{Code: job.FailRank}, &job.Reason{Code: job.FailParent, Detail: "it depends on x"}
	for name, tc := range map[string]struct {
		size, failed uint64
		last         job.Outcome
		ok           bool
		why          string
	}{
		"one":          {1, 1, job.Outcome{Reason: parent}, false, "it depends on x"},
		"all well":     {3, 0, job.Outcome{Success: true}, true, ""},
		"one before":   {3, 1, job.Outcome{Success: true}, false, "1 of its 3 elements failed"},
		"the last":     {3, 2, job.Outcome{Reason: bad}, false, "2 of its 3 elements failed"},
		"none could":   {3, 3, job.Outcome{Reason: parent}, false, "it depends on x"},
		"some did not": {3, 2, job.Outcome{Reason: parent}, false, "2 of its 3 elements failed"},
	} {
		spec := job.TaskSpec{Range: job.Range{Lo: 1, Hi: 1 + tc.size}}
		ok, why := howEnded(&state.TaskStatus{Spec: &spec, Failed: tc.failed, Last: &tc.last})
		text := ""
		if why != nil {
			text = why.String()
		}
		if ok != tc.ok || text != tc.why {
			t.Errorf("%s: %v, %q; want %v, %q", name, ok, text, tc.ok, tc.why)
		}
	}
}
