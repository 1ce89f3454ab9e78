package jobfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gangway/topology/yamltree"
)

// maxProblems is how many problems are told at once: more is noise, since one
// mistake often has several consequences.
const maxProblems = 10

// Problem is one thing wrong with a job file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`           // from 1
	Column  int    `json:"column"`         // in characters, from 1
	Message string `json:"message"`        // what is wrong
	Excerpt string `json:"excerpt"`        // the line and a caret below the column; nothing in it controls a terminal
	Hint    string `json:"hint,omitempty"` // what would be right
}

// String returns the problem as a compiler would print it, over several lines.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	if p.Hint != "" {
		b.WriteString("\n  " + p.Hint)
	}
	return b.String()
}

// Errors is all that is wrong with a job file, in the order of its lines.
type Errors struct {
	Problems []Problem `json:"problems"`          // 1 to 10
	Omitted  int       `json:"omitted,omitempty"` // problems beyond those
}

// Error returns the problems one below the other.
func (e *Errors) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.String()
	}
	if e.Omitted > 0 {
		parts = append(parts, fmt.Sprintf("and %d more; mend these first", e.Omitted))
	}
	return strings.Join(parts, "\n")
}

// report makes the error for faults in text, which is clean; nil if there are
// none. Of several faults in one place the first is told: the others follow
// from it, or are those of defaults, met again by each task.
func report(file string, text string, faults []yamltree.Fault) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b yamltree.Fault) int {
		return cmp.Or(cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Column, b.At.Column))
	})
	faults = slices.CompactFunc(faults, func(a, b yamltree.Fault) bool { return a.At == b.At })
	e := &Errors{Omitted: max(0, len(faults)-maxProblems)}
	wanted := map[int]string{}
	for _, f := range faults[:min(len(faults), maxProblems)] {
		wanted[f.At.Line] = ""
	}
	last, n := 1, 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if _, ok := wanted[n]; ok {
			wanted[n] = line
		}
		last = n
	}
	for _, f := range faults[:min(len(faults), maxProblems)] {
		f.At.Line = min(max(f.At.Line, 1), last)
		f.At.Column = min(max(f.At.Column, 1), utf8.RuneCountInString(wanted[f.At.Line])+1)
		e.Problems = append(e.Problems, Problem{
			File: visible(file), Line: f.At.Line, Column: f.At.Column,
			Message: visible(f.Message), Excerpt: excerpt(wanted[f.At.Line], f.At), Hint: visible(f.Hint),
		})
	}
	return e
}

// excerptWidth is how many characters of a line are shown.
const excerptWidth = 90

// excerpt shows a line with a caret below the column, cut around it when long.
func excerpt(line string, at yamltree.Place) string {
	runes := []rune(strings.TrimRight(visible(line), " "))
	column := at.Column - 1
	if from := column - excerptWidth*2/3; len(runes) > excerptWidth && from > 0 {
		from = min(from, len(runes)-excerptWidth)
		runes = append([]rune("…"), runes[from+1:]...)
		column -= from
	}
	if len(runes) > excerptWidth {
		runes = append(runes[:excerptWidth-1], '…')
	}
	number := fmt.Sprintf("%5d", at.Line)
	return number + " | " + string(runes) + "\n" +
		strings.Repeat(" ", len(number)) + " | " + strings.Repeat(" ", max(column, 0)) + "^"
}

// visible replaces what would move a terminal's cursor or change its state; a
// tab becomes one blank, so that carets stay below their character.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r != ' ' && !unicode.IsGraphic(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// quote writes a value of the file in a message, shortened.
func quote(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return `"` + visible(strings.ReplaceAll(s, "\n", `\n`)) + `"`
}
