package pmi

import (
	"encoding/binary"
	"fmt"
)

// What nodes exchange is the list of their pairs since the last barrier: for each
// the key's length, the key, the value's length, the value; lengths as unsigned
// varints. Lists one after the other are a list, so that parts of several nodes
// need no more than to be put together.

func appendPair(b []byte, key, value string) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// readPairs calls add for every pair of an exchanged list.
func readPairs(b []byte, add func(key, value string)) error {
	at := 0
	text := func(most int) (string, bool) {
		n, k := binary.Uvarint(b[at:])
		if k <= 0 || n > uint64(most) || n > uint64(len(b)-at-k) {
			return "", false
		}
		at += k
		s := string(b[at : at+int(n)])
		at += int(n)
		return s, true
	}
	for at < len(b) {
		from := at
		key, ok := text(MaxKey)
		if !ok {
			return fmt.Errorf("the exchanged dictionary of %d bytes is malformed at byte %d", len(b), from)
		}
		value, ok := text(MaxValue)
		if !ok {
			return fmt.Errorf("the exchanged dictionary of %d bytes is malformed at byte %d", len(b), from)
		}
		add(key, value)
	}
	return nil
}
