package batchapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

// TestTaskSpecs: what Batch's words become.
func TestTaskSpecs(t *testing.T) {
	in := Job{NewJob: NewJob{NodeUser: "ann", JobSettings: JobSettings{Retries: 2, API: []byte(`{"commonEnvironmentSettings":[{"name":"A","value":"1"},{"name":"B","value":"2"}]}`)}}}
	common := []string{"A=1", "B=2"}
	for name, c := range map[string]struct {
		body string
		want job.TaskSpec
	}{
		"plain":    {`"commandLine":"/bin/sh -c \"echo $A\""`, job.TaskSpec{Kind: job.Single, Command: []string{"/bin/sh", "-c", "echo $A"}, CoresPerRank: 1, Retries: 2, Env: common}},
		"nothings": {`"commandLine":"x","resourceFiles":[],"containerSettings":null,"exitConditions":{},"dependsOn":{"taskIds":[]},"gangway":null,"constraints":null,"odata.type":"x"`, job.TaskSpec{Kind: job.Single, Command: []string{"x"}, CoresPerRank: 1, Retries: 2, Env: common}},
		"all": {`"commandLine":"x","displayName":"d","requiredSlots":3,"userIdentity":{"username":"ann"},"affinityInfo":{"affinityId":"n1"},
			"constraints":{"maxWallClockTime":"PT1H","retentionTime":"P1D","maxTaskRetryCount":-1},"environmentSettings":[{"name":"B","value":"3"},{"name":"C"}]`,
			job.TaskSpec{Kind: job.Single, Command: []string{"x"}, CoresPerRank: 3, Retries: -1, TimeLimit: time.Hour, Retention: 24 * time.Hour, Env: []string{"A=1", "B=3", "C="}}},
		"no limit": {`"commandLine":"x","constraints":{"maxWallClockTime":"P10675199DT2H48M5.4775807S","retentionTime":"P10675199DT2H48M5.4775807S"}`, job.TaskSpec{Kind: job.Single, Command: []string{"x"}, CoresPerRank: 1, Retries: 2, Retention: -1, Env: common}},
		"multi-instance": {`"commandLine":"mpirun x","multiInstanceSettings":{"numberOfInstances":3,"coordinationCommandLine":"/bin/sh -c 'start it'"},"requiredSlots":2`,
			job.TaskSpec{Kind: job.Gang, Launch: job.LaunchPrimary, Nodes: 3, RanksPerNode: 2, Command: []string{"mpirun", "x"}, Retries: 2, Env: common,
				Setup: &job.Setup{Name: "coordinationCommandLine", Script: []byte("( exec /bin/sh -c 'start it' )\n")}}},
		"ranks": {`"commandLine":"./solve","multiInstanceSettings":{"numberOfInstances":2},"gangway":{"mpi":"openmpi","ranksPerNode":4,"setup":"module load x","killGrace":"PT5S"}`,
			job.TaskSpec{Kind: job.Gang, Launch: job.LaunchRanks, MPI: "openmpi", Nodes: 2, RanksPerNode: 4, Command: []string{"./solve"}, Retries: 2, Env: common,
				KillGrace: 5 * time.Second, Setup: &job.Setup{Name: "gangway.setup", Script: []byte("module load x\n")}}},
		"by environment": {`"commandLine":"./solve","environmentSettings":[{"name":"GANGWAY_MPI","value":"auto"},{"name":"GANGWAY_RANKS","value":"8"},{"name":"GANGWAY_OVERSUBSCRIBE","value":"true"}],"gangway":{"ranks":8,"onNodeLoss":"fail"}`,
			job.TaskSpec{Kind: job.Gang, Launch: job.LaunchRanks, MPI: "auto", Ranks: 8, Command: []string{"./solve"}, Retries: 2, Env: common, Oversubscribe: true, OnNodeLoss: job.NodeLossFail}},
		"sweep": {`"commandLine":"x {c}","gangway":{"sweep":{"axes":[{"columns":[{"name":"c","values":["1","2"]}]}]},"vary":{"cores-per-rank":"{c}"}}`,
			job.TaskSpec{Kind: job.Single, Command: []string{"x", "{c}"}, CoresPerRank: 1, Retries: 2, Env: common, Vary: map[string]string{"cores-per-rank": "{c}"},
				Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "c", Values: []string{"1", "2"}}}}}}}},
		"array": {`"commandLine":"x","gangway":{"array":1000}`, job.TaskSpec{Kind: job.Single, Range: job.Range{Lo: 1, Hi: 1001}, Command: []string{"x"}, CoresPerRank: 1, Retries: 2, Env: common}},
	} {
		p, err := readProps([]byte(`{"id":"t",` + c.body + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := readTask(p, in)
		c.want.ID = "t"
		if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(job.TaskSpec{}, "API")); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

// TestFlow: a job's life, as clients read it.
func TestFlow(t *testing.T) {
	f := newFixture(t)
	a := f.want(201, f.do("ann", "POST", "/jobs", `{"id":"j","displayName":"d","priority":-5,"poolInfo":{"poolId":"default"},"metadata":[{"name":"a","value":"b"}],
		"constraints":{"maxWallClockTime":"PT2H","maxTaskRetryCount":1},"onAllTasksComplete":"terminatejob"}`))
	if a.header.Get("Location") != f.url+"/jobs/j" || a.header.Get("ETag") == "" || a.body != "" {
		t.Errorf("%v %s", a.header, a.body)
	}
	a = f.want(200, f.do("ann", "GET", "/jobs/J", ""))
	if a.header.Get("Content-Type") != contentType || a.json["odata.metadata"] != f.url+"/$metadata#jobs/@Element" || a.json["onAllTasksComplete"] != "terminatejob" ||
		a.json["constraints"].(map[string]any)["maxWallClockTime"] != "PT2H" || a.json["state"] != "active" || a.json["creationTime"] != "2026-11-23T09:00:01.0000000Z" {
		t.Errorf("%s", a.body)
	}
	f.want(200, f.do("ann", "PATCH", "/jobs/j", `{"priority":7}`))
	a = f.do("ann", "GET", "/jobs/j?$select=priority,metadata,displayName", "")
	if a.json["priority"] != 7.0 || a.json["metadata"] == nil || a.json["displayName"] != "d" || a.json["state"] != nil {
		t.Errorf("after PATCH: %s", a.body)
	}
	f.want(200, f.do("ann", "PUT", "/jobs/j", `{"poolInfo":{"poolId":"default"},"id":"j","displayName":"other"}`))
	a = f.do("ann", "GET", "/jobs/j", "")
	if a.json["priority"] != 0.0 || a.json["metadata"] != nil || a.json["displayName"] != "d" || a.json["onAllTasksComplete"] != "noaction" {
		t.Errorf("after PUT: %s", a.body)
	}
	a = f.want(200, f.do("ann", "POST", "/jobs/j/addtaskcollection", `{"value":[{"id":"a","commandLine":"x"},{"id":"b"},{"id":"A","commandLine":"x"},7]}`))
	var results []string
	for _, v := range a.json["value"].([]any) {
		v := v.(map[string]any)
		e, _ := v["error"].(map[string]any)
		code, _ := e["code"].(string)
		results = append(results, strings.TrimSpace(v["taskId"].(string)+" "+v["status"].(string)+" "+code))
	}
	if d := cmp.Diff([]string{"a success", "b clienterror MissingRequiredProperty", "A clienterror TaskExists", "clienterror InvalidRequestBody"}, results); d != "" {
		t.Error(d)
	}
	f.want(201, f.do("ann", "POST", "/jobs/j/tasks", `{"id":"g","commandLine":"./solve","multiInstanceSettings":{"numberOfInstances":2},"gangway":{"mpi":"auto"}}`))
	f.want(200, f.do("ann", "PUT", "/jobs/j/tasks/g", `{"constraints":{"maxTaskRetryCount":3}}`))
	if s := f.m.jobs[0].tasks[1].Spec; s.Retries != 3 || s.MPI != "auto" || s.Launch != job.LaunchRanks {
		t.Errorf("after a PUT without gangway: %+v", s)
	}
	f.want(200, f.do("ann", "PUT", "/jobs/j/tasks/g", `{"gangway":null}`))
	if s := f.m.jobs[0].tasks[1].Spec; s.Retries != 0 || s.MPI != "" || s.Launch != job.LaunchPrimary {
		t.Errorf("after a PUT with gangway null: %+v", s)
	}
	f.want(204, f.do("ann", "POST", "/jobs/j/tasks/a/terminate", ""))
	a = f.do("ann", "GET", "/jobs/j/tasks/a", "")
	x := a.json["executionInfo"].(map[string]any)
	if x["result"] != "failure" || x["failureInfo"].(map[string]any)["code"] != "TaskEnded" || a.json["nodeInfo"].(map[string]any)["nodeId"] != "n1" {
		t.Errorf("%s", a.body)
	}
	f.want(200, f.do("ann", "GET", "/jobs/j/taskcounts", ""))
	f.want(204, f.do("ann", "POST", "/jobs/j/tasks/a/reactivate", ""))
	f.want(202, f.do("ann", "POST", "/jobs/j/disable", `{"disableTasks":"requeue"}`))
	f.want(202, f.do("ann", "POST", "/jobs/j/enable", ""))
	a = f.want(200, f.do("ann", "GET", "/gangway/v1/jobs/j/tasks/a/explain", ""))
	if a.json["sentence"] != "needs 8 cores, 4 free" {
		t.Errorf("%s", a.body)
	}
	f.want(200, f.do("ann", "DELETE", "/jobs/j/tasks/a", ""))
	f.want(202, f.do("ann", "POST", "/jobs/j/terminate", `{"terminateReason":"enough"}`))
	f.want(409, f.do("ann", "POST", "/jobs/j/terminate", ""))
	f.want(202, f.do("ann", "DELETE", "/jobs/j", ""))
	f.want(404, f.do("ann", "GET", "/jobs/j", ""))

	f.want(200, f.do("root", "POST", "/gangway/v1/pools/default/nodes/n1/drain", ""))
	a = f.do("ann", "GET", "/pools/default/nodes?$filter=schedulingState%20eq%20'disabled'&$select=id", "")
	if v := a.json["value"].([]any); len(v) != 1 || v[0].(map[string]any)["id"] != "n1" {
		t.Errorf("%s", a.body)
	}
	f.want(409, f.do("root", "POST", "/pools/default/nodes/n1/disablescheduling", `{"nodeDisableSchedulingOption":"requeue"}`))
	f.want(200, f.do("root", "POST", "/gangway/v1/pools/default/nodes/n1/resume", ""))
	a = f.want(200, f.do("ann", "GET", "/nodecounts", ""))
	if d := a.json["value"].([]any)[0].(map[string]any)["dedicated"].(map[string]any); d["idle"] != 1.0 || d["running"] != 1.0 || d["total"] != 2.0 {
		t.Errorf("%s", a.body)
	}
	for _, p := range []string{"/pools", "/pools/default", "/supportedimages", "/poolusagemetrics"} {
		f.want(200, f.do("ann", "GET", p, ""))
	}
	f.want(200, f.do("ann", "HEAD", "/pools/default", ""))
	f.want(404, f.do("ann", "HEAD", "/pools/no", ""))
}

func TestFiles(t *testing.T) {
	f := newFixture(t)
	f.m.completeAll()
	f.job("j", 1)
	base := "/jobs/j/tasks/t0/files"
	a := f.want(200, f.do("ann", "GET", base+"?recursive=true", ""))
	var names []string
	for _, v := range a.json["value"].([]any) {
		names = append(names, v.(map[string]any)["name"].(string))
	}
	if d := cmp.Diff([]string{"stdout.txt", "wd", "wd/a b.txt"}, names); d != "" {
		t.Error(d)
	}
	a = f.do("ann", "GET", base+"?recursive=true&$filter=startswith(name,'wd/')%20and%20isDirectory%20eq%20false&maxresults=1", "")
	if v := a.json["value"].([]any); len(v) != 1 || !strings.HasSuffix(v[0].(map[string]any)["url"].(string), "/files/wd/a%20b.txt") ||
		v[0].(map[string]any)["properties"].(map[string]any)["contentLength"] != "100" {
		t.Errorf("%s", a.body)
	}
	for _, path := range []string{base + "/wd%2Fa%20b.txt", base + "/wd/a%20b.txt"} {
		a = f.want(200, f.do("ann", "GET", path, ""))
		if len(a.body) != 100 || a.header.Get("ocp-batch-file-isdirectory") != "False" || a.header.Get("ocp-batch-file-mode") != "0o100644" || a.header.Get("ocp-creation-time") == "" ||
			a.header.Get("ocp-batch-file-url") != f.url+base+"/wd/a%20b.txt" || a.header.Get("Content-Type") != fileType {
			t.Errorf("%v %s", a.header, a.body)
		}
	}
	file := base + "/wd/a%20b.txt"
	for _, c := range []struct {
		header string
		status int
		want   string
	}{
		{"ocp-range: bytes=5-7", 200, "567"}, {"Range: bytes=5-7", 206, "567"}, {"Range: bytes=98-", 206, "89"}, {"Range: bytes=-3", 206, "789"}, {"Range: bytes=95-1000", 206, "56789"},
		{"Range: bytes=100-", 416, ""}, {"Range: bytes=7-5", 416, ""}, {"Range: bytes=0-1,3-4", 416, ""}, {"ocp-range: lines=1-2", 416, ""}, {"Range: bytes=-0", 416, ""}, {"Range: bytes=+1-2", 416, ""},
	} {
		if a := f.do("ann", "GET", file, "", c.header); a.status != c.status || c.want != "" && a.body != c.want || c.status == 416 && a.json["code"] != "InvalidRange" {
			t.Errorf("%s: %d %s", c.header, a.status, a.body)
		}
	}
	a = f.want(200, f.do("ann", "HEAD", file, ""))
	if a.header.Get("Content-Length") != "100" || a.header.Get("Last-Modified") == "" {
		t.Errorf("%v", a.header)
	}
	f.want(304, f.do("ann", "GET", file, "", "If-None-Match: "+a.header.Get("ETag")))
	f.want(200, f.do("ann", "HEAD", base+"/wd", ""))
	f.want(409, f.do("ann", "GET", base+"/wd", ""))
	f.want(404, f.do("ann", "HEAD", base+"/nothing", ""))
	f.want(200, f.do("root", "GET", "/pools/default/nodes/n1/files/workitems/j/t0/stdout.txt", ""))
	f.want(409, f.do("ann", "DELETE", base+"/wd", ""))
	f.want(200, f.do("ann", "DELETE", base+"/wd?recursive=true", ""))
	f.want(404, f.do("ann", "DELETE", base+"/wd", ""))
}

// TestFollow: a reader waits for what a running task writes, and is told of the end.
func TestFollow(t *testing.T) {
	f := newFixture(t)
	f.job("j", 1)
	j := f.m.jobs[0]
	path := "/gangway/v1/jobs/j/tasks/t0/files/stdout.txt"
	f.want(404, f.do("ann", "GET", path, ""))
	reads := 0
	f.m.onRead = func() {
		switch reads++; reads {
		case 3:
			j.files["t0/stdout.txt"] = "one\n"
		case 6:
			j.files["t0/stdout.txt"] = "one\ntwo\n"
		case 9:
			j.tasks[0].State = job.TaskCompleted
		}
	}
	text, offset := "", "0"
	for range 3 {
		a := f.want(200, f.do("ann", "GET", path+"?wait=20s&offset="+offset, ""))
		text, offset = text+a.body, a.header.Get("Gangway-Next-Offset")
		if done := a.header.Get("Gangway-Done"); done != map[bool]string{true: "true", false: "false"}[reads >= 9] {
			t.Errorf("after %q: done %s", text, done)
		}
	}
	if text != "one\ntwo\n" || offset != "8" {
		t.Errorf("%q %s", text, offset)
	}
}

// TestSharedKey: a request signed by the rule, written down here once more.
func TestSharedKey(t *testing.T) {
	f := newFixture(t)
	now := time.Now().UTC().Format(http.TimeFormat)
	sign := func(key, text string) string { return "Authorization: SharedKey acct:" + mac(key, text) }
	get := "GET\n\n\n\n\n\n\n\n\n\n\n\nocp-date:" + now + "\n/acct/jobs\n$filter:state eq 'active'\napi-version:2024-07-01.20.0"
	post := "POST\n\n\n13\n\n" + contentType + "\n\n\n\n\n\n\nocp-date:" + now + "\n/acct/jobs/a%20b/terminate\napi-version:2024-07-01.20.0"
	empty := "DELETE\n\n\n0\n\n\n\n\n\n\n\n\nocp-date:" + now + "\n/acct/jobs/j\napi-version:2024-07-01.20.0\ntimeOut:30"
	lower := strings.Replace(empty, "timeOut", "timeout", 1)
	list := "/jobs?$filter=state%20eq%20'active'&api-version=2024-07-01.20.0&empty="
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"get", "GET", list, "", []string{sign(sharedKey, get)}, 200},
		{"older key", "GET", list, "", []string{sign("an older key", get)}, 200},
		{"post", "POST", "/jobs/a%20b/terminate", `{  }         `, []string{sign(sharedKey, post)}, 404},
		{"delete", "DELETE", "/jobs/j?timeOut=30&api-version=2024-07-01.20.0", "", []string{sign(sharedKey, empty)}, 404},
		{"lower case", "DELETE", "/jobs/j?timeOut=30&api-version=2024-07-01.20.0", "", []string{sign(sharedKey, lower)}, 404},
		{"other key", "GET", list, "", []string{sign("other", get)}, 403},
		{"other account", "GET", list, "", []string{"Authorization: SharedKey other:" + mac(sharedKey, get)}, 403},
		{"other query", "GET", "/jobs?$filter=state%20eq%20'completed'&api-version=2024-07-01.20.0", "", []string{sign(sharedKey, get)}, 403},
		{"no signature", "GET", list, "", []string{"Authorization: SharedKey acct"}, 403},
		{"not base64", "GET", list, "", []string{"Authorization: SharedKey acct:***"}, 403},
		{"other scheme", "GET", list, "", []string{"Authorization: Basic YTpi"}, 401},
	} {
		if a := f.do("", c.method, c.path, c.body, append(c.headers, "ocp-date: "+now)...); a.status != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, a.status, c.status, a.body)
		}
	}
	old := time.Now().Add(-20 * time.Minute).UTC().Format(http.TimeFormat)
	if a := f.do("", "GET", list, "", sign(sharedKey, strings.Replace(get, now, old, 1)), "ocp-date: "+old); a.status != 403 {
		t.Errorf("an old request: %d", a.status)
	}
	if a := f.do("", "GET", list, "", sign(sharedKey, get)); a.status != 403 {
		t.Errorf("no date: %d", a.status)
	}
}
