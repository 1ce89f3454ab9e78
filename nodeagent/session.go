package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
)

// session is one launcher's connection. cluster, epoch and the rest are set
// once, before the session is posted to run.
type session struct {
	cluster string
	epoch   uint64
	who     string
	lease   time.Duration
	usage   time.Duration // between samples of the node's usage; 0: none are wanted
	out     *link.Queue[*wire.AgentMessage]
	over    chan struct{} // closed when serve returns
	cancel  context.CancelFunc
	bye     bool            // the launcher wants nothing more
	parted  bool            // it was told that nothing of it is left
	updates bool            // NodeUpdate is wanted
	renew   bool            // the launcher wants an agent of another version
	hello   *wire.Hello     // whose model of the node the launcher has
	shown   map[string]bool // ids of shims that the launcher knows from this session
}

// patience is how long the session may be without any message. It bounds how
// late a heartbeat may come and still renew leases: the launcher gives work up
// after one and a half of them, whatever is still on its way to the node.
func (s *session) patience() time.Duration {
	if s.lease > 0 {
		return min(silence, s.lease/2)
	}
	return silence
}

func (s *session) send(m *wire.AgentMessage) { s.out.Put(m) }

// gone says the session's last word; the launcher then closes the connection.
func (s *session) gone() {
	if !s.parted {
		s.parted = true
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_Gone{Gone: &wire.Gone{}}})
		s.out.Finish()
	}
}

func (s *session) close() {
	s.out.Close()
	s.cancel()
}

// serve is a connection's life, in a goroutine of its own. err says why no session
// was opened; how one ends is no error.
func (a *agent) serve(ctx context.Context, conn net.Conn) (opened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hc, closeConn := link.Client(conn)
	defer closeConn()
	stop := context.AfterFunc(ctx, closeConn)
	defer stop()
	stream := wireconnect.NewLauncherClient(hc, "http://launcher", connect.WithGRPC(), connect.WithAcceptCompression("gzip", nil, nil)).Session(ctx)
	// The launcher must say who it is before it gets anything to do here.
	hello, ok := a.greeting(ctx)
	if !ok {
		return false, nil
	}
	greet := time.AfterFunc(silence, cancel)
	err = stream.Send(&wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: hello}})
	var w *wire.Welcome
	if err == nil {
		var m *wire.LauncherMessage
		if m, err = stream.Receive(); err == nil {
			w = m.GetWelcome()
		}
	}
	greet.Stop()
	switch {
	case err != nil:
	case w == nil:
		err = errors.New("the launcher's first message was not a welcome")
	case w.GetError() != "":
		err = fmt.Errorf("the launcher refused the session: %s", w.GetError())
	case !wire.Speaks(w.GetProtocol()):
		err = fmt.Errorf("the launcher speaks protocol %d, this agent %d to %d", w.GetProtocol(), wire.OldestVersion, wire.Version)
	}
	if err != nil {
		return false, err
	}
	s := &session{
		cluster: w.GetCluster(), epoch: w.GetEpoch(), who: w.GetWho(),
		lease: time.Duration(w.GetLeaseMs()) * time.Millisecond,
		usage: usageEvery(w.GetUsageMs()),
		out:   link.NewQueue[*wire.AgentMessage](), over: make(chan struct{}), cancel: cancel,
		shown: map[string]bool{}, updates: w.GetNodeUpdates(), renew: w.GetRenew(), hello: hello,
	}
	defer close(s.over)
	a.post(func(a *agent) { a.open(s) })
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			m, ok := s.out.Take()
			if !ok {
				_ = stream.CloseRequest() // it fails when the connection is gone
				return
			}
			if err := stream.Send(m); err != nil {
				cancel()
				return
			}
		}
	})
	quiet := s.patience()
	watch := time.AfterFunc(quiet, cancel)
	bye := false
	for {
		m, err := stream.Receive()
		if err != nil {
			if !bye {
				a.cfg.Log.Info("session ended", "launcher", s.who, "err", err)
			}
			break
		}
		watch.Reset(quiet)
		bye = bye || m.GetGoodbye() != nil
		a.post(func(a *agent) { a.handle(s, m) })
	}
	watch.Stop()
	s.close()
	sender.Wait()
	a.post(func(a *agent) { a.closed(s, bye) })
	return true, nil
}

