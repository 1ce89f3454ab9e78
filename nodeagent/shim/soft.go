package shim

import "time"

// softSignal warns the programs that their time will be over, so that they can
// save their work: with the task's own signal, and once. A script gets it, and not
// what it has started: most programs die of a signal that they don't know.
func (s *shim) softSignal(limit time.Duration) {
	n := int(s.a.GetSoftSignal())
	before := time.Duration(s.a.GetSoftBeforeMs()) * time.Millisecond
	if n <= 0 || before <= 0 || before >= limit {
		return
	}
	s.after(limit-before, func() {
		if !s.ending && !s.finished {
			s.signalRanks(n)
		}
	})
}
