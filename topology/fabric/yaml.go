package fabric

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"gangway/topology"
	"gangway/topology/yamltree"
)

// readYAML reads Gangway's own description, as YAML or as the JSON of `gangway
// fabric show`, and Slurm's topology.yaml, which is a list of topologies.
func readYAML(text, name string) (topology.Fabric, error) {
	var docs []*yamltree.Node
	var bad *yamltree.Fault
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		docs, bad = parseJSON(text)
	} else {
		docs, bad = parseYAML(text)
	}
	switch {
	case bad != nil:
		return topology.Fabric{}, located(*bad, name, text)
	case len(docs) == 0:
		return topology.Fabric{}, fmt.Errorf("%s: the file is empty", name)
	case len(docs) > 1:
		return topology.Fabric{}, located(yamltree.Fault{At: docs[1].At, Message: "a second document begins here: a file describes one fabric"}, name, text)
	}
	doc := docs[0]
	switch doc.Kind {
	case yamltree.Sequence:
		return readSlurmYAML(doc, name)
	case yamltree.Mapping:
		o := own{at: map[string]int{}, hostAt: map[string]bool{}, linkAt: map[linkKey]yamltree.Place{}}
		o.document(doc)
		if len(o.faults) > 0 {
			return topology.Fabric{}, located(o.faults[0], name, text)
		}
		return o.f, nil
	}
	return topology.Fabric{}, located(yamltree.Fault{At: doc.At, Message: "this is no description of a fabric: give what ibnetdiscover printed, a topology.conf, or YAML with switches and hosts"}, name, text)
}

// parseYAML returns the values of the file's documents; the first fault in their
// structure stops it. A dash in a key is as an underscore.
func parseYAML(text string) ([]*yamltree.Node, *yamltree.Fault) {
	docs, faults := yamltree.Read(text, yamltree.Options{
		Documents: true,
		Files:     "descriptions of fabrics",
		Hints: yamltree.Hints{
			Unreadable: "plain mappings, lists and values are enough",
			Keys:       "switches and hosts are lists",
		},
	})
	if len(faults) > 0 {
		return nil, &faults[0]
	}
	for _, n := range docs {
		settle(n)
	}
	return docs, nil
}

// settle writes keys with underscores, and puts mappings where their first key
// is: in a list, what is told of one is told of that. No node is shared, as there
// are no aliases, and the depth is bounded.
func settle(n *yamltree.Node) {
	for i := range n.Pairs {
		p := &n.Pairs[i]
		p.Key = strings.ReplaceAll(p.Key, "-", "_")
		settle(p.Value)
	}
	for _, item := range n.Items {
		settle(item)
	}
	if len(n.Pairs) > 0 {
		n.At = n.Pairs[0].At
	}
}

// located words a fault with its place and the line itself.
func located(f yamltree.Fault, name, text string) error {
	message := f.Message
	if f.Hint != "" {
		message += ": " + f.Hint
	}
	n := 0
	for line := range strings.Lines(text) {
		if n++; n != f.At.Line {
			continue
		}
		line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", " ")
		column := min(f.At.Column, len([]rune(line))+1)
		if runes := []rune(line); len(runes) > 120 { // a window around the place
			from := max(0, column-60)
			line = string(runes[from:min(from+120, len(runes))])
			column -= from
		}
		margin := fmt.Sprintf("  %d | ", n)
		return fmt.Errorf("%s:%d:%d: %s\n%s%s\n%s^", name, f.At.Line, f.At.Column, message, margin, line, strings.Repeat(" ", len(margin)+column-1))
	}
	return fmt.Errorf("%s:%d:%d: %s", name, f.At.Line, f.At.Column, message)
}

