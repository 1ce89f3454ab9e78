package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const version = "api-version=2024-07-01.20.0"

// list adds a job, lets the fleet run it, and lists its tasks.
func list(ctx context.Context, l *launcher, tasks int) error {
	job := map[string]any{"id": "many", "poolInfo": map[string]any{"poolId": "default"}}
	if _, err := l.ask(ctx, http.MethodPost, "/jobs?"+version, job, nil); err != nil {
		return err
	}
	begin, cpu := time.Now(), l.cpu()
	for lo := 0; lo < tasks; lo += 100 {
		var all []any
		for i := lo; i < min(lo+100, tasks); i++ {
			all = append(all, map[string]any{"id": fmt.Sprintf("t%05d", i), "commandLine": "/bin/true"})
		}
		if _, err := l.ask(ctx, http.MethodPost, "/jobs/many/addtaskcollection?"+version, map[string]any{"value": all}, nil); err != nil {
			return err
		}
	}
	row("adding the tasks, 100 a call", seconds(time.Since(begin)))
	if err := l.wait(ctx, 5*time.Minute, func() (bool, error) {
		n, err := l.gauge(ctx, `gangway_task_elements{state="succeeded"}`)
		if err != nil {
			return false, err
		}
		bad, err := l.gauge(ctx, `gangway_task_elements{state="failed"}`)
		return int(n+bad) == tasks, err
	}); err != nil {
		return fmt.Errorf("running the tasks: %w", err)
	}
	row("from the first add to the last task's end", seconds(time.Since(begin)))
	row("processor's time of the launcher for that", seconds(l.cpu()-cpu))
	row("launcher then, resident", mib(l.rss()))
	filters := []string{"", "state eq 'completed'", "executionInfo/result eq 'failure'", "startswith(id,'t0')"}
	for i, filter := range filters {
		if err := pages(ctx, l, filter, i == 0); err != nil {
			return err
		}
	}
	const up = `gangway_nodes{state="up"}`
	nodes, err := l.gauge(ctx, up)
	if err != nil {
		return err
	}
	at := time.Now()
	l.kill()
	if err := l.start(ctx); err != nil {
		return err
	}
	row("restart with these tasks, until it answers", seconds(time.Since(at)))
	// What has ended is not in memory now, but for what was read ahead while the
	// nodes came back, which is not a page's to pay for.
	if err := l.wait(ctx, 2*time.Minute, func() (bool, error) {
		n, err := l.gauge(ctx, up)
		return n == nodes, err
	}); err != nil {
		return err
	}
	return pages(ctx, l, "", true)
}

// page is the cost of one page.
type page struct{ took, cpu time.Duration }

func (p page) String() string { return fmt.Sprintf("%s (processor's time %s)", ms(p.took), ms(p.cpu)) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// pages lists the job's tasks a few times and tells the times of its pages, until
// the last byte is here. first: nobody has listed them before, and the first
// round is told apart.
func pages(ctx context.Context, l *launcher, filter string, first bool) error {
	const rounds = 5
	what := "`" + filter + "`"
	if filter == "" {
		what = "no filter"
	}
	var all []page
	count, each := 0, 0
	for round := range rounds {
		next := "/jobs/many/tasks?maxresults=1000&" + version
		if filter != "" {
			next += "&$filter=" + url.QueryEscape(filter)
		}
		for count = 0; next != ""; {
			cpu, at := l.cpu(), time.Now()
			b, err := l.ask(ctx, http.MethodGet, next, nil, nil)
			if err != nil {
				return err
			}
			all = append(all, page{time.Since(at), l.cpu() - cpu})
			var list struct {
				Value []struct {
					ID string `json:"id"`
				} `json:"value"`
				Next string `json:"odata.nextLink"`
			}
			if err := json.Unmarshal(b, &list); err != nil {
				return err
			}
			count += len(list.Value)
			next = ""
			if u, err := url.Parse(list.Next); err == nil && list.Next != "" {
				next = strings.TrimPrefix(u.RequestURI(), "http://launcher")
			}
		}
		if round == 0 {
			each = len(all)
		}
	}
	what = fmt.Sprintf("pages of 1,000 tasks, %s: %d tasks in %d pages", what, count, each)
	if first {
		row(what+", the first listing", figures(all[:each]))
		what, all = what+", listed again", all[each:]
	}
	row(what, figures(all))
	return nil
}

// figures sorts pages and sums them up.
func figures(all []page) string {
	slices.SortFunc(all, func(a, b page) int { return cmp.Compare(a.took, b.took) })
	return fmt.Sprintf("median %s, 95th percentile %s, slowest %s", all[len(all)/2], all[len(all)*95/100], all[len(all)-1])
}
