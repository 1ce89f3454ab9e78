package crew

import (
	"errors"
	"os"
	"sync"
	"time"

	"gangway/nodeagent/proc"
	"gangway/topology"
)

// Command is an element's program. Files and Memory stay the caller's.
type Command struct {
	Path                  string
	Argv, Env             []string
	Dir                   string
	Stdin, Stdout, Stderr *os.File
	CPUs                  topology.CPUSet
	Memory                *proc.MemoryGroup // to be accounted to; nil: this process's
}

// Ended is how a command ended.
type Ended struct {
	Slot       int
	Tag        uint64
	Pid        int // 0: it did not start
	Status     proc.Status
	Start, End time.Time
	// Silent says that its output files were empty when it had ended; false: they
	// were not, or nobody has looked.
	Silent bool
	Err    error // it did not start
}

// Spawner runs queues of programs, one program of a slot at a time, each in a
// process group of its own.
type Spawner interface {
	// Start queues a command behind what the slot runs. It never blocks.
	Start(slot int, tag uint64, c Command)
	// Signal signals the process group of the slot's command with that tag if it
	// is the one that runs, and says whether it did.
	Signal(slot int, tag uint64, sig int) bool
	// Drop takes back what the slot has queued and not started.
	Drop(slot int) []uint64
	// Close waits until everything that is queued has ended.
	Close()
}

// forks is a Spawner that starts each program through a Forker and waits for
// it in a goroutine of its own.
type forks struct {
	f     *proc.Forker
	ended func([]Ended)
	slots []*forkSlot
	wg    sync.WaitGroup
}

type forkSlot struct {
	mu     sync.Mutex
	wake   *sync.Cond
	queue  []queuedFork
	now    *proc.Process // that runs
	tag    uint64
	closed bool
}

type queuedFork struct {
	tag uint64
	c   Command
}

// Forks makes n slots on a forker. ended is called from several goroutines.
func Forks(f *proc.Forker, n int, ended func([]Ended)) Spawner {
	s := &forks{f: f, ended: ended}
	for i := range n {
		l := new(forkSlot)
		l.wake = sync.NewCond(&l.mu)
		s.slots = append(s.slots, l)
		s.wg.Go(func() { s.run(i, l) })
	}
	return s
}

func (s *forks) Start(slot int, tag uint64, c Command) {
	l := s.slots[slot]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, queuedFork{tag, c})
	l.wake.Signal()
}

func (s *forks) Signal(slot int, tag uint64, sig int) bool {
	l := s.slots[slot]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now != nil && l.tag == tag && l.now.SignalGroup(sig) == nil
}

func (s *forks) Drop(slot int) []uint64 {
	l := s.slots[slot]
	l.mu.Lock()
	defer l.mu.Unlock()
	var tags []uint64
	for _, q := range l.queue {
		tags = append(tags, q.tag)
	}
	l.queue = nil
	return tags
}

func (s *forks) Close() {
	for _, l := range s.slots {
		l.mu.Lock()
		l.closed = true
		l.wake.Signal()
		l.mu.Unlock()
	}
	s.wg.Wait()
}

func (s *forks) run(slot int, l *forkSlot) {
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.closed {
			l.wake.Wait()
		}
		if len(l.queue) == 0 {
			l.mu.Unlock()
			return
		}
		q := l.queue[0]
		l.queue = l.queue[1:]
		e := Ended{Slot: slot, Tag: q.tag, Start: time.Now()}
		p, err := s.f.Start(proc.Cmd{Path: q.c.Path, Args: q.c.Argv, Env: q.c.Env, Dir: q.c.Dir, Stdin: q.c.Stdin, Stdout: q.c.Stdout,
			Stderr: q.c.Stderr, CPUs: q.c.CPUs, NewGroup: true, KillWithParent: true, Group: q.c.Memory})
		l.now, l.tag = p, q.tag
		l.mu.Unlock()
		if err == nil {
			e.Pid = p.Pid()
			if e.Status, err = p.Wait(); err != nil {
				err = errors.Join(errLostTrack, err)
			}
		}
		e.End, e.Err = time.Now(), err
		l.mu.Lock()
		l.now = nil
		l.mu.Unlock()
		s.ended([]Ended{e})
	}
}

var errLostTrack = errors.New("the program's end could not be learnt")
