package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/launcher"
	"gangway/launcher/auth"
	"gangway/launcher/client"
	"gangway/launcher/pool"
)

// standing is a launcher that stays, with this machine as its node.
type standing struct {
	t        *testing.T
	data     string
	listen   string
	stop     func()
	provider func() pool.Provider
}

// up starts a launcher in this process; its agent is the real program.
func up(t *testing.T) *standing {
	t.Helper()
	bin := gangwayBinary(t)
	base, err := os.MkdirTemp("/tmp", "gwt")
	if err == nil {
		err = os.Chmod(base, 0o777|os.ModeSticky) // as /tmp: other users have their directories in it
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &standing{t: t, data: filepath.Join(base, "data"), provider: func() pool.Provider { return pool.Local(bin, "GANGWAY_TMPDIR="+base) }}
	for _, name := range []string{"GANGWAY_LAUNCHER", "GANGWAY_CA", "GANGWAY_FINGERPRINT", "GANGWAY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("GANGWAY_DATA_DIR", s.data)
	t.Cleanup(func() {
		s.stop()
		if t.Failed() { // what still runs would hold the agent
			for _, p := range localProcs("GANGWAY_TMPDIR=" + base) {
				if pid, err := strconv.Atoi(strings.Fields(p)[1]); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		waitFor(t, "the agent's end", 20*time.Second, func() bool { return len(localProcs("GANGWAY_TMPDIR="+base)) == 0 })
		_ = os.RemoveAll(base)
	})
	s.start()
	return s
}

func (s *standing) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := s.provider()
	ready, ended := make(chan launcher.UpInfo, 1), make(chan error, 1)
	go func() {
		ended <- launcher.Up(ctx, launcher.UpConfig{Data: s.data, Provider: p, Base: filepath.Dir(s.data), Who: "test", Version: "0.1.0-test",
			Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Ready: func(i launcher.UpInfo) { ready <- i }})
	}()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the launcher ended: %v", err)
		}
		_ = p.Close()
		s.stop = func() {}
	}
	select {
	case i := <-ready:
		s.listen = i.Listen
	case err := <-ended:
		s.stop = func() {}
		s.t.Fatalf("the launcher does not start: %v", err)
	}
}

// gangway runs a command line in this process.
func gangway(stdin string, args ...string) (stdout, stderr string, status int) {
	out, errs := newSyncBuffer(), newSyncBuffer()
	a := &app{stdout: out, stderr: errs}
	if stdin != "" {
		r, w, err := os.Pipe()
		if err != nil {
			return "", err.Error(), -1
		}
		defer r.Close()
		go func() {
			_, _ = w.WriteString(stdin)
			_ = w.Close()
		}()
		a.stdin = r
	}
	root := newRoot(a)
	root.SetArgs(args)
	status = report(errs, a.json, root.Execute())
	return out.String(), errs.String(), status
}

// want runs a command line and fails unless it ends with status and both outputs
// match their patterns; "" is no output at all.
func want(t *testing.T, status int, stdout, stderr string, args ...string) string {
	t.Helper()
	out, errs, got := gangway("", args...)
	matches := func(pattern, s string) bool {
		if pattern == "" {
			return s == ""
		}
		return regexp.MustCompile("(?s)" + pattern).MatchString(s)
	}
	if got != status || !matches(stdout, out) || !matches(stderr, errs) {
		t.Fatalf("gangway %s: exit status %d\nstdout:\n%s\nstderr:\n%s\nwant %d, %q, %q", strings.Join(args, " "), got, out, errs, status, stdout, stderr)
	}
	return out
}

func TestNoLauncher(t *testing.T) {
	t.Setenv("GANGWAY_LAUNCHER", "")
	t.Setenv("GANGWAY_DATA_DIR", filepath.Join(t.TempDir(), "none"))
	want(t, exitFailed, "", "no launcher answers at unix:.*no such file.*gangway up", "job", "list")
	want(t, exitFailed, "", `"error":"no launcher answers`, "job", "list", "--json")
	want(t, exitFailed, "", "no launcher answers", "submit", "--", "true")
	want(t, exitUsage, "", "no launcher of yours on this machine runs a job", "explain", "nothing")
	want(t, exitUsage, "", "neither https", "status", "--launcher", "http://127.0.0.1:1")
	want(t, exitUsage, "", "there is no launcher's data", "token", "list")
	t.Setenv("GANGWAY_TOKEN_FILE", filepath.Join(t.TempDir(), "token"))
	want(t, exitUsage, "", "wants a token, and there is no file", "status", "--launcher", "https://127.0.0.1:1")
}

func TestSubmitUsage(t *testing.T) {
	for name, c := range map[string]struct{ args, stderr string }{
		"nothing":        {"submit", "nothing to submit"},
		"no command":     {"submit --", "nothing to submit|no command"},
		"two files":      {"submit a.yaml b.yaml", "one file"},
		"no file":        {"submit /nonexistent.yaml", "put -- before it"},
		"hosts":          {"submit --hosts n1 -- true", "--hosts is of gangway run"},
		"label":          {"submit -l -- true", "--label is of gangway run"},
		"both":           {"submit --wait --follow -- true", "exclude each other"},
		"no ranks":       {"submit -n 0 -- true", "-n 0"},
		"node loss":      {"submit --on-node-loss cry -- true", "on-node-loss"},
		"id":             {"submit --name a/b -- true", "--name: .*is not an id"},
		"misspelled":     {"job lst", "unknown command .*did you mean list|unknown command"},
		"few arguments":  {"job wait", "too few arguments"},
		"many arguments": {"job show a b", "too many arguments"},
		"disable":        {"job disable a --tasks eat", "--tasks .eat. is unknown"},
	} {
		t.Run(name, func(t *testing.T) { want(t, exitUsage, "", c.stderr, strings.Fields(c.args)...) })
	}
}

func TestSubmit(t *testing.T) {
	up(t)
	sh := func(script string) []string { return []string{"--", "sh", "-c", script} }
	args := func(first []string, more []string) []string { return append(first, more...) }

	want(t, 3, "^hi\nbye\n$", "submitted sh\n.*oops.*sh failed: .*status 3", args([]string{"submit", "--wait"}, sh("echo hi; echo oops >&2; echo bye; exit 3"))...)
	// The id is taken: the next one has a number.
	want(t, 0, "^sh-2\n$", "", args([]string{"submit"}, sh("exit 0"))...)
	want(t, 0, "^sh-3\n$", "", args([]string{"submit"}, sh("exit 0"))...)
	want(t, exitFailed, "", "there is a job \"sh\" already", args([]string{"submit", "--exact"}, sh("exit 0"))...)
	want(t, 0, "^sh-2: 1 succeeded\nsh-3: 1 succeeded\n$", "", "job", "wait", "sh-2", "sh-3", "--timeout", "1m")
	want(t, 1, "^sh: 1 failed\n$", "", "job", "wait", "sh")
	want(t, exitFailed, "", "no job \"nope\"", "job", "wait", "nope")
	want(t, exitNotFound, "", "not found", "submit", "--wait", "--", "/nonexistent")
	want(t, exitTimeLimit, "", "time limit", args([]string{"submit", "--wait", "--time", "1s", "--kill-grace", "100ms"}, sh("sleep 60"))...)
	want(t, 0, "^a\nb\n$", "submitted", args([]string{"submit", "--follow"}, sh("echo a; echo b; exit 9"))...)
	want(t, 0, "^"+regexp.QuoteMeta(mustGetwd(t))+"\n$", "submitted", "submit", "--wait", "--", "pwd")
	want(t, exitUsage, "", "can never fit", "submit", "-c", "9999", "--", "true")

	var end struct {
		ID     string
		OK     bool
		Status int
		Why    string
	}
	out := want(t, 4, ".", "", args([]string{"--json", "submit", "--wait", "--name", "j"}, sh("exit 4"))...)
	if err := json.Unmarshal([]byte(out), &end); err != nil || end.ID != "j" || end.OK || end.Status != 4 || end.Why == "" {
		t.Errorf("%s: %v", out, err)
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	d, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const twoTasks = `job: two
tasks:
  - name: a
    command: [sh, -c, "echo from a"]
  - name: b
    command: [sh, -c, "echo trouble >&2; exit 4"]
`

func TestJobsAndTasks(t *testing.T) {
	up(t)
	file := filepath.Join(t.TempDir(), "two.yaml")
	if err := os.WriteFile(file, []byte(twoTasks), 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, exitUsage, "", "--retries is of a command", "submit", file, "--retries", "2")
	want(t, exitUsage, "", "--follow follows one task", "submit", file, "--follow")
	want(t, 1, "", "submitted two.*1 succeeded, 1 failed", "submit", file, "--wait")
	if out, errs, status := gangway(twoTasks, "submit", "-", "--name", "piped"); status != 0 || out != "piped\n" {
		t.Errorf("a file on standard input: %d, %q, %q", status, out, errs)
	}
	if _, errs, status := gangway("job: x\ntsaks: []\n", "submit", "-"); status != exitUsage || !strings.Contains(errs, "standard input:2:1") {
		t.Errorf("a wrong file: %d, %q", status, errs)
	}
	want(t, 1, "piped: 1 succeeded, 1 failed", "", "job", "wait", "piped")

	want(t, 0, "^JOB +STATE +WAITING [^\n]*\n$", "", "job", "list")
	want(t, 0, "two +completed +0 +0 +1 +1 .*piped +completed", "", "job", "list", "--all")
	want(t, 0, "job +two\nstate +completed.*tasks +1 succeeded, 1 failed", "", "job", "show", "two")
	want(t, 0, "a +succeeded +0 .*b +failed +4 ", "", "task", "list", "two")
	want(t, 0, "^TASK[^\n]*\nb +failed[^\n]*\n$", "", "task", "list", "two", "--state", "failed")
	want(t, 0, "^TASK[^\n]*\na [^\n]*\n$", "", "task", "list", "two", "--filter", "id eq 'a'")
	want(t, exitUsage, "", "no property to filter by", "task", "list", "two", "--filter", "foo eq 1")
	want(t, exitUsage, "", "--state .gone. is unknown", "task", "list", "two", "--state", "gone")
	want(t, 0, "task +b\nstate +failed.*exit status +4.*failed: .*status 4.*trouble", "", "task", "show", "two", "b")
	want(t, 0, "^from a\n$", "", "task", "logs", "two", "a")
	want(t, 0, "^trouble\n$", "", "task", "logs", "-f", "--stderr", "two", "b")
	want(t, exitUsage, "", "more than one task", "task", "logs", "two")
	want(t, exitFailed, "", "no task \"c\"", "task", "logs", "two", "c")
	want(t, exitFailed, "", "no task \"c\"", "task", "logs", "-f", "two", "c")
	want(t, 0, "two/b: failed: ", "", "explain", "two")
	want(t, 0, "two/a: it has ended well", "", "explain", "two/a")

	var tasks []struct{ ID, State string }
	if err := json.Unmarshal([]byte(want(t, 0, ".", "", "--json", "task", "list", "two")), &tasks); err != nil || len(tasks) != 2 || tasks[1].ID != "b" || tasks[1].State != "completed" {
		t.Errorf("%v %v", tasks, err)
	}
	var no struct{ Error, Code string }
	_, errs, _ := gangway("", "--json", "job", "show", "nope")
	if err := json.Unmarshal([]byte(errs), &no); err != nil || no.Code != "JobNotFound" {
		t.Errorf("%q: %v", errs, err)
	}
	want(t, exitFailed, "", "two: is being deleted\n.*no job \"nope\"", "job", "delete", "two", "nope")
}

// TestWaiting: what waits says why; drain, disable and cancel do what they say.
func TestWaiting(t *testing.T) {
	up(t)
	want(t, 0, "big", "", "submit", "--name", "big", "--oversubscribe", "-n", "1", "--", "sleep", "300")
	waitFor(t, "big runs", 20*time.Second, func() bool {
		out, _, _ := gangway("", "task", "list", "big")
		return strings.Contains(out, "running")
	})
	node := regexp.MustCompile(`(?m)^(\S+) +running`).FindStringSubmatch(want(t, 0, ".", "", "node", "list"))
	if node == nil {
		t.Fatal("the node does not run")
	}
	want(t, 0, "", "takes no more tasks", "node", "drain", node[1])
	want(t, 0, "draining", "", "node", "list")
	want(t, 0, "late", "", "submit", "--name", "late", "--", "true")
	waitFor(t, "late waits for a reason", 20*time.Second, func() bool {
		out, _, _ := gangway("", "explain", "late")
		return strings.Contains(out, "late/main: waits: ") && strings.Contains(out, node[1])
	})
	want(t, 0, "nodes +1 draining.*jobs +2 active.*tasks +1 waiting, 1 running.*late/main has waited", "", "status")
	want(t, 0, "late/main: waits: ", "", "explain")
	want(t, exitFailed, "", "not ended after 100ms", "job", "wait", "late", "--timeout", "100ms")
	want(t, 0, "", "is being disabled", "job", "disable", "late")
	want(t, 0, "late/main: waits: its job is disabled", "", "explain", "late/main")
	want(t, 0, "", "is enabled", "job", "enable", "late")
	want(t, 0, "", "is being cancelled", "task", "cancel", "big", "main")
	want(t, 0, "", "is drained", "node", "drain", node[1], "--wait", "--timeout", "1m")
	want(t, 0, "drained", "", "node", "show", node[1])
	waitFor(t, "the node's usage is shown", 60*time.Second, func() bool {
		out, _, _ := gangway("", "node", "show", node[1])
		return strings.Contains(out, "memory used") && strings.Contains(out, "network") && strings.Contains(out, "cpu used")
	})
	want(t, exitFailed, "", "already", "node", "drain", node[1])
	want(t, 0, "", "takes tasks again", "node", "resume", node[1])
	want(t, 0, "late: 1 succeeded", "", "job", "wait", "late", "--timeout", "1m")
	want(t, exitFailed, "", "no node \"n9\"", "node", "remove", "n9")
	want(t, 0, "POOL .*default +active +1 ", "", "pool", "list")
	want(t, 0, "pool +default", "", "pool", "show")
}

// TestRestartedLauncher: a wait outlasts the launcher.
func TestRestartedLauncher(t *testing.T) {
	s := up(t)
	fifo := filepath.Join(t.TempDir(), "go")
	want(t, 0, "held", "", "submit", "--name", "held", "--", "sh", "-c", "echo began; while ! test -e "+fifo+"; do sleep 0.05; done; echo ended")
	type result struct {
		out, errs string
		status    int
	}
	followed, waited := make(chan result, 1), make(chan result, 1)
	out := newSyncBuffer()
	go func() {
		a := &app{stdout: out, stderr: newSyncBuffer()}
		root := newRoot(a)
		root.SetArgs([]string{"task", "logs", "-f", "held"})
		err := root.Execute()
		followed <- result{status: report(a.stderr, false, err)}
	}()
	go func() {
		o, e, st := gangway("", "job", "wait", "held", "--timeout", "1m")
		waited <- result{o, e, st}
	}()
	waitFor(t, "output", 20*time.Second, func() bool { return out.String() == "began\n" })
	s.stop()
	s.start()
	if err := os.WriteFile(fifo, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := <-waited; r.status != 0 || r.out != "held: 1 succeeded\n" {
		t.Errorf("%+v", r)
	}
	if r := <-followed; r.status != 0 || out.String() != "began\nended\n" {
		t.Errorf("%+v, %q", r, out.String())
	}
}

// TestRemoteClient: tokens and certificates, and what a role may.
func TestRemoteClient(t *testing.T) {
	s := up(t)
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	token := put("token", want(t, 0, "^gangway_[^\n]*\n$", "of alice .submitter., valid until", "token", "add", "alice", "--role", "submitter", "--for", "1h", "--node-user", taskUser()))
	pem, finger, status := gangway("", "ca")
	if status != 0 {
		t.Fatal(finger)
	}
	ca := put("ca", pem)
	want(t, 0, "mine", "", "submit", "--name", "mine", "--", "true")

	t.Setenv("GANGWAY_LAUNCHER", "https://"+s.listen)
	t.Setenv("GANGWAY_TOKEN_FILE", token)
	want(t, exitUsage, "", "nothing says by what the launcher", "job", "list")
	t.Setenv("GANGWAY_CA", ca)
	want(t, 0, "^over tls\n$", "submitted", "submit", "--wait", "--name", "hers", "-D", "/", "--", "echo", "over tls")
	if out := want(t, 0, "hers", "", "job", "list", "--all"); strings.Contains(out, "mine") {
		t.Errorf("a submitter sees another's job:\n%s", out)
	}
	want(t, exitFailed, "", "no job \"mine\"", "job", "cancel", "mine")
	want(t, exitFailed, "", "needs the role admin", "node", "drain", "x")
	want(t, 0, "hers", "", "job", "list", "--all", "--fingerprint", strings.Fields(finger)[1])
	want(t, exitFailed, "", "not the one with this fingerprint", "job", "list", "--fingerprint", strings.Repeat("00", 32))
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, exitUsage, "", "chmod 600", "job", "list")
	if err := os.Chmod(token, 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Fields(lines(want(t, 0, "alice", "", "token", "list"))[1])[0]
	want(t, 0, "", "is revoked", "token", "revoke", id)
	want(t, exitFailed, "", "does not know this token", "job", "list")
}

func TestSecretsOffline(t *testing.T) {
	t.Setenv("GANGWAY_DATA_DIR", filepath.Join(t.TempDir(), "data"))
	want(t, exitUsage, "", "--role is missing", "token", "add", "bob")
	want(t, exitUsage, "", "is not reader", "token", "add", "bob", "--role", "king")
	want(t, exitFailed, "", "can't be root", "token", "add", "bob", "--role", "submitter", "--node-user", "root")
	secret := strings.TrimSpace(want(t, 0, "^gangway_[^\n]*\n$", "of bob .reader., valid for ever", "token", "add", "bob", "--role", "reader"))
	if out := want(t, 0, "bob +reader", "", "token", "list"); strings.Contains(out, secret) {
		t.Error("the list shows the secret")
	}
	want(t, exitUsage, "", "the token's id is wanted", "token", "revoke", secret)
	want(t, exitFailed, "", "no token has the id", "token", "revoke", "0123456789ab")

	want(t, 0, "^[A-Za-z0-9+/]{86}==\n$", "the key of account batch", "account", "add", "batch", "--role", "admin", "--node-user", "root")
	want(t, exitFailed, "", "exists", "account", "add", "batch", "--role", "admin")
	want(t, 0, `"key": "[A-Za-z0-9+/]{86}=="`, "", "--json", "account", "renew", "batch")
	want(t, 0, "batch +admin +root", "", "account", "list")
	want(t, 0, "", "is revoked", "account", "revoke", "batch")
	want(t, exitFailed, "", "no account is named", "account", "renew", "batch")

	want(t, 0, "^gangway-join_[^\n]*\n$", "for n1, valid until", "join-token", "add", "--node", "n1")
	want(t, 0, "^gangway-join_[^\n]*\n$", "for up to 3 nodes", "join-token", "add", "--uses", "3", "--for", "2h")
	list := want(t, 0, "n1 +0/1 .*any +0/3 ", "", "join-token", "list")
	want(t, 0, "", "is revoked", "join-token", "revoke", strings.Fields(lines(list)[2])[0])
	want(t, 0, "", "is revoked", "node", "revoke", "n1") // its token too
	want(t, exitFailed, "", "no certificate that is valid", "node", "revoke", "n1")
	want(t, exitUsage, "", "--uses 0", "join-token", "add", "--uses", "0")
	want(t, 0, "BEGIN CERTIFICATE.*END CERTIFICATE-----\n$", "^fingerprint [0-9a-f]{64}\n$", "ca")
}

func TestSpan(t *testing.T) {
	for d, text := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 300 * time.Millisecond: "300ms", 9*time.Second + 940*time.Millisecond: "9.9s", 42 * time.Second: "42s",
		time.Hour - time.Millisecond: "1h", 3*time.Minute + 12*time.Second: "3m12s", 2*time.Hour + 5*time.Minute: "2h5m",
		48 * time.Hour: "2d", 53 * time.Hour: "2d5h",
	} {
		if got := span(d); got != text {
			t.Errorf("span(%v) = %s, want %s", d, got, text)
		}
	}
}

func TestStatusOf(t *testing.T) {
	for text, status := range map[string]int{
		`{"executionInfo":{"result":"success","exitCode":0}}`:                                                                               0,
		`{"executionInfo":{"result":"failure","exitCode":7,"failureInfo":{"code":"FailureExitCode"}}}`:                                      7,
		`{"executionInfo":{"result":"failure","exitCode":7,"failureInfo":{"details":[{"name":"GangwayCode","value":"rank"}]}}}`:             7,
		`{"executionInfo":{"result":"failure","failureInfo":{"details":[{"name":"GangwayCode","value":"not-found"}]}}}`:                     exitNotFound,
		`{"executionInfo":{"result":"failure","exitCode":143,"failureInfo":{"details":[{"name":"GangwayCode","value":"time-limit"}]}}}`:     exitTimeLimit,
		`{"executionInfo":{"result":"failure","exitCode":0,"failureInfo":{"details":[{"name":"GangwayCode","value":"rank"}]}}}`:             exitFailed,
		`{"executionInfo":{"result":"failure","failureInfo":{"category":"servererror","details":[{"name":"GangwayCode","value":"node"}]}}}`: exitFailed,
		`{}`: exitFailed,
	} {
		var x client.Task
		if err := json.Unmarshal([]byte(text), &x); err != nil {
			t.Fatal(err)
		}
		if got := statusOf(x); got != status {
			t.Errorf("%s: %d, want %d", text, got, status)
		}
	}
}

// taskUser is a user whom the agents of these tests can run tasks as.
func taskUser() string {
	if name := userOf(auth.Submitter); name != "" {
		return name
	}
	return "nobody"
}
