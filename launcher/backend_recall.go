package launcher

import (
	"sync"

	"gangway/launcher/job"
)

// recallLimit is half of how many attempts of history are kept decoded: a few
// MiB. Clients that poll list the same tasks again and again.
const recallLimit = 8192

// recalled holds attempts that have been read from the history. They are over,
// and their names are never reused: what is here stays true. Nobody may change
// what it returns. When the younger half is full it becomes the older one.
type recalled struct {
	mu         sync.Mutex
	young, old map[string]*job.AttemptRow
}

func (r *recalled) get(id string) *job.AttemptRow {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.young[id]; a != nil {
		return a
	}
	a := r.old[id]
	if a != nil {
		r.add(id, a)
	}
	return a
}

func (r *recalled) put(id string, a *job.AttemptRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(id, a)
}

func (r *recalled) add(id string, a *job.AttemptRow) {
	if len(r.young) >= recallLimit {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = map[string]*job.AttemptRow{}
	}
	r.young[id] = a
}
