// Package crew runs the elements of an array on a node: it takes on what the
// launcher gives, starts it in slots, and tells results in numbered blocks that
// are in the spool before they are sent.
//
// One goroutine owns what is to be done (crew.go, work.go); a second takes
// elements' output from their scratch files to the pack or to the launcher
// (harvest.go); a third makes blocks of results and commits them (commit.go), so
// that neither a disk nor a slow reader keeps the slots waiting. ledger.go is what
// is in the spool, and what a dead crew's spool says. Memory goes with runs of
// elements, with the slots, and with what is not acknowledged, which is bounded.
package crew

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gangway/nodeagent/pack"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// Slot is where elements run.
type Slot struct {
	CPUs topology.CPUSet // empty: anywhere
	Env  []string        // K=V: which GPUs it has, how many threads
}

// Texts are the texts of an array with placeholders.
type Texts interface {
	// Expand appends the texts of the element with that index to dst.
	Expand(index uint64, slot int, dst []string) []string
}

// Host is what a crew works for. Its functions may be called from any goroutine
// of the crew, and must not wait for the crew.
type Host struct {
	// Block sends a block that is in the spool, until Ack.
	Block func(b *wire.Block)
	// Output takes a piece of an element's output in a session job; it may wait.
	// rank is the element's index.
	Output func(rank int32, stream wire.Stream, data []byte, eof bool)
	// Notice tells something for the person who reads it.
	Notice func(warning bool, text string)
	// Done says, once, that nothing runs and that all blocks have been given to Block.
	Done func()
	// Resolve finds the program that name means, in the directory dir.
	Resolve func(name, dir string) (path string, err error)
	// Failure says in words why a program did not start, and which exit status
	// stands for it.
	Failure func(err error) (*wire.Failure, int32)
	// Compile makes texts of a sweep (sweep.Sweep as JSON) whose first element has
	// the index first.
	Compile func(sweepJSON []byte, first uint64, texts []string) (Texts, error)
	// Spawn makes the slots.
	Spawn func(n int, ended func([]Ended)) (Spawner, error)
}

// Config is a crew's part of an assignment, prepared.
type Config struct {
	ID       string
	Name     *wire.AttemptName
	SpoolDir string
	// Dir is where scratch files and the pack are; it is there. Keep says that the
	// output is packed, else it goes to Host.Output.
	Dir  string
	Keep bool

	Slots   []Slot
	Command []string
	Workdir string
	Env     []string // what every element finds
	Over    []string // K=V of the task: may have placeholders, and is in Env too
	Sweep   []byte   // sweep.Sweep as JSON; empty: it comes with each run, or there is none
	First   uint64   // index of the sweep's first element
	Fields  []string // fields with placeholders: command, env, workdir

	Task      string        // id of the array in a kept job, for AZ_BATCH_TASK_ID; "": not set
	Size      uint64        // elements of the array; 0: unknown
	TimeLimit time.Duration // of an element; 0: none
	KillGrace time.Duration
	// SoftSignal is sent to an element's processes SoftBefore its time limit; 0: none is.
	SoftSignal int
	SoftBefore time.Duration
	Memory     uint64 // bytes of an element; 0: not limited
	Group      string // name for the slots' memory groups
	Node       string // for messages
}

// element is one that a slot has.
type element struct {
	index   uint64
	attempt uint32
	tag     uint64
	slot    int
	scratch *scratch
	from    *batch        // that it came from, to put it back
	stop    *wire.Failure // why it is being ended; nil: it is not
	kills   uint64        // oom kills of the slot's group before it
}

// slotState is a slot's queue: the first element runs, or is about to.
type slotState struct {
	Slot
	queue  []*element
	due    time.Time // when the first one's time is over; zero: it has no limit
	soft   time.Time // when it is told that it will be; zero: it is not, or was
	memory *memoryGroup
}

// deadline is when something is to be done about an element, if it is there
// still.
type deadline struct {
	tag uint64
	at  time.Time
}

// Crew runs elements. All its methods return at once and may be called from any
// goroutine.
type Crew struct {
	c Config
	h Host
	l *ledger

	mu   sync.Mutex
	box  []func()
	wake chan struct{}
	gone chan struct{} // closed when run has returned
	wg   sync.WaitGroup

	// Of run:
	spawner  Spawner
	slots    []*slotState
	texts    []string
	plan     layout
	flight   map[uint64]*element // by tag
	tags     uint64
	pending  []*batch // in the order to start them
	done     set      // has a block, or will have: not to be done again
	seq      uint64   // of the last Work
	last     bool     // nothing will follow
	started  bool
	stopping *wire.Failure // why all is being ended; nil: it is not
	killed   bool
	graces   []deadline // of elements that were asked to end, in order
	unheard  []uint64   // of them, those that were just being started and have not heard it
	tick     *time.Timer
	wall     float64 // recent mean, seconds
	walls    uint64  // that were measured
	held     time.Time
	told     string // why, as it was told
	over     bool
	programs map[string]program
	scratch  scratches
	strays   time.Time // when they were looked for

	harvest *harvester
	commit  *committer
}

