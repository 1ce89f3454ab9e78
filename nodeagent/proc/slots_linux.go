package proc

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// Slots runs queues of short programs, one process a slot at a time, as fast as
// the kernel forks.
//
// Each slot has a thread of its own and a linked list of commands. Start appends
// to the list; the slot's thread walks it, and leaves in every command how it
// ended; a collector follows, hands the ends to the callback and frees the
// commands. A command's state says whose it is: whoever moves it from queued
// (the slot's thread to starting, Drop to dropped) has it.
//
// Where the kernel has what it takes, the thread walks its list in assembly (see
// walk) and comes back to Go when the list is at its end, when the collector
// waits for an end, or for what is better done in Go. Elsewhere it starts one
// command after the other through the Forker.
type Slots struct {
	forker *Forker
	ended  func([]SlotEnd)
	slots  []*slot
	null   *os.File
	self   int  // this process's id
	fast   bool // in assembly
	into   bool // the kernel has CLONE_INTO_CGROUP
	spare  sync.Pool

	// waited is not zero while the collector sleeps without a clock: the next end
	// must wake it.
	waited atomic.Uint32
	kick   chan struct{} // of the collector
	done   chan struct{} // closed when every slot's thread has ended
	wg     sync.WaitGroup
	closed sync.Once
}

// slot is one queue and its thread.
type slot struct {
	all   *Slots
	index int
	wake  chan struct{} // of the thread

	// entries counts the thread's ways into the assembly. Stored before, and loaded
	// by the collector after a command's state, it orders what the thread has read
	// in Go before the command's next use; the processor's order would do, but the race
	// detector does not see what the assembly stores.
	entries atomic.Uint64

	mu      sync.Mutex // of what follows; commands leave the list only under it
	head    *command   // the last that the collector has taken
	tail    *command
	parked  bool // the thread waits for wake
	closing bool
	cpus    topology.CPUSet // of the last command
	bound   uint64          // counts changes of cpus
}

// States of a command.
const (
	queued   uint32 = iota
	starting        // being started by the slot's thread
	running         // its process has the command's pid
	signaled        // running, and a signal is on its way: the pid must stay
	reaping         // the process has ended, its pid may become another's
	ended           // all is written
	failed          // it did not start; the slot's thread will say why
	dropped         // taken back, still in the list
	skipped         // dropped, and the slot's thread is past it
)

// collectPause is how long an end may wait for others that are handed over
// together with it.
const collectPause = 8 * time.Millisecond

// NewSlots makes n slots, which run their commands at the same time. ended is
// called by one goroutine, with the ends of all slots in the order in which they
// ended in each. It must not call Close nor keep the slice, and while it runs no
// other end is handed over. Ends wait for each other up to 8 ms as long as every
// slot has more to do.
//
// Every descriptor of this process from 3 on is marked close-on-exec: one that
// it inherited would be in every program.
func (f *Forker) NewSlots(n int, ended func([]SlotEnd)) (*Slots, error) {
	return f.newSlots(n, ended, canWalk)
}

func (f *Forker) newSlots(n int, ended func([]SlotEnd), fast bool) (*Slots, error) {
	if n < 1 {
		return nil, fmt.Errorf("%d slots to start programs in: at least 1 is needed", n)
	}
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("slots to start programs in: %w", err)
	}
	s := &Slots{forker: f, ended: ended, null: null, self: os.Getpid(), into: hasCloneIntoCgroup(),
		kick: make(chan struct{}, 1), done: make(chan struct{})}
	s.spare.New = func() any { return new(command) }
	s.fast = fast && s.try()
	var threads sync.WaitGroup
	for i := range n {
		l := &slot{all: s, index: i, wake: make(chan struct{}, 1), tail: new(command)}
		l.tail.state.Store(skipped)
		l.head = l.tail
		s.slots = append(s.slots, l)
	}
	for _, l := range s.slots {
		threads.Add(1)
		at := l.tail
		go ownThread(func() {
			defer threads.Done()
			l.run(at)
		})
	}
	f.mu.Lock()
	f.slots[s] = true
	f.mu.Unlock()
	go func() { threads.Wait(); close(s.done) }()
	s.wg.Go(s.collect)
	return s, nil
}

