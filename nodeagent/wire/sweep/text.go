package sweep

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Texts are texts with placeholders, ready to be filled in. The forms are those
// of GNU Parallel, and names:
//
//	{name}           the value of that name
//	{} {1} {2} ...   the value of the first column, of the first, the second, ...
//	{.} {/} {//} {/.}   without its extension, without its folders, its folder,
//	                 without folders and extension; likewise {1.}, {name/.}
//	{#}              the element's number, which is its array index
//	{%}              the number of its slot, from 1
//
// All else in braces is left as it is, as is what follows a $. {{name}} is {name}
// written literally, of every form.
type Texts struct {
	table *Table // nil: no placeholders
	first uint64
	texts []text
	size  int // of a buffer that is likely to do
}

// text is a literal, or literals and placeholders by turns.
type text struct {
	whole string
	parts []part
}

// part is a literal with the placeholder behind it.
type part struct {
	literal string
	form    form
	column  int // of formValue
	change  string
}

type form uint8

const (
	formNone form = iota
	formValue
	formNumber
	formSlot
)

// Compile reads texts with the placeholders of sweep s; without one they have
// none. first is the array index of the sweep's element 0. What is wrong with
// the sweep or a text is a *Fault.
func Compile(s *Sweep, first uint64, texts []string) (*Texts, error) {
	t := &Texts{first: first, texts: make([]text, len(texts))}
	if s == nil {
		for i, whole := range texts {
			t.texts[i].whole = whole
		}
		return t, nil
	}
	table, err := s.Table()
	if err != nil {
		return nil, err
	}
	return table.compile(first, texts)
}

// Compile is the function Compile for a table's sweep.
func (t *Table) Compile(first uint64, texts []string) (*Texts, error) { return t.compile(first, texts) }

func (t *Table) compile(first uint64, texts []string) (*Texts, error) {
	out := &Texts{table: t, first: first, texts: make([]text, len(texts))}
	names := t.sweep.Names()
	for i, whole := range texts {
		p := parser{names: names, source: whole}
		parts, rest, err := p.parse()
		if err != nil {
			err.Text, err.Place = i, fmt.Sprintf("%.120q", whole)
			return nil, err
		}
		if len(parts) == 0 {
			out.texts[i].whole = rest
			continue
		}
		if rest != "" {
			parts = append(parts, part{literal: rest})
		}
		out.texts[i].parts = parts
		out.size += len(whole) + 32*len(parts)
	}
	return out, nil
}

type parser struct {
	names  []string
	source string
	any    bool // every name is known
}

// parse returns the parts, and the literal behind the last one.
func (p *parser) parse() ([]part, string, *Fault) {
	var parts []part
	var literal strings.Builder
	s := p.source
	at := 0
	for at < len(s) {
		open := strings.IndexByte(s[at:], '{')
		if open < 0 {
			break
		}
		open += at
		literal.WriteString(s[at:open])
		at = open
		if open > 0 && s[open-1] == '$' { // a shell's variable: with all braces that follow at once
			for at < len(s) && s[at] == '{' {
				literal.WriteByte('{')
				at++
			}
			continue
		}
		if strings.HasPrefix(s[open:], "{{") {
			if n := formLength(s[open+1:]); n > 0 {
				if !strings.HasPrefix(s[open+1+n:], "}") {
					return nil, "", &Fault{What: fmt.Sprintf("%q begins with two braces and ends with one", s[open:open+1+n]),
						Hint: fmt.Sprintf("write %s for the value, {%s} for the text itself", s[open+1:open+1+n], s[open+1:open+1+n])}
				}
				literal.WriteString(s[open+1 : open+1+n])
				at = open + n + 2
				continue
			}
		}
		n := formLength(s[open:])
		if n == 0 {
			if err := p.unclosed(s[open:]); err != nil {
				return nil, "", err
			}
			literal.WriteByte('{')
			at++
			continue
		}
		one, err := p.placeholder(s[open+1 : open+n-1])
		if err != nil {
			return nil, "", err
		}
		one.literal = literal.String()
		literal.Reset()
		parts = append(parts, one)
		at = open + n
	}
	literal.WriteString(s[at:])
	return parts, literal.String(), nil
}

