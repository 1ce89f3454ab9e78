package crew

import (
	"testing"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// stuck is a Spawner whose slots start nothing, but for the first, whose element
// runs until it is killed.
type stuck struct {
	queues [][]uint64
	ended  func([]Ended)
}

func (s *stuck) Start(slot int, tag uint64, _ Command) { s.queues[slot] = append(s.queues[slot], tag) }

func (s *stuck) Signal(slot int, tag uint64, sig int) bool {
	if slot == 0 && sig == 9 {
		s.ended([]Ended{{Slot: slot, Tag: tag, Status: proc.Status{Signal: 9}, Start: time.Now(), End: time.Now()}})
	}
	return slot == 0
}

func (s *stuck) Drop(slot int) []uint64 {
	var out []uint64
	if slot > 0 {
		out, s.queues[slot] = s.queues[slot], nil
	}
	return out
}

func (s *stuck) Close() {}

// TestTimeLimitOfDropped lets the time limit of an element pass that was taken
// back before its slot had started it.
func TestTimeLimitOfDropped(t *testing.T) {
	o := hire(t, Config{Slots: make([]Slot, 2), Command: []string{"true"}, TimeLimit: 50 * time.Millisecond, KillGrace: 200 * time.Millisecond},
		func(_ *proc.Forker, n int, ended func([]Ended)) (Spawner, error) {
			return &stuck{queues: make([][]uint64, n), ended: ended}, nil
		})
	o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, 2)})
	for begun := false; !begun; {
		got := make(chan bool)
		o.crew.post(func() { got <- len(o.crew.flight) == 2 })
		begun = <-got
	}
	o.crew.End(&wire.Failure{Code: wire.FailureCode_FAILURE_CANCELLED}, false)
	o.wait(t)
	if r, b := o.counts(); r != 1 || b != 1 {
		t.Errorf("%d results, %d returned", r, b)
	}
}

// TestSoftSignal: an element hears of its time limit before it.
func TestSoftSignal(t *testing.T) {
	o := hire(t, Config{Slots: make([]Slot, 2), Command: []string{"sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.01; done"},
		TimeLimit: 30 * time.Second, SoftSignal: 10, SoftBefore: 29500 * time.Millisecond}, Slots)
	o.crew.Work(&wire.Work{Seq: 1, Runs: runs(1, 0, 4), Last: true})
	o.wait(t)
	for _, b := range o.blocks {
		for _, e := range b.GetEndings() {
			if e.GetExitCode() != 7 || e.GetFailure() != nil {
				t.Errorf("ended %v", e)
			}
		}
	}
	if r, _ := o.counts(); r != 4 {
		t.Errorf("%d results", r)
	}
}
