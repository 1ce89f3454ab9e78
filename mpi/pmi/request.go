package pmi

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of the protocol, as told in answer to get_maxes: what Hydra tells. They
// count a byte that ends a string in C.
const (
	MaxKVS   = 256  // bytes of a dictionary's name
	MaxKey   = 64   // bytes of a key
	MaxValue = 1024 // bytes of a value
)

// maxLine is the longest line in bytes. A put is the longest regular one, about
// 1,400; an abort may bring a message.
const maxLine = 8192

// request is one line of a client. Fields that it does not have are "".
type request struct {
	cmd    string
	fields map[string]string
}

// runsOn says whether a field's value may hold blanks.
func runsOn(name string) bool { return name == "value" || name == "message" || name == "error_msg" }

// parseLine takes a line apart, without its line feed: words k=v, in any order,
// the first or another of which is cmd=NAME (mcmd=NAME begins a request of
// several lines). The value of value= and message= may hold blanks: it runs up
// to the next of the names cmd, kvsname, key and exitcode that has not been
// there, or to the end; that of service= up to port=.
func parseLine(line string) (request, error) {
	r := request{fields: map[string]string{}}
	rest := strings.TrimRight(line, " \r")
	for rest != "" {
		if rest[0] == ' ' {
			rest = rest[1:]
			continue
		}
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.ContainsRune(name, ' ') {
			return request{}, fmt.Errorf("no name=value at %q", clip(rest))
		}
		end := strings.IndexByte(after, ' ')
		if end < 0 {
			end = len(after)
		}
		switch {
		case name == "service":
			if end = strings.LastIndex(after, " port="); end < 0 {
				end = len(after)
			}
		case runsOn(name):
			end = r.endOf(after)
		}
		if _, twice := r.fields[name]; twice {
			return request{}, fmt.Errorf("%s= stands twice", clip(name))
		}
		r.fields[name] = after[:end]
		rest = after[end:]
	}
	for _, name := range []string{"cmd", "mcmd"} {
		if v := r.fields[name]; v != "" && r.cmd == "" {
			r.cmd = v
			if name == "mcmd" {
				r.cmd = "mcmd " + v
			}
		}
	}
	if r.cmd == "" {
		return request{}, fmt.Errorf("no cmd=")
	}
	return r, nil
}

// endOf finds where a value ends that may hold blanks.
func (r request) endOf(text string) int {
	end := len(text)
	for _, name := range []string{"cmd", "kvsname", "key", "exitcode"} {
		if _, have := r.fields[name]; have {
			continue
		}
		if i := strings.Index(text, " "+name+"="); i >= 0 {
			end = min(end, i)
		}
	}
	return end
}

// number reads a field that must be a number.
func (r request) number(name string) (int, error) {
	n, err := strconv.Atoi(r.fields[name])
	if err != nil {
		return 0, fmt.Errorf("%s=%q is no number", name, clip(r.fields[name]))
	}
	return n, nil
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
