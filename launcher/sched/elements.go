package sched

import (
	"strings"

	"gangway/launcher/job"
)

// elements places the elements of an array, each by itself, up to the first that
// waits: those behind it wait with it, so that a plan looks at no more elements
// than it places, and one.
func (p *planner) elements(w *Pending) {
	of, _, _ := strings.Cut(w.Name, "/")
	for i := w.Try.Lo; i < w.Try.Hi; i++ {
		one := *w
		one.At, one.Spec = nil, w.At(i)
		one.Name = of + "/" + one.Spec.ID
		one.Try.Range = job.Range{Lo: i, Hi: i + 1}
		before := len(p.out.Waiting)
		p.pending(&one)
		if len(p.out.Waiting) > before {
			p.out.Waiting[before].Range.Hi = w.Try.Hi
			return
		}
	}
}
