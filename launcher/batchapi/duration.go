package batchapi

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Durations are ISO 8601 (XML Schema's duration): P7D, PT1H30M, PT0.5S. Years
// and months count 365 and 30 days, as in Batch's own SDKs.

// forever is the longest duration Batch's SDKs know; they send it for "no limit".
const forever = "P10675199DT2H48M5.4775807S"

// longest is what a limit may be; anything longer is none.
const longest = 10 * 365 * 24 * time.Hour

var errDuration = errors.New("it is no ISO 8601 duration such as PT1H30M or P7D")

// parseDuration reads a duration; limited is false if it is longer than ten years.
func parseDuration(s string) (d time.Duration, limited bool, err error) {
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" || len(s) > 100 {
		return 0, false, errDuration
	}
	seconds, units, timed := 0.0, "YMWD", false
	for rest != "" {
		if rest[0] == 'T' {
			if timed || len(rest) == 1 {
				return 0, false, errDuration
			}
			timed, units, rest = true, "HMS", rest[1:]
			continue
		}
		i := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return 0, false, errDuration
		}
		unit := rest[i]
		at := strings.IndexByte(units, unit)
		n, err := strconv.ParseFloat(rest[:i], 64)
		if at < 0 || err != nil || strings.Contains(rest[:i], ".") && unit != 'S' {
			return 0, false, errDuration
		}
		units, rest = units[at+1:], rest[i+1:] // units come in order, once
		seconds += n * unitSeconds(unit, timed)
	}
	if seconds > longest.Seconds() {
		return 0, false, nil
	}
	return time.Duration(seconds*1e7+0.5) * 100, true, nil // .NET counts in 100 ns
}

func unitSeconds(unit byte, timed bool) float64 {
	switch {
	case unit == 'Y':
		return 365 * 86400
	case unit == 'W':
		return 7 * 86400
	case unit == 'M' && !timed:
		return 30 * 86400
	case unit == 'D':
		return 86400
	case unit == 'H':
		return 3600
	case unit == 'M':
		return 60
	}
	return 1
}

// formatDuration writes a duration; 0 is none and written as forever.
func formatDuration(d time.Duration) string {
	if d <= 0 {
		return forever
	}
	var b strings.Builder
	b.WriteByte('P')
	if days := d / (24 * time.Hour); days > 0 {
		b.WriteString(strconv.FormatInt(int64(days), 10) + "D")
		d -= days * 24 * time.Hour
	}
	if d == 0 {
		return b.String()
	}
	b.WriteByte('T')
	if h := d / time.Hour; h > 0 {
		b.WriteString(strconv.FormatInt(int64(h), 10) + "H")
		d -= h * time.Hour
	}
	if m := d / time.Minute; m > 0 {
		b.WriteString(strconv.FormatInt(int64(m), 10) + "M")
		d -= m * time.Minute
	}
	if d > 0 {
		b.WriteString(strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "S")
	}
	return b.String()
}
