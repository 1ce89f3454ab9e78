package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Bounds of a synthetic machine. The sets of its objects take at most
// maxSyntheticWords × 8 bytes.
const (
	maxSyntheticPUs    = maxPU + 1
	maxSyntheticLevels = 126 // hwloc's, with machine and PUs
	maxSyntheticNodes  = 65536
	maxSyntheticWords  = 34 << 20
)

// Synthetic makes a machine of a description in hwloc's language: the types and
// numbers of objects in each object of the level above, the outermost first, the
// PUs last.
//
//	pack:2 [numa(memory=64GiB)] l3:2(size=32MiB) core:8 pu:2
//	numa:2 core:4 pu:1(indexes=2*4:1*2)
//	2 4 2
//
// Types are package (or socket), die, numanode (or node), group, core, pu and
// l1 to l5 with u, d or i (unified, data, instruction); two letters are enough.
// In brackets is a NUMA node of every object of the level before. Attributes are
// size (of caches), memory and indexes: numbers of the operating system in a
// list, or loops of step*number or types. Numbers without types are groups,
// packages, NUMA nodes, L3, L2, L1, cores and PUs, of which the less needed are
// left out. Without any NUMA node the machine is one.
//
// Unusable indexes are left out with a warning, as hwloc does; anything else that
// can't be read is an error that names the column. There are at most 65,536 PUs.
// Of a description without cores every PU is one.
func Synthetic(description string) (topology.Node, error) {
	s := &synthetic{text: description}
	if err := s.parse(); err != nil {
		return topology.Node{}, fmt.Errorf("synthetic description: %w", err)
	}
	return s.node(), nil
}

// synthLevel is a level of objects.
type synthLevel struct {
	kind     string // package, die, numa, group, core, pu, cache; "" unset
	cache    int    // level
	content  byte   // of a cache: u, d, i
	arity    int    // in each object of the level above
	width    int    // in the machine
	column   int
	bytes    uint64 // size or memory; 0: none was given
	indexes  string
	array    []int
	attached []synthNUMA
}

// synthNUMA is a NUMA node of every object of a level.
type synthNUMA struct{ bytes uint64 }

type synthetic struct {
	text     string
	pos      int
	levels   []synthLevel // 0 is the machine
	attached int          // NUMA nodes in brackets, in the machine
	indexes  string       // theirs
	array    []int
	warnings []string
}

func (s *synthetic) fail(at int, format string, args ...any) error {
	return fmt.Errorf("%q, column %d: %s", clip(s.text), at+1, fmt.Sprintf(format, args...))
}

func (s *synthetic) parse() error {
	s.levels = []synthLevel{{kind: "machine", width: 1}}
	s.blanks()
	if s.peek() == '(' {
		if err := s.attributes(&s.levels[0], &s.levels[0].indexes); err != nil {
			return err
		}
	}
	for {
		s.blanks()
		if s.pos == len(s.text) {
			break
		}
		var err error
		if s.peek() == '[' {
			err = s.bracket()
		} else {
			err = s.level()
		}
		if err != nil {
			return err
		}
	}
	return s.complete()
}

func (s *synthetic) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *synthetic) blanks() {
	for s.pos < len(s.text) && strings.IndexByte(" \n\t", s.text[s.pos]) >= 0 {
		s.pos++
	}
}

