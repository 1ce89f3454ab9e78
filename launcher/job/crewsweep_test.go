package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gangway/nodeagent/wire/sweep"
)

// TestCrewSweep: whole or in pieces, an element has the same values.
func TestCrewSweep(t *testing.T) {
	var lines strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&lines, "value %d\n", i)
	}
	for name, c := range map[string]struct {
		lines string
		whole bool
	}{"small": {"a\nb\nc\n", true}, "large": {lines.String(), false}} {
		t.Run(name, func(t *testing.T) {
			spec := TaskSpec{ID: "A", Command: []string{"echo", "{x}"}, Env: []string{"A=b"},
				Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "x", Lines: c.lines}}}}}}.Resolve()
			got := NewCrewSweep(&spec)
			if (got.JSON != nil) != c.whole || c.whole != (got.Most == 0) || !slices.Equal(got.Fields, []string{"command"}) {
				t.Fatalf("%+v", got)
			}
			n := spec.Range.Len()
			if bytes := uint64(len(c.lines)); !c.whole && got.Most*bytes/n > cutSweeps {
				t.Errorf("%d elements ahead, of %d bytes each", got.Most, bytes/n)
			}
			for _, index := range []uint64{1, 2, n} {
				text, first := got.JSON, spec.Range.Lo
				if !c.whole {
					first = index
					text = got.Cut(Range{Lo: index, Hi: min(index+1, n+1)})
				}
				s := new(sweep.Sweep)
				if err := json.Unmarshal(text, s); err != nil {
					t.Fatal(err)
				}
				texts, err := sweep.Compile(s, first, spec.Command)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.Split(c.lines, "\n")[index-1]
				if got := texts.Expand(index, 0, nil); got[1] != want {
					t.Errorf("element %d: %q, want %q", index, got[1], want)
				}
			}
		})
	}
	if NewCrewSweep(&TaskSpec{}) != nil {
		t.Error("a sweep of a task without one")
	}
}
