package batchapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// stamp is how Batch writes times: UTC with seven decimals.
const stamp = "2006-01-02T15:04:05.0000000Z"

// when is a time as Batch writes it; "" (left out) if t is zero.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(stamp)
}

// etag is the entity tag of a version.
func etag(v Version) string { return fmt.Sprintf(`"0x%X"`, uint64(v)) }

// object sets the headers that describe an object's version.
func (c *call) object(v Version, modified time.Time) {
	h := c.w.Header()
	if v != 0 {
		h.Set("ETag", etag(v))
	}
	if !modified.IsZero() {
		h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
}

// condition holds the request against the object as it is. It returns the
// version to give to the Backend, 0 if the request has no conditions.
func (c *call) condition(v Version, modified time.Time) (Version, error) {
	read := c.Method == http.MethodGet || c.Method == http.MethodHead
	failed := func() (Version, error) {
		if read {
			c.object(v, modified)
		}
		return 0, faultOf(Stale{})
	}
	unchanged := func() (Version, error) {
		if !read {
			return failed()
		}
		c.object(v, modified)
		return 0, &fault{status: http.StatusNotModified, code: "NotModified", message: "The object has not changed."}
	}
	match, none := c.Header.Get("If-Match"), c.Header.Get("If-None-Match")
	since, err := c.headerTime("If-Modified-Since")
	if err != nil {
		return 0, err
	}
	until, err := c.headerTime("If-Unmodified-Since")
	if err != nil {
		return 0, err
	}
	modified = modified.UTC().Truncate(time.Second) // as headers say it
	switch {
	case match != "" && !hasTag(match, v):
		return failed()
	case match == "" && !until.IsZero() && modified.After(until):
		return failed()
	case none != "" && hasTag(none, v):
		return unchanged()
	case none == "" && !since.IsZero() && !modified.After(since):
		return unchanged()
	}
	if match != "" && match != "*" || none != "" || !since.IsZero() || !until.IsZero() {
		return v, nil
	}
	return 0, nil
}

func (c *call) headerTime(name string) (time.Time, error) {
	v := c.Header.Get(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return time.Time{}, badHeader(name, v, "it is not a date as in "+http.TimeFormat)
	}
	return t, nil
}

func badHeader(name, value, reason string) *fault {
	return newFault(http.StatusBadRequest, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.",
		detail{"HeaderName", name}, detail{"HeaderValue", shorten(value)}, detail{"Reason", reason})
}

// hasTag reports whether a list of entity tags names the version. Quotes may be
// missing, as in tags that went through a shell.
func hasTag(list string, v Version) bool {
	if strings.TrimSpace(list) == "*" {
		return true
	}
	want := strings.Trim(etag(v), `"`)
	for _, t := range strings.Split(list, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if strings.Trim(t, `"`) == want {
			return true
		}
	}
	return false
}
