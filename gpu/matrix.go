package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Bounds on what a text can make ReadMatrix do.
const (
	maxMatrixText     = 2 << 20 // bytes
	maxMatrixDevices  = 512
	maxMatrixWarnings = 50
)

// Matrix is what nvidia-smi topo -m says.
type Matrix struct {
	topology.DistanceMatrix
	// Warnings tell what was missing, contradictory or not understood, most
	// with the line.
	Warnings []string
}

// Links returns the pairs whose class is known, each once.
func (m Matrix) Links() []topology.Link {
	var out []topology.Link
	for i, row := range m.Classes {
		for j, c := range row {
			if i < j && c != "" {
				out = append(out, topology.Link{A: m.Devices[i].Name, B: m.Devices[j].Name, Class: c})
			}
		}
	}
	return out
}

// ReadMatrix reads the output of nvidia-smi topo -m as people keep it: with or
// without tabs, with the escapes of a terminal, with lines that it broke, rows
// in any order, labels run together, cut off, and with or without affinities
// and the legend that says which adapter NIC0 is. Adapters have the legend's
// name; old versions name them in the header.
//
// The result is symmetric: what one row lacks is taken from the other, and of
// two classes that contradict each other the farther counts, with a warning.
// Unknown classes are "". It fails on a text without a matrix, on more than
// 512 devices, and with the reader.
func ReadMatrix(r io.Reader) (Matrix, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMatrixText+1))
	if err != nil {
		return Matrix{}, fmt.Errorf("matrix: %w", err)
	}
	p := &matrixParser{cells: map[[2]string]topology.Class{}, rows: map[string]matrixRow{}}
	if len(b) > maxMatrixText {
		b = b[:maxMatrixText]
		p.warn(0, "more than %d bytes: the rest is not read", maxMatrixText)
	}
	p.split(string(b))
	if err := p.header(); err != nil {
		return Matrix{}, err
	}
	for _, block := range p.blocks {
		p.row(block)
	}
	return p.matrix()
}

type matrixParser struct {
	lines    []matrixLine // up to the legend
	legend   map[string]string
	width    int // of the widest line: where a terminal may have broken them
	columns  []string
	blocks   []matrixBlock
	cells    map[[2]string]topology.Class // by row and column
	rows     map[string]matrixRow
	warnings []string
	// affinityColumns are those after the devices': CPU Affinity, NUMA Affinity,
	// GPU NUMA ID.
	affinityColumns int
}

type matrixLine struct {
	number int
	text   string // without tabs
}

// matrixBlock is a row with the lines it goes on over.
type matrixBlock struct {
	label string
	lines []matrixLine
}

// matrixRow is what follows a row's classes.
type matrixRow struct {
	cpus, numa topology.CPUSet
	gpuNUMA    *int
}

func (p *matrixParser) warn(line int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if line > 0 {
		text = fmt.Sprintf("line %d: %s", line, text)
	}
	if len(p.warnings) < maxMatrixWarnings {
		p.warnings = append(p.warnings, text)
	}
}

// split takes the escapes away and parts the table from the legends.
func (p *matrixParser) split(text string) {
	p.legend = map[string]string{}
	inLegend := false
	number := 0
	for line := range strings.Lines(cleanText(text)) {
		number++
		line = expandTabs(strings.TrimRight(line, "\r\n"))
		if word := strings.ToLower(strings.TrimSpace(line)); strings.HasPrefix(word, "legend") || strings.HasPrefix(word, "nic legend") {
			inLegend = true
		}
		if inLegend {
			p.readLegend(number, line)
		} else if strings.TrimSpace(line) != "" {
			p.lines = append(p.lines, matrixLine{number, line})
			p.width = max(p.width, len(line))
		}
	}
}

