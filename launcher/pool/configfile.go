package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// The ssh_config library reads one file's lines and host patterns; Include and
// Match are handled here, because the library refuses a whole file for one Match
// it does not know (Red Hat's system-wide file has one) and can't say from which
// file a value came.

// Keywords that stand in for the lines rewritten before the library sees them.
const (
	includeMark = "gangwayinclude"
	ignoredMark = "gangwayignoredmatch"
)

// maxIncludes is how deep files may include each other, as in OpenSSH.
const maxIncludes = 16

// setting is one line of a configuration that applies to a host.
type setting struct {
	key   string // lower case
	value string
	where string // file:line
}

// configReader resolves host aliases against ssh_config files.
type configReader struct {
	home  string
	user  string // the local user, for Match localuser
	roots []configRoot
	warn  func(string)
}

type configRoot struct {
	path     string
	system   bool // relative Includes are below /etc/ssh
	required bool
}

// settings lists what the files say for an alias, in file order: the first value
// of a keyword wins, but for those that may be given several times.
func (r *configReader) settings(alias string) ([]setting, error) {
	var all []setting
	for _, root := range r.roots {
		err := r.read(root.path, root.system, alias, 0, &all)
		if errors.Is(err, fs.ErrNotExist) && !root.required {
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (r *configReader) read(file string, system bool, alias string, depth int, out *[]setting) error {
	if depth > maxIncludes {
		return fmt.Errorf("%s: Include is nested deeper than %d files: does it include itself?", file, maxIncludes)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("can't read the ssh configuration: %w", err)
	}
	cfg, err := ssh_config.DecodeBytes([]byte(r.rewrite(string(text))))
	if err != nil {
		return fmt.Errorf("%s: not a valid ssh configuration: %v", file, err)
	}
	for _, host := range cfg.Hosts {
		if !host.Matches(alias) {
			continue
		}
	block:
		for _, node := range host.Nodes {
			kv, ok := node.(*ssh_config.KV)
			if !ok {
				continue
			}
			where := fmt.Sprintf("%s:%d", file, kv.Pos().Line)
			switch key := strings.ToLower(kv.Key); key {
			case ignoredMark:
				r.warn(fmt.Sprintf("%s: Match %s is not supported: its block is passed over", where, kv.Value))
				break block
			case includeMark:
				for _, f := range r.included(kv.Value, system) {
					if err := r.read(f, system, alias, depth+1, out); err != nil {
						return err
					}
				}
			default:
				*out = append(*out, setting{key: key, value: kv.Value, where: where})
			}
		}
	}
	return nil
}

// included expands the patterns of an Include line; a file that isn't there is
// no error, as for ssh.
func (r *configReader) included(value string, system bool) []string {
	var files []string
	for _, p := range splitWords(value) {
		switch {
		case strings.HasPrefix(p, "~/"):
			p = filepath.Join(r.home, p[2:])
		case filepath.IsAbs(p):
		case system:
			p = path.Join("/etc/ssh", p)
		default:
			p = filepath.Join(r.home, ".ssh", p)
		}
		found, _ := filepath.Glob(p) // a malformed pattern matches nothing
		for _, f := range found {
			if fi, err := os.Stat(f); err == nil && fi.Mode().IsRegular() {
				files = append(files, f)
			}
		}
	}
	return files
}

// rewrite turns Include and Match lines into what the library can read, line for
// line, so that its line numbers stay true.
func (r *configReader) rewrite(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		key, value := splitKeyword(line)
		switch strings.ToLower(key) {
		case "include":
			lines[i] = includeMark + " " + strings.Join(splitWords(value), " ")
			if value == "" {
				lines[i] = ""
			}
		case "host":
			// The library does not know quotes around patterns.
			lines[i] = "Host " + strings.Join(splitWords(value), " ")
		case "match":
			patterns, ok := r.match(value)
			lines[i] = "Host " + strings.Join(patterns, " ")
			if !ok {
				// The warning stands on the next line, in front of what is
				// there, which is in the block that is passed over. At the end
				// of the file the block is empty and nothing is to be said.
				if i+1 < len(lines) {
					if next, _ := splitKeyword(lines[i+1]); !isBlock(next) {
						lines[i+1] = ignoredMark + " " + strings.Join(splitWords(value), " ")
					}
				}
			}
		}
	}
	return strings.Join(lines, "\n")
}

func isBlock(key string) bool {
	return strings.EqualFold(key, "host") || strings.EqualFold(key, "match")
}

// match translates the criteria of a Match line into host patterns; ok is false
// when one of them can't be evaluated: the patterns then say whom it may concern.
// host is compared with the alias, before HostName.
func (r *configReader) match(criteria string) (patterns []string, ok bool) {
	words := splitWords(criteria)
	ok = len(words) > 0
	never := []string{"!*"}
	for i := 0; i < len(words); i++ {
		word, negated := strings.CutPrefix(words[i], "!")
		word, arg, inline := strings.Cut(word, "=")
		word = strings.ToLower(word)
		switch {
		case inline:
		case slices.Contains([]string{"host", "originalhost", "user", "localuser", "exec", "tagged", "localnetwork"}, word):
			if i++; i < len(words) {
				arg = words[i]
			}
		}
		switch word {
		case "all", "final":
			// The final pass repeats the files after HostName; seen once, as
			// here, it applies to all.
			if negated {
				return never, true
			}
		case "canonical":
			// Names are not canonicalized, so that pass is never made.
			if !negated {
				return never, true
			}
		case "host", "originalhost":
			list := strings.FieldsFunc(arg, func(c rune) bool { return c == ',' })
			if len(list) == 0 || negated || patterns != nil {
				ok = false
				continue
			}
			patterns = list
		case "localuser":
			if matchList(arg, r.user) == negated {
				return never, true
			}
		default:
			ok = false
		}
	}
	if patterns == nil {
		patterns = []string{"*"}
	}
	return patterns, ok
}

// matchList matches a name against a comma-separated list of ssh patterns.
func matchList(list, name string) bool {
	found := false
	for p := range strings.SplitSeq(list, ",") {
		p, not := strings.CutPrefix(p, "!")
		pattern, err := ssh_config.NewPattern(p)
		if err != nil {
			continue
		}
		h := ssh_config.Host{Patterns: []*ssh_config.Pattern{pattern}}
		if h.Matches(name) {
			if not {
				return false
			}
			found = true
		}
	}
	return found
}

// splitKeyword parts a line into its keyword and the rest: "Key value",
// "Key=value", "Key = value". Comments and blank lines have no keyword.
func splitKeyword(line string) (key, value string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", ""
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		return line, ""
	}
	value = strings.TrimLeft(line[end:], " \t")
	value = strings.TrimLeft(strings.TrimPrefix(value, "="), " \t")
	return line[:end], value
}

// splitWords parts a value at blanks; double quotes hold words together and a
// word that begins with # starts a comment.
func splitWords(s string) []string {
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == '#' {
			return words
		}
		var word strings.Builder
		quoted := false
		i := 0
		for ; i < len(s); i++ {
			if s[i] == '"' {
				quoted = !quoted
				continue
			}
			if !quoted && (s[i] == ' ' || s[i] == '\t') {
				break
			}
			word.WriteByte(s[i])
		}
		if word.Len() > 0 {
			words = append(words, word.String())
		}
		s = s[i:]
	}
}
