package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// maxDump is how much is read of one recorded machine, unpacked, in bytes: the
// largest known have some tens of megabytes.
const maxDump = 512 << 20

// ReadTTAR reads a text archive of Prometheus's ttar into memory: entries of
// "Path:", "Directory:" or "SymlinkTo:" with "Lines:" of content and "Mode:",
// and comments. In the content a line that ends in EOF has no line break and
// NULLBYTE is a byte of zero, each escaped by a backslash.
//
// What can't be understood becomes a warning that names the line; the entries
// around it are kept. err tells only of reading.
func ReadTTAR(in io.Reader) (fsys fs.FS, warnings []string, err error) {
	m := newMemFS()
	warn := func(line int, format string, args ...any) {
		if len(warnings) < maxWarnings {
			warnings = append(warnings, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
		}
	}
	br := bufio.NewReader(io.LimitReader(in, maxDump))
	var name string // of the entry
	for line := 1; ; line++ {
		text, err := br.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return m, warnings, fmt.Errorf("text archive, line %d: %w", line, err)
		}
		if text == "" {
			return m, warnings, nil
		}
		text = strings.TrimRight(text, "\r\n")
		key, value, _ := strings.Cut(text, ": ")
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case key == "Path":
			name = value
		case key == "Directory":
			if !m.add(value, memNode{mode: fs.ModeDir | 0o755}) {
				warn(line, "directory %q is a file", clip(value))
			}
		case key == "SymlinkTo":
			if name == "" || !m.addLink(name, value) {
				warn(line, "a link that can't be at %q", clip(name))
			}
		case key == "Lines":
			count, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				warn(line, "expected a number of lines, found %q", clip(value))
				continue
			}
			start := line
			var data []byte
			for ; count > 0; count-- {
				content, err := br.ReadString('\n')
				if content == "" {
					warn(start, "%s ends %d lines early", clip(name), count)
					break
				}
				line++
				data = append(data, ttarLine(content)...)
				if err != nil && !errors.Is(err, io.EOF) {
					return m, warnings, fmt.Errorf("text archive, line %d: %w", line, err)
				}
			}
			if name == "" || !m.addFile(name, data) {
				warn(start, "a file that can't be at %q", clip(name))
			}
		case key == "Mode": // permissions are of no use here
		default:
			warn(line, "expected Path, Directory, SymlinkTo, Lines or Mode, found %q", clip(text))
		}
	}
}

// ttarLine undoes the escapes of one line of content.
func ttarLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	end := "\n"
	switch {
	case strings.HasSuffix(s, `\EOF`):
		s = strings.TrimSuffix(s, `\EOF`) + "EOF"
	case strings.HasSuffix(s, "EOF"):
		s, end = strings.TrimSuffix(s, "EOF"), ""
	}
	return strings.NewReplacer(`\NULLBYTE`, "NULLBYTE", "NULLBYTE", "\x00").Replace(s) + end
}
