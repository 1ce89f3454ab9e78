package nodeagent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// Task directories are deleted some time after their task's end. For each that
// has ended there is a marker in the agent's own directory: what a task's user can write to must not decide what the agent
// deletes. A marker's time of modification is when its directory expires, so
// that a search opens only those that do; its text is the directory.

const (
	// expireEvery is how often expired directories are looked for.
	expireEvery = time.Hour
	// expiredPrefix begins the names, in the task root, of directories that are
	// being deleted. No job's folder has such a name.
	expiredPrefix = ".expired-"
	// maxMarker is the longest marker in bytes; see validTaskDir.
	maxMarker = 512
)

// retentionOf is how long the assignment's directory is kept; 0: for ever.
func retentionOf(as *wire.Assignment) time.Duration {
	return time.Duration(min(as.GetRetentionMs(), uint64(1<<63-1)/uint64(time.Millisecond))) * time.Millisecond
}

func (a *agent) now() time.Time {
	if a.cfg.Now == nil {
		return time.Now()
	}
	return a.cfg.Now()
}

func (d Dir) expiry() string { return filepath.Join(string(d), "expiry") }

func expiryKey(rel string) string {
	sum := sha256.Sum256([]byte(rel))
	return hex.EncodeToString(sum[:16])
}

// retain notes when the directory of a shim that has ended expires. It may be
// called from any goroutine, while the shim is registered still.
func (a *agent) retain(e entry) {
	if e.TaskDir == "" {
		return
	}
	if err := a.dir.expireAt(e.TaskDir, e.Retention, a.now()); err != nil {
		a.cfg.Log.Error("the task's directory will not be deleted by itself", "dir", e.TaskDir, "err", err)
	}
}

// expireAt writes the marker of a directory whose task has ended at now.
func (d Dir) expireAt(rel string, keep time.Duration, now time.Time) error {
	p := filepath.Join(d.expiry(), expiryKey(rel))
	if keep <= 0 { // an earlier attempt may have left one
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := proc.PrivateDir(d.expiry()); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.expiry(), "new-")
	if err != nil {
		return diskHint(err, d.expiry())
	}
	_, err = f.WriteString(rel)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Chtimes(f.Name(), now, now.Add(keep))
	}
	if err == nil {
		err = os.Rename(f.Name(), p)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return diskHint(err, d.expiry())
	}
	return nil
}

// dropExpired starts a search for expired directories when one is due.
func (a *agent) dropExpired() {
	now := a.now()
	if a.expiring || now.Before(a.expireNext) {
		return
	}
	a.expiring, a.expireNext = true, now.Add(expireEvery)
	a.wg.Go(func() {
		err := a.dir.clearExpired() // of an agent that was killed meanwhile
		found, ferr := a.dir.expired(now)
		if err = errors.Join(err, ferr); err != nil {
			a.cfg.Log.Warn("looking for expired task directories", "err", err)
		}
		a.post(func(a *agent) { a.moveExpired(found) })
	})
}

// expired lists the markers of directories that have expired by now.
func (d Dir) expired(now time.Time) ([]string, error) {
	entries, err := os.ReadDir(d.expiry())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		p := filepath.Join(d.expiry(), e.Name())
		fi, err := e.Info()
		switch {
		case err != nil: // gone
		case strings.HasPrefix(e.Name(), "new-"):
			if now.Sub(fi.ModTime()) > expireEvery {
				_ = os.Remove(p) // half written by an agent that died
			}
		case !fi.ModTime().After(now):
			out = append(out, p)
		}
	}
	return out, err
}

// moveBatch is how many directories are moved away at once: moving is quick, but
// the agent does nothing else meanwhile.
const moveBatch = 64

// moveExpired takes expired directories out of their tasks' way, then deletes
// them beside the agent's other work. No shim can start meanwhile: starting
// and moving are the same goroutine's.
func (a *agent) moveExpired(markers []string) {
	now := a.now()
	batch := markers[:min(len(markers), moveBatch)]
	for _, p := range batch {
		if err := a.moveOne(p, now); err != nil {
			a.cfg.Log.Warn("an expired task directory stays", "err", err)
		}
	}
	rest := markers[len(batch):]
	if len(batch) == 0 {
		a.expiring = false
		return
	}
	a.wg.Go(func() {
		if err := a.dir.clearExpired(); err != nil {
			a.cfg.Log.Warn("deleting expired task directories", "err", err)
		}
		a.post(func(a *agent) { a.moveExpired(rest) })
	})
}

func (a *agent) moveOne(marker string, now time.Time) error {
	fi, err := os.Lstat(marker)
	if err != nil || fi.ModTime().After(now) || !fi.Mode().IsRegular() || fi.Size() > maxMarker {
		return err // the task ran again since
	}
	b, err := os.ReadFile(marker)
	if err != nil {
		return err
	}
	rel := string(b)
	if rel == "" || !validTaskDir(rel) || filepath.Base(marker) != expiryKey(rel) {
		return errors.Join(fmt.Errorf("marker %s names no task's directory", marker), os.Remove(marker))
	}
	for _, sh := range a.shims {
		if in := sh.e.TaskDir; sh.cleared.IsZero() && (in == rel || strings.HasPrefix(in, rel+"/")) {
			return nil // its end writes a new marker
		}
	}
	r, err := a.dir.openTasks()
	if errors.Is(err, fs.ErrNotExist) {
		return os.Remove(marker)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if os.Geteuid() != 0 { // which needs the right to write to what it moves
		if fi, err := r.Lstat(rel); err == nil && fi.IsDir() {
			_ = r.Chmod(rel, 0o700)
		}
	}
	if err := r.Rename(rel, expiredPrefix+expiryKey(rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	removeEmpty(r, path.Dir(rel)) // as far as no other task is there
	a.tidy(path.Dir(rel))
	return os.Remove(marker)
}

// clearExpired deletes what moveExpired has moved.
func (d Dir) clearExpired() error {
	r, err := d.openTasks()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := r.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, n := range names {
		if strings.HasPrefix(n, expiredPrefix) {
			err = errors.Join(err, removeAll(r, n))
		}
	}
	return err
}

// removeAll removes also what a program has left in directories that not even
// their owner may write to.
func removeAll(r *os.Root, rel string) error {
	err := r.RemoveAll(rel)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	_ = fs.WalkDir(r.FS(), rel, func(p string, e fs.DirEntry, err error) error {
		if e == nil || !e.IsDir() {
			return nil
		}
		if err != nil {
			return fs.SkipDir
		}
		_ = r.Chmod(p, 0o700)
		return nil
	})
	return r.RemoveAll(rel)
}
