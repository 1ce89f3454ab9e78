package job

import (
	"encoding/binary"
	"math/bits"
)

// Costs of a block are stored in chunks of costChunk elements, so that those of
// one can be read without those of all. Their number is first, as a varint. A
// chunk has five columns: attempt, start, wall, CPU and RSS. A column is its least
// value minus that of the chunk before (signed varint; start begins at the
// block's own time in microseconds), the number of bits that the largest
// difference from it needs, and the differences in so many bits each, least
// significant first, in whole bytes.
const (
	costChunk   = 128
	costColumns = 5
)

// Cost is what one execution of an element took.
type Cost struct {
	Attempt uint32 // number of the attempt
	Start   int64  // unix microseconds, the node's clock
	Wall    uint64 // microseconds
	CPU     uint64 // microseconds, user and system
	RSS     uint64 // KiB, of the largest process
}

// Len is the number of elements.
func (k *Costs) Len() int { return len(k.Wall) }

// Add appends what an element took.
func (k *Costs) Add(c Cost) {
	k.Attempt = append(k.Attempt, c.Attempt)
	k.Start = append(k.Start, c.Start)
	k.Wall = append(k.Wall, c.Wall)
	k.CPU = append(k.CPU, c.CPU)
	k.RSS = append(k.RSS, c.RSS)
}

// appendCosts appends costs whose columns have the same length.
func appendCosts(out []byte, k *Costs, at int64) []byte {
	n := k.Len()
	out = binary.AppendUvarint(out, uint64(n))
	least := [costColumns]uint64{1: uint64(at)}
	var col [costChunk]uint64
	var packed [costChunk*8 + 8]byte
	for lo := 0; lo < n; lo += costChunk {
		m := min(costChunk, n-lo)
		for c := range costColumns {
			v := col[:m]
			switch c {
			case 0:
				for i, x := range k.Attempt[lo : lo+m] {
					v[i] = uint64(x)
				}
			case 1:
				for i, x := range k.Start[lo : lo+m] {
					v[i] = uint64(x)
				}
			case 2:
				copy(v, k.Wall[lo:])
			case 3:
				copy(v, k.CPU[lo:])
			case 4:
				copy(v, k.RSS[lo:])
			}
			low := v[0]
			for _, x := range v[1:] {
				if int64(x) < int64(low) { // times may be before 1970
					low = x
				}
			}
			var all uint64
			for i := range v {
				v[i] -= low
				all |= v[i]
			}
			width := bits.Len64(all)
			out = binary.AppendVarint(out, int64(low-least[c]))
			least[c] = low
			out = append(out, byte(width))
			if width == 0 {
				continue
			}
			size := (m*width + 7) / 8
			clear(packed[:size+8])
			for i, x := range v {
				p := i * width
				b, shift := p/8, uint(p%8)
				binary.LittleEndian.PutUint64(packed[b:], binary.LittleEndian.Uint64(packed[b:])|x<<shift)
				if shift+uint(width) > 64 {
					packed[b+8] |= byte(x >> (64 - shift))
				}
			}
			out = append(out, packed[:size]...)
		}
	}
	return out
}

// CostReader reads the costs of a block by the elements' places in it. Its zero
// value has none.
type CostReader struct {
	n      int
	chunks []costPlace
	raw    []byte
	chunk  int // decoded in col; from 1, 0: none
	col    [costColumns][costChunk]uint64
	pad    [costChunk*8 + 16]byte
}

// Span returns bounds of when the elements began and ended, in unix microseconds.
// The first is exact, the last may be too late.
func (r *CostReader) Span() (from, to int64) {
	for i := range r.chunks {
		p := &r.chunks[i]
		start, wall := int64(p.least[1]), p.least[2]+p.most[1]
		if end := start + int64(p.most[0]+wall); i == 0 || end > to {
			to = end
		}
		if i == 0 || start < from {
			from = start
		}
	}
	return from, to
}

type costPlace struct {
	most  [2]uint64 // by which starts and walls may be above their least
	at    int       // in raw
	least [costColumns]uint64
}

// Len is the number of elements.
func (r *CostReader) Len() int { return r.n }

// open begins to read costs; false: they are damaged.
func (r *CostReader) open(raw []byte, at int64) bool {
	r.n, r.chunk, r.chunks, r.raw = 0, 0, r.chunks[:0], raw
	if len(raw) == 0 {
		return true
	}
	n, size := binary.Uvarint(raw)
	// A chunk has at least two bytes for each of its columns.
	if size <= 0 || n > uint64(len(raw)/(2*costColumns)*costChunk) {
		return false
	}
	pos := size
	least := [costColumns]uint64{1: uint64(at)}
	for lo := 0; lo < int(n); lo += costChunk {
		p := costPlace{at: pos}
		for c := range costColumns {
			delta, size := binary.Varint(raw[pos:])
			if size <= 0 || pos+size >= len(raw) || raw[pos+size] > 64 {
				return false
			}
			least[c] += uint64(delta)
			width := int(raw[pos+size])
			if c == 1 || c == 2 {
				p.most[c-1] = 1<<width - 1
			}
			pos += size + 1 + (min(costChunk, int(n)-lo)*width+7)/8
			if pos > len(raw) {
				return false
			}
		}
		p.least = least
		r.chunks = append(r.chunks, p)
	}
	r.n = int(n)
	return true
}

// At returns what the element at place i, below Len, took.
func (r *CostReader) At(i int) Cost {
	if k := i / costChunk; r.chunk != k+1 {
		r.decode(k)
	}
	i %= costChunk
	return Cost{Attempt: uint32(r.col[0][i]), Start: int64(r.col[1][i]), Wall: r.col[2][i], CPU: r.col[3][i], RSS: r.col[4][i]}
}

// decode reads one chunk.
func (r *CostReader) decode(k int) {
	p := &r.chunks[k]
	m := min(costChunk, r.n-k*costChunk)
	pos := p.at
	for c := range costColumns {
		_, size := binary.Varint(r.raw[pos:])
		width := int(r.raw[pos+size])
		pos += size + 1
		v, low := r.col[c][:m], p.least[c]
		if width == 0 {
			for i := range v {
				v[i] = low
			}
			continue
		}
		bytes := (m*width + 7) / 8
		copy(r.pad[:], r.raw[pos:pos+bytes])
		pos += bytes
		mask := ^uint64(0) >> (64 - width)
		for i := range v {
			at := i * width
			b, shift := at/8, uint(at%8)
			x := binary.LittleEndian.Uint64(r.pad[b:]) >> shift
			if shift+uint(width) > 64 {
				x |= uint64(r.pad[b+8]) << (64 - shift)
			}
			v[i] = x&mask + low
		}
	}
	r.chunk = k + 1
}

// all returns all costs.
func (r *CostReader) all() *Costs {
	if r.n == 0 {
		return nil
	}
	k := &Costs{Attempt: make([]uint32, 0, r.n), Start: make([]int64, 0, r.n), Wall: make([]uint64, 0, r.n),
		CPU: make([]uint64, 0, r.n), RSS: make([]uint64, 0, r.n)}
	for i := range r.n {
		k.Add(r.At(i))
	}
	return k
}
