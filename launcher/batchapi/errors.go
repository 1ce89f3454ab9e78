package batchapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"gangway/launcher/job"
)

// Codes of Conflict, as Batch spells them.
const (
	CodeJobExists       = "JobExists"
	CodeJobCompleted    = "JobCompleted"
	CodeJobDisabled     = "JobDisabled"
	CodeJobTerminating  = "JobBeingTerminated"
	CodeJobBeingDeleted = "JobBeingDeleted"
	CodeTaskExists      = "TaskExists"
	CodeTaskCompleted   = "TaskCompleted"
	CodeNodeScheduling  = "NodeAlreadyInTargetSchedulingState"
	CodeWrongState      = "OperationInvalidForCurrentState" // for all else
)

// Kind says what a NotFound looked for; it is the first word of Batch's code.
type Kind string

// The kinds of things that may not be there.
const (
	KindPool Kind = "Pool"
	KindNode Kind = "Node"
	KindJob  Kind = "Job"
	KindTask Kind = "Task"
	KindFile Kind = "File"
	// KindAutopsy is the report on an attempt of a task that failed.
	KindAutopsy Kind = "Autopsy"
)

// NotFound is the error for something that is not there.
type NotFound struct {
	Kind Kind
	ID   string
}

func (e *NotFound) Error() string {
	return fmt.Sprintf("no %s %q", strings.ToLower(string(e.Kind)), e.ID)
}

// Conflict is the error for a request that the object's state does not allow.
type Conflict struct {
	Code    string // as Batch's: one word, stable
	Message string // what to do
}

func (e *Conflict) Error() string { return e.Message }

// Invalid is the error for a value that can't be.
type Invalid struct {
	Property string // as the client wrote it: "constraints.maxTaskRetryCount"
	Value    string // "" if it is too long or secret
	Reason   string
}

func (e *Invalid) Error() string { return e.Property + ": " + e.Reason }

// Stale is the error for a change to a version that is no longer the last.
type Stale struct{}

func (Stale) Error() string { return "the object has changed since it was read; read it again" }

// Unavailable is the error for what can't be done now: a node that is not
// connected, a launcher that is starting.
type Unavailable struct {
	Message    string
	RetryAfter time.Duration // 0: no advice
}

func (e *Unavailable) Error() string { return e.Message }

// fault is an answer other than success, as the client sees it.
type fault struct {
	status     int
	code       string
	message    string
	values     []detail
	retryAfter time.Duration
	header     http.Header
}

type detail struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func newFault(status int, code, message string, values ...detail) *fault {
	return &fault{status: status, code: code, message: message, values: values}
}

// faultOf returns err as the client sees it. Errors of unknown types are
// internal: their text stays in the log.
func faultOf(err error) *fault {
	var (
		f           *fault
		notFound    *NotFound
		conflict    *Conflict
		invalid     *Invalid
		stale       Stale
		unavailable *Unavailable
		problems    job.Problems
		tooLarge    *http.MaxBytesError
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &notFound):
		return newFault(http.StatusNotFound, string(notFound.Kind)+"NotFound",
			"The specified "+strings.ToLower(string(notFound.Kind))+" does not exist.", detail{"Id", notFound.ID})
	case errors.As(err, &conflict):
		return newFault(http.StatusConflict, conflict.Code, conflict.Message)
	case errors.As(err, &invalid):
		return invalidProperty(invalid.Property, invalid.Value, invalid.Reason)
	case errors.As(err, &stale):
		return newFault(http.StatusPreconditionFailed, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
	case errors.As(err, &unavailable):
		f := newFault(http.StatusServiceUnavailable, "ServerBusy", unavailable.Message)
		f.retryAfter = unavailable.RetryAfter
		return f
	case errors.As(err, &problems) && len(problems) > 0:
		f := newFault(http.StatusBadRequest, "InvalidPropertyValue", "The value provided for one of the properties in the request body is invalid.")
		for _, p := range problems {
			f.values = append(f.values, detail{"PropertyName", p.Field}, detail{"Reason", p.Text})
		}
		return f
	case errors.As(err, &tooLarge):
		return newFault(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge",
			"The request body is too large and exceeds the maximum permissible limit.", detail{"MaxLimit", fmt.Sprint(tooLarge.Limit)})
	}
	return newFault(http.StatusInternalServerError, "InternalError", "The server encountered an internal error. The launcher's log has it under this request's id.")
}

func invalidProperty(property, value, reason string) *fault {
	f := newFault(http.StatusBadRequest, "InvalidPropertyValue", "The value provided for one of the properties in the request body is invalid.",
		detail{"PropertyName", property})
	if value != "" {
		f.values = append(f.values, detail{"PropertyValue", shorten(value)})
	}
	f.values = append(f.values, detail{"Reason", reason})
	return f
}

func shorten(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// notYet refuses a property that gangway does not have.
func notYet(property, instead string) *fault {
	f := invalidProperty(property, "", "not supported by this version of gangway"+instead)
	f.code = "UnsupportedProperty"
	f.message = "The property " + property + " is not supported here" + instead + "."
	return f
}

func isNotFound(err error) bool {
	var n *NotFound
	return errors.As(err, &n)
}
