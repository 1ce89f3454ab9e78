package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"gangway/nodeagent/wire"
)

// receiver takes the files that the launcher sends, into a directory that
// exists. Pieces come from the connection's reader: two connections may meet.
type receiver struct {
	dir string
	box *outbox

	mu     sync.Mutex
	name   string
	f      *os.File
	have   uint64
	result chan received // gets one value
	over   bool
}

type received struct {
	path string
	err  error
}

func newReceiver(dir string, box *outbox) *receiver {
	return &receiver{dir: dir, box: box, result: make(chan received, 1)}
}

// put takes a piece. A repeated one is answered and dropped.
func (r *receiver) put(c *wire.FileChunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		r.answer(c.GetName(), nil)
		return
	}
	err := r.take(c)
	if err != nil || c.GetLast() {
		r.over = true
		path := filepath.Join(r.dir, r.name)
		if r.f != nil {
			err = errors.Join(err, r.f.Close())
		}
		if err != nil {
			_ = os.Remove(path)
		}
		r.result <- received{path, err}
	}
	r.answer(c.GetName(), err)
}

// ask tells the launcher that the file is wanted: an acknowledgement of nothing.
func (r *receiver) ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer("", nil)
}

func (r *receiver) take(c *wire.FileChunk) error {
	if c.GetError() != "" {
		return errors.New(c.GetError())
	}
	if r.f == nil {
		if c.GetName() != filepath.Base(c.GetName()) || c.GetName() == "." || c.GetName() == ".." {
			return fmt.Errorf("%q is not a file's name", c.GetName())
		}
		f, err := os.OpenFile(filepath.Join(r.dir, c.GetName()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(c.GetMode())&0o700|0o400)
		if err != nil {
			return err
		}
		r.name, r.f = c.GetName(), f
	}
	if c.GetOffset() > r.have {
		return fmt.Errorf("a piece of %s is missing before byte %d", r.name, c.GetOffset())
	}
	data := c.GetData()
	skip := r.have - c.GetOffset()
	if skip >= uint64(len(data)) {
		return nil
	}
	n, err := r.f.Write(data[skip:])
	r.have += uint64(n)
	return err
}

func (r *receiver) answer(name string, err error) {
	ack := &wire.FileAck{Name: name, Offset: r.have}
	if err != nil {
		ack.Error = err.Error()
	}
	r.box.say(&wire.FromShim{M: &wire.FromShim_FileAck{FileAck: ack}})
}

func (r *receiver) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over && r.f != nil {
		_ = r.f.Close()
	}
	r.over = true
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
