package agents

import (
	"slices"
	"sync"

	"connectrpc.com/connect"

	"gangway/launcher/state"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// session is the sending side of a connection to an agent.
type session struct {
	out     *link.Queue[*wire.LauncherMessage]
	gone    chan struct{} // closed when the agent said that nothing is left
	ended   chan struct{} // closed when the connection is over
	sender  sync.WaitGroup
	present map[string]bool // ids in the agent's inventory when it began

	protocol uint32 // the agent's
	files    *fileCalls
}

func newSession(stream *connect.BidiStream[wire.AgentMessage, wire.LauncherMessage], inv *wire.Inventory) *session {
	s := &session{out: link.NewQueue[*wire.LauncherMessage](), gone: make(chan struct{}), ended: make(chan struct{}), present: map[string]bool{}, files: newFileCalls()}
	for _, sh := range inv.GetShims() {
		s.present[sh.GetId()] = true
	}
	s.sender.Go(func() {
		for {
			m, ok := s.out.Take()
			if !ok || stream.Send(m) != nil {
				return // the receiver sees the end too
			}
		}
	})
	return s
}

func (s *session) put(m *wire.LauncherMessage) { s.out.Put(m) }

func (s *session) goodbye() {
	s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_Goodbye{Goodbye: &wire.Goodbye{}}})
}

func (s *session) stop() {
	s.out.Close()
	s.sender.Wait()
	close(s.ended)
}

// bring sends what leads from old to parts. On a new session (full) everything
// is said again: the agent knows what it has, and shims take a second launch
// or end for the first.
func (s *session) bring(old, parts []state.Part, full bool, cfg Config) {
	d := state.Delta(old, parts)
	if full {
		d = state.Difference{Set: parts}
	}
	desired := &wire.Desired{Full: full, Remove: d.Remove}
	var to []*wire.ToShim
	for i := range d.Set {
		p := &d.Set[i]
		known := s.present[p.ID] || (!full && slices.ContainsFunc(old, func(o state.Part) bool { return o.ID == p.ID }))
		// What is past its preparation and not on the node is gone; to set
		// it again would start it a second time.
		if known && full || !known && p.Phase == state.PhasePrepare {
			desired.Set = append(desired.Set, assignmentOf(p, cfg))
		}
		to = append(to, phaseOf(p)...)
	}
	if full || len(desired.Set) > 0 || len(desired.Remove) > 0 {
		s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_Desired{Desired: desired}})
	}
	for _, m := range to {
		s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_ToShim{ToShim: m}})
	}
}

// phaseOf is what moves a shim into the part's phase. A shim that is told to
// forget while it runs goes on to its end by itself, so it is ended first.
func phaseOf(p *state.Part) []*wire.ToShim {
	end := &wire.ToShim{Id: p.ID, M: &wire.ToShim_End{End: &wire.End{Reason: p.End.String(), Now: p.EndNow}}}
	switch p.Phase {
	case state.PhaseLaunch:
		l := &wire.Launch{}
		for _, q := range p.Peers {
			l.Peers = append(l.Peers, peerOf(q))
		}
		return []*wire.ToShim{{Id: p.ID, M: &wire.ToShim_Launch{Launch: l}}}
	case state.PhaseEnd:
		return []*wire.ToShim{end}
	case state.PhaseForget:
		forget := &wire.ToShim{Id: p.ID, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}}
		if p.End.Code == "" {
			return []*wire.ToShim{forget}
		}
		return []*wire.ToShim{end, forget}
	}
	return nil
}
