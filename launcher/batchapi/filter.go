package batchapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a $filter.
const (
	maxFilter      = 8192 // bytes
	maxFilterDepth = 64   // of parentheses and not
)

// A $filter is an OData 3 expression: comparisons eq ne lt le gt ge of a
// property with a literal, startswith, and, or, not, parentheses. Properties are
// names, or paths a/b.

// node is a parsed expression.
type node struct {
	op    string // and, or, not, startswith, or a comparison
	kids  []node // of and, or, not
	field string
	value literal
}

type literalKind int

const (
	litString literalKind = iota + 1
	litNumber
	litTime
	litBool
	litNull
)

type literal struct {
	kind literalKind
	s    string
	n    float64
	t    time.Time
	b    bool
}

// filterError is what is wrong with a filter, and where.
type filterError struct {
	at   int // byte offset
	text string
}

func (e *filterError) Error() string { return fmt.Sprintf("at character %d: %s", e.at+1, e.text) }

type filterToken struct {
	kind byte // 'w' word, 'l' literal, '(' ')' ',', 0 end
	text string
	lit  literal
	at   int
}

type filterParser struct {
	src   string
	pos   int
	tok   filterToken
	err   error
	depth int
}

// parseFilter reads a $filter; properties are not looked up yet.
func parseFilter(src string) (node, error) {
	if len(src) > maxFilter {
		return node{}, &filterError{maxFilter, fmt.Sprintf("the filter is longer than %d bytes", maxFilter)}
	}
	if !utf8.ValidString(src) {
		return node{}, &filterError{0, "the filter is not UTF-8"}
	}
	p := &filterParser{src: src}
	p.next()
	n := p.or()
	if p.err == nil && p.tok.kind != 0 {
		p.fail(p.tok.at, "%q is unexpected after a complete expression", p.tok.text)
	}
	return n, p.err
}

func (p *filterParser) fail(at int, format string, args ...any) {
	if p.err == nil {
		p.err = &filterError{at, fmt.Sprintf(format, args...)}
	}
	p.tok = filterToken{at: at} // the end, so that every loop stops
	p.pos = len(p.src)
}

func (p *filterParser) next() {
	for p.pos < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.pos]) >= 0 {
		p.pos++
	}
	at := p.pos
	p.tok = filterToken{at: at}
	if at >= len(p.src) {
		return
	}
	switch ch := p.src[at]; {
	case ch == '(' || ch == ')' || ch == ',':
		p.pos++
		p.tok.kind, p.tok.text = ch, string(ch)
	case ch == '\'':
		s, ok := p.quoted()
		if ok {
			p.tok.kind, p.tok.text, p.tok.lit = 'l', p.src[at:p.pos], literal{kind: litString, s: s}
		}
	default:
		for p.pos < len(p.src) && strings.IndexByte(" \t\r\n(),'", p.src[p.pos]) < 0 {
			p.pos++
		}
		p.word(at, p.src[at:p.pos])
	}
}

// quoted reads a string literal at pos; a quote inside is doubled.
func (p *filterParser) quoted() (string, bool) {
	at := p.pos
	var b strings.Builder
	for i := at + 1; i < len(p.src); i++ {
		if p.src[i] != '\'' {
			b.WriteByte(p.src[i])
			continue
		}
		if i+1 < len(p.src) && p.src[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		p.pos = i + 1
		return b.String(), true
	}
	p.fail(at, "a string is not closed")
	return "", false
}

// word classifies a bare word: a name, an operator or a literal.
func (p *filterParser) word(at int, w string) {
	p.tok.kind, p.tok.text = 'l', w
	if strings.EqualFold(w, "datetime") && p.pos < len(p.src) && p.src[p.pos] == '\'' {
		s, ok := p.quoted()
		if !ok {
			return
		}
		t, ok := parseTime(s)
		if !ok {
			p.fail(at, "%q is not a time as in 2006-01-02T15:04:05Z", s)
			return
		}
		p.tok.text, p.tok.lit = p.src[at:p.pos], literal{kind: litTime, t: t}
		return
	}
	switch {
	case w == "true" || w == "false":
		p.tok.lit = literal{kind: litBool, b: w == "true"}
		return
	case w == "null":
		p.tok.lit = literal{kind: litNull}
		return
	}
	if c := w[0]; c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' {
		if t, ok := parseTime(w); ok {
			p.tok.lit = literal{kind: litTime, t: t}
			return
		}
		n, err := strconv.ParseFloat(strings.TrimRight(w, "LlMmFfDd"), 64)
		if err != nil || strings.ContainsAny(w, "xXpP_nN") {
			p.fail(at, "%q is neither a number nor a time", w)
			return
		}
		p.tok.lit = literal{kind: litNumber, n: n}
		return
	}
	p.tok.kind = 'w'
}

