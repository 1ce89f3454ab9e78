package crew

import (
	"fmt"
	"strconv"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// memoryGroup limits what a slot's element may have. It is the slot's for the
// crew's life; its counters go on from element to element.
type memoryGroup struct{ g *proc.MemoryGroup }

func (m *memoryGroup) group() *proc.MemoryGroup {
	if m == nil {
		return nil
	}
	return m.g
}

func (m *memoryGroup) close() error {
	if m == nil {
		return nil
	}
	return m.g.Close()
}

// limitMemory makes the slots' memory groups, or says once that there are none.
func (w *Crew) limitMemory() {
	if w.c.Memory == 0 {
		return
	}
	for i, s := range w.slots {
		g, err := proc.NewMemoryGroup(w.c.Group+"-"+strconv.Itoa(i), w.c.Memory)
		if err != nil {
			w.h.Notice(true, fmt.Sprintf("%s: elements may have %d bytes of memory each: %v", w.c.Node, w.c.Memory, err))
			return
		}
		s.memory = &memoryGroup{g}
	}
}

// memoryBefore notes what the slot's group says before an element.
func (w *Crew) memoryBefore(e *element) {
	if m := w.slots[e.slot].memory; m != nil {
		e.kills, _ = m.g.OOMKills()
		_ = m.g.ResetPeak() // older kernels can't: then it is the slot's peak so far
	}
}

// measure reads of the slot's group what an element took.
func (w *Crew) measure(e *element, r *result) {
	m := w.slots[e.slot].memory
	if m == nil {
		return
	}
	if peak, err := m.g.Peak(); err == nil {
		r.rss = max(r.rss, peak>>10)
	}
	if kills, err := m.g.OOMKills(); err == nil && kills > e.kills && r.bad() {
		r.failure = &wire.Failure{Code: wire.FailureCode_FAILURE_MEMORY, Node: w.c.Node,
			Message: fmt.Sprintf("the element reached its memory limit of %d bytes", w.c.Memory), Hint: "ask for more memory for each element"}
	}
}
