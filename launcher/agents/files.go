package agents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

// Errors of Files.
var (
	// ErrNoSession reports a node that can't be asked now: unknown, away, or
	// gone before it answered.
	ErrNoSession = errors.New("the node has no session")
	// ErrOldAgent reports an agent without a file service.
	ErrOldAgent = errors.New("the node's agent is older than the file service; let its jobs end and start it again")
)

const (
	// filesAtOnce is how many requests a node is asked at a time: each may
	// bring 1 MiB.
	filesAtOnce = 8
	// filesLimit is how long an answer may take when the caller sets no time.
	filesLimit = 30 * time.Second
	// filesSince is the first protocol with the file service.
	filesSince = 2
)

// fileCalls are a session's requests under way.
type fileCalls struct {
	slots chan struct{}

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *wire.FileReply
}

func newFileCalls() *fileCalls {
	return &fileCalls{slots: make(chan struct{}, filesAtOnce), waiting: map[uint64]chan *wire.FileReply{}}
}

func (c *fileCalls) begin() (seq uint64, answer <-chan *wire.FileReply, end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	seq = c.last
	ch := make(chan *wire.FileReply, 1)
	c.waiting[seq] = ch
	return seq, ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, seq)
	}
}

// answer hands a reply to whoever waits for it; a late one is dropped.
func (c *fileCalls) answer(r *wire.FileReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.waiting[r.GetSeq()]; ch != nil {
		delete(c.waiting, r.GetSeq())
		ch <- r // has room for one
	}
}

// Files asks a node for something below its task root and waits for the reply,
// at most 30 s if ctx has no deadline. What the node refuses or lacks is in the
// reply's code; an error means that there is no reply: ErrNoSession, ErrOldAgent
// or ctx's. seq of q is not used, q is not changed.
func (f *Fleet) Files(ctx context.Context, name string, q *wire.FileRequest) (*wire.FileReply, error) {
	fail := func(err error) (*wire.FileReply, error) { return nil, fmt.Errorf("files of node %s: %w", name, err) }
	f.mu.Lock()
	var s *session
	if n := f.nodes[name]; n != nil {
		s = n.session
	}
	f.mu.Unlock()
	switch {
	case s == nil:
		return fail(ErrNoSession)
	case s.protocol < filesSince:
		return fail(ErrOldAgent)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, filesLimit)
		defer cancel()
	}
	select {
	case s.files.slots <- struct{}{}:
		defer func() { <-s.files.slots }()
	case <-s.ended:
		return fail(ErrNoSession)
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	seq, answer, end := s.files.begin()
	defer end()
	own := proto.CloneOf(q)
	own.Seq = seq
	s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_FileRequest{FileRequest: own}})
	select {
	case r := <-answer:
		return r, nil
	case <-s.ended:
		return fail(ErrNoSession)
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}
