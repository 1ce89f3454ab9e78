package main

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"gangway/launcher/job"
	"gangway/topology"
)

// foldTails bounds what all ranks' unfinished lines hold, in bytes.
const foldTails = 8 << 20

// foldStream is stdout or stderr with equal lines of ranks joined.
type foldStream struct {
	to *outputStream

	mu    sync.Mutex // held in a write, as outputStream.mu
	f     *folder
	tails map[int][]byte // unfinished lines by rank, at most maxLine each
	held  int            // bytes of tails
	ended map[int]bool
	out   bytes.Buffer
	timer *time.Timer
	gone  bool // the run is over
}

// newFoldStream folds the output of ranks.
func newFoldStream(to *outputStream, ranks int) *foldStream {
	s := &foldStream{to: to, tails: map[int][]byte{}, ended: map[int]bool{}}
	s.f = newFolder(ranks, s.line)
	return s
}

func (s *foldStream) line(ranks []int, line string) {
	s.out.WriteByte('[')
	s.out.WriteString(topology.FormatRanks(ranks))
	s.out.WriteString("] ")
	s.out.WriteString(line)
	s.out.WriteByte('\n')
}

// add takes output of a rank. Lines longer than maxLine are folded, and shown, in
// pieces.
func (s *foldStream) add(rank int, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(data) > 0 {
		tail := s.tails[rank]
		i := bytes.IndexByte(data, '\n')
		take, end := data, i >= 0
		if end {
			take = data[:i]
		}
		if room := maxLine - len(tail); len(take) > room {
			take, end = take[:room], false
		}
		data = data[len(take):]
		full := !end && len(data) > 0 // then the next byte is not the line's end
		if end {
			data = data[1:]
		}
		switch {
		case end && len(tail) == 0:
			s.f.add(now, rank, take)
			continue
		case len(tail) == 0:
			tail = bytes.Clone(take)
		default:
			tail = append(tail, take...)
		}
		s.held += len(take)
		if end || full || s.held > foldTails {
			s.f.add(now, rank, tail)
			s.held -= len(tail)
			delete(s.tails, rank)
			continue
		}
		s.tails[rank] = tail
	}
	return s.write(now)
}

// end notes that a rank's stream has ended.
func (s *foldStream) end(rank int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[rank] {
		return nil
	}
	s.ended[rank] = true
	now := time.Now()
	s.endLine(now, rank)
	s.f.ended(now, rank)
	return s.write(now)
}

// endLine ends a line that never got its end.
func (s *foldStream) endLine(now time.Time, rank int) {
	if tail := s.tails[rank]; len(tail) > 0 {
		s.f.add(now, rank, tail)
		s.held -= len(tail)
		delete(s.tails, rank)
	}
}

// write writes what is shown, and comes back when more is due.
func (s *foldStream) write(now time.Time) error {
	if due, ok := s.f.next(); ok && !s.gone {
		if s.timer == nil {
			s.timer = time.AfterFunc(due.Sub(now), s.expire)
		} else {
			s.timer.Reset(due.Sub(now))
		}
	}
	if s.out.Len() == 0 {
		return nil
	}
	err := s.to.plain(s.out.Bytes())
	if s.out.Cap() > 1<<20 {
		s.out = bytes.Buffer{}
	}
	s.out.Reset()
	return err
}

func (s *foldStream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.f.expire(now)
	_ = s.write(now) // the stream keeps its error for the next write
}

// last shows all that is held, unless a write still hangs.
func (s *foldStream) last() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	s.gone = true
	if s.timer != nil {
		s.timer.Stop()
	}
	now := time.Now()
	for _, r := range slices.Sorted(maps.Keys(s.tails)) {
		s.endLine(now, r)
	}
	s.f.flush()
	if s.out.Len() > 0 && s.to.mu.TryLock() {
		_ = s.to.alone(s.out.Bytes())
		s.to.mu.Unlock()
	}
	s.out.Reset()
}

// foldRanks begins to fold an attempt's output, and shows what is held of the one
// before.
func (s *sink) foldRanks(rec job.AttemptRow) {
	ranks := 0
	for _, p := range rec.Parts {
		ranks += p.Ranks
	}
	for _, f := range s.setFolds(ranks) {
		f.last()
	}
}

func (s *sink) setFolds(ranks int) (old []*foldStream) {
	old = s.foldStreams()
	s.foldMu.Lock()
	defer s.foldMu.Unlock()
	s.folds = [2]*foldStream{newFoldStream(&s.out, ranks), newFoldStream(&s.err, ranks)}
	return old
}

// foldStreams are those in use.
func (s *sink) foldStreams() []*foldStream {
	s.foldMu.Lock()
	defer s.foldMu.Unlock()
	if s.folds[0] == nil {
		return nil
	}
	return []*foldStream{s.folds[0], s.folds[1]}
}

// folded is the stream to fold a rank's output with.
func (s *sink) folded(stderr bool) *foldStream {
	if s.foldStreams() == nil {
		s.setFolds(0) // nothing is waited for
	}
	f := s.foldStreams()
	if stderr {
		return f[1]
	}
	return f[0]
}

// OutputEnd implements launcher.EndSink.
func (s *sink) OutputEnd(rank int, stderr bool) {
	if s.fold {
		_ = s.folded(stderr).end(rank) // the stream keeps its error for the next write
	}
}
