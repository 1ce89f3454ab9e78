package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/auth"
)

// asked returns a client of a server that answers with h.
func asked(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := Dial(Options{Address: "unix:/unused"})
	if err != nil {
		t.Fatal(err)
	}
	c.base = s.URL
	c.http = s.Client()
	return c
}

func TestDial(t *testing.T) {
	token := auth.NewSecret("gangway_x")
	finger := auth.Trust{Fingerprint: strings.Repeat("ab:", 31) + "ab"}
	for name, c := range map[string]struct {
		o    Options
		want string // part of the error; "": none
	}{
		"socket":         {Options{Address: "unix:/run/x.sock"}, ""},
		"socket, as URL": {Options{Address: "unix:///run/x.sock"}, ""},
		"no path":        {Options{Address: "unix:"}, "no path"},
		"plain http":     {Options{Address: "http://h:1", Token: token, Trust: finger}, "neither"},
		"nothing":        {Options{}, "neither"},
		"a path":         {Options{Address: "https://h:1/x", Token: token, Trust: finger}, "neither"},
		"a password":     {Options{Address: "https://u:p@h:1", Token: token, Trust: finger}, "neither"},
		"no token":       {Options{Address: "https://h:1", Trust: finger}, "wants a token"},
		"no trust":       {Options{Address: "https://h:1", Token: token}, "nothing to know the launcher by"},
		"short print":    {Options{Address: "https://h:1", Token: token, Trust: auth.Trust{Fingerprint: "abcd"}}, "64 hexadecimal digits"},
		"no certificate": {Options{Address: "https://h:1", Token: token, Trust: auth.Trust{CA: []byte("x")}}, "no certificate"},
		"https":          {Options{Address: "https://h:1/", Token: token, Trust: finger}, ""},
	} {
		_, err := Dial(c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	c, err := Dial(Options{Address: "unix:" + t.TempDir() + "/none.sock"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Job(context.Background(), "x")
	var away *Unreachable
	if !errors.As(err, &away) || !strings.Contains(err.Error(), "no launcher answers at unix:") || strings.Contains(err.Error(), "http://") {
		t.Errorf("%v", err)
	}
	// Nobody who was there is waited for.
	if _, _, err := c.WaitJob(context.Background(), "x", nil); !errors.As(err, &away) {
		t.Errorf("%v", err)
	}
}

func TestListFollowsPages(t *testing.T) {
	var queries []string
	c := asked(t, func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.Query().Get("$skiptoken")+" "+r.URL.Query().Get("$filter")+" "+r.URL.Query().Get("api-version"))
		switch r.URL.Query().Get("$skiptoken") {
		case "":
			// The link's host is the launcher's name for itself; only its query counts.
			fmt.Fprint(w, `{"value":[{"id":"a"},{"id":"b"}],"odata.nextLink":"https://elsewhere.example/jobs?$filter=f&$skiptoken=2&api-version=`+apiVersion+`"}`)
		case "2":
			fmt.Fprint(w, `{"value":[],"odata.nextLink":"http://launcher/jobs?$filter=f&$skiptoken=3&api-version=`+apiVersion+`"}`)
		default:
			fmt.Fprint(w, `{"value":[{"id":"c","extra":1}]}`)
		}
	})
	jobs, err := All(c.Jobs(context.Background(), Query{Filter: "f"}), 0)
	if err != nil || len(jobs) != 3 || jobs[2].ID != "c" {
		t.Fatalf("%+v, %v", jobs, err)
	}
	if b, err := json.Marshal(jobs[2]); err != nil || string(b) != `{"id":"c","extra":1}` {
		t.Errorf("encoded again: %s, %v", b, err)
	}
	if d := cmp.Diff([]string{" f " + apiVersion, "2 f " + apiVersion, "3 f " + apiVersion}, queries); d != "" {
		t.Error(d)
	}
	queries = nil
	if first, err := All(c.Jobs(context.Background(), Query{}), 1); err != nil || len(first) != 1 || len(queries) != 1 {
		t.Errorf("%v, %v after %d requests", first, err, len(queries))
	}
}

func TestListThatLoops(t *testing.T) {
	c := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"value":[],"odata.nextLink":"http://launcher/jobs?$skiptoken=1"}`)
	})
	if _, err := All(c.Jobs(context.Background(), Query{}), 0); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
		t.Errorf("%v", err)
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
		code   string
	}{
		"not found": {404, `{"code":"JobNotFound","message":{"lang":"en-US","value":"The specified job does not exist.\nRequestId:1\nTime:2"},"values":[{"key":"Id","value":"x"}]}`,
			`there is no job "x"`, "JobNotFound"},
		"conflict": {409, `{"code":"JobCompleted","message":{"value":"it has ended.\nRequestId:1\nTime:2"}}`, "it has ended", "JobCompleted"},
		"property": {400, `{"code":"InvalidPropertyValue","message":{"value":"The value is invalid."},"values":[{"key":"PropertyName","value":"tasks[0].ranks"},{"key":"PropertyValue","value":"0"},{"key":"Reason","value":"from 1"}]}`,
			`tasks[0].ranks "0": from 1`, "InvalidPropertyValue"},
		"the whole": {400, `{"code":"InvalidPropertyValue","message":{"value":"x"},"values":[{"key":"PropertyName","value":"gangway"},{"key":"Reason","value":"it never fits"}]}`,
			"it never fits", "InvalidPropertyValue"},
		"a stranger": {401, `{"code":"InvalidAuthenticationInfo","message":{"value":"Server failed to authenticate the request."}}`, "the launcher does not know this token, or it has ended", "InvalidAuthenticationInfo"},
		"no body":    {502, "", `the launcher answered with HTTP status 502: ""`, ""},
		"no JSON":    {404, "<html>\x1b[31m\n</html>", `the launcher answered with HTTP status 404: "<html>\x1b[31m"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl := asked(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			_, err := cl.Job(context.Background(), "x")
			var no *Error
			if !errors.As(err, &no) || err.Error() != c.want || no.Code != c.code || no.Status != c.status || no.RetryAfter != 3*time.Second {
				t.Errorf("%v, %+v", err, no)
			}
		})
	}
}

