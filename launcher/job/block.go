package job

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
)

// The first byte of a block's row is its format. Format 2 holds the blocks of one
// task with consecutive places in its history: mostly one, or several that were
// merged. In varints of encoding/binary:
//
//	task                  a string with its length before it
//	origins               number, then for each: attempt, node
//	kinds of outcomes     number, then each as JSON without its range; kind 0, a success, is not among them
//	kinds of tries        number, then each as JSON without its range
//	blocks                number, then for each:
//	  seq                 minus that of the block before
//	  origin
//	  at                  seconds since 1970, minus those of the block before (signed); nanoseconds
//	  outcomes, tries     number, then for each: start minus the end before (signed), length, kind
//	  ends of tries       likewise: how those of the tries' elements ended
//	  costs               length in bytes (0: none), then appendCosts
//	  last lines          length in bytes, then number and for each: index minus the one before (signed), text
//
// Format 1 holds one block: seq, task, attempt, at, both kinds, outcomes, tries.
// It is still read.
//
// Bytes that follow are left to later versions. The last four bytes are the
// CRC-32C of all before them, least significant first: JSON that is damaged
// mostly shows, runs would not.
const (
	blockFormat1 = 1
	blockFormat2 = 2
)

// origin is where a block's elements ran.
type origin struct{ attempt, node string }

// EncodeBlock returns the row of a block.
func EncodeBlock(b BlockRow) Row { return EncodeBlocks([]BlockRow{b}) }

// EncodeBlocks returns the one row of a task's blocks, of which there is at least
// one. They are in the order of their numbers; the row's key is the first one's.
func EncodeBlocks(blocks []BlockRow) Row {
	w := blockWriter{
		done: kinds[Outcome]{all: []Outcome{{Success: true}}, same: func(a, b *Outcome) bool {
			return a.Success == b.Success && a.ExitCode == b.ExitCode && a.Signal == b.Signal &&
				(a.Reason == b.Reason || reflect.DeepEqual(a.Reason, b.Reason))
		}},
		again: kinds[Try]{same: func(a, b *Try) bool { return a.SameHistory(*b) }},
	}
	w.body = binary.AppendUvarint(w.body, uint64(len(blocks)))
	for i := range blocks {
		w.add(&blocks[i])
	}
	out := make([]byte, 1, len(w.body)+256)
	out[0] = blockFormat2
	out = appendText(out, blocks[0].Task)
	out = binary.AppendUvarint(out, uint64(len(w.origins)))
	for _, o := range w.origins {
		out = appendText(appendText(out, o.attempt), o.node)
	}
	out = w.done.append(out, 1)
	out = w.again.append(out, 0)
	out = append(out, w.body...)
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
	return Row{Table: TableBlock, Key: BlockKey(blocks[0].Task, blocks[0].Seq), Value: out}
}

// blockWriter gathers blocks and the values that they share.
type blockWriter struct {
	body    []byte
	origins []origin
	done    kinds[Outcome]
	again   kinds[Try]
	seq     uint64
	at      int64
	scratch []byte
}

func (w *blockWriter) add(b *BlockRow) {
	out := binary.AppendUvarint(w.body, b.Seq-w.seq)
	o := origin{b.Attempt, b.Node}
	at := slices.Index(w.origins, o)
	if at < 0 {
		at = len(w.origins)
		w.origins = append(w.origins, o)
	}
	out = binary.AppendUvarint(out, uint64(at))
	out = binary.AppendVarint(out, b.At.Unix()-w.at)
	out = binary.AppendUvarint(out, uint64(b.At.Nanosecond()))
	w.seq, w.at = b.Seq, b.At.Unix()
	out = w.outcomes(out, b.Done)
	out = binary.AppendUvarint(out, uint64(len(b.Again)))
	var end uint64
	for i := range b.Again {
		t := &b.Again[i]
		out = appendRun(out, end, t.Range, w.again.of(t))
		end = t.Hi
	}
	out = w.outcomes(out, b.Was)
	if b.Costs == nil {
		out = append(out, 0)
	} else {
		w.scratch = appendCosts(w.scratch[:0], b.Costs, b.At.UnixMicro())
		out = append(binary.AppendUvarint(out, uint64(len(w.scratch))), w.scratch...)
	}
	w.scratch = w.scratch[:0]
	if len(b.Last) > 0 {
		w.scratch = binary.AppendUvarint(w.scratch, uint64(len(b.Last)))
		var before uint64
		for _, l := range b.Last {
			w.scratch = appendText(binary.AppendVarint(w.scratch, int64(l.Index-before)), l.Text)
			before = l.Index
		}
	}
	w.body = append(binary.AppendUvarint(out, uint64(len(w.scratch))), w.scratch...)
}

func (w *blockWriter) outcomes(out []byte, all []Outcome) []byte {
	out = binary.AppendUvarint(out, uint64(len(all)))
	var end uint64
	for i := range all {
		o := &all[i]
		kind := 0
		if !o.Success || o.ExitCode != 0 || o.Signal != 0 || o.Reason != nil {
			kind = w.done.of(o)
		}
		out = appendRun(out, end, o.Range, kind)
		end = o.Hi
	}
	return out
}

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

func appendRun(out []byte, end uint64, r Range, kind int) []byte {
	out = binary.AppendVarint(out, int64(r.Lo-end)) // wraps, and back when read
	out = binary.AppendUvarint(out, r.Hi-r.Lo)
	return binary.AppendUvarint(out, uint64(kind))
}

// kinds numbers values that differ in more than their range.
type kinds[T any] struct {
	same func(a, b *T) bool
	all  []T
	last int
}

func (k *kinds[T]) of(v *T) int {
	if k.last < len(k.all) && k.same(&k.all[k.last], v) { // runs of a kind are the rule
		return k.last
	}
	for i := range k.all {
		if k.same(&k.all[i], v) {
			k.last = i
			return i
		}
	}
	k.last = len(k.all)
	k.all = append(k.all, *v)
	return k.last
}

// append adds the kinds but for the first ones, which readers know.
func (k *kinds[T]) append(out []byte, known int) []byte {
	out = binary.AppendUvarint(out, uint64(len(k.all)-known))
	for _, v := range k.all[known:] {
		switch x := any(&v).(type) {
		case *Outcome:
			x.Range = Range{}
		case *Try:
			x.Range = Range{}
		}
		text, err := json.Marshal(v)
		if err != nil { // a time beyond the year 9999
			panic(fmt.Sprintf("job: a block's %T can't be encoded: %v", v, err))
		}
		out = append(binary.AppendUvarint(out, uint64(len(text))), text...)
	}
	return out
}
