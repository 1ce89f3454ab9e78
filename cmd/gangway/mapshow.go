package main

import (
	"fmt"
	"strconv"
	"strings"

	"gangway/nodeagent/wire/sweep"
)

// mapShow writes commands as a shell would read them.
type mapShow struct {
	c     *mapCommand
	texts *sweep.Texts
	buf   []string
	forms map[string]int
}

// newMapShow makes a writer of the commands of a sweep, whose first element is
// number 1.
func newMapShow(c *mapCommand, t *sweep.Table) (*mapShow, error) {
	s := &mapShow{c: c, forms: map[string]int{}}
	texts := []string{c.number}
	if c.ragged {
		texts = append(texts, "{"+presentColumn+"}")
	}
	add := func(column int, change string) {
		form := fmt.Sprintf("{%d%s}", column, change)
		if _, ok := s.forms[form]; !ok {
			s.forms[form] = len(texts)
			texts = append(texts, form)
		}
	}
	for i := range c.columns { // also for what is printed in front of lines
		add(i+1, "")
	}
	for _, w := range append([]mapText{c.script}, c.words...) {
		for _, p := range w.parts {
			for k := 1; p.value && k <= c.columns; k++ {
				if p.column == 0 || p.column == k {
					add(k, p.change)
				}
			}
		}
	}
	var err error
	s.texts, err = t.Compile(1, texts)
	return s, err
}

// at reads the values of an element.
func (s *mapShow) at(index uint64, slot int) { s.buf = s.texts.Expand(index, slot, s.buf[:0]) }

// number is the one that the user knows.
func (s *mapShow) number(index uint64) string { s.at(index, 0); return s.buf[0] }

// present is how many of the values of the element that was read are there.
func (s *mapShow) present() int {
	if !s.c.ragged {
		return s.c.columns
	}
	n, err := strconv.Atoi(s.buf[1])
	if err != nil {
		return s.c.columns
	}
	return n
}

// values are an element's.
func (s *mapShow) values(index uint64) []string {
	s.at(index, 0)
	out := make([]string, s.present())
	for i := range out {
		out[i] = s.buf[s.forms[fmt.Sprintf("{%d}", i+1)]]
	}
	return out
}

// command is an element's, as text for a shell.
func (s *mapShow) command(index uint64) string {
	s.at(index, 0)
	if s.c.value {
		return strings.Join(s.values(index), " ")
	}
	var b strings.Builder
	write := func(t mapText, quote func(string, quoting) string) {
		for i, p := range t.parts {
			q := bare
			if t.quotes != nil {
				q = t.quotes[i]
			}
			switch {
			case p.number:
				b.WriteString(s.buf[0])
			case p.slot:
				b.WriteString("{%}") // known when it starts
			case p.value:
				for k := 1; k <= s.present(); k++ {
					if p.column != 0 && p.column != k {
						continue
					}
					if p.column == 0 && k > 1 {
						b.WriteByte(' ')
					}
					b.WriteString(quote(s.buf[s.forms[fmt.Sprintf("{%d%s}", k, p.change)]], q))
				}
			default:
				b.WriteString(p.literal)
			}
		}
	}
	if s.c.shell != "" {
		write(s.c.script, quoteFor)
		return b.String()
	}
	for i, w := range s.c.words {
		if i > 0 {
			b.WriteByte(' ')
		}
		if len(w.parts) == 1 && w.parts[0].value {
			write(w, func(v string, _ quoting) string { return shellQuote(v) })
			continue
		}
		outer := b.String()
		b.Reset()
		write(w, func(v string, _ quoting) string { return v })
		word := b.String()
		b.Reset()
		b.WriteString(outer)
		b.WriteString(shellQuote(word))
	}
	return b.String()
}

// quoteFor writes a value as it stands in a shell's text.
func quoteFor(v string, q quoting) string {
	switch q {
	case double:
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(v)
	case single:
		return strings.ReplaceAll(v, "'", `'"'"'`)
	}
	return shellQuote(v)
}

// shellQuote writes a word so that a shell reads it as it is.
func shellQuote(v string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-+"
	if v != "" && strings.Trim(v, plain) == "" {
		return v
	}
	return "'" + strings.ReplaceAll(v, "'", `'"'"'`) + "'"
}
