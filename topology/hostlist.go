package topology

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxHosts bounds what one hostlist or hostfile expands to: a mistyped range
// must fail, not fill the memory.
const maxHosts = 65536

// maxHostLen is the longest user@name that is taken.
const maxHostLen = 320

// ExpandHosts expands a hostlist, "n[1-4,7],m[01-03]x": names separated by
// commas, ranges in brackets (several in a name multiply, the last runs
// fastest), zero padding kept, user@ in front allowed, IPv6 addresses plain or
// in brackets (returned without). At most 65536 hosts. Errors name the column
// and what was expected; a host named twice is an error. It never returns half
// a list.
func ExpandHosts(s string) ([]string, error) {
	fail := func(e *syntaxError) ([]string, error) {
		return nil, fmt.Errorf("host list %q, column %d: %s", clip(s), e.at+1, e.msg)
	}
	var out []string
	seen := map[string]bool{}
	for pos := 0; ; pos++ {
		item, end, e := parseHostItem(s, pos)
		if e != nil {
			return fail(e)
		}
		if len(out)+item.count > maxHosts {
			return fail(errAt(pos, "more than %d hosts", maxHosts))
		}
		names, e := item.expand()
		if e != nil {
			return fail(e)
		}
		for _, n := range names {
			if seen[n] {
				return fail(errAt(pos, "host %q is named twice", clip(n)))
			}
			seen[n] = true
		}
		out = append(out, names...)
		if pos = end; pos == len(s) {
			return out, nil
		}
		switch c := s[pos]; c {
		case ',':
		case ' ', '\t', '\n', '\r', ';':
			return fail(errAt(pos, "found %q: hosts are separated by commas", c))
		case ':':
			return fail(errAt(pos, "found ':': a host list holds names only; slots (host:4) belong into a hostfile"))
		default:
			return fail(errAt(pos, "found %q: expected ',' or the end", c))
		}
	}
}

// syntaxError is a message and the byte offset it is about.
type syntaxError struct {
	at  int
	msg string
}

func errAt(at int, format string, args ...any) *syntaxError {
	return &syntaxError{at, fmt.Sprintf(format, args...)}
}

// hostItem is one name of a hostlist: literal text and brackets in turn.
type hostItem struct {
	at    int
	parts []hostPart
	count int // names it expands to
}

type hostPart struct {
	text   string
	ranges []hostRange // of a bracket; text is then empty
}

type hostRange struct {
	lo, hi uint64
	width  int // digits to pad to
}

// parseHostItem reads one name at pos and returns the offset behind it.
func parseHostItem(s string, pos int) (hostItem, int, *syntaxError) {
	item := hostItem{at: pos, count: 1}
	// A plain IPv6 address has no other way to be written in the grammar below.
	end := pos + strings.IndexAny(s[pos:]+",", ", \t")
	if a, ok := ipv6(s[pos:end]); ok {
		item.parts = []hostPart{{text: a}}
		return item, end, nil
	}
	nameAt, at := pos, pos // nameAt: start of the name behind user@
	text := func() {
		if pos > at {
			item.parts = append(item.parts, hostPart{text: s[at:pos]})
		}
	}
	for pos < len(s) {
		switch c := s[pos]; {
		case c == '[':
			text()
			close := strings.IndexByte(s[pos:], ']')
			if close < 0 {
				return item, pos, errAt(pos, "'[' is not closed by ']'")
			}
			inside := s[pos+1 : pos+close]
			if a, ok := ipv6(inside); ok && pos == nameAt {
				item.parts = append(item.parts, hostPart{text: a})
				return item, pos + close + 1, nil
			}
			p, n, e := parseBracket(inside, pos+1)
			if e != nil {
				return item, pos, e
			}
			if item.count *= n; item.count > maxHosts {
				return item, pos, errAt(item.at, "more than %d hosts", maxHosts)
			}
			item.parts = append(item.parts, p)
			pos += close + 1
			at = pos
			continue
		case c == ']':
			return item, pos, errAt(pos, "']' without '['")
		case c == '@':
			if nameAt != item.at || pos == item.at {
				return item, pos, errAt(pos, "found '@': expected user@host")
			}
			if len(item.parts) > 0 {
				return item, pos, errAt(pos, "found '@' behind a range: a user name has none")
			}
			nameAt = pos + 1
		case c == '-' && (pos == item.at || pos == nameAt):
			return item, pos, errAt(pos, "a host or user name does not begin with '-'")
		case !hostByte(c):
			goto done
		}
		pos++
	}
done:
	text()
	if pos == nameAt {
		if pos < len(s) {
			return item, pos, errAt(pos, "found %q: expected a host name", s[pos])
		}
		return item, pos, errAt(pos, "expected a host name, found the end")
	}
	return item, pos, nil
}

// ipv6 normalises an IPv6 address; a zone must look like an interface's name.
func ipv6(s string) (string, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() {
		return "", false
	}
	for i := range len(a.Zone()) {
		if !hostByte(a.Zone()[i]) {
			return "", false
		}
	}
	return a.String(), true
}

func hostByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

