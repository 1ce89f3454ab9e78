//go:build linux

package nodeagent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

// testDir is an agent's directory with an empty task root beside it.
func testDir(t testing.TB) Dir {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o711); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(base)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func makeTask(t testing.TB, d Dir, rel string, acc *account) string {
	t.Helper()
	p, err := d.makeTask(rel, acc)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

const (
	opList   = wire.FileOp_FILE_OP_LIST
	opStat   = wire.FileOp_FILE_OP_STAT
	opRead   = wire.FileOp_FILE_OP_READ
	opDelete = wire.FileOp_FILE_OP_DELETE
)

func paths(r *wire.FileReply) []string {
	var out []string
	for _, e := range r.GetEntries() {
		out = append(out, e.GetPath())
	}
	return out
}

func TestFileService(t *testing.T) {
	d := testDir(t)
	if r := d.serveFile(&wire.FileRequest{Op: opList}); r.GetCode() != 0 || len(r.GetEntries()) != 0 {
		t.Errorf("without a task: %v", r)
	}
	task := makeTask(t, d, "j/t", nil)
	put(t, task+"/stdout.txt", "0123456789")
	put(t, task+"/wd/a/b", "x")
	put(t, task+"/wd/a-", "yy")
	put(t, task+"/wd/\xff/c", "not UTF-8")
	all := []string{"j", "j/t", "j/t/stdout.txt", "j/t/wd", "j/t/wd/a", "j/t/wd/a/b", "j/t/wd/a-", "shared"}
	for limit := range uint32(10) {
		var got []string
		q := &wire.FileRequest{Op: opList, Recursive: true, Limit: limit}
		for {
			r := d.serveFile(q)
			if r.GetCode() != 0 || limit > 0 && len(r.GetEntries()) > int(limit) {
				t.Fatalf("limit %d: %v", limit, r)
			}
			got = append(got, paths(r)...)
			if !r.GetMore() {
				break
			}
			q.Cursor = r.GetCursor()
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
	if got := paths(d.serveFile(&wire.FileRequest{Op: opList, Path: "j/t"})); !cmp.Equal(got, []string{"j/t/stdout.txt", "j/t/wd"}) {
		t.Errorf("flat: %q", got)
	}
	for _, c := range []struct {
		off  uint64
		n    uint32
		want string
		eof  bool
	}{{0, 0, "0123456789", true}, {2, 3, "234", false}, {7, 3, "789", true}, {7, 100, "789", true}, {10, 1, "", true}, {1 << 40, 5, "", true}} {
		r := d.serveFile(&wire.FileRequest{Op: opRead, Path: "j/t/stdout.txt", Offset: c.off, Length: c.n})
		if string(r.GetData()) != c.want || r.GetEof() != c.eof || r.GetEntries()[0].GetSize() != 10 {
			t.Errorf("%d bytes from %d: %v", c.n, c.off, r)
		}
	}
	st := d.serveFile(&wire.FileRequest{Op: opStat, Path: "j/t/wd"}).GetEntries()
	if len(st) != 1 || !st[0].GetDir() || st[0].GetMtimeNs() == 0 || st[0].GetCtimeNs() == 0 {
		t.Errorf("stat: %v", st)
	}
	for _, c := range []struct {
		q    *wire.FileRequest
		want wire.FileError
	}{
		{&wire.FileRequest{Op: opDelete, Path: "j/t/wd"}, wire.FileError_FILE_ERROR_NOT_EMPTY},
		{&wire.FileRequest{Op: opDelete, Path: "j/t/wd/a", Recursive: true}, 0},
		{&wire.FileRequest{Op: opRead, Path: "j/t/wd/\xff"}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Op: opDelete, Path: "j/t/wd/a", Recursive: true}, wire.FileError_FILE_ERROR_NOT_FOUND},
		{&wire.FileRequest{Op: opDelete, Path: "j/t/stdout.txt"}, 0},
		{&wire.FileRequest{Op: opDelete, Recursive: true}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Op: opRead, Path: "j/t/stdout.txt"}, wire.FileError_FILE_ERROR_NOT_FOUND},
		{&wire.FileRequest{Op: opRead, Path: "j/t"}, wire.FileError_FILE_ERROR_KIND},
		{&wire.FileRequest{Op: opList, Path: "j/t/wd/a-"}, wire.FileError_FILE_ERROR_KIND},
		{&wire.FileRequest{Op: opRead, Path: "j/t/wd/a-", Length: 1<<20 + 1}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Op: opRead, Path: "j/t/wd/a-", Offset: 1 << 63}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Op: opList, Path: "j/t", Cursor: "j/other"}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Path: "j"}, wire.FileError_FILE_ERROR_INVALID},
		{&wire.FileRequest{Op: opDelete, Path: "j", Recursive: true}, 0},
	} {
		if r := d.serveFile(c.q); r.GetCode() != c.want {
			t.Errorf("%v: %v, want %v", c.q, r, c.want)
		}
	}
}

