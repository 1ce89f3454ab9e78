package sweep

import "strings"

// Table reads the values of a sweep's elements. It is for concurrent use.
type Table struct {
	sweep   *Sweep
	first   uint64 // element of the product that is element 0
	count   uint64
	axes    []axis
	columns []column // in the order of Names
}

// axis is where an axis stands in the product.
type axis struct {
	stride uint64 // elements after which it goes on
	size   uint64
	from   uint64 // first position that its columns hold
	held   uint64 // positions that they hold
}

// column is the values of a Column. One of the four is set.
type column struct {
	axis   int // -1: of Each
	values []string
	lines  *lines
	steps  *steps
	draws  *draws
	held   uint64
}

// lines finds a line of a text without going through all before it.
type lines struct {
	text  string
	marks []int // where line 0, every, 2 × every, ... begin
}

const every = 64

func newLines(text string) *lines {
	l := &lines{text: text}
	at, n := 0, 0
	for at < len(text) {
		if n%every == 0 {
			l.marks = append(l.marks, at)
		}
		n++
		nl := strings.IndexByte(text[at:], '\n')
		if nl < 0 {
			break
		}
		at += nl + 1
	}
	return l
}

// offset is where line i begins; the text's length behind the last one.
func (l *lines) offset(i uint64) int {
	mark := i / every
	if mark >= uint64(len(l.marks)) {
		return len(l.text)
	}
	at := l.marks[mark]
	for range i % every {
		nl := strings.IndexByte(l.text[at:], '\n')
		if nl < 0 {
			return len(l.text)
		}
		at += nl + 1
	}
	return at
}

func (l *lines) line(i uint64) string {
	rest := l.text[l.offset(i):]
	if nl := strings.IndexByte(rest, '\n'); nl >= 0 {
		rest = rest[:nl]
	}
	return rest
}

// Table returns a reader of the sweep, or what Check has to say.
func (s *Sweep) Table() (*Table, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	t := &Table{sweep: s, count: s.product()}
	if s.Window != nil {
		t.first, t.count = s.Window.First, s.Window.Count
	}
	t.axes = s.strides()
	for i := range s.Axes {
		for j := range s.Axes[i].Columns {
			t.columns = append(t.columns, newColumn(&s.Axes[i].Columns[j], i))
		}
	}
	for i := range s.Each {
		t.columns = append(t.columns, newColumn(&s.Each[i], -1))
	}
	return t, nil
}

// strides are the axes' places in the product.
func (s *Sweep) strides() []axis {
	axes := make([]axis, len(s.Axes))
	stride := uint64(1)
	for i := len(axes) - 1; i >= 0; i-- {
		a := &s.Axes[i]
		held := a.Repeat
		if len(a.Columns) > 0 {
			held = a.Columns[0].length()
		}
		axes[i] = axis{stride: stride, size: a.length(), from: a.From, held: held}
		stride = times(stride, axes[i].size)
	}
	return axes
}

func newColumn(c *Column, axis int) column {
	col := column{axis: axis, held: c.length()}
	switch {
	case c.Span != nil:
		s, err := c.Span.steps()
		if err == nil { // it was checked
			col.steps = &s
		}
	case c.Random != nil:
		col.draws = newDraws(c.Random, c.Name)
	case c.Values != nil:
		col.values = c.Values
	default:
		col.lines = newLines(c.Lines)
	}
	return col
}

// needs returns the run of the axis's positions that the elements [lo, hi) of the
// product have: the first one and how many.
func (a axis) needs(lo, hi uint64) (from, n uint64) {
	first, last := lo/a.stride, (hi-1)/a.stride
	if last-first+1 >= a.size {
		return 0, a.size
	}
	return first % a.size, last - first + 1
}

// holds reports whether what a cut left of an axis is enough for its window.
func (s *Sweep) holds(i int) bool {
	lo, hi := uint64(0), s.product()
	if s.Window != nil {
		lo, hi = s.Window.First, s.Window.First+s.Window.Count
	}
	a := s.strides()[i]
	from, n := a.needs(lo, hi)
	return (from+a.size-a.from)%a.size+n <= a.held
}

// Len is the number of elements.
func (t *Table) Len() uint64 { return t.count }

// Values appends the values of element i, from 0, in the order of Names. Beyond
// the last element there are none: all are "".
func (t *Table) Values(i uint64, dst []string) []string {
	var scratch [64]byte
	for c := range t.columns {
		v, plain, ok := t.value(c, i, scratch[:0])
		if !ok {
			v = string(plain)
		}
		dst = append(dst, v)
	}
	return dst
}

// value is the value of a column: a string that is there already, or the bytes
// appended to dst.
func (t *Table) value(c int, i uint64, dst []byte) (v string, out []byte, ready bool) {
	if i >= t.count {
		return "", dst, true
	}
	e := t.first + i
	col := &t.columns[c]
	at := e
	if col.axis >= 0 {
		a := &t.axes[col.axis]
		if at = (e/a.stride)%a.size + a.size - a.from; at >= a.size {
			at -= a.size
		}
	}
	switch {
	case col.values != nil:
		return col.values[at], dst, true
	case col.lines != nil:
		return col.lines.line(at), dst, true
	case col.steps != nil:
		return "", col.steps.append(dst, at), false
	}
	return "", col.draws.append(dst, at), false
}

// Cut returns the elements [lo, hi) as a sweep of their own, with no more values
// than they need; it shares these. hi is at most Len.
func (t *Table) Cut(lo, hi uint64) *Sweep {
	hi = min(hi, t.count)
	lo = min(lo, hi)
	cut := &Sweep{Each: t.sweep.Each, Window: &Window{First: t.first + lo, Count: hi - lo}}
	column := 0
	for i := range t.sweep.Axes {
		a := t.sweep.Axes[i]
		n := len(a.Columns)
		if n > 0 && lo < hi {
			a = t.cutAxis(i, t.columns[column:column+n], t.first+lo, t.first+hi)
		}
		column += n
		cut.Axes = append(cut.Axes, a)
	}
	return cut
}

// cutAxis leaves an axis the values that the product's elements [lo, hi) need.
// Ranges and draws are formulas, which stay.
func (t *Table) cutAxis(i int, columns []column, lo, hi uint64) Axis {
	was, place := t.sweep.Axes[i], t.axes[i]
	from, n := place.needs(lo, hi)
	at := (from + place.size - place.from) % place.size // among what is held
	if n == place.held || at+n > place.held {           // all, or from the end on to the begin
		return was
	}
	for c := range columns {
		if columns[c].values == nil && columns[c].lines == nil {
			return was // a formula can't be cut, and its neighbours are as long
		}
	}
	a := Axis{Size: place.size, From: from, Columns: make([]Column, len(columns))}
	for c := range columns {
		a.Columns[c] = Column{Name: was.Columns[c].Name}
		if v := columns[c].values; v != nil {
			a.Columns[c].Values = v[at : at+n : at+n]
			continue
		}
		l := columns[c].lines
		a.Columns[c].Lines = l.text[l.offset(at):l.offset(at+n)]
	}
	return a
}

// Cut returns the elements [lo, hi) of the sweep, from 0, as a sweep of their
// own, which holds only the values that they need. Of a sweep that doesn't pass
// Check it is empty. For many cuts of one sweep take Table.Cut.
func (s *Sweep) Cut(lo, hi uint64) *Sweep {
	t, err := s.Table()
	if err != nil {
		return &Sweep{Window: &Window{}}
	}
	return t.Cut(lo, hi)
}
