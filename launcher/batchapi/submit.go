package batchapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

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
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	var spec job.Spec
	if err := d.Decode(&spec); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return newFault(http.StatusBadRequest, "InvalidRequestBody", "The specified request body is not syntactically valid.", detail{"Reason", err.Error()})
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return newFault(http.StatusBadRequest, "InvalidRequestBody", "The specified request body is not syntactically valid.", detail{"Reason", "something follows the job"})
	}
	id, err := c.s.Submit(c.Context(), c.who, spec)
	if err != nil {
		return err
	}
	c.write(http.StatusCreated, submitBody{ID: id})
	return nil
}

func (c *call) metrics() error {
	if c.s.Metrics == nil {
		return newFault(http.StatusNotImplemented, "NotImplemented", "This launcher has no metrics.")
	}
	c.s.Metrics.ServeHTTP(c.w, c.Request)
	return nil
}
