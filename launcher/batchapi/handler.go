package batchapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gangway/launcher/job"
)

// Limits of requests.
const (
	maxBody       = 1 << 20 // bytes, as Batch's
	maxCollection = 100     // tasks in one request, as Batch's
	maxPage       = 1000    // entries of a list in one answer, as Batch's
	maxScan       = 2_000   // entries looked at for one page, so that a filter that matches little still answers soon
)

// Config is what New needs.
type Config struct {
	Backend Backend
	Auth    Auth         // nil: only requests with a principal in their context are let in
	Log     *slog.Logger // nil: none
	Version string       // of gangway, for the OpenAPI document
	Account string       // the account's name in resource names; "" is "gangway"

	// Submit adds a whole job as the command line writes it, its tasks
	// included, all or nothing, and returns its id; nil: not offered.
	Submit func(ctx context.Context, who Principal, spec job.Spec) (id string, err error)
	// Preview says what Submit would take and refuse; nil: not offered.
	Preview func(ctx context.Context, who Principal, spec job.Spec) (job.Preview, error)
	// Metrics answers Prometheus; nil: not offered.
	Metrics http.Handler

	// BaseURL is the address that clients reach the API at, without a final
	// slash, for links to pages and objects. "": as each request names it.
	BaseURL string
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Poll is how often a request that waits for a file to grow looks again; 0 is 200 ms.
	Poll time.Duration
}

// New returns the handler of the API. It holds no state of its own.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Poll <= 0 {
		c.Poll = 200 * time.Millisecond
	}
	if c.Account == "" {
		c.Account = "gangway"
	}
	return &server{Config: c, routes: routes()}
}

type server struct {
	Config
	routes []route
	pages  sync.Pool // of *[]byte: a page has a megabyte
}

// buffer lends a buffer for an answer; keep takes it back.
func (s *server) buffer() *[]byte {
	if b, ok := s.pages.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (s *server) keep(b *[]byte) {
	if cap(*b) <= 2*maxPageBytes {
		s.pages.Put(b)
	}
}

// call is one request on its way.
type call struct {
	*http.Request
	w      http.ResponseWriter
	s      *server
	who    Principal
	route  *route
	params map[string]string // of the path, unescaped
	query  url.Values
	id     string // request-id
	sent   []byte // the body; nil: not read yet
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, w: w, s: s, id: newRequestID()}
	h := w.Header()
	h.Set("request-id", c.id)
	h.Set("DataServiceVersion", "3.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if id := r.Header.Get("client-request-id"); id != "" && strings.EqualFold(r.Header.Get("return-client-request-id"), "true") {
		h.Set("client-request-id", id)
	}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.Log.Error("api request crashed", "request", c.id, "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			c.fail(errors.New("crash"))
		}
	}()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// serve finds out who asks before it says anything about what there is.
func (c *call) serve() error {
	who, err := c.s.authenticate(c.Request)
	if err != nil {
		return err
	}
	c.who = who
	c.Request = c.WithContext(WithPrincipal(c.ctx(), who))
	if err := c.find(); err != nil {
		return err
	}
	q, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return newFault(http.StatusBadRequest, "InvalidUri", "The query of the request's address is malformed.", detail{"Reason", err.Error()})
	}
	c.query = q
	if !c.route.ours() {
		if err := c.checkVersion(); err != nil {
			return err
		}
		if err := c.checkQuery(); err != nil {
			return err
		}
	}
	need := c.route.role
	if need == 0 {
		need = Reader
		if c.Method != http.MethodGet && c.Method != http.MethodHead {
			need = Submitter
		}
	}
	if c.who.Role < need {
		return newFault(http.StatusForbidden, "InsufficientAccountPermissions",
			fmt.Sprintf("This operation needs the role %s; %s is %s.", need, c.who.Name, c.who.Role))
	}
	if c.route.handle == nil {
		return newFault(http.StatusNotImplemented, "NotImplemented", c.route.name+": "+c.route.why+".")
	}
	most := int64(maxBody)
	if _, whole := c.route.in.(job.Spec); whole {
		most = maxSubmit
	}
	c.Body = http.MaxBytesReader(c.w, c.Body, most)
	return c.route.handle(c)
}

// find sets the call's route and path parameters.
func (c *call) find() error {
	path, _, _ := strings.Cut(c.rawPath(), "?")
	path = strings.TrimPrefix(path, "/")
	segments := []string{""}
	if path = strings.TrimSuffix(path, "/"); path != "" {
		segments = strings.Split(path, "/")
		for i, s := range segments {
			u, err := url.PathUnescape(s)
			if err != nil || strings.ContainsRune(u, 0) || s == "" || s == "." || s == ".." {
				return newFault(http.StatusBadRequest, "InvalidUri", "The path of the request's address is malformed.")
			}
			segments[i] = u
		}
	}
	var allowed []string
	for i := range c.s.routes {
		r := &c.s.routes[i]
		params, ok := r.match(segments)
		if !ok {
			continue
		}
		if r.method == c.Method {
			c.route, c.params = r, params
			return nil
		}
		if !slices.Contains(allowed, r.method) {
			allowed = append(allowed, r.method)
		}
	}
	if len(allowed) == 0 {
		return newFault(http.StatusNotFound, "ResourceNotFound", "The specified resource does not exist.")
	}
	f := newFault(http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "The resource doesn't support the specified HTTP verb.", detail{"HttpVerb", shorten(c.Method)})
	f.header = http.Header{"Allow": {strings.Join(allowed, ", ")}}
	return f
}

// rawPath returns the path and query as they were sent, since signatures cover them so.
func (c *call) rawPath() string { return sentPath(c.Request) }

func sentPath(r *http.Request) string {
	if u := r.RequestURI; strings.HasPrefix(u, "/") {
		return u
	}
	return r.URL.RequestURI()
}