// closeOnExec marks this process's descriptors from 3 on.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("this process's descriptors: %w", err)
	}
	for _, e := range fds {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// Start queues a command behind what the slot runs. It never blocks, and may be
// called by the callback. Its end comes with the tag, unless Drop takes it back.
// After Close it panics.
func (s *Slots) Start(slot int, tag uint64, c SlotCommand) {
	l := s.slots[slot]
	n := s.spare.Get().(*command)
	n.tag, n.cmd = tag, c
	fast := s.fast && n.prepare(s)
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		panic("proc: start of a command in slots that are closed")
	}
	if !c.CPUs.Equal(l.cpus) {
		l.cpus = c.CPUs
		l.bound++
	}
	if n.bound = l.bound; !fast {
		n.bound = onlyGo
	}
	n.state.Store(queued) // the thread that comes upon it loads this before anything else
	l.tail.next.Store(n)
	l.tail = n
	wake := l.parked
	l.parked = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
}

// next is the command behind at, or nil when the slots were closed. It waits.
func (l *slot) next(at *command) *command {
	for {
		if n := at.next.Load(); n != nil {
			return n
		}
		l.all.wakeCollector()
		l.mu.Lock()
		if at.next.Load() != nil {
			l.mu.Unlock()
			continue
		}
		if l.closing {
			l.mu.Unlock()
			return nil
		}
		l.parked = true
		l.mu.Unlock()
		<-l.wake
	}
}

// run is the slot's thread. at is the command it has dealt with last.
func (l *slot) run(at *command) {
	const unbound = onlyGo - 1
	bound := uint64(0)
	home, _ := getAffinity(0) // empty if unknown: bindThread says then why it can't
	for n := l.next(at); n != nil; n = l.next(at) {
		var err error
		if l.all.fast && n.bound != bound && n.bound != onlyGo {
			// The thread is bound, not the process: a process that is bound after
			// its fork may have to move.
			bound = n.bound
			if err = bindSlot(&n.cmd, home); err != nil {
				bound = unbound
			}
		}
		switch {
		case n.bound == bound:
			l.entries.Add(1)
			if at = enter(at, bound, &l.all.waited); at.state.Load() == failed {
				at = again(at)
			}
		case n.state.CompareAndSwap(queued, starting):
			at = n
			if err != nil {
				n.begin = monotonic()
				n.fail(err)
			} else {
				l.slow(n)
			}
		default:
			at = n
			n.state.Store(skipped)
		}
		if l.all.waited.Load() != 0 {
			l.all.wakeCollector()
		}
	}
}

// bindSlot binds the thread as c asks.
func bindSlot(c *SlotCommand, home topology.CPUSet) error {
	if c.CPUs.IsEmpty() {
		restoreAffinity(home)
		return nil
	}
	if err := bindThread(c.CPUs, home); err != nil {
		return &StartError{Path: c.Path, Kind: ErrBinding, Err: err,
			Hint: "the cores granted are outside of this process's cpuset or affinity"}
	}
	return nil
}

// again deals with a command that could not be started, and returns what the
// thread goes on behind. A program just copied here is "busy" while a fork
// elsewhere in this process still holds the descriptor it was written through:
// it is tried again.
func again(n *command) *command {
	if unix.Errno(n.errno) != unix.ETXTBSY || n.tries == 20 {
		n.fail(n.startError())
		return n
	}
	n.tries++
	time.Sleep(time.Duration(n.tries) * time.Millisecond)
	n.errno = 0
	atomic.StoreUint32(&n.live, 1)
	before := new(command)
	before.next.Store(n)
	n.state.Store(queued)
	return before
}

