package yamltree

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
)

// reader turns the library's tree into nodes.
type reader struct {
	o       Options
	anchors map[string]*Node // of the document
	merged  int              // pairs brought by merge keys
	faults  []Fault
}

func (r *reader) bad(at Place, hint, format string, args ...any) {
	r.faults = append(r.faults, Fault{at, fmt.Sprintf(format, args...), hint})
}

// node converts n; at is where it is if it does not know itself.
func (r *reader) node(n ast.Node, at Place) *Node {
	if n == nil {
		return &Node{Kind: Null, At: at}
	}
	if t := n.GetToken(); t != nil {
		at = tokenPlace(t)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &Node{Kind: Null, At: at}
	case *ast.StringNode:
		return &Node{Kind: Scalar, At: at, Text: n.Value}
	case *ast.LiteralNode:
		return &Node{Kind: Scalar, At: at, Text: n.Value.Value}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &Node{Kind: Scalar, At: at, Text: n.GetToken().Value}
	case *ast.SequenceNode:
		out := &Node{Kind: Sequence, At: at}
		for _, v := range n.Values {
			out.Items = append(out.Items, r.node(v, at))
		}
		return out
	case *ast.MappingNode:
		return r.mapping(n.Values, at)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, at)
	}
	if !r.o.References {
		r.bad(at, "write the value out", "anchors, aliases, tags and merges are not used in %s", r.o.Files)
		return &Node{Kind: Null, At: at}
	}
	switch n := n.(type) {
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
		return &Node{Kind: Null, At: at}
	case *ast.TagNode:
		v := r.node(n.Value, at)
		if n.Start.Value != "!!str" || v.Kind != Scalar {
			r.bad(at, "leave it out: each key knows its type", "the tag %s is not used in %s", n.Start.Value, r.o.Files)
		}
		return v
	}
	r.bad(at, "", "this kind of YAML is not used in %s", r.o.Files)
	return &Node{Kind: Null, At: at}
}

func (r *reader) mapping(values []*ast.MappingValueNode, at Place) *Node {
	out := &Node{Kind: Mapping, At: at}
	if len(values) > 0 { // a block's own token is its first colon
		if k := tokenPlace(values[0].Key.GetToken()); k.Line < at.Line || k.Line == at.Line && k.Column < at.Column {
			out.At = k
		}
	}
	own := map[string]Place{}
	var merged []Pair
	for _, v := range values {
		at := tokenPlace(v.Key.GetToken())
		if _, ok := v.Key.(*ast.MergeKeyNode); ok && r.o.References {
			merged = append(merged, r.merge(r.node(v.Value, at), at)...)
			continue
		}
		k := r.node(v.Key, at)
		if k.Kind != Scalar {
			r.bad(at, "", "a key is a single word")
			continue
		}
		if first, ok := own[k.Text]; ok {
			r.bad(at, "keep one of the two", "%s stands here a second time, first in line %d", k.Text, first.Line)
			continue
		}
		own[k.Text] = at
		end := tokenPlace(v.Start)
		out.Pairs = append(out.Pairs, Pair{k.Text, at, r.node(v.Value, end)})
	}
	for _, p := range merged { // keys of its own win, then earlier ones
		if _, ok := own[p.Key]; !ok {
			own[p.Key] = p.At
			out.Pairs = append(out.Pairs, p)
		}
	}
	return out
}

// merge returns the pairs that a merge key brings.
func (r *reader) merge(v *Node, at Place) []Pair {
	var out []Pair
	list := []*Node{v}
	if v.Kind == Sequence {
		list = v.Items
	}
	for _, m := range list {
		if m.Kind != Mapping {
			r.bad(at, "<<: *name, where name is the anchor of a mapping", "<< merges mappings, but this is %s", m.Kind)
			return nil
		}
		r.merged += len(m.Pairs)
		if len(out)+len(m.Pairs) > MaxKeys || r.merged > maxMerged {
			r.bad(at, r.o.Hints.Merged, "<< brings too many keys: at most %d into one mapping and %d in all", MaxKeys, maxMerged)
			return nil
		}
		out = append(out, m.Pairs...)
	}
	return out
}