// typed reads the name of a type.
func (s *synthetic) typed() (kind string, cache int, content byte, err error) {
	start := s.pos
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	for letter(s.peek()) {
		s.pos++
	}
	word := strings.ToLower(s.text[start:s.pos])
	if word == "l" {
		c := s.peek()
		if c < '1' || c > '5' {
			return "", 0, 0, s.fail(s.pos, "expected the level of a cache, 1 to 5")
		}
		s.pos++
		rest := s.pos
		for letter(s.peek()) {
			s.pos++
		}
		word := strings.ToLower(s.text[rest:s.pos])
		content := byte('u')
		if word != "" && strings.IndexByte("udi", word[0]) >= 0 {
			content, word = word[0], word[1:]
		}
		if !strings.HasPrefix("cache", word) || content == 'i' && c > '3' {
			return "", 0, 0, s.fail(start, "type %q is not known", clip(s.text[start:s.pos]))
		}
		return "cache", int(c - '0'), content, nil
	}
	for _, t := range []struct{ name, kind string }{{"package", "package"}, {"socket", "package"}, {"die", "die"},
		{"numanode", "numa"}, {"node", "numa"}, {"group", "group"}, {"core", "core"}, {"pu", "pu"}} {
		if len(word) >= 2 && strings.HasPrefix(t.name, word) {
			for kind := t.kind; kind == "group" && s.peek() >= '0' && s.peek() <= '9'; {
				s.pos++ // group2: its depth, which is of no importance
			}
			return t.kind, 0, 0, nil
		}
	}
	return "", 0, 0, s.fail(start, "expected a type such as pack, numa, l3, core or pu, found %q", clip(s.text[start:min(len(s.text), max(s.pos, start+1))]))
}

// number reads a number in C's notation.
func (s *synthetic) number(most uint64) (uint64, bool) {
	start := s.pos
	base := 10
	switch {
	case strings.HasPrefix(s.text[s.pos:], "0x") || strings.HasPrefix(s.text[s.pos:], "0X"):
		base = 16
		s.pos += 2
		start = s.pos
	case s.peek() == '0':
		base = 8
	}
	for s.pos < len(s.text) {
		if _, err := strconv.ParseUint(s.text[s.pos:s.pos+1], base, 8); err != nil {
			break
		}
		s.pos++
	}
	v, err := strconv.ParseUint(s.text[start:s.pos], base, 64)
	return v, err == nil && v <= most
}

// bracket reads [numa(…)].
func (s *synthetic) bracket() error {
	start := s.pos
	s.pos++
	kind, _, _, err := s.typed()
	if err != nil {
		return err
	}
	if kind != "numa" {
		return s.fail(start, "only NUMA nodes can be in brackets")
	}
	last := &s.levels[len(s.levels)-1]
	of := synthLevel{kind: "numa"}
	if s.peek() == '(' {
		if err := s.attributes(&of, &s.indexes); err != nil {
			return err
		}
	}
	if s.peek() != ']' {
		return s.fail(s.pos, "expected ']'")
	}
	s.pos++
	if s.attached += last.width; s.attached > maxSyntheticNodes {
		return s.fail(start, "more than %d NUMA nodes", maxSyntheticNodes)
	}
	last.attached = append(last.attached, synthNUMA{of.bytes})
	return nil
}

// level reads type:number(…) or a number.
func (s *synthetic) level() error {
	l := synthLevel{column: s.pos}
	above := s.levels[len(s.levels)-1]
	if c := s.peek(); c < '0' || c > '9' {
		var err error
		if l.kind, l.cache, l.content, err = s.typed(); err != nil {
			return err
		}
		if s.peek() != ':' {
			return s.fail(s.pos, "expected ':' and a number of objects")
		}
		s.pos++
	}
	at := s.pos
	arity, ok := s.number(maxSyntheticPUs)
	switch {
	case !ok || arity < 1:
		return s.fail(at, "expected a number of objects, 1 to %d", maxSyntheticPUs)
	case int(arity) > maxSyntheticPUs/above.width:
		return s.fail(l.column, "more than %d objects", maxSyntheticPUs)
	case len(s.levels) > maxSyntheticLevels:
		return s.fail(l.column, "more than %d levels", maxSyntheticLevels)
	}
	l.arity, l.width = int(arity), above.width*int(arity)
	if s.peek() == '(' {
		if err := s.attributes(&l, &l.indexes); err != nil {
			return err
		}
	}
	s.levels = append(s.levels, l)
	return nil
}

