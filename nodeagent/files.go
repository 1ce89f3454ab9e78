package nodeagent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// The file service gives launchers what is below the task root. It runs with
// the agent's rights on directories that belong to the tasks' users, so it goes
// by descriptors alone (os.Root): a link leads nowhere but inside. Within a
// directory that is not the agent's own, which is a task's of another user, the
// root is that directory: a user's link reaches no other user's files, and a
// hard link to another's file is not read.

const (
	fileWorkers = 8
	fileQueue   = 64 // requests that wait
	// listBytes bounds a listing's reply by its paths' length.
	listBytes = 4 << 20
	// listDepth is how deep a recursive listing goes.
	listDepth = 64
)

// files runs the requests, a few at a time, beside the agent's own work.
type files struct {
	mu     sync.Mutex
	active int
	queue  []func()
}

// busy says whether something is asked for that has no answer yet.
func (s *files) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active > 0 || len(s.queue) > 0
}

// do runs f soon; it reports false when too much waits already.
func (s *files) do(wg *sync.WaitGroup, f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= fileQueue {
		return false
	}
	s.queue = append(s.queue, f)
	if s.active == fileWorkers {
		return true
	}
	s.active++
	wg.Go(func() {
		for {
			s.mu.Lock()
			if len(s.queue) == 0 {
				s.active--
				s.mu.Unlock()
				return
			}
			next := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			next()
		}
	})
	return true
}

// fileRequest answers s, later.
func (a *agent) fileRequest(s *session, q *wire.FileRequest) {
	answer := func(r *wire.FileReply) {
		r.Seq = q.GetSeq()
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_FileReply{FileReply: r}})
	}
	ok := a.files.do(&a.wg, func() {
		select {
		case <-a.done: // nobody is left to answer
		default:
			r := a.dir.serveFile(q)
			if deleted(q, r) {
				a.post(func(a *agent) { a.tidy(q.GetPath()) })
			}
			answer(r)
		}
	})
	if !ok {
		answer(&wire.FileReply{Code: wire.FileError_FILE_ERROR_BUSY, Error: "the node has too many file requests at once; ask again"})
	}
}

// fileFailure is an error with its code.
type fileFailure struct {
	code wire.FileError
	text string
}

func (e *fileFailure) Error() string { return e.text }

func fileErr(code wire.FileError, format string, args ...any) error {
	return &fileFailure{code, fmt.Sprintf(format, args...)}
}

// serveFile does what is asked.
func (d Dir) serveFile(q *wire.FileRequest) *wire.FileReply {
	r := new(wire.FileReply)
	if err := d.file(q, r); err != nil {
		return &wire.FileReply{Code: codeOf(err), Error: textOf(q.GetPath(), err)}
	}
	return r
}

func (d Dir) file(q *wire.FileRequest, r *wire.FileReply) error {
	p := q.GetPath()
	if p != "" && (!fs.ValidPath(p) || p == "." || strings.ContainsRune(p, 0) || !filepath.IsLocal(filepath.FromSlash(p))) {
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "%q is not a relative path without . and ..", p)
	}
	tasks, err := d.openTasks()
	if errors.Is(err, fs.ErrNotExist) && p == "" && q.GetOp() == wire.FileOp_FILE_OP_LIST {
		return nil // no task has had a directory yet
	}
	if err != nil {
		return err
	}
	defer tasks.Close()
	if done, err := packedFile(tasks, q, r); done {
		return err
	}
	in, err := placeOf(tasks, p)
	if err != nil {
		return err
	}
	defer in.close()
	switch q.GetOp() {
	case wire.FileOp_FILE_OP_LIST:
		return in.list(q, r)
	case wire.FileOp_FILE_OP_STAT:
		fi, err := in.root.Stat(in.rel)
		if err != nil {
			return err
		}
		r.Entries = []*wire.FileEntry{entryOf(p, fi)}
		return nil
	case wire.FileOp_FILE_OP_READ:
		return in.read(q, r)
	case wire.FileOp_FILE_OP_DELETE:
		return in.remove(tasks, q)
	}
	return fileErr(wire.FileError_FILE_ERROR_INVALID, "operation %v is not known", q.GetOp())
}