// TestFileEscapes tries every way out of the task root.
func TestFileEscapes(t *testing.T) {
	d := testDir(t)
	task := makeTask(t, d, "j/t", nil)
	put(t, filepath.Dir(d.tasks())+"/secret", "secret")
	for name, to := range map[string]string{"abs": "/etc/passwd", "up": "../../../secret", "dir": "/etc", "updir": "../../..", "loop": "loop", "proc": "/proc/self/root"} {
		if err := os.Symlink(to, filepath.Join(task, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(task, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"j/t/abs", "j/t/up", "j/t/dir/passwd", "j/t/updir/secret", "j/t/loop", "j/t/loop/x", "j/t/proc/etc/passwd",
		"/etc/passwd", "../secret", "j/../../secret", "j/./t", "j//t", ".", "..", "j/t/", "j/t/a\x00b", "j/t/fifo"} {
		for _, op := range []wire.FileOp{opRead, opList} {
			if r := d.serveFile(&wire.FileRequest{Op: op, Path: p, Recursive: true}); r.GetCode() == 0 || len(r.GetData()) > 0 || len(r.GetEntries()) > 0 {
				t.Errorf("%v %q: %v", op, p, r)
			}
		}
	}
	for _, p := range []string{"j/t/dir/hosts", "j/t/updir/secret", "../secret"} {
		if r := d.serveFile(&wire.FileRequest{Op: opDelete, Path: p, Recursive: true}); r.GetCode() == 0 {
			t.Errorf("%q was removed", p)
		}
	}
	// A link is removed itself, and listed without being followed.
	if r := d.serveFile(&wire.FileRequest{Op: opList, Path: "j/t", Recursive: true}); len(r.GetEntries()) != 7 {
		t.Errorf("%q", paths(r))
	}
	if r := d.serveFile(&wire.FileRequest{Op: opDelete, Path: "j/t/updir", Recursive: true}); r.GetCode() != 0 {
		t.Errorf("%v", r)
	}
	if b, err := os.ReadFile(filepath.Dir(d.tasks()) + "/secret"); err != nil || string(b) != "secret" {
		t.Errorf("%q, %v", b, err)
	}
	// A link in the task root's place.
	if err := errors.Join(os.RemoveAll(d.tasks()), os.Symlink("/etc", d.tasks())); err != nil {
		t.Fatal(err)
	}
	for _, q := range []*wire.FileRequest{{Op: opRead, Path: "passwd"}, {Op: opList}} {
		if r := d.serveFile(q); r.GetCode() != wire.FileError_FILE_ERROR_DENIED {
			t.Errorf("%v: %v", q, r)
		}
	}
	if _, err := d.makeTask("j/t", nil); err == nil {
		t.Error("a task's directory was made behind a link")
	}
}

// TestFileRace swaps directories for links while they are read.
func TestFileRace(t *testing.T) {
	d := testDir(t)
	task := makeTask(t, d, "j/t", nil)
	outside := filepath.Join(filepath.Dir(d.tasks()), "outside")
	put(t, outside+"/f", "secret")
	put(t, task+"/in/f", "inside")
	if err := os.Symlink(outside, task+"/link"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			_ = os.Rename(task+"/in", task+"/kept")
			_ = os.Rename(task+"/link", task+"/in")
			_ = os.Rename(task+"/in", task+"/link")
			_ = os.Rename(task+"/kept", task+"/in")
		}
	})
	seen := 0
	for range 3000 {
		r := d.serveFile(&wire.FileRequest{Op: opRead, Path: "j/t/in/f"})
		if strings.Contains(string(r.GetData()), "secret") {
			t.Fatal("the outside was read")
		}
		seen += len(r.GetData())
		_ = d.serveFile(&wire.FileRequest{Op: opDelete, Path: "j/t/in/g"})
		for _, e := range d.serveFile(&wire.FileRequest{Op: opList, Path: "j/t", Recursive: true}).GetEntries() {
			if e.GetPath() == "j/t/link/f" {
				t.Fatal("the outside was listed")
			}
		}
	}
	close(done)
	wg.Wait()
	if seen == 0 {
		t.Error("the inside was never read")
	}
}

// TestFileOwners holds that what root reads for one user is no other's.
func TestFileOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has other users' directories")
	}
	d := testDir(t)
	a, b := &account{name: "a"}, &account{name: "b"}
	a.cred.UID, a.cred.GID, b.cred.UID, b.cred.GID = 65534, 65534, 65533, 65533
	ta, tb := makeTask(t, d, "j/a", a), makeTask(t, d, "j/b", b)
	put(t, tb+"/stdout.txt", "b's")
	put(t, ta+"/stdout.txt", "a's")
	put(t, d.tasks()+"/root", "root's")
	if err := errors.Join(os.Chown(tb+"/stdout.txt", 65533, 65533), os.Chown(ta+"/stdout.txt", 65534, 65534),
		os.Symlink("../b/stdout.txt", ta+"/soft"), os.Symlink("../b", ta+"/dir"),
		os.Link(tb+"/stdout.txt", ta+"/hard"), os.Link(d.tasks()+"/root", ta+"/hard2")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"j/a/soft", "j/a/dir/stdout.txt", "j/a/hard", "j/a/hard2"} {
		if r := d.serveFile(&wire.FileRequest{Op: opRead, Path: p}); r.GetCode() != wire.FileError_FILE_ERROR_DENIED {
			t.Errorf("%s: %v", p, r)
		}
	}
	if r := d.serveFile(&wire.FileRequest{Op: opDelete, Path: "j/a/dir/stdout.txt"}); r.GetCode() != wire.FileError_FILE_ERROR_DENIED {
		t.Errorf("delete: %v", r)
	}
	for p, want := range map[string]string{"j/a/stdout.txt": "a's", "j/b/stdout.txt": "b's"} {
		if r := d.serveFile(&wire.FileRequest{Op: opRead, Path: p}); string(r.GetData()) != want {
			t.Errorf("%s: %v", p, r)
		}
	}
	if got := len(d.serveFile(&wire.FileRequest{Op: opList, Recursive: true}).GetEntries()); got != 11 {
		t.Errorf("%d entries", got)
	}
	if r := d.serveFile(&wire.FileRequest{Op: opDelete, Path: "j/a", Recursive: true}); r.GetCode() != 0 {
		t.Errorf("delete: %v", r)
	}
	if _, err := d.makeTask("j/b", a); err == nil {
		t.Error("a's task got b's directory")
	}
}

