package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressState is how far a job is.
type progressState struct {
	total, done, failed, retried, running uint64
}

// progress draws one line about a job on a terminal, again and again.
type progress struct {
	shown bool
	from  time.Time
	rate  float64 // ends a second, smoothed; 0: not known
	last  time.Time
	done  uint64
}

// progressPause is how often the line is drawn.
const progressPause = 200 * time.Millisecond

// hide takes the line away.
func (b *progress) hide(w io.Writer) {
	if b.shown {
		b.shown = false
		_, _ = io.WriteString(w, "\r\x1b[K")
	}
}

// draw writes the line anew.
func (b *progress) draw(w io.Writer, s progressState, now time.Time) {
	_, _ = io.WriteString(w, "\r\x1b[K"+b.line(s, now))
	b.shown = true
}

// barWidth is how many characters the bar itself has.
const barWidth = 20

// line is the text: a bar, counts, rate and how long the rest will take.
func (b *progress) line(s progressState, now time.Time) string {
	if b.from.IsZero() {
		b.from, b.last = now, now
	}
	if dt := now.Sub(b.last).Seconds(); dt >= 0.1 {
		recent := float64(s.done-b.done) / dt
		mean := float64(s.done) / max(now.Sub(b.from).Seconds(), 0.1)
		// Long commands end rarely: the mean steadies what is recent.
		b.rate, b.last, b.done = b.rate+0.3*(0.5*recent+0.5*mean-b.rate), now, s.done
	}
	share := 1.0
	if s.total > 0 {
		share = float64(s.done) / float64(s.total)
	}
	full := int(share * barWidth)
	text := fmt.Sprintf("%3d%% [%s%s] %d/%d, %d running", int(share*100), strings.Repeat("#", full), strings.Repeat(".", barWidth-full), s.done, s.total, s.running)
	if s.failed > 0 {
		text += fmt.Sprintf(", %d failed", s.failed)
	}
	if s.retried > 0 {
		text += fmt.Sprintf(", %d tried again", s.retried)
	}
	if b.rate > 0 {
		text += fmt.Sprintf(", %.3g/s, %s left", b.rate, timeText(float64(s.total-s.done)/b.rate))
	}
	return text
}
