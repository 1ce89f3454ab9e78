package launcher

import (
	"sync"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
)

// filled returns what fills in the command and the rest of what differs between
// the elements of a sweep.
func (e *elements) filled() func(t *batchapi.Task, index uint64) {
	if e.task.Spec.Sweep == nil {
		return func(*batchapi.Task, uint64) {}
	}
	expander, err := e.b.expanders.of(e.task.Spec)
	return func(t *batchapi.Task, index uint64) {
		if err != nil { // it was checked when it came in: show it as it is
			return
		}
		if one, err := expander.At(index); err == nil {
			t.Spec = one.Resolve()
		}
	}
}

// maxExpanders bounds how many sweeps are kept ready: a page should not read one
// of millions of lines anew.
const maxExpanders = 16

// expanders keeps sweeps ready, by their tasks' specifications.
type expanders struct {
	mu  sync.Mutex
	all map[*job.TaskSpec]*job.Expander
}

func (x *expanders) of(spec *job.TaskSpec) (*job.Expander, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.all[spec]; e != nil {
		return e, nil
	}
	e, err := spec.Expander()
	if err != nil {
		return nil, err
	}
	if x.all == nil || len(x.all) >= maxExpanders {
		x.all = map[*job.TaskSpec]*job.Expander{}
	}
	x.all[spec] = e
	return e, nil
}
