package probe

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strings"
)

// Limits of what is unpacked; the largest record of a machine known has some
// ten thousand files and a few megabytes.
const (
	maxFile    = 16 << 20
	maxEntries = 2 << 20
)

// decompress unwraps gzip, bzip2 and xz; done frees what that took.
func decompress(br *bufio.Reader) (out *bufio.Reader, done func(), err error) {
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	done = func() {}
	var in io.Reader = br
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		if in, err = gzip.NewReader(br); err != nil {
			return nil, nil, err
		}
	case bytes.HasPrefix(head, []byte("BZh")):
		in = bzip2.NewReader(br)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		if in, done, err = unxz(br); err != nil {
			return nil, nil, err
		}
	default:
		return br, done, nil
	}
	return bufio.NewReaderSize(io.LimitReader(in, maxDump), sniffed), done, nil
}

// unxz lets the program xz unpack: records in that format are rare.
func unxz(in io.Reader) (io.Reader, func(), error) {
	cmd := exec.Command("xz", "--decompress", "--stdout", "--memlimit=512MiB")
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("it is compressed by xz, which can't be started (%w): install it, or unpack the file first", err)
	}
	return out, func() {
		out.Close() // it ends, if it has not, when it can't write
		_ = cmd.Wait()
	}, nil
}

// isTar reports whether a block is the header of a tar's first file.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

func isTTAR(head []byte) bool {
	for line := range strings.Lines(string(head)) {
		key, _, _ := strings.Cut(line, ":")
		switch {
		case key == "Path" || key == "Directory":
			return true
		case !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "":
			return false
		}
	}
	return false
}

// readTar reads an archive into memory. What was read before an error is
// returned with it.
func readTar(in io.Reader) (m *memFS, warnings []string, err error) {
	m = newMemFS()
	warn := func(format string, args ...any) {
		if len(warnings) < maxWarnings {
			warnings = append(warnings, fmt.Sprintf(format, args...))
		}
	}
	tr := tar.NewReader(in)
	total := int64(0)
	for range maxEntries {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return m, warnings, nil
		}
		if err != nil {
			return m, warnings, err
		}
		ok := true
		switch h.Typeflag {
		case tar.TypeDir:
			ok = m.add(h.Name, memNode{mode: fs.ModeDir | 0o755})
		case tar.TypeSymlink:
			ok = m.addLink(h.Name, h.Linkname)
		case tar.TypeLink:
			b, err := m.ReadFile(strings.Trim(h.Linkname, "/"))
			ok = err == nil && m.addFile(h.Name, b)
			total += int64(len(b))
		case tar.TypeReg, tar.TypeGNUSparse:
			b, err := io.ReadAll(io.LimitReader(tr, maxFile))
			total += int64(len(b))
			if err != nil {
				warn("%s: %v", clip(h.Name), err)
				return m, warnings, err
			}
			if h.Size > maxFile {
				warn("%s: longer than %d bytes, which is more than any file that is read", clip(h.Name), maxFile)
				continue
			}
			ok = m.addFile(h.Name, b)
		}
		if !ok {
			warn("%s: an entry that can't be there", clip(h.Name))
		}
		if total > maxDump {
			return m, warnings, fmt.Errorf("more than %d bytes", maxDump)
		}
	}
	return m, warnings, fmt.Errorf("more than %d files", maxEntries)
}