// parseBracket reads what stands between brackets, at offset at of the list,
// and returns the number of values.
func parseBracket(s string, at int) (hostPart, int, *syntaxError) {
	var p hostPart
	n := 0
	for pos := 0; ; pos++ {
		start := pos
		lo, loText, e := bracketNumber(s, &pos, at)
		if e != nil {
			return p, 0, e
		}
		r := hostRange{lo: lo, hi: lo, width: len(loText)}
		if pos < len(s) && s[pos] == '-' {
			pos++
			var hiText string
			if r.hi, hiText, e = bracketNumber(s, &pos, at); e != nil {
				return p, 0, e
			}
			if len(hiText) < len(loText) && r.hi >= lo || hiText[0] == '0' && len(hiText) > 1 && len(hiText) != len(loText) {
				return p, 0, errAt(at+start, "the ends of %s-%s are padded differently", loText, hiText)
			}
			if r.hi < lo {
				return p, 0, errAt(at+start, "range %s-%s runs backwards", loText, hiText)
			}
		}
		if r.hi-r.lo >= maxHosts {
			return p, 0, errAt(at+start, "more than %d hosts", maxHosts)
		}
		if n += int(r.hi-r.lo) + 1; n > maxHosts {
			return p, 0, errAt(at+start, "more than %d hosts", maxHosts)
		}
		p.ranges = append(p.ranges, r)
		if pos == len(s) {
			return p, n, nil
		}
		switch s[pos] {
		case ',':
		case '[':
			return p, 0, errAt(at+pos, "brackets inside brackets")
		default:
			return p, 0, errAt(at+pos, "found %q: expected ',', '-' or ']', as in n[1-4,7]", s[pos])
		}
	}
}

func bracketNumber(s string, pos *int, at int) (uint64, string, *syntaxError) {
	start := *pos
	for *pos < len(s) && s[*pos] >= '0' && s[*pos] <= '9' {
		*pos++
	}
	text := s[start:*pos]
	if text == "" {
		if start < len(s) && s[start] == '[' {
			return 0, "", errAt(at+start, "brackets inside brackets")
		}
		return 0, "", errAt(at+start, "expected a number, as in n[1-4,7]")
	}
	if len(text) > 18 {
		return 0, "", errAt(at+start, "number of more than 18 digits")
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, "", errAt(at+start, "expected a number, as in n[1-4,7]")
	}
	return v, text, nil
}

// expand returns the names; the last bracket runs fastest.
func (it hostItem) expand() ([]string, *syntaxError) {
	names := []string{""}
	for _, p := range it.parts {
		next := make([]string, 0, len(names))
		for _, n := range names {
			if p.ranges == nil {
				next = append(next, n+p.text)
			}
			for _, r := range p.ranges {
				for v := r.lo; v <= r.hi; v++ {
					next = append(next, n+fmt.Sprintf("%0*d", r.width, v))
				}
			}
			if len(next[len(next)-1]) > maxHostLen {
				return nil, errAt(it.at, "host name of more than %d characters", maxHostLen)
			}
		}
		names = next
	}
	return names, nil
}

// CompactHosts writes names as a hostlist. It keeps their order, so that
// ExpandHosts gives them back; sorted names fold best.
func CompactHosts(hosts []string) string {
	var out []string
	for i := 0; i < len(hosts); {
		g := newHostGroup(hosts[i])
		for i++; i < len(hosts) && g.add(hosts[i]); i++ {
		}
		out = append(out, g.String())
	}
	return strings.Join(out, ",")
}

// hostGroup is a run of names that differ in one number.
type hostGroup struct {
	tokens []string // text and digits in turn, text first
	vary   int      // the token that differs; 0: one name so far
	values []string
}

func newHostGroup(name string) *hostGroup { return &hostGroup{tokens: splitDigits(name)} }

func (g *hostGroup) add(name string) bool {
	t := splitDigits(name)
	if len(t) != len(g.tokens) || strings.Contains(name, ":") {
		return false
	}
	vary := 0
	for i := range t {
		if t[i] != g.tokens[i] {
			if i%2 == 0 || vary != 0 || len(t[i]) > 18 || len(g.tokens[i]) > 18 {
				return false
			}
			vary = i
		}
	}
	// A user name takes no range.
	if vary == 0 || g.vary != 0 && vary != g.vary || strings.Contains(strings.Join(t[vary:], ""), "@") {
		return false
	}
	if g.vary == 0 {
		g.vary, g.values = vary, []string{g.tokens[vary]}
	}
	g.values = append(g.values, t[vary])
	return true
}

func (g *hostGroup) String() string {
	if g.vary == 0 {
		name := strings.Join(g.tokens, "")
		if strings.Contains(name, ":") {
			at := strings.IndexByte(name, '@') + 1
			return name[:at] + "[" + name[at:] + "]"
		}
		return name
	}
	var b strings.Builder
	for i := 0; i < len(g.values); {
		lo := g.values[i]
		j := i
		v, _ := strconv.ParseUint(lo, 10, 64)
		for j+1 < len(g.values) && g.values[j+1] == fmt.Sprintf("%0*d", len(lo), v+uint64(j-i)+1) {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(lo)
		if j > i {
			b.WriteString("-" + g.values[j])
		}
		i = j + 1
	}
	return strings.Join(g.tokens[:g.vary], "") + "[" + b.String() + "]" + strings.Join(g.tokens[g.vary+1:], "")
}

// splitDigits cuts a name into text, digits, text, … beginning with text.
func splitDigits(s string) []string {
	out := []string{}
	for start, digits := 0, false; ; digits = !digits {
		end := start
		for end < len(s) && (s[end] >= '0' && s[end] <= '9') == digits {
			end++
		}
		out = append(out, s[start:end])
		if start = end; start == len(s) {
			return out
		}
	}
}
