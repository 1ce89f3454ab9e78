package fabric

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// This file is all that knows the YAML library.

// Bounds on a text's structure. The library's parser recurses once per level
// and per key of a mapping, and its time is quadratic in the latter.
const (
	maxDepth = 32
	maxKeys  = 512
)

// place is a line and column, from 1.
type place struct{ line, column int }

// fault is what is wrong at a place.
type fault struct {
	at      place
	message string
}

// node is a value of the file; scalars keep the text as written.
type node struct {
	kind  kind
	at    place
	text  string
	items []*node
	pairs []pair
}

type kind string

const (
	null     kind = "nothing"
	scalar   kind = "a single value"
	mapping  kind = "a mapping (key: value)"
	sequence kind = "a list"
)

type pair struct {
	key   string
	at    place
	value *node
}

// parseYAML returns the values of the file's documents; faults are about its
// structure, and the first stops it.
func parseYAML(text string) (docs []*node, bad *fault) {
	// A parser's panic is a fault of the file as far as its author can tell.
	defer func() {
		if r := recover(); r != nil {
			docs, bad = nil, &fault{place{1, 1}, "the YAML can't be read: plain mappings, lists and values are enough"}
		}
	}()
	tokens := lexer.Tokenize(text)
	if f := bounded(tokens); f != nil {
		return nil, f
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		f := &fault{place{1, 1}, "the YAML can't be read"}
		var s *yaml.SyntaxError
		if errors.As(err, &s) {
			f.message = s.Message
			if s.Token != nil {
				f.at = tokenPlace(s.Token)
			}
		}
		return nil, f
	}
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		n, f := convert(d.Body, place{1, 1})
		if f != nil {
			return nil, f
		}
		docs = append(docs, n)
	}
	return docs, nil
}

// bounded looks for nesting and mappings that the parser can't take. It counts
// generously: a block mapping is the entries at one column without a lesser
// column in between.
func bounded(tokens token.Tokens) *fault {
	line, run, empty := 0, 0, 0
	last := token.UnknownType
	entry := 0            // column where the line's entry begins, behind dashes
	keys := map[int]int{} // of block mappings, by column
	var flow []int        // entries of the open flow collections
	var inMapping []bool  // whether such a collection is a mapping
	for _, t := range tokens {
		if t.Position == nil || t.Type == token.CommentType {
			continue
		}
		column := t.Position.Column
		if t.Position.Line != line {
			line, run, entry = t.Position.Line, 0, 0
		}
		if entry == 0 && len(flow) == 0 {
			entry = column
			maps.DeleteFunc(keys, func(c, _ int) bool { return c > column })
		}
		if t.Type == token.SequenceEntryType && last == t.Type && run == 0 {
			empty++
		}
		last = t.Type
		n := 0
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow, inMapping = append(flow, 0), append(inMapping, t.Type == token.MappingStartType)
		case token.SequenceEndType, token.MappingEndType:
			flow, inMapping = flow[:max(len(flow)-1, 0)], inMapping[:max(len(inMapping)-1, 0)]
		case token.SequenceEntryType:
			run, entry = run+1, 0
			maps.DeleteFunc(keys, func(c, _ int) bool { return c > column })
		case token.AnchorType, token.TagType:
			run++
		case token.CollectEntryType:
			if top := len(flow) - 1; top >= 0 && inMapping[top] {
				flow[top]++
				n = flow[top]
			}
		case token.MappingValueType, token.MappingKeyType:
			if t.Type == token.MappingKeyType {
				run++
			}
			if len(flow) == 0 {
				keys[entry]++
				n = keys[entry]
			}
		}
		switch {
		case n > maxKeys:
			return &fault{tokenPlace(t), fmt.Sprintf("a mapping has more than %d keys: switches and hosts are lists", maxKeys)}
		case empty > maxKeys:
			return &fault{tokenPlace(t), fmt.Sprintf("more than %d items of lists are empty", maxKeys)}
		case len(flow) > maxDepth || run > maxDepth || len(keys) > maxDepth:
			return &fault{tokenPlace(t), fmt.Sprintf("the nesting is deeper than %d levels", maxDepth)}
		}
	}
	return nil
}

// tokenPlace is where a token begins.
func tokenPlace(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// convert turns the library's tree into nodes; at is where n is if it does not
// know itself.
func convert(n ast.Node, at place) (*node, *fault) {
	if n == nil {
		return &node{kind: null, at: at}, nil
	}
	if t := n.GetToken(); t != nil {
		at = tokenPlace(t)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &node{kind: null, at: at}, nil
	case *ast.StringNode:
		return &node{kind: scalar, at: at, text: n.Value}, nil
	case *ast.LiteralNode:
		return &node{kind: scalar, at: at, text: n.Value.Value}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &node{kind: scalar, at: at, text: n.GetToken().Value}, nil
	case *ast.SequenceNode:
		out := &node{kind: sequence, at: at}
		for _, v := range n.Values {
			item, f := convert(v, at)
			if f != nil {
				return nil, f
			}
			out.items = append(out.items, item)
		}
		return out, nil
	case *ast.MappingNode:
		return convertPairs(n.Values, at)
	case *ast.MappingValueNode:
		return convertPairs([]*ast.MappingValueNode{n}, at)
	}
	return nil, &fault{at, "anchors, aliases, tags and merges are not used in descriptions of fabrics: write the value out"}
}

func convertPairs(values []*ast.MappingValueNode, at place) (*node, *fault) {
	out := &node{kind: mapping, at: at}
	if len(values) > 0 { // a block's own token is its first colon
		out.at = tokenPlace(values[0].Key.GetToken())
	}
	for _, v := range values {
		at := tokenPlace(v.Key.GetToken())
		k, f := convert(v.Key, at)
		if f != nil {
			return nil, f
		}
		if k.kind != scalar {
			return nil, &fault{at, "a key is a single word"}
		}
		value, f := convert(v.Value, tokenPlace(v.Start))
		if f != nil {
			return nil, f
		}
		out.pairs = append(out.pairs, pair{strings.ReplaceAll(k.text, "-", "_"), at, value})
	}
	return out, nil
}
