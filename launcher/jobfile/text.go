package jobfile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"gangway/topology/yamltree"
)

// MaxSize is the largest job file, in bytes.
const MaxSize = 10 << 20

// clean makes the text what the YAML reader expects: without a byte order mark,
// with lines that end in a line feed. What no job file may contain is a fault;
// the text comes back anyway, for its excerpt.
func clean(raw []byte) (string, *yamltree.Fault) {
	at := yamltree.Place{Line: 1, Column: 1}
	if len(raw) > MaxSize {
		return "", &yamltree.Fault{At: at, Message: fmt.Sprintf("the file has %d bytes: a job file has at most %d MiB", len(raw), MaxSize>>20),
			Hint: "use an array, or several jobs"}
	}
	if bytes.HasPrefix(raw, []byte{0xFF, 0xFE}) || bytes.HasPrefix(raw, []byte{0xFE, 0xFF}) {
		return "", &yamltree.Fault{At: at, Message: "the file is UTF-16", Hint: "save it as UTF-8"}
	}
	raw = bytes.TrimPrefix(raw, []byte("\uFEFF"))
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(text[i:])
		}
		switch {
		case r == utf8.RuneError && n == 1:
			return strings.ToValidUTF8(text, "\uFFFD"), &yamltree.Fault{At: at, Message: fmt.Sprintf("byte 0x%02X is not UTF-8", text[i]), Hint: "save the file as UTF-8"}
		case !printable(r):
			return text, &yamltree.Fault{At: at, Message: fmt.Sprintf("character U+%04X is not allowed in YAML", r),
				Hint: fmt.Sprintf(`remove it, or write it in double quotes as "\u%04x"`, r)}
		case r == '\n':
			at = yamltree.Place{Line: at.Line + 1}
		}
		at.Column++
		i += n
	}
	return text, nil
}

// printable is YAML 1.2's c-printable, without the byte order mark, which may
// stand only at the beginning.
func printable(r rune) bool {
	switch {
	case r == '\t', r == '\n', r == 0x85:
		return true
	case r < 0x20, r >= 0x7F && r < 0xA0, r == 0xFEFF, r == 0xFFFE, r == 0xFFFF:
		return false
	}
	return true
}
