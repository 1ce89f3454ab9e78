package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// FormatRanks writes ascending ranks as a list: "7", "0-3", and with a step where
// at least three are equally far apart, "0-12/4"; items are separated by commas.
// A gang dealt in rounds over equal nodes has one item a node. No ranks: "".
func FormatRanks(ranks []int) string {
	var b strings.Builder
	for i := 0; i < len(ranks); {
		j, step := i, 1
		if i+1 < len(ranks) {
			step = ranks[i+1] - ranks[i]
			for j+1 < len(ranks) && ranks[j+1]-ranks[j] == step {
				j++
			}
			if step != 1 && j < i+2 {
				j, step = i, 1
			}
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(ranks[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(ranks[j]))
			if step != 1 {
				b.WriteByte('/')
				b.WriteString(strconv.Itoa(step))
			}
		}
		i = j + 1
	}
	return b.String()
}

// ParseRanks reads what FormatRanks writes, ranks 0 to below limit, ascending.
// The empty string is no ranks. Errors name the column.
func ParseRanks(s string, limit int) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	var out []int
	pos, next := 0, 0
	bad := func(at int, format string, args ...any) ([]int, error) {
		return nil, fmt.Errorf("rank list %q, column %d: %s", clip(s), at+1, fmt.Sprintf(format, args...))
	}
	number := func() (n int, ok bool) {
		start := pos
		for pos < len(s) && s[pos] >= '0' && s[pos] <= '9' {
			if n < limit {
				n = n*10 + int(s[pos]-'0')
			}
			pos++
		}
		return n, pos > start
	}
	for {
		start := pos
		lo, ok := number()
		if !ok {
			return bad(pos, "expected a rank, as in 0-3,8")
		}
		hi, step := lo, 1
		if pos < len(s) && s[pos] == '-' {
			pos++
			at := pos
			if hi, ok = number(); !ok {
				return bad(at, "expected the last rank of the range")
			}
			if pos < len(s) && s[pos] == '/' {
				pos++
				at := pos
				if step, ok = number(); !ok || step == 0 {
					return bad(at, "expected the step between two ranks, at least 1")
				}
			}
		}
		switch {
		case hi < lo:
			return bad(start, "range %d-%d runs backwards", lo, hi)
		case hi >= limit:
			return bad(start, "a rank that is not below %d", limit)
		case lo < next:
			return bad(start, "rank %d does not follow those before it", lo)
		}
		for n := lo; n <= hi; n += step {
			out = append(out, n)
			next = n + 1
		}
		if pos == len(s) {
			return out, nil
		}
		if s[pos] != ',' {
			return bad(pos, "expected ',' or the end, found %q", s[pos])
		}
		pos++
	}
}

// DealRanks deals ranks over nodes in rounds: each round gives one rank to every
// node that has fewer than its count, in the nodes' order, as Slurm's cyclic
// distribution does. It returns each node's ranks, ascending. Counts below 1
// get none.
func DealRanks(counts []int) [][]int {
	out := make([][]int, len(counts))
	var open []int
	for i, n := range counts {
		if n > 0 {
			out[i] = make([]int, 0, n)
			open = append(open, i)
		}
	}
	for rank := 0; len(open) > 0; {
		kept := open[:0]
		for _, i := range open {
			out[i] = append(out[i], rank)
			rank++
			if len(out[i]) < counts[i] {
				kept = append(kept, i)
			}
		}
		open = kept
	}
	return out
}
