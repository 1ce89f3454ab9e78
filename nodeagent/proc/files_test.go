//go:build linux

package proc

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a socket pair.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = c.Close() })
	return a, c.(*net.UnixConn)
}

func TestSendFiles(t *testing.T) {
	a, b := pair(t)
	var files []*os.File
	for i := range 3 {
		f, err := os.Create(filepath.Join(t.TempDir(), strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	msg := strings.Repeat("m", 1<<20) // more than a socket holds
	sent := make(chan error, 1)
	go func() { sent <- SendFiles(a, []byte(msg), files...) }()
	buf := make([]byte, 4096)
	n, got, err := RecvFiles(b, buf, 3)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d bytes, %d files, %v", n, len(got), err)
	}
	if _, err := io.ReadFull(b, make([]byte, len(msg)-n)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for i, f := range got {
		if _, err := f.WriteString("through " + strconv.Itoa(i)); err != nil {
			t.Error(err)
		}
		if fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
			t.Errorf("file %d would leak to children: %v", i, err)
		}
		_ = f.Close()
		if b, _ := os.ReadFile(files[i].Name()); string(b) != "through "+strconv.Itoa(i) {
			t.Errorf("file %d: %q", i, b)
		}
	}
	// Too many: an error, and none is kept open.
	before, _ := os.ReadDir("/proc/self/fd")
	if err := SendFiles(a, []byte("x"), files...); err != nil {
		t.Fatal(err)
	}
	if _, got, err := RecvFiles(b, buf, 1); err == nil || got != nil {
		t.Errorf("three files for one place: %v %v", got, err)
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) != len(before) {
		t.Errorf("%d descriptors before, %d after", len(before), len(after))
	}
	if err := SendFiles(a, nil, files...); err == nil {
		t.Error("files without a message were sent")
	}
	if err := SendFiles(a, []byte("plain")); err != nil {
		t.Error(err)
	}
	if n, got, err := RecvFiles(b, buf, 3); err != nil || string(buf[:n]) != "plain" || len(got) != 0 {
		t.Errorf("plain message: %q %v %v", buf[:n], got, err)
	}
	_ = a.Close()
	if _, _, err := RecvFiles(b, buf, 3); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestPeerCred(t *testing.T) {
	a, _ := pair(t)
	uid, gid, pid, err := PeerCred(a)
	if err != nil || uid != os.Getuid() || gid != os.Getgid() || pid != os.Getpid() {
		t.Errorf("%d %d %d %v", uid, gid, pid, err)
	}
}

func TestPipe(t *testing.T) {
	r, w, err := Pipe(256 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	n, err := unix.FcntlInt(w.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil || n < 64<<10 {
		t.Errorf("pipe of %d bytes, %v", n, err)
	}
	if os.Geteuid() == 0 && n != 256<<10 {
		t.Errorf("pipe of %d bytes, want 256 KiB", n)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	p, in, line := talk(t, self("locked", path))
	if line != "locked" {
		t.Fatal(line)
	}
	_, err := Lock(path)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(p.Pid())) {
		t.Errorf("a held lock: %v", err)
	}
	_ = in.Close()
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("twice in one process: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// A holder that is killed leaves the file, not the lock.
	p, _, _ = talk(t, self("locked", path))
	_ = p.Signal(9)
	_, _ = p.Wait()
	if l, err = Lock(path); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestLockErrors(t *testing.T) {
	for _, e := range []unix.Errno{unix.ENOLCK, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL} {
		path := filepath.Join(t.TempDir(), "lock")
		_, err := lock(path, func(int, int) error { return e })
		if !errors.Is(err, e) || errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--tmpdir") {
			t.Errorf("%v: %v", e, err)
		}
	}
	calls := 0
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lock(path, func(int, int) error {
		calls++
		switch calls {
		case 1:
			return unix.EINTR
		case 2: // the holder before us removes the file as it goes
			return os.Remove(path)
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	_ = l.Close()
	if _, err := Lock(filepath.Join(t.TempDir(), "no", "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestPrivateDir(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	old := unix.Umask(0o777)
	err := PrivateDir(at("new"))
	unix.Umask(old)
	must(err)
	must(PrivateDir(at("new")))
	must(os.Mkdir(at("wide"), 0o755))
	must(PrivateDir(at("wide")))
	for _, n := range []string{"new", "wide"} {
		if fi, err := os.Stat(at(n)); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", n, fi.Mode(), err)
		}
	}
	must(os.Symlink(at("new"), at("link")))
	must(os.WriteFile(at("file"), nil, 0o600))
	cases := map[string]string{"link": "is a symbolic link", "file": "is a file", "no/dir": "--tmpdir"}
	if os.Geteuid() == 0 {
		must(os.Mkdir(at("foreign"), 0o777))
		must(os.Chown(at("foreign"), 12345, 12345))
		cases["foreign"] = "belongs to user 12345, not to user 0"
	}
	for name, want := range cases {
		if err := PrivateDir(at(name)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), at(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBootIDAndMemlock(t *testing.T) {
	if id, err := BootID(); err != nil || len(id) != 36 {
		t.Errorf("boot id %q, %v", id, err)
	}
	if n, err := RaiseMemlock(); err != nil || n == 0 {
		t.Errorf("locked memory: %d, %v", n, err)
	}
}
