package job

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// shorten writes a value in a message.
func shorten(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r != ' ' && !unicode.IsGraphic(r):
			return '\uFFFD'
		}
		return r
	}, strings.ReplaceAll(s, "\n", `\n`)) + `"`
}

// ParseInt reads a whole decimal number. YAML's other notations are refused,
// because readers differ on what 010 or 1_000 means.
func ParseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is out of range", shorten(s))
	case err != nil || strconv.FormatInt(n, 10) != s || bits.UintSize < 64 && int64(int(n)) != n:
		return 0, fmt.Errorf("%s is not a whole number in decimal digits", shorten(s))
	}
	return int(n), nil
}

// smallBare is the least number of bytes that is believed without a unit.
const smallBare = 1 << 20

// ParseBytes reads a size: a number, a fraction perhaps, and a unit. Units are
// powers of 1024 however they are written, as for run's --mem-per-rank and in
// Slurm.
func ParseBytes(s string) (uint64, error) {
	bad := fmt.Errorf("%s is not a size", shorten(s))
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
		return 0, fmt.Errorf("%s is out of range", shorten(s))
	case n.Sign() == 0 && r.Sign() > 0:
		return 0, fmt.Errorf("%s is less than a byte", shorten(s))
	case unit == "" && n.Sign() > 0 && n.Uint64() < smallBare:
		return 0, fmt.Errorf("%s has no unit, and as bytes it is hardly meant", shorten(s))
	}
	return n.Uint64(), nil
}

// ParseTime reads a length of time: 1h30m, 2d12h, and Slurm's HH:MM:SS,
// days-HH, days-HH:MM and days-HH:MM:SS. Slurm's plain minutes and MM:SS are
// refused: too many people mean something else by them.
func ParseTime(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a length of time", shorten(s))
	switch {
	case s == "0" || s == "none":
		return 0, nil
	case len(s) > 40:
		return 0, bad
	case s != "" && strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%s has no unit", shorten(s))
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
		return 0, fmt.Errorf("%s is out of range", shorten(s))
	}
	return d + time.Duration(n)*24*time.Hour, nil
}

// maxDays keeps sums of two times within a Duration.
const maxDays = 50_000

// parseClock reads Slurm's notations with colons and dashes.
func parseClock(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a length of time", shorten(s))
	days, clock, dash := strings.Cut(s, "-")
	if !dash {
		days, clock = "0", s
	}
	parts := strings.Split(clock, ":")
	switch {
	case !dash && len(parts) == 2:
		return 0, fmt.Errorf("%s can be read as hours and minutes or as minutes and seconds", shorten(s))
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
			return 0, fmt.Errorf("%s: %d is too many %s", shorten(s), n, []string{"", "hours", "minutes", "seconds"}[i])
		case n > uint64(maxDays*24*time.Hour/unit):
			return 0, fmt.Errorf("%s is out of range", shorten(s))
		}
		sum += time.Duration(n) * unit
	}
	return sum, nil
}
