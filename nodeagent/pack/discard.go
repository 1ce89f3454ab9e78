package pack

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Discard removes what a crew that was killed has left in dir, below root: its
// scratch files, and the table that says whose they are. Elements that had them
// have no result. The pack itself stays. A directory that is not there is empty.
func Discard(root *os.Root, dir, id string) error {
	d, err := open(root, dir)
	if err != nil {
		return gone(err)
	}
	var errs []error
	remove := func(name string) {
		if err := root.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	remove(id + liveEnd) // first: it must not name files that are gone
	var found []string
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if isScratch(name, id) {
				found = append(found, name)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				errs = append(errs, err)
			}
			break
		}
	}
	_ = d.Close()
	for _, name := range found {
		remove(name)
	}
	return errors.Join(errs...)
}

// isScratch says whether name is one that scratchName makes for id.
func isScratch(name, id string) bool {
	rest, ok := strings.CutPrefix(name, id+".")
	slot, rest, ok2 := strings.Cut(rest, "-")
	serial, stream, ok3 := strings.Cut(rest, ".")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return ok && ok2 && ok3 && digits(slot) && digits(serial) && (stream == streamNames[0] || stream == streamNames[1])
}
