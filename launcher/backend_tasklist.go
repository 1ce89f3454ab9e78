package launcher

import (
	"context"
	"slices"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// listedTask is an entry of a list: a task, or an array, whose elements are listed.
type listedTask struct {
	view  int // place in the views, if it is no array
	array *elements
	from  uint64 // first element
}

func (b *backend) Tasks(ctx context.Context, jobID string, q batchapi.TaskQuery) ([]batchapi.Task, error) {
	from, element, err := elementCursor(q.After)
	if err != nil {
		return nil, err
	}
	out := make([]batchapi.Task, 0, q.Limit)
	for from >= 0 && len(out) < q.Limit {
		var list []listedTask
		var views []taskView
		if list, views, from, err = b.someTasks(ctx, jobID, &q, from, element, q.Limit-len(out)); err != nil {
			return nil, err
		}
		element = 0
		if err := b.recall(views); err != nil {
			return nil, err
		}
		for _, l := range list {
			if l.array == nil {
				out = append(out, b.taskOf(&views[l.view]))
				continue
			}
			page, err := l.array.page(ctx, l.from, &q, q.Limit-len(out))
			if err != nil {
				return nil, err
			}
			if out = append(out, page...); len(out) == q.Limit {
				break
			}
		}
	}
	return out, nil
}

// maxArrays is how many arrays are looked at between two events.
const maxArrays = 64

// someTasks collects the next entries of a list, and where the rest begins; -1:
// there is none.
func (b *backend) someTasks(ctx context.Context, jobID string, q *batchapi.TaskQuery, from int, element uint64, want int) (list []listedTask, views []taskView, next int, err error) {
	next = -1
	arrays, sure := 0, 0
	err = b.read(ctx, func(c *state.Cluster) error {
		j, err := b.jobByID(ctx, c, jobID)
		if err != nil {
			return err
		}
		c.EachTask(j.Row.UID, from, func(s state.TaskStatus) bool {
			if sure >= want || arrays == maxArrays {
				next = s.Row.Index
				return false
			}
			if hasElements(s.Spec) {
				var l listedTask
				if s.Row.Index == from {
					l.from = element
				}
				window := job.Range{Lo: l.from, Hi: s.Spec.Range.Hi}
				if q.Limit == 0 { // only the tasks themselves are of interest
					window = job.Range{}
				}
				l.array = b.elementsOf(c, &j, s, window)
				list = append(list, l)
				arrays++
				if q.Match == nil && s.Spec.Range.Hi > l.from {
					sure += int(min(s.Spec.Range.Hi-max(l.from, s.Spec.Range.Lo), uint64(want)))
				}
			} else if len(q.States) == 0 || slices.Contains(q.States, s.State) {
				list = append(list, listedTask{view: len(views)})
				views = append(views, viewOf(c, &j, s))
				sure++
			}
			return true
		})
		return nil
	})
	return list, views, next, err
}