// formLength is the length of the placeholder that s begins with, braces
// included; 0: none. Its name may be unknown.
func formLength(s string) int {
	if len(s) < 2 || s[0] != '{' {
		return 0
	}
	n := 1
	switch b := s[1]; {
	case b == '#' || b == '%':
		n++
	case b >= '1' && b <= '9':
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		n += changeLength(s[n:])
	default:
		n += identifier(s[1:])
		n += changeLength(s[n:])
	}
	if n < len(s) && s[n] == '}' {
		return n + 1
	}
	return 0
}

// changeLength is the length of what says how a value is changed.
func changeLength(s string) int {
	for _, c := range []string{"//", "/.", "/", "."} {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	return 0
}

// unclosed is the fault of a known name that has no brace behind it.
func (p *parser) unclosed(s string) *Fault {
	name := s[1:]
	if name == "" || !slices.Contains(p.names, name) {
		return nil
	}
	return &Fault{Name: name, What: fmt.Sprintf("%q has no }", s), Hint: fmt.Sprintf("write {%s} for the value", name)}
}

func (p *parser) placeholder(body string) (part, *Fault) {
	if p.any {
		return part{form: formValue}, nil
	}
	switch body {
	case "#":
		return part{form: formNumber}, nil
	case "%":
		return part{form: formSlot}, nil
	}
	name := strings.TrimRight(body, "./")
	one := part{form: formValue, change: body[len(name):]}
	if name == "" {
		if len(p.names) == 0 {
			return one, p.unknown(body, "the sweep only repeats, it has no values")
		}
		return one, nil
	}
	if name[0] >= '1' && name[0] <= '9' {
		n, err := strconv.Atoi(name)
		if err != nil || n > len(p.names) {
			return one, p.unknown(body, fmt.Sprintf("the sweep has %d", len(p.names)))
		}
		one.column = n - 1
		return one, nil
	}
	one.column = slices.Index(p.names, name)
	if one.column < 0 {
		known := slices.DeleteFunc(slices.Clone(p.names), func(s string) bool { return s == "" })
		hint := "the sweep has no names"
		if len(known) > 0 {
			hint = "known are " + strings.Join(known[:min(len(known), 12)], ", ")
		}
		return one, p.unknown(body, hint)
	}
	return one, nil
}

func (p *parser) unknown(body, hint string) *Fault {
	return &Fault{What: fmt.Sprintf("nothing is called {%s}", body), Hint: fmt.Sprintf("%s; write {{%s}} for the text itself", hint, body)}
}

// Expand appends the texts of the element with that array index, which runs in
// that slot, from 0. Beyond the sweep its values are "".
func (t *Texts) Expand(index uint64, slot int, dst []string) []string {
	if t.size == 0 {
		for i := range t.texts {
			dst = append(dst, t.texts[i].whole)
		}
		return dst
	}
	// All texts are written to one buffer, and share one string.
	var scratch [512]byte
	buf := scratch[:0]
	if t.size > len(scratch) {
		buf = make([]byte, 0, t.size)
	}
	at := len(dst)
	var some [64]int
	ends := some[:0]
	for i := range t.texts {
		x := &t.texts[i]
		dst = append(dst, x.whole)
		if x.parts == nil {
			continue
		}
		for j := range x.parts {
			buf = t.part(buf, &x.parts[j], index, slot)
		}
		ends = append(ends, len(buf))
	}
	all := string(buf)
	begin := 0
	for i := range t.texts {
		if t.texts[i].parts != nil {
			dst[at+i] = all[begin:ends[0]]
			begin, ends = ends[0], ends[1:]
		}
	}
	return dst
}

func (t *Texts) part(buf []byte, p *part, index uint64, slot int) []byte {
	buf = append(buf, p.literal...)
	switch p.form {
	case formNumber:
		return strconv.AppendUint(buf, index, 10)
	case formSlot:
		return strconv.AppendInt(buf, int64(slot)+1, 10)
	case formNone:
		return buf
	}
	begin := len(buf)
	v, buf, ready := t.table.value(p.column, index-t.first, buf)
	if p.change == "" {
		if ready {
			buf = append(buf, v...)
		}
		return buf
	}
	if !ready {
		v = string(buf[begin:])
		buf = buf[:begin]
	}
	return append(buf, changed(v, p.change)...)
}

// changed does what GNU Parallel does for {.}, {/}, {//} and {/.}.
func changed(v, change string) string {
	switch change {
	case ".":
		return noExtension(v)
	case "/":
		return v[strings.LastIndexByte(v, '/')+1:]
	case "/.":
		return noExtension(v[strings.LastIndexByte(v, '/')+1:])
	}
	trimmed := strings.TrimRight(v, "/")
	if trimmed == "" && v != "" {
		return "/"
	}
	slash := strings.LastIndexByte(trimmed, '/')
	if slash < 0 {
		return "."
	}
	if folder := strings.TrimRight(trimmed[:slash], "/"); folder != "" {
		return folder
	}
	return "/"
}

// noExtension cuts from the last point on, if it is in the last component.
func noExtension(v string) string {
	if dot := strings.LastIndexByte(v, '.'); dot > strings.LastIndexByte(v, '/') {
		return v[:dot]
	}
	return v
}

// Varies reports whether text i has placeholders.
func (t *Texts) Varies(i int) bool { return t.texts[i].parts != nil }

// Longest is the number of bytes that each text has at most.
func (t *Texts) Longest() []int {
	columns := map[int]int{}
	out := make([]int, len(t.texts))
	for i := range t.texts {
		n := len(t.texts[i].whole)
		for _, p := range t.texts[i].parts {
			n += len(p.literal)
			switch p.form {
			case formNumber, formSlot:
				n += 20
			case formValue:
				if _, ok := columns[p.column]; !ok {
					columns[p.column] = t.table.columns[p.column].longest()
				}
				n += columns[p.column]
			}
		}
		out[i] = n
	}
	return out
}

// longest is the number of bytes that a value of the column has at most.
func (c *column) longest() int {
	n := 32 // a number
	switch {
	case c.values != nil:
		n = longest(slices.Values(c.values))
	case c.lines != nil:
		n = longest(strings.SplitSeq(c.lines.text, "\n"))
	case c.draws != nil && c.draws.Draw == Choice:
		n = longest(slices.Values(c.draws.Values))
	}
	return n
}

func longest(values iter.Seq[string]) int {
	n := 0
	for v := range values {
		n = max(n, len(v))
	}
	return n
}

// Distinct yields array indices of elements that have, among them, each of text
// i's variants; one element without placeholders, all where it is not known how
// they repeat.
func (t *Texts) Distinct(i int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if !t.Varies(i) {
			yield(t.first)
			return
		}
		if t.table.sweep.Window == nil {
			if used, ok := t.axesOf(i); ok {
				t.product(used, t.first, yield)
				return
			}
		}
		for e := range t.table.count {
			if !yield(t.first + e) {
				return
			}
		}
	}
}

