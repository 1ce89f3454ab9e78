package gpu

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// clean makes a program's output plain text: valid UTF-8, lines that end in \n,
// no terminal escapes, no control characters but tab.
func clean(b []byte) string {
	s := strings.ToValidUTF8(string(b), "?")
	s = strings.TrimPrefix(s, "\ufeff")
	var out strings.Builder
	out.Grow(len(s))
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == 0x1b:
			i += escape(s[i:])
			continue
		case c == '\r':
			// A bare one is a line end too: terminals' captures have them.
			if i+1 >= len(s) || s[i+1] != '\n' {
				out.WriteByte('\n')
			}
			i++
			continue
		case c < 0x20 && c != '\n' && c != '\t', c == 0x7f:
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '\u00a0' || r == '\u202f' {
			r = ' '
		}
		if r >= 0x80 && r <= 0x9f || r == 0xfffe || r == 0xffff {
			i += n // control characters, and what XML forbids
			continue
		}
		out.WriteRune(r)
		i += n
	}
	return out.String()
}

// escape is the length of the terminal escape at the start of s: CSI, OSC or a
// single character.
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 {
				return i
			}
		}
		return len(s)
	case ']':
		for i := 2; i < len(s); i++ {
			switch {
			case s[i] == 0x07:
				return i + 1
			case s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\':
				return i + 2
			case s[i] == '\n':
				return i
			}
		}
		return len(s)
	}
	if s[1] >= 0x20 && s[1] <= 0x7e {
		return 2
	}
	return 1
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// unsaid reports whether a value is one of the ways to say nothing: N/A,
// [Not Supported], [Insufficient Permissions], None.
func unsaid(s string) bool {
	s = strings.ToLower(strings.Trim(strings.TrimSpace(s), "[]"))
	switch s {
	case "", "n/a", "na", "not supported", "notsupported", "unknown", "none", "insufficient permissions", "not available", "requested functionality has been deprecated", "function not found":
		return true
	}
	return false
}

// lost reports whether a value is what the driver says for a GPU that is gone.
func lost(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "gpu is lost") || strings.Contains(s, "err!") || strings.Contains(s, "unknown error") ||
		strings.Contains(s, "fallen off the bus")
}

// needsReset is what the driver says for each value of a GPU that must be reset.
func needsReset(s string) bool { return strings.Contains(strings.ToLower(s), "requires reset") }

// quantity reads a number with a unit: 81559 MiB, 71.50 W, 41 C. Thousands may
// be separated and a comma may be the decimal point, as captures of translated
// tools have them; digits are ASCII.
func quantity(s string) (value float64, unit string, ok bool) {
	s = strings.TrimSpace(s)
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || strings.IndexByte(".,'", s[end]) >= 0 || end == 0 && s[end] == '-') {
		end++
	}
	num, unit := s[:end], strings.TrimSpace(s[end:])
	if num == "" || len(num) > 32 {
		return 0, "", false
	}
	if i := strings.LastIndexAny(num, ".,'"); i >= 0 {
		whole := strings.NewReplacer(".", "", ",", "", "'", "").Replace(num[:i])
		if frac := num[i+1:]; len(frac) == 3 && num[i] != '.' {
			num = whole + frac
		} else {
			num = whole + "." + frac
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	return v, unit, err == nil
}

// bytesOf reads an amount of memory; whole MiB at least, as drivers count it.
func bytesOf(s string) (*uint64, bool) {
	v, unit, ok := quantity(s)
	if !ok || v < 0 {
		return nil, false
	}
	scale := map[string]float64{"": 1 << 20, "mib": 1 << 20, "mb": 1 << 20, "gib": 1 << 30, "gb": 1 << 30, "kib": 1 << 10, "kb": 1 << 10, "b": 1, "bytes": 1}[strings.ToLower(unit)]
	if v *= scale; scale == 0 || v < 1 || v > 1<<50 {
		return nil, false
	}
	n := uint64(v)
	return &n, true
}

// count reads a whole number that may not be negative.
func count(s string) (*uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return nil, false
	}
	return &n, true
}

// switched reads Enabled, Disabled, Yes and No.
func switched(s string) (*bool, bool) {
	var v bool
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "enabled", "yes", "active", "on", "1":
		v = true
	case "disabled", "no", "not active", "off", "0":
	default:
		return nil, false
	}
	return &v, true
}

// Address brings a PCI address to the form of topology.PCIDevice.Address: the
// driver writes 00000000:3B:00.0 for 0000:3b:00.0, and the kernel's log leaves the
// function out.
func Address(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return "", false
	}
	dev, fn, dotted := strings.Cut(parts[2], ".")
	if !dotted {
		fn = "0"
	}
	var n [4]uint64
	for i, f := range []struct {
		text string
		max  uint64
	}{{parts[0], 1<<32 - 1}, {parts[1], 0xff}, {dev, 0x1f}, {fn, 7}} {
		v, err := strconv.ParseUint(f.text, 16, 32)
		if err != nil || v > f.max {
			return "", false
		}
		n[i] = v
	}
	return address(n[0], n[1], n[2], n[3]), true
}
