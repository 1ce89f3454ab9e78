package state

import (
	"slices"
	"sort"

	"gangway/launcher/job"
)

// ranges is a set of indices: disjoint, sorted, no two of them adjacent.
type ranges []job.Range

func (s ranges) len() uint64 {
	var n uint64
	for _, r := range s {
		n += r.Len()
	}
	return n
}

// after is the index of the first range that ends after x.
func (s ranges) after(x uint64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].Hi > x })
}

func (s ranges) overlaps(r job.Range) bool {
	i := s.after(r.Lo)
	return r.Len() > 0 && i < len(s) && s[i].Lo < r.Hi
}

// add returns the union with r.
func (s ranges) add(r job.Range) ranges {
	if r.Len() == 0 {
		return s
	}
	i := sort.Search(len(s), func(i int) bool { return s[i].Hi >= r.Lo }) // the first that touches r
	j := i
	for j < len(s) && s[j].Lo <= r.Hi {
		r.Lo, r.Hi = min(r.Lo, s[j].Lo), max(r.Hi, s[j].Hi)
		j++
	}
	return slices.Replace(s, i, j, r)
}

// remove returns the set without r.
func (s ranges) remove(r job.Range) ranges {
	if !s.overlaps(r) {
		return s
	}
	i := s.after(r.Lo)
	j := i
	var keep []job.Range
	for j < len(s) && s[j].Lo < r.Hi {
		if s[j].Lo < r.Lo {
			keep = append(keep, job.Range{Lo: s[j].Lo, Hi: r.Lo})
		}
		if s[j].Hi > r.Hi {
			keep = append(keep, job.Range{Lo: r.Hi, Hi: s[j].Hi})
		}
		j++
	}
	return slices.Replace(s, i, j, keep...)
}

// missing returns the parts of r that are not in the set.
func (s ranges) missing(r job.Range) []job.Range {
	var out []job.Range
	for i := s.after(r.Lo); r.Len() > 0; i++ {
		if i == len(s) || s[i].Lo >= r.Hi {
			return append(out, r)
		}
		if s[i].Lo > r.Lo {
			out = append(out, job.Range{Lo: r.Lo, Hi: s[i].Lo})
		}
		r.Lo = min(s[i].Hi, r.Hi)
	}
	return out
}

// tries are runs of pending elements: disjoint, sorted, and as long as can be,
// so that the same elements with the same history always look the same.
type tries []job.Try

func (s tries) len() uint64 {
	var n uint64
	for _, t := range s {
		n += t.Len()
	}
	return n
}

func (s tries) after(x uint64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].Hi > x })
}

// find returns the run that holds all of r.
func (s tries) find(r job.Range) (job.Try, bool) {
	if i := s.after(r.Lo); i < len(s) && s[i].Range.Contains(r) && r.Len() > 0 {
		return s[i], true
	}
	return job.Try{}, false
}

// remove takes r out.
func (s tries) remove(r job.Range) tries {
	if r.Len() == 0 {
		return s
	}
	i := s.after(r.Lo)
	j := i
	var keep []job.Try
	for j < len(s) && s[j].Lo < r.Hi {
		t := s[j]
		if t.Lo < r.Lo {
			left := t
			left.Hi = r.Lo
			keep = append(keep, left)
		}
		if t.Hi > r.Hi {
			right := t
			right.Lo = r.Hi
			keep = append(keep, right)
		}
		j++
	}
	return slices.Replace(s, i, j, keep...)
}

// put adds t, none of whose elements may be there yet.
func (s tries) put(t job.Try) tries {
	if t.Len() == 0 {
		return s
	}
	i := s.after(t.Lo)
	j := i
	if i < len(s) && s[i].Lo == t.Hi && t.SameHistory(s[i]) {
		t.Hi = s[i].Hi
		j++
	}
	if i > 0 && s[i-1].Hi == t.Lo && t.SameHistory(s[i-1]) {
		t.Lo = s[i-1].Lo
		i--
	}
	return slices.Replace(s, i, j, t)
}

// within returns the parts of the runs that are in r.
func (s tries) within(r []job.Range) []job.Try {
	var out []job.Try
	for _, t := range s {
		for i := ranges(r).after(t.Lo); i < len(r) && r[i].Lo < t.Hi; i++ {
			hit := t
			hit.Lo, hit.Hi = max(t.Lo, r[i].Lo), min(t.Hi, r[i].Hi)
			out = append(out, hit)
		}
	}
	return out
}
