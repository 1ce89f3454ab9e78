package crew

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"gangway/nodeagent/wire"
)

// How many elements are queued behind the one that a slot runs. The ends of
// short ones are told together some milliseconds later, and until then the slot
// must have something to do: aheadTime is three times what proc.Slots may wait.
// What takes longer than alone had better stay where no slot has it; what is
// shorter has one behind it, so that a slot does not wait for this process.
const (
	mostAhead  = 32
	leastAhead = 8    // of crews with many slots
	allAhead   = 1024 // in all slots, unless that is less than leastAhead in each
	aheadTime  = 24 * time.Millisecond
	alone      = 250 * time.Millisecond
)

// most is how many elements are queued at most behind the one that a slot runs:
// each has files of its own.
func (w *Crew) most() int {
	return max(leastAhead, min(mostAhead, allAhead/len(w.slots)))
}

// batch is a range of elements in the same attempt that is not begun.
type batch struct {
	attempt uint32
	lo, hi  uint64
	sweep   []byte // whose first element is first; empty: the crew's
	first   uint64
	texts   Texts // of sweep, once it was looked at
	err     error // why it can't be
}

// work takes on what is new of a Work and gives back what is no longer in it.
func (w *Crew) work(m *wire.Work) {
	if m.GetSeq() < w.seq || w.over {
		return
	}
	w.seq, w.last = m.GetSeq(), w.last || m.GetLast()
	wanted := set{}
	for _, r := range m.GetRuns() {
		wanted.add(r.GetAttempt(), r.GetRange().GetLo(), r.GetRange().GetHi())
	}
	// What has a block and is not in this list will be in none that follows.
	w.done = w.done.common(wanted)
	for a, list := range w.commit.uncommitted(w.l) {
		for _, p := range list {
			w.done.add(a, p.lo, p.hi)
		}
	}
	back := set{}
	for _, b := range w.pending {
		wanted.minus(b.attempt, b.lo, b.hi, func(lo, hi uint64) { back.add(b.attempt, lo, hi) })
	}
	has := set{}
	for _, e := range w.flight {
		has.add(e.attempt, e.index, e.index+1)
	}
	for i, s := range w.slots {
		revoked := func(e *element) bool { return !wanted.has(e.attempt, e.index) }
		if len(s.queue) < 2 || !slices.ContainsFunc(s.queue[1:], revoked) {
			continue
		}
		for _, e := range w.drop(i) {
			has.remove(e.attempt, e.index, e.index+1)
			if revoked(e) {
				back.add(e.attempt, e.index, e.index+1)
			}
		}
	}
	before := w.pending
	w.pending = nil
	taken := set{}
	for _, r := range m.GetRuns() {
		lo, hi, attempt := r.GetRange().GetLo(), r.GetRange().GetHi(), r.GetAttempt()
		w.done.minus(attempt, lo, hi, func(lo, hi uint64) {
			has.minus(attempt, lo, hi, func(lo, hi uint64) {
				taken.minus(attempt, lo, hi, func(lo, hi uint64) {
					w.pending = append(w.pending, &batch{attempt: attempt, lo: lo, hi: hi, sweep: r.GetSweepJson(), first: r.GetRange().GetLo()})
				})
			})
		})
		taken.add(attempt, lo, hi)
	}
	w.keepTexts(before)
	if err := w.l.give(m.GetRuns()); err != nil {
		w.h.Notice(true, w.c.Node+": "+err.Error())
	}
	if w.stopping != nil {
		for _, b := range w.pending {
			back.add(b.attempt, b.lo, b.hi)
		}
		w.pending = nil
	}
	w.giveBack(back)
}

// keepTexts saves compiling a sweep again that came before.
func (w *Crew) keepTexts(before []*batch) {
	type key struct {
		first uint64
		sweep string
	}
	known := map[key]Texts{}
	for _, b := range before {
		if b.texts != nil && len(b.sweep) > 0 {
			known[key{b.first, string(b.sweep)}] = b.texts
		}
	}
	if len(known) == 0 {
		return
	}
	for _, b := range w.pending {
		b.texts = known[key{b.first, string(b.sweep)}]
	}
}

// giveBack tells what will not be started.
func (w *Crew) giveBack(s set) {
	if s.empty() {
		return
	}
	for a, list := range s {
		for _, p := range list {
			w.done.add(a, p.lo, p.hi)
		}
	}
	w.commit.giveBack(s)
}

// drop takes back what a slot has queued and not started.
func (w *Crew) drop(slot int) []*element {
	var out []*element
	s := w.slots[slot]
	for _, tag := range w.spawner.Drop(slot) {
		e := w.flight[tag]
		if e == nil {
			continue
		}
		delete(w.flight, tag)
		s.queue = slices.DeleteFunc(s.queue, func(o *element) bool { return o == e })
		w.scratch.back(e.scratch)
		out = append(out, e)
	}
	if len(s.queue) == 0 {
		s.due, s.soft = time.Time{}, time.Time{} // the first of them had a limit, and was not begun
	}
	return out
}

