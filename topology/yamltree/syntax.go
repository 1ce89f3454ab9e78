package yamltree

import (
	"errors"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// unreadable is the message of what no better one is known for.
const unreadable = "the YAML can't be read"

// syntax is the fault of a parser's error.
func syntax(err error, explain bool) Fault {
	f := Fault{Place{1, 1}, unreadable, ""}
	var s *yaml.SyntaxError
	if !errors.As(err, &s) {
		return f
	}
	f.Message = s.Message
	if s.Token != nil {
		f.At = tokenPlace(s.Token)
	}
	if !explain {
		return f
	}
	switch {
	case strings.Contains(s.Message, "'\t'"):
		f.Message, f.Hint = "a tab indents this line", "YAML is indented with spaces"
	case strings.Contains(s.Message, "mapping value is not allowed"):
		f.Message = "a colon and a blank begin a value inside another value"
		f.Hint = `put a text with ": " into quotes`
	case strings.Contains(s.Message, "value is not allowed in this context"):
		f.Message, f.Hint = "this doesn't belong to the lines above", "keys of one mapping begin in the same column"
	case strings.Contains(s.Message, "is a reserved character"):
		f.Hint = "put the text into quotes"
	case strings.Contains(s.Message, "unknown escape character"):
		f.Hint = `write \\ for a backslash, or use single quotes`
	}
	return f
}

// tokenPlace is where a token begins.
func tokenPlace(t *token.Token) Place {
	if t == nil || t.Position == nil {
		return Place{1, 1}
	}
	return Place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