// place is what a path means.
type place struct {
	root  *os.Root
	inner bool   // root is a directory that others than the agent write to
	owner int    // the user whose it is, or anyone
	rel   string // in root; ".": the root itself
}

// anyone is the owner of what is in the shared directory.
const anyone = -1

func (p *place) close() {
	if p.inner {
		_ = p.root.Close()
	}
}

// placeOf finds the first directory on the way that is not the agent's alone. Up to
// there nobody but the agent can move anything, so what is found stays.
func placeOf(tasks *os.Root, p string) (*place, error) {
	whole := &place{root: tasks, rel: p}
	if p == "" {
		whole.rel = "."
	}
	own := os.Geteuid()
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' || i == 0 {
			continue
		}
		fi, err := tasks.Lstat(p[:i])
		if err != nil || !fi.IsDir() {
			return whole, nil // whatever is done will say so
		}
		uid, _, ok := proc.FileOwner(fi)
		if everybodys := p[:i] == wire.SharedDir && fi.Mode()&0o002 != 0; everybodys {
			uid = anyone
		} else if !ok || uid == own {
			continue
		}
		r, err := tasks.OpenRoot(p[:i])
		if err != nil {
			return nil, err
		}
		rel := "."
		if i < len(p) {
			rel = p[i+1:]
		}
		return &place{root: r, inner: true, owner: uid, rel: rel}, nil
	}
	return whole, nil
}

func entryOf(p string, fi fs.FileInfo) *wire.FileEntry {
	e := &wire.FileEntry{Path: p, MtimeNs: fi.ModTime().UnixNano(), Dir: fi.IsDir(), Mode: uint32(fi.Mode())}
	if !e.Dir {
		e.Size = uint64(max(fi.Size(), 0))
	}
	if _, changed, ok := proc.FileOwner(fi); ok {
		e.CtimeNs = changed.UnixNano()
	}
	return e
}

// open opens rel, whatever it is, without waiting for a writer of a pipe.
func (p *place) open(rel string) (*os.File, fs.FileInfo, error) {
	f, err := p.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

func (p *place) read(q *wire.FileRequest, r *wire.FileReply) error {
	n := q.GetLength()
	if n > wire.FileReadLimit {
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "%d bytes are more than the %d that one request may read", n, wire.FileReadLimit)
	}
	if q.GetOffset() > math.MaxInt64-wire.FileReadLimit {
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "offset %d is beyond what a file can hold", q.GetOffset())
	}
	if n == 0 {
		n = wire.FileReadLimit
	}
	f, fi, err := p.open(p.rel)
	if err != nil {
		return err
	}
	defer f.Close()
	switch uid, _, ok := proc.FileOwner(fi); {
	case fi.IsDir():
		return fileErr(wire.FileError_FILE_ERROR_KIND, "it is a directory")
	case !fi.Mode().IsRegular():
		return fileErr(wire.FileError_FILE_ERROR_KIND, "it is not a regular file")
	case p.inner && p.owner != anyone && (!ok || uid != p.owner):
		return fileErr(wire.FileError_FILE_ERROR_DENIED, "it belongs to another user than the task's directory")
	}
	off := int64(q.GetOffset())
	buf := make([]byte, min(int64(n), max(fi.Size()-off, 0)))
	got, err := f.ReadAt(buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.Data = buf[:got]
	r.Eof = off+int64(got) >= fi.Size() || errors.Is(err, io.EOF)
	r.Entries = []*wire.FileEntry{entryOf(q.GetPath(), fi)}
	return nil
}

func (p *place) remove(tasks *os.Root, q *wire.FileRequest) error {
	root, rel := p.root, p.rel
	switch {
	case q.GetPath() == "":
		return fileErr(wire.FileError_FILE_ERROR_INVALID, "the task root itself is not removed")
	case rel == ".":
		root, rel = tasks, q.GetPath() // its parent is the agent's
	}
	if !q.GetRecursive() {
		return root.Remove(rel)
	}
	if _, err := root.Lstat(rel); err != nil {
		return err // RemoveAll is content with nothing
	}
	return removeAll(root, rel)
}