// TestFollow: output comes in pieces; before the task has files, and while its
// node can't be asked, there is none.
func TestFollow(t *testing.T) {
	waits := 0
	requests := 0
	c := asked(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		fail := func(status int, code string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"code":%q,"message":{"value":"x"}}`, code)
		}
		switch requests {
		case 1:
			fail(409, "TaskFilesUnavailable")
		case 2:
			fail(503, "ServerBusy")
		case 3:
			fmt.Fprint(w, "hello ")
		case 4:
			if r.URL.Query().Get("offset") != "6" {
				t.Errorf("offset %s", r.URL.Query().Get("offset"))
			}
			fail(404, "FileNotFound") // gone for a moment, as when it is tried again
		case 5:
			fmt.Fprint(w, `{"id":"t","state":"running"}`)
		default:
			w.Header().Set("Gangway-Done", "true")
			fmt.Fprint(w, "world")
		}
	})
	var b strings.Builder
	if err := c.Follow(context.Background(), "j", "t", Stdout, &b, func() { waits++ }); err != nil || b.String() != "hello world" || waits != 1 {
		t.Errorf("%q, %v, waited %d times", b.String(), err, waits)
	}
}

// gang answers for a task on nodes that wrote these files.
func gang(t *testing.T, texts ...string) *Client {
	return asked(t, func(w http.ResponseWriter, r *http.Request) {
		i, _ := strconv.Atoi(r.URL.Query().Get("instance"))
		off, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		if !strings.Contains(r.URL.Path, "/files/") {
			fmt.Fprint(w, `{"id":"t","state":"completed"}`)
			return
		}
		switch text := texts[i]; text {
		case "lost":
			w.WriteHeader(503)
			fmt.Fprint(w, `{"code":"ServerBusy","message":{"value":"n3 can't be asked"}}`)
		case "none":
			w.WriteHeader(404)
			fmt.Fprint(w, `{"code":"FileNotFound","message":{"value":"x"}}`)
		default:
			// A few bytes at a time: lines come in pieces.
			end := min(len(text), off+3)
			w.Header().Set("Gangway-Instances", strconv.Itoa(len(texts)))
			w.Header().Set("Gangway-Done", strconv.FormatBool(end == len(text)))
			fmt.Fprint(w, text[off:end])
		}
	})
}

// TestOutputOfGang: what the ranks of every node wrote is there, in whole lines.
func TestOutputOfGang(t *testing.T) {
	many := make([]string, fewNodes+2)
	for i := range many {
		many[i] = fmt.Sprintf("node %d\nend %d\n", i, i)
	}
	for name, c := range map[string]struct {
		texts []string
		want  []string // lines, sorted
		err   string
	}{
		"one":     {[]string{"a\nb"}, []string{"a", "b"}, ""},
		"several": {[]string{"rank 0 here\n", "rank 1 here\nrank 2 here\n", "", "no end", "none"}, []string{"no end", "rank 0 here", "rank 1 here", "rank 2 here"}, ""},
		"lost":    {[]string{"rank 0\n", "lost", "rank 2\n"}, []string{"rank 0", "rank 2"}, "node 2: n3 can't be asked"},
		"many":    {many, strings.Fields(strings.ReplaceAll(strings.Join(many, ""), " ", "_")), ""},
	} {
		for how, get := range map[string]func(*Client, io.Writer) error{
			"copy":   func(c *Client, w io.Writer) error { return c.Copy(context.Background(), "j", "t", Stdout, w) },
			"follow": func(c *Client, w io.Writer) error { return c.Follow(context.Background(), "j", "t", Stdout, w, nil) },
		} {
			var b strings.Builder
			err := get(gang(t, c.texts...), &b)
			got := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if name == "many" {
				for i := range got {
					got[i] = strings.ReplaceAll(got[i], " ", "_")
				}
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s, %s: %s", how, name, d)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s, %s: %v", how, name, err)
			}
		}
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	c := asked(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "taskcounts") {
			fmt.Fprint(w, `{"taskCounts":{"active":1}}`)
			return
		}
		fmt.Fprint(w, `{"id":"j","state":"active"}`)
	})
	looks := 0
	_, _, err := c.WaitJob(ctx, "j", func(Job, Counts) {
		if looks++; looks == 2 {
			cancel(why)
		}
	})
	if !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestMetrics(t *testing.T) {
	m, err := parseMetrics(strings.NewReader(`# HELP gangway_cores Cores.
# TYPE gangway_cores gauge
gangway_cores 4
gangway_nodes{state="up"} 2
gangway_nodes{state="lost",why="a \"b\"\n\\ {}"} 1 1700000000000
gangway_build_info{version="1.2",} 1
gangway_odd +Inf
broken{ 1
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Metrics{
		{"gangway_cores", map[string]string{}, 4}, {"gangway_nodes", map[string]string{"state": "up"}, 2},
		{"gangway_nodes", map[string]string{"state": "lost", "why": "a \"b\"\n\\ {}"}, 1}, {"gangway_build_info", map[string]string{"version": "1.2"}, 1},
	}
	if d := cmp.Diff(want, m[:4]); d != "" || len(m) != 5 {
		t.Error(d, len(m))
	}
	if m.Value("gangway_nodes") != 3 || m.By("gangway_nodes", "state")["lost"] != 1 || m.Label("gangway_build_info", "version") != "1.2" {
		t.Error(m)
	}
}

func FuzzMetric(f *testing.F) {
	for _, s := range []string{"a 1", `a{b="c"} 2`, `a{b="c",d="\"e\\"} NaN 17`, "# x", `a{`, `a{b="`, `a{b="c"`, `{} 1`, "a{}", `a{="x"} 1`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMetric(line); ok && m.Name == "" {
			t.Errorf("%q: a sample without a name", line)
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	for _, s := range []string{"", "null", `{"code":"X","message":{"value":"y"}}`, `{"code":"XNotFound","values":[{"key":"Id","value":"z"}]}`,
		`{"code":"X","values":[{"key":"PropertyName","value":"p"},{"key":"Reason","value":"r"}]}`, "<html>", "{\"code\":1}"} {
		f.Add(400, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := &Error{Status: status}
		e.decode(body)
		if e.Code == "" && e.Error() == "" {
			t.Errorf("%q says nothing", body)
		}
	})
}
