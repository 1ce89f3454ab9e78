package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gangway/launcher/auth"
)

const apiVersion = "api-version=2024-07-01.20.0"

// overTLS is a client of the launcher's TCP listener.
func (s *daemon) overTLS() *http.Client {
	s.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.authority().Certificate()) {
		s.t.Fatal("the authority's certificate can't be read")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// ask sends one request and returns status and body.
func (s *daemon) ask(c *http.Client, token, method, path, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b)
}

// operation is one of those in the served OpenAPI document, on objects of the
// test: job "mine" with the task "t".
type operation struct{ method, path string }

// operations returns all that the launcher says it answers.
func (s *daemon) operations() []operation {
	s.t.Helper()
	status, body := s.ask(s.overSocket(), "", "GET", "/gangway/v1/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 {
		s.t.Fatalf("the OpenAPI document: %d, %v\n%s", status, err, body)
	}
	names := strings.NewReplacer("{poolId}", "default", "{nodeId}", s.node(), "{jobId}", "mine", "{taskId}", "t", "{filePath}", "stdout.txt")
	var ops []operation
	for p, methods := range doc.Paths {
		for m := range methods {
			ops = append(ops, operation{strings.ToUpper(m), names.Replace(p)})
		}
	}
	slices.SortFunc(ops, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	if len(ops) < 45 {
		s.t.Fatalf("only %d operations", len(ops))
	}
	return ops
}

// node names the launcher's first node.
func (s *daemon) node() string {
	s.t.Helper()
	_, body := s.ask(s.overSocket(), "", "GET", "/pools/default/nodes?"+apiVersion, "")
	var list struct{ Value []struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Value) == 0 {
		s.t.Fatalf("nodes: %v\n%s", err, body)
	}
	return list.Value[0].ID
}

// mine adds the job and task that strangers are after, as the given submitter.
func (s *daemon) mine(c *http.Client, token string) {
	s.t.Helper()
	for _, r := range [][2]string{
		{"/jobs", `{"id":"mine","poolInfo":{"poolId":"default"}}`},
		{"/jobs/mine/tasks", `{"id":"t","commandLine":"/bin/sh -c 'echo private'"}`},
	} {
		if status, body := s.ask(c, token, "POST", r[0]+"?"+apiVersion, r[1]); status != 201 {
			s.t.Fatalf("POST %s: %d %s", r[0], status, body)
		}
	}
	waitFor(s.t, "the task is completed", 30*time.Second, func() bool {
		_, body := s.ask(c, token, "GET", "/jobs/mine/tasks/t?"+apiVersion, "")
		return strings.Contains(body, `"state":"completed"`)
	})
	s.nodeIdle()
}

// nodeIdle waits until the node has nothing left.
func (s *daemon) nodeIdle() {
	s.t.Helper()
	waitFor(s.t, "the node is idle", 20*time.Second, func() bool {
		_, body := s.ask(s.overSocket(), "", "GET", "/pools/default/nodes?"+apiVersion, "")
		return strings.Contains(body, `"state":"idle"`)
	})
}

// TestUpStrangers lets those who may not try every operation.
func TestUpStrangers(t *testing.T) {
	s := upLocal(t)
	c := s.overTLS()
	owner, other := s.token("owner", auth.Submitter), s.token("other", auth.Submitter)
	reader, nosy := s.token("owner", auth.Reader), s.token("nosy", auth.Reader)
	s.mine(c, owner)
	before := s.snapshot()

	ops := s.operations()
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
	wrong := "gangway_000000000000_" + strings.Repeat("A", 43)
	for _, path := range append(paths(ops), "/", "/none", "/jobs/mine/../mine", "/gangway/v1", "/debug/pprof/", "//jobs", "/jobs//tasks", "/%2e%2e/etc/passwd") {
		for _, m := range methods {
			for _, token := range []string{"", "x", wrong} {
				if status, body := s.ask(c, token, m, path+"?"+apiVersion, ""); !slices.Contains([]int{401, 403, 404, 405}, status) {
					t.Errorf("%s %s of nobody: %d %s", m, path, status, body)
				} else if strings.Contains(body, "private") {
					t.Errorf("%s %s of nobody tells: %s", m, path, body)
				}
			}
		}
	}

	// Somebody else's job does not exist for a submitter, and nothing of the
	// administrator's is open to it; a reader of the same name changes nothing.
	for _, o := range ops {
		if !strings.HasPrefix(o.path, "/jobs/mine") && !strings.Contains(o.path, "/jobs/mine/") {
			continue
		}
		for who, token := range map[string]string{"another submitter": other, "another reader": nosy} {
			status, body := s.ask(c, token, o.method, o.path+"?"+apiVersion, "")
			if !slices.Contains([]int{403, 404}, status) || strings.Contains(body, "private") {
				t.Errorf("%s %s of %s: %d %s", o.method, o.path, who, status, body)
			}
		}
		if o.method != "GET" && o.method != "HEAD" {
			if status, body := s.ask(c, reader, o.method, o.path+"?"+apiVersion, ""); status != 403 {
				t.Errorf("%s %s of a reader: %d %s", o.method, o.path, status, body)
			}
		}
	}
	for _, o := range ops {
		admins := strings.HasPrefix(o.path, "/pools") && o.method != "GET" && o.method != "HEAD" || strings.Contains(o.path, "/nodes/") && strings.Contains(o.path, "/files")
		if admins && !strings.Contains(o.path, "autoscale") && !strings.Contains(o.path, "uploadbatch") {
			if status, body := s.ask(c, owner, o.method, o.path+"?"+apiVersion, "{}"); status != 403 {
				t.Errorf("%s %s of a submitter: %d %s", o.method, o.path, status, body)
			}
		}
	}
	if status, body := s.ask(c, reader, "GET", "/jobs/mine/tasks/t/files/stdout.txt?"+apiVersion, ""); status != 200 || body != "private\n" {
		t.Errorf("a reader of the owner's name: %d %s", status, body)
	}
	for _, list := range []string{"/jobs", "/jobs?$filter=id%20eq%20'mine'"} {
		sep := "?"
		if strings.Contains(list, "?") {
			sep = "&"
		}
		for who, token := range map[string]string{"another submitter": other, "another reader": nosy} {
			if _, body := s.ask(c, token, "GET", list+sep+apiVersion, ""); strings.Contains(body, "mine") {
				t.Errorf("%s lists somebody's job: %s", who, body)
			}
		}
	}
	if _, body := s.ask(c, nosy, "GET", "/gangway/v1/metrics", ""); strings.Contains(body, "mine") || strings.Contains(body, "owner") {
		t.Error("the metrics name jobs or owners")
	}
	if after := s.snapshot(); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
	s.secretFree(owner, other, reader, nosy, wrong)
}

func paths(ops []operation) []string {
	var out []string
	for _, o := range ops {
		if !slices.Contains(out, o.path) {
			out = append(out, o.path)
		}
	}
	return out
}

// snapshot is what an administrator sees of jobs, tasks and nodes.
func (s *daemon) snapshot() string {
	var b strings.Builder
	for _, path := range []string{"/jobs", "/jobs/mine", "/jobs/mine/tasks", "/pools/default", "/pools/default/nodes"} {
		_, body := s.ask(s.overSocket(), "", "GET", path+"?"+apiVersion, "")
		b.WriteString(volatile.ReplaceAllString(body, "") + "\n")
	}
	return b.String()
}

var volatile = regexp.MustCompile(`"(eTag|lastModified|odata\.[a-zA-Z]+|url)":"(\\.|[^"\\])*",?`)

// TestUpLocalUsers lets another user of the machine try the socket and what the
// launcher keeps.
func TestUpLocalUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	socket := filepath.Join(t.TempDir(), "l.sock")
	for d := filepath.Dir(socket); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := upLocal(t, "--socket", socket)
	s.mine(s.overSocket(), "")
	before := s.snapshot()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	as := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	status := func(method, path string) string {
		args := []string{curl, "-sS", "--unix-socket", socket, "-o", "/dev/null", "-w", "%{http_code}", "-X", method}
		if method == "HEAD" {
			args = append(args, "-I")
		}
		out, err := as(append(args, "http://launcher"+path+"?"+apiVersion)...)
		if err != nil {
			t.Fatalf("%s %s: %v %s", method, path, err, out)
		}
		return out
	}
	// As a submitter, nobody sees none of root's jobs and changes no node.
	for _, o := range s.operations() {
		write := o.method != "GET" && o.method != "HEAD"
		switch {
		case strings.Contains(o.path, "/jobs/mine"):
			if got := status(o.method, o.path); got != "404" && got != "403" {
				t.Errorf("%s %s of another user: %s", o.method, o.path, got)
			}
		case strings.HasPrefix(o.path, "/pools") && write && !strings.Contains(o.path, "autoscale") && !strings.Contains(o.path, "uploadbatch"),
			strings.Contains(o.path, "/nodes/") && strings.Contains(o.path, "/files"):
			if got := status(o.method, o.path); got != "403" {
				t.Errorf("%s %s of another user: %s", o.method, o.path, got)
			}
		}
	}
	// What it submits is its own, and is run as it.
	if out, err := as(curl, "-sS", "--unix-socket", socket, "-H", "Content-Type: application/json; odata=minimalmetadata",
		"-d", `{"id":"nobodys","poolInfo":{"poolId":"default"}}`, "http://launcher/jobs?"+apiVersion); err != nil || strings.Contains(out, "error") {
		t.Errorf("a job of another user: %v %s", err, out)
	}
	if out, err := as(curl, "-sS", "--unix-socket", socket, "-H", "Content-Type: application/json; odata=minimalmetadata",
		"-d", `{"id":"who","commandLine":"/bin/sh -c 'id -un; cat `+filepath.Join(s.data, "ca.pem")+`'","userIdentity":null}`, "http://launcher/jobs/nobodys/tasks?"+apiVersion); err != nil || strings.Contains(out, "error") {
		t.Errorf("a task of another user: %v %s", err, out)
	}
	waitFor(t, "the other user's task is completed", 30*time.Second, func() bool {
		_, body := s.ask(s.overSocket(), "", "GET", "/jobs/nobodys/tasks/who?"+apiVersion, "")
		return strings.Contains(body, `"state":"completed"`)
	})
	if _, body := s.ask(s.overSocket(), "", "GET", "/jobs/nobodys/tasks/who/files/stdout.txt?"+apiVersion, ""); body != "nobody\n" {
		_, why := s.ask(s.overSocket(), "", "GET", "/jobs/nobodys/tasks/who?"+apiVersion, "")
		t.Errorf("the other user's task says %q\n%s", body, why)
	}
	// Let in no more, it gets 401 for everything.
	if err := s.keyring().SetLocalUsers(false); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths(s.operations()), "/none") {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"} {
			if got := status(m, path); got != "401" {
				t.Errorf("%s %s of a local user who is not let in: %s", m, path, got)
			}
		}
	}
	s.mustDelete("nobodys")
	s.nodeIdle()
	if after := s.snapshot(); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
	// Nothing that the launcher or its agent keeps is open to others.
	_ = filepath.WalkDir(s.base, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&os.ModeSymlink != 0 || path == s.ca || strings.Contains(path, "/bin/gangway-") {
			return nil
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) != nil || st.Uid == 65534 {
			return nil
		}
		if _, err := as("/usr/bin/test", "-r", path); err == nil {
			t.Errorf("another user can read %s", path)
		}
		return nil
	})
}

