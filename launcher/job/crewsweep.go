package job

import (
	"encoding/json"
	"slices"
	"strings"

	"gangway/nodeagent/wire/sweep"
)

// Limits of the sweeps that crews are told.
const (
	wholeSweep = 64 << 10 // bytes of a sweep that a crew is told once, as a whole
	cutSweeps  = 2 << 20  // about so many bytes of a larger one a crew is told at once
)

// CrewSweep is a task's sweep as crews are told it: as a whole, or in pieces with
// the elements that they are given.
type CrewSweep struct {
	JSON   []byte   // the whole sweep, whose first element has the range's first index; nil: it is cut
	Fields []string // command, env, workdir: those that may have placeholders
	Most   uint64   // elements that a crew may be given ahead; 0: as many as it likes

	first uint64
	table *sweep.Table
}

// NewCrewSweep returns the sweep of a resolved task; nil: it has none.
func NewCrewSweep(t *TaskSpec) *CrewSweep {
	if t.Sweep == nil {
		return nil
	}
	braces := func(s string) bool { return strings.ContainsAny(s, "{}") }
	c := &CrewSweep{first: t.Range.Lo}
	for _, f := range []struct {
		name string
		has  bool
	}{{"command", slices.ContainsFunc(t.Command, braces)}, {"env", slices.ContainsFunc(t.Env, braces)}, {"workdir", braces(t.WorkDir)}} {
		if f.has {
			c.Fields = append(c.Fields, f.name)
		}
	}
	text, err := json.Marshal(t.Sweep)
	if err != nil || len(text) <= wholeSweep { // strings and numbers alone: it can't fail
		c.JSON = text
		return c
	}
	c.table, err = t.Sweep.Table()
	if err != nil { // Validate has refused it
		c.JSON = text
		return c
	}
	c.Most = max(1, cutSweeps*t.Range.Len()/uint64(len(text)))
	return c
}

// Cut is the sweep of a range of elements, whose first is the range's; nil: the
// whole one was told.
func (c *CrewSweep) Cut(r Range) []byte {
	if c == nil || c.table == nil {
		return nil
	}
	text, err := json.Marshal(c.table.Cut(r.Lo-c.first, r.Hi-c.first))
	if err != nil {
		return nil
	}
	return text
}