// fail answers with err. Headers of an answer that was on its way are taken back
// as far as they describe a body.
func (c *call) fail(err error) {
	f := faultOf(err)
	if f.status >= 500 && f.status != http.StatusNotImplemented {
		c.s.Log.Error("api request failed", "request", c.id, "method", c.Method, "path", c.URL.Path, "who", c.who.Name, "err", err)
	} else {
		c.s.Log.Debug("api request refused", "request", c.id, "method", c.Method, "path", c.URL.Path, "who", c.who.Name, "status", f.status, "code", f.code)
	}
	h := c.w.Header()
	for _, k := range []string{"Content-Length", "Content-Type", "Content-Range"} {
		h.Del(k)
	}
	for k, v := range f.header {
		h[k] = v
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	if f.status == http.StatusNotModified {
		c.w.WriteHeader(f.status)
		return
	}
	message := fmt.Sprintf("%s\nRequestId:%s\nTime:%s", f.message, c.id, c.s.Now().UTC().Format(stamp))
	body := errorBody{
		Metadata: c.base() + "/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element",
		Code:     f.code, Message: errorMessage{"en-US", message}, Values: f.values,
	}
	c.write(f.status, body)
}

type errorBody struct {
	Metadata string       `json:"odata.metadata,omitempty"`
	Code     string       `json:"code"`
	Message  errorMessage `json:"message"`
	Values   []detail     `json:"values,omitempty"`
}

type errorMessage struct {
	Lang  string `json:"lang"`
	Value string `json:"value"`
}

// write answers with v as JSON; v == nil is an empty body.
func (c *call) write(status int, v any) {
	h := c.w.Header()
	if v == nil {
		if status != http.StatusNoContent {
			h.Set("Content-Length", "0")
		}
		c.w.WriteHeader(status)
		return
	}
	b, err := encodeJSON(v)
	if err != nil { // only a value of a foreign type can fail
		panic(fmt.Sprintf("batchapi: an answer can't be encoded: %v", err))
	}
	c.send(status, b)
}

// send answers with JSON.
func (c *call) send(status int, b []byte) {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	if c.route.ours() {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(status)
	if c.Method != http.MethodHead {
		_, _ = c.w.Write(b)
	}
}

// encodeJSON leaves < and & as they are: command lines are full of them.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

const contentType = "application/json; odata=minimalmetadata"

// base is the API's address as the client reaches it.
func (c *call) base() string {
	if c.s.BaseURL != "" {
		return c.s.BaseURL
	}
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.Host
}

// link is the address of the object at the given path.
func (c *call) link(segments ...string) string {
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return c.base() + "/" + strings.Join(segments, "/")
}

func (c *call) ctx() context.Context { return c.Context() }

// newRequestID returns a random UUID.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// versions returns the api-versions that are answered: those since the one that
// brought the form of today's tasks and nodes. Batch's are dates, most of them
// with a number of their own.
func versions() []string {
	return []string{
		"2018-12-01.8.0", "2019-06-01.9.0", "2019-08-01.10.0", "2020-03-01.11.0", "2020-09-01.12.0", "2021-06-01.14.0",
		"2022-01-01.15.0", "2022-10-01.16.0", "2023-05-01.17.0", "2023-11-01.18.0", "2024-02-01.19.0", "2024-07-01.20.0", "2025-06-01",
	}
}

func (c *call) checkVersion() error {
	v := c.query.Get("api-version")
	if v == "" {
		return newFault(http.StatusBadRequest, "MissingRequiredQueryParameter", "A query parameter that's mandatory for this request is not specified.",
			detail{"QueryParameterName", "api-version"})
	}
	if all := versions(); !slices.Contains(all, v) {
		return newFault(http.StatusBadRequest, "UnsupportedRequestVersion", "The version of the request is not supported.",
			detail{"QueryParameterName", "api-version"}, detail{"QueryParameterValue", shorten(v)}, detail{"Supported", strings.Join(all, ", ")})
	}
	return nil
}

// checkQuery refuses what a misspelled option would silently lose.
func (c *call) checkQuery() error {
	for k, v := range c.query {
		if len(v) > 1 {
			return badQuery(k, "", "it is given more than once")
		}
		switch k {
		case "$filter", "$select", "maxresults", "$skiptoken":
			if !c.route.list && (k != "$select" || c.Method != http.MethodGet) {
				return newFault(http.StatusBadRequest, "UnsupportedQueryParameter", "One of the query parameters specified in the request URI is not supported.", detail{"QueryParameterName", k})
			}
		case "$expand":
			if v[0] != "" && v[0] != "stats" {
				return badQuery(k, v[0], "only stats can be expanded")
			}
		case "api-version", "timeout", "timeOut", "recursive", "force", "startTime", "startime", "endtime":
		default:
			if strings.HasPrefix(k, "$") {
				return newFault(http.StatusBadRequest, "UnsupportedQueryParameter", "One of the query parameters specified in the request URI is not supported.", detail{"QueryParameterName", shorten(k)})
			}
		}
	}
	return nil
}

func badQuery(name, value, reason string) *fault {
	f := newFault(http.StatusBadRequest, "InvalidQueryParameterValue", "The value for one of the query parameters specified in the request URI is invalid.",
		detail{"QueryParameterName", name})
	if value != "" {
		f.values = append(f.values, detail{"QueryParameterValue", shorten(value)})
	}
	f.values = append(f.values, detail{"Reason", reason})
	return f
}

// flag reads a query parameter that is true or false.
func (c *call) flag(name string) (bool, error) {
	switch v := c.query.Get(name); strings.ToLower(v) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, badQuery(name, v, "it is neither true nor false")
	}
}
