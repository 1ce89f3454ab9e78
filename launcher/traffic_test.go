package launcher

import (
	"strings"
	"testing"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

func TestShortfall(t *testing.T) {
	ended := func(end uint64) []job.Result { return []job.Result{{OutputEnd: end}} }
	for _, c := range []struct {
		name string
		part job.PartRow
		got  uint64
		want string
	}{
		{"whole", job.PartRow{Node: "n1", Ranks: 2, Results: ended(10)}, 10, ""},
		{"silent", job.PartRow{Node: "n1", Ranks: 2, Results: ended(0)}, 0, ""},
		{"short", job.PartRow{Node: "n2", FirstRank: 2, Ranks: 2, Results: ended(10)}, 7, "output of ranks 2-3 on node n2 is incomplete: 3 bytes are missing"},
		{"one rank, one byte", job.PartRow{Node: "n2", FirstRank: 1, Ranks: 1, Results: ended(8)}, 7, "output of rank 1 on node n2 is incomplete: 1 byte is missing"},
		{"lost", job.PartRow{Node: "n2", FirstRank: 1, Ranks: 1, Started: true}, 7, "output of rank 1 on node n2 may be incomplete: the node was lost before it had confirmed all of it"},
		{"never started", job.PartRow{Node: "n2", Ranks: 1}, 0, ""},
	} {
		if got := shortfall(c.part, c.got); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What is queued when the attempt has ended still counts, repeats do not, and
// output may come before the news of its attempt.
func TestIncompleteOutputIsSaid(t *testing.T) {
	for _, c := range []struct {
		end  uint64
		want string
	}{{11, ""}, {20, "9 bytes are missing"}} {
		rec := &recorder{first: make(chan struct{})}
		r := &run{cfg: RunConfig{Out: rec}, fleet: agents.New(agents.Config{})}
		tr := newTraffic(r)
		r.traffic = tr
		say := func(off uint64, data string) {
			tr.FromShim("n1", &wire.FromShim{Id: "a", M: &wire.FromShim_Output{Output: &wire.Output{Offset: off, Data: []byte(data)}}})
		}
		say(0, "hello ")
		tr.attempt(&job.AttemptRow{ID: "a", State: job.AttemptPlaced, Parts: []job.PartRow{{Node: "n1", Ranks: 1}}})
		say(0, "hello ")
		say(3, "lo world")
		tr.attempt(&job.AttemptRow{ID: "a", State: job.AttemptEnded, Parts: []job.PartRow{{Node: "n1", Ranks: 1, Results: []job.Result{{OutputEnd: c.end}}}}})
		tr.stop()
		tr.print()
		if got := rec.out.String(); got != "hello world" {
			t.Errorf("printed %q", got)
		}
		if got := strings.Join(rec.notices, "\n"); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("with an end at %d: notices %q, want %q", c.end, got, c.want)
		}
	}
}
