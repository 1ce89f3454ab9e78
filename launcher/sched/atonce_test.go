package sched

import (
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/topology"
)

// TestElementsAtOnce holds a node's crews to the number of elements that the task
// allows at once, be there more cores or fewer.
func TestElementsAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		atOnce  int
		over    bool
		running int // slots of a crew that is there already
		want    int // slots of the crew that is placed; 0: none is
	}{
		"as many as fit":          {0, false, 0, 4},
		"fewer than cores":        {3, false, 0, 3},
		"the rest":                {3, false, 1, 2},
		"no more":                 {3, false, 3, 0},
		"more than cores":         {10, false, 0, 4},
		"more, on shared cores":   {10, true, 0, 10},
		"no more on shared cores": {10, true, 10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{Name: "n1", State: NodeUp, Known: true}
			for i := range 4 {
				n.Cores = append(n.Cores, topology.NewCPUSet(i))
			}
			spec := (job.TaskSpec{ID: "a", Kind: job.Single, Range: job.Range{Lo: 1, Hi: 101}, AtOnce: tc.atOnce, Oversubscribe: tc.over, Command: []string{"x"}}).Resolve()
			tries := []job.Try{{Range: spec.Range, Attempt: 1}}
			v := View{Nodes: []*Node{n}, Pending: []Pending{{Task: "t", Spec: &spec, Try: tries[0], Tries: tries}}}
			if tc.running > 0 {
				held := topology.NewCPUSet()
				for i := range min(tc.running, 4) {
					held = held.Union(n.Cores[i])
				}
				n.Holds = append(n.Holds, Hold{CPUs: held, Shared: tc.over})
				v.Crews = []Crew{{ID: "c", Task: "t", Node: "n1", Slots: tc.running, Open: uint64(tc.running), Ready: true}}
			}
			d := Plan(time.Unix(1000, 0), v, Policy{})
			got := 0
			for _, p := range d.Place {
				got += p.Slots
			}
			if got != tc.want {
				t.Errorf("a crew of %d slots was placed, want %d: %+v", got, tc.want, d.Waiting)
			}
		})
	}
}
