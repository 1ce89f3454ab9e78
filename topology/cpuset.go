package topology

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// maxCPU is the highest index a CPUSet holds: eight times what any Linux
// kernel can be built for, small enough that a typing error costs no memory.
const maxCPU = 65535

// CPUSet is a set of small indices: PUs (hardware threads) or NUMA nodes, by
// the operating system's numbers. It is a value: no method changes its
// receiver, and copies never share what can be written. The zero value is the
// empty set. Indices are 0 to 65535.
type CPUSet struct {
	words []uint64 // never written after construction; no trailing zero word
}

// NewCPUSet returns the set of the given indices; those outside 0 to 65535
// are left out.
func NewCPUSet(cpus ...int) CPUSet { return CPUSet{}.Add(cpus...) }

// ParseCPUSet reads the kernel's list format, "0-3,8". The empty string is the
// empty set. Errors name the column.
func ParseCPUSet(s string) (CPUSet, error) {
	if s == "" {
		return CPUSet{}, nil
	}
	var words []uint64
	pos := 0
	bad := func(at int, format string, args ...any) (CPUSet, error) {
		return CPUSet{}, fmt.Errorf("cpu list %q, column %d: %s", clip(s), at+1, fmt.Sprintf(format, args...))
	}
	number := func() (int, bool) {
		n, start := 0, pos
		for pos < len(s) && s[pos] >= '0' && s[pos] <= '9' {
			if n <= maxCPU {
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
			return bad(pos, "expected a cpu number, as in 0-3,8")
		}
		hi := lo
		if pos < len(s) && s[pos] == '-' {
			pos++
			at := pos
			if hi, ok = number(); !ok {
				return bad(at, "expected the last cpu of the range")
			}
			if hi < lo {
				return bad(start, "range %d-%d runs backwards", lo, hi)
			}
		}
		if hi > maxCPU {
			return bad(start, "cpu number above %d", maxCPU)
		}
		words = setRange(words, lo, hi)
		if pos == len(s) {
			return normal(words), nil
		}
		if s[pos] != ',' {
			return bad(pos, "expected ',' or the end, found %q", s[pos])
		}
		pos++
	}
}

// ParseCPUMask reads the kernel's mask format: 32-bit hexadecimal words, the
// highest first, separated by commas ("ffffffff,00000001"). Errors name the
// column.
func ParseCPUMask(s string) (CPUSet, error) {
	parts := strings.Split(s, ",")
	if len(parts) > (maxCPU+1)/32 {
		return CPUSet{}, fmt.Errorf("cpu mask of %d words: more than %d cpus", len(parts), maxCPU+1)
	}
	words := make([]uint64, (len(parts)+1)/2)
	column := 1
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 32)
		if err != nil {
			return CPUSet{}, fmt.Errorf("cpu mask %q, column %d: expected up to 8 hexadecimal digits", clip(s), column)
		}
		n := len(parts) - 1 - i
		words[n/2] |= v << (32 * (n % 2))
		column += len(p) + 1
	}
	return normal(words), nil
}

// String returns the list format, "0-3,8"; the empty set is "".
func (c CPUSet) String() string {
	var b strings.Builder
	cpus := c.Slice()
	for i := 0; i < len(cpus); {
		j := i
		for j+1 < len(cpus) && cpus[j+1] == cpus[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(cpus[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(cpus[j]))
		}
		i = j + 1
	}
	return b.String()
}

// Slice returns the indices, ascending.
func (c CPUSet) Slice() []int {
	out := make([]int, 0, c.Count())
	for w, v := range c.words {
		for ; v != 0; v &= v - 1 {
			out = append(out, w*64+bits.TrailingZeros64(v))
		}
	}
	return out
}

// First returns the lowest index, or -1 of the empty set.
func (c CPUSet) First() int {
	for w, v := range c.words {
		if v != 0 {
			return w*64 + bits.TrailingZeros64(v)
		}
	}
	return -1
}

// Count returns the number of indices.
func (c CPUSet) Count() int {
	n := 0
	for _, v := range c.words {
		n += bits.OnesCount64(v)
	}
	return n
}

// IsEmpty reports whether there is no index in the set.
func (c CPUSet) IsEmpty() bool { return len(c.words) == 0 }

// IsZero is IsEmpty, for encoding/json's omitzero.
func (c CPUSet) IsZero() bool { return c.IsEmpty() }

// Has reports whether cpu is in the set.
func (c CPUSet) Has(cpu int) bool {
	return cpu >= 0 && cpu/64 < len(c.words) && c.words[cpu/64]&(1<<(cpu%64)) != 0
}

// Add returns the set with the indices; those outside 0 to 65535 are left out.
func (c CPUSet) Add(cpus ...int) CPUSet {
	words := append([]uint64(nil), c.words...)
	for _, cpu := range cpus {
		if cpu >= 0 && cpu <= maxCPU {
			words = setRange(words, cpu, cpu)
		}
	}
	return normal(words)
}

// Union returns what is in either set.
func (c CPUSet) Union(o CPUSet) CPUSet {
	if len(o.words) > len(c.words) {
		c, o = o, c
	}
	words := append([]uint64(nil), c.words...)
	for i, v := range o.words {
		words[i] |= v
	}
	return normal(words)
}

// Intersect returns what is in both sets.
func (c CPUSet) Intersect(o CPUSet) CPUSet {
	words := make([]uint64, min(len(c.words), len(o.words)))
	for i := range words {
		words[i] = c.words[i] & o.words[i]
	}
	return normal(words)
}

// Minus returns what is in c and not in o.
func (c CPUSet) Minus(o CPUSet) CPUSet {
	words := append([]uint64(nil), c.words...)
	for i := range min(len(words), len(o.words)) {
		words[i] &^= o.words[i]
	}
	return normal(words)
}

// Equal reports whether both sets hold the same indices.
func (c CPUSet) Equal(o CPUSet) bool {
	if len(c.words) != len(o.words) {
		return false
	}
	for i, v := range c.words {
		if o.words[i] != v {
			return false
		}
	}
	return true
}

// Contains reports whether every index of o is in c.
func (c CPUSet) Contains(o CPUSet) bool { return o.Minus(c).IsEmpty() }

// Overlaps reports whether the sets share an index.
func (c CPUSet) Overlaps(o CPUSet) bool {
	for i := range min(len(c.words), len(o.words)) {
		if c.words[i]&o.words[i] != 0 {
			return true
		}
	}
	return false
}

// MarshalText writes the list format.
func (c CPUSet) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the list format.
func (c *CPUSet) UnmarshalText(b []byte) error {
	v, err := ParseCPUSet(string(b))
	if err != nil {
		return err
	}
	*c = v
	return nil
}

func setRange(words []uint64, lo, hi int) []uint64 {
	for len(words) <= hi/64 {
		words = append(words, 0)
	}
	for w := lo / 64; w <= hi/64; w++ {
		mask := ^uint64(0)
		if w == lo/64 {
			mask &= ^uint64(0) << (lo % 64)
		}
		if w == hi/64 {
			mask &= ^uint64(0) >> (63 - hi%64)
		}
		words[w] |= mask
	}
	return words
}

// normal drops trailing zero words, so that equal sets look equal.
func normal(words []uint64) CPUSet {
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	if len(words) == 0 {
		return CPUSet{}
	}
	return CPUSet{words: words}
}

// clip shortens input that an error message quotes.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
