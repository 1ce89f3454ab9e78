package batchapi

import (
	"errors"
	"strings"
)

// splitCommand splits a Batch command line into words. As in Batch there is no
// shell: blanks separate, quotes and backslashes keep together as in a POSIX
// shell, and nothing is expanded. `/bin/sh -c "echo $HOME"` is three words.
func splitCommand(s string) ([]string, error) {
	var (
		words []string
		b     strings.Builder
		open  bool // a word has begun
		quote byte
	)
	if strings.ContainsRune(s, 0) {
		return nil, errors.New("it contains a NUL byte, which no program can be given")
	}
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case quote == '\'':
			if ch == '\'' {
				quote = 0
				continue
			}
			b.WriteByte(ch)
		case quote == '"':
			switch {
			case ch == '"':
				quote = 0
			case ch == '\\' && i+1 < len(s) && strings.IndexByte("\"\\", s[i+1]) >= 0:
				// \$ and \` stay as they are: there is no shell that would want
				// them escaped, but the one that is called may.
				i++
				b.WriteByte(s[i])
			default:
				b.WriteByte(ch)
			}
		case ch == '\'' || ch == '"':
			quote, open = ch, true
		case ch == '\\':
			if i+1 == len(s) {
				return nil, errors.New("it ends in a backslash")
			}
			i++
			b.WriteByte(s[i])
			open = true
		case strings.IndexByte(" \t\r\n", ch) >= 0:
			if open {
				words = append(words, b.String())
				b.Reset()
				open = false
			}
		default:
			b.WriteByte(ch)
			open = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote (" + string(quote) + ") is not closed")
	}
	if open {
		words = append(words, b.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("it names no program")
	}
	return words, nil
}

// joinCommand writes words so that splitCommand, and a shell, read them back.
func joinCommand(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,@%+", r))
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
