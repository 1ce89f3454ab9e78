package main

import (
	"math"
	"slices"
	"time"
)

const (
	// foldWait is how long a line waits for other ranks to say it too.
	foldWait = 200 * time.Millisecond
	// foldHeld bounds what a folder holds, in bytes: lines, and what it notes of
	// the ranks that said them. What came first is shown before its time then.
	foldHeld = 8 << 20
	// foldLines bounds how many different lines are held: finding a place among
	// them takes time.
	foldLines = 8192
	// groupCost and saidCost are what a group weighs besides its line, and each
	// rank that said it.
	groupCost = 256
	saidCost  = 48
)

// folder joins equal lines of many ranks. It holds the lines that are not shown
// yet in one order, in which every rank's own lines keep theirs; a line that a
// rank says joins the first equal one behind what the rank said last. Where
// there is none it gets a place there, in front of what the rank has not said
// yet: so ranks that say the same but for one line of their own meet again
// behind it.
//
// A line is shown, with the ranks that said it, when it is the first and all
// ranks whose stream is open have said it, when its time is over, or when too
// much is held. Time is an argument: calls must not go back in it.
type folder struct {
	wait time.Duration
	most int // bytes held
	open int // ranks whose stream has not ended

	first   *foldGroup
	byLine  map[string][]*foldGroup // in order
	at      map[int]*foldGroup      // what each rank said last, while it is held
	leaving map[int]bool            // ended, with lines that are held
	tail    *foldGroup              // the last one put in front for ranks that are nowhere
	held    int
	lines   int // held

	show func(ranks []int, line string) // ranks ascending; line without its end
}

// foldGroup is one line, said by some ranks.
type foldGroup struct {
	line       string
	kind       uint64 // the same for lines that differ in numbers only
	ranks      []int
	due        time.Time // not later than the next one's
	label      uint64    // ascends in order
	prev, next *foldGroup
	after      *foldGroup // the last one that was put right behind this one or its likes
}

func newFolder(ranks int, show func(ranks []int, line string)) *folder {
	return &folder{wait: foldWait, most: foldHeld, open: ranks, byLine: map[string][]*foldGroup{}, at: map[int]*foldGroup{}, leaving: map[int]bool{}, show: show}
}

// add takes a line of a rank, without its end.
func (f *folder) add(now time.Time, rank int, line []byte) {
	f.expire(now)
	at := f.at[rank]
	g := f.following(at, line)
	if g == nil {
		g = f.insert(now, at, string(line))
	}
	g.ranks = append(g.ranks, rank)
	f.at[rank] = g
	f.held += saidCost
	f.showComplete()
	for f.first != nil && (f.held > f.most || f.lines > foldLines) {
		f.showFirst()
	}
}

// ended notes that a rank, which has not been said to have ended before, will
// say no more. While lines of it are held it counts among those that said them.
func (f *folder) ended(now time.Time, rank int) {
	f.expire(now)
	if f.at[rank] != nil {
		f.leaving[rank] = true
		return
	}
	f.open--
	f.showComplete()
}

// expire shows what has waited long enough.
func (f *folder) expire(now time.Time) {
	for f.first != nil && !f.first.due.After(now) {
		f.showFirst()
	}
}

// next is when expire has something to show; false: nothing is held.
func (f *folder) next() (time.Time, bool) {
	if f.first == nil {
		return time.Time{}, false
	}
	return f.first.due, true
}

// flush shows everything.
func (f *folder) flush() {
	for f.first != nil {
		f.showFirst()
	}
}

func (f *folder) showComplete() {
	for f.first != nil && len(f.first.ranks) >= f.open {
		f.showFirst()
	}
}

// following finds the first group of the line behind at; nil at is in front of
// all.
func (f *folder) following(at *foldGroup, line []byte) *foldGroup {
	groups := f.byLine[string(line)]
	i := 0
	if at != nil {
		i, _ = slices.BinarySearchFunc(groups, at.label+1, compareLabel)
	}
	if i < len(groups) {
		return groups[i]
	}
	return nil
}

func compareLabel(g *foldGroup, label uint64) int {
	switch {
	case g.label < label:
		return -1
	case g.label > label:
		return 1
	}
	return 0
}

// insert puts a new group right behind at, in front of what its rank may say next.
// Only lines that differ in their numbers alone keep the order in which they came:
// each rank's own of a kind.
func (f *folder) insert(now time.Time, at *foldGroup, line string) *foldGroup {
	before, kind := at, kindOf(line)
	after := f.tail
	if at != nil {
		after = at.after
	}
	if after != nil && after.kind == kind {
		before = after
	}
	g := &foldGroup{line: line, kind: kind, due: now.Add(f.wait), prev: before}
	if before == nil {
		g.next, f.first = f.first, g
	} else {
		g.next, before.next = before.next, g
	}
	if g.next != nil {
		g.next.prev = g
		// It holds up nobody for longer than they wait already.
		if g.next.due.Before(g.due) {
			g.due = g.next.due
		}
	}
	if at == nil {
		f.tail = g
	} else {
		at.after = g
	}
	f.number(g)
	groups := f.byLine[line]
	i, _ := slices.BinarySearchFunc(groups, g.label, compareLabel)
	f.byLine[line] = slices.Insert(groups, i, g)
	f.held += len(line) + groupCost
	f.lines++
	return g
}

// number labels a group between its neighbours; when there is no room, all anew.
func (f *folder) number(g *foldGroup) {
	const step, small = 1 << 40, 1 << 20
	var lo, hi uint64 = 0, math.MaxUint64
	if g.prev != nil {
		lo = g.prev.label
	}
	if g.next != nil {
		hi = g.next.label
	}
	switch {
	case g.next == nil && lo < math.MaxUint64-step:
		g.label = lo + step
	case hi-lo >= 2:
		g.label = lo + min((hi-lo)/2, small) // the next one comes behind it, most often
	default:
		n := uint64(0)
		for h := f.first; h != nil; h = h.next {
			n += step
			h.label = n
		}
	}
}

// kindOf hashes a line (FNV-1a) with each number taken for the same one.
func kindOf(line string) uint64 {
	h, digit := uint64(14695981039346656037), false
	for i := range len(line) {
		c := line[i]
		if c >= '0' && c <= '9' {
			if digit {
				continue
			}
			c, digit = '0', true
		} else {
			digit = false
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func (f *folder) showFirst() {
	g := f.first
	f.first = g.next
	if g.next != nil {
		g.next.prev = nil
	}
	// Ranks that were here are in front of all now.
	if g.after != nil || f.tail == g {
		f.tail = g.after
	}
	// The first in order is the first of its line.
	if groups := f.byLine[g.line]; len(groups) > 1 {
		groups[0] = nil
		f.byLine[g.line] = groups[1:]
	} else {
		delete(f.byLine, g.line)
	}
	for _, r := range g.ranks {
		if f.at[r] == g {
			delete(f.at, r)
			if f.leaving[r] {
				delete(f.leaving, r)
				f.open--
			}
		}
	}
	f.lines--
	f.held -= len(g.line) + groupCost + saidCost*len(g.ranks)
	slices.Sort(g.ranks)
	f.show(g.ranks, g.line)
	g.next, g.after = nil, nil
}
