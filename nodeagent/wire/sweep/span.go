package sweep

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Span is a range of numbers, both ends included. Ends and step are decimals as
// written (12, -0.5, 1e-3), at most 18 digits. Steps are exact: every value has
// as many decimals as the most precise of the three, and zeros in front where
// an end has them, as 001. Values of Count and Log have 12 digits at most.
type Span struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Step  string `json:"step,omitempty"`  // "" without Count: 1 or -1
	Count uint64 `json:"count,omitempty"` // so many values at equal distances, instead of Step
	Log   bool   `json:"log,omitempty"`   // with Count: at equal ratios; both ends above 0
}

// decimal is m × 10^-scale.
type decimal struct {
	m     int64
	scale int // 0 to 18
	width int // digits of a whole number that is written with zeros in front
}

// most is the largest amount of a decimal's m: sums and differences of two fit.
const most = 1_000_000_000_000_000_000

func parseDecimal(s string) (decimal, bool) {
	var d decimal
	t := strings.TrimLeft(s, "+-")
	if len(s)-len(t) > 1 || t == "" || len(s) > 40 {
		return d, false
	}
	mantissa, exponent, has := strings.Cut(strings.ToLower(t), "e")
	if has {
		e, err := strconv.Atoi(exponent)
		if err != nil || e < -18 || e > 18 {
			return d, false
		}
		d.scale = -e
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	if whole+fraction == "" || point && fraction == "" {
		return d, false
	}
	if !point && !has && len(whole) > 1 && whole[0] == '0' {
		d.width = len(whole)
	}
	d.scale += len(fraction)
	for _, b := range []byte(whole + fraction) {
		if b < '0' || b > '9' || d.m >= most/10 {
			return d, false
		}
		d.m = d.m*10 + int64(b-'0')
	}
	if s[0] == '-' {
		d.m = -d.m
	}
	if d.scale < 0 {
		var ok bool
		if d.m, ok = shift(d.m, -d.scale); !ok {
			return d, false
		}
		d.scale = 0
	}
	return d, d.scale <= 18
}

// shift returns m × 10^n, if it is no more than most.
func shift(m int64, n int) (int64, bool) {
	for range n {
		if m > most/10 || m < -most/10 {
			return 0, false
		}
		m *= 10
	}
	return m, true
}

func (d decimal) float() float64 { return float64(d.m) / math.Pow10(d.scale) }

func (d decimal) append(dst []byte) []byte {
	var digits [24]byte
	u := uint64(d.m)
	if d.m < 0 {
		dst = append(dst, '-')
		u = -u
	}
	b := strconv.AppendUint(digits[:0], u, 10)
	for n := len(b); n < max(d.width, d.scale+1); n++ {
		dst = append(dst, '0')
	}
	if d.scale == 0 {
		return append(dst, b...)
	}
	whole := max(len(b)-d.scale, 0)
	dst = append(dst, b[:whole]...)
	// The zeros that were put in front may lie on both sides of the point: of a
	// number below 1 all but one are decimals.
	if whole == 0 {
		zeros := d.scale - len(b)
		dst = dst[:len(dst)-zeros]
		dst = append(dst, '.')
		for range zeros {
			dst = append(dst, '0')
		}
		return append(dst, b...)
	}
	dst = append(dst, '.')
	return append(dst, b[whole:]...)
}

// steps is a Span as numbers.
type steps struct {
	from, to, step decimal // all of one scale
	count          uint64
	log            bool
}

func (s *Span) steps() (steps, error) {
	var r steps
	var ok bool
	read := func(text, what string) (decimal, error) {
		d, ok := parseDecimal(text)
		if !ok {
			return d, fmt.Errorf("%s %.60q is no number, or one of more than 18 digits", what, text)
		}
		return d, nil
	}
	var err error
	if r.from, err = read(s.From, "begin"); err != nil {
		return r, err
	}
	if r.to, err = read(s.To, "end"); err != nil {
		return r, err
	}
	r.count, r.log = s.Count, s.Log
	if s.Count > 0 || s.Log {
		switch {
		case s.Step != "":
			return r, fmt.Errorf("has a step and a count")
		case s.Count == 0:
			return r, fmt.Errorf("equal ratios need a count")
		case s.Count == 1 && r.from.float() != r.to.float():
			return r, fmt.Errorf("a count of 1 can't reach from %s to %s", s.From, s.To)
		case s.Log && (r.from.m <= 0 || r.to.m <= 0):
			return r, fmt.Errorf("equal ratios need both ends above 0")
		}
		return r, nil
	}
	if s.Step != "" {
		if r.step, err = read(s.Step, "step"); err != nil {
			return r, err
		}
	} else {
		r.step.m = 1
	}
	scale := max(r.from.scale, r.to.scale, r.step.scale)
	width := 0
	if scale == 0 {
		width = max(r.from.width, r.to.width)
	}
	for _, d := range []*decimal{&r.from, &r.to, &r.step} {
		if d.m, ok = shift(d.m, scale-d.scale); !ok {
			return r, fmt.Errorf("ends and step have more than 18 digits together")
		}
		d.scale, d.width = scale, width
	}
	if s.Step == "" && r.to.m < r.from.m {
		r.step.m = -r.step.m
	}
	if r.step.m == 0 {
		return r, fmt.Errorf("step is 0")
	}
	if r.to.m != r.from.m && (r.to.m > r.from.m) != (r.step.m > 0) {
		return r, fmt.Errorf("step %s leads away from the end %s", s.Step, s.To)
	}
	r.count = uint64((r.to.m-r.from.m)/r.step.m) + 1
	return r, nil
}

func (s *Span) length() uint64 {
	r, err := s.steps()
	if err != nil {
		return 0
	}
	return r.count
}

func (s *Span) check(place, name string) error {
	r, err := s.steps()
	if err != nil {
		return fault(place, name, err.Error(), "a range is from 1 to 10, or from 0 to 1 in steps of 0.1")
	}
	if r.count > Limit {
		return fault(place, name, fmt.Sprintf("has %d values; at most %d are possible", r.count, Limit), "split it into several tasks")
	}
	return nil
}

func (r *steps) append(dst []byte, i uint64) []byte {
	switch {
	case r.step.m != 0:
		d := r.from
		d.m += int64(i) * r.step.m
		return d.append(dst)
	case i == 0:
		return appendFloat(dst, r.from.float())
	case i == r.count-1:
		return appendFloat(dst, r.to.float())
	}
	part := float64(i) / float64(r.count-1)
	a, b := r.from.float(), r.to.float()
	if r.log {
		return appendFloat(dst, a*math.Exp(float64(part*math.Log(b/a))))
	}
	// The conversions keep the compiler from fusing the two, which would round
	// otherwise on other processors.
	return appendFloat(dst, float64(a*(1-part))+float64(b*part))
}

// appendFloat writes x with 12 digits at most: launcher and node may be different
// processors, whose functions differ in the last bits.
func appendFloat(dst []byte, x float64) []byte {
	if x == 0 {
		return append(dst, '0') // not -0
	}
	if a := math.Abs(x); a >= 1e-6 && a < 1e15 {
		n := len(dst)
		decimals := 11 - int(math.Floor(math.Log10(a)))
		dst = strconv.AppendFloat(dst, x, 'f', max(decimals, 0), 64)
		if decimals > 0 {
			end := len(dst)
			for end > n && dst[end-1] == '0' {
				end--
			}
			if dst[end-1] == '.' {
				end--
			}
			dst = dst[:end]
		}
		return dst
	}
	return strconv.AppendFloat(dst, x, 'g', 12, 64)
}
