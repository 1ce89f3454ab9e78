package batchapi

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"gangway/launcher/job"
)

// TestSubmitErrorsAreJSONs: what is said of a body names no type of this program.
func TestSubmitErrorsAreJSONs(t *testing.T) {
	for body, want := range map[string]string{
		`{"id":7}`:                         "id (near byte 7): a string is needed, not number",
		`{"id":"j","tasks":{}}`:            "tasks (near byte 19): a list is needed, not object",
		`{"tasks":[{"ranks":"4"}]}`:        "tasks.ranks",
		`{"tasks":[{"ranks":1.5}]}`:        "a whole number within its range is needed, not number 1.5",
		`{"tasks":[7]}`:                    "an object is needed, not number",
		`[]`:                               "the job (near byte 1): an object is needed, not array",
		`{"nodes":4}`:                      `the property "nodes" is unknown`,
		`{"id":`:                           "it ends early",
		``:                                 "empty",
		`{"id":}`:                          "JSON error at byte 7",
		`{"tasks":[{"retention":"soon"}]}`: "a whole number within its range is needed, not string",
	} {
		d := json.NewDecoder(strings.NewReader(body))
		d.DisallowUnknownFields()
		err := d.Decode(new(job.Spec))
		if err == nil {
			t.Fatalf("%s is a job", body)
		}
		got := jsonReason(err)
		if !strings.Contains(got, want) || strings.Contains(got, "Go ") || strings.Contains(got, "Spec") || strings.Contains(got, "json:") {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if got := jsonReason(errors.Join(io.ErrUnexpectedEOF)); !strings.Contains(got, "early") {
		t.Error(got)
	}
}