// TestSharedFiles holds that all users' tasks may write to the shared directory,
// and that no link there leads out of it.
func TestSharedFiles(t *testing.T) {
	d := testDir(t)
	put(t, makeTask(t, d, "j/b", nil)+"/stdout.txt", "b's")
	shared := filepath.Join(d.tasks(), wire.SharedDir)
	put(t, shared+"/f", "ours")
	if err := errors.Join(os.Symlink("../j/b", shared+"/dir"), os.Symlink("f", shared+"/in")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"shared/f": "ours", "shared/in": "ours"} {
		if r := d.serveFile(&wire.FileRequest{Op: opRead, Path: p}); string(r.GetData()) != want {
			t.Errorf("%s: %v", p, r)
		}
	}
	makeTask(t, d, "j/c", nil) // with the directory there
	fi, err := os.Stat(shared)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if fi.Mode().Perm() != 0o700 {
			t.Errorf("mode %v: all tasks are this user's", fi.Mode())
		}
		return
	}
	if fi.Mode()&(os.ModePerm|os.ModeSticky) != 0o777|os.ModeSticky {
		t.Errorf("mode %v, want everybody's", fi.Mode())
	}
	if err := os.Lchown(shared+"/f", 65533, 65533); err != nil {
		t.Fatal(err)
	}
	if r := d.serveFile(&wire.FileRequest{Op: opRead, Path: "shared/f"}); string(r.GetData()) != "ours" {
		t.Errorf("another user's file there: %v", r)
	}
	for _, op := range []wire.FileOp{opRead, opDelete} {
		if r := d.serveFile(&wire.FileRequest{Op: op, Path: "shared/dir/stdout.txt"}); r.GetCode() != wire.FileError_FILE_ERROR_DENIED {
			t.Errorf("%v by a link: %v", op, r)
		}
	}
}

