package jobfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
)

// What follows is package job's, which reads the same values where they vary.

func parseInt(s string) (int, error)            { return job.ParseInt(s) }
func parseBytes(s string) (uint64, error)       { return job.ParseBytes(s) }
func parseTime(s string) (time.Duration, error) { return job.ParseTime(s) }

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
