// Package sweep says what varies between the elements of an array, and fills it
// into their commands. A sweep is the product of its axes; the last one varies
// fastest. It is kept and sent as it was written, and never expanded: an
// element's values follow from its number. Launcher and node read it alike.
package sweep

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Limits of a sweep.
const (
	Limit     = 10_000_000 // elements
	MaxAxes   = 64
	MaxNames  = 256 // columns of all axes together
	MaxName   = 64  // bytes of a name
	MaxChoice = 1 << 20
)

// Sweep is what varies, as JSON. Elements are numbered from 0.
type Sweep struct {
	Axes []Axis `json:"axes,omitempty"`
	// Each are drawn for every element anew, by its number; they do not
	// multiply. Only random columns without a count can be here.
	Each []Column `json:"each,omitempty"`
	// Window is the part of the product that this sweep is; nil: all of it.
	Window *Window `json:"window,omitempty"`
}

// Window is a run of a product's elements.
type Window struct {
	First uint64 `json:"first"`
	Count uint64 `json:"count"`
}

// Axis is a dimension: columns that vary together, all of one length, or, without
// columns, a mere repetition.
type Axis struct {
	Columns []Column `json:"columns,omitempty"`
	Repeat  uint64   `json:"repeat,omitempty"` // length of an axis without columns
	// Size and From are for what Cut leaves: the columns have only the values
	// that are needed, From on, of Size in all; after the last comes the first.
	Size uint64 `json:"size,omitempty"`
	From uint64 `json:"from,omitempty"`
}

// Column is a name with its values: exactly one of Values, Lines, Span and Random.
type Column struct {
	Name   string   `json:"name,omitempty"` // identifier [A-Za-z_][A-Za-z0-9_-]*; "": only {}, {1}, ...
	Values []string `json:"values,omitempty"`
	Lines  string   `json:"lines,omitempty"` // a value a line; a last newline begins no further one
	Span   *Span    `json:"range,omitempty"`
	Random *Random  `json:"random,omitempty"`
}

// Fault is what is wrong with a sweep or a text.
type Fault struct {
	Text  int    // the text's number in Compile, from 0; -1: it is the sweep
	Name  string // of the column, where it is one's
	Place string // for people
	What  string
	Hint  string // what to do; may be ""
}

// Error returns place, fault and hint.
func (f *Fault) Error() string {
	s := f.What
	if f.Place != "" {
		s = f.Place + ": " + s
	}
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	return s
}

func fault(place, name, what, hint string) *Fault {
	return &Fault{Text: -1, Name: name, Place: place, What: what, Hint: hint}
}

// Len is the number of elements, MaxUint64 where there are more than that.
func (s *Sweep) Len() uint64 {
	if s.Window != nil {
		return s.Window.Count
	}
	return s.product()
}

func (s *Sweep) product() uint64 {
	n := uint64(1)
	for i := range s.Axes {
		n = times(n, s.Axes[i].length())
	}
	return n
}

// times multiplies; what overflows is MaxUint64.
func times(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}

// length is how many positions the axis has, of which a cut may hold a part.
func (a *Axis) length() uint64 {
	switch {
	case a.Size > 0:
		return a.Size
	case len(a.Columns) == 0:
		return a.Repeat
	}
	return a.Columns[0].length()
}

// length is how many values the column holds.
func (c *Column) length() uint64 {
	switch {
	case c.Span != nil:
		return c.Span.length()
	case c.Random != nil:
		return c.Random.Count
	case c.Values != nil:
		return uint64(len(c.Values))
	}
	return countLines(c.Lines)
}

func countLines(s string) uint64 {
	n := uint64(strings.Count(s, "\n"))
	if s != "" && s[len(s)-1] != '\n' {
		n++
	}
	return n
}

// Names returns the columns' names in the order of {1}, {2}, ...; "" is one that
// has none.
func (s *Sweep) Names() []string {
	var names []string
	for i := range s.Axes {
		for j := range s.Axes[i].Columns {
			names = append(names, s.Axes[i].Columns[j].Name)
		}
	}
	for i := range s.Each {
		names = append(names, s.Each[i].Name)
	}
	return names
}

// Check says what is wrong with the sweep: the error is a *Fault. What has passed
// has 1 to Limit elements, each of valid UTF-8 values without a zero byte.
func (s *Sweep) Check() error {
	if len(s.Axes)+len(s.Each) == 0 {
		return fault("sweep", "", "nothing varies", "give it an axis, such as i: 1..100")
	}
	if len(s.Axes) > MaxAxes {
		return fault("sweep", "", fmt.Sprintf("%d axes; at most %d are possible", len(s.Axes), MaxAxes), "")
	}
	seen := map[string]bool{}
	for i := range s.Axes {
		if err := s.Axes[i].check(i, seen); err != nil {
			return err
		}
	}
	for i := range s.Each {
		c := &s.Each[i]
		place := c.place(len(seen))
		if err := c.named(place, seen); err != nil {
			return err
		}
		if c.Random == nil || c.Random.Count != 0 || c.Values != nil || c.Lines != "" || c.Span != nil {
			return fault(place, c.Name, "is drawn for each element, which only random values without a count are", "")
		}
		if err := c.Random.check(place, c.Name); err != nil {
			return err
		}
	}
	return s.checkLen()
}

