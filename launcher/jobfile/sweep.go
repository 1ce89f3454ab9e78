package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
	"gangway/topology/yamltree"
)

// reach finds what a sweep takes from files. Both are nil where no files can be
// read.
type reach interface {
	// lines returns at most n bytes of a file.
	lines(path string, n int64) ([]byte, error)
	// files returns the absolute paths of the files that match, sorted; those in
	// a folder, if the pattern names one.
	files(pattern string) ([]string, error)
}

// dirReach is reach from a job file's directory.
type dirReach string

func (dir dirReach) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(string(dir), path)
}

func (dir dirReach) lines(path string, n int64) ([]byte, error) { return readAtMost(dir.abs(path), n) }

func (dir dirReach) files(pattern string) ([]string, error) {
	whole := dir.abs(pattern)
	folder, err := os.Stat(whole)
	hidden := strings.HasPrefix(filepath.Base(whole), ".")
	if err == nil && folder.IsDir() {
		whole, hidden = filepath.Join(escapeGlob(whole), "*"), false
	}
	found, err := filepath.Glob(whole)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range found {
		if !hidden && strings.HasPrefix(filepath.Base(f), ".") {
			continue // as a shell has it
		}
		if info, err := os.Stat(f); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if f, err = filepath.Abs(f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	slices.Sort(out)
	return out, nil
}

// escapeGlob takes a path's characters for themselves.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// hasSweep reports whether the defaults or a task have a sweep.
func hasSweep(defaults, tasks *yamltree.Node) bool {
	has := func(n *yamltree.Node) bool { return n.Get("sweep") != nil }
	return has(defaults) || slices.ContainsFunc(tasks.List(), has)
}

// bare reads {name} and {} without quotes, which YAML takes for mappings.
func (d *decoder) bare(n *yamltree.Node) (string, bool) {
	if !d.sweeps || n.Kind != yamltree.Mapping || len(n.Pairs) > 1 {
		return "", false
	}
	if len(n.Pairs) == 0 {
		return "{}", true
	}
	s := "{" + n.Pairs[0].Key + "}"
	d.spend(len(s))
	return s, n.Pairs[0].Value.Kind == yamltree.Null && sweep.HasPlaceholder(s)
}

// vary takes a value with placeholders for a field that is no text; false when it
// is none.
func (d *decoder) vary(t *task, field string, n *yamltree.Node) bool {
	delete(t.spec.Vary, field) // of the defaults
	if !d.sweeps || !job.CanVary(field) {
		return false
	}
	s := n.Text
	if n.Kind != yamltree.Scalar {
		var ok bool
		if s, ok = d.bare(n); !ok {
			return false
		}
	}
	if !sweep.HasPlaceholder(s) {
		return false
	}
	d.spend(len(s) + 32)
	if t.spec.Vary == nil {
		t.spec.Vary = map[string]string{}
	}
	t.spec.Vary[field] = s
	return true
}

// titled reports whether a key names the elements, or the task beside them.
func (d *decoder) titled(t *task, p yamltree.Pair) bool {
	return p.Key == "id" && t.spec.Title != "" || p.Key == "name" && d.sweeps && sweep.HasPlaceholder(p.Value.Text)
}

// setName reads a task's name: with placeholders it is its elements', and the
// task's is what is left without them.
func setName(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil || !d.sweeps || !sweep.HasPlaceholder(s) {
		t.spec.ID = s
		return err
	}
	t.spec.Title = s
	if t.spec.ID == "" {
		t.spec.ID = plainName(s)
	}
	return nil
}

// plainName makes an id of a name with placeholders.
func plainName(s string) string {
	var b strings.Builder
	for _, r := range sweep.Bare(s) {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	id := b.String()
	if id = strings.Trim(id[:min(len(id), job.MaxID)], "-_"); id == "" {
		return "sweep"
	}
	return id
}

// title refuses names with placeholders where there is no sweep.
func (d *decoder) title(t *task) {
	if t.spec.Title != "" && t.spec.Sweep == nil {
		d.bad(t.places["id"], "give the task a sweep:, or take the braces out", "name: %s has a placeholder, but the task has no sweep", quote(t.spec.Title))
		t.faults++
	}
}

const sweepHint = "write names with their values, such as {diameter: [0.05, 0.1], i: 1..100}"

// setSweep reads what varies: a mapping of names to values, or a list of them.
func setSweep(d *decoder, t *task, n *yamltree.Node) error {
	parts := []*yamltree.Node{n}
	if n.Kind == yamltree.Sequence {
		parts = n.Items
	}
	s := &sweep.Sweep{}
	places := map[string]yamltree.Place{}
	for _, part := range parts {
		if part.Kind != yamltree.Mapping || len(part.Pairs) == 0 {
			return valueError{what: "must say what varies", hint: sweepHint, at: part.At}
		}
		for _, p := range part.Pairs {
			var err error
			places[p.Key] = p.Value.At
			switch p.Key {
			case "zip":
				err = d.zip(s, p.Value, places)
			case "repeat":
				var times int
				if err = number(&times)(d, nil, p.Value); err == nil && times < 1 {
					err = valueError{what: fmt.Sprintf("%d is out of range", times), hint: "write a number from 1"}
				}
				s.Axes = append(s.Axes, sweep.Axis{Repeat: uint64(max(times, 0))})
			default:
				var c sweep.Column
				c, err = d.column(p.Key, p.Value)
				if r := c.Random; r != nil && r.Count == 0 {
					s.Each = append(s.Each, c)
				} else {
					s.Axes = append(s.Axes, sweep.Axis{Columns: []sweep.Column{c}})
				}
			}
			if err != nil {
				return at(err, p.Key, p.Value.At)
			}
		}
	}
	var f *sweep.Fault
	if err := s.Check(); errors.As(err, &f) {
		what := f.What
		if f.Place != "" && f.Place != "sweep" {
			what = f.Place + ": " + what
		}
		return valueError{what: what, hint: f.Hint, at: places[f.Name]}
	}
	t.spec.Sweep = s
	return nil
}

// at names the part of a value that an error is of, and its place if it has none.
func at(err error, key string, place yamltree.Place) error {
	var v valueError
	if !errors.As(err, &v) {
		v = valueError{what: err.Error()}
	}
	if v.what = key + ": " + v.what; v.at == (yamltree.Place{}) {
		v.at = place
	}
	return v
}

// zip reads columns that vary together.
func (d *decoder) zip(s *sweep.Sweep, n *yamltree.Node, places map[string]yamltree.Place) error {
	if n.Kind != yamltree.Mapping || len(n.Pairs) == 0 {
		return valueError{what: "must be names with values that vary together", hint: "write {a: [1, 2], b: [x, y]}"}
	}
	var a sweep.Axis
	for _, p := range n.Pairs {
		places[p.Key] = p.Value.At
		c, err := d.column(p.Key, p.Value)
		if err != nil {
			return at(err, p.Key, p.Value.At)
		}
		a.Columns = append(a.Columns, c)
	}
	s.Axes = append(s.Axes, a)
	return nil
}

const columnHint = "write a list such as [0.05, 0.1], a range such as 1..100 or 0..1/0.1, or one of {from:, to:}, {files:}, {lines:}, {random:}"

// column reads a name's values.
func (d *decoder) column(name string, n *yamltree.Node) (sweep.Column, error) {
	c := sweep.Column{Name: name}
	switch n.Kind {
	case yamltree.Sequence:
		c.Values = make([]string, 0, len(n.Items))
		for _, item := range n.Items {
			s, err := d.text(item)
			if err != nil {
				return c, at(err, fmt.Sprintf("value %d", len(c.Values)+1), item.At)
			}
			c.Values = append(c.Values, s)
		}
		return c, nil
	case yamltree.Scalar:
		var ok bool
		if c.Span, ok = parseSpan(n.Text); !ok {
			return c, valueError{what: quote(n.Text) + " is no range", hint: columnHint}
		}
		d.spend(len(n.Text))
		return c, nil
	case yamltree.Mapping:
		return c, d.source(&c, n)
	}
	return c, valueError{what: "there are no values", hint: columnHint}
}

// parseSpan reads FROM..TO, and after a slash the step.
func parseSpan(s string) (*sweep.Span, bool) {
	ends, step, stepped := strings.Cut(s, "/")
	from, to, ok := strings.Cut(ends, "..")
	if !ok || from == "" || to == "" || stepped && step == "" {
		return nil, false
	}
	return &sweep.Span{From: strings.TrimSpace(from), To: strings.TrimSpace(to), Step: strings.TrimSpace(step)}, true
}

// source reads a mapping that says where values come from.
func (d *decoder) source(c *sweep.Column, n *yamltree.Node) error {
	if n.Get("random") != nil {
		return d.random(c, n)
	}
	if n.Get("from") != nil || n.Get("to") != nil {
		return d.span(c, n)
	}
	if len(n.Pairs) != 1 {
		return valueError{what: "is no source of values", hint: columnHint}
	}
	p := n.Pairs[0]
	s, err := d.text(p.Value)
	if err != nil {
		return at(err, p.Key, p.Value.At)
	}
	switch p.Key {
	case "files":
		err = d.filesOf(c, s)
	case "lines":
		err = d.linesOf(c, s)
	case "text":
		if c.Lines = s; s == "" {
			err = valueError{what: "has no lines"}
		}
	default:
		return valueError{what: quote(p.Key) + " has no meaning here", hint: columnHint, at: p.At}
	}
	if err != nil {
		return at(err, p.Key, p.Value.At)
	}
	return nil
}

func (d *decoder) span(c *sweep.Column, n *yamltree.Node) error {
	s := &sweep.Span{}
	for _, p := range n.Pairs {
		v, err := d.text(p.Value)
		if err != nil {
			return at(err, p.Key, p.Value.At)
		}
		switch p.Key {
		case "from":
			s.From = v
		case "to":
			s.To = v
		case "step":
			s.Step = v
		case "count", "log":
			count, err := parseInt(v)
			if err != nil || count < 1 {
				return valueError{what: p.Key + ": " + quote(v) + " is no number of values", hint: "write a number from 1", at: p.Value.At}
			}
			if s.Count > 0 {
				return valueError{what: "count and log say both how many values there are", hint: "keep one", at: p.At}
			}
			s.Count, s.Log = uint64(count), p.Key == "log"
		default:
			return valueError{what: quote(p.Key) + " has no meaning here", hint: "known are from, to, and one of step, count and log", at: p.At}
		}
	}
	c.Span = s
	return nil
}

const noFiles = "files can't be read here"

func (d *decoder) filesOf(c *sweep.Column, pattern string) error {
	if d.reach == nil {
		return valueError{what: noFiles, hint: "list the files, as in [a.csv, b.csv]"}
	}
	found, err := d.reach.files(pattern)
	switch {
	case err != nil:
		return valueError{what: err.Error(), hint: `* and ? stand for characters of a name, as in "data/*.csv"`}
	case len(found) == 0:
		return valueError{what: quote(pattern) + " matches no file", hint: "paths are relative to the job file's directory"}
	}
	newline := false
	for _, f := range found {
		d.spend(len(f) + 1)
		if !utf8.ValidString(f) {
			return valueError{what: fmt.Sprintf("the name %q is not UTF-8", f), hint: "rename the file"}
		}
		newline = newline || strings.ContainsRune(f, '\n')
	}
	if newline {
		c.Values = found
	} else {
		c.Lines = strings.Join(found, "\n")
	}
	return nil
}

func (d *decoder) linesOf(c *sweep.Column, path string) error {
	if d.reach == nil {
		return valueError{what: noFiles, hint: "list the lines, as in [a, b]"}
	}
	b, err := d.reach.lines(path, maxValues+1)
	if err != nil {
		return valueError{what: err.Error(), hint: "paths are relative to the job file's directory"}
	}
	d.spend(len(b))
	b = bytes.TrimPrefix(b, []byte("\uFEFF"))
	var out strings.Builder
	n := 0
	for line := range bytes.Lines(b) {
		n++
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		switch {
		case len(line) == 0:
			continue
		case !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0:
			return valueError{what: fmt.Sprintf("%s, line %d: %.80q is not a line of UTF-8 text", path, n, line), hint: "save the file as UTF-8"}
		case out.Len() > 0:
			out.WriteByte('\n')
		}
		out.Write(line)
	}
	if c.Lines = out.String(); c.Lines == "" {
		return valueError{what: quote(path) + " has no lines", hint: "write a value a line"}
	}
	return nil
}

const randomHint = "write {random: {uniform: [0, 1]}, seed: 1}; there are uniform and integer [low, high], normal and lognormal [mean, sd], exponential [mean], choice [a, b] or {a: weight, b: weight}"

func (d *decoder) random(c *sweep.Column, n *yamltree.Node) error {
	r := &sweep.Random{}
	for _, p := range n.Pairs {
		if p.Key == "random" {
			if p.Value.Kind != yamltree.Mapping || len(p.Value.Pairs) != 1 {
				return valueError{what: "random: must name a distribution", hint: randomHint, at: p.Value.At}
			}
			if err := d.draw(r, p.Value.Pairs[0]); err != nil {
				return at(err, "random", p.Value.At)
			}
			continue
		}
		s, err := d.text(p.Value)
		if err != nil {
			return at(err, p.Key, p.Value.At)
		}
		v, err := strconv.ParseUint(s, 10, 64)
		switch {
		case p.Key == "seed" && err == nil:
			r.Seed = v
		case p.Key == "count" && err == nil && v > 0:
			r.Count = v
		case p.Key == "seed" || p.Key == "count":
			return valueError{what: p.Key + ": " + quote(s) + " is no whole number", hint: "write a number such as 42", at: p.Value.At}
		default:
			return valueError{what: quote(p.Key) + " has no meaning here", hint: "known are random, seed and count", at: p.At}
		}
	}
	c.Random = r
	return nil
}

// draw reads a distribution with its parameters.
func (d *decoder) draw(r *sweep.Random, p yamltree.Pair) error {
	r.Draw = sweep.Draw(p.Key)
	var fields []*float64
	switch r.Draw {
	case sweep.Choice:
		return d.choice(r, p.Value)
	case sweep.Uniform, sweep.Integer:
		fields = []*float64{&r.Low, &r.High}
	case sweep.Normal, sweep.Lognormal:
		fields = []*float64{&r.Mean, &r.SD}
	case sweep.Exponential:
		fields = []*float64{&r.Mean}
	default:
		return valueError{what: quote(p.Key) + " is no distribution", hint: randomHint, at: p.At}
	}
	items := p.Value.Items
	if p.Value.Kind == yamltree.Scalar {
		items = []*yamltree.Node{p.Value}
	}
	if len(items) != len(fields) {
		return valueError{what: fmt.Sprintf("%s: has %d parameters, not %d", p.Key, len(items), len(fields)), hint: randomHint, at: p.Value.At}
	}
	for i, item := range items {
		if err := d.float(fields[i], item); err != nil {
			return at(err, p.Key, item.At)
		}
	}
	return nil
}

func (d *decoder) float(x *float64, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	if *x, err = strconv.ParseFloat(s, 64); err != nil {
		return valueError{what: quote(s) + " is no number", at: n.At}
	}
	return nil
}

func (d *decoder) choice(r *sweep.Random, n *yamltree.Node) error {
	for _, item := range n.Items {
		s, err := d.text(item)
		if err != nil {
			return at(err, "choice", item.At)
		}
		r.Values = append(r.Values, s)
	}
	for _, p := range n.Pairs {
		d.spend(len(p.Key) + 16)
		var w float64
		if err := d.float(&w, p.Value); err != nil {
			return at(err, "choice", p.Value.At)
		}
		r.Values, r.Weights = append(r.Values, p.Key), append(r.Weights, w)
	}
	return nil
}
