package probe

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// recorder is a file system that keeps what is read through it: contents, links
// and the existence of directories, at the places that the links lead to.
type recorder struct {
	src        fs.ReadLinkFS
	out        *memFS
	mount      string // sys or proc: where it goes in out
	scrub      *scrubber
	unreadable map[string]string // by mount and name: why
	links      map[string]string // "" : no link
}

// resolve follows the links in name, as far as there are any, and keeps them.
// last tells whether one at its end is followed.
func (r *recorder) resolve(name string, last bool) string {
	at, rest := ".", name
	for hops := 0; rest != "" && hops < maxHops; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, part)
		if part == "" || part == "." || part == ".." || rest == "" && !last {
			at = next
			continue
		}
		target, known := r.links[next]
		if !known {
			target, _ = r.src.ReadLink(next)
			// The process's number in /proc/self is nobody's concern.
			if path.IsAbs(target) || r.mount == "proc" {
				target = ""
			}
			r.links[next] = target
			if target != "" {
				r.out.addLink(r.place(next), r.scrub.text(target))
			}
		}
		if target == "" {
			at = next
			continue
		}
		hops++
		rest = path.Join(target, rest)
	}
	return path.Join(at, rest)
}

// place is where a file goes in the record.
func (r *recorder) place(name string) string { return r.mount + "/" + r.scrub.text(name) }

func (r *recorder) ReadFile(name string) ([]byte, error) {
	b, err := fs.ReadFile(r.src, name)
	if !recordable(r.mount, name) {
		return b, err
	}
	switch {
	case err == nil:
		if kept, ok := r.scrub.file(r.mount, name, b); ok {
			r.out.addFile(r.place(r.resolve(name, true)), kept)
		}
	case !errors.Is(err, fs.ErrNotExist):
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		r.unreadable[r.place(name)] = err.Error()
	}
	return b, err
}

func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(r.src, name)
	if err != nil || !recordable(r.mount, name+"/") {
		return list, err
	}
	dir := r.resolve(name, true)
	r.out.add(r.place(dir), memNode{mode: fs.ModeDir | 0o755})
	for _, e := range list {
		// Files are kept when they are read.
		full := path.Join(dir, e.Name())
		switch {
		case !recordable(r.mount, full+"/"):
		case e.IsDir():
			r.out.add(r.place(full), memNode{mode: fs.ModeDir | 0o755})
		case e.Type()&fs.ModeSymlink != 0:
			r.resolve(full, true)
		}
	}
	return list, nil
}

func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	st, err := fs.Stat(r.src, name)
	if err != nil || !recordable(r.mount, name) {
		return st, err
	}
	at := r.place(r.resolve(name, true))
	if st.IsDir() {
		r.out.add(at, memNode{mode: fs.ModeDir | 0o755})
	} else if _, err := r.out.Lstat(at); err != nil {
		r.out.addFile(at, nil)
	}
	return st, nil
}

func (r *recorder) Lstat(name string) (fs.FileInfo, error) { return r.src.Lstat(name) }

func (r *recorder) ReadLink(name string) (string, error) {
	link, err := r.src.ReadLink(name)
	if err == nil && recordable(r.mount, name) {
		r.out.addLink(r.place(r.resolve(name, false)), r.scrub.text(link))
	}
	return link, err
}

// Open gives files as a whole, so that what is read is known.
func (r *recorder) Open(name string) (fs.File, error) {
	st, err := r.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		list, err := r.ReadDir(name)
		if err != nil {
			return nil, err
		}
		dir := &memNode{name: path.Base(name), mode: fs.ModeDir | 0o755}
		return &memFile{node: dir, path: name, listing: list, listed: true}, nil
	}
	b, err := r.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &memFile{node: &memNode{name: path.Base(name), data: b, mode: 0o444}, path: name}, nil
}

// unreadableFS fails to read the files that could not be read when they were
// recorded.
type unreadableFS struct {
	fs.FS
	mount string
	why   map[string]string
}

func (u unreadableFS) ReadFile(name string) ([]byte, error) {
	if why, ok := u.why[u.mount+"/"+name]; ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New(why)}
	}
	return fs.ReadFile(u.FS, name)
}

func (u unreadableFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(u.FS, name) }
func (u unreadableFS) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(u.FS, name) }
func (u unreadableFS) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(u.FS, name) }
func (u unreadableFS) ReadLink(name string) (string, error)       { return fs.ReadLink(u.FS, name) }
