package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pair is a measurement between two members, a < b.
type Pair struct {
	A       int           `json:"a"`
	B       int           `json:"b"`
	Latency time.Duration `json:"latency"` // of a round trip, the median
	Rate    float64       `json:"rate"`    // bytes a second, the slower of both ways
	Err     string        `json:"err,omitempty"`
}

// Rounds returns who measures with whom: in each round every member is in at
// most one pair, and no pair comes twice. All pairs are in it if that takes no
// more than limit rounds; otherwise limit of them, spread evenly over the
// distances between members. It is the round-robin tournament by the circle
// method.
func Rounds(members, limit int) [][][2]int {
	if members < 2 || limit < 1 {
		return nil
	}
	n := members + members%2
	all := n - 1
	take := min(all, limit)
	out := make([][][2]int, 0, take)
	for k := range take {
		r := k * all / take
		var round [][2]int
		for i := range n / 2 {
			a, b := (r+i)%(n-1), (r+n-1-i)%(n-1)
			if i == 0 {
				b = n - 1
			}
			if a > b {
				a, b = b, a
			}
			if b < members {
				round = append(round, [2]int{a, b})
			}
		}
		out = append(out, round)
	}
	return out
}

// Partners returns the members that index dials in fast mode: the next one, and
// those 2, 4, 8, … further on the ring. That the primary is reached is shown by
// the gang's coming together.
func Partners(index, members int) []int {
	var out []int
	add := func(k int) {
		if k != index && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	if members < 2 {
		return nil
	}
	for d := 1; d < members; d *= 2 {
		add((index + d) % members)
	}
	return out
}

// Scale of what counts as an outlier: so many times the spread of the others
// (the median absolute deviation, scaled to a normal distribution's sigma), and
// by so much of the median at least, for the spread of equal nodes is next to 0.
const (
	outlierSigmas = 6
	madToSigma    = 1.4826
	slowLatency   = 2.0 // times the median
	slowRate      = 0.5
	// leastLatency is what a busy machine's scheduler adds now and then.
	leastLatency = 200 * time.Microsecond
)

// Judge names the nodes that are slower than the others by far. A node is
// judged by the median of its pairs, so that a slow partner does not make it
// slow; with fewer than four partners by its best. Of two nodes none can be
// named.
func Judge(pairs []Pair, name func(member int) string) []Finding {
	type score struct {
		member        int
		latency, rate float64
	}
	latencies, rates := map[int][]float64{}, map[int][]float64{}
	var found []Finding
	for _, p := range pairs {
		if p.Err != "" {
			found = append(found, Finding{Level: Warning, Check: "bandwidth", Nodes: []string{name(p.A)},
				Message: fmt.Sprintf("measuring with %s failed: %s", name(p.B), p.Err), Hint: "look at the network between them"})
			continue
		}
		for _, m := range []int{p.A, p.B} {
			latencies[m] = append(latencies[m], float64(p.Latency))
			rates[m] = append(rates[m], p.Rate)
		}
	}
	var all []score
	for m := range latencies {
		s := score{member: m, latency: median(latencies[m]), rate: median(rates[m])}
		if len(latencies[m]) < 4 {
			s.latency, s.rate = slices.Min(latencies[m]), slices.Max(rates[m])
		}
		all = append(all, s)
	}
	if len(all) < 3 {
		return found
	}
	slices.SortFunc(all, func(a, b score) int { return cmp.Compare(a.member, b.member) })
	var ls, rs []float64
	for _, s := range all {
		ls, rs = append(ls, s.latency), append(rs, s.rate)
	}
	ml, mr := median(ls), median(rs)
	dl, dr := outlierSigmas*madToSigma*mad(ls, ml), outlierSigmas*madToSigma*mad(rs, mr)
	const hint = "look at the node's cable, switch port and driver, or leave it out"
	for _, s := range all {
		if s.latency > max(ml*slowLatency, ml+dl, ml+float64(leastLatency)) {
			found = append(found, Finding{Level: Warning, Check: "latency", Nodes: []string{name(s.member)}, Hint: hint,
				Message: fmt.Sprintf("a round trip takes %s, in the middle of all nodes %s", micros(s.latency), micros(ml))})
		}
		if s.rate < min(mr*slowRate, mr-dr) || s.rate < mr*slowRate/2 {
			found = append(found, Finding{Level: Warning, Check: "bandwidth", Nodes: []string{name(s.member)}, Hint: hint,
				Message: fmt.Sprintf("%s, in the middle of all nodes %s", rate(s.rate), rate(mr))})
		}
	}
	return found
}

// Summary is the measurements in a short table, the slowest pairs named.
func Summary(pairs []Pair, name func(member int) string) string {
	var good []Pair
	for _, p := range pairs {
		if p.Err == "" {
			good = append(good, p)
		}
	}
	if len(good) == 0 {
		return ""
	}
	var ls, rs []float64
	for _, p := range good {
		ls, rs = append(ls, float64(p.Latency)), append(rs, p.Rate)
	}
	worst := slices.MaxFunc(good, func(a, b Pair) int { return cmp.Compare(a.Latency, b.Latency) })
	least := slices.MinFunc(good, func(a, b Pair) int { return cmp.Compare(a.Rate, b.Rate) })
	var b strings.Builder
	fmt.Fprintf(&b, "%d pairs of nodes measured, one TCP stream with TLS each\n", len(good))
	fmt.Fprintf(&b, "  %-10s %12s %12s %12s  %s\n", "", "best", "median", "worst", "worst pair")
	fmt.Fprintf(&b, "  %-10s %12s %12s %12s  %s-%s\n", "round trip", micros(slices.Min(ls)), micros(median(ls)), micros(slices.Max(ls)), name(worst.A), name(worst.B))
	fmt.Fprintf(&b, "  %-10s %12s %12s %12s  %s-%s", "bandwidth", rate(slices.Max(rs)), rate(median(rs)), rate(slices.Min(rs)), name(least.A), name(least.B))
	return b.String()
}

func median(in []float64) float64 {
	s := slices.Sorted(slices.Values(in))
	if len(s) == 0 {
		return 0
	}
	k := len(s) / 2
	if len(s)%2 == 1 {
		return s[k]
	}
	return (s[k-1] + s[k]) / 2
}

func mad(in []float64, m float64) float64 {
	var d []float64
	for _, v := range in {
		d = append(d, max(v-m, m-v))
	}
	return median(d)
}

func micros(ns float64) string { return fmt.Sprintf("%.0f µs", ns/1000) }

func rate(v float64) string { return fmt.Sprintf("%.4g MB/s", v/1e6) }
