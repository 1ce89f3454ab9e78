package jobfile

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"gangway/launcher/job"
	"gangway/topology/yamltree"
)

// setArray reads a number of elements, or a first and a last index.
func setArray(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	r, ok := ParseArray(s)
	if !ok {
		return valueError{what: quote(s) + " is not an array", hint: fmt.Sprintf("write a number of elements from 1 to %d, or indices such as 1-100", job.MaxArray)}
	}
	t.spec.Range = r
	return nil
}

// ParseArray reads an array's indices: a number of elements, from 0 on, or the
// first and the last, as in 1-100. How many there may be is not checked.
func ParseArray(s string) (job.Range, bool) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		first, last = "0", s
	}
	lo, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return job.Range{}, false
	}
	hi, err := strconv.ParseUint(last, 10, 32)
	switch {
	case err != nil, ok && hi < lo, !ok && hi == 0:
		return job.Range{}, false
	case ok:
		hi++
	}
	return job.Range{Lo: lo, Hi: hi}, true
}

// setCommand reads a list of arguments, or a text that is split into words.
func setCommand(d *decoder, t *task, n *yamltree.Node) error {
	t.script = false
	if n.Kind == yamltree.Sequence {
		t.spec.Command = nil
		for _, item := range n.Items {
			s, err := d.text(item)
			if err != nil {
				return valueError{what: "an argument is not a single value", hint: "write arguments as texts, in quotes if need be", at: item.At}
			}
			t.spec.Command = append(t.spec.Command, s)
		}
		return nil
	}
	s, err := d.text(n)
	if err != nil {
		return err
	}
	words, err := splitWords(strings.TrimRight(s, "\n"))
	switch {
	case err != nil:
		return valueError{what: err.Error(), hint: "use script: for a shell, or a list of arguments for a program that is to get it as it stands"}
	case len(words) > 0 && isAssignment(words[0]):
		return valueError{what: fmt.Sprintf("begins with %s, which only a shell understands", quote(words[0])), hint: "set variables with env:, or use script:"}
	}
	t.spec.Command = words
	return nil
}

func isAssignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && isName(name)
}

// setScript reads a script, which becomes a shell's argument.
func setScript(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	shell := []string{"/bin/sh"}
	if line, ok := strings.CutPrefix(s, "#!"); ok {
		line, _, _ = strings.Cut(line, "\n")
		if shell = strings.Fields(line); len(shell) == 0 {
			shell = []string{""}
		}
		if filepath.Base(shell[0]) == "env" && len(shell) > 1 {
			shell = shell[1:]
		}
		switch filepath.Base(shell[0]) {
		case "sh", "bash", "dash", "ksh", "zsh":
		default:
			return valueError{what: quote(shell[0]) + " is not a shell", hint: "put the program into a file that all nodes see, and name that in command:"}
		}
	}
	switch {
	case strings.TrimSpace(s) == "":
		return valueError{what: "is empty", hint: "write script: | and the script's lines below it"}
	case len(s) > maxInline:
		return valueError{what: fmt.Sprintf("has %d bytes: at most %d fit", len(s), maxInline), hint: "put it into a file that all nodes see, and name that in command:"}
	}
	t.spec.Command = append(shell, "-c", s)
	t.script = true
	return nil
}

// setPerNode reads numbers of ranks by node: a mapping, or a list of them.
func setPerNode(d *decoder, t *task, n *yamltree.Node) error {
	list := []*yamltree.Node{n}
	if n.Kind == yamltree.Sequence {
		list = n.Items
	}
	t.spec.PerNode = nil
	for _, item := range list {
		if item.Kind != yamltree.Mapping || len(item.Pairs) == 0 {
			return valueError{what: "must name nodes and their ranks", hint: "write {n1: 4, n2: 2}", at: item.At}
		}
		for _, p := range item.Pairs {
			s, err := d.text(p.Value)
			if err != nil {
				return err
			}
			if strings.ContainsAny(p.Key, "[,]") {
				return valueError{what: quote(p.Key) + " is not the name of one node", hint: "write a line for each node", at: p.At}
			}
			ranks, err := parseInt(s)
			if err != nil {
				return valueError{what: err.Error(), hint: "write a number of ranks such as 4", at: p.Value.At}
			}
			if ranks < 1 {
				return valueError{what: fmt.Sprintf("%s has %d ranks", quote(p.Key), ranks), hint: "write a number from 1, or leave the node out", at: p.Value.At}
			}
			d.spend(len(p.Key) + 32)
			t.places[fmt.Sprintf("per-node[%d]", len(t.spec.PerNode))] = p.Value.At
			t.spec.PerNode = append(t.spec.PerNode, job.NodeRanks{Node: p.Key, Ranks: ranks})
		}
	}
	return nil
}

func setMemory(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	if t.spec.MemPerRank, err = parseBytes(s); err != nil {
		return valueError{what: err.Error(), hint: "write a number and B, K, M, G or T (powers of 1024), such as 512M or 16GiB"}
	}
	return nil
}

