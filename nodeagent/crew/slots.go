package crew

import (
	"os"

	"gangway/nodeagent/proc"
)

// slots is a Spawner made of proc.Slots.
type slots struct {
	s      *proc.Slots
	groups map[*proc.MemoryGroup]*os.File // of run's goroutine alone, but for Close
}

// Slots makes n slots that start programs as fast as the system can. ended is
// called by one goroutine.
func Slots(f *proc.Forker, n int, ended func([]Ended)) (Spawner, error) {
	s, err := f.NewSlots(n, func(ends []proc.SlotEnd) {
		out := make([]Ended, len(ends))
		for i, e := range ends {
			out[i] = Ended{Slot: e.Slot, Tag: e.Tag, Pid: e.Pid, Status: e.Status, Start: e.Start, End: e.End,
				Silent: e.StdoutEnd == 0 && e.StderrEnd == 0, Err: e.Err}
		}
		ended(out)
	})
	if err != nil {
		return nil, err
	}
	return &slots{s: s, groups: map[*proc.MemoryGroup]*os.File{}}, nil
}

// Start is called by one goroutine only.
func (s *slots) Start(slot int, tag uint64, c Command) {
	s.s.Start(slot, tag, proc.SlotCommand{Path: c.Path, Argv: c.Argv, Env: c.Env, Dir: c.Dir,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, CPUs: c.CPUs, Cgroup: s.group(c.Memory)})
}

// group is the directory of a memory group; nil when there is none, or when it
// can't be opened: then the element is not limited, like one whose group could
// not be made.
func (s *slots) group(g *proc.MemoryGroup) *os.File {
	if g == nil {
		return nil
	}
	d, ok := s.groups[g]
	if !ok {
		d, _ = g.Open()
		s.groups[g] = d
	}
	return d
}

func (s *slots) Signal(slot int, tag uint64, sig int) bool { return s.s.Signal(slot, tag, sig) }
func (s *slots) Drop(slot int) []uint64                    { return s.s.Drop(slot) }

func (s *slots) Close() {
	s.s.Close()
	for _, d := range s.groups {
		if d != nil {
			_ = d.Close()
		}
	}
}
