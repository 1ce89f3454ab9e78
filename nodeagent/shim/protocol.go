package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The rank wrapper and the remote shell speak to their node's shim over the
// socket rankSocket in the gang's directory. A wrapper is on the path of every
// rank's start, so what they say is small and made by hand: a kind, the body's
// length (4 bytes, big endian), the body. The body of most kinds is a record;
// that of the remote shell's streams is the bytes themselves. Both ends are
// always the same binary: there are no versions.

// Sockets in the gang's directory.
const (
	agentSocket = "shim.sock"
	rankSocket  = "rank.sock"
)

// Kinds.
const (
	kindRank    = 'R' // wrapper: rank, size, pid
	kindPlace   = 'P' // shim: NUMA nodes…; program, directory, cpus, env…; with stdin, stdout, stderr
	kindRefused = 'E' // shim: exit status; why
	kindStarted = 'S' // wrapper: the program's pid; why its memory is not placed, if so
	kindFailed  = 'F' // wrapper: exit status; why the program did not start
	kindExited  = 'X' // wrapper: status, signal, peak bytes, user µs, system µs

	kindShell = 'H' // remote shell: host, command
	kindIn    = 'i' // its streams
	kindInEnd = 'z'
	kindOut   = 'o'
	kindErr   = 'e'
	kindDone  = 'x' // exit status, signal
)

// maxBody is the longest body: an environment is limited by the kernel to
// about 6 MiB.
const maxBody = 8 << 20

var errTooLong = errors.New("message longer than the protocol allows")

func frameOf(kind byte, body []byte) []byte {
	b := make([]byte, 5, 5+len(body))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)))
	return append(b, body...)
}

func writeMsg(w io.Writer, kind byte, body []byte) error {
	if len(body) > maxBody {
		return errTooLong
	}
	_, err := w.Write(frameOf(kind, body))
	return err
}

// readMsg returns io.EOF only between messages.
func readMsg(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxBody {
		return 0, nil, errTooLong
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return head[0], body, nil
}

// record is a list of numbers and a list of strings.
type record struct {
	nums []int64
	strs []string
}

func (r record) encode() []byte {
	size := 2 * binary.MaxVarintLen64 * (len(r.nums) + 2)
	for _, s := range r.strs {
		size += binary.MaxVarintLen32 + len(s)
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(b, uint64(len(r.nums)))
	for _, n := range r.nums {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(r.strs)))
	for _, s := range r.strs {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// decodeRecord reads a record that has at least the given numbers of parts.
func decodeRecord(b []byte, nums, strs int) (record, error) {
	var r record
	bad := func() (record, error) { return record{}, fmt.Errorf("malformed message of %d bytes", len(b)) }
	rest := b
	count := func() (int, bool) {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > uint64(len(rest)) {
			return 0, false
		}
		rest = rest[n:]
		return int(v), v <= uint64(len(rest))
	}
	n, ok := count()
	if !ok {
		return bad()
	}
	for range n {
		v, k := binary.Varint(rest)
		if k <= 0 {
			return bad()
		}
		rest = rest[k:]
		r.nums = append(r.nums, v)
	}
	if n, ok = count(); !ok {
		return bad()
	}
	for range n {
		l, ok := count()
		if !ok {
			return bad()
		}
		r.strs = append(r.strs, string(rest[:l]))
		rest = rest[l:]
	}
	if len(rest) > 0 || len(r.nums) < nums || len(r.strs) < strs {
		return bad()
	}
	return r, nil
}
