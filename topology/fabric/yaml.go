package fabric

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"gangway/topology"
)

// readYAML reads Gangway's own description, as YAML or as the JSON of `gangway
// fabric show`, and Slurm's topology.yaml, which is a list of topologies.
func readYAML(text, name string) (topology.Fabric, error) {
	var docs []*node
	var bad *fault
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		docs, bad = parseJSON(text)
	} else {
		docs, bad = parseYAML(text)
	}
	switch {
	case bad != nil:
		return topology.Fabric{}, bad.err(name, text)
	case len(docs) == 0:
		return topology.Fabric{}, fmt.Errorf("%s: the file is empty", name)
	case len(docs) > 1:
		return topology.Fabric{}, (&fault{docs[1].at, "a second document begins here: a file describes one fabric"}).err(name, text)
	}
	doc := docs[0]
	switch doc.kind {
	case sequence:
		return readSlurmYAML(doc, name)
	case mapping:
		o := own{at: map[string]int{}, hostAt: map[string]bool{}, linkAt: map[linkKey]place{}}
		o.document(doc)
		if len(o.faults) > 0 {
			return topology.Fabric{}, o.faults[0].err(name, text)
		}
		return o.f, nil
	}
	return topology.Fabric{}, (&fault{doc.at, "this is no description of a fabric: give what ibnetdiscover printed, a topology.conf, or YAML with switches and hosts"}).err(name, text)
}

// err words a fault with its place and the line itself.
func (b *fault) err(name, text string) error {
	n := 0
	for line := range strings.Lines(text) {
		if n++; n != b.at.line {
			continue
		}
		line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", " ")
		column := min(b.at.column, len([]rune(line))+1)
		if runes := []rune(line); len(runes) > 120 { // a window around the place
			from := max(0, column-60)
			line = string(runes[from:min(from+120, len(runes))])
			column -= from
		}
		margin := fmt.Sprintf("  %d | ", n)
		return fmt.Errorf("%s:%d:%d: %s\n%s%s\n%s^", name, b.at.line, b.at.column, b.message, margin, line, strings.Repeat(" ", len(margin)+column-1))
	}
	return fmt.Errorf("%s:%d:%d: %s", name, b.at.line, b.at.column, b.message)
}

// parseJSON reads a JSON document into nodes.
func parseJSON(text string) ([]*node, *fault) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	line, column, seen := 1, 1, int64(0)
	here := func() place {
		for _, c := range text[seen:d.InputOffset()] {
			if column++; c == '\n' {
				line, column = line+1, 1
			}
		}
		seen = d.InputOffset()
		return place{line, column}
	}
	fail := func(err error) *fault {
		var s *json.SyntaxError
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &fault{here(), "the JSON ends too early: is the file whole?"}
		}
		if errors.As(err, &s) {
			return &fault{here(), "the JSON can't be read: " + s.Error()}
		}
		return &fault{here(), "the JSON can't be read"}
	}
	var value func(depth int) (*node, *fault)
	value = func(depth int) (*node, *fault) {
		t, err := d.Token()
		if err != nil {
			return nil, fail(err)
		}
		at := here()
		if depth > maxDepth*4 { // domains nest as deep as a tree's switches
			return nil, &fault{at, "the nesting is too deep"}
		}
		switch t := t.(type) {
		case json.Delim:
			n := &node{kind: sequence, at: at}
			if t == '{' {
				n.kind = mapping
			}
			for d.More() {
				var p pair
				if n.kind == mapping {
					k, err := d.Token()
					if err != nil {
						return nil, fail(err)
					}
					p.key, _ = k.(string)
					p.at = here()
				}
				v, f := value(depth + 1)
				if f != nil {
					return nil, f
				}
				if n.kind == mapping {
					p.value = v
					n.pairs = append(n.pairs, p)
				} else {
					n.items = append(n.items, v)
				}
			}
			if _, err := d.Token(); err != nil {
				return nil, fail(err)
			}
			return n, nil
		case nil:
			return &node{kind: null, at: at}, nil
		}
		return &node{kind: scalar, at: at, text: fmt.Sprint(t)}, nil
	}
	n, f := value(0)
	if f != nil {
		return nil, f
	}
	if d.More() {
		return nil, &fault{here(), "something follows the document"}
	}
	return []*node{n}, nil
}

// readSlurmYAML reads Slurm's topology.yaml, as topology.yaml(5) describes it:
// the default topology, else the first that is a tree or of blocks.
func readSlurmYAML(doc *node, name string) (topology.Fabric, error) {
	t := newSlurmTree(name)
	var chosen *node
	for _, n := range doc.items {
		if n.kind != mapping || n.get("topology") == nil {
			t.at(n.at.line, "items that are no topology", "this is no topology of Slurm's topology.yaml: left out")
			continue
		}
		if n.get("tree") == nil && n.get("block") == nil {
			continue
		}
		if d := n.get("cluster_default"); chosen == nil || d != nil && strings.EqualFold(d.text, "true") {
			if chosen != nil {
				t.at(chosen.at.line, "other topologies", "topology %s is not the cluster's default: left out", clip(chosen.get("topology").text))
			}
			chosen = n
			if d != nil && strings.EqualFold(d.text, "true") {
				break
			}
		} else {
			t.at(n.at.line, "other topologies", "topology %s is not the cluster's default: left out", clip(n.get("topology").text))
		}
	}
	if chosen == nil {
		return topology.Fabric{}, fmt.Errorf("%s: no topology with a tree or blocks is there", name)
	}
	str := func(n *node) string {
		if n == nil || n.kind != scalar {
			return ""
		}
		return n.text
	}
	for _, n := range chosen.get("tree").get("switches").list() {
		if str(n.get("switch")) == "" {
			t.at(n.at.line, "switches without a name", "a switch without a name: left out")
			continue
		}
		t.addSwitch(n.at.line, str(n.get("switch")), str(n.get("nodes")), str(n.get("children")))
	}
	block := chosen.get("block")
	for _, n := range block.get("blocks").list() {
		if str(n.get("block")) == "" {
			t.at(n.at.line, "blocks without a name", "a block without a name: left out")
			continue
		}
		t.addBlock(n.at.line, str(n.get("block")), str(n.get("nodes")))
	}
	if sizes := block.get("block_sizes"); sizes != nil {
		var words []string
		for _, n := range sizes.list() {
			words = append(words, str(n))
		}
		t.setSizes(sizes.at.line, words)
	}
	return t.finish()
}

// get returns a mapping's value, nil if there is none.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// list returns a list's items.
func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	return n.items
}