// open makes s the session of its cluster. An older session of the same
// cluster is a launcher's dead connection and gives way; a launcher that has
// been replaced does not come back.
func (a *agent) open(s *session) {
	if seen := a.epochs[s.cluster]; s.epoch < seen {
		a.cfg.Log.Warn("session of a launcher that has been replaced", "launcher", s.who)
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_Error{Error: &wire.AgentError{Code: wire.ErrorCode_ERROR_STALE_EPOCH,
			Message: fmt.Sprintf("epoch %d is over, this node has seen %d", s.epoch, seen)}}})
		s.out.Finish()
		return
	}
	a.release(s.cluster, func(string) bool { return true })
	for o := range a.sessions {
		if o.cluster == s.cluster {
			o.close()
			delete(a.sessions, o)
		}
	}
	a.sessions[s] = struct{}{}
	a.leaving = false
	a.idleFor = idleLater
	if s.epoch > a.epochs[s.cluster] {
		a.epochs[s.cluster] = s.epoch
	}
	inv := a.inventory(s)
	inv.Folders = a.foldersOf(s.cluster)
	s.send(&wire.AgentMessage{M: &wire.AgentMessage_Inventory{Inventory: inv}})
	a.gpus.tell(a, s)
	if s.usage > 0 {
		a.wg.Go(func() { a.sample(s) })
	}
	for _, sh := range a.sorted() {
		switch {
		case sh.e.Cluster != s.cluster:
		case sh.cleared.IsZero():
			// The shim says again what no launcher has acknowledged.
			sh.reconnect(a)
		default:
			a.report(sh) // in its place
		}
	}
}

func (a *agent) closed(s *session, bye bool) {
	if _, ok := a.sessions[s]; !ok {
		return
	}
	delete(a.sessions, s)
	if bye {
		a.leaving = true
	}
}

// of returns the session of a cluster, nil when its launcher is away.
func (a *agent) of(cluster string) *session {
	for s := range a.sessions {
		if s.cluster == cluster {
			return s
		}
	}
	return nil
}

func (a *agent) handle(s *session, m *wire.LauncherMessage) {
	if _, ok := a.sessions[s]; !ok {
		return // a session that gave way
	}
	if s.epoch < a.epochs[s.cluster] {
		a.cfg.Log.Warn("message of a launcher that has been replaced", "launcher", s.who)
		return
	}
	switch m := m.GetM().(type) {
	case *wire.LauncherMessage_Desired:
		a.desired(s, m.Desired)
	case *wire.LauncherMessage_ToShim:
		sh := a.shims[m.ToShim.GetId()]
		switch {
		case sh != nil && sh.e.Cluster == s.cluster:
			sh.send(m.ToShim)
			if !sh.cleared.IsZero() && (sh.forget || m.ToShim.GetBlockAck() != nil && len(sh.blocks) == 0) {
				a.report(sh)
			}
		case sh == nil && (m.ToShim.GetEnd() != nil || m.ToShim.GetForget() != nil):
			// The launcher waits for the end of something that is not here,
			// and would hold its cores for ever.
			a.release(s.cluster, func(id string) bool { return id == m.ToShim.GetId() })
			s.send(&wire.AgentMessage{M: &wire.AgentMessage_ShimGone{ShimGone: &wire.ShimGone{
				Id: m.ToShim.GetId(), Lost: true, Reason: "it is not on this node"}}})
		}
	case *wire.LauncherMessage_Look:
		a.gpus.look(a)
	case *wire.LauncherMessage_FileRequest:
		a.fileRequest(s, m.FileRequest)
	case *wire.LauncherMessage_Heartbeat:
		for _, sh := range a.shims {
			if sh.e.Cluster != s.cluster {
				continue
			}
			if sh.conn == nil {
				sh.reconnect(a)
			}
			if sh.e.Leased {
				sh.lease(s.lease)
			}
		}
	case *wire.LauncherMessage_Goodbye:
		a.release(s.cluster, func(string) bool { return true })
		for _, sh := range a.sorted() {
			if sh.e.Cluster == s.cluster && sh.e.Session {
				a.end(sh, "the launcher said goodbye")
			}
		}
		a.leaving = true
		s.bye = true
	}
}

func (a *agent) inventory(s *session) *wire.Inventory {
	inv := &wire.Inventory{Foreign: a.foreign(s.cluster)}
	for _, sh := range a.sorted() {
		if sh.e.Cluster == s.cluster {
			s.shown[sh.e.ID] = true
			inv.Shims = append(inv.Shims, &wire.ShimState{Id: sh.e.ID, Name: sh.name(), Phase: sh.phase})
		}
	}
	return inv
}

// claimsChanged tells every launcher but the one that caused it.
func (a *agent) claimsChanged(cause string) {
	for s := range a.sessions {
		if s.cluster != cause {
			s.send(&wire.AgentMessage{M: &wire.AgentMessage_Inventory{Inventory: a.inventory(s)}})
		}
	}
}
