package proc

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// segmentList is the file in a job's directory for shared memory that names
// segments which a library keeps beside the directory.
const segmentList = "segments"

// segmentPrefix is what a listed prefix looks like: no other file of the user's
// may be removed for what a list says.
var segmentPrefix = regexp.MustCompile(`^mpich_(shm|vci)_[0-9a-f]{1,8}_$`)

const maxSegmentList = 4 << 10 // bytes

// NoteSegments writes down the prefixes of the names that segments of the job
// whose directory for shared memory is dir will have in SharedMemoryRoot. A number
// follows a prefix. RemoveSharedMemory removes them, whichever process calls it.
func NoteSegments(dir string, prefixes []string) error {
	f, err := os.OpenFile(filepath.Join(dir, segmentList), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(prefixes, "\n") + "\n")
	return errors.Join(err, f.Close())
}

// RemoveSharedMemory removes a job's directory for shared memory and the segments
// that were noted there, if they are the owner's of the directory. No process of
// the job may be left. A directory that is not there is no error.
func RemoveSharedMemory(dir string) error {
	root := filepath.Dir(dir)
	var errs []error
	for _, name := range notedSegments(dir, root) {
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// notedSegments are the files in root that dir's list names.
func notedSegments(dir, root string) []string {
	of, err := os.Lstat(dir)
	if err != nil || !of.IsDir() {
		return nil
	}
	list := filepath.Join(dir, segmentList)
	if fi, err := os.Lstat(list); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxSegmentList {
		return nil
	}
	f, err := os.Open(list)
	if err != nil {
		return nil
	}
	defer f.Close()
	var prefixes []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if segmentPrefix.MatchString(s.Text()) {
			prefixes = append(prefixes, s.Text())
		}
	}
	if len(prefixes) == 0 {
		return nil
	}
	files, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, d := range files {
		for _, p := range prefixes {
			rest, ok := strings.CutPrefix(d.Name(), p)
			if !ok || rest == "" || strings.Trim(rest, "0123456789") != "" || !d.Type().IsRegular() {
				continue
			}
			if fi, err := d.Info(); err == nil && sameOwner(fi, of) {
				out = append(out, d.Name())
			}
		}
	}
	return out
}

func sameOwner(a, b os.FileInfo) bool {
	x, _, ok := FileOwner(a)
	y, _, also := FileOwner(b)
	return ok && also && x == y
}
