package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/auth"
)

// apiVersion is the version of Batch's API that this package speaks.
const apiVersion = "2024-07-01.20.0"

// maxAnswer bounds an answer, in bytes: a page of 1,000 tasks with long command
// lines fits well.
const maxAnswer = 256 << 20

// Options say where a standing launcher is and who asks.
type Options struct {
	// Address is "unix:PATH", the launcher's socket on this machine, or
	// "https://HOST:PORT".
	Address string
	Token   auth.Secret // bearer token; for https only: on the socket the kernel says who asks
	Trust   auth.Trust  // by what the launcher is known; for https only
}

// Client asks a standing launcher. Its methods may be called at the same time.
// Errors are *[Unreachable] if no launcher answers, *[Error] if it refuses.
type Client struct {
	address string // as given
	base    string
	token   auth.Secret
	http    *http.Client
}

// Dial returns a client of the launcher at o.Address. It checks the options;
// the launcher is connected to with the first request.
func Dial(o Options) (*Client, error) {
	c := &Client{address: o.Address, token: o.Token}
	t := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	t.DialContext = dialer.DialContext
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if path, ok := strings.CutPrefix(o.Address, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return nil, fmt.Errorf("the launcher's address %q has no path: write unix:/path/to/launcher.sock", o.Address)
		}
		c.base, c.token = "http://launcher", auth.Secret{}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		return c, nil
	}
	u, err := url.Parse(o.Address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("the launcher's address %q is neither https://HOST:PORT nor unix:PATH", o.Address)
	}
	c.base = "https://" + u.Host
	if o.Token.Empty() {
		return nil, errors.New("a launcher at an https address wants a token: there is none")
	}
	if t.TLSClientConfig, err = o.Trust.ClientTLS(); err != nil {
		return nil, err
	}
	// One connection carries one request at a time here: HTTP/2 would bring nothing.
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	return c, nil
}

// Address returns the address that the client was given.
func (c *Client) Address() string { return c.address }

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Unreachable is the error when no launcher answers.
type Unreachable struct {
	Address string
	Err     error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("no launcher answers at %s: %v", e.Address, reason(e.Err))
}

func (e *Unreachable) Unwrap() error { return e.Err }

// reason is err without the layers that only repeat the address.
func reason(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	return err
}

// Error is a launcher's refusal: Batch's error body.
type Error struct {
	Status     int    // of HTTP
	Code       string // one word, stable: "JobNotFound"
	Message    string // a sentence or two
	Values     []Value
	RequestID  string        // the launcher's log has it
	RetryAfter time.Duration // 0: no advice
}

// Value is a detail of an Error.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Error words the refusal in one line. What is wrong with a property is said of
// that property.
func (e *Error) Error() string {
	if e.Status == http.StatusUnauthorized || e.Code == "AuthenticationFailed" {
		return "the launcher does not know this token, or it has ended"
	}
	var parts []string
	property := ""
	for _, v := range e.Values {
		switch v.Key {
		case "PropertyName", "QueryParameterName":
			property = v.Value
			if property == "gangway" { // the whole of a task: the reason names it
				property = ""
			}
		case "PropertyValue", "QueryParameterValue":
			property = strings.TrimSpace(property + " " + strconv.Quote(v.Value))
		case "Reason":
			if property != "" {
				property += ": "
			}
			parts = append(parts, property+v.Value)
			property = ""
		}
	}
	id := ""
	for _, v := range e.Values {
		if v.Key == "Id" {
			id = v.Value
		}
	}
	switch kind, missing := strings.CutSuffix(e.Code, "NotFound"); {
	case missing && id != "":
		return fmt.Sprintf("there is no %s %q", strings.ToLower(kind), id)
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case e.Status >= 500 && e.RequestID != "":
		return strings.TrimSuffix(e.Message, ".") + " (request " + e.RequestID + ")"
	case e.Message == "":
		return fmt.Sprintf("the launcher answered with HTTP status %d", e.Status)
	}
	return strings.TrimSuffix(e.Message, ".")
}

// Is reports whether err is a refusal with this code.
func Is(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// refusal reads the answer's error body, in Batch's form or whatever it is.
func refusal(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("request-id")}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n >= 0 && n < 3600 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // half a body says something too
	e.decode(text)
	return e
}

func (e *Error) decode(text []byte) {
	var b struct {
		Code    string `json:"code"`
		Message struct {
			Value string `json:"value"`
		} `json:"message"`
		Values []Value `json:"values"`
	}
	if json.Unmarshal(text, &b) != nil || b.Code == "" {
		line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		e.Message = fmt.Sprintf("the launcher answered with HTTP status %d: %.200q", e.Status, line)
		return
	}
	// The message's last lines are the request's id and the time.
	e.Message, _, _ = strings.Cut(b.Message.Value, "\nRequestId:")
	e.Code, e.Values = b.Code, b.Values
}

// path escapes segments of an address.
func path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// ours is a path of gangway's own part of the API.
func ours(segments ...string) string { return path(append([]string{"gangway", "v1"}, segments...)...) }

// send sends a request and returns an answer that is a success. body nil is none.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("a request to the launcher: %w", err)
		}
		r = bytes.NewReader(b)
	}
	target := c.base + path
	if !strings.HasPrefix(path, "/gangway/") {
		if query == nil {
			query = url.Values{}
		}
		query.Set("api-version", apiVersion)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, r)
	if err != nil {
		return nil, fmt.Errorf("a request to the launcher: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	}
	if !c.token.Empty() {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	resp, err := c.http.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, &Unreachable{c.address, err}
	case resp.StatusCode >= 300:
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

// call sends a request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &Unreachable{c.address, err}
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the launcher at %s answered %s %s with what is no such object: %w", c.address, method, path, err)
	}
	return nil
}