// axesOf are the axes that text i depends on; not ok: on each element's number.
func (t *Texts) axesOf(i int) (used []axis, ok bool) {
	seen := map[int]bool{}
	for _, p := range t.texts[i].parts {
		switch p.form {
		case formNumber, formSlot:
			return nil, false
		case formValue:
			a := t.table.columns[p.column].axis
			if a < 0 {
				return nil, false
			}
			if !seen[a] {
				seen[a] = true
				used = append(used, t.table.axes[a])
			}
		}
	}
	return used, true
}

// product yields the indices of the elements that differ from the one at base in
// the given axes.
func (t *Texts) product(axes []axis, base uint64, yield func(uint64) bool) bool {
	if len(axes) == 0 {
		return yield(base)
	}
	for n := range axes[0].size {
		if !t.product(axes[1:], base+n*axes[0].stride, yield) {
			return false
		}
	}
	return true
}

// HasPlaceholder reports whether s has something of a placeholder's form, of
// whatever name.
func HasPlaceholder(s string) bool {
	p := parser{source: s, any: true}
	parts, _, err := p.parse()
	return err != nil || len(parts) > 0
}

// Bare returns a text without its placeholders.
func Bare(s string) string {
	p := parser{source: s, any: true}
	parts, rest, err := p.parse()
	if err != nil {
		return s
	}
	var b strings.Builder
	for _, one := range parts {
		b.WriteString(one.literal)
	}
	return b.String() + rest
}
