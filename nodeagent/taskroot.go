package nodeagent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// Beside the agent's directory there are, made when first needed and never
// removed by the agent:
//
//	gangway-tasks-UID  the directories of kept tasks, each its user's
//	gangway-users-UID  of an agent run by root: a directory for each user with
//	                   the log and the spool of the user's shims, and programs
//	                   that the users can't reach elsewhere
//
// Users may pass through both and list neither.
const (
	tasksName = "gangway-tasks-%d"
	usersName = "gangway-users-%d"
)

func (d Dir) beside(name string) string {
	return filepath.Join(filepath.Dir(string(d)), fmt.Sprintf(name, os.Getuid()))
}

func (d Dir) tasks() string { return d.beside(tasksName) }

func passable() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// openTasks opens the task root, if there is one. A link in its place, or
// another user's directory, is refused: its parent may be anybody's to write to.
func (d Dir) openTasks() (*os.Root, error) {
	p := d.tasks()
	fi, err := os.Lstat(p)
	if err != nil {
		return nil, err
	}
	uid, _, ok := proc.FileOwner(fi)
	if !fi.IsDir() || !ok || uid != os.Geteuid() {
		return nil, fmt.Errorf("%s is not this agent's directory: %w", p, fs.ErrPermission)
	}
	r, err := os.OpenRoot(p)
	if err != nil {
		return nil, err
	}
	if in, err := r.Stat("."); err != nil || !os.SameFile(fi, in) {
		_ = r.Close()
		return nil, fmt.Errorf("%s has been replaced: %w", p, fs.ErrPermission)
	}
	return r, nil
}

// makeTask makes the directory rel of a task in the task root, the user's, and
// returns its path. One that is there is the same task's earlier attempt.
func (d Dir) makeTask(rel string, acc *account) (string, error) {
	if err := proc.OwnDir(d.tasks(), passable()); err != nil {
		return "", fmt.Errorf("the task root: %w", err)
	}
	r, err := d.openTasks()
	if err != nil {
		return "", fmt.Errorf("the task root: %w", err)
	}
	defer r.Close()
	if err := makeShared(r); err != nil {
		return "", fmt.Errorf("the node's shared directory: %w", err)
	}
	for i := range len(rel) {
		if rel[i] == '/' {
			if err := r.Mkdir(rel[:i], passable()); err != nil && !errors.Is(err, fs.ErrExist) {
				return "", fmt.Errorf("the task's directory: %w", err)
			}
			if err := r.Chmod(rel[:i], passable()); err != nil { // a umask may have taken bits away
				return "", fmt.Errorf("the task's directory: %w", err)
			}
		}
	}
	if err := r.Mkdir(rel, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the task's directory: %w", err)
	}
	fi, err := r.Lstat(rel)
	switch {
	case err != nil:
		return "", fmt.Errorf("the task's directory: %w", err)
	case !fi.IsDir():
		return "", fmt.Errorf("the task's directory %s is there already and is no directory", rel)
	}
	uid, _, _ := proc.FileOwner(fi)
	want := os.Geteuid()
	if acc != nil {
		want = acc.cred.UID
		if uid == os.Geteuid() {
			if err := r.Lchown(rel, acc.cred.UID, acc.cred.GID); err != nil {
				return "", fmt.Errorf("the task's directory: %w", err)
			}
			uid = want
		}
	}
	if uid != want {
		return "", fmt.Errorf("the task's directory %s belongs to user %d, the task runs as user %d; remove it", rel, uid, want)
	}
	return filepath.Join(d.tasks(), filepath.FromSlash(rel)), nil
}

// makeShared makes the directory that all tasks of the node share, whoever's
// they are. As in /tmp, users can't move each other's files there. It stays for
// as long as the task root does.
func makeShared(r *os.Root) error {
	if err := r.Mkdir(wire.SharedDir, 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if fi, err := r.Lstat(wire.SharedDir); err != nil || !fi.IsDir() {
			return errors.Join(err, fmt.Errorf("%s in the task root is no directory: remove it", wire.SharedDir))
		}
	}
	if os.Geteuid() != 0 {
		return nil // all tasks are one user's
	}
	return r.Chmod(wire.SharedDir, 0o777|os.ModeSticky)
}

// validTaskDir holds what becomes a path to names that stay below the root.
func validTaskDir(rel string) bool {
	return rel == "" || len(rel) <= 512 && fs.ValidPath(rel) && rel != "." && path.Clean(rel) == rel && filepath.IsLocal(filepath.FromSlash(rel))
}

// userDirs are a user's log and spool.
type userDirs struct{ log, spool string }

// makeUser makes the directories of a user other than the agent's. What the
// user may write to lies in a directory that the user may not change.
func (d Dir) makeUser(acc *account) (userDirs, error) {
	users := d.beside(usersName)
	home := filepath.Join(users, strconv.Itoa(acc.cred.UID))
	for _, p := range []string{users, home} {
		if err := proc.OwnDir(p, 0o711); err != nil {
			return userDirs{}, fmt.Errorf("the user's directory: %w", err)
		}
	}
	u := userDirs{log: filepath.Join(home, "log"), spool: filepath.Join(home, "spool")}
	f, err := os.OpenFile(u.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return userDirs{}, fmt.Errorf("the user's directory: %w", err)
	}
	_ = f.Close()
	if err := os.Mkdir(u.spool, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return userDirs{}, fmt.Errorf("the user's directory: %w", err)
	}
	for _, p := range []string{u.log, u.spool} {
		if err := os.Lchown(p, acc.cred.UID, acc.cred.GID); err != nil {
			return userDirs{}, fmt.Errorf("the user's directory: %w", err)
		}
	}
	return u, nil
}

// forUsers is userProgram's answer, asked for once.
func (a *agent) forUsers() (string, error) {
	if a.shared == "" {
		p, err := a.dir.userProgram(a.cfg.Executable)
		if err != nil {
			return "", err
		}
		a.shared = p
	}
	return a.shared, nil
}

// userProgram is the agent's program where other users can start it: itself,
// or a copy when it lies where only root can go.
func (d Dir) userProgram(exe string) (string, error) {
	if anybodys(exe) {
		return exe, nil
	}
	bin := filepath.Join(d.beside(usersName), "bin")
	for _, p := range []string{filepath.Dir(bin), bin} {
		if err := proc.OwnDir(p, 0o711); err != nil {
			return "", fmt.Errorf("the program for other users: %w", err)
		}
	}
	in, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("the program for other users: %w", err)
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return "", fmt.Errorf("the program for other users: %w", err)
	}
	p := filepath.Join(bin, "gangway-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if anybodys(p) {
		return p, nil
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("the program for other users: %w", err)
	}
	out, err := os.CreateTemp(bin, "new-")
	if err != nil {
		return "", diskHint(fmt.Errorf("the program for other users: %w", err), bin)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o755), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), p)
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return "", diskHint(fmt.Errorf("the program for other users: %w", err), bin)
	}
	return p, nil
}

// anybodys says whether every user may read and start the program at p.
func anybodys(p string) bool {
	fi, err := os.Stat(p)
	if err != nil || fi.Mode()&0o005 != 0o005 {
		return false
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return false
	}
	for _, q := range []string{p, real} {
		for d := filepath.Dir(q); ; d = filepath.Dir(d) {
			if fi, err := os.Stat(d); err != nil || fi.Mode()&0o001 == 0 {
				return false
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	return true
}
