package pool

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// uploadsTo lists the files in a host's directory for programs.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestUploadOnlyWhenMissingOrDifferent(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	p := s.poolWith(SSHConfig{Env: []string{"GANGWAY_TEST=it's $HOME"}, Args: []string{"bridge", "a b", `'"$x`}}, "n1")

	greeting := s.hello(p, "n1")
	if !strings.HasSuffix(greeting, `["a b" "'\"$x"] it's $HOME`) {
		t.Errorf("arguments or environment were changed on the way: %s", greeting)
	}
	names := files(t, d.bin())
	if len(names) != 1 || !strings.HasPrefix(names[0], "gangway-") {
		t.Fatalf("in the directory: %q, want one program", names)
	}
	program := filepath.Join(d.bin(), names[0])
	if !strings.Contains(greeting, program) {
		t.Errorf("%q does not run %s", greeting, program)
	}
	before := stat(t, program)

	s.hello(p, "n1")
	if after := stat(t, program); !os.SameFile(before, after) {
		t.Error("the program was uploaded again though it was there")
	}

	// The right name, size and mode, but one byte is another.
	f, err := os.OpenFile(program, os.O_RDWR, 0)
	if err != nil {
		// Text file busy: the last bridge is still ending. A copy will do.
		text, e := os.ReadFile(program)
		must(t, e)
		must(t, os.Remove(program))
		must(t, os.WriteFile(program, text, 0o755))
		f, err = os.OpenFile(program, os.O_RDWR, 0)
	}
	must(t, err)
	at, was := before.Size()/2, make([]byte, 1)
	_, err = f.ReadAt(was, at)
	must(t, err)
	_, err = f.WriteAt([]byte{^was[0]}, at)
	must(t, err)
	must(t, f.Close())
	s.hello(p, "n1")
	// By its text: the new file may have got the old one's inode number.
	text, err := os.ReadFile(program)
	must(t, err)
	if int64(len(text)) != before.Size() || text[at] != was[0] {
		t.Error("the corrupted program was not replaced")
	}

	// An old one that nobody used goes with the next upload, a newer one stays.
	old, recent := filepath.Join(d.bin(), "gangway-0123456789abcdef"), filepath.Join(d.bin(), "gangway-fedcba9876543210")
	for _, f := range []string{old, recent} {
		must(t, os.WriteFile(f, nil, 0o755))
	}
	month := time.Now().Add(-32 * 24 * time.Hour)
	must(t, os.Chtimes(old, month, month))
	must(t, os.Remove(program))
	s.hello(p, "n1")
	if got := files(t, d.bin()); len(got) != 2 {
		t.Errorf("in the directory: %q, want the program and the recent one", got)
	}
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(name)
	must(t, err)
	return fi
}

func TestSharedHomeIsUploadedToOnce(t *testing.T) {
	s := newSite(t)
	var names []string
	var hosts []*sshd
	home := filepath.Join(s.dir, "shared")
	must(t, os.MkdirAll(home, 0o700))
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		hosts = append(hosts, s.start(n, sshdOptions{home: home, options: []string{"Subsystem sftp internal-sftp -f USER -l VERBOSE"}}))
		names = append(names, n)
	}
	p := s.pool(names...)
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() { s.hello(p, n) })
	}
	wg.Wait()
	if got := files(t, hosts[0].bin()); len(got) != 1 {
		t.Errorf("in the directory: %q, want one program", got)
	}
	sftps := 0
	for _, h := range hosts {
		sftps += strings.Count(h.log.String(), "Starting session: subsystem 'sftp'")
	}
	if sftps != 1 {
		t.Errorf("%d uploads, want 1", sftps)
	}
}