// attributes reads (name=value …).
func (s *synthetic) attributes(l *synthLevel, indexes *string) error {
	s.pos++
	for s.peek() != ')' {
		rest := s.text[s.pos:]
		switch {
		case l.kind == "cache" && strings.HasPrefix(rest, "size="), l.kind != "cache" && strings.HasPrefix(rest, "memory="):
			s.pos += strings.IndexByte(rest, '=') + 1
			at := s.pos
			v, ok := s.number(1 << 60)
			unit := uint64(1)
			for _, u := range []struct {
				name  string
				bytes uint64
			}{{"tib", 1 << 40}, {"gib", 1 << 30}, {"mib", 1 << 20}, {"kib", 1 << 10}, {"tb", 1e12}, {"gb", 1e9}, {"mb", 1e6}, {"kb", 1e3}} {
				if len(s.text)-s.pos >= len(u.name) && strings.EqualFold(s.text[s.pos:s.pos+len(u.name)], u.name) {
					unit = u.bytes
					s.pos += len(u.name)
					break
				}
			}
			if !ok || v > (1<<60)/unit {
				return s.fail(at, "expected a size such as 32768 or 16GiB")
			}
			l.bytes = v * unit
		case strings.HasPrefix(rest, "indexes="):
			s.pos += len("indexes=")
			n := strings.IndexAny(s.text[s.pos:], " )")
			if n < 0 {
				return s.fail(s.pos, "the attributes have no end: expected ')'")
			}
			*indexes = s.text[s.pos : s.pos+n]
			s.pos += n
		case rest == "":
			return s.fail(s.pos, "the attributes have no end: expected ')'")
		default:
			return s.fail(s.pos, "expected size= of a cache, memory= of anything else, or indexes=")
		}
		if s.peek() == ' ' {
			s.pos++
		} else if s.peek() != ')' {
			return s.fail(s.pos, "expected a blank or ')' after an attribute")
		}
	}
	s.pos++
	return nil
}

// complete checks the levels, gives types to those that have none and reads the
// indexes.
func (s *synthetic) complete() error {
	last := len(s.levels) - 1
	if last == 0 {
		return s.fail(s.pos, "it has no PUs")
	}
	if k := s.levels[last].kind; k != "" && k != "pu" {
		return s.fail(s.levels[last].column, "the last level must be PUs, as in pu:2")
	}
	s.levels[last].kind = "pu"
	count := map[string]int{}
	for _, l := range s.levels {
		count[l.kind]++
		if l.kind != "" && l.kind != "group" && l.kind != "cache" && count[l.kind] > 1 {
			return s.fail(l.column, "several levels of type %s", l.kind)
		}
	}
	if count["numa"] > 0 && s.attached > 0 {
		return s.fail(0, "NUMA nodes are both a level and in brackets")
	}
	switch count[""] {
	case 0:
	case last - 1:
		s.name()
	default:
		return s.fail(0, "some levels have a type and others none")
	}
	words := 0
	cores := slices.ContainsFunc(s.levels, func(l synthLevel) bool { return l.kind == "core" })
	for i := range s.levels {
		l := &s.levels[i]
		// An only child has the set of its parent; the PUs of cores have none.
		if i > 0 && l.arity > 1 && (i < last || !cores) {
			words += l.width * (s.levels[last].width/64 + 2) / 2
		}
		if l.indexes != "" {
			l.array = s.order(l.indexes, l.width, s.levels[:i+1])
		}
	}
	if words > maxSyntheticWords {
		return s.fail(0, "the machine is too large to be described object by object")
	}
	if s.indexes != "" && s.attached > 0 {
		s.array = s.order(s.indexes, s.attached, nil)
	}
	return nil
}

