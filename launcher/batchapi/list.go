package batchapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// lister says how a list of T is read, filtered and shown.
type lister[T any] struct {
	set    string // last part of odata.metadata
	fields fields[T]
	// fetch returns up to limit entries after a cursor ("": from the start); fewer
	// is the end.
	fetch  func(after string, limit int, filter node) ([]T, error)
	cursor func(*T) string
	render func(*T) any
	write  func([]byte, *T) []byte // appends what render's answer is as JSON; nil: there is no faster way
	shown  []string                // properties that $select may name; nil: $select is not allowed
	check  func() error            // whether render went well; nil: it can't fail
}

type listBody struct {
	Metadata string `json:"odata.metadata,omitempty"`
	Value    []any  `json:"value"`
	Next     string `json:"odata.nextLink,omitempty"`
}

// maxPageBytes bounds the JSON of a page's entries, except that the first one is
// always there: command lines may be long.
const maxPageBytes = 4 << 20

// writeList answers with one page. A page may be short, even empty, and still
// have a next one: so much was looked at, or to be sent, that the rest goes into
// another request.
func writeList[T any](c *call, l lister[T]) error {
	limit := maxPage
	if v := c.query.Get("maxresults"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxPage {
			f := badQuery("maxresults", v, "allowed is 1 to 1000")
			f.code = "OutOfRangeQueryParameterValue"
			return f
		}
		limit = n
	}
	after := ""
	if v := c.query.Get("$skiptoken"); v != "" {
		b, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil || len(b) == 0 {
			return badQuery("$skiptoken", v, "it is none that this launcher gave out")
		}
		after = string(b)
	}
	keep := func(*T) bool { return true }
	var filter node
	if v := c.query.Get("$filter"); strings.TrimSpace(v) != "" {
		if l.fields == nil {
			return badQuery("$filter", v, "this list can't be filtered")
		}
		var err error
		if filter, err = parseFilter(v); err == nil {
			keep, err = l.fields.compile(filter)
		}
		if err != nil {
			return badQuery("$filter", v, err.Error())
		}
	}
	only, err := c.selection(l.shown)
	if err != nil {
		return err
	}
	entry := func(b []byte, t *T) ([]byte, error) {
		if l.write != nil && only == nil {
			return l.write(b, t), nil
		}
		e, err := encodeJSON(pick(l.render(t), only))
		return append(b, e...), err
	}
	spare := c.s.buffer()
	defer func() { c.s.keep(spare) }()
	b := appendString(append((*spare)[:0], `{"odata.metadata":`...), c.base()+"/$metadata#"+l.set)
	b = append(b, `,"value":[`...)
	next := ""
	for count, scanned := 0, 0; ; {
		want := limit - count
		if filter.op != "" {
			want = maxPage
		}
		page, err := l.fetch(after, want, filter)
		if err != nil {
			return err
		}
		full := false
		for i := range page {
			if keep(&page[i]) {
				mark := len(b)
				if count > 0 {
					b = append(b, ',')
				}
				if b, err = entry(b, &page[i]); err != nil {
					return err
				}
				if full = count > 0 && len(b) > maxPageBytes; full {
					b = b[:mark]
					break
				}
				count++
			}
			after = l.cursor(&page[i])
			if full = count == limit; full {
				break
			}
		}
		scanned += len(page)
		if full || len(page) == want && scanned >= maxScan {
			next = c.nextLink(after)
			break
		}
		if len(page) < want {
			break
		}
		if err := c.ctx().Err(); err != nil {
			return err
		}
	}
	if l.check != nil {
		if err := l.check(); err != nil {
			return err
		}
	}
	b = append(b, ']')
	b = appendText(b, `,"odata.nextLink":`, next)
	b = append(b, '}')
	*spare = b
	c.send(http.StatusOK, b)
	return nil
}

// nextLink is the request's own address with another place to go on from.
func (c *call) nextLink(after string) string {
	path, _, _ := strings.Cut(c.rawPath(), "?")
	q := url.Values{}
	for k, v := range c.query {
		q[k] = v
	}
	q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(after)))
	return c.base() + path + "?" + q.Encode()
}

// selects reports whether $select names the path.
func (c *call) selects(path string) bool {
	for _, s := range strings.Split(c.query.Get("$select"), ",") {
		if strings.TrimSpace(s) == path {
			return true
		}
	}
	return false
}

// selection reads $select; nil is everything. A path a/b selects a.
func (c *call) selection(shown []string) ([]string, error) {
	v := c.query.Get("$select")
	if strings.TrimSpace(v) == "" || strings.TrimSpace(v) == "*" {
		return nil, nil
	}
	if shown == nil {
		return nil, badQuery("$select", v, "this answer can't be cut down")
	}
	var only []string
	for _, s := range strings.Split(v, ",") {
		s, _, _ = strings.Cut(strings.TrimSpace(s), "/")
		if !slices.Contains(shown, s) {
			return nil, badQuery("$select", v, strconv.Quote(s)+" is no property: there are "+strings.Join(shown, ", "))
		}
		only = append(only, s)
	}
	return only, nil
}

// pick returns v with only the named properties.
func pick(v any, only []string) any {
	if only == nil {
		return v
	}
	b, err := encodeJSON(v)
	if err != nil {
		return v // write will say so
	}
	var all, some map[string]json.RawMessage
	if json.Unmarshal(b, &all) != nil {
		return v
	}
	some = map[string]json.RawMessage{}
	for _, k := range only {
		if p, ok := all[k]; ok {
			some[k] = p
		}
	}
	return some
}

// entity answers with one object.
func (c *call) entity(set string, v any, shown []string) error {
	only, err := c.selection(shown)
	if err != nil {
		return err
	}
	b, err := encodeJSON(pick(v, only))
	if err != nil {
		return err
	}
	meta, err := encodeJSON(c.base() + "/$metadata#" + set + "/@Element")
	if err != nil {
		return err
	}
	head := append([]byte(`{"odata.metadata":`), meta...)
	if len(b) > 2 { // not {}
		head = append(head, ',')
	}
	c.write(http.StatusOK, json.RawMessage(append(head, b[1:]...)))
	return nil
}

// slicePage is a fetch over all entries, which it sorts by id.
func slicePage[T any](all []T, id func(*T) string) func(string, int, node) ([]T, error) {
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(id(&a), id(&b)) })
	return func(after string, limit int, _ node) ([]T, error) {
		i, found := 0, false
		if after != "" {
			i, found = slices.BinarySearchFunc(all, after, func(t T, s string) int { return strings.Compare(id(&t), s) })
			if found {
				i++
			}
		}
		return all[i:min(i+limit, len(all))], nil
	}
}