// setSwitches reads Slurm's --switches: a number, and how long to wait for it.
func setSwitches(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	if t.spec.Switches, t.spec.SwitchesWait, err = ParseSwitches(s); err != nil {
		return valueError{what: err.Error(), hint: "write a number of leaf switches from 1, and after an @ how long to wait for them, such as 1 or 2@30m"}
	}
	return nil
}

func setWorkDir(d *decoder, t *task, n *yamltree.Node) error {
	s, err := d.text(n)
	if err != nil {
		return err
	}
	if s != "" && !strings.HasPrefix(s, "/") && !(d.sweeps && strings.HasPrefix(s, "{")) && s != "~" && !strings.HasPrefix(s, "~/") {
		return valueError{what: quote(s) + " is relative, but to what differs between nodes", hint: "begin it with / or ~/"}
	}
	t.spec.WorkDir = s
	return nil
}

// setEnv reads variables and adds them to those of the defaults.
func setEnv(d *decoder, t *task, n *yamltree.Node) error {
	if n.Kind != yamltree.Mapping {
		return valueError{what: fmt.Sprintf("must be a mapping, but this is %s", n.Kind), hint: "write NAME: value, one a line", at: n.At}
	}
	place := make(map[string]int, len(t.spec.Env))
	for i, e := range t.spec.Env {
		name, _, _ := strings.Cut(e, "=")
		place[name] = i
	}
	for _, p := range n.Pairs {
		if !isName(p.Key) {
			return valueError{what: quote(p.Key) + " can't be the name of a variable", hint: "names have letters, digits and _, and don't begin with a digit", at: p.At}
		}
		s, err := d.text(p.Value)
		if err != nil {
			return err
		}
		d.spend(len(p.Key) + 32)
		if i, ok := place[p.Key]; ok {
			t.spec.Env[i] = p.Key + "=" + s
			continue
		}
		place[p.Key] = len(t.spec.Env)
		t.spec.Env = append(t.spec.Env, p.Key+"="+s)
	}
	return nil
}

// setSetup reads a script that is sourced first: its text, or {file: PATH}, or
// {name: NAME, script: TEXT}.
func setSetup(d *decoder, t *task, n *yamltree.Node) error {
	if n.Kind != yamltree.Mapping {
		s, err := d.text(n)
		if err != nil {
			return err
		}
		if looksLikeFile(s) {
			return valueError{what: quote(s) + " reads as the name of a file, but setup: takes the script itself",
				hint: "write setup: {file: " + s + "} to source a file, or a line . " + s + " to have the node find it"}
		}
		return t.setup(fmt.Sprintf("%s:%d", d.file, n.At.Line), []byte(s))
	}
	var name, script string
	named := false
	for _, p := range n.Pairs {
		s, err := d.text(p.Value)
		if err != nil {
			return err
		}
		switch p.Key {
		case "file":
			if len(n.Pairs) > 1 {
				return valueError{what: "file: stands alone", hint: "remove the other keys", at: p.At}
			}
			return d.setupFile(t, s, p.Value.At)
		case "name":
			name, named = s, true
		case "script":
			script = s
		default:
			return valueError{what: quote(p.Key) + " has no meaning here", hint: "known are file, or name and script", at: p.At}
		}
	}
	if !named {
		name = fmt.Sprintf("%s:%d", d.file, n.At.Line)
	}
	return t.setup(name, []byte(script))
}

// looksLikeFile reports whether a script is a single word that only a file's
// name would be.
func looksLikeFile(s string) bool {
	s = strings.TrimRight(s, "\n")
	return s != "" && !strings.ContainsAny(s, " \t\n;|&=") &&
		(strings.ContainsRune(s, '/') || strings.HasSuffix(s, ".sh") || strings.HasSuffix(s, ".bash"))
}

func (d *decoder) setupFile(t *task, path string, at yamltree.Place) error {
	if d.open == nil {
		return valueError{what: "files can't be read here", hint: "put the script's text below setup: |", at: at}
	}
	b, err := d.open(path)
	switch {
	case err != nil:
		return valueError{what: err.Error(), hint: "paths are relative to the job file's directory", at: at}
	case len(b) > 0 && strings.ContainsRune(string(b), 0):
		return valueError{what: quote(path) + " is not a shell script: it has zero bytes", at: at}
	case !utf8.Valid(b):
		return valueError{what: quote(path) + " is not UTF-8", hint: "save it as UTF-8", at: at}
	}
	d.spend(len(b))
	return t.setup(path, b)
}

func (t *task) setup(name string, script []byte) error {
	switch {
	case len(script) >= maxScript:
		return valueError{what: fmt.Sprintf("the script is too large: less than %d MiB fit", maxScript>>20), hint: "source a file that all nodes see"}
	case len(script) == 0:
		t.spec.Setup = nil // takes the defaults' away
		return nil
	}
	t.spec.Setup = &job.Setup{Name: name, Script: script}
	return nil
}