// name gives types to levels of numbers only.
func (s *synthetic) name() {
	free := len(s.levels) - 2
	take := func(wanted bool, most int) int {
		n := 0
		if wanted {
			n = min(free, most)
		}
		free -= n
		return n
	}
	numa, pack, core := take(s.attached == 0, 1), take(true, 1), take(true, 1)
	caches := take(true, 4)
	at := 1
	put := func(n int, l synthLevel) {
		for range n {
			s.levels[at].kind, s.levels[at].cache, s.levels[at].content = l.kind, l.cache, l.content
			at++
		}
	}
	put(free, synthLevel{kind: "group"})
	put(pack, synthLevel{kind: "package"})
	put(numa, synthLevel{kind: "numa"})
	for _, c := range []struct {
		from int
		l    synthLevel
	}{{3, synthLevel{kind: "cache", cache: 3, content: 'u'}}, {1, synthLevel{kind: "cache", cache: 2, content: 'u'}},
		{2, synthLevel{kind: "cache", cache: 1, content: 'd'}}, {4, synthLevel{kind: "cache", cache: 1, content: 'i'}}} {
		if caches >= c.from {
			put(1, c.l)
		}
	}
	put(core, synthLevel{kind: "core"})
}

// order reads the indexes of total objects; nil, with a warning, if it can't.
// above are the levels down to theirs.
func (s *synthetic) order(text string, total int, above []synthLevel) []int {
	bad := func(format string, args ...any) []int {
		s.warnings = append(s.warnings, fmt.Sprintf("synthetic description: indexes=%s: %s; they are left out", clip(text), fmt.Sprintf(format, args...)))
		return nil
	}
	if strings.Trim(text, "0123456789,") == "" {
		var out []int
		seen := map[int]bool{}
		for f := range strings.SplitSeq(text, ",") {
			v, err := strconv.Atoi(f)
			if err != nil || v > maxPU || seen[v] || len(out) == total {
				return bad("expected %d different numbers up to %d", total, maxPU)
			}
			seen[v] = true
			out = append(out, v)
		}
		if len(out) != total {
			return bad("expected %d numbers, found %d", total, len(out))
		}
		return out
	}
	loops, problem := s.loops(text, total, above)
	if problem != "" {
		return bad("%s", problem)
	}
	product, least := 1, total
	for _, l := range loops {
		if l.number > total/product {
			return bad("the loops make more than %d objects", total)
		}
		product *= l.number
		least = min(least, l.step)
	}
	if product != total {
		if total%product != 0 || least != total/product {
			return bad("the loops make %d objects, expected %d", product, total)
		}
		loops = append(loops, synthLoop{1, total / product})
	}
	out := make([]int, total)
	seen := make([]bool, total)
	for j := range out {
		mul := 1
		for _, l := range loops {
			out[j] += j / l.step % l.number * mul
			mul *= l.number
		}
		if out[j] >= total || seen[out[j]] {
			return bad("the loops make %d twice", out[j])
		}
		seen[out[j]] = true
	}
	return out
}

// synthLoop steps through objects: number times by step.
type synthLoop struct{ step, number int }

func (s *synthetic) loops(text string, total int, above []synthLevel) (loops []synthLoop, problem string) {
	if text[0] >= '0' && text[0] <= '9' {
		for f := range strings.SplitSeq(text, ":") {
			a, b, _ := strings.Cut(f, "*")
			step, err1 := strconv.ParseUint(a, 0, 31)
			number, err2 := strconv.ParseUint(b, 0, 31)
			if err1 != nil || err2 != nil || step == 0 || number == 0 {
				return nil, fmt.Sprintf("%q: expected a loop such as 2*4", clip(f))
			}
			loops = append(loops, synthLoop{int(step), int(number)})
		}
		return loops, ""
	}
	var depths []int
	for f := range strings.SplitSeq(text, ":") {
		t := &synthetic{text: f}
		kind, cache, _, err := t.typed()
		at := slices.IndexFunc(above, func(l synthLevel) bool { return l.kind == kind && l.cache == cache })
		if err != nil || t.pos != len(f) || at < 0 || at == len(above)-1 || slices.Contains(depths, at) {
			return nil, fmt.Sprintf("%q: expected a type of a level above, once", clip(f))
		}
		depths = append(depths, at)
	}
	for _, d := range depths {
		outer := 0
		for _, o := range depths {
			if o < d && o > outer {
				outer = o
			}
		}
		loops = append(loops, synthLoop{total / above[d].width, above[d].width / above[outer].width})
	}
	return loops, ""
}