// readLegend reads "NIC0: mlx5_1"; several may share a line.
func (p *matrixParser) readLegend(number int, line string) {
	at := legendEntry.FindAllStringSubmatchIndex(line, -1)
	for k, m := range at {
		end := len(line)
		if k+1 < len(at) {
			end = at[k+1][0]
		}
		label, name := canonical(line[m[2]:m[3]]), strings.TrimSpace(line[m[1]:end])
		switch old := p.legend[label]; {
		case !deviceName.MatchString(name) || gpuColumn.MatchString(name):
			p.warn(number, "expected the name of an adapter for %s, found %q", label, shorten(name))
		case old != "" && old != name:
			p.warn(number, "%s is %s and %s; the first is taken", label, old, name)
		default:
			p.legend[label] = name
		}
	}
}

var errNoMatrix = errors.New("no matrix in the text: expected a line of labels such as GPU0 GPU1 NIC0 and a row for each; give the output of nvidia-smi topo -m")

// header finds the columns and parts what follows into rows.
func (p *matrixParser) header() error {
	start := -1
	for i, l := range p.lines {
		if f := labels(l.text); len(f) > 0 && strongLabel.MatchString(f[0]) && !p.startsRow(l.text, false) {
			start = i
			break
		}
	}
	first := start
	for first = max(start, 0); first < len(p.lines) && !p.startsRow(p.lines[first].text, false); first++ {
	}
	for _, l := range p.lines[min(first, len(p.lines)):] {
		switch {
		case p.startsRow(l.text, true):
			p.blocks = append(p.blocks, matrixBlock{label: canonical(tokens(l.text)[0]), lines: []matrixLine{l}})
		case len(p.blocks) > 0:
			b := &p.blocks[len(p.blocks)-1]
			b.lines = append(b.lines, l)
		}
	}
	var heading strings.Builder
	for _, l := range p.lines[max(start, 0):min(first, len(p.lines))] {
		heading.WriteString(strings.ToLower(strings.ReplaceAll(l.text, " ", "")))
	}
	for _, word := range []string{"cpuaffinity", "numaaffinity", "gpunumaid"} {
		if strings.Contains(heading.String(), word) {
			p.affinityColumns++
		}
	}
	if len(p.blocks) > maxMatrixDevices {
		return fmt.Errorf("matrix of more than %d rows", maxMatrixDevices)
	}
	if start < 0 {
		return p.columnsFromRows()
	}
	have := map[string]bool{}
	for _, b := range p.blocks {
		have[b.label] = true
	}
	// What is above the header may begin with a label too, and another line,
	// such as the command's, part them.
	starts := []int{start}
	for i := start + 1; i < first && len(starts) < 8; i++ {
		if len(labels(p.lines[i].text)) > 0 && len(labels(p.lines[i-1].text)) == 0 {
			starts = append(starts, i)
		}
	}
	best, at, twice := -1<<30, 0, ""
	for _, s := range starts {
		for _, text := range joins(p.lines[s:first], p.width) {
			columns, double := headerLabels(text)
			score := 0
			for _, c := range columns {
				score--
				if have[p.rowLabel(c, have)] {
					score += 2
				}
			}
			if score > best && len(columns) > 0 {
				best, p.columns, at, twice = score, columns, s, double
			}
		}
	}
	if twice != "" {
		p.warn(p.lines[at].number, "%s heads two columns; the first is taken", twice)
	}
	if len(p.columns) > maxMatrixDevices {
		return fmt.Errorf("matrix of more than %d devices", maxMatrixDevices)
	}
	if len(p.columns) == 0 || len(p.blocks) == 0 && len(p.columns) < 2 {
		return errNoMatrix
	}
	return nil
}

// rowLabel is what a column's row may be called instead: rows of some versions
// have the adapter's name where the column has a number.
func (p *matrixParser) rowLabel(column string, have map[string]bool) string {
	if name := p.legend[column]; name != "" && !have[column] && have[name] {
		return name
	}
	return column
}

