package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// mapPart is a literal, or the placeholder behind it.
type mapPart struct {
	literal string
	number  bool   // {#}
	slot    bool   // {%}
	value   bool   // {1.} and its kin
	column  int    // from 1; 0: all of them
	change  string // "", ".", "/", "//", "/."
}

// parseParts finds the placeholders of GNU Parallel. Other braces are text, as
// awk programs are full of them.
func parseParts(s string) []mapPart {
	var out []mapPart
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			out = append(out, mapPart{literal: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); {
		if s[i] != '{' {
			text.WriteByte(s[i])
			i++
			continue
		}
		if i > 0 && s[i-1] == '$' {
			for i < len(s) && s[i] == '{' {
				text.WriteByte('{')
				i++
			}
			continue
		}
		if i+1 < len(s) && s[i+1] == '{' {
			if _, n := placeholder(s[i+1:]); n > 0 && strings.HasPrefix(s[i+1+n:], "}") {
				text.WriteString(s[i+1 : i+1+n])
				i += n + 2
				continue
			}
		}
		p, n := placeholder(s[i:])
		if n == 0 {
			text.WriteByte('{')
			i++
			continue
		}
		flush()
		out = append(out, p)
		i += n
	}
	flush()
	return out
}

// placeholder reads the one that s begins with, and its length; 0: none.
func placeholder(s string) (mapPart, int) {
	end := strings.IndexByte(s[:min(len(s), 16)], '}')
	if end < 1 {
		return mapPart{}, 0
	}
	body := s[1:end]
	switch body {
	case "#":
		return mapPart{number: true}, end + 1
	case "%":
		return mapPart{slot: true}, end + 1
	}
	digits := strings.TrimRight(body, "./")
	p := mapPart{value: true, change: body[len(digits):]}
	switch p.change {
	case "", ".", "/", "//", "/.":
	default:
		return mapPart{}, 0
	}
	if digits == "" {
		return p, end + 1
	}
	if digits[0] < '1' || digits[0] > '9' {
		return mapPart{}, 0
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return mapPart{}, 0
	}
	p.column = int(n)
	return p, end + 1
}

// quoting is where in a shell's text a placeholder is.
type quoting int

const (
	bare quoting = iota
	double
	single
)

// mapText is a text with its placeholders, in one of the command's words.
type mapText struct {
	parts  []mapPart
	quotes []quoting // of each part that is a placeholder, in a shell's text
}

// mapCommand is what runs for each element.
type mapCommand struct {
	shell   string    // runs script; "": words are run as they are
	script  mapText   //
	words   []mapText // without a shell
	value   bool      // the value is the command
	columns int
	per     int  // values appended to each command in one group
	ragged  bool // the last command has fewer than per
	number  string
}

// errColumn is a placeholder beyond the columns.
var errColumn = errors.New("no such column")

// commandOf makes the command of words as they were given. columns is how
// many values each command has.
func commandOf(words []string, columns int, shell string, ragged bool) (*mapCommand, error) {
	c := &mapCommand{columns: columns, ragged: ragged, number: "{#}"}
	if len(words) == 0 {
		c.shell, c.value = shell, true
		return c, nil
	}
	text := words[0]
	switch {
	case len(words) > 1:
	case !needsShell(text):
		words = strings.Fields(text)
	default:
		c.shell, c.script.parts = shell, parseParts(text)
	}
	if len(words) == 0 || len(words) == 1 && strings.TrimSpace(words[0]) == "" {
		return nil, usagef("gangway map 'gzip {}' ::: a b c", "the command is empty")
	}
	texts := []*mapText{&c.script}
	if c.shell == "" {
		c.words = make([]mapText, len(words))
		texts = nil
		for i, w := range words {
			c.words[i].parts = parseParts(w)
			texts = append(texts, &c.words[i])
		}
	}
	has := false
	for _, t := range texts {
		for i, p := range t.parts {
			if i > 0 && p.literal == "" && strings.HasSuffix(t.parts[i-1].literal, "{") && (c.shell == "" || !p.value) {
				return nil, usagef("put something between them, or use a shell", "the command: a brace stands directly before a placeholder")
			}
			has = has || p.value || p.number || p.slot
			if p.column > columns {
				return nil, fmt.Errorf("{%d%s}: %w", p.column, p.change, errColumn)
			}
		}
	}
	if !has {
		c.append()
	} else {
		c.ragged = false
	}
	if c.shell != "" {
		c.script.findQuotes()
	}
	return c, nil
}

// append puts the values behind a command that has no placeholder.
func (c *mapCommand) append() {
	if c.ragged && c.shell == "" { // a shell leaves out what is not there
		c.shell = "/bin/sh"
		for i, w := range c.words {
			if i > 0 {
				c.script.parts = append(c.script.parts, mapPart{literal: " "})
			}
			for _, p := range w.parts {
				c.script.parts = append(c.script.parts, mapPart{literal: shellQuote(p.literal)})
			}
			if len(w.parts) == 0 {
				c.script.parts = append(c.script.parts, mapPart{literal: "''"})
			}
		}
		c.words = nil
	}
	if c.shell == "" {
		c.words = append(c.words, mapText{parts: []mapPart{{value: true}}})
		return
	}
	c.script.parts = append(c.script.parts, mapPart{literal: " "}, mapPart{value: true})
}

// plainBytes need no shell, in a text that has nothing else but blanks.
const plainBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,+@%=- \t"

// builtins are the shell's own commands that are no programs, or other ones.
const builtins = " . : alias bg break case cd command continue do done elif else esac eval exec exit export fc fg fi for function getopts hash if in jobs let local read readonly return select set shift source then time times trap type typeset ulimit umask unalias unset until wait while "

// needsShell reports whether a command of one word means something to a shell.
func needsShell(s string) bool {
	for _, p := range parseParts(s) {
		if strings.Trim(p.literal, plainBytes) != "" {
			return true
		}
	}
	f := strings.Fields(s)
	return len(f) > 0 && (strings.Contains(f[0], "=") || strings.Contains(builtins, " "+f[0]+" "))
}

// findQuotes notes how each placeholder is quoted by the text around it.
func (t *mapText) findQuotes() {
	t.quotes = make([]quoting, len(t.parts))
	stack := []byte{'n'} // n: plain, d: in double quotes, s: in single ones, (: within parentheses, `: within backquotes
	word := false        // within a word
	comment := false
	for i, p := range t.parts {
		top := stack[len(stack)-1]
		if p.literal == "" {
			switch top {
			case 'd':
				t.quotes[i] = double
			case 's':
				t.quotes[i] = single
			}
			word = true
			continue
		}
		for k := 0; k < len(p.literal); k++ {
			b := p.literal[k]
			top = stack[len(stack)-1]
			pop := func() {
				if len(stack) > 1 {
					stack = stack[:len(stack)-1]
				}
			}
			switch {
			case comment:
				comment = b != '\n'
			case top == 's':
				if b == '\'' {
					pop()
				}
			case b == '\\':
				k++
				word = true
				continue
			case b == '"' && top == 'd':
				pop()
			case b == '"':
				stack = append(stack, 'd')
			case b == '`' && top == '`':
				pop()
			case b == '`':
				stack = append(stack, '`')
			case b == '(' && (top != 'd' || k > 0 && p.literal[k-1] == '$'):
				stack = append(stack, '(')
			case b == ')' && top == '(':
				pop()
			case top == 'd':
			case b == '\'':
				stack = append(stack, 's')
			case b == '#' && !word:
				comment = true
			}
			word = strings.IndexByte(" \t\n;|&()<>", b) < 0
		}
	}
}

// argv is the command with the placeholders of package sweep. In a shell's text
// values are variables, never text: no value can be taken for a piece of program.
func (c *mapCommand) argv() []string {
	if c.value {
		return []string{c.shell, "-c", c.all("", " ")}
	}
	var out []string
	if c.shell == "" {
		for _, w := range c.words {
			if len(w.parts) == 1 && w.parts[0].value && w.parts[0].column == 0 {
				for i := range c.columns {
					out = append(out, fmt.Sprintf("{%d%s}", i+1, w.parts[0].change))
				}
				continue
			}
			var b strings.Builder
			for _, p := range w.parts {
				b.WriteString(c.braces(p))
			}
			out = append(out, b.String())
		}
		return out
	}
	var args []string
	known := map[string]string{}
	variable := func(column int, change string) string {
		arg := fmt.Sprintf("{%d%s}", column, change)
		if known[arg] == "" {
			args = append(args, arg)
			known[arg] = fmt.Sprintf("_gangway_%d", len(args))
		}
		return "${" + known[arg] + "}"
	}
	var b strings.Builder
	for i, p := range c.script.parts {
		if !p.value {
			b.WriteString(c.braces(p))
			continue
		}
		if c.ragged {
			b.WriteString(`"$@"`)
			continue
		}
		first, last := p.column, p.column
		if p.column == 0 {
			first, last = 1, c.columns
		}
		var names []string
		for k := first; k <= last; k++ {
			names = append(names, variable(k, p.change))
		}
		switch c.script.quotes[i] {
		case double:
			b.WriteString(strings.Join(names, " "))
		case single:
			b.WriteString(`'"` + strings.Join(names, " ") + `"'`)
		default:
			b.WriteString(`"` + strings.Join(names, `" "`) + `"`)
		}
	}
	if c.ragged {
		for k := range c.columns {
			args = append(args, fmt.Sprintf("{%d}", k+1))
		}
		const head = `_gangway_n=$1; shift; for _gangway_a do shift; [ "$_gangway_n" -gt 0 ] && set -- "$@" "$_gangway_a"; _gangway_n=$((_gangway_n-1)); done; `
		return append([]string{c.shell, "-c", head + b.String(), "sh", "{" + presentColumn + "}"}, args...)
	}
	var head strings.Builder
	for i := range args {
		fmt.Fprintf(&head, "_gangway_%d=${%d} ", i+1, i+1)
	}
	if len(args) > 0 {
		head.WriteString("; set --; ")
	}
	return append([]string{c.shell, "-c", strings.Replace(head.String(), " ;", ";", 1) + b.String(), "sh"}, args...)
}

// presentColumn says how many of a command's values are there.
const presentColumn = "_gangway_present"

// all are all columns.
func (c *mapCommand) all(change, between string) string {
	var b strings.Builder
	for i := range c.columns {
		if i > 0 {
			b.WriteString(between)
		}
		fmt.Fprintf(&b, "{%d%s}", i+1, change)
	}
	return b.String()
}

// braces writes a part for package sweep.
func (c *mapCommand) braces(p mapPart) string {
	switch {
	case p.number:
		return c.number
	case p.slot:
		return "{%}"
	case p.value && p.column == 0:
		return c.all(p.change, " ")
	case p.value:
		return fmt.Sprintf("{%d%s}", p.column, p.change)
	}
	return escapeBraces(p.literal)
}

// escapeBraces doubles the braces of what package sweep would take for a
// placeholder.
func escapeBraces(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '{' {
			b.WriteByte(s[i])
			i++
			continue
		}
		if i > 0 && s[i-1] == '$' {
			for i < len(s) && s[i] == '{' {
				b.WriteByte('{')
				i++
			}
			continue
		}
		n := sweepForm(s[i:])
		if n == 0 {
			b.WriteByte('{')
			i++
			continue
		}
		b.WriteString("{" + s[i:i+n] + "}")
		i += n
	}
	return b.String()
}

// sweepForm is the length of what package sweep takes for a placeholder.
func sweepForm(s string) int {
	if _, n := placeholder(s); n > 0 {
		return n
	}
	digit := func(b byte) bool { return '0' <= b && b <= '9' }
	n := 1
	switch {
	case len(s) < 3:
		return 0
	case digit(s[1]) && s[1] != '0':
		for n < len(s) && digit(s[n]) {
			n++
		}
	case s[1] == '_' || 'a' <= s[1]|0x20 && s[1]|0x20 <= 'z':
		for n < len(s) && (s[n] == '_' || s[n] == '-' || digit(s[n]) || 'a' <= s[n]|0x20 && s[n]|0x20 <= 'z') {
			n++
		}
	default:
		return 0
	}
	for _, c := range []string{"//", "/.", "/", "."} {
		if strings.HasPrefix(s[n:], c) {
			n += len(c)
			break
		}
	}
	if n < len(s) && s[n] == '}' {
		return n + 1
	}
	return 0
}
