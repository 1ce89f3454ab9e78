package main

import (
	"context"
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
	for _, filter := range []string{"", "state eq 'completed'", "executionInfo/result eq 'failure'", "startswith(id,'t0')"} {
		what := "`" + filter + "`"
		if filter == "" {
			what = "no filter"
		}
		if err := pages(ctx, l, what, filter); err != nil {
			return err
		}
	}
	at := time.Now()
	l.kill()
	if err := l.start(ctx); err != nil {
		return err
	}
	row("restart with these tasks, until it answers", seconds(time.Since(at)))
	return nil
}

// pages lists the job's tasks a few times and tells the times of its pages.
func pages(ctx context.Context, l *launcher, what, filter string) error {
	const rounds = 5
	var took []float64
	count, cpu := 0, l.cpu()
	for range rounds {
		next := "/jobs/many/tasks?maxresults=1000&" + version
		if filter != "" {
			next += "&$filter=" + url.QueryEscape(filter)
		}
		for count = 0; next != ""; {
			var page struct {
				Value []struct {
					ID string `json:"id"`
				} `json:"value"`
				Next string `json:"odata.nextLink"`
			}
			at := time.Now()
			if _, err := l.ask(ctx, http.MethodGet, next, nil, &page); err != nil {
				return err
			}
			took = append(took, float64(time.Since(at).Microseconds())/1000)
			count += len(page.Value)
			next = ""
			if u, err := url.Parse(page.Next); err == nil && page.Next != "" {
				next = strings.TrimPrefix(u.RequestURI(), "http://launcher")
			}
		}
	}
	slices.Sort(took)
	row(fmt.Sprintf("pages of 1,000 tasks, %s: %d tasks in %d pages", what, count, len(took)/rounds),
		fmt.Sprintf("median %.0f ms, at most %.0f ms, processor's time %.0f ms a page", took[len(took)/2], took[len(took)-1],
			float64((l.cpu()-cpu).Milliseconds())/float64(len(took))))
	return nil
}
