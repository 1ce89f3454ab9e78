package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

const (
	// stallTime is how long an upload may make no progress.
	stallTime = 60 * time.Second
	// sftpStart bounds the start of the SFTP subsystem; where it fails there is
	// another way.
	sftpStart = 10 * time.Second
	// sftpWindow is the number of 32 KiB writes under way at once: 2 MiB keep a
	// line of 100 Mbit/s and 150 ms busy.
	sftpWindow = 64
)

// uploads lets the nodes that share a home upload once. Each announces its
// upload after its temporary file exists and looks at the directory after that;
// of two that share it, the later one to announce therefore sees the earlier
// one's file, and gives way.
type uploads struct {
	mu   sync.Mutex
	next int
	by   map[string]*upload // by the temporary file's base name
}

type upload struct {
	order    int
	name     string
	finished chan struct{} // closed when err is set
	err      error
	over     bool
}

func newUploads() *uploads { return &uploads{by: map[string]*upload{}} }

func (u *uploads) announce(name string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next++
	up := &upload{order: u.next, name: name, finished: make(chan struct{})}
	u.by[name] = up
	return up
}

// before returns the earliest upload among the named files that was announced
// before up, or nil.
func (u *uploads) before(up *upload, names []string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	first := up
	for _, n := range names {
		if other := u.by[n]; other != nil && other.order < first.order {
			first = other
		}
	}
	if first == up {
		return nil
	}
	return first
}

// done ends an upload; only the first call counts. It stays in the list: a node
// that saw its file may ask for it later.
func (u *uploads) done(up *upload, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !up.over {
		up.over, up.err = true, err
		close(up.finished)
	}
}

// send copies a program into a file on the node that exists: by SFTP, or through
// a shell where there is no SFTP.
func (in *installer) send(ctx context.Context, b binary, temp string) error {
	f, err := os.Open(b.path)
	if err != nil {
		return fmt.Errorf("can't read the program: %w", err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from := &source{File: f, size: b.size, limit: time.AfterFunc(stallTime, func() {
		cancel(fmt.Errorf("no progress for %v: does the node's disk hang?", stallTime))
	})}
	defer from.limit.Stop()
	err = in.sftp(ctx, from, temp)
	var none *noSFTP
	if errors.As(err, &none) && ctx.Err() == nil {
		err = in.cat(ctx, from, temp)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// source is a file whose reading shows that the upload makes progress.
type source struct {
	*os.File
	size  int64
	limit *time.Timer
}

func (s *source) Read(p []byte) (int, error) {
	s.limit.Reset(stallTime)
	return s.File.Read(p)
}

// WriteTo hides that of os.File, which would go around Read.
func (s *source) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}

// noSFTP means that nothing was written and the other way is to be tried.
type noSFTP struct{ err error }

func (e *noSFTP) Error() string { return "no SFTP: " + e.err.Error() }

func (in *installer) sftp(ctx context.Context, from *source, temp string) error {
	start, cancel := context.WithTimeout(ctx, sftpStart)
	defer cancel()
	s, err := in.client.session(start, in.node, "subsystem", "sftp")
	if err != nil {
		return &noSFTP{err}
	}
	defer s.Close()
	stop := context.AfterFunc(start, func() { s.channel.Close() })
	c, err := sftp.NewClientPipe(s, s.channel, sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(sftpWindow))
	if err != nil || !stop() {
		return &noSFTP{errors.Join(err, start.Err())}
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { s.channel.Close() })()
	// Not created here: a server that shows another tree (chroot) has no such
	// file.
	f, err := c.OpenFile(temp, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return &noSFTP{err}
	}
	n, err := f.ReadFromWithConcurrency(from, sftpWindow)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil && n != from.size {
		err = fmt.Errorf("%d of %d bytes were sent: did the program change meanwhile?", n, from.size)
	}
	return err
}

// cat sends the program through a shell.
func (in *installer) cat(ctx context.Context, from *source, temp string) error {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s, stop, err := in.open(ctx, receiveScript, "", temp)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := in.replies(ctx, s); err != nil {
		stop()
		return err
	}
	if !stop() { // the script's limit is not the upload's
		return in.late(ctx)
	}
	defer context.AfterFunc(ctx, func() { s.channel.Close() })()
	_, sendErr := from.WriteTo(s.channel)
	s.channel.CloseWrite()
	for {
		r, err := s.next(in.script.mark)
		switch {
		case err != nil:
			return errors.Join(sendErr, err)
		case r.word == "skip":
			return errors.New(r.rest)
		case r.word == "end":
			return sendErr
		}
	}
}
