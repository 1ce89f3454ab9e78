package job

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"time"
)

// blockFormat is the first byte of a block's row; what follows is, in varints
// of encoding/binary:
//
//	seq, task, attempt        strings with their length before them
//	at                        seconds since 1970 (signed), nanoseconds
//	kinds of outcomes         number, then each as JSON without its range; kind 0, a success, is not among them
//	kinds of tries            number, then each as JSON without its range
//	outcomes, tries           number, then for each: start minus the end before (signed), length, kind
//
// Bytes that follow are left to later versions. The last four bytes are the
// CRC-32C of all before them, least significant first: JSON that is damaged
// mostly shows, runs would not.
const blockFormat = 1

// EncodeBlock returns the row of a block.
func EncodeBlock(b BlockRow) Row {
	out := []byte{blockFormat}
	out = binary.AppendUvarint(out, b.Seq)
	out = appendText(out, b.Task)
	out = appendText(out, b.Attempt)
	out = binary.AppendVarint(out, b.At.Unix())
	out = binary.AppendUvarint(out, uint64(b.At.Nanosecond()))

	done := kinds[Outcome]{same: func(a, b Outcome) bool {
		return a.Success == b.Success && a.ExitCode == b.ExitCode && a.Signal == b.Signal &&
			(a.Reason == b.Reason || reflect.DeepEqual(a.Reason, b.Reason))
	}}
	success := Outcome{Success: true}
	doneRuns := binary.AppendUvarint(nil, uint64(len(b.Done)))
	var end uint64
	for _, o := range b.Done {
		r := o.Range
		o.Range = Range{}
		kind := 0
		if !done.same(o, success) {
			kind = 1 + done.of(o)
		}
		doneRuns = appendRun(doneRuns, end, r, kind)
		end = r.Hi
	}
	again := kinds[Try]{same: func(a, b Try) bool {
		return a.Attempt == b.Attempt && a.Retries == b.Retries && a.Losses == b.Losses && a.Refusals == b.Refusals &&
			a.NotBefore.Equal(b.NotBefore) && slices.Equal(a.Avoid, b.Avoid)
	}}
	againRuns := binary.AppendUvarint(nil, uint64(len(b.Again)))
	end = 0
	for _, t := range b.Again {
		r := t.Range
		t.Range = Range{}
		againRuns = appendRun(againRuns, end, r, again.of(t))
		end = r.Hi
	}
	out = done.append(out)
	out = again.append(out)
	out = append(out, doneRuns...)
	out = append(out, againRuns...)
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
	return Row{Table: TableBlock, Key: BlockKey(b.Task, b.Seq), Value: out}
}

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

func appendRun(out []byte, end uint64, r Range, kind int) []byte {
	out = binary.AppendVarint(out, int64(r.Lo-end)) // wraps, and back when read
	out = binary.AppendUvarint(out, r.Hi-r.Lo)
	return binary.AppendUvarint(out, uint64(kind))
}

// kinds numbers values that differ.
type kinds[T any] struct {
	same func(a, b T) bool
	all  []T
	last int
}

func (k *kinds[T]) of(v T) int {
	if k.last < len(k.all) && k.same(k.all[k.last], v) { // runs of a kind are the rule
		return k.last
	}
	k.last = slices.IndexFunc(k.all, func(x T) bool { return k.same(x, v) })
	if k.last < 0 {
		k.last = len(k.all)
		k.all = append(k.all, v)
	}
	return k.last
}

func (k *kinds[T]) append(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(k.all)))
	for _, v := range k.all {
		text, err := json.Marshal(v)
		if err != nil { // a time beyond the year 9999
			panic(fmt.Sprintf("job: a block's %T can't be encoded: %v", v, err))
		}
		out = append(binary.AppendUvarint(out, uint64(len(text))), text...)
	}
	return out
}

// DecodeBlock reads the row of a block into b, whose slices are used again.
// Outcomes and tries of one kind share what they point to.
func (r Row) DecodeBlock(b *BlockRow) error {
	err := decodeBlock(r.Value, b)
	if err == nil && BlockKey(b.Task, b.Seq) != r.Key {
		err = fmt.Errorf("it holds block %d", b.Seq)
	}
	if err != nil {
		return fmt.Errorf("row %s/%s is damaged: %w; restore the data directory from a backup", r.Table, r.Key, err)
	}
	return nil
}

func decodeBlock(value []byte, b *BlockRow) error {
	if len(value) < 5 || value[0] != blockFormat {
		return errors.New("it is not a block of a known format")
	}
	body := value[:len(value)-4]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(value[len(body):]) {
		return errors.New("its checksum is wrong")
	}
	return decodeBody(body[1:], b)
}

func decodeBody(body []byte, b *BlockRow) error {
	d := decoder{rest: body}
	b.Seq = d.number()
	b.Task = string(d.text())
	b.Attempt = string(d.text())
	seconds := d.signed()
	b.At = time.Unix(seconds, int64(d.number()%1e9)).UTC()
	outcomes := decodeKinds[Outcome](&d, Outcome{Success: true})
	again := decodeKinds[Try](&d)
	b.Done, b.Again = b.Done[:0], b.Again[:0]
	n := d.count(3)
	b.Done = slices.Grow(b.Done, n)
	var end uint64
	for range n {
		r, kind := d.run(end, len(outcomes))
		if d.failed {
			break
		}
		o := outcomes[kind]
		o.Range = r
		b.Done = append(b.Done, o)
		end = r.Hi
	}
	n = d.count(3)
	end = 0
	for range n {
		r, kind := d.run(end, len(again))
		if d.failed {
			break
		}
		t := again[kind]
		t.Range = r
		b.Again = append(b.Again, t)
		end = r.Hi
	}
	if d.failed {
		return errors.New("it ends too soon or names what is not there")
	}
	return nil
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
