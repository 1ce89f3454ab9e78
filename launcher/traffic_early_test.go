package launcher

import (
	"strings"
	"testing"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// A shim may ask for input before the news of its attempt is here: what it may
// have must not be forgotten, or both would wait for ever.
func TestCreditBeforeTheAttempt(t *testing.T) {
	r := &run{cfg: RunConfig{Stdin: strings.NewReader("input")}, fleet: agents.New(agents.Config{})}
	tr := newTraffic(r)
	credit := func(id string) {
		tr.FromShim("n1", &wire.FromShim{Id: id, M: &wire.FromShim_StdinCredit{StdinCredit: &wire.StdinCredit{Upto: 100}}})
	}
	credit("a")
	tr.attempt(&job.AttemptRow{ID: "a", Parts: []job.PartRow{{Node: "n1"}}})
	defer tr.stdin.stop()
	for until := time.Now().Add(10 * time.Second); !tr.stdin.used(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the input is not sent")
		}
	}
}
