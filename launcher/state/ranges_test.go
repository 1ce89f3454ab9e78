package state

import (
	"testing"

	"pgregory.net/rapid"

	"gangway/launcher/job"
)

const width = 24

func drawRange(t *rapid.T) job.Range {
	lo := rapid.Uint64Range(0, width).Draw(t, "lo")
	return job.Range{Lo: lo, Hi: rapid.Uint64Range(lo, width).Draw(t, "hi")}
}

// TestRangesAsBits compares sets of ranges with arrays of bits.
func TestRangesAsBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s ranges
		var bits [width]bool
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			r := drawRange(t)
			s = s.add(r)
			for i := r.Lo; i < r.Hi; i++ {
				bits[i] = true
			}
			n := uint64(0)
			for _, b := range bits {
				if b {
					n++
				}
			}
			if s.len() != n {
				t.Fatalf("%v has %d elements, want %d", s, s.len(), n)
			}
			for i := 1; i < len(s); i++ {
				if s[i-1].Hi >= s[i].Lo {
					t.Fatalf("%v is badly kept", s)
				}
			}
			q := drawRange(t)
			any, missing := false, uint64(0)
			for i := q.Lo; i < q.Hi; i++ {
				any = any || bits[i]
				if !bits[i] {
					missing++
				}
			}
			if s.overlaps(q) != any {
				t.Fatalf("%v overlaps %v: %t", s, q, !any)
			}
			for _, m := range s.missing(q) {
				missing -= m.Len()
				if m.Len() == 0 || s.overlaps(m) || !q.Contains(m) {
					t.Fatalf("%v: %v is said to be missing of %v", s, m, q)
				}
			}
			if missing != 0 {
				t.Fatalf("%v: %d more are missing of %v than said", s, missing, q)
			}
		}
	})
}

// TestTriesAsElements compares runs of tries with one try an element.
func TestTriesAsElements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s tries
		var attempts [width]uint32 // 0: not there
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			r := drawRange(t)
			s = s.remove(r)
			n := rapid.Uint32Range(0, 2).Draw(t, "attempt")
			if n > 0 {
				s = s.put(job.Try{Range: r, Attempt: n})
			}
			for i := r.Lo; i < r.Hi; i++ {
				attempts[i] = n
			}
			var got [width]uint32
			for i, x := range s {
				if x.Len() == 0 || i > 0 && s[i-1].Hi > x.Lo {
					t.Fatalf("%v is out of order", s)
				}
				if i > 0 && s[i-1].Hi == x.Lo && s[i-1].Attempt == x.Attempt {
					t.Fatalf("%v is not as short as can be", s)
				}
				for k := x.Lo; k < x.Hi; k++ {
					got[k] = x.Attempt
				}
			}
			if got != attempts {
				t.Fatalf("%v, want %v", got, attempts)
			}
			q := drawRange(t)
			x, ok := s.find(q)
			whole := q.Len() > 0
			for i := q.Lo; i < q.Hi; i++ {
				whole = whole && attempts[i] == attempts[q.Lo] && attempts[i] > 0
			}
			if ok != whole || ok && !x.Range.Contains(q) {
				t.Fatalf("%v: find(%v) = %v, %t", s, q, x, ok)
			}
		}
	})
}
