package proc

import "time"

// wakeCollector has it look.
func (s *Slots) wakeCollector() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// collect hands over ends until all threads have ended.
func (s *Slots) collect() {
	var batch []SlotEnd
	pause := time.NewTimer(collectPause)
	defer pause.Stop()
	for {
		last := false
		select {
		case <-s.done:
			last = true
		default:
		}
		if batch = s.take(batch[:0]); len(batch) > 0 {
			s.ended(batch)
			pause.Reset(collectPause)
			select {
			case <-pause.C:
			case <-s.kick:
			}
			continue
		}
		if last {
			return
		}
		s.waited.Store(1)
		// An end before this one's thread could see it is found now.
		if !s.some() {
			select {
			case <-s.kick:
			case <-s.done:
			}
		}
		s.waited.Store(0)
	}
}

// some says whether there is an end to take.
func (s *Slots) some() bool {
	for _, l := range s.slots {
		if n := l.head.next.Load(); n != nil {
			if st := n.state.Load(); st == ended || st == skipped {
				return true
			}
		}
	}
	return false
}

// take appends the ends that are there and frees their commands. The last one
// that a slot's thread has dealt with stays in the list, for the thread looks
// there for the next.
func (s *Slots) take(batch []SlotEnd) []SlotEnd {
	now := time.Now().Round(0)
	at := monotonic()
	mono := at.Nano()
	for _, l := range s.slots {
		l.mu.Lock()
		for n := l.head.next.Load(); n != nil; n = l.head.next.Load() {
			st := n.state.Load()
			if st != ended && st != skipped {
				break
			}
			_ = l.entries.Load()
			if st == ended {
				batch = append(batch, n.end(l.index, now, mono))
			}
			n.cmd, n.err = SlotCommand{}, nil // it may stay the last for long
			l.head.free(s)
			l.head = n
		}
		l.mu.Unlock()
	}
	return batch
}
