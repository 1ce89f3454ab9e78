package auth

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// private accepts every file: modes say nothing here, and the directory inherits
// the rights of the user's profile.
func private(string, fs.FileInfo) error { return nil }

// tryLock takes the file's lock, which goes with the handle; false if another has
// it.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// syncDir does nothing: directories can't be flushed here.
func syncDir(string) error { return nil }