// slow runs a command through the Forker.
func (l *slot) slow(n *command) {
	c := n.cmd
	n.begin = monotonic()
	p, err := l.all.forker.Start(Cmd{Path: c.Path, Args: c.Argv, Env: c.Env, Dir: c.Dir,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, CPUs: c.CPUs, NewGroup: true, KillWithParent: true})
	if err == nil && c.Cgroup != nil {
		g := cgroup{dir: fmt.Sprintf("/proc/self/fd/%d", c.Cgroup.Fd())}
		if err = g.Add(p.pid); err != nil {
			_ = p.Signal(int(unix.SIGKILL))
			_, _ = p.Wait()
			err = &StartError{Path: c.Path, Err: err}
		}
		runtime.KeepAlive(c.Cgroup)
	}
	if err != nil {
		n.fail(err)
		return
	}
	atomic.StoreInt32(&n.pid, int32(p.pid))
	atomic.StoreUint32(&n.live, 0)
	n.state.Store(running)
	err = retryEINTR(func() error {
		return unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
	n.finish = monotonic()
	for !n.state.CompareAndSwap(running, reaping) {
		runtime.Gosched()
	}
	if err == nil {
		_ = unix.Kill(-p.pid, unix.SIGKILL) // the rest of its group
		n.stdoutEnd, _ = unix.Seek(int(fdOf(c.Stdout)), 0, unix.SEEK_END)
		n.stderrEnd, _ = unix.Seek(int(fdOf(c.Stderr)), 0, unix.SEEK_END)
		n.st, err = p.Wait()
	}
	if err != nil {
		n.fail(&StartError{Path: c.Path, Err: err})
		return
	}
	n.slow = true
	n.state.Store(ended)
}

// try says whether this kernel, and what confines this process, allow the fast
// way: a directory is no program, and to learn that every step is taken.
func (s *Slots) try() bool {
	n, before := new(command), new(command)
	n.cmd = SlotCommand{Path: "/", Dir: "/"}
	if !n.prepare(s) {
		return false
	}
	before.next.Store(n)
	runtime.LockOSThread() // the child must not outlive its thread
	defer runtime.UnlockOSThread()
	enter(before, 0, &s.waited)
	return n.state.Load() == failed && unix.Errno(n.errno) == unix.EACCES && n.left == 1
}

// has says whether pid is a process of one of the slots, not yet reaped.
func (s *Slots) has(pid int) bool {
	for _, l := range s.slots {
		if l.has(pid) {
			return true
		}
	}
	return false
}

func (l *slot) has(pid int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.head.next.Load(); n != nil; n = n.next.Load() {
		switch n.state.Load() {
		case starting, running, signaled, reaping:
			return int(atomic.LoadInt32(&n.pid)) == pid
		case queued:
			return false
		}
	}
	return false
}

// Signal sends sig to the process group of the slot's command with that tag and
// says whether it did: the command must be the one that runs. A group whose
// leader has ended gets nothing.
func (s *Slots) Signal(slot int, tag uint64, sig int) bool {
	for {
		sent, again := s.slots[slot].signal(tag, sig)
		if !again {
			return sent
		}
		runtime.Gosched()
	}
}

// signal is one try. Before its exec a process shares this one's memory: what
// kills it with a core dump would take this one too, so it is to be tried again.
func (l *slot) signal(tag uint64, sig int) (sent, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.head.next.Load(); n != nil; n = n.next.Load() {
		switch n.state.Load() {
		case starting, failed:
			if n.tag == tag {
				return false, true
			}
			return false, false
		case running:
			if n.tag != tag {
				return false, false
			}
			if n.early() || !n.state.CompareAndSwap(running, signaled) {
				return false, true
			}
			err := unix.Kill(-int(atomic.LoadInt32(&n.pid)), unix.Signal(sig))
			n.state.Store(running)
			return err == nil, false
		case queued, reaping:
			return false, false
		}
	}
	return false, false
}

// Drop takes back what the slot has queued and not started, and returns the tags
// in their order. These commands have no SlotEnd.
func (s *Slots) Drop(slot int) []uint64 {
	l := s.slots[slot]
	l.mu.Lock()
	defer l.mu.Unlock()
	var tags []uint64
	for n := l.head.next.Load(); n != nil; n = n.next.Load() {
		if n.state.Load() != queued {
			continue
		}
		tag := n.tag
		if n.state.CompareAndSwap(queued, dropped) {
			tags = append(tags, tag)
		}
	}
	return tags
}

// Close waits until everything that is queued has ended and was handed over,
// and ends the threads. To be quick, Drop and Signal first.
func (s *Slots) Close() {
	s.closed.Do(func() {
		for _, l := range s.slots {
			l.mu.Lock()
			l.closing = true
			wake := l.parked
			l.parked = false
			l.mu.Unlock()
			if wake {
				l.wake <- struct{}{}
			}
		}
		s.wg.Wait()
		s.forker.mu.Lock()
		delete(s.forker.slots, s)
		s.forker.mu.Unlock()
		_ = s.null.Close()
	})
}