// New makes a crew, which does nothing before Start but take on Work.
func New(c Config, h Host) (*Crew, error) {
	if len(c.Slots) == 0 {
		return nil, errors.New("a crew needs at least one slot")
	}
	if c.KillGrace <= 0 {
		c.KillGrace = killGrace
	}
	l, err := newLedger(c.SpoolDir, c.ID, c.Name)
	if err != nil {
		return nil, err
	}
	w := &Crew{c: c, h: h, l: l, wake: make(chan struct{}, 1), gone: make(chan struct{}), flight: map[uint64]*element{}, done: set{}, programs: map[string]program{}}
	for _, s := range c.Slots {
		w.slots = append(w.slots, &slotState{Slot: s})
	}
	return w, nil
}

const (
	// killGrace is between SIGTERM and SIGKILL if the assignment does not say.
	killGrace = 5 * time.Second
	// retryPause is how long a full disk or the like is left alone.
	retryPause = time.Second
	// strayPause is how often processes that left their element are looked for.
	strayPause = time.Second
)

// Start begins to run elements.
func (w *Crew) Start() error {
	var p *pack.Writer
	if w.c.Keep {
		var err error
		if p, err = pack.Create(w.c.Dir, w.c.ID); err != nil {
			return fmt.Errorf("the pack for the output: %w", err)
		}
	}
	w.prepareTexts()
	w.scratch = scratches{dir: w.c.Dir, id: w.c.ID, most: len(w.slots)*(w.most()+2) + 64}
	if w.c.Keep {
		var err error
		if w.scratch.live, err = pack.CreateLive(w.c.Dir, w.c.ID); err != nil {
			_ = p.Close()
			return fmt.Errorf("the table of running elements: %w", err)
		}
	}
	w.limitMemory()
	spawner, err := w.h.Spawn(len(w.slots), func(ends []Ended) {
		own := make([]Ended, len(ends))
		copy(own, ends)
		w.post(func() { w.ended(own) })
	})
	if err != nil {
		if p != nil {
			_ = p.Close()
		}
		return err
	}
	w.spawner = spawner
	w.commit = newCommitter(w)
	w.harvest = newHarvester(w, p)
	w.tick = time.NewTimer(time.Hour)
	w.post(func() { w.started = true })
	w.wg.Go(w.run)
	return nil
}

