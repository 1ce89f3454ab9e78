package job

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/wire/sweep"
)

func TestPreview(t *testing.T) {
	spec := Spec{ID: "J", Tasks: []TaskSpec{
		{ID: "A", Command: []string{"x", "{i}"}, CoresPerRank: 2,
			Sweep: &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "i", Span: &sweep.Span{From: "1", To: "1000000"}}}}}}},
		{ID: "G", Kind: Gang, RanksPerNode: 4, Command: []string{"y"}, Title: "g{n}",
			Sweep: &sweep.Sweep{Axes: []sweep.Axis{axis("n", "1", "2")}}, Vary: map[string]string{"nodes": "{n}"}},
		{ID: "M", Command: []string{"merge"}},
	}}
	want := Preview{Elements: 1_000_003, Cores: 2_000_013, Tasks: []TaskPreview{
		{ID: "A", Elements: 1_000_000, Cores: 2_000_000, First: []ElementPreview{
			{ID: "A_1", Values: []PreviewValue{{"i", "1"}}, Command: []string{"x", "1"}, Nodes: 1, Ranks: 1, Cores: 2},
			{ID: "A_2", Values: []PreviewValue{{"i", "2"}}, Command: []string{"x", "2"}, Nodes: 1, Ranks: 1, Cores: 2},
			{ID: "A_3", Values: []PreviewValue{{"i", "3"}}, Command: []string{"x", "3"}, Nodes: 1, Ranks: 1, Cores: 2},
		}, Last: &ElementPreview{ID: "A_1000000", Values: []PreviewValue{{"i", "1000000"}}, Command: []string{"x", "1000000"}, Nodes: 1, Ranks: 1, Cores: 2}},
		{ID: "G", Elements: 2, Cores: 12, Alone: true, First: []ElementPreview{
			{ID: "G_1", Title: "g1", Values: []PreviewValue{{"n", "1"}}, Command: []string{"y"}, Nodes: 1, Ranks: 4, Cores: 4},
			{ID: "G_2", Title: "g2", Values: []PreviewValue{{"n", "2"}}, Command: []string{"y"}, Nodes: 2, Ranks: 8, Cores: 8},
		}},
		{ID: "M", Elements: 1, Cores: 1, First: []ElementPreview{{ID: "M", Command: []string{"merge"}, Nodes: 1, Ranks: 1, Cores: 1}}},
	}}
	if d := cmp.Diff(want, PreviewOf(spec)); d != "" {
		t.Error(d)
	}
	spec.Tasks[0].Command[1] = "{j}"
	got := PreviewOf(spec)
	if len(got.Refused) != 1 || got.Refused[0].Field != "tasks[0].command" || got.Elements != 3 || got.Tasks[0].ID != "A" {
		t.Errorf("%+v", got)
	}
}
