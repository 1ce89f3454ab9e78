package proc

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Forker starts processes from one thread that lives until Close: children with
// KillWithParent die with this process or at Close, never before.
type Forker struct {
	req  chan forkReq
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex // held over fork and registration, and by the reaper: a child is never taken for an orphan
	kids  map[int]bool
	slots map[*Slots]bool // whose processes keep their status, too

	closeOnce, reapOnce sync.Once
}

type forkReq struct {
	cmd   Cmd
	reply chan<- forkReply
}

type forkReply struct {
	p   *Process
	err error
}

// NewForker starts the forking thread; Close ends it.
func NewForker() *Forker {
	f := &Forker{req: make(chan forkReq), done: make(chan struct{}), kids: map[int]bool{}, slots: map[*Slots]bool{}}
	f.wg.Add(1)
	go ownThread(func() {
		defer f.wg.Done()
		for {
			select {
			case r := <-f.req:
				p, err := f.fork(r.cmd)
				r.reply <- forkReply{p, err}
			case <-f.done:
				return
			}
		}
	})
	return f
}

// ownThread runs f on a thread that ends with f. It is the last call of its
// goroutine. The process's main thread won't do: the runtime parks it instead of
// ending it.
func ownThread(f func()) {
	runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread() // another thread, as ours is taken
		close(locked)
		f()
	}()
	<-locked
	runtime.UnlockOSThread()
}

func (f *Forker) fork(c Cmd) (*Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pid, policy, err := fork(c)
	if err != nil {
		return nil, err
	}
	f.kids[pid] = true
	return &Process{pid: pid, policy: policy, forker: f}, nil
}

func (f *Forker) forget(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kids, pid)
}

// Start starts a process from the forker's thread.
func (f *Forker) Start(c Cmd) (*Process, error) {
	reply := make(chan forkReply, 1)
	select {
	case f.req <- forkReq{c, reply}:
		r := <-reply
		return r.p, r.err
	case <-f.done:
		return nil, errors.New("starting a process: the forker is closed")
	}
}

// Close ends the forking thread, and with it every child that has
// KillWithParent, and the reaper. It waits for both.
func (f *Forker) Close() error {
	f.closeOnce.Do(func() { close(f.done) })
	f.wg.Wait()
	return nil
}

// reapPause is the time between two looks at the same zombie. Children that
// were started without the forker are waited for by whoever started them, long
// before.
const reapPause = 250 * time.Millisecond

// StartReaper starts reaping orphans that the kernel handed to this process
// (see SetSubreaper). Children of the forker keep their status for Wait; of
// others only those are taken that nobody waited for in 250 ms.
func (f *Forker) StartReaper() {
	f.reapOnce.Do(func() {
		f.wg.Go(func() {
			sig := make(chan os.Signal, 1)
			signal.Notify(sig, unix.SIGCHLD)
			defer signal.Stop(sig)
			var seen map[int]uint64
			var again <-chan time.Time
			for {
				select {
				case <-f.done:
					return
				case <-sig: // many signals, one look
					// None is heard until then: each would wake two threads, which is
					// a good part of what a short process in a slot costs.
					signal.Stop(sig)
					if again == nil {
						again = time.After(reapPause / 10)
					}
				case <-again:
					again = nil
					signal.Notify(sig, unix.SIGCHLD) // first: who ends from here on is heard
					if seen = f.reap(seen); len(seen) > 0 {
						again = time.After(reapPause)
					}
				}
			}
		})
	})
}

// reap takes the zombies that are not ours and were there at the last look, and
// returns those that are there for the first time: pid → start time.
func (f *Forker) reap(seen map[int]uint64) map[int]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := map[int]uint64{}
	if !zombies() {
		return fresh
	}
	for _, pid := range childrenOf(os.Getpid(), nil) {
		if f.kids[pid] || f.inSlot(pid) {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.state != 'Z' {
			continue
		}
		if start, ok := seen[pid]; ok && start == s.start {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			continue
		}
		fresh[pid] = s.start
	}
	return fresh
}

// inSlot says whether a slot waits for pid. A process that the last look saw as a
// zombie already was in its slot all the time since.
func (f *Forker) inSlot(pid int) bool {
	for s := range f.slots {
		if s.has(pid) {
			return true
		}
	}
	return false
}

// SetSubreaper makes this process the parent of its descendants' orphans.
func SetSubreaper() error {
	return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}
