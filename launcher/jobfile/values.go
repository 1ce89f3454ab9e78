package jobfile

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// parseInt reads a whole decimal number. YAML's other notations are refused,
// because readers differ on what 010 or 1_000 means.
func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is out of range", quote(s))
	case err != nil || strconv.FormatInt(n, 10) != s || bits.UintSize < 64 && int64(int(n)) != n:
		return 0, fmt.Errorf("%s is not a whole number in decimal digits", quote(s))
	}
	return int(n), nil
}

// parseBool reads true or false.
func parseBool(s string) (bool, error) {
	switch s {
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", quote(s))
}

// smallBare is the least number of bytes that is believed without a unit.
const smallBare = 1 << 20

// parseBytes reads a size: a number, a fraction perhaps, and a unit. Units are
// powers of 1024 however they are written, as for run's --mem-per-rank and in
// Slurm.
func parseBytes(s string) (uint64, error) {
	bad := fmt.Errorf("%s is not a size", quote(s))
	num := strings.TrimRight(s, "kKmMgGtTpPiIbB ")
	unit := strings.ToUpper(strings.TrimSpace(s[len(num):]))
	shift, ok := map[string]uint{
		"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20, "G": 30, "GB": 30, "GIB": 30,
		"T": 40, "TB": 40, "TIB": 40, "P": 50, "PB": 50, "PIB": 50,
	}[unit]
	whole, frac, point := strings.Cut(num, ".")
	if !ok || len(num) > 24 || whole == "" || strings.Trim(whole+frac, "0123456789") != "" || point && (frac == "" || shift == 0) {
		return 0, bad
	}
	r, ok := new(big.Rat).SetString(num)
	if !ok {
		return 0, bad
	}
	r.Mul(r, new(big.Rat).SetUint64(1<<shift))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	switch {
	case !n.IsUint64():
		return 0, fmt.Errorf("%s is out of range", quote(s))
	case n.Sign() == 0 && r.Sign() > 0:
		return 0, fmt.Errorf("%s is less than a byte", quote(s))
	case unit == "" && n.Sign() > 0 && n.Uint64() < smallBare:
		return 0, fmt.Errorf("%s has no unit, and as bytes it is hardly meant", quote(s))
	}
	return n.Uint64(), nil
}

// formatBytes writes a size in the largest unit that divides it.
func formatBytes(n uint64) string {
	const units = "BKMGTP"
	i := 0
	for ; n > 0 && n%1024 == 0 && i < len(units)-1; i++ {
		n /= 1024
	}
	if i == 0 {
		return strconv.FormatUint(n, 10) + "B"
	}
	return strconv.FormatUint(n, 10) + units[i:i+1] + "iB"
}

// parseTime reads a length of time: 1h30m, 2d12h, and Slurm's HH:MM:SS,
// days-HH, days-HH:MM and days-HH:MM:SS. Slurm's plain minutes and MM:SS are
// refused: too many people mean something else by them.
// ParseSwitches reads N or N@TIME: at most N leaf switches, waited for no
// longer than TIME (0: for ever).
func ParseSwitches(s string) (int, time.Duration, error) {
	num, wait, limited := strings.Cut(strings.TrimSpace(s), "@")
	n, err := strconv.Atoi(num)
	if err != nil || n < 1 || n > 1<<16 {
		return 0, 0, fmt.Errorf("%s is not a number of switches", quote(num))
	}
	if !limited {
		return n, 0, nil
	}
	d, err := parseTime(wait)
	if err == nil && d == 0 {
		err = errors.New("a wait of 0 asks for nothing: leave switches out")
	}
	return n, d, err
}

func parseTime(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a length of time", quote(s))
	switch {
	case s == "0" || s == "none":
		return 0, nil
	case len(s) > 40:
		return 0, bad
	case s != "" && strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%s has no unit", quote(s))
	case strings.Contains(s, ":") || strings.Contains(s, "-"):
		return parseClock(s)
	}
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || rest == "" && !ok {
		return 0, bad
	}
	var d time.Duration
	if rest != "" {
		if strings.HasPrefix(rest, "+") {
			return 0, bad
		}
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, bad
		}
	}
	if n > maxDays || d < 0 || d > maxDays*24*time.Hour {
		return 0, fmt.Errorf("%s is out of range", quote(s))
	}
	return d + time.Duration(n)*24*time.Hour, nil
}

// maxDays keeps sums of two times within a Duration.
const maxDays = 50_000

// parseClock reads Slurm's notations with colons and dashes.
func parseClock(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a length of time", quote(s))
	days, clock, dash := strings.Cut(s, "-")
	if !dash {
		days, clock = "0", s
	}
	parts := strings.Split(clock, ":")
	switch {
	case !dash && len(parts) == 2:
		return 0, fmt.Errorf("%s can be read as hours and minutes or as minutes and seconds", quote(s))
	case len(parts) > 3 || !dash && len(parts) != 3:
		return 0, bad
	}
	var sum time.Duration
	for i, part := range append([]string{days}, parts...) {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return 0, bad
		}
		unit := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}[i]
		switch {
		case i >= 2 && n > 59 || i == 1 && dash && n > 23:
			return 0, fmt.Errorf("%s: %d is too many %s", quote(s), n, []string{"", "hours", "minutes", "seconds"}[i])
		case n > uint64(maxDays*24*time.Hour/unit):
			return 0, fmt.Errorf("%s is out of range", quote(s))
		}
		sum += time.Duration(n) * unit
	}
	return sum, nil
}

// shellOnly are characters that a shell would act on, outside of quotes.
const shellOnly = "|&;<>()$`*?"

// splitWords splits a command as a shell does, with its quotes and backslashes.
// It expands nothing, and so refuses what a shell would expand: passing
// "> out" or "$HOME" on as it stands would surprise whoever wrote it.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	open, started := byte(0), false
	shell := func(c byte) error {
		return fmt.Errorf("no shell runs a command, so %q has no meaning in it", string(c))
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case open == '\'' && c != '\'':
			word.WriteByte(c)
		case open != 0 && c == open:
			open = 0
		case open == '"' && c == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0:
			i++
			word.WriteByte(s[i])
		case open == '"' && (c == '$' || c == '`'):
			return nil, shell(c)
		case open == '"':
			word.WriteByte(c)
		case c == '\'' || c == '"':
			open, started = c, true
		case c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("ends with a backslash")
			}
			word.WriteByte(s[i])
			started = true
		case c == '\n':
			return nil, errors.New("has several lines")
		case c == ' ' || c == '\t':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case strings.IndexByte(shellOnly, c) >= 0 || !started && (c == '~' || c == '#'):
			return nil, shell(c)
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if open != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", open)
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// isName reports whether s can be the name of a variable.
func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}
