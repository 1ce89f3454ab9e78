package history

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
)

// Times is a histogram of run times, exact to about 3 %.
type Times struct {
	N        uint64
	Min, Max time.Duration
	Sum      time.Duration
	counts   []uint64 // by slot
}

// subSlots is how many slots an octave has, as a power of two.
const subSlots = 4

// slot is the histogram's slot of so many microseconds.
func slot(us uint64) int {
	e := bits.Len64(us)
	if e <= subSlots {
		return int(us)
	}
	return (e-subSlots-1)<<subSlots + int(us>>(e-subSlots-1))
}

// least is the least value of a slot, in microseconds.
func least(s int) uint64 {
	if s < 1<<(subSlots+1) {
		return uint64(s)
	}
	e := s>>subSlots - 1
	return uint64(s&(1<<subSlots-1)|1<<subSlots) << e
}

// Add counts one run.
func (t *Times) Add(d time.Duration) {
	us := uint64(max(d, 0) / time.Microsecond)
	if t.N == 0 || d < t.Min {
		t.Min = d
	}
	t.Max = max(t.Max, d)
	t.N++
	t.Sum += d
	s := slot(us)
	if s >= len(t.counts) {
		t.counts = append(t.counts, make([]uint64, s+1-len(t.counts))...)
	}
	t.counts[s]++
}

// Join counts the runs of another one in.
func (t *Times) Join(o *Times) {
	if o.N == 0 {
		return
	}
	if t.N == 0 || o.Min < t.Min {
		t.Min = o.Min
	}
	t.Max = max(t.Max, o.Max)
	t.N, t.Sum = t.N+o.N, t.Sum+o.Sum
	if len(o.counts) > len(t.counts) {
		t.counts = append(t.counts, make([]uint64, len(o.counts)-len(t.counts))...)
	}
	for s, n := range o.counts {
		t.counts[s] += n
	}
}

// Quantile returns the time within which the part q (0 to 1) of the runs ended;
// 0 if there are none.
func (t *Times) Quantile(q float64) time.Duration {
	if t.N == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(t.N)))
	var n uint64
	for _, s := range t.slots() {
		if n += t.counts[s]; n >= max(rank, 1) {
			mid := time.Duration((least(s)+least(s+1))/2) * time.Microsecond
			return min(max(mid, t.Min), t.Max)
		}
	}
	return t.Max
}

func (t *Times) slots() []int {
	var all []int
	for s, n := range t.counts {
		if n > 0 {
			all = append(all, s)
		}
	}
	return all
}

// Bucket is how many runs took at least From and less than To.
type Bucket struct {
	From  time.Duration `json:"from"`
	To    time.Duration `json:"to"`
	Count uint64        `json:"count"`
}

// Buckets are those of a logarithmic scale, 1, 2, 5, 10, …, without the empty ones
// at both ends.
func (t *Times) Buckets() []Bucket {
	var out []Bucket
	from, step := time.Duration(0), time.Microsecond
	mantissas := []time.Duration{1, 2, 5}
	slots := t.slots()
	for i := 0; len(slots) > 0; i++ { // to 5e18 ns, which is above longest
		b := Bucket{From: from, To: mantissas[i%3] * step}
		for len(slots) > 0 && time.Duration(least(slots[0]))*time.Microsecond < b.To {
			b.Count += t.counts[slots[0]]
			slots = slots[1:]
		}
		if b.Count > 0 || len(out) > 0 {
			out = append(out, b)
		}
		from = b.To
		if i%3 == 2 {
			step *= 10
		}
	}
	return out
}

// Failure is a group of elements that failed alike.
type Failure struct {
	Exit, Signal int
	Reason       job.Code
	Detail       string // of the first one's reason
	Line         string // last of stderr, with what varies masked; "": not said
	Count        uint64
	Index        uint64 // of the first one that was seen, and its node and line
	Node         string
	Example      string
}

// Summary is what the ends of an array's elements come to.
type Summary struct {
	Times    Times
	CPU      time.Duration // of all
	RSS      uint64        // KiB, the largest
	Failures []Failure     // the largest group first
	Recent   uint64        // ended since Query
	First    time.Time     // the earliest start; zero: none
	Ended    time.Time     // the latest end
}

// maxFailures bounds the groups of a summary; what comes after is counted by its
// exit alone.
const maxFailures = 4096

type failureKey struct {
	exit, signal int
	code         job.Code
	line         string
}

// Summarize sums a task's elements up. recent is since when those are counted that
// ended lately.
func (h *History) Summarize(ctx context.Context, task string, recent time.Time) (*Summary, error) {
	for {
		s, err := h.summarize(ctx, task, recent)
		if !errors.Is(err, errMoved) {
			return s, err
		}
		h.Forget(task)
	}
}

