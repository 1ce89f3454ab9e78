package probe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"gangway/topology"
)

// From reads a machine that is not here. What kind of record it is, is told by
// its content:
//
//   - what Record wrote;
//   - a tar of /sys and /proc, at its top or one or two folders down, plain or
//     compressed by gzip, bzip2 or xz, as hwloc-gather-topology makes; or the
//     folder that it was unpacked to;
//   - a text archive (ttar) of the same;
//   - XML of hwloc, version 1 or 2;
//   - a node's JSON, as gangway probe --json prints it;
//   - a synthetic description such as "pack:2 core:16 pu:2", in a file or in
//     place of a path.
//
// What a record lacks or has damaged is unknown, with a warning.
func From(name string) (topology.Node, error) {
	st, err := os.Stat(name)
	if err != nil {
		if n, ok, err := fromText(name); ok {
			return n, wrapFrom(err, "the description")
		}
		return topology.Node{}, fmt.Errorf("machine record: %w", err)
	}
	if st.IsDir() {
		// A Root keeps absolute links of a record from leading to this
		// machine's own files.
		root, err := os.OpenRoot(name)
		if err != nil {
			return topology.Node{}, fmt.Errorf("machine record: %w", err)
		}
		defer root.Close()
		n, err := fromTree(root.FS())
		return n, wrapFrom(err, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return topology.Node{}, fmt.Errorf("machine record: %w", err)
	}
	defer f.Close()
	n, err := Read(f)
	return n, wrapFrom(err, name)
}

func wrapFrom(err error, name string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("machine record %s: %w", name, err)
}

// sniffed is how much of a record is looked at to tell its kind.
const sniffed = 4096

// Read is From for a record that is not a file.
func Read(in io.Reader) (topology.Node, error) {
	br, done, err := decompress(bufio.NewReaderSize(in, sniffed))
	if err != nil {
		return topology.Node{}, err
	}
	defer done()
	head, err := br.Peek(sniffed)
	if len(head) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return topology.Node{}, err
	}
	switch {
	case len(head) == 0:
		return topology.Node{}, errors.New("it is empty")
	case isTar(head):
		m, warnings, err := readTar(br)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("the archive is damaged, its rest is lost: %v", err))
		}
		n, err := fromTree(m)
		return withWarnings(n, warnings), err
	case isTTAR(head):
		fsys, warnings, err := ReadTTAR(br)
		if err != nil {
			warnings = append(warnings, err.Error())
		}
		n, err := fromTree(fsys)
		return withWarnings(n, warnings), err
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	if bytes.HasPrefix(text, []byte("<")) && bytes.Contains(text, []byte("<system")) {
		return ReadNCCL(br)
	}
	if bytes.HasPrefix(text, []byte("<")) {
		return ReadHwlocXML(io.LimitReader(br, maxDump))
	}
	if bytes.HasPrefix(text, []byte("{")) {
		return fromJSON(br)
	}
	if len(head) < sniffed {
		if n, ok, err := fromText(string(head)); ok {
			return n, err
		}
	}
	return topology.Node{}, errors.New("neither a record of gangway probe record, a tar or text archive of /sys and /proc, hwloc's or NCCL's XML, a node's JSON nor a synthetic description")
}

func withWarnings(n topology.Node, warnings []string) topology.Node {
	n.Warnings = append(warnings, n.Warnings...)
	return n
}

// fromJSON reads a node as it is printed.
func fromJSON(in io.Reader) (topology.Node, error) {
	const most = 64 << 20
	var n topology.Node
	if err := json.NewDecoder(io.LimitReader(in, most)).Decode(&n); err != nil {
		return topology.Node{}, fmt.Errorf("a node's JSON: %w", err)
	}
	if n.Online.IsEmpty() || len(n.Cores) == 0 {
		return topology.Node{}, errors.New("a node's JSON: it has no cpus (online, cores)")
	}
	return n, nil
}

// fromText reads a synthetic description; ok=false: s is no such thing.
func fromText(s string) (n topology.Node, ok bool, err error) {
	s = strings.TrimSpace(s)
	if !regexp.MustCompile(`^[\[(]*[A-Za-z0-9]+(\([^)]*\))?:[0-9]`).MatchString(s) || strings.ContainsAny(s, "/\\\n") {
		return topology.Node{}, false, nil
	}
	n, err = Synthetic(s)
	return n, true, err
}

// fromTree probes a machine's files, which may lie up to two folders down.
func fromTree(fsys fs.FS) (topology.Node, error) {
	base, err := dumpRoot(fsys)
	if err != nil {
		return topology.Node{}, err
	}
	src := Source{Root: base}
	src.Sys = subFS(base, "sys")
	src.Proc = subFS(base, "proc")
	m, warning := readManifest(base)
	src.Arch, src.ShmBytes = m.Arch, m.ShmBytes
	facts := gathered(base)
	if src.Arch == "" {
		src.Arch = goarch(facts["Architecture"])
	}
	if len(m.Unreadable) > 0 {
		if src.Sys != nil {
			src.Sys = unreadableFS{src.Sys, "sys", m.Unreadable}
		}
		if src.Proc != nil {
			src.Proc = unreadableFS{src.Proc, "proc", m.Unreadable}
		}
	}
	n, err := Node(src)
	if n.Hostname == "" {
		n.Hostname = facts["HostName"]
	}
	if n.Kernel == "" {
		n.Kernel = facts["OSRelease"]
	}
	if warning != "" {
		n.Warnings = append(n.Warnings, warning)
	}
	return n, err
}

func subFS(fsys fs.FS, dir string) fs.FS {
	if st, err := fs.Stat(fsys, dir); err != nil || !st.IsDir() {
		return nil
	}
	sub, err := fs.Sub(fsys, dir)
	if err != nil {
		return nil
	}
	return sub
}

// dumpRoot finds the folder that has sys or proc in it.
func dumpRoot(fsys fs.FS) (fs.FS, error) {
	const mostFolders = 100
	level := []string{"."}
	for range 3 {
		var below, found []string
		for _, dir := range level {
			list, err := fs.ReadDir(fsys, dir)
			if err != nil {
				continue
			}
			for _, e := range list {
				if !e.IsDir() {
					continue
				}
				if e.Name() == "sys" || e.Name() == "proc" {
					found = append(found, dir)
					break
				}
				if len(below) < mostFolders {
					below = append(below, path.Join(dir, e.Name()))
				}
			}
		}
		switch len(found) {
		case 0:
			level = below
		case 1:
			return fs.Sub(fsys, found[0])
		default:
			return nil, fmt.Errorf("there are several machines in it, such as %s and %s: name one", found[0], found[1])
		}
	}
	return nil, errors.New("there is no folder sys or proc in it")
}

// gathered reads what hwloc-gather-topology notes that no file tells.
func gathered(base fs.FS) map[string]string {
	out := map[string]string{}
	b, err := fs.ReadFile(base, "proc/hwloc-nofile-info")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			out[key] = value
		}
	}
	return out
}

// goarch translates the name of uname.
func goarch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i486", "i586", "i686":
		return "386"
	}
	return machine // ppc64le, riscv64, s390x are the same; others better than nothing
}
