package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// seconds is a time limit as GNU Parallel and timeout have it: a number without a
// unit is seconds.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }

func (s *seconds) Type() string { return "duration" }

// Set reads 90, 1.5, 90s or 5m.
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		n, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || !(n >= 0 && n <= 1e9) {
			return fmt.Errorf("%q is no time: write for example 90s, 5m, or a number of seconds", text)
		}
		d = time.Duration(n * float64(time.Second))
	}
	*s = seconds(d)
	return nil
}

// replaced puts {} where the text of -I is, and writes the {} that are there so
// that they stay.
func (in *mapInput) replaced(words []string) ([]string, error) {
	if in.replace == "" || in.replace == "{}" {
		return words, nil
	}
	if strings.ContainsAny(in.replace, "{}") {
		return nil, usagef("for example -I %", "-I %s: braces are only allowed as {}", in.replace)
	}
	out := make([]string, len(words))
	for i, w := range words {
		pieces := strings.Split(w, in.replace)
		for k := range pieces {
			// There braces and the dollar would make another text of it.
			if p := pieces[k]; k+1 < len(pieces) && (strings.HasSuffix(p, "{") || strings.HasSuffix(p, "$")) {
				return nil, usagef("choose another text for -I", "the command: %s stands directly behind %s", in.replace, p[len(p)-1:])
			}
			pieces[k] = strings.ReplaceAll(pieces[k], "{}", "{{}}")
		}
		out[i] = strings.Join(pieces, "{}")
	}
	return out, nil
}
