package proc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SendFiles writes msg, which must not be empty, and with its first byte the
// files. The receiver gets descriptors of its own; the caller closes files.
func SendFiles(conn *net.UnixConn, msg []byte, files ...*os.File) error {
	if len(msg) == 0 {
		return errors.New("sending files: they need a message to go with")
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(msg, oob, nil)
	if err == nil && n < len(msg) {
		_, err = conn.Write(msg[n:])
	}
	if err != nil {
		return fmt.Errorf("sending %d files: %w", len(files), err)
	}
	return nil
}

// RecvFiles reads up to len(buf) bytes and the files, at most limit, that came
// with them. Like Read it may return less than was sent; files come with the
// first byte of their message and are lost when that is read otherwise. At the
// end of the stream it returns io.EOF.
func RecvFiles(conn *net.UnixConn, buf []byte, limit int) (int, []*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*limit))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return n, nil, fmt.Errorf("receiving files: %w", err)
	}
	if n == 0 && oobn == 0 {
		return 0, nil, io.EOF
	}
	var files []*os.File
	fail := func(err error) (int, []*os.File, error) {
		for _, f := range files {
			_ = f.Close()
		}
		return n, nil, fmt.Errorf("receiving files: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return fail(err)
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fail(err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received-"+strconv.Itoa(fd)))
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return fail(fmt.Errorf("more than %d came, or this process has no descriptor left", limit))
	}
	return n, files, nil
}

// SocketPair returns a connected pair of unix stream sockets: one to use, one
// to hand to a child.
func SocketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socketpair")
	mine := os.NewFile(uintptr(fds[0]), "socketpair")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}

// PeerCred returns who was at the other end of conn when it was connected.
func PeerCred(conn *net.UnixConn) (uid, gid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	var u *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { u, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(cerr, err); err != nil {
		return 0, 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	return int(u.Uid), int(u.Gid), int(u.Pid), nil
}

// Pipe returns a pipe of at least size bytes where the system allows that many;
// 0 leaves its default of 64 KiB.
func Pipe(size int) (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	if size > 0 {
		// Users have a common limit on pipe memory: a smaller pipe works too.
		if raw, err := w.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
		}
	}
	return r, w, nil
}

// Lock creates the file path where missing and locks it until Close, which
// removes it. Held by another: an error that wraps ErrLocked and names the
// holder. A file system that can't lock: an error that says so.
func Lock(path string) (io.Closer, error) { return lock(path, unix.Flock) }

type lockFile struct {
	path string
	f    *os.File
}

func lock(path string, flock func(fd, how int) error) (io.Closer, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock file: %w", err)
		}
		err = retryEINTR(func() error { return flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err != nil {
			defer f.Close()
			switch {
			case errors.Is(err, unix.EWOULDBLOCK):
				who := make([]byte, 16)
				n, _ := f.ReadAt(who, 0)
				if pid, err := strconv.Atoi(strings.TrimSpace(string(who[:n]))); err == nil {
					return nil, fmt.Errorf("%s: %w, pid %d", path, ErrLocked, pid)
				}
				return nil, fmt.Errorf("%s: %w", path, ErrLocked)
			case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
				return nil, fmt.Errorf("%s: its file system can't lock files (%w): put it on a local one with --tmpdir", path, err)
			}
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		// The holder before us removes the file: what we locked may be gone.
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			if err := f.Truncate(0); err == nil {
				_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
			}
			return &lockFile{path, f}, nil
		}
		_ = f.Close()
	}
}

// Close removes the file while it is still locked, then unlocks.
func (l *lockFile) Close() error {
	return errors.Join(os.Remove(l.path), l.f.Close())
}

// PrivateDir makes path a directory of mode 0700 that belongs to this user, or
// finds that it is one. Its parent must exist. A symbolic link, a file and
// another user's directory are refused.
func PrivateDir(path string) error { return OwnDir(path, 0o700) }

// OwnDir is PrivateDir with other permissions.
func OwnDir(path string, mode os.FileMode) error {
	const hint = "remove it, or give --tmpdir another local directory"
	err := os.Mkdir(path, mode)
	made := err == nil
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("private directory: %w: give --tmpdir a local directory that is there and can be written", err)
	}
	// What is checked is what is opened: no one can swap it in between.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link, not a directory: %s", path, hint)
	case errors.Is(err, unix.ENOTDIR):
		what := "a file"
		if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSymlink != 0 {
			what = "a symbolic link"
		}
		return fmt.Errorf("%s is %s, not a directory: %s", path, what, hint)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s can't be opened by this user (%w): %s", path, err, hint)
	case err != nil:
		return fmt.Errorf("private directory %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("private directory %s: %w", path, err)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, not to user %d: %s", path, st.Uid, uid, hint)
	}
	if made || st.Mode&0o777 != uint32(mode) { // a umask may have taken bits away
		if err := unix.Fchmod(fd, uint32(mode)); err != nil {
			return fmt.Errorf("private directory %s: %w", path, err)
		}
	}
	return nil
}

// FileOwner returns the user that a file belongs to and the time of its inode's
// last change. ok is false when fi does not say.
func FileOwner(fi os.FileInfo) (uid int, changed time.Time, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, time.Time{}, false
	}
	return int(st.Uid), time.Unix(st.Ctim.Unix()), true
}
