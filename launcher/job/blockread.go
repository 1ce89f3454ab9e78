package job

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// BlockReader reads the blocks of one row after the other. Its zero value is
// ready for Open, which may be called again and again.
type BlockReader struct {
	row      Row
	d        decoder
	task     string
	origins  []origin
	outcomes []Outcome
	again    []Try
	left     uint64 // blocks
	old      bool   // of format 1
	begun    bool   // Next was called
	seq      uint64
	at       int64
	now      time.Time // of the block
	costs    []byte
	last     []byte
	reader   CostReader
	err      error
}

// Open begins to read a row; it must not change until the next one.
func (r *BlockReader) Open(row Row) error {
	reader := r.reader
	*r = BlockReader{row: row, reader: reader, origins: r.origins[:0]}
	v := row.Value
	switch {
	case len(v) < 5 || v[0] != blockFormat1 && v[0] != blockFormat2:
		return r.failed(errors.New("it is not a block of a known format"))
	case crc32.Checksum(v[:len(v)-4], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(v[len(v)-4:]):
		return r.failed(errors.New("its checksum is wrong"))
	}
	return r.open(v[0], v[1:len(v)-4])
}

func (r *BlockReader) open(format byte, body []byte) error {
	r.d = decoder{rest: body}
	if format == blockFormat1 {
		r.old, r.left = true, 1
		return nil
	}
	r.task = string(r.d.text())
	for range r.d.count(2) {
		r.origins = append(r.origins, origin{string(r.d.text()), string(r.d.text())})
	}
	r.outcomes = decodeKinds(&r.d, Outcome{Success: true})
	r.again = decodeKinds[Try](&r.d)
	r.left = uint64(r.d.count(9))
	if r.d.failed {
		return r.failed(errShort)
	}
	return nil
}

var errShort = errors.New("it ends too soon or names what is not there")

func (r *BlockReader) failed(err error) error {
	r.left = 0
	r.err = fmt.Errorf("row %s/%s is damaged: %w; restore the data directory from a backup", r.row.Table, r.row.Key, err)
	return r.err
}

// Err is what was wrong with the row, nil if nothing was.
func (r *BlockReader) Err() error { return r.err }

// Next reads the next block into b, whose slices are used again, all but its
// Costs and Last; false: there is none, or it is damaged. Outcomes and tries of
// one kind share what they point to.
func (r *BlockReader) Next(b *BlockRow) bool {
	if r.left == 0 {
		return false
	}
	r.left--
	d := &r.d
	first := !r.begun
	r.begun = true
	b.Costs, b.Last, b.Was = nil, nil, b.Was[:0]
	r.costs, r.last = nil, nil
	if r.old {
		b.Seq, b.Task, b.Attempt, b.Node = d.number(), string(d.text()), string(d.text()), ""
		r.at = d.signed()
		r.now = time.Unix(r.at, int64(d.number()%1e9)).UTC()
		r.outcomes = decodeKinds(d, Outcome{Success: true})
		r.again = decodeKinds[Try](d)
		b.Done, b.Again = r.runs(b.Done), r.tries(b.Again)
	} else {
		r.seq += d.number()
		b.Seq, b.Task = r.seq, r.task
		o := d.number()
		if o >= uint64(len(r.origins)) {
			d.fail()
		} else {
			b.Attempt, b.Node = r.origins[o].attempt, r.origins[o].node
		}
		r.at += d.signed()
		r.now = time.Unix(r.at, int64(d.number()%1e9)).UTC()
		b.Done, b.Again = r.runs(b.Done), r.tries(b.Again)
		b.Was = r.runs(b.Was)
		r.costs, r.last = d.text(), d.text()
	}
	b.At = r.now
	switch {
	case d.failed:
		_ = r.failed(errShort)
	case first && r.row.Key != "" && BlockKey(b.Task, b.Seq) != r.row.Key:
		_ = r.failed(fmt.Errorf("it holds block %d", b.Seq))
	}
	return r.err == nil
}

// Costs are those of the block that Next returned, until its next call.
func (r *BlockReader) Costs() (*CostReader, error) {
	if !r.reader.open(r.costs, r.now.UnixMicro()) {
		r.reader.n = 0
		return &r.reader, r.failed(errors.New("its costs end too soon"))
	}
	return &r.reader, nil
}

// Last are the last lines of the block that Next returned.
func (r *BlockReader) Last() ([]LastLine, error) {
	if len(r.last) == 0 {
		return nil, nil
	}
	d := decoder{rest: r.last}
	var out []LastLine
	var before uint64
	for range d.count(2) {
		before += uint64(d.signed())
		out = append(out, LastLine{Index: before, Text: string(d.text())})
	}
	if d.failed {
		return nil, r.failed(errors.New("its last lines end too soon"))
	}
	return out, nil
}

// DecodeBlocks returns all blocks of a row, with all that is in them.
func (r Row) DecodeBlocks() ([]BlockRow, error) {
	var in BlockReader
	if err := in.Open(r); err != nil {
		return nil, err
	}
	out := make([]BlockRow, 0, in.left)
	for {
		var b BlockRow
		if !in.Next(&b) {
			return out, in.Err()
		}
		k, err := in.Costs()
		if err != nil {
			return nil, err
		}
		b.Costs = k.all()
		if b.Last, err = in.Last(); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
}

// runs reads outcomes into a slice that is used again.
func (r *BlockReader) runs(out []Outcome) []Outcome {
	n := r.d.count(3)
	out = slices.Grow(out[:0], n)
	var end uint64
	for range n {
		run, kind := r.d.run(end, len(r.outcomes))
		if r.d.failed {
			break
		}
		o := r.outcomes[kind]
		o.Range = run
		out = append(out, o)
		end = run.Hi
	}
	return out
}

func (r *BlockReader) tries(out []Try) []Try {
	n := r.d.count(3)
	out = slices.Grow(out[:0], n)
	var end uint64
	for range n {
		run, kind := r.d.run(end, len(r.again))
		if r.d.failed {
			break
		}
		t := r.again[kind]
		t.Range = run
		out = append(out, t)
		end = run.Hi
	}
	return out
}

// decoder reads a block's parts; once one has failed, all that follow are zero.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) fail() {
	d.rest, d.failed = nil, true
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads how many things of at least size bytes follow.
func (d *decoder) count(size int) int {
	n := d.number()
	if n > uint64(len(d.rest)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() []byte {
	n := d.count(1)
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) run(end uint64, kinds int) (Range, int) {
	lo := end + uint64(d.signed())
	hi := lo + d.number()
	kind := d.number()
	if kind >= uint64(kinds) {
		d.fail()
		return Range{}, 0
	}
	return Range{Lo: lo, Hi: hi}, int(kind)
}

func decodeKinds[T any](d *decoder, first ...T) []T {
	out := first
	for range d.count(1) {
		var v T
		if json.Unmarshal(d.text(), &v) != nil {
			d.fail()
		}
		out = append(out, v)
	}
	return out
}
