package batchapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// keyring is an Auth with tokens named after their principals.
type keyring struct{}

// sharedKey is the account's key in the tests.
const sharedKey = "a key of the tests"

func (keyring) SharedKey(account string) ([][]byte, Principal, error) {
	if account != "acct" {
		return nil, Principal{}, ErrUnknown
	}
	return [][]byte{[]byte("an older key"), []byte(sharedKey)}, Principal{Name: "acct", Role: Admin, NodeUser: "batch"}, nil
}

func (keyring) Bearer(token string) (Principal, error) {
	for name, role := range map[string]Role{"root": Admin, "ann": Submitter, "bob": Submitter, "eve": Reader} {
		if token == name {
			return Principal{Name: name, Role: role, NodeUser: name + "-user"}, nil
		}
	}
	return Principal{}, ErrUnknown
}

type fixture struct {
	t   *testing.T
	m   *memory
	url string
}

func newFixture(t *testing.T) *fixture {
	m := newMemory()
	s := httptest.NewServer(New(Config{Backend: m, Auth: keyring{}, Version: "test", Poll: time.Millisecond}))
	t.Cleanup(s.Close)
	return &fixture{t, m, s.URL}
}

type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

// do sends a request as a principal; headers are "Name: value".
func (f *fixture) do(who, method, path, body string, headers ...string) answer {
	f.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = f.url + path
	}
	if !strings.Contains(path, "api-version") && !strings.Contains(path, "/gangway/") {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "api-version=2024-07-01.20.0"
	}
	r, err := http.NewRequest(method, path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+who)
	}
	if body != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, string(b), nil}
	_ = json.Unmarshal(b, &a.json)
	return a
}

