package agents

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// Every kind of death has a name of its own, and an autopsy survives the wire.
func TestAutopsyOf(t *testing.T) {
	seen := map[job.Death]wire.Death{}
	for n := range wire.Death_name {
		d := deathOf(wire.Death(n))
		if was, ok := seen[d]; ok {
			t.Errorf("%v and %v are both %s", was, wire.Death(n), d)
		}
		seen[d] = wire.Death(n)
	}
	got := autopsyOf(&wire.Autopsy{Death: wire.Death_DEATH_KILLED, Rank: 3, Node: "n1", How: "killed", Phase: "init", Said: "x", AtNs: 5e9, Told: 4,
		Suspects: []*wire.Suspect{{Node: "n1", Why: "y"}}})
	want := &job.Autopsy{Death: job.DeathKilled, Rank: 3, Node: "n1", How: "killed", Phase: "init", Said: "x", At: time.Unix(5, 0).UTC(), Told: 4,
		Suspects: []job.Suspect{{Node: "n1", Why: "y"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if autopsyOf(nil) != nil {
		t.Error("nothing became something")
	}
}