func (s *daemon) mustDelete(id string) {
	s.t.Helper()
	if status, body := s.ask(s.overSocket(), "", "DELETE", "/jobs/"+id+"?"+apiVersion, ""); status != 202 {
		s.t.Errorf("DELETE job %s: %d %s", id, status, body)
	}
	waitFor(s.t, "job "+id+" is gone", 20*time.Second, func() bool {
		status, _ := s.ask(s.overSocket(), "", "GET", "/jobs/"+id+"?"+apiVersion, "")
		return status == 404
	})
}

// TestUpMalformed sends what no client should: the answers are Batch's, and the
// launcher stays.
func TestUpMalformed(t *testing.T) {
	s := upLocal(t)
	c, token := s.overTLS(), s.token("owner", auth.Submitter)
	s.mine(c, token)
	deep := strings.Repeat("[", 100_000)
	for _, r := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/jobs", `{`, 400, ""},
		{"POST", "/jobs", `[]`, 400, ""},
		{"POST", "/jobs", `null`, 400, ""},
		{"POST", "/jobs", `"x"`, 400, ""},
		{"POST", "/jobs", ``, 400, ""},
		{"POST", "/jobs", "\xff\xfe{", 400, ""},
		{"POST", "/jobs", `{"id":1,"poolInfo":{"poolId":"default"}}`, 400, ""},
		{"POST", "/jobs", `{"id":"a/b","poolInfo":{"poolId":"default"}}`, 400, ""},
		{"POST", "/jobs", `{"id":"../up","poolInfo":{"poolId":"default"}}`, 400, ""},
		{"POST", "/jobs", `{"id":"` + strings.Repeat("x", 65) + `","poolInfo":{"poolId":"default"}}`, 400, ""},
		{"POST", "/jobs", `{"id":"x","poolInfo":{"poolId":"default"},"priority":1e99}`, 400, ""},
		{"POST", "/jobs", `{"id":"x","poolInfo":` + deep + `}`, 400, ""},
		{"POST", "/jobs", `{"id":"x","poolInfo":{"poolId":"default"},"constraints":{"maxWallClockTime":"PT"}}`, 400, ""},
		{"POST", "/jobs", `{"id":"x"} {"id":"y"}`, 400, ""},
		{"POST", "/jobs", `{"id":"x","displayName":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "RequestBodyTooLarge"},
		{"POST", "/jobs/mine/tasks", `{"id":"x","commandLine":5}`, 400, ""},
		{"POST", "/jobs/mine/tasks", `{"id":"x"}`, 400, ""},
		{"POST", "/jobs/mine/tasks", `{"id":"x","commandLine":"'"}`, 0, ""},
		{"POST", "/jobs/mine/tasks", `{"id":"x2","commandLine":"a` + "\\u0000" + `b"}`, 400, ""},
		{"POST", "/jobs/mine/tasks", `{"id":"x3","commandLine":"true","environmentSettings":[{"name":"A=B","value":"c"}]}`, 400, ""},
		{"POST", "/jobs/mine/tasks", `{"id":"x4","commandLine":"true","multiInstanceSettings":{"numberOfInstances":-1,"coordinationCommandLine":""}}`, 400, ""},
		{"POST", "/jobs/mine/addtaskcollection", `{"value":{}}`, 400, ""},
		{"POST", "/jobs/mine/addtaskcollection", `{"value":[` + strings.TrimSuffix(strings.Repeat(`{"id":"z","commandLine":"true"},`, 101), ",") + `]}`, 413, "RequestBodyTooLarge"},
		{"POST", "/gangway/v1/jobs", `{"id":"x","tasks":[{"command":"not a list"}]}`, 400, ""},
		{"GET", "/jobs?$filter=", "", 200, ""},
		{"GET", "/jobs?$filter=id%20eq", "", 400, ""},
		{"GET", "/jobs?$filter=((((", "", 400, ""},
		{"GET", "/jobs?$filter=" + strings.Repeat("(", 20_000), "", 400, ""},
		{"GET", "/jobs?$filter=" + strings.Repeat("not%20", 5_000) + "id%20eq%20'x'", "", 400, ""},
		{"GET", "/jobs?$filter=nothing%20eq%201", "", 400, ""},
		{"GET", "/jobs?$filter=id%20eq%20'x", "", 400, ""},
		{"GET", "/jobs?$select=nothing", "", 400, ""},
		{"GET", "/jobs?maxresults=0", "", 400, ""},
		{"GET", "/jobs?maxresults=99999999999999999999", "", 400, ""},
		{"GET", "/jobs?$skiptoken=%00", "", 400, ""},
		{"GET", "/jobs?%zz", "", 400, ""},
		{"GET", "/jobs/%00", "", 400, ""},
		{"GET", "/jobs/mine/tasks/t/files/..%2F..%2F..%2Fetc%2Fpasswd", "", 0, ""},
		{"GET", "/gangway/v1/jobs/mine/tasks/t/files/stdout.txt?offset=-1", "", 400, ""},
		{"GET", "/gangway/v1/jobs/mine/tasks/t/files/stdout.txt?wait=99h", "", 400, ""},
	} {
		sep := "?"
		if strings.Contains(r.path, "?") {
			sep = "&"
		}
		name := fmt.Sprintf("%s %.80s %.60q", r.method, r.path, r.body)
		status, body := s.ask(c, token, r.method, r.path+sep+apiVersion, r.body)
		if status >= 500 || r.status == 0 && status == 200 || r.status != 0 && status != r.status {
			t.Errorf("%s: %d, want %d: %.300s", name, status, r.status, body)
		}
		var e struct {
			Code    string
			Message struct{ Value string }
		}
		if status >= 400 && (json.Unmarshal([]byte(body), &e) != nil || e.Code == "" || e.Message.Value == "" || r.code != "" && e.Code != r.code) {
			t.Errorf("%s: not Batch's body of an error: %.300s", name, body)
		}
	}
	if status, _ := s.ask(c, token, "GET", "/jobs/mine?"+apiVersion, ""); status != 200 {
		t.Errorf("after all this: %d", status)
	}
	s.secretFree(token)
}

// TestUpSlowClients: connections that say nothing, or little at a time, are
// ended, and don't keep others out meanwhile.
func TestUpSlowClients(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("waits a minute for the launcher's patience to end; the race detector would see nothing else of it")
	}
	s := upLocal(t)
	c, token := s.overTLS(), s.token("owner", auth.Submitter)
	conf := c.Transport.(*http.Transport).TLSClientConfig
	start := time.Now()
	dial := func(network, address string) net.Conn {
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	over := func(conn net.Conn) net.Conn {
		tc := tls.Client(conn, &tls.Config{RootCAs: conf.RootCAs, ServerName: "127.0.0.1"})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		return tc
	}
	request := func(head string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, head) }
	}
	slow := map[string]net.Conn{}
	for name, x := range map[string]struct {
		conn net.Conn
		send func(net.Conn)
	}{
		"silent before TLS":           {dial("tcp", s.listen), request("")},
		"half a hello":                {dial("tcp", s.listen), request("\x16\x03\x01\x02\x00\x01")},
		"silent after TLS":            {over(dial("tcp", s.listen)), request("")},
		"half a header":               {over(dial("tcp", s.listen)), request("GET /jobs HTTP/1.1\r\nHost: x\r\nX-A: ")},
		"half a body":                 {over(dial("tcp", s.listen)), request("POST /jobs?" + apiVersion + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nContent-Type: application/json; odata=minimalmetadata\r\nContent-Length: 1000\r\n\r\n{")},
		"half a body of nobody":       {over(dial("tcp", s.listen)), request("POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")},
		"idle after a request":        {over(dial("tcp", s.listen)), request("GET /jobs HTTP/1.1\r\nHost: x\r\n\r\n")},
		"silent on the socket":        {dial("unix", s.socket), request("")},
		"half a header on the socket": {dial("unix", s.socket), request("GET /jobs HTTP/1.1\r\nHost: x\r\nX-A: ")},
	} {
		x.send(x.conn)
		slow[name] = x.conn
	}
	if status, _ := s.ask(c, token, "GET", "/jobs?"+apiVersion, ""); status != 200 {
		t.Errorf("with slow clients connected: %d", status)
	}
	var wait sync.WaitGroup
	for name, conn := range slow {
		wait.Go(func() {
			_ = conn.SetReadDeadline(start.Add(75 * time.Second))
			_, err := io.Copy(io.Discard, conn)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: not ended after %v", name, time.Since(start).Round(time.Second))
			}
		})
	}
	wait.Wait()
	s.secretFree(token)
}

// TestUpData: a launcher does not start on data that it can't keep, and says why.
func TestUpData(t *testing.T) {
	s := upLocal(t)
	refused := func(t *testing.T, dir string, words ...string) {
		t.Helper()
		p := s.bed.start(nil, nil, "up", "--data", dir, "--tmpdir", s.base)
		out := p.out.wait(p) + p.err.String()
		if p.status() == 0 {
			t.Errorf("it started:\n%s", out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in: %s", w, out)
			}
		}
	}
	refused(t, s.data, "another launcher", fmt.Sprintf("pid %d", s.Process.Pid), s.data)
	s.mine(s.overSocket(), "")
	s.stop()

	copyTo := func(t *testing.T) string {
		t.Helper()
		dir := filepath.Join(s.base, "copy-"+regexp.MustCompile(`\W`).ReplaceAllString(t.Name(), "_"))
		if out, err := exec.Command("cp", "-a", s.data, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		return dir
	}
	t.Run("newer", func(t *testing.T) {
		dir := copyTo(t)
		file := filepath.Join(dir, "gangway.db")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// The user version of SQLite's file format: bytes 60 to 63, big-endian.
		copy(b[60:64], []byte{0, 0, 0x27, 0x0f})
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "newer", "9999")
	})
	t.Run("corrupted", func(t *testing.T) {
		dir := copyTo(t)
		file := filepath.Join(dir, "gangway.db")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[min(4096, len(b)/2):], bytes.Repeat([]byte{0xa5}, len(b)/2))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "gangway.db")
	})
	t.Run("no database", func(t *testing.T) {
		dir := copyTo(t)
		if err := os.WriteFile(filepath.Join(dir, "gangway.db"), bytes.Repeat([]byte("not a database\n"), 500), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "gangway.db", "not a database")
	})
	t.Run("open to others", func(t *testing.T) {
		dir := copyTo(t)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "chmod 700")
	})
	t.Run("read-only", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to mount")
		}
		dir := copyTo(t)
		if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("no mounts here: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "read-only", dir)
	})
	t.Run("again", func(t *testing.T) {
		again := s.bed.up(s.data, "--tmpdir", s.base)
		if status, body := again.ask(again.overSocket(), "", "GET", "/jobs/mine/tasks/t?"+apiVersion, ""); status != 200 || !strings.Contains(body, `"state":"completed"`) {
			t.Errorf("after all this: %d %s", status, body)
		}
		again.stop()
	})
}

// TestUpFullDisk: what can't be written is not acknowledged and ends the
// launcher, and nothing acknowledged is lost once there is room again.
func TestUpFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	bin := gangwayBinary(t)
	base, err := os.MkdirTemp("/tmp", "gwu")
	if err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(base, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
		t.Skipf("no mounts here: %v", err)
	}
	b := &bed{t: t, bin: bin, base: base, limit: 5 * time.Minute}
	t.Cleanup(func() {
		endLocal(t, base)
		_ = syscall.Unmount(small, syscall.MNT_DETACH)
		_ = os.RemoveAll(base)
	})
	data := filepath.Join(small, "data")
	s := b.up(data, "--tmpdir", base)
	c := s.overSocket()
	if status, body := s.ask(c, "", "POST", "/jobs?"+apiVersion, `{"id":"mine","poolInfo":{"poolId":"default"}}`); status != 201 {
		t.Fatalf("POST /jobs: %d %s", status, body)
	}
	var have []string
	command := strings.Repeat("x", 20_000)
	for i := 0; i < 1000; i++ {
		id := fmt.Sprintf("t%d", i)
		req, _ := http.NewRequest("POST", "http://launcher/jobs/mine/tasks?"+apiVersion, strings.NewReader(`{"id":"`+id+`","commandLine":"/no/`+command+`"}`))
		req.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
		resp, err := c.Do(req)
		if err != nil {
			break
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 201 {
			break
		}
		have = append(have, id)
	}
	if len(have) == 0 || len(have) == 1000 {
		t.Fatalf("%d tasks fitted", len(have))
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the launcher goes on without its disk\n%s", s.process.err)
	}
	if got := s.process.err.String(); !strings.Contains(got, "full") && !strings.Contains(got, "no space") {
		t.Errorf("it ended without saying that the disk is full: %s", got)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", syscall.MS_REMOUNT, "size=64m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	again := b.up(data, "--tmpdir", base)
	c = again.overSocket()
	for _, id := range have {
		if status, body := again.ask(c, "", "GET", "/jobs/mine/tasks/"+id+"?"+apiVersion, ""); status != 200 {
			t.Fatalf("task %s was acknowledged and is lost: %d %s", id, status, body)
		}
	}
	t.Logf("%d tasks fitted and are there", len(have))
	again.stop()
}
