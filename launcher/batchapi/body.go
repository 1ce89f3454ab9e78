package batchapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// props reads a JSON object property by property, and keeps what is wrong with
// it: names are case-sensitive, wrong types and unknown names are refused. null
// is as good as absent, except to null.
type props struct {
	path string // "" or "constraints."
	m    map[string]json.RawMessage
	seen map[string]bool
	errs *[]*fault
}

func badBody(reason string) *fault {
	return newFault(http.StatusBadRequest, "InvalidRequestBody", "The specified Request Body is not syntactically valid.", detail{"Reason", reason})
}

// body reads the request's body as one object, however often it is asked for it.
// empty says whether none is as good as {}.
func (c *call) body(empty bool) (*props, error) {
	if t := c.Header.Get("Content-Type"); t != "" {
		if m, _, err := mime.ParseMediaType(t); err != nil || m != "application/json" {
			return nil, newFault(http.StatusUnsupportedMediaType, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.",
				detail{"HeaderName", "Content-Type"}, detail{"HeaderValue", shorten(t)}, detail{"Reason", "it must be " + contentType})
		}
	}
	if c.sent == nil {
		b, err := io.ReadAll(c.Body)
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return nil, err
		case err != nil:
			return nil, badBody("it ended early: " + err.Error())
		}
		c.sent = b
	}
	b := c.sent
	if len(bytes.TrimSpace(b)) == 0 && empty {
		b = []byte("{}")
	}
	return readProps(b)
}

// readProps reads one object from b.
func readProps(b []byte) (*props, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	p := &props{seen: map[string]bool{}, errs: new([]*fault)}
	if err := d.Decode(&p.m); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return nil, badBody(fmt.Sprintf("JSON error at byte %d: %s", syntax.Offset, syntax))
		case errors.As(err, &kind):
			return nil, badBody("a JSON object is needed, not " + kind.Value)
		case errors.Is(err, io.EOF):
			return nil, newFault(http.StatusBadRequest, "MissingRequiredProperty", "A required property was not specified in the request body.", detail{"Reason", "the body is empty"})
		}
		return nil, badBody("JSON error: it ends early")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, badBody("there is something after the JSON object")
	}
	if p.m == nil {
		return nil, badBody("a JSON object is needed, not null")
	}
	return p, nil
}

// finish reports unknown properties and returns the first error.
func (p *props) finish() error {
	p.close()
	if len(*p.errs) > 0 {
		return (*p.errs)[0]
	}
	return nil
}

// close reports the properties that no one asked for.
func (p *props) close() {
	if p == nil {
		return
	}
	var unknown []string
	for k := range p.m {
		if !p.seen[k] && !strings.HasPrefix(k, "odata.") {
			unknown = append(unknown, k)
		}
	}
	slices.Sort(unknown)
	for _, k := range unknown {
		p.add(badBody("The property '" + shorten(p.path+k) + "' is unknown"))
	}
}

func (p *props) add(f *fault) { *p.errs = append(*p.errs, f) }

func (p *props) bad(name, value, reason string) { p.add(invalidProperty(p.path+name, value, reason)) }

// raw returns the property's JSON; ok is false if it is absent or null.
func (p *props) raw(name string) (json.RawMessage, bool) {
	if p == nil {
		return nil, false
	}
	p.seen[name] = true
	v, ok := p.m[name]
	return v, ok && string(v) != "null"
}

// has reports whether the property is there, be it null.
func (p *props) has(name string) bool {
	_, ok := p.m[name]
	return ok
}

// read decodes a property of the kind that want names.
func read[T any](p *props, name, want string) (v T, ok bool) {
	raw, ok := p.raw(name)
	if !ok {
		return v, false
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		p.add(badBody(fmt.Sprintf("The property '%s' should be %s, not %s", p.path+name, want, shorten(string(raw)))))
		return v, false
	}
	return v, true
}

// need reports a property that must be there.
func (p *props) need(name string, ok bool) {
	if ok {
		return
	}
	for _, f := range *p.errs {
		if strings.Contains(fmt.Sprint(f.values), p.path+name) {
			return // it is there, but wrong
		}
	}
	p.add(newFault(http.StatusBadRequest, "MissingRequiredProperty", "A required property was not specified in the request body.", detail{"PropertyName", p.path + name}))
}

func (p *props) text(name string, max int) (string, bool) {
	s, ok := read[string](p, name, "a string")
	if ok && len(s) > max {
		p.bad(name, s, fmt.Sprintf("it has %d bytes: allowed is up to %d", len(s), max))
		return "", false
	}
	if strings.ContainsRune(s, 0) {
		p.bad(name, "", "it contains a NUL byte")
		return "", false
	}
	return s, ok
}

func (p *props) number(name string, lo, hi int) (int, bool) {
	raw, ok := p.raw(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		p.add(badBody(fmt.Sprintf("The property '%s' should be a whole number, not %s", p.path+name, shorten(string(raw)))))
		return 0, false
	}
	if err != nil || n < int64(lo) || n > int64(hi) {
		p.bad(name, string(raw), fmt.Sprintf("allowed is %d to %d", lo, hi))
		return 0, false
	}
	return int(n), true
}

func (p *props) enum(name string, allowed ...string) (string, bool) {
	s, ok := read[string](p, name, "a string")
	if !ok {
		return "", false
	}
	for _, a := range allowed {
		if strings.EqualFold(a, s) {
			return a, true
		}
	}
	p.bad(name, s, "allowed are "+strings.Join(allowed, ", "))
	return "", false
}

// duration reads an ISO 8601 duration; none and forever are 0.
func (p *props) duration(name string) time.Duration {
	s, ok := p.text(name, 100)
	if !ok {
		return 0
	}
	d, limited, err := parseDuration(s)
	if err != nil {
		p.bad(name, s, err.Error())
		return 0
	}
	if limited && d < time.Second {
		p.bad(name, s, "it is shorter than a second")
		return 0
	}
	return d
}

// object returns a nested object; nil if it is absent.
func (p *props) object(name string) *props {
	m, ok := read[map[string]json.RawMessage](p, name, "an object")
	if !ok {
		return nil
	}
	return &props{path: p.path + name + ".", m: m, seen: map[string]bool{}, errs: p.errs}
}

// each calls f with every object of a list; it is closed afterwards.
func (p *props) each(name string, max int, f func(*props)) {
	list, ok := read[[]map[string]json.RawMessage](p, name, "a list of objects")
	if !ok {
		return
	}
	if len(list) > max {
		p.bad(name, "", fmt.Sprintf("it has %d entries: allowed is up to %d", len(list), max))
		return
	}
	for i, m := range list {
		path := fmt.Sprintf("%s%s[%d].", p.path, name, i)
		if m == nil {
			p.add(badBody("The property '" + strings.TrimSuffix(path, ".") + "' is null"))
			continue
		}
		o := &props{path: path, m: m, seen: map[string]bool{}, errs: p.errs}
		f(o)
		o.close()
	}
}

// refuse reports properties that gangway does not have, unless they say nothing:
// null, false, {}, [] and "" are as good as absent.
func (p *props) refuse(instead string, names ...string) {
	for _, n := range names {
		raw, ok := p.raw(n)
		if !ok {
			continue
		}
		switch strings.Join(strings.Fields(string(raw)), "") {
		case "false", "{}", "[]", `""`:
			continue
		}
		p.add(notYet(p.path+n, instead))
	}
}

// ignore takes note of properties that may stand there and say nothing.
func (p *props) ignore(names ...string) {
	for _, n := range names {
		p.seen[n] = true
	}
}