// columnsFromRows finds the order of columns where the header was lost: X marks
// each row's own.
func (p *matrixParser) columnsFromRows() error {
	columns := make([]string, len(p.blocks))
	for _, b := range p.blocks {
		best := p.best(b, len(columns))
		own := slices.Index(best.classes, string(topology.ClassSelf))
		if own < 0 || own >= len(columns) || len(best.classes) < len(columns) || columns[own] != "" || slices.Contains(columns, b.label) {
			return errNoMatrix
		}
		columns[own] = b.label
	}
	if len(columns) == 0 {
		return errNoMatrix
	}
	p.warn(0, "the line of labels is missing; the order of columns is taken from the rows")
	p.columns = columns
	return nil
}

// headerLabels returns the labels up to the first word of another kind. A line
// before the header may name a device too: the header begins where its first
// label comes again. A label twice keeps its place, as "".
func headerLabels(text string) (columns []string, twice string) {
	seen := map[string]bool{}
	for _, l := range labels(text) {
		switch {
		case len(columns) > 0 && l == columns[0]:
			columns, seen, twice = nil, map[string]bool{}, ""
		case seen[l]:
			columns, twice = append(columns, ""), l
			continue
		}
		seen[l] = true
		columns = append(columns, l)
	}
	return columns, twice
}

// startsRow reports whether the line begins a row: a label and a class. alone
// accepts a label without anything.
func (p *matrixParser) startsRow(line string, alone bool) bool {
	f := tokens(line)
	if len(f) == 0 || !p.isLabel(f[0]) {
		return false
	}
	if len(f) == 1 {
		return alone && strongLabel.MatchString(f[0])
	}
	return isClass(f[1])
}

func (p *matrixParser) isLabel(s string) bool {
	return !isClass(s) && deviceName.MatchString(s) && strings.ContainsAny(s, "0123456789") && (s[0] < '0' || s[0] > '9')
}

// row reads one row into cells.
func (p *matrixParser) row(b matrixBlock) {
	label := b.label
	line := b.lines[0].number
	if !slices.Contains(p.columns, label) {
		for _, c := range p.columns {
			if c != "" && p.legend[c] == label {
				label = c
				break
			}
		}
	}
	if _, ok := p.rows[label]; ok {
		p.warn(line, "a second row of %s; the first is taken", label)
		return
	}
	best := p.best(b, len(p.columns))
	p.rows[label] = p.affinities(best, line, label)
	if len(best.classes) < len(p.columns) {
		p.warn(line, "%s has %d classes for %d columns", label, len(best.classes), len(p.columns))
	}
	for i, s := range best.classes {
		column := p.columns[i]
		c := topology.Class(s)
		switch {
		case column == "" || s == "N/A":
			continue
		case !isClass(s):
			p.warn(line, "%s to %s: expected a class such as NV18, PIX or SYS, found %q", label, column, shorten(s))
			continue
		case s == "SOC": // before NODE was told from it
			c = topology.ClassSYS
		}
		if (c == topology.ClassSelf) != (column == label) {
			p.warn(line, "%s to %s is %s: a row or a column has the wrong label", label, column, c)
			continue
		}
		p.cells[[2]string{label, column}] = c
	}
}

// matrixParts is a row's text in parts.
type matrixParts struct{ classes, rest []string }

// best takes the way of joining a row's lines that yields the most classes.
func (p *matrixParser) best(b matrixBlock, columns int) matrixParts {
	var best matrixParts
	score, off := -1, 0
	for _, text := range joins(b.lines, p.width) {
		f := tokens(text)
		if len(f) == 0 {
			continue
		}
		parts := cutRow(f[1:], columns)
		n := 0
		for _, c := range parts.classes {
			if isClass(c) {
				n += 2
			}
		}
		n -= len(parts.classes)
		// Of those that yield as many the one whose affinities are as many as
		// the header has.
		o := len(mendLists(parts.rest)) - p.affinityColumns
		o = max(o, -o)
		if n > score || n == score && o < off {
			best, score, off = parts, n, o
		}
	}
	return best
}

