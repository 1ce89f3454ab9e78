package pmi

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// What nodes exchange is what their ranks have put since the last barrier. The
// addresses of a node's ranks are written in hexadecimal and differ in few places,
// and each node of a big gang gets all of them: so a part tells of a pair only what
// differs from the pair before it, of those whose value is as long, and half a
// byte for a digit. docs/decisions/046 has the figures.
//
// A part is the number of its pairs, then of each pair the lengths of key and
// value, the key and the value; parts one after the other are a list, so that those
// of several nodes need no more than to be put together. A text is, until it is
// complete, the length of a run of bytes equal to those of the earlier text at the
// same places, and a run of others: twice its length, and one more if it is written
// as packed hexadecimal digits. Numbers are unsigned varints.

// pair is a key and its value.
type pair struct{ key, value string }

// encoder makes a part.
type encoder struct {
	n     int
	body  []byte
	plain int          // bytes of the pairs as they were put
	last  map[int]pair // by the length of the value
}

func (e *encoder) add(key, value string) {
	if e.last == nil {
		e.last = map[int]pair{}
	}
	was := e.last[len(value)]
	e.body = binary.AppendUvarint(e.body, uint64(len(key)))
	e.body = binary.AppendUvarint(e.body, uint64(len(value)))
	e.body = appendText(e.body, was.key, key)
	e.body = appendText(e.body, was.value, value)
	e.last[len(value)] = pair{key, value}
	e.n++
	e.plain += len(key) + len(value)
}

// part returns what was added; nothing for no pairs.
func (e *encoder) part() []byte {
	if e.n == 0 {
		return nil
	}
	return append(binary.AppendUvarint(make([]byte, 0, len(e.body)+2), uint64(e.n)), e.body...)
}

// minEqual is how long a run of equal bytes must be to be worth its own numbers.
const minEqual = 4

func appendText(b []byte, was, text string) []byte {
	for at := 0; at < len(text); {
		from := at
		at = equalUntil(was, text, at)
		b = binary.AppendUvarint(b, uint64(at-from))
		from = at
		for at < len(text) {
			end := equalUntil(was, text, at)
			if end-at >= minEqual || end == len(text) && end > at {
				break
			}
			at = max(end, at+1)
		}
		b = appendOther(b, text[from:at])
	}
	return b
}

// equalUntil is the end of the run of equal bytes that begins at a place.
func equalUntil(was, text string, at int) int {
	for at < len(was) && at < len(text) && was[at] == text[at] {
		at++
	}
	return at
}

func appendOther(b []byte, s string) []byte {
	if len(s) >= minEqual && len(s)%2 == 0 && isHex(s) {
		b = binary.AppendUvarint(b, uint64(len(s))<<1|1)
		for i := 0; i < len(s); i += 2 {
			b = append(b, digit(s[i])<<4|digit(s[i+1]))
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(s))<<1)
	return append(b, s...)
}

// isHex says whether s is digits as MPICH writes them: in capitals.
func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func digit(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}

var errPart = errors.New("it is malformed")

// decoder reads parts.
type decoder struct {
	b  []byte
	at int
}

func (d *decoder) number(most int) (int, error) {
	n, k := binary.Uvarint(d.b[d.at:])
	if k <= 0 || n > uint64(most) {
		return 0, errPart
	}
	d.at += k
	return int(n), nil
}

func (d *decoder) take(n int) ([]byte, error) {
	if n > len(d.b)-d.at {
		return nil, errPart
	}
	d.at += n
	return d.b[d.at-n : d.at], nil
}

// text reads a text of n bytes.
func (d *decoder) text(was string, n int, buf []byte) (string, error) {
	for len(buf) < n {
		equal, err := d.number(n - len(buf))
		if err != nil || equal > max(0, len(was)-len(buf)) {
			return "", errPart
		}
		if equal > 0 {
			buf = append(buf, was[len(buf):len(buf)+equal]...)
		}
		other, err := d.number((n-len(buf))<<1 | 1)
		if err != nil || other>>1 == 0 && equal == 0 {
			return "", errPart
		}
		size, packed := other>>1, other&1 == 1
		if packed && size%2 != 0 {
			return "", errPart
		}
		if packed {
			size /= 2
		}
		s, err := d.take(size)
		if err != nil {
			return "", err
		}
		if !packed {
			buf = append(buf, s...)
			continue
		}
		from := len(buf)
		buf = hex.AppendEncode(buf, s)
		for i := from; i < len(buf); i++ {
			if buf[i] >= 'a' {
				buf[i] -= 'a' - 'A'
			}
		}
	}
	return string(buf), nil
}

// readParts calls add for every pair of an exchanged list, until it returns an
// error.
func readParts(b []byte, add func(key, value string) error) error {
	d := decoder{b: b}
	var buf [MaxKey + MaxValue]byte
	for d.at < len(b) {
		from := d.at
		n, err := d.number(len(b))
		last := map[int]pair{}
		for i := 0; i < n && err == nil; i++ {
			err = d.pair(last, buf[:0], add)
		}
		if err != nil {
			return fmt.Errorf("the exchanged dictionary of %d bytes, in its part at byte %d: %w", len(b), from, err)
		}
	}
	return nil
}

// pair reads one pair.
func (d *decoder) pair(last map[int]pair, buf []byte, add func(key, value string) error) error {
	keyLen, err := d.number(MaxKey)
	if err != nil {
		return err
	}
	n, err := d.number(MaxValue)
	if err != nil {
		return err
	}
	was := last[n]
	var p pair
	if p.key, err = d.text(was.key, keyLen, buf); err != nil {
		return err
	}
	if p.value, err = d.text(was.value, n, buf); err != nil {
		return err
	}
	last[n] = p
	return add(p.key, p.value)
}