// post hands f to run.
func (w *Crew) post(f func()) {
	w.mu.Lock()
	w.box = append(w.box, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Work tells the crew what it has to do.
func (w *Crew) Work(m *wire.Work) { w.post(func() { w.work(m) }) }

// Ack lets blocks go.
func (w *Crew) Ack(seq uint64) {
	w.l.ack(seq)
	w.post(func() {}) // there may be room again
}

// End ends everything: what has not begun is given back, what runs is asked to
// end and killed after the grace, or killed at once with now. The cause is that of
// the elements that did not end by themselves.
func (w *Crew) End(cause *wire.Failure, now bool) { w.post(func() { w.end(cause, now) }) }

// Record puts a record into the crew's spool that stays there. It is called before
// Start.
func (w *Crew) Record(f *wire.Frame) error { return w.l.record(f) }

// Result records the attempt's result in the crew's spool.
func (w *Crew) Result(m *wire.FromShim) error { return w.l.result(m) }

// Close waits for a crew whose Done was called, or that was not started, and
// removes what only a running one needs.
func (w *Crew) Close() error {
	var errs []error
	if w.spawner != nil {
		w.post(func() { w.over = true })
		w.wg.Wait()
		for i := range w.slots {
			w.drop(i)
		}
		w.harvest.close()
		w.commit.close()
		w.spawner.Close()
		w.scratch.close()
		for _, s := range w.slots {
			errs = append(errs, s.memory.close())
		}
	}
	return errors.Join(append(errs, w.l.j.Close())...)
}

func (w *Crew) run() {
	defer close(w.gone)
	defer w.tick.Stop()
	for !w.over {
		select {
		case <-w.wake:
		case <-w.tick.C:
		}
		w.mu.Lock()
		todo := w.box
		w.box = nil
		w.mu.Unlock()
		for _, f := range todo {
			f()
		}
		w.clock(time.Now())
		w.refill()
		w.scratch.mark()
		w.finishIfDone()
	}
}

// ended takes the ends of elements.
func (w *Crew) ended(ends []Ended) {
	orphans := proc.Orphans()
	kept := orphans[:0]
	for _, o := range orphans {
		if len(proc.Environ(o)) > 0 { // not a zombie
			kept = append(kept, o)
		}
	}
	var results []*result
	for _, x := range ends {
		e := w.flight[x.Tag]
		if e == nil {
			continue
		}
		delete(w.flight, x.Tag)
		s := w.slots[e.slot]
		s.queue = slices.DeleteFunc(s.queue, func(o *element) bool { return o == e })
		left := len(kept) > 0
		if x.Pid > 0 && proc.KillGroup(x.Pid) {
			left = true
		}
		results = append(results, w.resultOf(e, x, left))
		w.arm(s, x.End)
	}
	if len(kept) > 0 {
		w.killStrays(kept)
	}
	w.take(results)
}

// take hands results on.
func (w *Crew) take(results []*result) {
	var plain []*result
	for _, r := range results {
		w.done.add(r.attempt, r.index, r.index+1)
		if r.scratch != nil {
			w.harvest.put(r)
			continue
		}
		plain = append(plain, r)
	}
	w.commit.put(plain...)
}

// resultOf is how an element ended. left says that something of it may still
// write to its output.
func (w *Crew) resultOf(e *element, x Ended, left bool) *result {
	r := &result{index: e.index, attempt: e.attempt, start: x.Start.UnixMicro(), wall: uint64(max(x.End.Sub(x.Start).Microseconds(), 0)), end: x.End}
	if x.Err != nil {
		r.failure, r.code = w.h.Failure(x.Err)
	} else {
		st := x.Status
		r.cpu, r.rss = uint64((st.User + st.System).Microseconds()), st.MaxRSS>>10
		r.code, r.signal = int32(st.ExitCode), int32(st.Signal)
	}
	if e.stop != nil && x.Err == nil && (r.code != 0 || r.signal != 0 || e.stop.GetCode() == wire.FailureCode_FAILURE_TIME_LIMIT) {
		r.failure = e.stop
	}
	w.measure(e, r)
	if wall := x.End.Sub(x.Start).Seconds(); w.walls == 0 {
		w.wall = wall
	} else {
		const recent = 0.1
		w.wall += recent * (wall - w.wall)
	}
	w.walls++
	if left || !x.Silent && e.scratch.written() {
		e.scratch.busy = false // the harvester's now
		r.scratch, r.left = e.scratch, left
	} else {
		w.scratch.back(e.scratch)
	}
	return r
}

// end is End's.
func (w *Crew) end(cause *wire.Failure, now bool) {
	if w.stopping == nil {
		w.stopping = cause
		var back set = set{}
		for _, b := range w.pending {
			back.add(b.attempt, b.lo, b.hi)
		}
		w.pending = nil
		if w.started {
			for i := range w.slots {
				for _, e := range w.drop(i) {
					back.add(e.attempt, e.index, e.index+1)
				}
			}
		}
		w.giveBack(back)
	}
	if w.killed {
		return
	}
	w.killed = now
	sig := syscall.SIGTERM
	at := time.Now()
	if now {
		sig = syscall.SIGKILL
	} else {
		at = at.Add(w.c.KillGrace)
	}
	for _, e := range w.flight {
		if e.stop == nil {
			e.stop = w.stopping
		}
		sent := w.spawner.Signal(e.slot, e.tag, int(sig))
		if now && sent {
			continue
		}
		if !sent {
			w.unheard = append(w.unheard, e.tag)
		}
		w.graces = append(w.graces, deadline{e.tag, at})
	}
	if now { // those of a longer grace are killed too: the list is in order of time
		sortDeadlines(w.graces)
	}
	if len(w.unheard) > 0 {
		w.tick.Reset(unheardPause)
	}
}

// finishIfDone says when nothing is left to do.
func (w *Crew) finishIfDone() {
	if w.over || !w.started || len(w.flight) > 0 || len(w.pending) > 0 || !w.last && w.stopping == nil {
		return
	}
	w.started = false // once
	w.wg.Go(func() {
		w.killStrays(proc.Children())
		w.harvest.drain()
		w.commit.drain()
		w.h.Done()
	})
}

// Loss is what of the elements' output was lost, in words; "": nothing.
func (w *Crew) Loss() string {
	if w.harvest == nil {
		return ""
	}
	return w.harvest.loss()
}

// variables are those that tell an element from others.
func (w *Crew) variables(env []string, e *element) []string {
	index := strconv.FormatUint(e.index, 10)
	env = append(env, "GANGWAY_ARRAY_INDEX="+index, "GANGWAY_ATTEMPT="+strconv.FormatUint(uint64(e.attempt), 10), "GANGWAY_SLOT="+strconv.Itoa(e.slot))
	if w.c.Size > 0 {
		env = append(env, "GANGWAY_ARRAY_SIZE="+strconv.FormatUint(w.c.Size, 10))
	}
	if w.c.Task != "" {
		env = append(env, "AZ_BATCH_TASK_ID="+w.c.Task+"_"+index)
	}
	return env
}

// PackDir is where a kept array's packs are in its task's directory.
func PackDir(taskPath string) string { return filepath.Join(taskPath, pack.Dir) }
