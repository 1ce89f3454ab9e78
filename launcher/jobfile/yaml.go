package jobfile

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
// and per key of a mapping, and its time is quadratic in the latter, and in
// empty items of a list.
const (
	maxDepth = 32
	maxKeys  = 512

	maxMerged = 100_000 // keys that merges bring, in all
)

// kind is a node's kind.
type kind string

const (
	null     kind = "nothing"
	scalar   kind = "a single value"
	mapping  kind = "a mapping (key: value)"
	sequence kind = "a list"
)

// node is a value of the file. Scalars keep the text as written, so that 1.10
// and 007 mean what they look like; a node that has an alias is shared.
type node struct {
	kind  kind
	at    place
	text  string
	items []*node
	pairs []pair
}

type pair struct {
	key   string
	at    place // the key's
	value *node
}

// read returns the file's value and the faults in its structure; the value is
// nil when there is none.
func read(text string) (n *node, faults []fault) {
	// A parser's panic is a fault of the file as far as its author can tell.
	defer func() {
		if r := recover(); r != nil {
			n, faults = nil, []fault{{place{1, 1}, "the YAML can't be read", "simplify it: plain mappings, lists and values are enough"}}
		}
	}()
	tokens := lexer.Tokenize(text)
	if f := bounded(tokens); f != nil {
		return nil, []fault{*f}
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, []fault{syntax(text, err)}
	}
	r := reader{anchors: map[string]*node{}}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if _, ok := d.Body.(*ast.DirectiveNode); ok {
			continue
		}
		if body != nil {
			at := tokenPlace(d.Body.GetToken())
			if d.Start != nil {
				at = tokenPlace(d.Start)
			}
			return nil, []fault{{at, "a second document begins here", "a file is one job: put each job into a file of its own"}}
		}
		body = d.Body
	}
	if body == nil {
		return nil, nil
	}
	return r.node(body, place{1, 1}), r.faults
}

// bounded looks for nesting and mappings that the parser can't take. It counts
// generously: a block mapping is the entries at one column without a lesser
// column in between.
func bounded(tokens token.Tokens) *fault {
	run, line, empty := 0, 0, 0
	last := token.UnknownType
	entry := 0                // column where the line's entry begins, after dashes; 0: at the next token
	keys := map[int]int{}     // of block mappings, by column
	flow := make([]int, 0, 8) // entries of the open flow collections' mappings
	inner := make([]token.Type, 0, 8)
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
		n := 0
		if t.Type == token.SequenceEntryType && last == t.Type && run == 0 {
			empty++
		}
		last = t.Type
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow, inner = append(flow, 0), append(inner, t.Type)
		case token.SequenceEndType, token.MappingEndType:
			flow, inner = flow[:max(len(flow)-1, 0)], inner[:max(len(inner)-1, 0)]
		case token.SequenceEntryType:
			run, entry = run+1, 0
			maps.DeleteFunc(keys, func(c, _ int) bool { return c > column }) // an item's mapping is a new one
		case token.AnchorType, token.TagType:
			run++
		case token.CollectEntryType:
			if top := len(flow) - 1; top >= 0 && inner[top] == token.MappingStartType {
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
		if n > maxKeys {
			return &fault{tokenPlace(t), fmt.Sprintf("a mapping has more than %d keys", maxKeys), "use lists, or an array"}
		}
		if empty > maxKeys {
			return &fault{tokenPlace(t), fmt.Sprintf("more than %d items of lists are empty", maxKeys), "remove the dashes that nothing follows"}
		}
		if len(flow) > maxDepth || run > maxDepth || len(keys) > maxDepth {
			return &fault{tokenPlace(t), fmt.Sprintf("the nesting is deeper than %d levels", maxDepth), "a job file needs at most 5"}
		}
	}
	return nil
}

// syntax is the fault of a parser's error.
func syntax(text string, err error) fault {
	f := fault{place{1, 1}, "the YAML can't be read", ""}
	var s *yaml.SyntaxError
	if !errors.As(err, &s) {
		return f
	}
	f.message = s.Message
	if s.Token != nil {
		f.at = tokenPlace(s.Token)
	}
	switch {
	case strings.Contains(s.Message, "'\t'"):
		f.message, f.hint = "a tab indents this line", "YAML is indented with spaces"
	case strings.Contains(s.Message, "mapping value is not allowed"):
		f.message = "a colon and a blank begin a value inside another value"
		f.hint = `put a text with ": " into quotes`
	case strings.Contains(s.Message, "value is not allowed in this context"):
		f.message, f.hint = "this doesn't belong to the lines above", "keys of one mapping begin in the same column"
	case strings.Contains(s.Message, "is a reserved character"):
		f.hint = "put the text into quotes"
	case strings.Contains(s.Message, "unknown escape character"):
		f.hint = `write \\ for a backslash, or use single quotes`
	}
	return f
}