func (s *Sweep) checkLen() error {
	n := s.product()
	if n > Limit {
		return fault("sweep", "", fmt.Sprintf("%s elements; at most %d are possible", s.lengths(n), Limit), "split it into several tasks")
	}
	if w := s.Window; w != nil {
		if w.Count > n || w.First > n-w.Count {
			return fault("sweep", "", fmt.Sprintf("elements %d and %d more of %d", w.First, w.Count, n), "")
		}
		n = w.Count
	}
	if n == 0 {
		return fault("sweep", "", "has no elements", "")
	}
	for i := range s.Axes {
		if a := &s.Axes[i]; a.Size > 0 && !s.holds(i) {
			return fault(fmt.Sprintf("axis %d", i+1), "", "lacks values that its elements need", "")
		}
	}
	return nil
}

// lengths is "1000 × 20000 = 20000000", or without the sum where it overflows.
func (s *Sweep) lengths(n uint64) string {
	var parts []string
	for i := range s.Axes {
		parts = append(parts, fmt.Sprint(s.Axes[i].length()))
	}
	text := strings.Join(parts, " × ")
	if n < math.MaxUint64 && len(parts) > 1 {
		text += fmt.Sprintf(" = %d", n)
	}
	return text
}

func (a *Axis) check(i int, seen map[string]bool) error {
	place := fmt.Sprintf("axis %d", i+1)
	if len(a.Columns) == 0 {
		if a.Size != 0 || a.From != 0 {
			return fault(place, "", "a repetition has no size", "")
		}
		if a.Repeat < 1 || a.Repeat > Limit {
			return fault(place, "", fmt.Sprintf("repeated %d times", a.Repeat), fmt.Sprintf("give a number from 1 to %d", Limit))
		}
		return nil
	}
	if a.Repeat != 0 {
		return fault(place, a.Columns[0].Name, "is repeated", "make the repetition an axis of its own")
	}
	n := a.Columns[0].length()
	for j := range a.Columns {
		c := &a.Columns[j]
		at := c.place(len(seen))
		if err := c.named(at, seen); err != nil {
			return err
		}
		if err := c.check(at); err != nil {
			return err
		}
		if m := c.length(); m != n {
			return fault(at, c.Name, fmt.Sprintf("has %d values, %q, with which it varies, has %d", m, a.Columns[0].Name, n), "give both as many")
		}
	}
	if a.Size > 0 && (a.Size > Limit || n > a.Size || a.From >= a.Size) || a.Size == 0 && a.From != 0 {
		return fault(place, a.Columns[0].Name, fmt.Sprintf("%d values from %d on, of %d", n, a.From, a.Size), "")
	}
	return nil
}

func (c *Column) place(number int) string {
	if c.Name == "" {
		return fmt.Sprintf("values %d", number+1)
	}
	return fmt.Sprintf("sweep %q", c.Name)
}

func (c *Column) named(place string, seen map[string]bool) error {
	if len(seen) == MaxNames {
		return fault(place, c.Name, fmt.Sprintf("more than %d names", MaxNames), "")
	}
	if c.Name == "" {
		seen[fmt.Sprint(len(seen)+1)] = true
		return nil
	}
	if len(c.Name) > MaxName || identifier(c.Name) != len(c.Name) {
		return fault(place, c.Name, "is no name", "begin with a letter or _, go on with letters, digits, _ and -")
	}
	if seen[c.Name] {
		return fault(place, c.Name, "is there twice", "give each its own name")
	}
	seen[c.Name] = true
	return nil
}

func (c *Column) check(place string) error {
	kinds := 0
	for _, is := range []bool{c.Values != nil, c.Lines != "", c.Span != nil, c.Random != nil} {
		if is {
			kinds++
		}
	}
	if kinds > 1 {
		return fault(place, c.Name, "has several sources of values", "leave one")
	}
	if c.Span != nil {
		return c.Span.check(place, c.Name)
	}
	if c.Random != nil {
		if c.Random.Count == 0 {
			return fault(place, c.Name, "draws without a count", "say how many")
		}
		return c.Random.check(place, c.Name)
	}
	if c.length() == 0 {
		return fault(place, c.Name, "has no values", "")
	}
	if c.length() > Limit {
		return fault(place, c.Name, fmt.Sprintf("has more than %d values", Limit), "split it into several tasks")
	}
	if c.Lines != "" {
		return checkLines(place, c.Name, c.Lines)
	}
	return checkValues(place, c.Name, c.Values)
}

func checkLines(place, name, lines string) error {
	if utf8.ValidString(lines) && strings.IndexByte(lines, 0) < 0 {
		return nil
	}
	n := 0
	for line := range strings.SplitSeq(lines, "\n") {
		n++
		if what := badValue(line); what != "" {
			return fault(fmt.Sprintf("%s, line %d", place, n), name, what, "")
		}
	}
	return nil
}

func checkValues(place, name string, values []string) error {
	for i, v := range values {
		if what := badValue(v); what != "" {
			return fault(fmt.Sprintf("%s, value %d", place, i+1), name, what, "")
		}
	}
	return nil
}

func badValue(v string) string {
	if !utf8.ValidString(v) {
		return fmt.Sprintf("%.80q is not UTF-8", v)
	}
	if strings.IndexByte(v, 0) >= 0 {
		return fmt.Sprintf("%.80q has a zero byte, which no argument can hold", v)
	}
	return ""
}

// identifier returns how many bytes of s are an identifier, from its begin.
func identifier(s string) int {
	n := 0
	for n < len(s) {
		b := s[n]
		letter := b == '_' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !letter && (n == 0 || b != '-' && (b < '0' || b > '9')) {
			break
		}
		n++
	}
	return n
}
