package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"gangway/nodeagent/wire/sweep"
)

// mapSource is a list of values for commands, column by column.
type mapSource struct {
	name    string // for messages
	columns []sweep.Column
	n       uint64
	short   uint64 // arguments of the last command that are not there, with several per command
	zip     bool   // goes on with the source before it
}

// mapInput says where values come from and how they are cut.
type mapInput struct {
	files   []string // -a
	delim   string   // between the values; "": newline
	per     int      // values for each command
	columns string   // what separates a value into columns; "": nothing
	noEmpty bool
	replace string // what stands for the value in place of {}; "": nothing
	stdin   io.Reader
}

// mapLimit bounds what is read, in bytes.
const mapLimit = 2 << 30

// separator says how what follows ::: and its kin is read.
func separator(word string) (file, zip, ok bool) {
	switch word {
	case ":::":
		return false, false, true
	case ":::+":
		return false, true, true
	case "::::":
		return true, false, true
	case "::::+":
		return true, true, true
	}
	return false, false, false
}

// cutCommand splits the command line into the command and its sources' words.
func cutCommand(args []string) (command []string, rest []string) {
	for i, a := range args {
		if _, _, ok := separator(a); ok {
			return args[:i], args[i:]
		}
	}
	return args, nil
}

// sources reads all that was asked for; standard input when nothing was.
func (in *mapInput) sources(words []string) ([]mapSource, error) {
	var out []mapSource
	add := func(s mapSource, zip bool) error {
		s.zip = zip
		if zip && len(out) == 0 {
			return usagef("give the source that it goes with first", "%s comes first and goes with nothing", s.name)
		}
		out = append(out, s)
		return nil
	}
	for _, f := range in.files {
		s, err := in.file(f)
		if err == nil {
			err = add(s, false)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := 0; i < len(words); {
		word := words[i]
		file, zip, _ := separator(word)
		j := i + 1
		for ; j < len(words); j++ {
			if _, _, ok := separator(words[j]); ok {
				break
			}
		}
		list := words[i+1 : j]
		i = j
		if !file {
			s, err := in.cut(list, fmt.Sprintf("%s, value", word))
			if err == nil {
				err = add(s, zip)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		if len(list) == 0 {
			return nil, usagef("name one, or - for standard input", "%s names no file", word)
		}
		for k, f := range list {
			s, err := in.file(f)
			if err == nil {
				err = add(s, zip && (k == 0 || len(out) > 0))
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		s, err := in.file("-")
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// file reads a source from a file, or with - from standard input.
func (in *mapInput) file(name string) (mapSource, error) {
	r, place := in.stdin, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return mapSource{}, usagef("", "the values: %v", err)
		}
		defer f.Close()
		r, place = f, name
	} else if r == nil {
		return mapSource{}, usagef("write the values behind :::", "standard input has been read already")
	} else {
		in.stdin = nil
	}
	data, err := io.ReadAll(io.LimitReader(r, mapLimit+1))
	switch {
	case err != nil:
		return mapSource{}, fmt.Errorf("reading values from %s: %w", place, err)
	case len(data) > mapLimit:
		return mapSource{}, usagef("put the long ones into files and give their names", "%s has more than %d bytes of values", place, mapLimit)
	}
	delim := in.delim
	if delim == "" {
		delim = "\n"
	}
	if delim != "\n" {
		// The line that ends with the input's last newline is no value more.
		if delim != "\x00" && bytes.HasSuffix(data, []byte("\n")) {
			data = data[:len(data)-1]
		}
		data = bytes.TrimSuffix(data, []byte(delim))
		if len(data) == 0 {
			return in.cut(nil, place+", value")
		}
		return in.cut(strings.Split(string(data), delim), place+", value")
	}
	if in.per > 1 || in.columns != "" || in.noEmpty {
		text := strings.TrimSuffix(string(data), "\n")
		if len(data) == 0 {
			return in.cut(nil, place+", line")
		}
		return in.cut(strings.Split(text, "\n"), place+", line")
	}
	// A list of a million lines is kept as it came.
	text := string(data)
	if err := legalLines(text, place); err != nil {
		return mapSource{}, err
	}
	n := uint64(strings.Count(text, "\n"))
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return mapSource{name: place, columns: []sweep.Column{{Lines: text}}, n: n}, nil
}

// legalLines refuses what can't be an argument.
func legalLines(text, place string) error {
	if utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 && longestLine(text) <= longestValue {
		return nil
	}
	line := 0
	for l := range strings.SplitSeq(text, "\n") {
		line++
		if err := legalValue(l, fmt.Sprintf("%s, line %d", place, line)); err != nil {
			return err
		}
	}
	return nil
}

// longestValue is what Linux takes of an argument, in bytes.
const longestValue = 128<<10 - 1

// longestLine is the number of bytes of the longest line.
func longestLine(text string) int {
	n := 0
	for len(text) > 0 {
		i := strings.IndexByte(text, '\n')
		if i < 0 {
			return max(n, len(text))
		}
		n = max(n, i)
		text = text[i+1:]
	}
	return n
}

func legalValue(v, place string) error {
	switch {
	case strings.IndexByte(v, 0) >= 0:
		return usagef("with -0 values end with a zero byte", "%s: %.40q has a zero byte, which no argument can have", place, v)
	case len(v) > longestValue:
		return usagef("put it into a file and give its name", "%s: %.40q… has %d bytes: Linux takes %d at most in an argument", place, v, len(v), longestValue)
	case !utf8.ValidString(v):
		return usagef("only UTF-8 can be sent; rename the file, or give its number", "%s: %.40q is not UTF-8", place, v)
	}
	return nil
}

// cut makes columns of values.
func (in *mapInput) cut(values []string, place string) (mapSource, error) {
	s := mapSource{name: strings.TrimSuffix(strings.TrimSuffix(place, ", value"), ", line")}
	if in.noEmpty {
		kept := values[:0:0]
		for _, v := range values {
			if strings.TrimSpace(v) != "" {
				kept = append(kept, v)
			}
		}
		values = kept
	}
	for i, v := range values {
		if err := legalValue(v, fmt.Sprintf("%s %d", place, i+1)); err != nil {
			return s, err
		}
	}
	if in.columns != "" {
		return in.table(s, values)
	}
	per := max(in.per, 1)
	columns := make([][]string, per)
	for i, v := range values {
		columns[i%per] = append(columns[i%per], v)
	}
	s.n = uint64(len(columns[0]))
	for i := range columns {
		if uint64(len(columns[i])) < s.n {
			columns[i] = append(columns[i], "")
			s.short++
		}
		s.columns = append(s.columns, column(columns[i]))
	}
	return s, nil
}

// table cuts each value into columns; where one has fewer, the rest is empty.
func (in *mapInput) table(s mapSource, values []string) (mapSource, error) {
	width := 1
	for i, v := range values {
		n := strings.Count(v, in.columns) + 1
		if n > sweep.MaxNames {
			return s, usagef("", "%s, value %d has %d columns: at most %d are possible", s.name, i+1, n, sweep.MaxNames)
		}
		width = max(width, n)
	}
	columns := make([][]string, width)
	for _, v := range values {
		i := 0
		for f := range strings.SplitSeq(v, in.columns) {
			columns[i] = append(columns[i], f)
			i++
		}
		for ; i < width; i++ {
			columns[i] = append(columns[i], "")
		}
	}
	s.n = uint64(len(values))
	for _, c := range columns {
		s.columns = append(s.columns, column(c))
	}
	return s, nil
}

// column keeps values as lines, which is smaller, if no line ends within one.
func column(values []string) sweep.Column {
	size := 0
	for _, v := range values {
		if strings.IndexByte(v, '\n') >= 0 {
			return sweep.Column{Values: values}
		}
		size += len(v) + 1
	}
	var b strings.Builder
	b.Grow(size)
	for _, v := range values {
		b.WriteString(v)
		b.WriteByte('\n')
	}
	return sweep.Column{Lines: b.String()}
}

// values are a column's.
func values(c sweep.Column) []string {
	if c.Values != nil || c.Lines == "" {
		return c.Values
	}
	return strings.Split(strings.TrimSuffix(c.Lines, "\n"), "\n")
}

// first leaves the source with its first n commands.
func (s *mapSource) first(n uint64) {
	for i := range s.columns {
		s.columns[i] = column(values(s.columns[i])[:n])
	}
	s.n, s.short = n, 0
}

// sweepOf is the product of the sources, those that are zipped as long as the
// shorter. nil: there is nothing to do.
func sweepOf(sources []mapSource) (*sweep.Sweep, error) {
	out := &sweep.Sweep{}
	n := uint64(1)
	var lengths []uint64
	for i := range sources {
		s := &sources[i]
		if !s.zip {
			out.Axes = append(out.Axes, sweep.Axis{Columns: s.columns})
			lengths = append(lengths, s.n)
			continue
		}
		last := len(lengths) - 1
		switch short := min(lengths[last], s.n); {
		case s.n > short:
			s.first(short)
		case lengths[last] > short:
			cut := mapSource{columns: out.Axes[last].Columns}
			cut.first(short)
			lengths[last] = short
		}
		out.Axes[last].Columns = append(out.Axes[last].Columns, s.columns...)
	}
	for _, l := range lengths {
		if l == 0 {
			return nil, nil
		}
		if l > sweep.Limit || n*l > sweep.Limit {
			return nil, usagef("run them in parts", "there are more than %d commands, the most that is possible", sweep.Limit)
		}
		n *= l
	}
	if err := out.Check(); err != nil {
		return nil, sweepError(err)
	}
	return out, nil
}

func sweepError(err error) error {
	var f *sweep.Fault
	if errors.As(err, &f) {
		text := f.What
		if f.Place != "" {
			text = f.Place + ": " + text
		}
		return usagef(f.Hint, "%s", text)
	}
	return err
}

// only is the sweep of some of the elements, by array index from 1 on, each with
// its own number in a column named numberColumn.
func only(t *sweep.Table, width int, keep []uint64) *sweep.Sweep {
	columns := make([][]string, width+1)
	var row []string
	for _, i := range keep {
		row = t.Values(i-1, row[:0])
		for c, v := range row {
			columns[c] = append(columns[c], v)
		}
		columns[width] = append(columns[width], fmt.Sprint(i))
	}
	a := sweep.Axis{}
	for _, c := range columns {
		a.Columns = append(a.Columns, column(c))
	}
	a.Columns[width].Name = numberColumn
	return &sweep.Sweep{Axes: []sweep.Axis{a}}
}

// numberColumn has the commands' numbers where they are not those of the array.
const numberColumn = "_gangway_number"
