package probe

import (
	"io"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// Live probes this machine as this process sees it. It takes a few
// milliseconds and starts nothing.
func Live() (topology.Node, error) {
	src := liveSource()
	var warning string
	src.Interfaces, warning = liveInterfaces()
	n, err := Node(src)
	if err != nil {
		return n, err
	}
	if warning != "" {
		n.Warnings = append(n.Warnings, warning)
	}
	if n.Hostname == "" {
		n.Hostname, _ = os.Hostname()
	}
	return n, nil
}

func liveSource() Source {
	return Source{
		Sys: newKernelFS("/sys"), Proc: newKernelFS("/proc"), Root: newKernelFS("/"),
		Arch: runtime.GOARCH, ShmBytes: shmFree(),
	}
}

// Record writes a record of this machine; see RecordFrom.
func Record(w io.Writer, also ...func(Source)) error { return RecordFrom(w, liveSource(), also...) }

func shmFree() *uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil {
		return nil
	}
	free := st.Bavail * uint64(st.Bsize)
	return &free
}

// kernelFS is os.DirFS with a ReadFile made for the many tiny files of sysfs:
// the plain one registers every file with the runtime's poller, which costs
// more than reading it.
type kernelFS struct {
	fs.ReadLinkFS
	dir string
}

func newKernelFS(dir string) fs.FS {
	return kernelFS{os.DirFS(dir).(fs.ReadLinkFS), dir}
}

func (k kernelFS) ReadFile(name string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	fd, err := unix.Open(k.dir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	buf, used := make([]byte, 4096), 0
	for {
		n, err := unix.Read(fd, buf[used:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fail(err)
		case n == 0:
			return buf[:used], nil
		}
		if used += n; used == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func (k kernelFS) Stat(name string) (fs.FileInfo, error) { return fs.Stat(k.ReadLinkFS, name) }

func (k kernelFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(k.ReadLinkFS, name) }
