package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"
)

// ErrInUse reports that another launcher uses the data directory.
var ErrInUse = errors.New("the data directory is in use")

// prepareDir makes the directory if it is not there, and returns its absolute
// path.
func prepareDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory %s: %w", dir, err)
	}
	err = os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		// Without this a loss of power could take the whole directory away.
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return "", fmt.Errorf("data directory %s: %w", dir, err)
		}
	case !errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("data directory %s can't be made: %w; make the directory above it, or name another place", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("data directory %s: %w", dir, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("data directory %s is not a directory: name another place", dir)
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return "", fmt.Errorf("data directory %s is open to others (mode %04o): chmod 700 it, or name another place", dir, perm)
	}
	// Where there is no such file, a network file system shows when locking
	// fails, or not at all.
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", fmt.Errorf("data directory %s: %w", dir, err)
		}
		if kind := fileSystem(mounts, real); network(kind) {
			return "", fmt.Errorf("data directory %s is on a network file system (%s), where SQLite's locks and shared memory can't be relied on: name a place on a local disk", dir, kind)
		}
	}
	return dir, nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // has no such call
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prepareFile makes a file that only its owner can read. SQLite would make it
// as the umask says, and gives -wal and -shm the mode of the database.
//
// A file that is there is not opened: closing it again would drop the locks
// that this process has on it.
func prepareFile(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		if err := errors.Join(f.Close(), syncDir(filepath.Dir(file))); err != nil {
			return fmt.Errorf("making %s: %w", file, err)
		}
		return nil
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("making %s: %w", file, err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		return fmt.Errorf("keeping %s from others: %w", file, err)
	}
	return nil
}

// complete refuses a log without its database, which SQLite would throw away.
func complete(file string) error {
	_, err := os.Stat(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info, err := os.Stat(file + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%s is missing but its log %s-wal is there: %w: put both back from a backup", file, file, ErrDamaged)
	}
	return nil
}

// holder keeps other launchers away from a data directory, by a lock that ends
// with this process, however it ends. It is SQLite's lock on an empty database
// of its own: the data's own file stays free for tools that read or back up a
// running launcher's data.
type holder struct {
	dir  string
	db   *sql.DB
	conn *sql.Conn
}

// hold takes the lock or says who has it.
func hold(dir string) (*holder, error) {
	file := filepath.Join(dir, lockFile)
	if err := prepareFile(file); err != nil {
		return nil, err
	}
	db, err := connect(file, 1, "busy_timeout(0)", "journal_mode(MEMORY)")
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", file, err)
	}
	ctx := context.Background()
	h := &holder{dir: dir, db: db}
	if h.conn, err = db.Conn(ctx); err == nil {
		_, err = h.conn.ExecContext(ctx, "BEGIN EXCLUSIVE")
	}
	if err != nil {
		if h.conn != nil {
			_ = h.conn.Close() // the lock was not taken
		}
		_ = db.Close()
		if c := code(err); c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED {
			return nil, fmt.Errorf("%s uses %s: stop it, or name another directory: %w", owner(dir), dir, ErrInUse)
		}
		return nil, fmt.Errorf("locking %s: %w; a file system that can't lock, such as some network ones, can't hold a launcher's data", file, err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	// Only words for people: the lock is what counts.
	text := fmt.Sprintf("%d %s\n", os.Getpid(), host)
	if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte(text), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", filepath.Join(dir, ownerFile), err), h.release())
	}
	return h, nil
}

func (h *holder) release() error {
	err := os.Remove(filepath.Join(h.dir, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, h.conn.Close(), h.db.Close())
}

// owner names the launcher that holds the lock, as well as its file tells.
func owner(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil {
		return "another launcher"
	}
	return parseOwner(text)
}

func parseOwner(text []byte) string {
	pid, host, ok := bytes.Cut(bytes.TrimSpace(text), []byte(" "))
	if n, err := strconv.Atoi(string(pid)); !ok || err != nil || n <= 0 || len(host) > 255 {
		return "another launcher"
	}
	name := strconv.QuoteToASCII(string(host)) // whatever is in the file
	return fmt.Sprintf("another launcher (pid %s on host %s)", pid, name[1:len(name)-1])
}

// network reports whether a file system keeps its files on other machines, or
// may. FUSE file systems of an unknown kind are taken for local.
func network(kind string) bool {
	return slices.Contains([]string{"nfs", "nfs4", "lustre", "cifs", "smb3", "smbfs", "gpfs", "beegfs", "ceph", "afs",
		"9p", "glusterfs", "pvfs2", "orangefs", "panfs", "wekafs", "ncpfs", "coda",
		"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.juicefs", "fuse.beegfs"}, kind)
}

// fileSystem finds the kind of file system that an absolute path is on, in the
// format of proc(5)'s /proc/pid/mountinfo; "" if the text does not tell. Of
// mounts on one place, the last counts.
func fileSystem(mountinfo []byte, path string) string {
	best, kind := -1, ""
	for line := range strings.Lines(string(mountinfo)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		point := unescape(left[4])
		if within(path, point) && len(point) >= best {
			best, kind = len(point), right[0]
		}
	}
	return kind
}

func within(path, point string) bool {
	return point == "/" || path == point || strings.HasPrefix(path, point+"/")
}

// unescape reads mountinfo's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