func cutRow(f []string, columns int) matrixParts {
	for i, s := range f {
		// A row that was cut off goes on with nothing, one that lacks classes
		// with its cpus.
		if i == columns || cpuList.MatchString(s) {
			return matrixParts{f[:i], f[i:]}
		}
	}
	return matrixParts{classes: f}
}

// affinities reads what follows the classes: cpus, NUMA nodes, and the node
// that is the GPU's memory.
func (p *matrixParser) affinities(parts matrixParts, line int, label string) matrixRow {
	var row matrixRow
	f := mendLists(parts.rest)
	for i, s := range f {
		if s == "N/A" || i > 2 {
			continue
		}
		set, err := topology.ParseCPUSet(s)
		switch {
		case err != nil:
			p.warn(line, "affinity of %s: %v", label, err)
		case i == 0:
			row.cpus = set
		case i == 1:
			row.numa = set
		case set.Count() == 1:
			node := set.First()
			row.gpuNUMA = &node
		default:
			p.warn(line, "NUMA node of the memory of %s: expected one number, found %q", label, shorten(s))
		}
	}
	return row
}

// matrix puts the cells in order and makes them symmetric.
func (p *matrixParser) matrix() (Matrix, error) {
	var order []string
	for _, c := range p.columns {
		if c == "" {
			continue
		}
		order = append(order, c)
		if _, ok := p.rows[c]; !ok {
			p.warn(0, "%s has no row: its distances are taken from the other rows", c)
		}
	}
	for _, b := range p.blocks {
		if _, ok := p.rows[b.label]; ok && !slices.Contains(order, b.label) {
			order = append(order, b.label)
			p.warn(b.lines[0].number, "%s has a row and no column", b.label)
		}
	}
	if len(order) > maxMatrixDevices {
		return Matrix{}, fmt.Errorf("matrix of more than %d devices", maxMatrixDevices)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		return cmp.Or(compareBool(!gpuColumn.MatchString(a), !gpuColumn.MatchString(b)), compareLabels(a, b))
	})
	names := p.names(order)
	var m Matrix
	for i, label := range order {
		row := p.rows[label]
		m.Devices = append(m.Devices, topology.MatrixDevice{
			Name: names[i], NIC: !gpuColumn.MatchString(label), CPUs: row.cpus, NUMA: row.numa, GPUNUMA: row.gpuNUMA,
		})
		m.Classes = append(m.Classes, make([]topology.Class, len(order)))
	}
	for i, a := range order {
		m.Classes[i][i] = topology.ClassSelf
		for j := range i {
			b := order[j]
			x, y := p.cells[[2]string{b, a}], p.cells[[2]string{a, b}]
			if x != "" && y != "" && x != y {
				p.warn(0, "%s and %s: %s in one row, %s in the other; the farther is taken", b, a, x, y)
			}
			if x == "" || y != "" && x.Compare(y) < 0 {
				x = y
			}
			m.Classes[i][j], m.Classes[j][i] = x, x
		}
	}
	m.Warnings = p.warnings
	return m, nil
}

// names are the devices' own: the legend's. One that names two devices is of no
// use at all.
func (p *matrixParser) names(order []string) []string {
	names := slices.Clone(order)
	seen := map[string]string{}
	for i, label := range order {
		if name := p.legend[label]; name != "" {
			names[i] = name
		}
		if other, ok := seen[names[i]]; ok {
			p.warn(0, "%s and %s are both %s: the legend is not used", other, label, names[i])
			return order
		}
		seen[names[i]] = label
	}
	return names
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compareLabels orders labels by their last number: NIC2 before NIC10.
func compareLabels(a, b string) int {
	x, y := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
	p, perr := strconv.ParseUint(a[len(x):], 10, 64)
	q, qerr := strconv.ParseUint(b[len(y):], 10, 64)
	if perr != nil || qerr != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(p, q), cmp.Compare(a, b))
}