// ahead is how many elements to queue behind the one that runs. The counters of
// a memory group are looked at between two elements, so none is queued there.
func (w *Crew) ahead() int {
	if w.c.Memory > 0 {
		return 0
	}
	if w.walls == 0 { // perhaps they take hours
		return 0
	}
	n := min(int(aheadTime.Seconds()/max(w.wall, 1e-4)), w.most())
	if w.wall < alone.Seconds() {
		n = max(n, 1)
	}
	return n
}

// refill gives the slots what they can take.
func (w *Crew) refill() {
	if !w.started || w.stopping != nil {
		return
	}
	w.share()
	if len(w.pending) == 0 {
		return
	}
	if !w.held.IsZero() {
		if time.Now().Before(w.held) {
			return
		}
		w.held = time.Time{}
	}
	if w.l.full() || w.commit.backlog() > mostBacklog {
		return // the committer or an acknowledgement calls again
	}
	type start struct {
		e *element
		c Command
	}
	var starts []start
	var failed []*result
	now := time.Now()
	depth := 1 + w.ahead()
	// Round by round, so that each slot has one before any has two.
	for round := 1; round <= depth; round++ {
		for i, s := range w.slots {
			for len(s.queue) < round && len(w.pending) > 0 && len(failed) < mostBacklog {
				sc := w.scratch.take(w.h.Notice)
				if sc == nil {
					break
				}
				e := w.next(i, sc)
				c, err := w.command(e, s)
				if err != nil {
					w.scratch.back(sc)
					r := &result{index: e.index, attempt: e.attempt, start: now.UnixMicro(), end: now}
					r.failure, r.code = w.h.Failure(err)
					failed = append(failed, r)
					continue
				}
				s.queue = append(s.queue, e)
				starts = append(starts, start{e, c})
			}
		}
	}
	if len(starts) > 0 {
		begun := set{}
		for _, x := range starts {
			begun.add(x.e.attempt, x.e.index, x.e.index+1)
		}
		if err := w.l.begin(begun.runs()); err != nil {
			// Nothing runs that is not recorded. It goes back to where it came from.
			if text := err.Error(); text != w.told {
				w.told = text
				w.h.Notice(true, w.c.Node+": nothing more is started: "+text)
			}
			for _, x := range slices.Backward(starts) {
				s := w.slots[x.e.slot]
				s.queue = slices.DeleteFunc(s.queue, func(o *element) bool { return o == x.e })
				w.scratch.back(x.e.scratch)
				w.unbegin(x.e)
			}
			starts = nil
			w.held = now.Add(retryPause)
			w.tick.Reset(retryPause)
		} else {
			w.told = ""
		}
	}
	w.scratch.mark()
	for _, x := range starts {
		w.flight[x.e.tag] = x.e
		if s := w.slots[x.e.slot]; s.queue[0] == x.e {
			w.arm(s, now)
			w.memoryBefore(x.e)
		}
		w.spawner.Start(x.e.slot, x.e.tag, x.c)
	}
	if len(starts) > 0 {
		first := strayPause
		if w.c.TimeLimit > 0 {
			first = min(first, w.c.TimeLimit)
		}
		w.tick.Reset(first) // clock knows better when it comes round
	}
	w.take(failed)
}

// share takes back what waits behind a running element while another slot has
// nothing to do and nothing else is there for it: the mean says little about the
// element that runs.
func (w *Crew) share() {
	if len(w.pending) > 0 {
		return
	}
	idle, longest := 0, 0
	for i, s := range w.slots {
		switch {
		case len(s.queue) == 0:
			idle++
		case len(s.queue) > len(w.slots[longest].queue):
			longest = i
		}
	}
	if idle == 0 || len(w.slots[longest].queue) < 2 {
		return
	}
	for _, e := range slices.Backward(w.drop(longest)) {
		w.unbegin(e)
	}
}

// unbegin puts an element that was not started back before all others.
func (w *Crew) unbegin(e *element) {
	b := *e.from
	b.lo, b.hi = e.index, e.index+1
	w.pending = slices.Insert(w.pending, 0, &b)
}

// next takes the next element for a slot.
func (w *Crew) next(slot int, sc *scratch) *element {
	b := w.pending[0]
	w.tags++
	e := &element{index: b.lo, attempt: b.attempt, tag: w.tags, slot: slot, scratch: sc, from: b}
	if b.lo++; b.lo >= b.hi {
		w.pending[0] = nil
		w.pending = w.pending[1:]
	}
	sc.index, sc.attempt, sc.busy = e.index, e.attempt, true
	return e
}