func (f *fixture) want(status int, a answer) answer {
	f.t.Helper()
	if a.status != status {
		f.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// job adds a job with n tasks t0, t1, … as ann's.
func (f *fixture) job(id string, n int) {
	f.t.Helper()
	f.want(201, f.do("ann", "POST", "/jobs", `{"id":"`+id+`","poolInfo":{"poolId":"default"}}`))
	for at := 0; at < n; at += maxCollection {
		var items []string
		for i := at; i < min(at+maxCollection, n); i++ {
			items = append(items, fmt.Sprintf(`{"id":"t%d","commandLine":"/bin/true"}`, i))
		}
		f.want(200, f.do("ann", "POST", "/jobs/"+id+"/addtaskcollection", `{"value":[`+strings.Join(items, ",")+`]}`))
	}
}

// TestRefusals: each bad request has its status, code and a word in its body.
func TestRefusals(t *testing.T) {
	f := newFixture(t)
	f.job("j", 1)
	task := func(props string) string { return `{"id":"x","commandLine":"true",` + props + `}` }
	jobBody := func(props string) string { return `{"id":"x","poolInfo":{"poolId":"default"},` + props + `}` }
	for _, c := range []struct {
		method, path, body string
		status             int
		code, word         string
	}{
		{"GET", "/jobs?api-version=", "", 400, "MissingRequiredQueryParameter", "api-version"},
		{"GET", "/jobs?api-version=1999-01-01.1.0", "", 400, "UnsupportedRequestVersion", "2024-07-01.20.0"},
		{"GET", "/nothing", "", 404, "ResourceNotFound", ""},
		{"GET", "/", "", 404, "ResourceNotFound", ""},
		{"PATCH", "/jobs", "", 405, "UnsupportedHttpVerb", "PATCH"},
		{"GET", "/jobs/%zz", "", 400, "", ""},
		{"GET", "/jobs/no", "", 404, "JobNotFound", "does not exist"},
		{"GET", "/jobs/a.b", "", 404, "JobNotFound", ""},
		{"GET", "/jobs/j/tasks/no", "", 404, "TaskNotFound", ""},
		{"GET", "/pools/no", "", 404, "PoolNotFound", ""},
		{"GET", "/pools/default/nodes/no", "", 404, "NodeNotFound", ""},
		{"GET", "/jobs/j/tasks/t0/files/no", "", 404, "FileNotFound", ""},
		{"GET", "/jobs/j/tasks/t0/files/..%2Fx", "", 404, "FileNotFound", ""},
		{"GET", "/jobs/j/tasks/t0/files/wd%2F..%2F..%2Fx", "", 404, "FileNotFound", ""},
		{"GET", "/jobs?maxresults=0", "", 400, "OutOfRangeQueryParameterValue", "1 to 1000"},
		{"GET", "/jobs?maxresults=1001", "", 400, "OutOfRangeQueryParameterValue", ""},
		{"GET", "/jobs?maxresults=x", "", 400, "OutOfRangeQueryParameterValue", ""},
		{"GET", "/jobs?$skiptoken=%20", "", 400, "InvalidQueryParameterValue", "skiptoken"},
		{"GET", "/jobs?$filter=state", "", 400, "InvalidQueryParameterValue", "eq, ne"},
		{"GET", "/jobs?$filter=State%20eq%20'active'", "", 400, "InvalidQueryParameterValue", "no property"},
		{"GET", "/jobs?$filter=state%20eq%20'lively'", "", 400, "InvalidQueryParameterValue", "never"},
		{"GET", "/jobs?$select=ID", "", 400, "InvalidQueryParameterValue", "no property"},
		{"GET", "/jobs?$expand=all", "", 400, "InvalidQueryParameterValue", "stats"},
		{"GET", "/jobs?$top=3", "", 400, "UnsupportedQueryParameter", "$top"},
		{"GET", "/jobs/j?$filter=x", "", 400, "UnsupportedQueryParameter", "$filter"},
		{"GET", "/jobs/j/tasks/t0/files?recursive=maybe", "", 400, "InvalidQueryParameterValue", "true nor false"},

		{"POST", "/jobs", "", 400, "MissingRequiredProperty", "empty"},
		{"POST", "/jobs", "{", 400, "InvalidRequestBody", "JSON"},
		{"POST", "/jobs", "[]", 400, "InvalidRequestBody", "object"},
		{"POST", "/jobs", "null", 400, "InvalidRequestBody", "null"},
		{"POST", "/jobs", `{} {}`, 400, "InvalidRequestBody", "after"},
		{"POST", "/jobs", `{"poolInfo":{"poolId":"default"}}`, 400, "MissingRequiredProperty", `"id"`},
		{"POST", "/jobs", `{"id":"x"}`, 400, "MissingRequiredProperty", "poolInfo"},
		{"POST", "/jobs", `{"id":"x","poolInfo":{}}`, 400, "MissingRequiredProperty", "poolInfo.poolId"},
		{"POST", "/jobs", `{"id":7,"poolInfo":{"poolId":"default"}}`, 400, "InvalidRequestBody", "a string, not 7"},
		{"POST", "/jobs", `{"id":"a b","poolInfo":{"poolId":"default"}}`, 400, "InvalidPropertyValue", "A-Z"},
		{"POST", "/jobs", jobBody(`"Priority":1`), 400, "InvalidRequestBody", "'Priority' is unknown"},
		{"POST", "/jobs", jobBody(`"priority":1001`), 400, "InvalidPropertyValue", "-1000 to 1000"},
		{"POST", "/jobs", jobBody(`"priority":1.5`), 400, "InvalidRequestBody", "whole number"},
		{"POST", "/jobs", jobBody(`"priority":99999999999999999999`), 400, "InvalidPropertyValue", "priority"},
		{"POST", "/jobs", jobBody(`"onAllTasksComplete":"explode"`), 400, "InvalidPropertyValue", "noaction, terminatejob"},
		{"POST", "/jobs", jobBody(`"constraints":{"maxWallClockTime":"1 hour"}`), 400, "InvalidPropertyValue", "ISO 8601"},
		{"POST", "/jobs", jobBody(`"jobPreparationTask":{"commandLine":"x"}`), 400, "UnsupportedProperty", "jobPreparationTask"},
		{"POST", "/jobs", jobBody(`"usesTaskDependencies":1`), 400, "InvalidRequestBody", "usesTaskDependencies"},
		{"POST", "/jobs", jobBody(`"onTaskFailure":"explode"`), 400, "InvalidPropertyValue", "performexitoptionsjobaction"},
		{"POST", "/jobs", jobBody(`"maxParallelTasks":0`), 400, "InvalidPropertyValue", "-1 (no limit)"},
		{"POST", "/jobs", jobBody(`"metadata":[null]`), 400, "InvalidRequestBody", "metadata[0]"},
		{"POST", "/jobs", jobBody(`"commonEnvironmentSettings":[{"name":"GANGWAY_RANK","value":"x"}]`), 400, "InvalidPropertyValue", "GANGWAY_RANKS"},
		{"POST", "/jobs", `{"id":"J","poolInfo":{"poolId":"default"}}`, 409, "JobExists", ""},
		{"PUT", "/jobs/j", `{}`, 400, "MissingRequiredProperty", "poolInfo"},
		{"POST", "/jobs/j/disable", `{}`, 400, "MissingRequiredProperty", "disableTasks"},
		{"POST", "/jobs/j/disable", `{"disableTasks":"kill"}`, 400, "InvalidPropertyValue", "requeue, terminate, wait"},

		{"POST", "/jobs/j/tasks", `{"id":"x"}`, 400, "MissingRequiredProperty", "commandLine"},
		{"POST", "/jobs/j/tasks", `{"id":"x","commandLine":"a 'b"}`, 400, "InvalidPropertyValue", "not closed"},
		{"POST", "/jobs/j/tasks", `{"id":"T0","commandLine":"x"}`, 409, "TaskExists", ""},
		{"POST", "/jobs/j/tasks", task(`"resourceFiles":[{"httpUrl":"x"}]`), 400, "UnsupportedProperty", "resourceFiles"},
		{"POST", "/jobs/j/tasks", task(`"outputFiles":[{}]`), 400, "UnsupportedProperty", "outputFiles"},
		{"POST", "/jobs/j/tasks", task(`"containerSettings":{"imageName":"x"}`), 400, "UnsupportedProperty", "containerSettings"},
		{"POST", "/jobs/j/tasks", task(`"dependsOn":{"taskIds":["a"]}`), 400, "InvalidPropertyValue", "usesTaskDependencies false"},
		{"POST", "/jobs/j/tasks", task(`"dependsOn":{"taskIds":["a b"]}`), 400, "InvalidPropertyValue", "dependsOn.taskIds[0]"},
		{"POST", "/jobs/j/tasks", task(`"dependsOn":{"taskIdRanges":[{"start":5,"end":4}]}`), 400, "InvalidPropertyValue", "less than start"},
		{"POST", "/jobs/j/tasks", task(`"dependsOn":{"taskIdRanges":[{"start":1}]}`), 400, "MissingRequiredProperty", "taskIdRanges[0].end"},
		{"POST", "/jobs/j/tasks", task(`"dependsOn":{"taskIdRanges":[{"start":1,"end":2000000000},{"start":1,"end":2147483647}]}`), 400, "InvalidPropertyValue", "more than 100000"},
		{"POST", "/jobs/j/tasks", task(`"exitConditions":{"default":{"jobAction":"terminate"}}`), 400, "InvalidPropertyValue", "onTaskFailure is noaction"},
		{"POST", "/jobs/j/tasks", task(`"exitConditions":{"exitCodes":[{"code":3}]}`), 400, "MissingRequiredProperty", "exitCodes[0].exitOptions"},
		{"POST", "/jobs/j/tasks", task(`"exitConditions":{"exitCodeRanges":[{"start":3,"end":1,"exitOptions":{}}]}`), 400, "InvalidPropertyValue", "exitConditions"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"dependsOn":"A[2-1]"}`), 400, "InvalidPropertyValue", "gangway.dependsOn"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"signal":10,"signalBefore":"PT1M"}`), 400, "InvalidPropertyValue", "gangway.signal"},
		{"POST", "/jobs/j/tasks", task(`"userIdentity":{"autoUser":{"elevationLevel":"admin"}}`), 400, "InvalidPropertyValue", "elevationLevel"},
		{"POST", "/jobs/j/tasks", task(`"userIdentity":{"username":"root"}`), 400, "InvalidPropertyValue", "username"},
		{"POST", "/jobs/j/tasks", task(`"requiredSlots":0`), 400, "InvalidPropertyValue", "requiredSlots"},
		{"POST", "/jobs/j/tasks", task(`"constraints":{"maxTaskRetryCount":-2}`), 400, "InvalidPropertyValue", "maxTaskRetryCount"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"rank":4}`), 400, "InvalidRequestBody", "gangway.rank"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"mpi":"lam"}`), 400, "InvalidPropertyValue", "gangway.mpi"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"ranks":4},"environmentSettings":[{"name":"GANGWAY_RANKS","value":"5"}]`), 400, "InvalidPropertyValue", "gangway.ranks"},
		{"POST", "/jobs/j/tasks", task(`"environmentSettings":[{"name":"GANGWAY_RANKS","value":"many"}]`), 400, "InvalidRequestBody", "GANGWAY_"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"ranks":4,"mpi":"auto","array":100001}`), 400, "InvalidPropertyValue", "gangway.array"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"sweep":{"axes":[{"columns":[{"name":"a b","values":["1"]}]}]}}`), 400, "InvalidPropertyValue", "gangway.sweep"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"sweep":{"axis":[]}}`), 400, "InvalidRequestBody", "gangway.sweep"},
		{"POST", "/jobs/j/tasks", task(`"gangway":{"vary":{"ranks":7}}`), 400, "InvalidRequestBody", "gangway.vary"},
		{"POST", "/jobs/j/tasks", task(`"multiInstanceSettings":{"numberOfInstances":0}`), 400, "InvalidPropertyValue", "numberOfInstances"},
		{"POST", "/jobs/j/tasks", `{"id":"x","commandLine":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "RequestBodyTooLarge", ""},
		{"POST", "/jobs/j/addtaskcollection", `{"value":[` + strings.Repeat("{},", 100) + `{}]}`, 413, "RequestBodyTooLarge", "100"},
		{"POST", "/jobs/j/addtaskcollection", `{"value":{}}`, 400, "InvalidRequestBody", "a list"},
		{"POST", "/jobs/j/addtaskcollection", `{}`, 400, "MissingRequiredProperty", "value"},
		{"POST", "/jobs/j/tasks/t0/reactivate", "", 409, "OperationInvalidForCurrentState", ""},
		{"POST", "/jobs/j/tasks/t0/terminate", `{"x":1}`, 400, "InvalidRequestBody", ""},

		{"POST", "/pools", `{"id":"p"}`, 409, "OperationInvalidForCurrentState", "machines"},
		{"POST", "/pools/default/resize", `{}`, 400, "MissingRequiredProperty", "targetDedicatedNodes"},
		{"POST", "/pools/default/resize", `{"targetDedicatedNodes":3}`, 409, "OperationInvalidForCurrentState", "fixed"},
		{"POST", "/pools/default/removenodes", `{"nodeList":[]}`, 400, "InvalidPropertyValue", "1 to 100"},
		{"POST", "/pools/default/nodes/n1/reboot", "", 501, "NotImplemented", "drain"},
		{"GET", "/jobschedules", "", 501, "NotImplemented", "schedules"},
		{"POST", "/gangway/v1/pools/default/nodes/n1/drain", `{"tasks":"explode"}`, 400, "InvalidPropertyValue", "taskcompletion"},
		{"GET", "/gangway/v1/jobs/j/tasks/t0/files/stdout.txt?wait=2h", "", 400, "InvalidQueryParameterValue", "1m"},
		{"GET", "/gangway/v1/jobs/j/tasks/t0/files/stdout.txt?offset=-1", "", 400, "InvalidQueryParameterValue", "offset"},
		{"GET", "/gangway/v1/jobs/j/tasks/t0/files/stdout.txt?instance=-1", "", 400, "InvalidQueryParameterValue", "instance"},
	} {
		t.Run(c.method+" "+c.path+" "+c.body[:min(len(c.body), 90)], func(t *testing.T) {
			if strings.Contains(c.path, "%zz") {
				t.Skip("Go's client does not send it")
			}
			a := f.do("root", c.method, c.path, c.body)
			if a.status != c.status || a.json["code"] != c.code || !strings.Contains(a.body, c.word) {
				t.Errorf("%d %s, want %d %s and %q in it", a.status, a.body, c.status, c.code, c.word)
			}
			if m, _ := a.json["message"].(map[string]any); m["lang"] != "en-US" || !strings.Contains(fmt.Sprint(m["value"]), "RequestId:"+a.header.Get("request-id")) {
				t.Errorf("message %v", a.json["message"])
			}
		})
	}
}

// TestWhoMay: readers read, submitters see their own jobs only, nobody else gets in.
func TestWhoMay(t *testing.T) {
	f := newFixture(t)
	f.m.completeAll()
	f.job("j", 1)
	for _, c := range []struct {
		who, method, path, body string
		status                  int
	}{
		{"eve", "GET", "/jobs/j", "", 404}, {"eve", "GET", "/jobs/j/tasks/t0/files/stdout.txt", "", 404}, {"eve", "GET", "/pools", "", 200},
		{"eve", "DELETE", "/jobs/j", "", 403}, {"eve", "POST", "/jobs", "{}", 403}, {"eve", "GET", "/pools/default/nodes/n1/files", "", 403},
		{"bob", "GET", "/jobs/j", "", 404}, {"bob", "DELETE", "/jobs/j", "", 404}, {"bob", "GET", "/jobs/j/tasks", "", 404}, {"bob", "POST", "/jobs/j/tasks", "{}", 404},
		{"bob", "GET", "/jobs/j/tasks/t0/files/stdout.txt", "", 404}, {"bob", "GET", "/gangway/v1/jobs/j/tasks/t0/explain", "", 404}, {"bob", "GET", "/gangway/v1/jobs/j/tasks/t0/autopsy", "", 404},
		{"bob", "POST", "/jobs/j/terminate", "", 404}, {"bob", "GET", "/jobs/j/taskcounts", "", 404},
		{"ann", "POST", "/pools/default/nodes/n1/disablescheduling", "", 403}, {"ann", "POST", "/gangway/v1/pools/default/nodes/n1/drain", "", 403},
		{"ann", "GET", "/pools/default/nodes/n1/files", "", 403}, {"root", "GET", "/pools/default/nodes/n1/files", "", 200},
		{"ann", "GET", "/jobs/j/tasks/t0", "", 200}, {"root", "GET", "/jobs/j/tasks/t0", "", 200},
		{"", "GET", "/jobs", "", 401}, {"mallory", "GET", "/jobs", "", 401}, {"", "GET", "/nothing", "", 401}, {"", "GET", "/gangway/v1/openapi.json", "", 401},
	} {
		if a := f.do(c.who, c.method, c.path, c.body); a.status != c.status {
			t.Errorf("%s: %s %s: %d, want %d: %s", c.who, c.method, c.path, a.status, c.status, a.body)
		}
	}
	// Every route says no to a stranger before anything else.
	for _, r := range routes() {
		path := strings.NewReplacer("{jobId}", "j", "{taskId}", "t0", "{poolId}", "default", "{nodeId}", "n1", "{filePath...}", "stdout.txt").Replace(r.path)
		if a := f.do("", r.method, path, ""); a.status != 401 {
			t.Errorf("a stranger's %s %s: %d", r.method, path, a.status)
		}
		if a := f.do("bob", r.method, path, ""); strings.Contains(path, "/j/") && r.handle != nil && a.status != 404 {
			t.Errorf("another user's %s %s: %d", r.method, path, a.status)
		}
	}
	if a := f.do("bob", "GET", "/jobs", ""); len(a.json["value"].([]any)) != 0 {
		t.Errorf("bob sees %s", a.body)
	}
	if a := f.do("eve", "GET", "/jobs", ""); len(a.json["value"].([]any)) != 0 {
		t.Errorf("eve sees %s", a.body)
	}
}

// TestPaging: pages hold what they should, once, whatever the filter.
func TestPaging(t *testing.T) {
	f := newFixture(t)
	f.job("j", 250)
	j, _ := f.m.job("j")
	for i := 0; i < 250; i += 5 {
		f.m.complete(j, j.tasks[i], i%2)
	}
	for query, want := range map[string]int{
		"maxresults=100": 250, "maxresults=1": 250, "": 250,
		"maxresults=7&$filter=state%20eq%20'completed'":                                               50,
		"maxresults=10&$filter=startswith(id,'t1')":                                                   111,
		"maxresults=3&$filter=executionInfo/exitCode%20ne%20null":                                     50,
		"$filter=executionInfo/exitCode%20eq%201%20or%20id%20eq%20't1'":                               26,
		"maxresults=50&$filter=(state%20eq%20'active')&$select=id,state":                              200,
		"$filter=creationTime%20gt%20DateTime'2026-11-23T09:00:01Z'%20and%20not%20startswith(id,'t')": 0,
	} {
		seen := map[string]bool{}
		for next := "/jobs/j/tasks?" + query; next != ""; {
			a := f.want(200, f.do("ann", "GET", next, ""))
			for _, v := range a.json["value"].([]any) {
				id := v.(map[string]any)["id"].(string)
				if seen[id] {
					t.Fatalf("%s: %s twice", query, id)
				}
				seen[id] = true
				if strings.Contains(query, "select") && len(v.(map[string]any)) != 2 {
					t.Fatalf("%s: %v", query, v)
				}
			}
			next, _ = a.json["odata.nextLink"].(string)
		}
		if len(seen) != want {
			t.Errorf("%s: %d, want %d", query, len(seen), want)
		}
	}
}

// TestConditions: the four headers, on reads and on changes.
func TestConditions(t *testing.T) {
	f := newFixture(t)
	f.job("j", 1)
	a := f.want(200, f.do("ann", "GET", "/jobs/j", ""))
	tag, modified := a.header.Get("ETag"), a.header.Get("Last-Modified")
	at, err := http.ParseTime(modified)
	if err != nil || tag != a.json["eTag"] {
		t.Fatalf("%v %v: %s", tag, err, a.body)
	}
	before, after := at.Add(-time.Minute).Format(http.TimeFormat), at.Add(time.Minute).Format(http.TimeFormat)
	for _, c := range []struct {
		header       string
		read, change int
	}{
		{"If-Match: " + tag, 200, 200}, {"If-Match: *", 200, 200}, {`If-Match: "0xBAD", ` + tag, 200, 200}, {`If-Match: "0xBAD"`, 412, 412},
		{"If-None-Match: " + tag, 304, 412}, {"If-None-Match: *", 304, 412}, {`If-None-Match: "0xBAD"`, 200, 200},
		{"If-Modified-Since: " + before, 200, 200}, {"If-Modified-Since: " + modified, 304, 412}, {"If-Modified-Since: " + after, 304, 412},
		{"If-Unmodified-Since: " + before, 412, 412}, {"If-Unmodified-Since: " + modified, 200, 200}, {"If-Unmodified-Since: yesterday", 400, 400},
	} {
		if a := f.do("ann", "GET", "/jobs/j", "", c.header); a.status != c.read {
			t.Errorf("%s: reading gives %d, want %d: %s", c.header, a.status, c.read, a.body)
		}
		// A change that succeeds makes the tag stale, so it is undone.
		v, times := f.m.jobs[0].Version, f.m.jobs[0].Times
		if a := f.do("ann", "PATCH", "/jobs/j", `{"priority":5}`, c.header); a.status != c.change {
			t.Errorf("%s: changing gives %d, want %d: %s", c.header, a.status, c.change, a.body)
		}
		f.m.jobs[0].Version, f.m.jobs[0].Times = v, times
	}
	f.want(200, f.do("ann", "PATCH", "/jobs/j", `{"priority":6}`, "If-Match: "+tag))
	if a := f.want(412, f.do("ann", "PATCH", "/jobs/j", `{"priority":7}`, "If-Match: "+tag)); a.json["code"] != "ConditionNotMet" {
		t.Errorf("%s", a.body)
	}
	if a := f.do("ann", "GET", "/jobs", "", "client-request-id: c1", "return-client-request-id: true"); a.header.Get("client-request-id") != "c1" {
		t.Errorf("headers %v", a.header)
	}
}