func TestLoginShells(t *testing.T) {
	for _, c := range []struct{ name, needs, force string }{
		{"banner", "", `printf 'Welcome\nto the cluster, no newline'; eval "$SSH_ORIGINAL_COMMAND"`},
		{"long banner", "", `head -c 40000 /dev/zero | tr '\000' x; eval "$SSH_ORIGINAL_COMMAND"`},
		{"dash", "dash", `exec dash -c "$SSH_ORIGINAL_COMMAND"`},
		{"csh", "tcsh", `exec tcsh -c "$SSH_ORIGINAL_COMMAND"`},
		{"fish", "fish", `exec fish -c "$SSH_ORIGINAL_COMMAND"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != "" {
				if _, err := lookPath(c.needs); err != nil {
					t.Skip("not installed: " + c.needs)
				}
			}
			s := newSite(t)
			d := s.start("n1", sshdOptions{options: []string{"ForceCommand " + c.force, "Subsystem sftp /usr/lib/openssh/sftp-server"}})
			s.hello(s.pool("n1"), "n1")
			if got := files(t, d.bin()); len(got) != 1 {
				t.Errorf("in the directory: %q, want one program", got)
			}
		})
	}
}

func TestWithoutSFTP(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{options: []string{"Subsystem none /bin/false"}})
	s.hello(s.pool("n1"), "n1")
	if got := files(t, d.bin()); len(got) != 1 {
		t.Errorf("in the directory: %q, want one program", got)
	}
}

func TestNoShell(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{options: []string{"ForceCommand echo This account is currently not available.; exit 1"}})
	e := s.refusal(s.pool("n1"), "n1", Install)
	wantText(t, e, "does not run commands", "not available", "ssh n1 true")
}

func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	for _, c := range []struct{ name, sub string }{{"sftp", "Subsystem sftp internal-sftp"}, {"shell", "Subsystem none /bin/false"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			home := filepath.Join(s.dir, "small")
			must(t, os.MkdirAll(home, 0o700))
			d := s.start("n1", sshdOptions{home: home, options: []string{c.sub}, wrap: []string{"unshare", "-m", "sh", "-c",
				`mount -t tmpfs -o size=1m none "$0" && mount -t tmpfs -o size=1m none /var/tmp && exec "$@"`, home}})
			e := s.refusal(s.pool("n1"), "n1", Install)
			wantText(t, e, "disk full", d.bin(), "/var/tmp/gangway-0/bin", "free", "needed", "MiB")
		})
	}
}

// TestDiskFullUnseen has df lie, as it does where a quota is: the upload itself
// runs into the end.
func TestDiskFullUnseen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	for _, c := range []struct{ name, sub string }{{"sftp", "Subsystem sftp internal-sftp"}, {"shell", "Subsystem none /bin/false"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			home := filepath.Join(s.dir, "small")
			must(t, os.MkdirAll(home, 0o700))
			df := filepath.Join(s.dir, "df")
			must(t, os.WriteFile(df, []byte("#!/bin/sh\necho x; echo none 1 1 99999999 1% /\n"), 0o755))
			// The host's files are seen from here through its mount namespace.
			d := s.start("n1", sshdOptions{home: home, options: []string{c.sub}, wrap: []string{"unshare", "-m", "sh", "-c",
				`mount --bind "$1" "$(command -v df)" && shift && mount -t tmpfs -o size=1m none "$0" && mount -t tmpfs -o size=1m none /var/tmp && exec "$@"`, home, df}})
			e := s.refusal(s.pool("n1"), "n1", Install)
			wantText(t, e, "disk full", d.bin(), "/var/tmp/gangway-0/bin", "MiB are needed: No space left on device")
			root := filepath.Join("/proc", itoa(d.cmd.Process.Pid), "root")
			for _, dir := range []string{d.bin(), "/var/tmp/gangway-0/bin"} {
				if got := files(t, filepath.Join(root, dir)); len(got) != 0 {
					t.Errorf("left in %s: %q", dir, got)
				}
			}
		})
	}
}

func TestFallbackWhenHomeCannotRunPrograms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount file systems")
	}
	for _, c := range []struct{ name, opts string }{{"noexec", "noexec"}, {"read-only", "ro"}, {"small", "size=1m"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			home := filepath.Join(s.dir, "odd")
			must(t, os.MkdirAll(home, 0o700))
			s.start("n1", sshdOptions{home: home, wrap: []string{"unshare", "-m", "sh", "-c",
				`mount -t tmpfs -o "$1" none "$0" && mount -t tmpfs none /var/tmp && shift && exec "$@"`, home, c.opts}})
			p := s.pool("n1")
			for range 2 {
				if got := s.hello(p, "n1"); !strings.Contains(got, "/var/tmp/gangway-0/bin/gangway-") {
					t.Errorf("the program that runs is %s", got)
				}
			}
		})
	}
}

func TestSpareDirectoryOfSomebodyElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount file systems and change owners")
	}
	s := newSite(t)
	home := filepath.Join(s.dir, "odd")
	must(t, os.MkdirAll(home, 0o700))
	s.start("n1", sshdOptions{home: home, wrap: []string{"unshare", "-m", "sh", "-c",
		`mount -t tmpfs -o ro none "$0" && mount -t tmpfs none /var/tmp && mkdir -p /var/tmp/gangway-0/bin && chown 12345 /var/tmp/gangway-0 && exec "$@"`, home}})
	wantText(t, s.refusal(s.pool("n1"), "n1", Install), "/var/tmp/gangway-0/bin: belongs to somebody else", "Read-only file system")
}

func TestOtherArchitecture(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{})
	// The test binary with another machine in its ELF header.
	exe, err := os.Executable()
	must(t, err)
	text, err := os.ReadFile(exe)
	must(t, err)
	const machine = 18 // e_machine's offset
	text[machine], text[machine+1] = 243, 0
	other := filepath.Join(s.dir, "gangway-riscv")
	must(t, os.WriteFile(other, text, 0o755))

	e := s.refusal(s.poolWith(SSHConfig{Binaries: []string{other}}, "n1"), "n1", Install)
	wantText(t, e, "Linux x86_64", "riscv64", other, "--agent-binary")
	// Given as well, the right one is used.
	s.hello(s.poolWith(SSHConfig{Binaries: []string{other, exe}}, "n1"), "n1")
}

func TestBridgeThatFails(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{})
	p := s.poolWith(SSHConfig{Args: []string{"bridge", "fail"}}, "n1")
	c, err := p.Connect(t.Context(), "n1")
	must(t, err)
	defer c.Close()
	if n, err := c.Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
	if got := c.Stderr(); !strings.Contains(got, "no agent here") || !strings.Contains(got, "exit status 3") {
		t.Errorf("stderr: %q", got)
	}
}
