package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Query narrows a list.
type Query struct {
	Filter string // of OData, in Batch's dialect: "state eq 'active'"; "": everything
	Page   int    // entries in one answer, up to 1000; 0: as the launcher likes
}

func (q Query) values() url.Values {
	v := url.Values{}
	if q.Filter != "" {
		v.Set("$filter", q.Filter)
	}
	if q.Page > 0 {
		v.Set("maxresults", strconv.Itoa(q.Page))
	}
	return v
}

// list reads a list page by page. An error ends it.
func list[T any](ctx context.Context, c *Client, path string, q Query) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		values := q.values()
		for {
			var page struct {
				Value []T    `json:"value"`
				Next  string `json:"odata.nextLink"`
			}
			if err := c.call(ctx, http.MethodGet, path, values, nil, &page); err != nil {
				yield(none, err)
				return
			}
			for _, v := range page.Value {
				if !yield(v, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			// Only the link's query is used: its host is as the launcher sees
			// itself, and the token must go nowhere else.
			next, err := url.Parse(page.Next)
			if err != nil || next.Query().Get("$skiptoken") == values.Get("$skiptoken") {
				yield(none, fmt.Errorf("the launcher at %s gave a link to the list's next page that leads nowhere: %q", c.address, page.Next))
				return
			}
			values = next.Query()
		}
	}
}

// All collects a list, up to most entries; 0 is no limit.
func All[T any](seq iter.Seq2[T, error], most int) ([]T, error) {
	out := []T{}
	for v, err := range seq {
		if err != nil {
			return out, err
		}
		out = append(out, v)
		if most > 0 && len(out) == most {
			break
		}
	}
	return out, nil
}
