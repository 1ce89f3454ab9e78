package crew

import (
	"fmt"
	"os"

	"gangway/nodeagent/pack"
	"gangway/nodeagent/wire"
)

// scratch are the files that an element writes its output to. They are used again
// and again, unless something that may still write to them was left.
type scratch struct {
	n       int
	serial  uint32
	files   [2]*os.File
	paths   [2]string
	index   uint64 // of the element that has it
	attempt uint32
	busy    bool
}

// written says whether anything is in the files. One that can't be asked counts
// as written, so that its fault is found where it is told.
func (s *scratch) written() bool {
	for _, f := range s.files {
		if fi, err := f.Stat(); err != nil || fi.Size() > 0 {
			return true
		}
	}
	return false
}

// scratches are a crew's scratch files. They belong to its goroutine, but for
// what the harvester does with those that it has.
type scratches struct {
	dir, id string
	most    int
	made    int
	free    []*scratch
	all     []*scratch
	live    *pack.Live // nil: not kept
	told    string     // the last failure that was told
}

// take returns a free pair of files, nil when there is none and none can be made.
func (p *scratches) take(notice func(bool, string)) *scratch {
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		return s
	}
	if p.made >= p.most {
		return nil
	}
	s := &scratch{n: p.made}
	if err := p.renew(s); err != nil {
		if text := fmt.Sprintf("the files for elements' output can't be made: %v", err); text != p.told {
			p.told = text
			notice(true, text)
		}
		return nil
	}
	p.made++
	p.all = append(p.all, s)
	return s
}

// back makes a pair free whose files are empty.
func (p *scratches) back(s *scratch) {
	s.busy = false
	p.free = append(p.free, s)
}

// renew gives s fresh files in place of those that it has.
func (p *scratches) renew(s *scratch) error {
	s.serial++
	for i := range s.files {
		path := pack.ScratchPath(p.dir, p.id, s.n, s.serial, i)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		s.drop(i)
		s.files[i], s.paths[i] = f, path
	}
	return nil
}

// drop closes and removes one of the files.
func (s *scratch) drop(i int) {
	if s.files[i] != nil {
		_ = os.Remove(s.paths[i])
		_ = s.files[i].Close()
		s.files[i] = nil
	}
}

// mark writes who has which files, for those who read the output of what runs.
func (p *scratches) mark() {
	if p.live == nil {
		return
	}
	for _, s := range p.all {
		if s.busy {
			p.live.Set(s.n, s.index, s.attempt, s.serial)
		} else {
			p.live.Clear(s.n)
		}
	}
	_ = p.live.Write() // who reads sees the output at the element's end at the latest
}

func (p *scratches) close() {
	for _, s := range p.all {
		for i := range s.files {
			s.drop(i)
		}
	}
	if p.live != nil {
		p.live.Close()
	}
}

// streamOf is the wire's name of a stream.
func streamOf(i int) wire.Stream {
	if i == 1 {
		return wire.Stream_STREAM_STDERR
	}
	return wire.Stream_STREAM_STDOUT
}
