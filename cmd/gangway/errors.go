package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"gangway/launcher/client"
)

// Exit statuses of gangway itself; an application's own pass through.
const (
	exitOK            = 0
	exitUsage         = 2
	exitFailed        = 125 // gangway could not do it
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal's number
)

// userError is a mistake or a condition that the person at the terminal can do
// something about.
type userError struct {
	msg  string
	hint string
	code int
	err  error
}

func (e *userError) Error() string { return e.msg }
func (e *userError) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	return &userError{msg: fmt.Sprintf(format, args...), hint: hint, code: exitUsage}
}

// statusError carries an exit status for which everything has been said.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// report prints err once, as text or as JSON, and returns the exit status.
func report(w io.Writer, asJSON bool, err error) int {
	var st *statusError
	if err == nil {
		return exitOK
	}
	if errors.As(err, &st) {
		return st.code
	}
	code, hint := exitFailed, ""
	var ue *userError
	if errors.As(err, &ue) {
		code, hint = ue.code, ue.hint
	}
	if asJSON {
		out := map[string]any{"type": "error", "error": err.Error(), "hint": hint, "status": code}
		var no *client.Error
		if errors.As(err, &no) && no.Code != "" {
			out["code"], out["values"] = no.Code, no.Values
		}
		_ = json.NewEncoder(w).Encode(out)
		return code
	}
	fmt.Fprintf(w, "gangway: %s\n", strings.TrimRight(err.Error(), "\n"))
	if hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
	return code
}
