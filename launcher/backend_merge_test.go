package launcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// apiOf serves a backend's API to an administrator.
func apiOf(t *testing.T, b *backend) (url string) {
	h := batchapi.New(batchapi.Config{Backend: b, Version: "test"})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(batchapi.WithPrincipal(r.Context(), batchapi.Principal{Name: "ops", Role: auth.Admin, NodeUser: "ops"})))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// lateBody is a request's body that is sent once the server asks for it: before
// its first byte, meanwhile happens.
type lateBody struct {
	io.Reader
	meanwhile func()
	once      sync.Once
}

func (b *lateBody) Read(p []byte) (int, error) {
	b.once.Do(b.meanwhile)
	return b.Reader.Read(p)
}

// send makes a request; headers are "Name: value".
func send(t *testing.T, method, url, body string, meanwhile func(), headers ...string) (int, map[string]any) {
	t.Helper()
	if meanwhile == nil {
		meanwhile = func() {}
	}
	r, err := http.NewRequest(method, url+"?api-version=2024-07-01.20.0", &lateBody{Reader: strings.NewReader(body), meanwhile: meanwhile})
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	if method == http.MethodGet {
		r.Body = http.NoBody
	} else {
		r.Header.Set("Expect", "100-continue")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	tr := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	return resp.StatusCode, out
}

// Of two changes of different properties, one of which comes while the other is
// being read, both stick; a client that names the version it has seen is told.
func TestChangesAtOnce(t *testing.T) {
	b := bare(t)
	url := apiOf(t, b)
	must := func(want int, method, path, body string, meanwhile func(), headers ...string) map[string]any {
		t.Helper()
		status, out := send(t, method, url+path, body, meanwhile, headers...)
		if status != want {
			t.Fatalf("%s %s: %d, want %d: %v", method, path, status, want, out)
		}
		return out
	}
	must(201, "POST", "/jobs", `{"id":"j","poolInfo":{"poolId":"default"}}`, nil)
	must(201, "POST", "/jobs/j/tasks", `{"id":"t","commandLine":"x"}`, nil)

	must(200, "PATCH", "/jobs/j", `{"priority":7}`, func() {
		must(200, "PATCH", "/jobs/j", `{"metadata":[{"name":"a","value":"b"}],"onAllTasksComplete":"noaction"}`, nil)
	})
	j := must(200, "GET", "/jobs/j", "", nil)
	if j["priority"] != 7.0 || j["metadata"] == nil {
		t.Errorf("one change undid the other: priority %v, metadata %v", j["priority"], j["metadata"])
	}
	must(412, "PATCH", "/jobs/j", `{"priority":9}`, func() {
		must(200, "PATCH", "/jobs/j", `{"priority":8}`, nil)
	}, "If-Match: "+j["eTag"].(string))

	must(200, "PUT", "/jobs/j/tasks/t", `{"constraints":{"maxTaskRetryCount":3}}`, func() {
		must(200, "PUT", "/jobs/j/tasks/t", `{"gangway":{"workdir":"/w"}}`, nil)
	})
	task := must(200, "GET", "/jobs/j/tasks/t", "", nil)
	if c, _ := task["constraints"].(map[string]any); c["maxTaskRetryCount"] != 3.0 || task["gangway"] == nil {
		t.Errorf("one change undid the other: constraints %v, gangway %v", c, task["gangway"])
	}
	must(412, "PUT", "/jobs/j/tasks/t", `{}`, func() {
		must(200, "PUT", "/jobs/j/tasks/t", `{"constraints":{"maxTaskRetryCount":4}}`, nil)
	}, "If-Match: "+task["eTag"].(string))
}

// Many clients change the same job, each another property, and none loses.
func TestManyChangesAtOnce(t *testing.T) {
	url := apiOf(t, bare(t))
	if status, out := send(t, "POST", url+"/jobs", `{"id":"j","poolInfo":{"poolId":"default"}}`, nil); status != 201 {
		t.Fatalf("%d %v", status, out)
	}
	var clients sync.WaitGroup
	for _, body := range []string{`{"priority":7}`, `{"metadata":[{"name":"a","value":"b"}]}`, `{"onAllTasksComplete":"terminatejob"}`, `{"constraints":{"maxTaskRetryCount":3}}`} {
		clients.Go(func() {
			if status, out := send(t, "PATCH", url+"/jobs/j", body, nil); status != 200 {
				t.Errorf("%s: %d %v", body, status, out)
			}
		})
	}
	clients.Wait()
	_, j := send(t, "GET", url+"/jobs/j", "", nil)
	if c, _ := j["constraints"].(map[string]any); j["priority"] != 7.0 || j["metadata"] == nil || j["onAllTasksComplete"] != "terminatejob" || c["maxTaskRetryCount"] != 3.0 {
		t.Errorf("a change is lost: %v", j)
	}
}

// A node is opened and closed once, and a pool changed at the version that was seen.
func TestNodesAtOnce(t *testing.T) {
	b := bare(t)
	for _, n := range []string{"n1", "n2"} {
		if err := b.do(t.Context(), state.NodeAdded{Node: n}); err != nil {
			t.Fatal(err)
		}
	}
	var done sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		done.Go(func() { errs[i] = b.DisableScheduling(t.Context(), "default", "n1", batchapi.DeallocateRequeue) })
	}
	done.Wait()
	closed := 0
	for _, err := range errs {
		var conflict *batchapi.Conflict
		if err == nil {
			closed++
		} else if !errors.As(err, &conflict) || conflict.Code != batchapi.CodeNodeScheduling {
			t.Errorf("%v", err)
		}
	}
	if closed != 1 {
		t.Errorf("%d of %d requests closed the node", closed, len(errs))
	}
	p, err := b.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.do(t.Context(), state.NodeAdded{Node: "n3"}); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveNodes(t.Context(), "default", p.Version, []string{"n2"}, batchapi.DeallocateRequeue); !errors.Is(err, batchapi.Stale{}) {
		t.Errorf("removed at a version that is gone: %v", err)
	}
	var no *batchapi.NotFound
	if err := b.EnableScheduling(t.Context(), "default", "n9"); !errors.As(err, &no) || no.Kind != batchapi.KindNode {
		t.Errorf("an unknown node: %v", err)
	}
}

// A client that goes away while its request waits for the applier leaves nothing
// behind that is written to.
func TestReadGivenUp(t *testing.T) {
	b := bare(t)
	if _, err := b.submit(t.Context(), job.Spec{ID: "j", KeepOpen: true}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			ctx, stop := context.WithCancel(t.Context())
			go stop()
			_, err := b.Job(ctx, "j")
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
}