// TestFileQueue holds that requests are bounded and every one is answered.
func TestFileQueue(t *testing.T) {
	var s files
	var wg sync.WaitGroup
	hold, ran := make(chan struct{}), make(chan struct{}, 1000)
	taken := 0
	for range 1000 {
		if s.do(&wg, func() { <-hold; ran <- struct{}{} }) {
			taken++
		}
	}
	close(hold)
	wg.Wait()
	if taken < fileQueue || taken > fileQueue+fileWorkers || len(ran) != taken {
		t.Errorf("%d taken, %d ran", taken, len(ran))
	}
}

func FuzzFileRequest(f *testing.F) {
	d := testDir(f)
	task := makeTask(f, d, "j/t", nil)
	put(f, task+"/wd/f", "inside")
	put(f, task+"/g", "inside")
	put(f, filepath.Dir(d.tasks())+"/secret", "secret")
	if err := os.Symlink("../../../secret", task+"/up"); err != nil {
		f.Fatal(err)
	}
	for _, q := range []*wire.FileRequest{{Op: opList, Recursive: true, Limit: 1, Cursor: "j/t"}, {Op: opRead, Path: "j/t/up"},
		{Op: opStat, Path: "j/t/../t"}, {Op: opRead, Path: "j/t/wd/f", Offset: 1, Length: 2}} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(wire.FileRequest)
		if proto.Unmarshal(b, q) != nil || q.GetOp() == opDelete {
			return
		}
		r := d.serveFile(q)
		if strings.Contains(string(r.GetData()), "secret") {
			t.Fatalf("%v: %v", q, r)
		}
		for _, e := range r.GetEntries() {
			if e.GetPath() != q.GetPath() && !strings.HasPrefix(e.GetPath(), q.GetPath()+"/") && q.GetPath() != "" {
				t.Fatalf("%v: %v", q, r)
			}
		}
		if r.GetCode() != 0 && r.GetError() == "" {
			t.Fatalf("%v: %v", q, r)
		}
		if _, err := proto.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkFileList lists a page of a large directory.
func BenchmarkFileList(b *testing.B) {
	d := testDir(b)
	task := makeTask(b, d, "j/t", nil)
	for i := range 20000 {
		put(b, fmt.Sprintf("%s/wd/%d", task, i), "")
	}
	for b.Loop() {
		if r := d.serveFile(&wire.FileRequest{Op: opList, Path: "j/t", Recursive: true}); len(r.GetEntries()) != wire.FileListLimit {
			b.Fatal(len(r.GetEntries()))
		}
	}
}
