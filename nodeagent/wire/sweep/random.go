package sweep

import (
	"fmt"
	"math"
	"sort"
	"strconv"
)

// Draw is a distribution.
type Draw string

// The distributions.
const (
	Uniform     Draw = "uniform"     // [Low, High)
	Integer     Draw = "integer"     // Low to High, both included
	Normal      Draw = "normal"      // of Mean and SD
	Lognormal   Draw = "lognormal"   // its logarithm is normal, of Mean and SD
	Exponential Draw = "exponential" // of Mean
	Choice      Draw = "choice"      // one of Values
)

// Random is a column of random values. The value of a position follows from
// Seed, the column's name and the position alone, so that an element can be
// drawn again, anywhere, without the others. Values have 12 digits at most.
type Random struct {
	Draw    Draw      `json:"draw"`
	Low     float64   `json:"low,omitempty"` // of Integer whole numbers up to 2^53
	High    float64   `json:"high,omitempty"`
	Mean    float64   `json:"mean,omitempty"`
	SD      float64   `json:"sd,omitempty"`
	Values  []string  `json:"values,omitempty"`
	Weights []float64 `json:"weights,omitempty"` // of Values; nil: all alike
	Seed    uint64    `json:"seed,omitempty"`
	Count   uint64    `json:"count,omitempty"` // values of the axis; 0: in Sweep.Each
}

func (r *Random) check(place, name string) error {
	bad := func(format string, a ...any) error { return fault(place, name, fmt.Sprintf(format, a...), "") }
	for _, x := range []float64{r.Low, r.High, r.Mean, r.SD} {
		if math.IsNaN(x) || math.IsInf(x, 0) || math.Abs(x) > 1e300 {
			return bad("%v is no number to draw with", x)
		}
	}
	if r.Count > Limit {
		return bad("%d values; at most %d are possible", r.Count, Limit)
	}
	switch r.Draw {
	case Uniform:
		if r.Low >= r.High {
			return bad("low %v is not below high %v", r.Low, r.High)
		}
	case Integer:
		if r.Low > r.High {
			return bad("low %v is above high %v", r.Low, r.High)
		}
		if r.Low != math.Trunc(r.Low) || r.High != math.Trunc(r.High) || max(math.Abs(r.Low), math.Abs(r.High)) > 1<<53 {
			return bad("low %v and high %v are not both whole numbers up to 2^53", r.Low, r.High)
		}
	case Normal, Lognormal:
		if r.SD < 0 {
			return bad("sd %v is negative", r.SD)
		}
		if r.Draw == Lognormal && math.Abs(r.Mean)+10*r.SD > 600 {
			return bad("mean %v and sd %v are beyond what a number holds", r.Mean, r.SD)
		}
	case Exponential:
		if r.Mean <= 0 {
			return bad("mean %v is not above 0", r.Mean)
		}
	case Choice:
		return r.checkChoice(place, name)
	default:
		return fault(place, name, fmt.Sprintf("unknown distribution %.60q", r.Draw), "known are uniform, integer, normal, lognormal, exponential and choice")
	}
	return nil
}

func (r *Random) checkChoice(place, name string) error {
	if len(r.Values) == 0 || len(r.Values) > MaxChoice {
		return fault(place, name, fmt.Sprintf("a choice of %d values", len(r.Values)), fmt.Sprintf("give 1 to %d", MaxChoice))
	}
	if r.Weights != nil {
		sum := 0.0
		for _, w := range r.Weights {
			if !(w >= 0 && w <= 1e300) {
				return fault(place, name, fmt.Sprintf("weight %v", w), "weights are numbers from 0 on")
			}
			sum += w
		}
		if len(r.Weights) != len(r.Values) || sum <= 0 || math.IsInf(sum, 0) {
			return fault(place, name, fmt.Sprintf("%d weights of sum %v for %d values", len(r.Weights), sum, len(r.Values)), "give one for each, some above 0")
		}
	}
	return checkValues(place, name, r.Values)
}

// draws is a Random ready to draw.
type draws struct {
	*Random
	key uint64
	cum []float64 // sums of the weights
}

func newDraws(r *Random, name string) *draws {
	// FNV-1a: two columns of one seed are to differ.
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	d := &draws{Random: r, key: mix(r.Seed ^ mix(h))}
	sum := 0.0
	for _, w := range r.Weights {
		sum += w
		d.cum = append(d.cum, sum)
	}
	return d
}

// mix is the finalizer of SplitMix64: every bit of x turns half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (d *draws) append(dst []byte, i uint64) []byte {
	bits := mix(d.key + i*0x9e3779b97f4a7c15)
	u := (float64(bits>>11) + 0.5) / (1 << 53) // within (0, 1)
	switch d.Draw {
	case Uniform:
		return appendFloat(dst, d.Low+float64(u*(d.High-d.Low)))
	case Integer:
		n := uint64(int64(d.High)-int64(d.Low)) + 1 // 2^54 + 1 at most: the bias of % is below 2^-9 of one value
		return strconv.AppendInt(dst, int64(d.Low)+int64(bits%n), 10)
	case Normal:
		return appendFloat(dst, d.normal(u))
	case Lognormal:
		return appendFloat(dst, math.Exp(d.normal(u)))
	case Exponential:
		return appendFloat(dst, -d.Mean*math.Log(u))
	}
	if d.cum == nil {
		return append(dst, d.Values[bits%uint64(len(d.Values))]...)
	}
	x := u * d.cum[len(d.cum)-1]
	at := sort.Search(len(d.cum), func(k int) bool { return d.cum[k] > x })
	return append(dst, d.Values[min(at, len(d.Values)-1)]...)
}

func (d *draws) normal(u float64) float64 {
	return d.Mean + float64(d.SD*math.Sqrt2*math.Erfinv(2*u-1))
}
