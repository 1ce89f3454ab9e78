package jobfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

// name writes what a task and its elements are called.
func (w *writer) name(t job.TaskSpec) {
	if t.Title == "" {
		w.line("  - name: %s", text(t.ID))
		return
	}
	w.line("  - name: %s", quoted(t.Title))
	w.key("id", text(t.ID))
}

// varyGang reports whether what varies makes a task a gang.
func varyGang(t job.TaskSpec) bool {
	return slices.ContainsFunc(taskKeys(), func(k taskKey) bool {
		_, ok := t.Vary[k.field()]
		return ok && k.gang
	})
}

// sweep writes what varies, as a list, since a mapping can have a key but once.
func (w *writer) sweep(t job.TaskSpec) {
	for _, k := range slices.Sorted(maps.Keys(t.Vary)) {
		w.key(keyOf(k), quoted(t.Vary[k]))
	}
	if t.Sweep == nil {
		return
	}
	w.line("    sweep:")
	for _, a := range t.Sweep.Axes {
		switch len(a.Columns) {
		case 0:
			w.line("      - repeat: %d", a.Repeat)
		case 1:
			w.line("      - %s: %s", quoted(a.Columns[0].Name), column(&a.Columns[0]))
		default:
			var parts []string
			for i := range a.Columns {
				parts = append(parts, quoted(a.Columns[i].Name)+": "+column(&a.Columns[i]))
			}
			w.line("      - zip: {%s}", strings.Join(parts, ", "))
		}
	}
	for i := range t.Sweep.Each {
		w.line("      - %s: %s", quoted(t.Sweep.Each[i].Name), column(&t.Sweep.Each[i]))
	}
}

func column(c *sweep.Column) string {
	switch {
	case c.Span != nil:
		s := fmt.Sprintf("{from: %s, to: %s", quoted(c.Span.From), quoted(c.Span.To))
		switch {
		case c.Span.Log:
			s += fmt.Sprintf(", log: %d", c.Span.Count)
		case c.Span.Count > 0:
			s += fmt.Sprintf(", count: %d", c.Span.Count)
		case c.Span.Step != "":
			s += ", step: " + quoted(c.Span.Step)
		}
		return s + "}"
	case c.Random != nil:
		return random(c.Random)
	case c.Values != nil:
		return list(c.Values)
	}
	return "{text: " + quoted(c.Lines) + "}"
}

func list(values []string) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = quoted(v)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func random(r *sweep.Random) string {
	float := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	var what string
	switch r.Draw {
	case sweep.Uniform, sweep.Integer:
		what = float(r.Low) + ", " + float(r.High)
	case sweep.Normal, sweep.Lognormal:
		what = float(r.Mean) + ", " + float(r.SD)
	case sweep.Exponential:
		what = float(r.Mean)
	}
	what = "[" + what + "]"
	if r.Draw == sweep.Choice {
		what = list(r.Values)
		if r.Weights != nil {
			pairs := make([]string, min(len(r.Values), len(r.Weights)))
			for i := range pairs {
				pairs[i] = quoted(r.Values[i]) + ": " + float(r.Weights[i])
			}
			what = "{" + strings.Join(pairs, ", ") + "}"
		}
	}
	s := fmt.Sprintf("{random: {%s: %s}", r.Draw, what)
	if r.Seed != 0 {
		s += fmt.Sprintf(", seed: %d", r.Seed)
	}
	if r.Count != 0 {
		s += fmt.Sprintf(", count: %d", r.Count)
	}
	return s + "}"
}
