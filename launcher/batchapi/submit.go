package batchapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"gangway/launcher/job"
)

// submitBody answers a submission.
type submitBody struct {
	ID string `json:"id"`
}

// submit takes a job as package job has it. Who owns it, and whom it runs as, is
// the principal's to say and not the body's.
func (c *call) submit() error {
	if c.s.Submit == nil {
		return newFault(http.StatusNotImplemented, "NotImplemented", "This launcher takes no jobs in this way.")
	}
	spec, err := c.jobBody()
	if err != nil {
		return err
	}
	id, err := c.s.Submit(c.Context(), c.who, spec)
	if err != nil {
		return err
	}
	c.write(http.StatusCreated, submitBody{ID: id})
	return nil
}

// jobBody reads a job as package job has it.
func (c *call) jobBody() (spec job.Spec, err error) {
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return spec, err
		}
		return spec, newFault(http.StatusBadRequest, "InvalidRequestBody", "The specified request body is not syntactically valid.", detail{"Reason", jsonReason(err)})
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return spec, newFault(http.StatusBadRequest, "InvalidRequestBody", "The specified request body is not syntactically valid.", detail{"Reason", "something follows the job"})
	}
	return spec, nil
}

// jsonReason says what is wrong with a body in JSON's words: encoding/json words it by
// the types of this program.
func jsonReason(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("JSON error at byte %d: %s", syntax.Offset, syntax)
	case errors.As(err, &kind):
		want := "another value"
		switch kind.Type.Kind() {
		case reflect.String:
			want = "a string"
		case reflect.Bool:
			want = "true or false"
		case reflect.Slice, reflect.Array:
			want = "a list"
			if kind.Type.Elem().Kind() == reflect.Uint8 {
				want = "a string in base64"
			}
		case reflect.Struct, reflect.Map:
			want = "an object"
		case reflect.Float32, reflect.Float64:
			want = "a number"
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			want = "a whole number within its range"
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			want = "a whole number within its range, not negative"
		}
		where := "the job"
		if kind.Field != "" {
			where = kind.Field
		}
		return fmt.Sprintf("%s (near byte %d): %s is needed, not %s", where, kind.Offset, want, kind.Value)
	case errors.Is(err, io.EOF):
		return "the body is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "JSON error: it ends early"
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "the property " + field + " is unknown"
	}
	return "JSON error: a value can't be read: " + strings.TrimPrefix(err.Error(), "json: ")
}

func (c *call) metrics() error {
	if c.s.Metrics == nil {
		return newFault(http.StatusNotImplemented, "NotImplemented", "This launcher has no metrics.")
	}
	c.s.Metrics.ServeHTTP(c.w, c.Request)
	return nil
}
