package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"gangway/launcher/job"
)

func mustOpen(t *testing.T, dir string, o Options) *SQLite {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the test may have closed it
	return s
}

func row(key string, size int) job.Row {
	return job.Row{Table: "job", Key: key, Value: bytes.Repeat([]byte("v"), size)}
}

func TestNothingIsLeftRunning(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := mustOpen(t, filepath.Join(t.TempDir(), "data"), Options{})
	if _, err := s.Load(); err != nil {
		t.Error(err)
	}
	if err := s.Commit([]job.Row{row("a", 1)}); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	files, err := os.ReadDir(s.dir)
	if err != nil || len(files) != 2 { // the data and the lock
		t.Errorf("a closed store leaves %v, %v", files, err)
	}
}

func TestRefusedDirectories(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(base, "other")
	db, err := connect(filepath.Join(base, "x.db"), 1, "busy_timeout(0)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE theirs (x)"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), os.Mkdir(other, 0o700), os.Rename(filepath.Join(base, "x.db"), filepath.Join(other, dataFile))); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(base, "not", "there"): "make the directory above it",
		file:                                "is not a directory",
		open:                                "chmod 700",
		other:                               "another program",
	} {
		if runtime.GOOS == "windows" && dir == open {
			continue
		}
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
}

func TestDamage(t *testing.T) {
	for name, hurt := range map[string]func(file string) error{
		"cut in the middle": func(file string) error { return os.Truncate(file, 20_000) },
		"not a database":    func(file string) error { return os.WriteFile(file, bytes.Repeat([]byte("no database "), 1000), 0o600) },
		"zeroes inside": func(file string) error {
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(make([]byte, 60_000), 8192)
			return errors.Join(err, f.Close())
		},
		"log without database": func(file string) error {
			return errors.Join(os.WriteFile(file+"-wal", []byte("log"), 0o600), os.Remove(file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			s := mustOpen(t, dir, Options{})
			for i := range 100 {
				if err := s.Commit([]job.Row{row(fmt.Sprint(i), 1000)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, dataFile)
			if err := hurt(file); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, Options{})
			if err == nil {
				_, err = s.Load()
				defer s.Close()
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "from a backup") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestTornLog cuts the log that a killed launcher leaves: commits are lost from
// the end only, and whole.
func TestTornLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir, Options{})
	for i := range 20 {
		if err := s.Commit([]job.Row{row(fmt.Sprintf("%02d-a", i), 100), row(fmt.Sprintf("%02d-b", i), 3000)}); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{}
	for _, f := range []string{dataFile, dataFile + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		files[f] = b
	}
	wal := files[dataFile+"-wal"]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := 0
	for cut := len(wal) / 2; cut <= len(wal); cut += len(wal) / 37 {
		copied := filepath.Join(t.TempDir(), "data")
		if err := errors.Join(os.Mkdir(copied, 0o700),
			os.WriteFile(filepath.Join(copied, dataFile), files[dataFile], 0o600),
			os.WriteFile(filepath.Join(copied, dataFile+"-wal"), wal[:cut], 0o600)); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, copied, Options{})
		rows, err := s.Load()
		if err != nil || len(rows)%2 != 0 || len(rows) < before {
			t.Fatalf("cut at %d of %d: %d rows, %v", cut, len(wal), len(rows), err)
		}
		for i, r := range rows {
			if want := fmt.Sprintf("%02d-%c", i/2, 'a'+i%2); r.Key != want {
				t.Fatalf("cut at %d: row %s where %s should be", cut, r.Key, want)
			}
		}
		before = len(rows)
		if err := errors.Join(s.Commit([]job.Row{row("new", 1)}), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if before == 0 {
		t.Error("nothing was left in any")
	}
}

func TestVersions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	closed := func(s *SQLite, err error) {
		t.Helper()
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := open(dir, Options{Version: "1.0.0"}, migrations[:1:1])
	if err != nil {
		t.Fatal(err)
	}
	closed(s, s.Commit([]job.Row{row("a", 1)}))

	// A step that fails half-way leaves the data as they were.
	bad := append(migrations[:1:1], "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1)")
	if _, err := open(dir, Options{Version: "1.9.0"}, bad); err == nil || !strings.Contains(err.Error(), "from data version 1 to 2") {
		t.Fatalf("a bad step: %v", err)
	}
	closed(open(dir, Options{Version: "1.1.0"}, migrations[:1:1]))

	next := append(migrations[:1:1], "CREATE TABLE extra (x); INSERT INTO extra VALUES (1)", "UPDATE extra SET x = x + 1")
	s, err = open(dir, Options{Version: "2.0.0"}, next)
	if err != nil {
		t.Fatal(err)
	}
	var x int
	if err := s.conn.QueryRowContext(context.Background(), "SELECT x FROM extra").Scan(&x); err != nil || x != 2 {
		t.Errorf("after the steps: %d, %v", x, err)
	}
	rows, err := s.Load()
	if len(rows) != 1 {
		t.Errorf("%v, %v", rows, err)
	}
	closed(s, err)
	closed(open(dir, Options{Version: "2.0.1"}, next)) // nothing is done twice

	_, err = Open(dir, Options{Version: "1.1.0"})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "written by gangway 2.0.1 (data version 3, this one knows 2)") {
		t.Errorf("newer data: %v", err)
	}
}

// TestTakenOver has a second store on the same data, as on an engine that
// launchers share.
func TestTakenOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir, Options{})
	if err := errors.Join(s.Begin(1), s.Commit([]job.Row{row("a", 1)})); err != nil {
		t.Fatal(err)
	}
	second := &SQLite{dir: dir}
	if err := second.openWriter(Options{}, migrations); err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Begin(1); !errors.Is(err, ErrStale) {
		t.Errorf("the same epoch twice: %v", err)
	}
	if err := second.Begin(2); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit([]job.Row{row("b", 1)}); !errors.Is(err, ErrStale) {
		t.Errorf("a commit of the one that was replaced: %v", err)
	}
	if err := second.Commit([]job.Row{row("c", 1)}); err != nil {
		t.Error(err)
	}
	rows, err := s.Load()
	if err != nil || len(rows) != 2 || rows[1].Key != "c" {
		t.Errorf("%v, %v", rows, err)
	}
}

// fillUp commits until it fails, and checks that nothing of the commit that
// failed is there. It returns the number of those that did not.
func fillUp(t *testing.T, s *SQLite) int {
	t.Helper()
	for n := 0; ; n++ {
		rows := make([]job.Row, 50)
		for i := range rows {
			rows[i] = row(fmt.Sprintf("%06d-%02d", n, i), 2000)
		}
		err := s.Commit(rows)
		if err == nil && n < 10_000 {
			continue
		}
		if err == nil || n == 0 || !strings.Contains(err.Error(), "disk is full") {
			t.Fatalf("commit %d: %v", n, err)
		}
		if got, err := s.Load(); err != nil || len(got) != 50*n {
			t.Fatalf("%d rows after %d commits, %v", len(got), n, err)
		}
		return n
	}
}

func TestFullByLimit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir, Options{MaxBytes: 4 << 20})
	n := fillUp(t, s)
	var gone []job.Row
	for i := range 50 {
		gone = append(gone, job.Row{Table: "job", Key: fmt.Sprintf("%06d-%02d", 0, i)})
	}
	if err := errors.Join(s.Commit(gone), s.Commit([]job.Row{row("z", 2000)}), s.Close()); err != nil {
		t.Errorf("after making room: %v", err)
	}
	s = mustOpen(t, dir, Options{})
	if rows, err := s.Load(); err != nil || len(rows) != 50*(n-1)+1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root to mount a small tmpfs")
	}
	mount := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount).CombinedOutput(); err != nil {
		t.Skipf("can't mount a tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mount, "data")
	s := mustOpen(t, dir, Options{})
	n := fillUp(t, s)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Commit([]job.Row{row("z", 2000)}), s.Close()); err != nil {
		t.Fatalf("after making room: %v", err)
	}
	s = mustOpen(t, dir, Options{})
	if rows, err := s.Load(); err != nil || len(rows) != 50*n+1 {
		t.Errorf("%d rows of %d, %v", len(rows), 50*n+1, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFileSystem(t *testing.T) {
	const mounts = `22 1 254:1 / / rw,relatime - ext4 /dev/root rw
30 22 0:5 / /home rw shared:2 - nfs4 server:/home rw
31 30 0:6 / /home/me/local\040disk rw - xfs /dev/sdb rw
32 22 0:7 / /mnt rw - ext4 /dev/sdc rw
33 22 0:8 / /mnt rw - fuse.sshfs me@host:/ rw
bad line
34 22 0:9 / /x rw -
`
	for path, want := range map[string]string{
		"/": "ext4", "/var/lib": "ext4", "/home": "nfs4", "/home/me": "nfs4", "/homes": "ext4",
		"/home/me/local disk/data": "xfs", "/mnt/data": "fuse.sshfs", "/x": "ext4",
	} {
		if got := fileSystem([]byte(mounts), path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if !network("nfs4") || !network("fuse.sshfs") || network("ext4") || network("") || network("tmpfs") {
		t.Error("kinds of file systems")
	}
}

func FuzzFileSystem(f *testing.F) {
	f.Add([]byte("22 1 254:1 / / rw,relatime - ext4 /dev/root rw\n31 30 0:6 / /a\\040b rw - xfs /dev/sdb rw"), "/a b/c")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		if kind := fileSystem(text, path); !bytes.Contains(text, []byte(kind)) {
			t.Errorf("%q is not in the text", kind)
		}
	})
}

func FuzzOwner(f *testing.F) {
	f.Add([]byte("12 host\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := parseOwner(text); strings.ContainsAny(got, "\n\x1b") || !strings.HasPrefix(got, "another launcher") {
			t.Errorf("%q", got)
		}
	})
}