// layout says where a command's texts are.
type layout struct {
	env      []string // of every element
	places   []int    // in env, of each of Over's entries
	command  int      // texts of it; -1: it has no placeholders
	workdir  bool     // has placeholders
	over     bool
	inherent Texts // of the crew's own sweep; nil: there is none
	err      error // why it can't be read
}

// own are the variables that each element gets a value of its own for.
var own = [...]string{"GANGWAY_ARRAY_INDEX", "GANGWAY_ATTEMPT", "GANGWAY_SLOT"}

// prepareTexts lays out the environment and the texts to be filled in.
func (w *Crew) prepareTexts() {
	p := &w.plan
	perSlot := map[string]bool{}
	for _, s := range w.c.Slots {
		for _, kv := range s.Env {
			name, _, _ := strings.Cut(kv, "=")
			perSlot[name] = true
		}
	}
	for _, name := range own {
		perSlot[name] = true
	}
	if w.c.Task != "" {
		perSlot["AZ_BATCH_TASK_ID"] = true
	}
	if w.c.Size > 0 {
		perSlot["GANGWAY_ARRAY_SIZE"] = true
	}
	for _, kv := range w.c.Env {
		if name, _, _ := strings.Cut(kv, "="); !perSlot[name] {
			p.env = append(p.env, kv)
		}
	}
	p.command = -1
	if slices.Contains(w.c.Fields, "command") {
		p.command = len(w.c.Command)
		w.texts = append(w.texts, w.c.Command...)
	}
	if p.workdir = slices.Contains(w.c.Fields, "workdir") && w.c.Workdir != ""; p.workdir {
		w.texts = append(w.texts, w.c.Workdir)
	}
	if p.over = slices.Contains(w.c.Fields, "env"); p.over {
		for _, kv := range w.c.Over {
			name, _, _ := strings.Cut(kv, "=")
			p.places = append(p.places, slices.IndexFunc(p.env, func(e string) bool { return strings.HasPrefix(e, name+"=") }))
			w.texts = append(w.texts, kv)
		}
	}
	if len(w.c.Sweep) > 0 {
		p.inherent, p.err = w.h.Compile(w.c.Sweep, w.c.First, w.texts)
	}
}

// command is the element's program with its texts filled in.
func (w *Crew) command(e *element, s *slotState) (Command, error) {
	p := &w.plan
	argv, dir := w.c.Command, w.c.Workdir
	env := make([]string, len(p.env), len(p.env)+len(s.Env)+len(own)+2)
	copy(env, p.env)
	texts, err := p.inherent, p.err
	if b := e.from; len(b.sweep) > 0 {
		if b.texts == nil && b.err == nil {
			b.texts, b.err = w.h.Compile(b.sweep, b.first, w.texts)
		}
		texts, err = b.texts, b.err
	}
	if err != nil {
		return Command{}, err
	}
	if texts != nil && len(w.texts) > 0 {
		filled := texts.Expand(e.index, e.slot, make([]string, 0, len(w.texts)))
		if p.command >= 0 {
			argv, filled = filled[:p.command:p.command], filled[p.command:]
		}
		if p.workdir {
			dir, filled = filled[0], filled[1:]
		}
		if p.over {
			for i, at := range p.places {
				if at >= 0 {
					env[at] = filled[i]
				}
			}
		}
	}
	path, err := w.resolve(argv, dir)
	if err != nil {
		return Command{}, err
	}
	env = w.variables(append(env, s.Env...), e)
	return Command{Path: path, Argv: argv, Env: env, Dir: dir, Stdout: e.scratch.files[0], Stderr: e.scratch.files[1], CPUs: s.CPUs, Memory: s.memory.group()}, nil
}

// program is what a name was found to mean.
type program struct {
	path string
	err  error
	at   time.Time
}

// What was found is believed for good, for its absence would be told by the
// start; what was not is looked for again.
const (
	mostPrograms = 1024
	absentFor    = time.Second
)

func (w *Crew) resolve(argv []string, dir string) (string, error) {
	name := ""
	if len(argv) > 0 {
		name = argv[0]
	}
	key := name + "\x00" + dir
	if p, ok := w.programs[key]; ok && (p.err == nil || time.Since(p.at) < absentFor) {
		return p.path, p.err
	}
	if len(w.programs) >= mostPrograms {
		clear(w.programs)
	}
	path, err := w.h.Resolve(name, dir)
	w.programs[key] = program{path, err, time.Now()}
	return path, err
}

// sorted orders runs by index, then by attempt.
func sorted(runs []*wire.Run) []*wire.Run {
	slices.SortFunc(runs, func(a, b *wire.Run) int {
		return cmp.Or(cmp.Compare(a.GetRange().GetLo(), b.GetRange().GetLo()), cmp.Compare(a.GetAttempt(), b.GetAttempt()))
	})
	return runs
}
