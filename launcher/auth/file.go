package auth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxFile  = 64 << 20         // bytes; a keyring of 100,000 tokens is 30 MB
	lockWait = 10 * time.Second // for another process to end its change
	lockPoll = 5 * time.Millisecond
	lockName = "auth.lock"
)

// file is a document that several processes read and change. Values are shared by
// all readers, so nobody changes one: change works on a copy of its own.
type file[T any] struct {
	path   string
	decode func([]byte) (*T, error)
	encode func(*T) ([]byte, error)
	// required files are made once; without one there is an error, not a zero
	// value, as what it forbids would be allowed.
	required bool

	mu  sync.Mutex // held while the file is read
	now atomic.Pointer[version[T]]
}

// version is the file's value as of info, nil if there is no file.
type version[T any] struct {
	info  fs.FileInfo
	value *T
}

// get returns the value as of now: one stat, and a read if the file is another.
func (f *file[T]) get() (*T, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if v := f.now.Load(); v != nil && same(v.info, info) {
		return v.value, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.load()
}

// same tells whether the file is the one that was read. Every change is a new file,
// so the inode alone would do but for its being used again.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// load reads the file; the caller has f.mu.
func (f *file[T]) load() (*T, error) {
	data, info, err := readPrivate(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.required:
		return nil, fmt.Errorf("%s is missing: restore it from a backup of the data directory", f.path)
	case errors.Is(err, fs.ErrNotExist):
		f.now.Store(&version[T]{value: new(T)})
		return f.now.Load().value, nil
	case err != nil:
		return nil, err
	}
	value, err := f.decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s can't be used: %w; restore it from a backup", f.path, err)
	}
	f.now.Store(&version[T]{info: info, value: value})
	return value, nil
}

// change lets do edit the value and makes the result last, or, after an error of
// do, nothing.
func (f *file[T]) change(do func(*T) error) error {
	release, err := lockDir(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer release()
	f.mu.Lock()
	defer f.mu.Unlock()
	var value *T
	data, _, err := readPrivate(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !f.required:
		value = new(T)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing: restore it from a backup of the data directory", f.path)
	case err != nil:
		return err
	default:
		if value, err = f.decode(data); err != nil {
			return fmt.Errorf("%s can't be used: %w; restore it from a backup", f.path, err)
		}
	}
	if err := do(value); err != nil {
		return err
	}
	if data, err = f.encode(value); err != nil {
		return err
	}
	// What could not be read again would lock everybody out.
	if _, err := f.decode(data); err != nil {
		return fmt.Errorf("refused to write %s: %w", f.path, err)
	}
	if err := writePrivate(f.path, data); err != nil {
		return err
	}
	_, err = f.load()
	return err
}

// openDir makes the directory, or returns an error if others can get into it.
func openDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return private(dir, info)
}

// lockDir waits until no other process, and no other part of this one, changes
// dir's files.
func lockDir(dir string) (release func(), err error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		ok, err := tryLock(f)
		switch {
		case ok:
			return func() { f.Close() }, nil
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("can't lock %s: %w; the data directory must be on a local disk", path, err)
		case time.Now().After(end):
			f.Close()
			return nil, fmt.Errorf("%s has been locked for %v: another gangway process hangs there", path, lockWait)
		}
	}
}

// readPrivate returns the file and what it was when read.
func readPrivate(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a file", path)
	}
	if err := private(path, info); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxFile>>20)
	}
	return data, info, err
}

// writePrivate puts data in path's place: after a crash at any moment there is the
// old file or the new one. The caller has the directory's lock.
func writePrivate(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left over from a crash
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("can't write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}
