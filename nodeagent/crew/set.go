package crew

import (
	"maps"
	"slices"
	"sort"

	"gangway/nodeagent/wire"
)

// span is the half-open interval [lo, hi) of indices.
type span struct{ lo, hi uint64 }

// set is a set of executions: indices, by attempt number. It costs memory for
// each gap, not for each execution. Adding and removing is cheap near both ends
// of an attempt's indices, where crews do nearly all of it.
type set map[uint32][]span

func (s set) add(attempt uint32, lo, hi uint64) {
	if lo >= hi {
		return
	}
	list := s[attempt]
	// The spans that touch [lo, hi) become one with it.
	i := sort.Search(len(list), func(i int) bool { return list[i].hi >= lo })
	j := i
	for j < len(list) && list[j].lo <= hi {
		lo, hi = min(lo, list[j].lo), max(hi, list[j].hi)
		j++
	}
	s[attempt] = replace(list, i, j, span{lo, hi})
}

func (s set) remove(attempt uint32, lo, hi uint64) {
	if lo >= hi {
		return
	}
	list := s[attempt]
	i := sort.Search(len(list), func(i int) bool { return list[i].hi > lo })
	j := i
	var rest []span
	for j < len(list) && list[j].lo < hi {
		if list[j].lo < lo {
			rest = append(rest, span{list[j].lo, lo})
		}
		if list[j].hi > hi {
			rest = append(rest, span{hi, list[j].hi})
		}
		j++
	}
	if i == j {
		return
	}
	if list = replace(list, i, j, rest...); len(list) == 0 {
		delete(s, attempt)
		return
	}
	s[attempt] = list
}

// replace puts with in the place of list[i:j]. What is shorter of the two ends
// moves.
func replace(list []span, i, j int, with ...span) []span {
	if d := j - i - len(with); d >= 0 && i < len(list)-j {
		copy(list[d:], list[:i])
		copy(list[i+d:], with)
		return list[d:]
	}
	return slices.Replace(list, i, j, with...)
}

func (s set) has(attempt uint32, index uint64) bool {
	list := s[attempt]
	i := sort.Search(len(list), func(i int) bool { return list[i].hi > index })
	return i < len(list) && list[i].lo <= index
}

// minus calls f with the parts of [lo, hi) that are not in the set, in order.
func (s set) minus(attempt uint32, lo, hi uint64, f func(lo, hi uint64)) {
	list := s[attempt]
	for i := sort.Search(len(list), func(i int) bool { return list[i].hi > lo }); i < len(list) && list[i].lo < hi && lo < hi; i++ {
		if list[i].lo > lo {
			f(lo, list[i].lo)
		}
		lo = max(lo, list[i].hi)
	}
	if lo < hi {
		f(lo, hi)
	}
}

func (s set) addRuns(runs []*wire.Run) {
	for _, r := range runs {
		s.add(r.GetAttempt(), r.GetRange().GetLo(), r.GetRange().GetHi())
	}
}

func (s set) removeRuns(runs []*wire.Run) {
	for _, r := range runs {
		s.remove(r.GetAttempt(), r.GetRange().GetLo(), r.GetRange().GetHi())
	}
}

// runs lists the set by attempt, then by index.
func (s set) runs() []*wire.Run {
	var out []*wire.Run
	for _, a := range slices.Sorted(maps.Keys(s)) {
		for _, p := range s[a] {
			out = append(out, run(a, p.lo, p.hi))
		}
	}
	return out
}

// without lists what is in s and not in o.
func (s set) without(o set) []*wire.Run {
	var out []*wire.Run
	for _, a := range slices.Sorted(maps.Keys(s)) {
		for _, p := range s[a] {
			o.minus(a, p.lo, p.hi, func(lo, hi uint64) { out = append(out, run(a, lo, hi)) })
		}
	}
	return out
}

// common is what is in both.
func (s set) common(o set) set {
	out := set{}
	for a, list := range s {
		for _, p := range list {
			from := p.lo
			o.minus(a, p.lo, p.hi, func(lo, hi uint64) {
				out.add(a, from, lo)
				from = hi
			})
			out.add(a, from, p.hi)
		}
	}
	return out
}

func (s set) empty() bool { return len(s) == 0 }

func run(attempt uint32, lo, hi uint64) *wire.Run {
	return &wire.Run{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: attempt}
}

// length is how many executions runs name.
func length(runs []*wire.Run) uint64 {
	var n uint64
	for _, r := range runs {
		if lo, hi := r.GetRange().GetLo(), r.GetRange().GetHi(); hi > lo {
			n += hi - lo
		}
	}
	return n
}
