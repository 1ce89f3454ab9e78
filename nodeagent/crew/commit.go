package crew

import (
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

type failure = *wire.Failure

const (
	// gather is how long a result waits for others, and blockSize how many
	// elements a block has at most.
	gather    = 5 * time.Millisecond
	blockSize = 4096
	// mostBacklog is how many results may wait for the disk before nothing more is
	// started.
	mostBacklog = 64 << 10
)

// committer makes blocks of results, and makes them durable.
type committer struct {
	w *Crew

	mu      sync.Mutex
	change  *sync.Cond
	results []*result
	back    set
	working []*result // in a block that is being made
	returns set
	closed  bool
	hurry   bool
	wake    chan struct{}
	done    chan struct{} // closed by close: nothing waits any longer
	wg      sync.WaitGroup
}

func newCommitter(w *Crew) *committer {
	c := &committer{w: w, back: set{}, returns: set{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.change = sync.NewCond(&c.mu)
	c.wg.Go(c.run)
	return c
}

func (c *committer) put(rs ...*result) {
	if len(rs) == 0 {
		return
	}
	c.mu.Lock()
	c.results = append(c.results, rs...)
	c.mu.Unlock()
	c.poke()
}

func (c *committer) giveBack(s set) {
	c.mu.Lock()
	for a, list := range s {
		for _, p := range list {
			c.back.add(a, p.lo, p.hi)
		}
	}
	c.hurry = true
	c.mu.Unlock()
	c.poke()
}

func (c *committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.results) + len(c.working)
}

// uncommitted is what has ended or was given back and is not acknowledged.
func (c *committer) uncommitted(l *ledger) set {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.finished()
	for _, list := range [][]*result{c.results, c.working} {
		for _, r := range list {
			s.add(r.attempt, r.index, r.index+1)
		}
	}
	for _, o := range []set{c.back, c.returns} {
		for a, list := range o {
			for _, p := range list {
				s.add(a, p.lo, p.hi)
			}
		}
	}
	return s
}

// drain waits until everything that was put is in a block.
func (c *committer) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurry = true
	c.poke()
	for (len(c.results) > 0 || len(c.working) > 0 || !c.back.empty() || !c.returns.empty()) && !c.closed {
		c.change.Wait()
	}
}

func (c *committer) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
	c.change.Broadcast()
	c.mu.Unlock()
	c.wg.Wait()
}

// pause waits for d, or for less: until the committer is closed, or with soon
// until something must not wait.
func (c *committer) pause(d time.Duration, soon func() bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		c.mu.Lock()
		now := soon()
		c.mu.Unlock()
		if now {
			return
		}
		select {
		case <-t.C:
			return
		case <-c.done:
			return
		case <-c.wake:
		}
	}
}

func (c *committer) run() {
	told := ""
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.pause(gather, func() bool { return c.hurry || len(c.results) >= blockSize })
		c.mu.Lock()
		c.working, c.results = c.results, nil
		c.returns, c.back = c.back, set{}
		c.hurry = false
		working, returns := c.working, c.returns
		c.mu.Unlock()
		for _, b := range blocks(working, returns) {
			for {
				err := c.w.l.commit(b)
				if err == nil || b.GetSeq() > 0 && c.numbered(b) {
					if err != nil {
						told = c.tell(told, err)
					}
					break
				}
				told = c.tell(told, err)
				if c.pause(retryPause, func() bool { return c.closed }); c.isClosed() {
					return
				}
			}
			c.w.h.Block(b)
		}
		if err := c.w.l.tidy(); err != nil {
			told = c.tell(told, err)
		}
		c.mu.Lock()
		c.working, c.returns = nil, set{}
		if len(c.results) > 0 || !c.back.empty() {
			c.poke()
		}
		c.change.Broadcast()
		c.mu.Unlock()
		c.w.post(func() {}) // there is room again
	}
}

// numbered says whether the ledger has the block, though it could not be synced.
func (c *committer) numbered(b *wire.Block) bool {
	c.w.l.mu.Lock()
	defer c.w.l.mu.Unlock()
	return c.w.l.seq == b.GetSeq()
}

func (c *committer) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// tell tells an error, unless it was the last that was told.
func (c *committer) tell(told string, err error) string {
	if text := err.Error(); text != told {
		c.w.h.Notice(true, c.w.c.Node+": results can't be made durable: "+text)
		return text
	}
	return told
}

// blocks makes blocks of results and of what is given back. None has an index
// twice.
func blocks(rs []*result, back set) []*wire.Block {
	var out []*wire.Block
	for len(rs) > 0 {
		n := min(len(rs), blockSize)
		part := slices.Clone(rs[:n])
		rs = rs[n:]
		// By index; of an index that is there twice the later attempts wait.
		slices.SortStableFunc(part, func(a, b *result) int {
			switch {
			case a.index < b.index:
				return -1
			case a.index > b.index:
				return 1
			}
			return 0
		})
		once := part[:0]
		var again []*result
		for i, r := range part {
			if i > 0 && len(once) > 0 && once[len(once)-1].index == r.index {
				again = append(again, r)
				continue
			}
			once = append(once, r)
		}
		out = append(out, block(once))
		if len(again) > 0 {
			rs = append(again, rs...)
		}
	}
	returned := sorted(back.runs())
	for part := range slices.Chunk(returned, runsOfRecord) {
		if n := len(out); n > 0 && len(part) < blockSize {
			out[n-1].Returned = part
			continue
		}
		out = append(out, &wire.Block{Returned: part})
	}
	return out
}

// block is a block of results that are sorted by index.
func block(rs []*result) *wire.Block {
	b := new(wire.Block)
	var before int64
	for _, r := range rs {
		if n := len(b.Runs); n > 0 && b.Runs[n-1].Attempt == r.attempt && b.Runs[n-1].Range.Hi == r.index {
			b.Runs[n-1].Range.Hi++
		} else {
			b.Runs = append(b.Runs, run(r.attempt, r.index, r.index+1))
		}
		b.StartUs = append(b.StartUs, r.start-before)
		before = r.start
		b.WallUs = append(b.WallUs, r.wall)
		b.CpuUs = append(b.CpuUs, r.cpu)
		b.RssKib = append(b.RssKib, r.rss)
		if n := len(b.Endings); n > 0 && b.Endings[n-1].ExitCode == r.code && b.Endings[n-1].Signal == r.signal && same(b.Endings[n-1].Failure, r.failure) {
			b.Endings[n-1].Count++
		} else {
			b.Endings = append(b.Endings, &wire.Ending{Count: 1, ExitCode: r.code, Signal: r.signal, Failure: r.failure})
		}
		if r.last != "" {
			b.Last = append(b.Last, &wire.LastWords{Index: r.index, Text: r.last})
		}
	}
	return b
}

func same(a, b failure) bool { return a == b || a != nil && b != nil && proto.Equal(a, b) }

// validEnd says whether a text does not end within a character.
func validEnd(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return r != utf8.RuneError || n > 1
}