// parseJSON reads a JSON document into nodes.
func parseJSON(text string) ([]*yamltree.Node, *yamltree.Fault) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	line, column, seen := 1, 1, int64(0)
	here := func() yamltree.Place {
		for _, c := range text[seen:d.InputOffset()] {
			if column++; c == '\n' {
				line, column = line+1, 1
			}
		}
		seen = d.InputOffset()
		return yamltree.Place{Line: line, Column: column}
	}
	fail := func(err error) *yamltree.Fault {
		var s *json.SyntaxError
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &yamltree.Fault{At: here(), Message: "the JSON ends too early: is the file whole?"}
		}
		if errors.As(err, &s) {
			return &yamltree.Fault{At: here(), Message: "the JSON can't be read: " + s.Error()}
		}
		return &yamltree.Fault{At: here(), Message: "the JSON can't be read"}
	}
	var value func(depth int) (*yamltree.Node, *yamltree.Fault)
	value = func(depth int) (*yamltree.Node, *yamltree.Fault) {
		t, err := d.Token()
		if err != nil {
			return nil, fail(err)
		}
		at := here()
		if depth > yamltree.MaxDepth*4 { // domains nest as deep as a tree's switches
			return nil, &yamltree.Fault{At: at, Message: "the nesting is too deep"}
		}
		switch t := t.(type) {
		case json.Delim:
			n := &yamltree.Node{Kind: yamltree.Sequence, At: at}
			if t == '{' {
				n.Kind = yamltree.Mapping
			}
			for d.More() {
				var p yamltree.Pair
				if n.Kind == yamltree.Mapping {
					k, err := d.Token()
					if err != nil {
						return nil, fail(err)
					}
					p.Key, _ = k.(string)
					p.At = here()
				}
				v, f := value(depth + 1)
				if f != nil {
					return nil, f
				}
				if n.Kind == yamltree.Mapping {
					p.Value = v
					n.Pairs = append(n.Pairs, p)
				} else {
					n.Items = append(n.Items, v)
				}
			}
			if _, err := d.Token(); err != nil {
				return nil, fail(err)
			}
			return n, nil
		case nil:
			return &yamltree.Node{Kind: yamltree.Null, At: at}, nil
		}
		return &yamltree.Node{Kind: yamltree.Scalar, At: at, Text: fmt.Sprint(t)}, nil
	}
	n, f := value(0)
	if f != nil {
		return nil, f
	}
	if d.More() {
		return nil, &yamltree.Fault{At: here(), Message: "something follows the document"}
	}
	return []*yamltree.Node{n}, nil
}

// readSlurmYAML reads Slurm's topology.yaml, as topology.yaml(5) describes it:
// the default topology, else the first that is a tree or of blocks.
func readSlurmYAML(doc *yamltree.Node, name string) (topology.Fabric, error) {
	t := newSlurmTree(name)
	var chosen *yamltree.Node
	for _, n := range doc.Items {
		if n.Kind != yamltree.Mapping || n.Get("topology") == nil {
			t.at(n.At.Line, "items that are no topology", "this is no topology of Slurm's topology.yaml: left out")
			continue
		}
		if n.Get("tree") == nil && n.Get("block") == nil {
			continue
		}
		if d := n.Get("cluster_default"); chosen == nil || d != nil && strings.EqualFold(d.Text, "true") {
			if chosen != nil {
				t.at(chosen.At.Line, "other topologies", "topology %s is not the cluster's default: left out", clip(chosen.Get("topology").Text))
			}
			chosen = n
			if d != nil && strings.EqualFold(d.Text, "true") {
				break
			}
		} else {
			t.at(n.At.Line, "other topologies", "topology %s is not the cluster's default: left out", clip(n.Get("topology").Text))
		}
	}
	if chosen == nil {
		return topology.Fabric{}, fmt.Errorf("%s: no topology with a tree or blocks is there", name)
	}
	str := func(n *yamltree.Node) string {
		if n == nil || n.Kind != yamltree.Scalar {
			return ""
		}
		return n.Text
	}
	for _, n := range chosen.Get("tree").Get("switches").List() {
		if str(n.Get("switch")) == "" {
			t.at(n.At.Line, "switches without a name", "a switch without a name: left out")
			continue
		}
		t.addSwitch(n.At.Line, str(n.Get("switch")), str(n.Get("nodes")), str(n.Get("children")))
	}
	block := chosen.Get("block")
	for _, n := range block.Get("blocks").List() {
		if str(n.Get("block")) == "" {
			t.at(n.At.Line, "blocks without a name", "a block without a name: left out")
			continue
		}
		t.addBlock(n.At.Line, str(n.Get("block")), str(n.Get("nodes")))
	}
	if sizes := block.Get("block_sizes"); sizes != nil {
		var words []string
		for _, n := range sizes.List() {
			words = append(words, str(n))
		}
		t.setSizes(sizes.At.Line, words)
	}
	return t.finish()
}