// parseTime reads a time; without a zone it is UTC.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func (p *filterParser) isWord(w string) bool { return p.tok.kind == 'w' && p.tok.text == w }

func (p *filterParser) or() node  { return p.chain("or", p.and) }
func (p *filterParser) and() node { return p.chain("and", p.not) }

func (p *filterParser) chain(op string, operand func() node) node {
	n := operand()
	if p.err != nil || !p.isWord(op) {
		return n
	}
	n = node{op: op, kids: []node{n}}
	for p.err == nil && p.isWord(op) {
		p.next()
		n.kids = append(n.kids, operand())
	}
	return n
}

func (p *filterParser) deeper() bool {
	p.depth++
	if p.depth > maxFilterDepth {
		p.fail(p.tok.at, "the filter is nested deeper than %d levels", maxFilterDepth)
		return false
	}
	return true
}

func (p *filterParser) not() node {
	if !p.isWord("not") {
		return p.primary()
	}
	if !p.deeper() {
		return node{}
	}
	p.next()
	n := node{op: "not", kids: []node{p.not()}}
	p.depth--
	return n
}

func (p *filterParser) primary() node {
	switch {
	case p.tok.kind == '(':
		if !p.deeper() {
			return node{}
		}
		p.next()
		n := p.or()
		p.expect(')')
		p.depth--
		return n
	case p.isWord("startswith"):
		return p.startswith()
	}
	return p.comparison()
}

func (p *filterParser) expect(kind byte) {
	if p.err != nil {
		return
	}
	if p.tok.kind != kind {
		p.unexpected("'" + string(kind) + "'")
		return
	}
	p.next()
}

func (p *filterParser) unexpected(want string) {
	if p.tok.kind == 0 {
		p.fail(p.tok.at, "the filter ends where %s should be", want)
		return
	}
	p.fail(p.tok.at, "%q where %s should be", p.tok.text, want)
}

// startswith reads the function, with an optional comparison with true after it.
func (p *filterParser) startswith() node {
	n := node{op: "startswith"}
	p.next()
	p.expect('(')
	n.field = p.name()
	p.expect(',')
	if p.err == nil && (p.tok.kind != 'l' || p.tok.lit.kind != litString) {
		p.unexpected("a string in quotes")
	}
	n.value = p.tok.lit
	p.next()
	p.expect(')')
	if p.err != nil || !p.isWord("eq") {
		return n
	}
	p.next()
	if p.tok.kind != 'l' || p.tok.lit.kind != litBool {
		p.unexpected("true or false")
		return n
	}
	yes := p.tok.lit.b
	p.next()
	if !yes {
		return node{op: "not", kids: []node{n}}
	}
	return n
}

func (p *filterParser) name() string {
	if p.err != nil {
		return ""
	}
	if p.tok.kind != 'w' {
		p.unexpected("a property's name")
		return ""
	}
	w := p.tok.text
	p.next()
	return w
}

// comparison reads "property op literal" or its mirror image.
func (p *filterParser) comparison() node {
	if p.err != nil {
		return node{}
	}
	var n node
	flip := p.tok.kind == 'l'
	if flip {
		n.value = p.tok.lit
		p.next()
	} else {
		n.field = p.name()
	}
	if p.err != nil {
		return n
	}
	switch {
	case p.tok.kind == '(':
		p.fail(p.tok.at, "%q is no function here: there is startswith", n.field)
		return n
	case p.tok.kind != 'w' || !isComparison(p.tok.text):
		p.unexpected("eq, ne, lt, le, gt or ge")
		return n
	}
	n.op = p.tok.text
	p.next()
	if flip {
		n.op = mirror(n.op)
		n.field = p.name()
		return n
	}
	if p.tok.kind != 'l' {
		p.unexpected("a value: a string in quotes, a number, true, false, null or DateTime'…'")
		return n
	}
	n.value = p.tok.lit
	p.next()
	return n
}

func isComparison(w string) bool {
	switch w {
	case "eq", "ne", "lt", "le", "gt", "ge":
		return true
	}
	return false
}

// mirror is the operator with its sides exchanged.
func mirror(op string) string {
	switch op {
	case "lt":
		return "gt"
	case "le":
		return "ge"
	case "gt":
		return "lt"
	case "ge":
		return "le"
	}
	return op
}
