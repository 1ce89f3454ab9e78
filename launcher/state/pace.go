package state

import (
	"time"

	"gangway/launcher/job"
)

// pace is what is known of a crew's rate. It is no row: after a restart it is
// measured again.
type pace struct {
	done uint64    // elements finished
	rate float64   // a second; 0: not known
	news time.Time // the last thing heard from it or told to it
	from time.Time // begin of the measurement
	n    uint64    // elements finished since
}

// How long a rate is measured: short enough to follow, long enough that blocks
// that waited for each other in the launcher do not look like a burst.
const (
	paceWindow = 50 * time.Millisecond
	paceLeast  = time.Millisecond
)

// given notes that a crew that had so many elements is given more.
func (p *pace) given(open uint64, slots int, at time.Time) {
	if open < uint64(slots) && p.n == 0 || p.from.IsZero() {
		p.from = at
	}
	p.news = at
}

// told notes that a crew, which had been given so many elements, has finished n.
func (p *pace) told(n, open uint64, crew *job.CrewRow, at time.Time) {
	p.news = at
	if p.from.IsZero() {
		p.from = at
	}
	if n == 0 {
		return
	}
	p.done += n
	p.n += n
	starved := open-n < uint64(crew.Slots)
	took := at.Sub(p.from)
	if took < paceLeast || took < paceWindow && !starved {
		return
	}
	now := float64(p.n) / took.Seconds()
	switch {
	case p.rate == 0:
		p.rate = now
	case !starved:
		p.rate = (p.rate + now) / 2
	default: // it could do as much, perhaps more
		p.rate = max(p.rate, now)
	}
	p.from, p.n = at, 0
}
