package probe

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// memFS is a recorded tree held in memory. Unlike the file systems of the
// standard library it follows symbolic links as the kernel does, also those
// that leave the part it was narrowed to: /sys/class links to /sys/devices.
type memFS struct{ root, base *memNode }

type memNode struct {
	name   string
	parent *memNode
	kids   map[string]*memNode // of directories
	data   []byte
	target string // of symbolic links
	mode   fs.FileMode
}

// maxHops is the kernel's limit of symbolic links in one path.
const maxHops = 40

func newMemFS() *memFS {
	root := &memNode{name: ".", mode: fs.ModeDir | 0o755, kids: map[string]*memNode{}}
	root.parent = root
	return &memFS{root, root}
}

// add puts a node at a path, with the directories above it. What stood there
// is replaced, but a directory is never lost to a file. ok=false: it can't be
// there.
func (m *memFS) add(name string, n memNode) bool {
	name = strings.Trim(path.Clean("/"+name), "/")
	at := m.base
	if name == "" {
		return n.mode.IsDir()
	}
	if !fs.ValidPath(name) {
		return false
	}
	parts := strings.Split(name, "/")
	for _, p := range parts[:len(parts)-1] {
		next := at.kids[p]
		if next == nil {
			next = &memNode{name: p, parent: at, mode: fs.ModeDir | 0o755, kids: map[string]*memNode{}}
			at.kids[p] = next
		}
		if !next.mode.IsDir() {
			return false
		}
		at = next
	}
	last := parts[len(parts)-1]
	if old := at.kids[last]; old != nil && old.mode.IsDir() {
		return n.mode.IsDir()
	}
	n.name, n.parent = last, at
	if n.mode.IsDir() {
		n.kids = map[string]*memNode{}
	}
	at.kids[last] = &n
	return true
}

func (m *memFS) addFile(name string, data []byte) bool {
	return m.add(name, memNode{data: data, mode: 0o444})
}

func (m *memFS) addLink(name, target string) bool {
	return m.add(name, memNode{target: target, mode: fs.ModeSymlink | 0o777})
}

// lookup walks to a path; follow tells whether a link at its end is followed.
func (m *memFS) lookup(op, name string, follow bool) (*memNode, error) {
	fail := func(err error) (*memNode, error) {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at, rest, hops := m.base, name, 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			at = at.parent
			continue
		}
		if !at.mode.IsDir() {
			return fail(syscall.ENOTDIR)
		}
		next := at.kids[part]
		if next == nil {
			return fail(fs.ErrNotExist)
		}
		if next.mode&fs.ModeSymlink == 0 || rest == "" && !follow {
			at = next
			continue
		}
		if hops++; hops > maxHops {
			return fail(errors.New("too many levels of symbolic links"))
		}
		if strings.HasPrefix(next.target, "/") {
			at = m.root
		}
		if rest == "" {
			rest = next.target
		} else {
			rest = next.target + "/" + rest
		}
	}
	return at, nil
}

func (m *memFS) Open(name string) (fs.File, error) {
	n, err := m.lookup("open", name, true)
	if err != nil {
		return nil, err
	}
	return &memFile{node: n, path: name}, nil
}

func (m *memFS) ReadFile(name string) ([]byte, error) {
	n, err := m.lookup("read", name, true)
	switch {
	case err != nil:
		return nil, err
	case n.mode.IsDir():
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.EISDIR}
	}
	return slices.Clone(n.data), nil
}

func (m *memFS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := m.lookup("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	return n.entries(), nil
}

func (m *memFS) Stat(name string) (fs.FileInfo, error) {
	n, err := m.lookup("stat", name, true)
	if err != nil {
		return nil, err
	}
	return memInfo{n}, nil
}

func (m *memFS) Lstat(name string) (fs.FileInfo, error) {
	n, err := m.lookup("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return memInfo{n}, nil
}

func (m *memFS) ReadLink(name string) (string, error) {
	n, err := m.lookup("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.mode&fs.ModeSymlink == 0 {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.target, nil
}

// Sub narrows to a directory of the same tree.
func (m *memFS) Sub(dir string) (fs.FS, error) {
	n, err := m.lookup("sub", dir, true)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, &fs.PathError{Op: "sub", Path: dir, Err: syscall.ENOTDIR}
	}
	return &memFS{m.root, n}, nil
}

func (n *memNode) entries() []fs.DirEntry {
	out := make([]fs.DirEntry, 0, len(n.kids))
	for _, k := range n.kids {
		out = append(out, fs.FileInfoToDirEntry(memInfo{k}))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

type memInfo struct{ *memNode }

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return int64(len(i.data) + len(i.target)) }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

// memFile is an open file or directory.
type memFile struct {
	node    *memNode
	path    string
	used    int
	listing []fs.DirEntry
	listed  bool
}

func (f *memFile) Stat() (fs.FileInfo, error) { return memInfo{f.node}, nil }
func (f *memFile) Close() error               { return nil }

func (f *memFile) Read(b []byte) (int, error) {
	if f.node.mode.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: syscall.EISDIR}
	}
	if f.used >= len(f.node.data) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[f.used:])
	f.used += n
	return n, nil
}

func (f *memFile) ReadDir(count int) ([]fs.DirEntry, error) {
	if !f.node.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: f.path, Err: syscall.ENOTDIR}
	}
	if !f.listed {
		f.listing, f.listed = f.node.entries(), true
	}
	if count <= 0 {
		out := f.listing
		f.listing = nil
		return out, nil
	}
	if len(f.listing) == 0 {
		return nil, io.EOF
	}
	count = min(count, len(f.listing))
	out := f.listing[:count]
	f.listing = f.listing[count:]
	return out, nil
}
