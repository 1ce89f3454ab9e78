package pool

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// binary is a program to be copied to nodes.
type binary struct {
	path string
	size int64
	// machines are the answers of `uname -sm` where it runs; nil for anywhere
	// (a script).
	machines []string
	// digest is the file's SHA-256 in hex, computed when first asked for: it
	// takes tens of milliseconds, in which connections can be made.
	digest func() (string, error)
}

// machines names the architectures of ELF files as uname does.
func machines(m elf.Machine, order elf.Data) []string {
	little := order == elf.ELFDATA2LSB
	switch {
	case m == elf.EM_X86_64:
		return []string{"Linux x86_64"}
	case m == elf.EM_AARCH64 && little:
		return []string{"Linux aarch64", "Linux arm64"}
	case m == elf.EM_PPC64 && little:
		return []string{"Linux ppc64le"}
	case m == elf.EM_PPC64:
		return []string{"Linux ppc64"}
	case m == elf.EM_RISCV:
		return []string{"Linux riscv64"}
	case m == elf.EM_S390:
		return []string{"Linux s390x"}
	case m == elf.EM_LOONGARCH:
		return []string{"Linux loongarch64"}
	case m == elf.EM_386:
		return []string{"Linux i686", "Linux i586", "Linux i386", "Linux x86_64"}
	case m == elf.EM_ARM:
		return []string{"Linux armv7l", "Linux armv6l", "Linux armv8l"}
	}
	return []string{"Linux " + strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))}
}

func readBinaries(paths []string) ([]binary, error) {
	if len(paths) == 0 {
		return nil, errors.New("no program to copy to the nodes was given")
	}
	var list []binary
	for _, p := range paths {
		b, err := readBinary(p)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func readBinary(path string) (binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return binary{}, fmt.Errorf("can't read the program for the nodes: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return binary{}, fmt.Errorf("can't read the program for the nodes: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return binary{}, fmt.Errorf("%s can't be the program for the nodes: it is no regular file", path)
	}
	b := binary{path: path, size: fi.Size(), digest: sync.OnceValues(func() (string, error) { return digestFile(path) })}
	head := make([]byte, 4)
	io.ReadFull(f, head) // a shorter file has another head
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
	case bytes.Equal(head, []byte(elf.ELFMAG)):
		e, err := elf.NewFile(f)
		if err != nil {
			return binary{}, fmt.Errorf("%s is a broken ELF file: %w", path, err)
		}
		b.machines = machines(e.Machine, e.Data)
	default:
		// A program of another system: it fits no node, and the error then
		// says so, with the node's architecture.
		b.machines = []string{}
	}
	return b, nil
}

func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("can't read the program for the nodes: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("can't read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// remoteName is the file's name on the nodes: it says what is in it, so that
// versions live beside each other and a running one is never written to.
func remoteName(digest string) string { return "gangway-" + digest[:16] }
