package job

import "slices"

// Crewed reports whether crews run the task's elements: it is an array of single
// tasks that all need the same. The task must be resolved.
func (t *TaskSpec) Crewed() bool {
	return t.Kind == Single && t.Range.Len() > 1 && len(t.Vary) == 0
}

// Wanted returns what of Open the crew shall still start or finish: all but what
// it is asked to give back.
func (c *CrewRow) Wanted() []Try {
	if len(c.Back) == 0 {
		return slices.Clone(c.Open)
	}
	out := make([]Try, 0, len(c.Open))
	for _, t := range c.Open {
		out = cutOut(out, t, c.Back)
	}
	return out
}

// cutOut appends t without the ranges of back, which are sorted and disjoint.
func cutOut(out []Try, t Try, back []Range) []Try {
	i, _ := slices.BinarySearchFunc(back, t.Lo, func(r Range, lo uint64) int {
		if r.Hi <= lo {
			return -1
		}
		return 1
	})
	for ; i < len(back) && back[i].Lo < t.Hi; i++ {
		if back[i].Lo > t.Lo {
			left := t
			left.Hi = back[i].Lo
			out = append(out, left)
		}
		t.Lo = min(max(t.Lo, back[i].Hi), t.Hi)
	}
	if t.Len() > 0 {
		out = append(out, t)
	}
	return out
}
