package batchapi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// field is a property that a list can be filtered by. Exactly one getter is set;
// its second result says whether the object has the property.
type field[T any] struct {
	text   func(*T) (string, bool)
	enum   []string // what text may be; nil: anything
	number func(*T) (float64, bool)
	time   func(*T) time.Time // zero: has it not
	flag   func(*T) bool
}

type fields[T any] map[string]field[T]

// compile turns a parsed filter into a test, or says what is wrong with it.
func (f fields[T]) compile(n node) (func(*T) bool, error) {
	switch n.op {
	case "and", "or", "not":
		kids := make([]func(*T) bool, len(n.kids))
		for i, k := range n.kids {
			var err error
			if kids[i], err = f.compile(k); err != nil {
				return nil, err
			}
		}
		switch n.op {
		case "not":
			return func(t *T) bool { return !kids[0](t) }, nil
		case "and":
			return func(t *T) bool {
				return !slices.ContainsFunc(kids, func(k func(*T) bool) bool { return !k(t) })
			}, nil
		}
		return func(t *T) bool { return slices.ContainsFunc(kids, func(k func(*T) bool) bool { return k(t) }) }, nil
	}
	g, ok := f[n.field]
	if !ok {
		names := make([]string, 0, len(f))
		for k := range f {
			names = append(names, k)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("%q is no property to filter by: there are %s", n.field, strings.Join(names, ", "))
	}
	if n.value.kind == litNull {
		return g.null(n)
	}
	return g.compare(n)
}

// null compiles a comparison with null: eq and ne ask whether the property is there.
func (g field[T]) null(n node) (func(*T) bool, error) {
	if n.op != "eq" && n.op != "ne" {
		return nil, fmt.Errorf("%s: null can only be compared by eq and ne", n.field)
	}
	there := func(t *T) bool {
		ok := true
		switch {
		case g.text != nil:
			_, ok = g.text(t)
		case g.number != nil:
			_, ok = g.number(t)
		case g.time != nil:
			ok = !g.time(t).IsZero()
		}
		return ok
	}
	return func(t *T) bool { return there(t) == (n.op == "ne") }, nil
}

func (g field[T]) compare(n node) (func(*T) bool, error) {
	wrong := func(want string) error { return fmt.Errorf("%s is compared with %s", n.field, want) }
	v := n.value
	switch {
	case g.text != nil:
		if v.kind != litString {
			return nil, wrong("a string in quotes")
		}
		if n.op == "startswith" {
			return func(t *T) bool { s, ok := g.text(t); return ok && strings.HasPrefix(s, v.s) }, nil
		}
		if g.enum != nil {
			if n.op != "eq" && n.op != "ne" {
				return nil, fmt.Errorf("%s can only be compared by eq and ne", n.field)
			}
			if !slices.Contains(g.enum, v.s) {
				return nil, fmt.Errorf("%s is never %q: it is one of %s", n.field, v.s, strings.Join(g.enum, ", "))
			}
		}
		return ordered(n.op, func(t *T) (int, bool) { s, ok := g.text(t); return cmp.Compare(s, v.s), ok }), nil
	case n.op == "startswith":
		return nil, fmt.Errorf("%s is no text: startswith needs one", n.field)
	case g.number != nil:
		if v.kind != litNumber {
			return nil, wrong("a number")
		}
		return ordered(n.op, func(t *T) (int, bool) { x, ok := g.number(t); return cmp.Compare(x, v.n), ok }), nil
	case g.time != nil:
		if v.kind != litTime {
			return nil, wrong("a time as in DateTime'2006-01-02T15:04:05Z'")
		}
		return ordered(n.op, func(t *T) (int, bool) { x := g.time(t); return x.Compare(v.t), !x.IsZero() }), nil
	}
	if v.kind != litBool || n.op != "eq" && n.op != "ne" {
		return nil, wrong("true or false by eq or ne")
	}
	return func(t *T) bool { return (g.flag(t) == v.b) == (n.op == "eq") }, nil
}

// ordered makes a test of a comparison. What an object does not have is unequal
// to everything, and neither less nor greater.
func ordered[T any](op string, compare func(*T) (int, bool)) func(*T) bool {
	return func(t *T) bool {
		c, ok := compare(t)
		if !ok {
			return op == "ne"
		}
		switch op {
		case "eq":
			return c == 0
		case "ne":
			return c != 0
		case "lt":
			return c < 0
		case "le":
			return c <= 0
		case "gt":
			return c > 0
		}
		return c >= 0
	}
}

// oneOf returns the values that field must be equal to for the filter to match;
// nil if the filter does not limit it to some.
func (n node) oneOf(field string) []string {
	switch {
	case n.op == "eq" && n.field == field && n.value.kind == litString:
		return []string{n.value.s}
	case n.op == "and":
		for _, k := range n.kids {
			if v := k.oneOf(field); v != nil {
				return v
			}
		}
	case n.op == "or":
		var all []string
		for _, k := range n.kids {
			v := k.oneOf(field)
			if v == nil {
				return nil
			}
			all = append(all, v...)
		}
		return all
	}
	return nil
}
