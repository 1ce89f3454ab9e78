package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// encode prints v as JSON.
func (a *app) encode(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows in columns; header is their names, separated by blanks.
func (a *app) table(header string, rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	row(w, strings.Fields(header))
	for _, r := range rows {
		row(w, r)
	}
	return w.Flush()
}

func row(w io.Writer, cells []string) {
	for i, c := range cells {
		c = printable(c)
		if c == "" {
			c = "-"
		}
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// facts prints pairs of a name and a value, without those that say nothing.
func (a *app) facts(pairs ...string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], printable(pairs[i+1]))
		}
	}
	return w.Flush()
}

// printable is text of others with what controls a terminal shown as such.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return '\ufffd'
		}
		return r
	}, s)
}

// shorten cuts a text to n characters.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// span writes a duration as people do, with two units at most: "3m12s", "2d4h".
func span(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	n := int64((d + time.Second/2) / time.Second)
	for _, u := range []struct {
		size, part int64
		name, sub  string
	}{{86400, 3600, "d", "h"}, {3600, 60, "h", "m"}, {60, 1, "m", "s"}} {
		if n < u.size {
			continue
		}
		if rest := n % u.size / u.part; rest > 0 {
			return fmt.Sprintf("%d%s%d%s", n/u.size, u.name, rest, u.sub)
		}
		return fmt.Sprintf("%d%s", n/u.size, u.name)
	}
	return fmt.Sprintf("%ds", n)
}

// ago is how long a time is past; "" of none.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t))
}

// moment is a time in full, local, with how far it is away; "" of none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	text := t.Local().Format("2006-01-02 15:04:05 MST")
	if d := time.Until(t); d > time.Second {
		return text + " (in " + span(d) + ")"
	}
	return text + " (" + ago(t) + " ago)"
}

// lasted is from start to end, or to now; "" of what has not started.
func lasted(start, end time.Time) string {
	switch {
	case start.IsZero():
		return ""
	case end.IsZero():
		return ago(start)
	}
	if d := end.Sub(start); d >= 0 && d < time.Second { // as job show's times of small tasks
		return secs(d.Seconds())
	}
	return span(end.Sub(start))
}
