// Package fabric reads descriptions of networks into topology.Fabric and writes
// them: the output of ibnetdiscover, Slurm's topology.conf and topology.yaml,
// and Gangway's own YAML (docs/fabric.md). It opens no files.
package fabric

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"gangway/topology"
)

// Bounds on what is read: a mistaken file must fail, not fill the memory.
const (
	maxSize  = 256 << 20 // bytes of a file
	maxHosts = 1 << 18   // names that the hostlists of a file expand to, in all
)

// Read reads a fabric in any of the known formats, recognised by content; name
// is the file's, for messages. What is wrong with parts of a file is in the
// fabric's Warnings, with file and line, and the rest is returned. A file
// without anything to use is an error; what was understood is returned with it.
func Read(r io.Reader, name string) (topology.Fabric, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return topology.Fabric{}, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxSize {
		return topology.Fabric{}, fmt.Errorf("%s: longer than %d MiB: not a description of a fabric", name, maxSize>>20)
	}
	text := strings.TrimPrefix(strings.ToValidUTF8(string(b), "?"), "\ufeff")
	if strings.IndexByte(text, 0) >= 0 {
		return topology.Fabric{}, fmt.Errorf("%s: holds zero bytes: give the text that ibnetdiscover printed, a topology.conf or YAML", name)
	}
	var f topology.Fabric
	switch recognise(text) {
	case formatEmpty:
		return f, fmt.Errorf("%s: the file is empty", name)
	case formatPorts:
		return f, fmt.Errorf("%s: this is a list of ports (ibnetdiscover -p): give what ibnetdiscover prints without options", name)
	case formatIB:
		f, err = readIB(text, name)
	case formatSlurm:
		f, err = readSlurm(text, name)
	default:
		f, err = readYAML(text, name)
	}
	f.Sort()
	f.SetLevels()
	if err == nil && len(f.Hosts) == 0 && len(f.Switches) == 0 && len(f.Blocks) == 0 {
		err = errors.New(name + ": no switch and no host is described there")
	}
	return f, err
}

type format int

const (
	formatEmpty format = iota
	formatIB
	formatPorts
	formatSlurm
	formatYAML
)

// recognise looks at the first line that is no comment.
func recognise(text string) format {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(cleanLine(line))
		lower := strings.ToLower(line)
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, "# Topology file:"), strings.HasPrefix(line, "# Initiated from node "):
			return formatIB
		case line[0] == '#':
			continue
		case strings.HasPrefix(line, "vendid="), strings.HasPrefix(line, "devid="), strings.HasPrefix(line, "sysimgguid="),
			strings.HasPrefix(line, "switchguid="), strings.HasPrefix(line, "caguid="), strings.HasPrefix(line, "rtguid="),
			isIBRecord(line), isIBLink(line), strings.HasPrefix(line, "Chassis "):
			return formatIB
		case isIBPort(line):
			return formatPorts
		}
		for _, k := range []string{"switchname", "blockname", "blocksizes", "include", "linkspeed", "nodes", "switches"} {
			if rest, ok := strings.CutPrefix(lower, k); ok {
				rest = strings.TrimLeft(rest, " \t")
				if strings.HasPrefix(rest, "=") || k == "include" && rest != "" && rest[0] != ':' {
					return formatSlurm
				}
			}
		}
		return formatYAML
	}
	return formatEmpty
}

// cleanLine drops a terminal's escape sequences and a carriage return: outputs
// are pasted from terminals and sent through mail.
func cleanLine(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if strings.IndexByte(s, 0x1b) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != 0x1b {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '[' {
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		} else {
			i++ // a sequence of two characters
		}
	}
	return b.String()
}

// warner collects warnings; of one kind it keeps the first few and a count.
type warner struct {
	file  string
	kinds map[string]int
	order []string // kinds beyond their share, as they came
	list  []string
}

const warningsOfKind = 5

// at adds a warning about a line of the file (0: about all of it); kind is what
// is counted, in words that follow "… more: ".
func (w *warner) at(line int, kind, format string, args ...any) {
	if w.kinds == nil {
		w.kinds = map[string]int{}
	}
	w.kinds[kind]++
	switch n := w.kinds[kind]; {
	case n <= warningsOfKind:
		w.list = append(w.list, w.place(line)+": "+fmt.Sprintf(format, args...))
	case n == warningsOfKind+1:
		w.order = append(w.order, kind)
	}
}

func (w *warner) place(line int) string {
	if line == 0 {
		return w.file
	}
	return fmt.Sprintf("%s:%d", w.file, line)
}

func (w *warner) warnings() []string {
	for _, k := range w.order {
		w.list = append(w.list, fmt.Sprintf("%s: %d more: %s", w.file, w.kinds[k]-warningsOfKind, k))
	}
	w.order = nil
	return w.list
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
