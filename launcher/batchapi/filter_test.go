package batchapi

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gangway/launcher/job"
)

func TestFilter(t *testing.T) {
	exit := 3
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	task := Task{ID: "it's", State: job.TaskCompleted, Times: Times{Created: at}, Run: Run{Node: "n1", Exit: &exit, Ended: at}}
	for filter, want := range map[string]bool{
		"id eq 'it''s'": true, "'it''s' eq id": true, "id ne 'x'": true, "startswith(id,'it')": true, "startswith( id , 'x' )": false,
		"startswith(id,'it') eq true": true, "startswith(id,'it') eq false": false, "not startswith(id,'it')": false,
		"state eq 'completed'": true, "state ne 'completed'": false, "not (state eq 'active')": true, "not not (state eq 'active')": false,
		"executionInfo/exitCode eq 3": true, "executionInfo/exitCode gt 3": false, "executionInfo/exitCode ge 3": true, "2 lt executionInfo/exitCode": true,
		"executionInfo/exitCode eq -1": false, "executionInfo/exitCode le 3.0": true, "executionInfo/exitCode ne null": true, "executionInfo/exitCode eq null": false,
		"creationTime ge DateTime'2026-11-23T09:00:00Z'": true, "creationTime gt datetime'2026-11-23T09:00:00'": false, "creationTime lt 2026-11-23T10:00:00+01:00": false,
		"creationTime le 2026-11-24": true, "executionInfo/startTime eq null": true, "executionInfo/startTime lt 2030-01-01": false, "executionInfo/startTime ne 2030-01-01": true,
		"executionInfo/result eq 'failure' and nodeInfo/nodeId eq 'n1'": true, "id eq 'a' or id eq 'b' or id eq 'it''s'": true,
		"id eq 'it''s' or id eq 'b' and id eq 'c'": true, "(id eq 'it''s' or id eq 'b') and id eq 'c'": false, "\tid\neq 'it''s' ": true,
		"displayName eq null": true, "executionInfo/failureInfo/code eq 'FailureExitCode'": true,
	} {
		n, err := parseFilter(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		keep, err := taskFields().compile(n)
		if err != nil || keep(&task) != want {
			t.Errorf("%s: want %t, %v", filter, want, err)
		}
	}
	for filter, word := range map[string]string{
		"": "ends where", "id": "eq, ne", "id eq": "a value", "id eq x": "a value", "id eq 'x": "not closed", "id = 'x'": "eq, ne", "(id eq 'x'": "')'",
		"id eq 'x')": "after a complete", "id eq 'x' and": "ends where", "and id eq 'x'": "eq, ne", "id eq 'x' id eq 'y'": "after a complete",
		"Id eq 'x'": "no property", "id eq 5": "a string", "state gt 'active'": "only be compared", "state eq 'Active'": "is one of", "id gt null": "null can only",
		"executionInfo/exitCode eq 'x'": "a number", "creationTime eq 'x'": "a time", "creationTime eq DateTime'x'": "is not a time", "endswith(id,'x')": "no function",
		"startswith(creationTime,'x')": "no text", "startswith(id,5)": "a string in quotes", "startswith(id 'x')": "','", "id eq 5x": "neither", "not": "ends where",
		"\xff": "UTF-8", strings.Repeat("(", 100) + "id eq 'x'": "deeper", strings.Repeat("not ", 100) + "id eq 'x'": "deeper", strings.Repeat("x", 9000): "longer",
		"executionInfo/exitCode eq 0x10": "neither", "executionInfo/exitCode eq Infinity": "a value",
	} {
		n, err := parseFilter(filter)
		if err == nil {
			_, err = taskFields().compile(n)
		}
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%.40q: %v, want %q", filter, err, word)
		}
	}
	for filter, want := range map[string]string{
		"state eq 'active'": "active", "state eq 'active' and id eq 'x'": "active", "(state eq 'active' or state eq 'running') and id eq 'x'": "active running",
		"state eq 'active' or id eq 'x'": "", "not (state eq 'active')": "", "state ne 'active'": "", "id eq 'x'": "",
	} {
		n, err := parseFilter(filter)
		if got := strings.Join(n.oneOf("state"), " "); got != want || err != nil {
			t.Errorf("%s: states %q, want %q, %v", filter, got, want, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"id eq 'x'", "not (state eq 'active') and startswith(id,'a''b')", "creationTime gt DateTime'2026-11-23T09:00:00Z'", "executionInfo/exitCode ge -1.5L or id ne null", "((((", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseFilter(s)
		if err != nil {
			if e, ok := err.(*filterError); !ok || e.at < 0 || e.at > len(s) || e.text == "" || utf8.ValidString(s) && !utf8.ValidString(e.text) {
				t.Errorf("%q: %#v", s, err)
			}
			return
		}
		keep, err := taskFields().compile(n)
		if err == nil {
			keep(&Task{ID: "x"})
		}
		_ = n.oneOf("state")
	})
}

// FuzzTask: no body makes the conversion panic, and what it accepts is valid, is
// shown again, and can be sent back as it is.
func FuzzTask(f *testing.F) {
	for _, s := range []string{
		`{"id":"x","commandLine":"/bin/sh -c \"echo hi\""}`,
		`{"id":"x","commandLine":"a","multiInstanceSettings":{"numberOfInstances":2,"coordinationCommandLine":"true"},"gangway":{"mpi":"auto","setup":"module load x"}}`,
		`{"id":"x","commandLine":"a","constraints":{"maxWallClockTime":"PT1H","retentionTime":"P1D","maxTaskRetryCount":-1},"requiredSlots":2,"environmentSettings":[{"name":"GANGWAY_ARRAY","value":"9"}]}`,
		`{"id":null}`, `{`, `{"gangway":{"killGrace":"PT5S","memPerRank":1e3}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readProps(b)
		if err != nil {
			faultOf(err)
			return
		}
		s, err := readTask(p, Job{})
		if err != nil {
			if x := faultOf(err); x.status != 400 {
				t.Errorf("%s: %v", b, err)
			}
			return
		}
		if err := job.Validate(job.Spec{ID: "j", Tasks: []job.TaskSpec{s}}); err != nil {
			t.Errorf("%s: accepted, but %v", b, err)
		}
		if shown := bodyOf(s); len(s.API) == 0 || shown.CommandLine == "" {
			t.Errorf("%s: shown as %+v", b, shown)
		}
		p, err = readProps(append([]byte(`{"id":"`+s.ID+`",`), s.API[1:]...))
		if err == nil {
			_, err = readTask(p, Job{})
		}
		if err != nil {
			t.Errorf("%s: shown as %s, which is refused: %v", b, s.API, err)
		}
	})
}
