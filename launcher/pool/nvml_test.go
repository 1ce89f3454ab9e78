package pool

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestHelperForGPUs: nodes with NVIDIA's driver get the helper that lies beside the
// program, and get it again when it is another; those without do not.
func TestHelperForGPUs(t *testing.T) {
	s := newSite(t)
	with, without := s.start("n1", sshdOptions{}), s.start("n2", sshdOptions{})
	exe, err := os.Executable()
	must(t, err)
	text, err := os.ReadFile(exe)
	must(t, err)
	dir := t.TempDir()
	program, helper, sign := filepath.Join(dir, "gangway"), filepath.Join(dir, helperName), filepath.Join(dir, "nvidiactl")
	must(t, os.WriteFile(program, text, 0o755))
	connect := func(node, helps string) {
		t.Helper()
		must(t, os.WriteFile(helper, []byte("#!/bin/sh\necho "+helps+"\n"), 0o755))
		p := s.poolWith(SSHConfig{Binaries: []string{program}}, "n1", "n2")
		if p.helper == nil {
			t.Fatal("the helper was not found")
		}
		p.helper.signs = []string{filepath.Join(dir, "none"), sign}
		s.hello(p, node)
	}
	has := func(d *sshd, want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(d.bin(), helperName))
		if got := string(b); got != want || (err == nil) != (want != "") {
			t.Errorf("on the node: %q, %v, want %q", got, err, want)
		}
	}
	connect("n2", "one")
	has(without, "")
	must(t, os.WriteFile(sign, nil, 0o600))
	connect("n1", "one")
	has(with, "#!/bin/sh\necho one\n")
	at := stat(t, filepath.Join(with.bin(), helperName))
	if at.Mode().Perm() != 0o755 {
		t.Errorf("its mode is %v", at.Mode())
	}
	connect("n1", "one")
	if !os.SameFile(at, stat(t, filepath.Join(with.bin(), helperName))) {
		t.Error("it was copied again though it was there")
	}
	connect("n1", "two")
	has(with, "#!/bin/sh\necho two\n")
	if names := files(t, with.bin()); len(names) != 2 || !slices.Contains(names, helperName) {
		t.Errorf("in the directory: %q, want the program and its helper", names)
	}
}

// TestHelperThatCannotBeCopied: the node is used without.
func TestHelperThatCannotBeCopied(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	dir := t.TempDir()
	exe, err := os.Executable()
	must(t, err)
	text, err := os.ReadFile(exe)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "gangway"), text, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, helperName), []byte("#!/bin/sh\n"), 0o755))
	var warned []string
	p := s.poolWith(SSHConfig{Binaries: []string{filepath.Join(dir, "gangway")}, Warn: func(w string) { warned = append(warned, w) }}, "n1")
	p.helper.signs = []string{"/"}
	_, err = p.helper.digest()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, helperName), []byte("#!/bin/sh\necho another, and longer\n"), 0o755))
	s.hello(p, "n1")
	if len(warned) != 1 {
		t.Errorf("warnings: %q", warned)
	}
	if names := files(t, d.bin()); len(names) != 1 {
		t.Errorf("in the directory: %q, want the program alone", names)
	}
}