// list fills a reply with what is in a directory.
func (p *place) list(q *wire.FileRequest, r *wire.FileReply) error {
	l := &lister{place: p, reply: r, deep: q.GetRecursive(), limit: int(q.GetLimit())}
	if l.limit <= 0 || l.limit > wire.FileListLimit {
		l.limit = wire.FileListLimit
	}
	var after []string
	if c := q.GetCursor(); c != "" {
		rest := c
		if q.GetPath() != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(c, q.GetPath()+"/"); !ok {
				return fileErr(wire.FileError_FILE_ERROR_INVALID, "the cursor is of another directory")
			}
		}
		after = strings.Split(rest, "/")
	}
	return l.walk(p.rel, q.GetPath(), after, 0)
}

type lister struct {
	*place
	reply *wire.FileReply
	deep  bool
	limit int
	bytes int
}

// walk lists a directory, rel in the root and shown to the launcher, from behind
// the entry whose way from here is after. The first directory alone may fail:
// those below come and go while the task runs. Names that are not UTF-8 are left
// out, with what is below them: neither the wire nor a URL can carry them.
func (l *lister) walk(rel, shown string, after []string, depth int) error {
	from := ""
	if len(after) > 0 {
		from, after = after[0], after[1:]
	}
	names, err := l.names(rel, from, l.limit-len(l.reply.Entries)+2)
	if err != nil {
		if depth > 0 {
			return nil
		}
		return err
	}
	for _, name := range names {
		here, there := path.Join(rel, name), path.Join(shown, name)
		if !utf8.ValidString(name) {
			continue
		}
		var below []string
		fi, err := l.root.Lstat(here)
		if err != nil {
			continue // it is gone
		}
		if name == from {
			below = after // it was in an earlier reply
		} else {
			if len(l.reply.Entries) == l.limit || l.bytes > listBytes {
				l.reply.More = true
				return nil
			}
			l.reply.Entries = append(l.reply.Entries, entryOf(there, fi))
			l.reply.Cursor = there
			l.bytes += len(there)
		}
		if l.deep && fi.IsDir() && depth < listDepth {
			if err := l.walk(here, there, below, depth+1); err != nil || l.reply.More {
				return err
			}
		}
	}
	return nil
}

// names returns the first limit names of a directory from on, sorted. It holds
// no more than some of them at a time, however many there are.
func (l *lister) names(rel, from string, limit int) ([]string, error) {
	f, fi, err := l.open(rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !fi.IsDir() {
		return nil, fileErr(wire.FileError_FILE_ERROR_KIND, "it is not a directory")
	}
	var out []string
	cut := func() {
		slices.Sort(out)
		if len(out) > limit {
			clear(out[limit:])
			out = out[:limit]
		}
	}
	for {
		some, err := f.Readdirnames(1024)
		for _, n := range some {
			if n >= from {
				out = append(out, n)
			}
		}
		if len(out) > 2*limit+1024 {
			cut()
		}
		if errors.Is(err, io.EOF) {
			cut()
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func codeOf(err error) wire.FileError {
	var f *fileFailure
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return wire.FileError_FILE_ERROR_NOT_FOUND
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ELOOP), escapes(err):
		return wire.FileError_FILE_ERROR_DENIED
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		return wire.FileError_FILE_ERROR_NOT_EMPTY
	case errors.Is(err, syscall.EISDIR):
		return wire.FileError_FILE_ERROR_KIND
	}
	return wire.FileError_FILE_ERROR_IO
}

// escapes says whether os.Root refused a way out; the package exports no error
// for it.
func escapes(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "escapes")
}

// textOf names the launcher's path only, not where the agent has it.
func textOf(p string, err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if p == "" {
		p = "the task root"
	}
	return strings.ToValidUTF8(fmt.Sprintf("%s: %v", p, err), "�")
}