// tokenPlace is where a token begins.
func tokenPlace(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// reader turns the library's tree into nodes.
type reader struct {
	anchors map[string]*node
	merged  int // pairs brought by merge keys
	faults  []fault
}

func (r *reader) bad(at place, hint, format string, args ...any) {
	r.faults = append(r.faults, fault{at, fmt.Sprintf(format, args...), hint})
}

// node converts n; at is where it is if it does not know itself.
func (r *reader) node(n ast.Node, at place) *node {
	if n == nil {
		return &node{kind: null, at: at}
	}
	if t := n.GetToken(); t != nil {
		at = tokenPlace(t)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &node{kind: null, at: at}
	case *ast.StringNode:
		return &node{kind: scalar, at: at, text: n.Value}
	case *ast.LiteralNode:
		return &node{kind: scalar, at: at, text: n.Value.Value}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &node{kind: scalar, at: at, text: n.GetToken().Value}
	case *ast.SequenceNode:
		out := &node{kind: sequence, at: at}
		for _, v := range n.Values {
			out.items = append(out.items, r.node(v, at))
		}
		return out
	case *ast.MappingNode:
		return r.mapping(n.Values, at)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, at)
	case *ast.AnchorNode:
		v := r.node(n.Value, at)
		r.anchors[n.Name.GetToken().Value] = v
		return v
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if v, ok := r.anchors[name]; ok {
			return v
		}
		r.bad(at, fmt.Sprintf("write &%s before the value that is meant", name), "*%s names no value above it", name)
		return &node{kind: null, at: at}
	case *ast.TagNode:
		v := r.node(n.Value, at)
		if n.Start.Value != "!!str" || v.kind != scalar {
			r.bad(at, "leave it out: each key knows its type", "the tag %s is not used in job files", n.Start.Value)
		}
		return v
	}
	r.bad(at, "", "this kind of YAML is not used in job files")
	return &node{kind: null, at: at}
}

func (r *reader) mapping(values []*ast.MappingValueNode, at place) *node {
	out := &node{kind: mapping, at: at}
	if len(values) > 0 { // a block's own token is its first colon
		if k := tokenPlace(values[0].Key.GetToken()); k.line < at.line || k.line == at.line && k.column < at.column {
			out.at = k
		}
	}
	own := map[string]place{}
	var merged []pair
	for _, v := range values {
		at := tokenPlace(v.Key.GetToken())
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			merged = append(merged, r.merge(r.node(v.Value, at), at)...)
			continue
		}
		k := r.node(v.Key, at)
		if k.kind != scalar {
			r.bad(at, "", "a key is a single word")
			continue
		}
		if first, ok := own[k.text]; ok {
			r.bad(at, "keep one of the two", "%s stands here a second time, first in line %d", k.text, first.line)
			continue
		}
		own[k.text] = at
		end := tokenPlace(v.Start)
		out.pairs = append(out.pairs, pair{k.text, at, r.node(v.Value, end)})
	}
	for _, p := range merged { // keys of its own win, then earlier ones
		if _, ok := own[p.key]; !ok {
			own[p.key] = p.at
			out.pairs = append(out.pairs, p)
		}
	}
	return out
}

// merge returns the pairs that a merge key brings.
func (r *reader) merge(v *node, at place) []pair {
	var out []pair
	list := []*node{v}
	if v.kind == sequence {
		list = v.items
	}
	for _, m := range list {
		if m.kind != mapping {
			r.bad(at, "<<: *name, where name is the anchor of a mapping", "<< merges mappings, but this is %s", m.kind)
			return nil
		}
		r.merged += len(m.pairs)
		if len(out)+len(m.pairs) > maxKeys || r.merged > maxMerged {
			r.bad(at, "use defaults, lists, or an array", "<< brings too many keys: at most %d into one mapping and %d in all", maxKeys, maxMerged)
			return nil
		}
		out = append(out, m.pairs...)
	}
	return out
}
