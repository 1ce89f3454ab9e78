package yamltree

import (
	"fmt"
	"maps"

	"github.com/goccy/go-yaml/token"
)

// Bounds on a text's structure. The library's parser recurses once per level
// and per key of a mapping, and its time is quadratic in the latter, and in
// empty items of a list.
const (
	MaxDepth = 32  // levels of nesting
	MaxKeys  = 512 // keys of a mapping, and empty items of all lists

	maxMerged = 100_000 // keys that merges bring, in all
)

// bounded looks for nesting and mappings that the parser can't take. It counts
// generously: a block mapping is the entries at one column without a lesser
// column in between.
func bounded(tokens token.Tokens, hints Hints) *Fault {
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
		if n > MaxKeys {
			return &Fault{tokenPlace(t), fmt.Sprintf("a mapping has more than %d keys", MaxKeys), hints.Keys}
		}
		if empty > MaxKeys {
			return &Fault{tokenPlace(t), fmt.Sprintf("more than %d items of lists are empty", MaxKeys), hints.Empty}
		}
		if len(flow) > MaxDepth || run > MaxDepth || len(keys) > MaxDepth {
			return &Fault{tokenPlace(t), fmt.Sprintf("the nesting is deeper than %d levels", MaxDepth), hints.Depth}
		}
	}
	return nil
}