func (h *History) summarize(ctx context.Context, task string, recent time.Time) (*Summary, error) {
	entries, taken, err := h.find(task, func(_ *index, e *entry) bool { return e.done > 0 })
	if err != nil {
		return nil, err
	}
	z := summarizer{Summary: &Summary{}, groups: map[failureKey]*Failure{}, taken: taken, recent: recent}
	for part := range slices.Chunk(entries, 64) {
		rows, err := h.read(task, part)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if err := z.row(r); err != nil {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if z.n > 0 {
		z.First, z.Ended = time.UnixMicro(z.from).UTC(), time.UnixMicro(z.to).UTC()
	}
	for _, f := range z.groups {
		z.Failures = append(z.Failures, *f)
	}
	slices.SortFunc(z.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Index, b.Index))
	})
	return z.Summary, nil
}

type summarizer struct {
	*Summary
	groups map[failureKey]*Failure
	taken  []takenBack
	recent time.Time
	n      uint64
	from   int64 // unix microseconds: the first began, the last ended
	to     int64
	in     job.BlockReader
	b      job.BlockRow
}

func (z *summarizer) row(r job.Row) error {
	if err := z.in.Open(r); err != nil {
		return err
	}
	for z.in.Next(&z.b) {
		if err := z.block(); err != nil {
			return err
		}
	}
	return z.in.Err()
}

func (z *summarizer) block() error {
	b := &z.b
	costs, err := z.in.Costs()
	if err != nil {
		return err
	}
	var lines map[uint64]string
	at := places{again: b.Again}
	for i := range b.Done {
		o := &b.Done[i]
		pos := at.of(o.Range)
		if b.At.After(z.recent) {
			z.Recent += o.Len()
		}
		for x := range o.Len() {
			if len(z.taken) > 0 && back(z.taken, b.Seq, o.Lo+x) {
				continue
			}
			if p := pos + x; p < uint64(costs.Len()) {
				z.cost(costs.At(int(p)))
			}
		}
		if o.Success {
			continue
		}
		if lines == nil {
			lines = map[uint64]string{}
			last, err := z.in.Last()
			if err != nil {
				return err
			}
			for _, l := range last {
				lines[l.Index] = l.Text
			}
		}
		for x := o.Lo; x < o.Hi; x++ {
			if len(z.taken) > 0 && back(z.taken, b.Seq, x) {
				continue
			}
			line, ok := lines[x]
			n := uint64(1)
			if len(lines) == 0 && len(z.taken) == 0 { // alike, all of them
				n = o.Len()
			}
			z.failure(o, n, x, line, ok)
			x += n - 1
		}
	}
	return nil
}

// longest bounds what a damaged clock may say, in microseconds.
const longest = 1 << 52

func (z *summarizer) cost(c job.Cost) {
	wall := time.Duration(min(c.Wall, longest)) * time.Microsecond
	z.Times.Add(wall)
	z.CPU += time.Duration(c.CPU) * time.Microsecond
	z.RSS = max(z.RSS, c.RSS)
	end := c.Start + int64(min(c.Wall, longest))
	if z.n == 0 || c.Start < z.from {
		z.from = c.Start
	}
	if z.n == 0 || end > z.to {
		z.to = end
	}
	z.n++
}

func (z *summarizer) failure(o *job.Outcome, n, index uint64, line string, told bool) {
	k := failureKey{exit: o.ExitCode, signal: o.Signal}
	detail := ""
	if o.Reason != nil {
		k.code, detail = o.Reason.Code, o.Reason.Detail
	}
	if told && len(z.groups) < maxFailures {
		k.line = Mask(line)
	}
	f := z.groups[k]
	if f == nil {
		f = &Failure{Exit: k.exit, Signal: k.signal, Reason: k.code, Detail: detail, Line: k.line, Index: index, Node: z.b.Node, Example: line}
		z.groups[k] = f
	}
	f.Count += n
}

// Mask puts # in the place of numbers and hexadecimal digits, so that lines which
// differ in nothing else are alike.
func Mask(line string) string {
	var out strings.Builder
	out.Grow(len(line))
	for i := 0; i < len(line); {
		if !alphanumeric(line[i]) {
			out.WriteByte(line[i])
			i++
			continue
		}
		j, digit, hex := i, false, true
		for j < len(line) && alphanumeric(line[j]) {
			c := line[j]
			digit = digit || c >= '0' && c <= '9'
			hex = hex && (c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' || (c == 'x' || c == 'X') && j == i+1 && line[i] == '0')
			j++
		}
		maskWord(&out, line[i:j], digit && hex)
		i = j
	}
	return out.String()
}

// maskWord writes a word: a hexadecimal number as one #, else # for each of its
// runs of digits.
func maskWord(out *strings.Builder, w string, number bool) {
	if number {
		out.WriteByte('#')
		return
	}
	for i := range len(w) {
		if d := w[i] >= '0' && w[i] <= '9'; !d {
			out.WriteByte(w[i])
		} else if i == 0 || w[i-1] < '0' || w[i-1] > '9' {
			out.WriteByte('#')
		}
	}
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
