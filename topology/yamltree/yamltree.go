// Package yamltree reads YAML that people write into a tree of nodes, each with
// its place in the text, so that whoever gives the nodes a meaning can say what
// is wrong where. It bounds what a text may cost, and is all that knows the YAML
// library.
package yamltree

import (
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// Place is a position in the text. Lines and columns count from 1, columns in
// characters. Read gives no zero place: callers may use it for none.
type Place struct{ Line, Column int }

// Fault is what is wrong at a place.
type Fault struct {
	At      Place
	Message string // what is wrong
	Hint    string // what would be right, "" if there is nothing to say
}

// Kind is a node's kind; its text stands in messages, after "this is".
type Kind string

const (
	Null     Kind = "nothing"
	Scalar   Kind = "a single value"
	Mapping  Kind = "a mapping (key: value)"
	Sequence Kind = "a list"
)

// Node is a value of the file. Scalars keep the text as written, so that 1.10
// and 007 mean what they look like; a node that has an alias is shared. No node
// is below itself.
type Node struct {
	Kind  Kind
	At    Place
	Text  string  // of a scalar
	Items []*Node // of a sequence
	Pairs []Pair  // of a mapping, in the file's order; what merges bring comes last
}

// Pair is a key of a mapping and its value.
type Pair struct {
	Key   string
	At    Place // the key's
	Value *Node // never nil
}

// Get returns a mapping's value, nil if there is none. The node may be nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, p := range n.Pairs {
		if p.Key == key {
			return p.Value
		}
	}
	return nil
}

// List returns a list's items. The node may be nil.
func (n *Node) List() []*Node {
	if n == nil {
		return nil
	}
	return n.Items
}

// Options say what a text may use and how its faults are worded.
type Options struct {
	// Documents allows any number of documents; without it a second one is a fault.
	Documents bool
	// References allows anchors, aliases, merges (<<) and the tag !!str.
	References bool
	// Explain words faults of the syntax, and keys that stand twice, for the
	// file's author; without it they are as the parser words them.
	Explain bool
	// Files is what such files are called, as in "not used in job files".
	Files string
	// Hints are those of faults that depend on the use of the file.
	Hints Hints
}

// Hints say what would be right in place of what can't be read; each may be "".
type Hints struct {
	Unreadable string // the parser gave up
	Keys       string // more than MaxKeys keys in a mapping
	Merged     string // merges bring too many keys
	Empty      string // more than MaxKeys items of lists are empty
	Depth      string // nested deeper than MaxDepth
	Document   string // a second document
}

// Read returns the values of the text's documents, without those that are empty,
// and the faults in its structure. A fault that keeps the text from being read
// leaves no value; after others the rest is there, with Null in the place of what
// is wrong. The text is UTF-8.
func Read(text string, o Options) (docs []*Node, faults []Fault) {
	// A parser's panic is a fault of the file as far as its author can tell.
	defer func() {
		if r := recover(); r != nil {
			docs, faults = nil, []Fault{{Place{1, 1}, unreadable, o.Hints.Unreadable}}
		}
	}()
	tokens := lexer.Tokenize(text)
	if f := bounded(tokens, o.Hints); f != nil {
		return nil, []Fault{*f}
	}
	var options []parser.Option
	if o.Explain { // the reader below finds keys that stand twice
		options = append(options, parser.AllowDuplicateMapKey())
	}
	file, err := parser.Parse(tokens, 0, options...)
	if err != nil {
		return nil, []Fault{syntax(err, o.Explain)}
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if _, ok := d.Body.(*ast.DirectiveNode); ok {
			continue
		}
		if len(bodies) > 0 && !o.Documents {
			at := tokenPlace(d.Body.GetToken())
			if d.Start != nil {
				at = tokenPlace(d.Start)
			}
			return nil, []Fault{{at, "a second document begins here", o.Hints.Document}}
		}
		bodies = append(bodies, d.Body)
	}
	r := reader{o: o}
	for _, b := range bodies {
		r.anchors = map[string]*Node{}
		docs = append(docs, r.node(b, Place{1, 1}))
	}
	return docs, r.faults
}
