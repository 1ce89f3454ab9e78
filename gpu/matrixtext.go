package gpu

import (
	"regexp"
	"strings"
)

// The words of a matrix.
var (
	strongLabel = regexp.MustCompile(`^(?:GPU|NIC)\d+$`)
	gpuColumn   = regexp.MustCompile(`^GPU\d+$`)
	runTogether = regexp.MustCompile(`^(?:(?:GPU|NIC)\d+|mlx\d+_(?:bond_)?\d+)+$`)
	oneLabel    = regexp.MustCompile(`(?:GPU|NIC)\d+|mlx\d+_(?:bond_)?\d+`)
	deviceName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`)
	oneClass    = regexp.MustCompile(`^(?:X|NV\d{1,3}|PIX|PXB|PHB|NODE|SYS|SOC|N/A)`)
	cpuList     = regexp.MustCompile(`^\d[\d,-]*$`)
	legendEntry = regexp.MustCompile(`(NIC\d+)\s*:\s*`)
	// escapes are an escape sequence: with its first byte, with that byte as a
	// program wrote it in letters, or colours with the byte lost.
	escapes = regexp.MustCompile(`(?:\x1b|\x{9b}|\^\[|\\u001[bB]|\\x1[bB]|\\033|\\e)(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\n]*\x07|\([A-Z0-9])|\[[0-9;]*m`)
)

// cleanText takes away escape sequences and other bytes that are not text.
func cleanText(s string) string {
	s = escapes.ReplaceAllString(strings.ToValidUTF8(s, "?"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\u00a0':
			return ' '
		case r == '\r', r < ' ', r == '\u200b', r == '\ufeff', r == 0x7f:
			return -1
		}
		return r
	}, s)
}

// expandTabs puts blanks for tabs as a terminal shows them.
func expandTabs(s string) string {
	if !strings.Contains(s, "\t") {
		return s
	}
	var b strings.Builder
	for _, part := range strings.SplitAfter(s, "\t") {
		text, tab := strings.CutSuffix(part, "\t")
		b.WriteString(text)
		if tab {
			b.WriteString(strings.Repeat(" ", 8-b.Len()%8))
		}
	}
	return b.String()
}

// joins returns the ways to put broken lines together: those that reach the
// terminal's edge without a blank and others with one, or all with one, or
// all without.
func joins(lines []matrixLine, width int) []string {
	if len(lines) == 1 {
		return []string{lines[0].text}
	}
	var edge, blank, glued strings.Builder
	for i, l := range lines {
		edge.WriteString(l.text)
		if len(l.text) < width && i+1 < len(lines) {
			edge.WriteByte(' ')
		}
		blank.WriteString(l.text + " ")
		glued.WriteString(l.text)
	}
	return []string{edge.String(), blank.String(), glued.String()}
}

// labels returns the labels that the text begins with.
func labels(text string) []string {
	var out []string
	for f := range strings.FieldsSeq(text) {
		switch {
		case isClass(f) || !deviceName.MatchString(f) || !strings.ContainsAny(f, "0123456789") || f[0] >= '0' && f[0] <= '9':
			return out
		case runTogether.MatchString(f):
			for _, l := range oneLabel.FindAllString(f, -1) {
				out = append(out, canonical(l))
			}
		default:
			out = append(out, f)
		}
	}
	return out
}

// canonical takes leading zeros from the number of GPU00 and NIC00.
func canonical(label string) string {
	if !strongLabel.MatchString(label) {
		return label
	}
	number := strings.TrimLeft(label[3:], "0")
	if number == "" {
		number = "0"
	}
	return label[:3] + number
}

// tokens parts a row at blanks, and classes that run together.
func tokens(text string) []string {
	var out []string
	for f := range strings.FieldsSeq(text) {
		var parts []string
		rest := f
		for rest != "" {
			c := oneClass.FindString(rest)
			if c == "" {
				break
			}
			parts, rest = append(parts, c), rest[len(c):]
		}
		switch {
		case rest == "":
			out = append(out, parts...)
		case len(parts) > 0 && cpuList.MatchString(rest):
			out = append(append(out, parts...), rest)
		default:
			out = append(out, f)
		}
	}
	return out
}

func isClass(s string) bool {
	return s != "" && oneClass.FindString(s) == s
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// mendLists joins the parts of lists of cpus that a terminal broke: a list that
// was broken ends in the middle.
func mendLists(rest []string) []string {
	var f []string
	// A list is broken into a few parts; the rest is something else.
	for _, s := range rest[:min(len(rest), 64)] {
		if k := len(f) - 1; k >= 0 && (strings.HasSuffix(f[k], ",") || strings.HasSuffix(f[k], "-") || strings.HasPrefix(s, ",") || strings.HasPrefix(s, "-")) {
			f[k] += s
			continue
		}
		f = append(f, s)
	}
	return f
}
