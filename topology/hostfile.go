package topology

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxSlots is the largest slot count that a hostfile may give a host.
const maxSlots = 1 << 20

// HostEntry is a host of a hostfile.
type HostEntry struct {
	Name  string // [user@]host; IPv6 addresses without brackets
	Slots int    // 0: not given
	Line  int    // of its first mention, from 1
}

// ParseHostfile reads a hostfile in any of the dialects in use: names, one a
// line; Hydra's and Intel MPI's "host:4 binding=… user=…"; Open MPI's
// "host slots=4 max_slots=8"; with '#' comments, blank lines and hostlists
// ("n[1-4]:2"). A host that is named again, as in a batch system's node file,
// adds its slots, one when none are given. Errors are name:line:column with
// the line quoted; a file without hosts is an error.
func ParseHostfile(r io.Reader, name string) ([]HostEntry, error) {
	var out []HostEntry
	index := map[string]int{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	line := 0
	for sc.Scan() {
		line++
		text := sc.Text()
		if line == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		entries, e := parseHostLine(text)
		if e == nil && len(out)+len(entries) > maxHosts {
			e = errAt(0, "more than %d hosts", maxHosts)
		}
		if e != nil {
			return nil, fmt.Errorf("%s:%d:%d: %s%s", name, line, e.at+1, e.msg, excerpt(text, e.at))
		}
		for _, h := range entries {
			h.Line = line
			i, again := index[h.Name]
			if !again {
				index[h.Name] = len(out)
				out = append(out, h)
				continue
			}
			out[i].Slots = max(out[i].Slots, 1) + max(h.Slots, 1)
		}
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s:%d:1: line of more than %d bytes: is this a hostfile?", name, line+1, 1<<20)
	} else if err != nil {
		return nil, fmt.Errorf("read hostfile %s: %w", name, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no hosts in the file; write one a line, as in n1 slots=4", name)
	}
	return out, nil
}

// excerpt quotes a line and points at the offset.
func excerpt(line string, at int) string {
	const width = 100
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
	at = min(at, len(line))
	from := max(0, at-width/2)
	to := min(len(line), from+width)
	return "\n    " + strings.ToValidUTF8(line[from:to], "?") + "\n    " + strings.Repeat(" ", at-from) + "^"
}

// parseHostLine reads one line; nil for a blank one.
func parseHostLine(s string) ([]HostEntry, *syntaxError) {
	if i := strings.IndexByte(s, '#'); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimRight(s, " \t\r")
	pos := skipBlanks(s, 0)
	if pos == len(s) {
		return nil, nil
	}
	var out []HostEntry
	for {
		item, end, e := parseHostItem(s, pos)
		if e != nil {
			return nil, e
		}
		names, e := item.expand()
		if e != nil {
			return nil, e
		}
		pos = end
		slots := 0
		if pos < len(s) && s[pos] == ':' {
			if slots, pos, e = hostSlots(s, pos+1, "the slots of the host, as in n1:4"); e != nil {
				return nil, e
			}
		}
		if len(out)+len(names) > maxHosts {
			return nil, errAt(item.at, "more than %d hosts", maxHosts)
		}
		for _, n := range names {
			out = append(out, HostEntry{Name: n, Slots: slots})
		}
		if pos == len(s) || s[pos] == ' ' || s[pos] == '\t' {
			return hostOptions(s, pos, out)
		}
		if s[pos] != ',' {
			return nil, errAt(pos, "found %q: expected ':', ',', a blank or the end of the line", s[pos])
		}
		pos++
	}
}

// hostOptions reads the key=value words behind the names.
func hostOptions(s string, pos int, hosts []HostEntry) ([]HostEntry, *syntaxError) {
	slots, limit, limitAt := 0, 0, 0
	user := ""
	for pos = skipBlanks(s, pos); pos < len(s); pos = skipBlanks(s, pos) {
		at := pos
		end := pos + strings.IndexAny(s[pos:]+" ", " \t")
		key, value, ok := strings.Cut(s[pos:end], "=")
		valueAt := pos + len(key) + 1
		if !ok {
			return nil, errAt(at, "found %q: expected slots=N, max_slots=N, user=NAME or binding=…", clip(key))
		}
		var e *syntaxError
		switch strings.ReplaceAll(key, "-", "_") {
		case "slots":
			if slots != 0 || hosts[0].Slots != 0 {
				return nil, errAt(at, "the slots are given twice")
			}
			slots, pos, e = hostSlots(s[:end], valueAt, "a number of slots")
		case "max_slots":
			limitAt = at
			limit, pos, e = hostSlots(s[:end], valueAt, "a number of slots")
		case "user":
			user = value
			for i := range len(value) {
				if !hostByte(value[i]) || value[0] == '-' {
					return nil, errAt(valueAt+i, "found %q: not part of a user name", value[i])
				}
			}
			if user == "" {
				return nil, errAt(valueAt, "expected a user name")
			}
			pos = end
		case "binding":
			pos = end // mpirun's binding is off under gangway
		default:
			return nil, errAt(at, "unknown option %q: expected slots=N, max_slots=N, user=NAME or binding=…", clip(key))
		}
		if e != nil {
			return nil, e
		}
		if pos != end {
			return nil, errAt(pos, "found %q: expected a blank or the end of the line", s[pos])
		}
	}
	for i := range hosts {
		h := &hosts[i]
		if slots != 0 {
			h.Slots = slots
		}
		if limit != 0 && h.Slots > limit {
			return nil, errAt(limitAt, "max_slots=%d is below slots=%d", limit, h.Slots)
		}
		if user != "" {
			if strings.Contains(h.Name, "@") {
				return nil, errAt(0, "the user of %q is given twice", clip(h.Name))
			}
			h.Name = user + "@" + h.Name
		}
	}
	return hosts, nil
}

func hostSlots(s string, pos int, want string) (int, int, *syntaxError) {
	end := pos
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	if end == pos {
		return 0, pos, errAt(pos, "expected %s", want)
	}
	n, err := strconv.Atoi(s[pos:end])
	if err != nil || n < 1 || n > maxSlots {
		return 0, pos, errAt(pos, "slots must be 1 to %d", maxSlots)
	}
	return n, end, nil
}

func skipBlanks(s string, pos int) int {
	for pos < len(s) && (s[pos] == ' ' || s[pos] == '\t') {
		pos++
	}
	return pos
}
