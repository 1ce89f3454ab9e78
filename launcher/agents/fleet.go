// Package agents is the launcher's side of the sessions with the nodes' agents:
// wishes out, news in. It converts between the wire's messages and the state's
// events, and carries the traffic of running attempts past the state.
package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
	"gangway/topology"
)

// Inbox takes events; launcher/control is one.
type Inbox interface {
	Post(state.What)
}

// Traffic sees everything that shims say, in order per shim: output, credits
// and notices concern it alone. It is called by the sessions and must not
// block.
type Traffic interface {
	FromShim(node string, m *wire.FromShim)
}

// Connector opens a stream to a node's agent.
type Connector interface {
	Connect(ctx context.Context, node string) (io.ReadWriteCloser, error)
}

// Config of a Fleet.
type Config struct {
	Connector Connector
	Inbox     Inbox
	Traffic   Traffic
	Cluster   string
	Epoch     uint64
	Who       string // for messages on nodes: who holds these cores
	Lease     time.Duration
	Usage     time.Duration // between samples of the nodes' usage; 0: none
	Base      string        // of the gangs' directories on the nodes; "": /tmp
	Pool      string        // the nodes' pool, for the tasks' environment
	Version   string        // of this program; idle agents of another are renewed. "": any will do
	Log       *slog.Logger
	// Failed is told of a connection that could not be made; it returns
	// whether to try again.
	Failed func(node string, err error, everUp bool) bool
	// Up, if set, is called when a session has begun and Send reaches it.
	Up func(node string)
	// Folders, if set, is told at a session's start which folders of this
	// cluster's jobs the node has, if any. It must not block.
	Folders func(node string, folders []string)
}

// heartbeat is how often leases are renewed, short ones more often.
const heartbeat = 2 * time.Second

// refusalWait is how long a refused agent may take to hang up.
const refusalWait = 2 * time.Second

func (c Config) beat() time.Duration {
	if c.Lease <= 0 {
		return heartbeat
	}
	return max(min(heartbeat, c.Lease/5), 10*time.Millisecond)
}

// Fleet keeps a session to every node.
type Fleet struct {
	cfg     Config
	mu      sync.Mutex
	nodes   map[string]*node
	turns   map[string]*sync.Mutex // by node, see Accept; they outlive their nodes
	agents  map[string]string      // the node whose session an agent has, by the agent's name
	leaving bool                   // Goodbye was said: sessions that end stay ended
}

// node is a node's place in the fleet; session is nil while there is none.
type node struct {
	name    string
	session *session
	ever    bool         // there was a session: something may be left on the node
	parts   []state.Part // wanted, as told last
	told    bool         // parts is valid

	usage   *job.Usage // the last sample; nil: none
	version string     // of the agent that was here last
	renewed string     // version of an agent that was told to give way
	hangUp  func()     // ends that connection, or Keep; nil: none
	kept    bool       // the launcher connects to it, see Keep
}

// New returns a fleet without sessions.
func New(cfg Config) *Fleet {
	return &Fleet{cfg: cfg, nodes: map[string]*node{}, turns: map[string]*sync.Mutex{}, agents: map[string]string{}}
}

// Reserve keeps a name for Keep: from then on Accept refuses it.
func (f *Fleet) Reserve(name string) {
	f.reserve(name)
}

func (f *Fleet) reserve(name string) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	if n == nil {
		n = &node{name: name, kept: true}
		f.nodes[name] = n
	}
	return n
}

// Keep holds a session to the node, opening it again whenever it ends, until
// ctx is done, Failed says to stop, or Forget is called.
func (f *Fleet) Keep(ctx context.Context, name string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := f.reserve(name)
	f.mu.Lock()
	n.hangUp = cancel
	f.mu.Unlock()
	everUp, silent := false, 0
	for pause := 100 * time.Millisecond; ; {
		up, err := f.connect(ctx, n)
		if ctx.Err() != nil {
			return
		}
		if up {
			everUp = true
			pause = 100 * time.Millisecond
			f.cfg.Inbox.Post(state.NodeDown{Node: name, Why: whyDown(err)})
		} else if errors.Is(err, errNoHello) && silent < 5 {
			// The agent that was there ended just then; the next one is new.
			silent++
		} else if err != nil && !f.cfg.Failed(name, err, everUp) {
			return
		}
		f.mu.Lock()
		leaving := f.leaving
		f.mu.Unlock()
		if leaving {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

// connect is one session's life. up: the agent was welcomed.
func (f *Fleet) connect(ctx context.Context, n *node) (up bool, err error) {
	conn, err := f.cfg.Connector.Connect(ctx, n.name)
	if err != nil {
		return false, err
	}
	return f.serve(ctx, n, conn, nil)
}

// serve holds the session on a connection, or tells the agent that it is refused.
func (f *Fleet) serve(ctx context.Context, n *node, conn io.ReadWriteCloser, refused error) (up bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &handler{fleet: f, node: n, cancel: cancel, refused: refused}
	mux := http.NewServeMux()
	mux.Handle(wireconnect.NewLauncherHandler(h, connect.WithReadMaxBytes(wire.MaxFrame), link.Uncompressed()))
	// An agent that does not say hello is none.
	greet := time.AfterFunc(15*time.Second, cancel)
	h.greeted = func() { greet.Stop() }
	err = link.Serve(ctx, link.Conn(conn), mux)
	greet.Stop()
	if h.err != nil {
		err = h.err
	}
	if s, ok := conn.(interface{ Stderr() string }); ok && !h.up {
		if tail := s.Stderr(); tail != "" {
			// Of what the login shell said before, the reader learns nothing.
			if _, own, ok := strings.Cut("\n"+tail, "\ngangway: "); ok {
				tail = own
			}
			err = fmt.Errorf("node %s: the agent can't be reached: %s", n.name, strings.TrimSpace(tail))
		}
	}
	if err == nil && !h.up {
		err = fmt.Errorf("node %s: %w", n.name, errNoHello)
	}
	return h.up, err
}

// errCut is how a session ends when its connection does: the agent was killed, the
// link is down, or the node is.
var errCut = errors.New("the connection to the agent was lost")

// whyDown words how a node's session ended.
func whyDown(err error) string {
	if err == nil {
		return "the agent ended the session"
	}
	return err.Error()
}

var errNoHello = errors.New("the connection to the agent ended before it said anything")

// handler serves the one session of a connection.
type handler struct {
	fleet   *Fleet
	node    *node
	cancel  context.CancelFunc
	refused error // whoever it is; nil: not
	greeted func()
	up      bool
	err     error
}

// Session is called by the agent, once a connection.
func (h *handler) Session(ctx context.Context, stream *connect.BidiStream[wire.AgentMessage, wire.LauncherMessage]) error {
	defer h.cancel() // the session is the connection
	err := h.session(ctx, stream)
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case ctx.Err() != nil:
		if h.up {
			h.err = errCut
		}
	case h.up || !errors.Is(err, context.Canceled):
		h.err = fmt.Errorf("node %s: %w", h.node.name, err)
	}
	return nil
}

func (h *handler) session(ctx context.Context, stream *connect.BidiStream[wire.AgentMessage, wire.LauncherMessage]) error {
	f := h.fleet
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	h.greeted()
	hello := first.GetHello()
	welcome := &wire.Welcome{Protocol: wire.Version, Cluster: f.cfg.Cluster, Epoch: f.cfg.Epoch,
		Who: f.cfg.Who, LeaseMs: uint64(f.cfg.Lease.Milliseconds()), UsageMs: uint32(f.cfg.Usage.Milliseconds()), NodeUpdates: true}
	var topo topology.Node
	switch {
	case h.refused != nil:
		err = h.refused
	case hello == nil:
		err = errors.New("the agent's first message was not a hello")
	case !wire.Speaks(hello.GetProtocol()):
		err = fmt.Errorf("the agent (%s) speaks protocol %d, this gangway (protocols %d to %d) does not; let its jobs end, or use the same version on both sides",
			hello.GetVersion(), hello.GetProtocol(), wire.OldestVersion, wire.Version)
	default:
		if err = json.Unmarshal(hello.GetNodeJson(), &topo); err != nil {
			err = fmt.Errorf("the agent's description of its node can't be read: %w", err)
			break
		}
		if err = f.claim(hello.GetAgent(), h.node.name); err == nil {
			defer f.release(hello.GetAgent(), h.node.name)
		}
	}
	if err != nil {
		welcome.Error = err.Error()
	} else {
		welcome.Renew = f.renew(h.node, hello.GetVersion())
	}
	if serr := stream.Send(&wire.LauncherMessage{M: &wire.LauncherMessage_Welcome{Welcome: welcome}}); serr != nil {
		return serr
	}
	if err != nil {
		h.err = fmt.Errorf("node %s: %w", h.node.name, err)
		// The agent hangs up when it has read why; to do it first could cut
		// the answer off.
		late := time.AfterFunc(refusalWait, h.cancel)
		defer late.Stop()
		_, _ = stream.Receive()
		return nil
	}
	second, err := stream.Receive()
	if err != nil {
		return err
	}
	inv := second.GetInventory()
	if inv == nil {
		return errors.New("the agent's second message was not its inventory")
	}
	s := newSession(stream, inv)
	s.protocol = hello.GetProtocol()
	defer s.stop()
	f.mu.Lock()
	h.node.session = s
	h.node.ever = true
	h.node.version = hello.GetVersion()
	h.node.told = false
	if f.leaving {
		s.goodbye() // it came while the others were told
	}
	f.mu.Unlock()
	if f.cfg.Up != nil {
		f.cfg.Up(h.node.name)
	}
	defer func() {
		f.mu.Lock()
		if h.node.session == s {
			h.node.session = nil
		}
		f.mu.Unlock()
	}()
	h.up = true
	claims, err := claimsOf(inv.GetForeign())
	if err != nil {
		return err
	}
	f.cfg.Inbox.Post(state.NodeUp{Node: h.node.name, Agent: hello.GetAgent(), Boot: hello.GetBoot(), Lease: f.cfg.Lease, Topology: topo, GPUs: topo.GPUSlotIDs()})
	f.cfg.Inbox.Post(state.Inventory{Node: h.node.name, Shims: shimsOf(inv.GetShims()), Claims: claims})
	if folders := inv.GetFolders(); len(folders) > 0 && f.cfg.Folders != nil {
		f.cfg.Folders(h.node.name, folders)
	}
	beat := time.NewTicker(f.cfg.beat())
	defer beat.Stop()
	stopBeat := make(chan struct{})
	var beats sync.WaitGroup
	beats.Go(func() {
		s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_Heartbeat{Heartbeat: &wire.Heartbeat{}}})
		for seq := uint64(1); ; seq++ {
			select {
			case <-beat.C:
				s.put(&wire.LauncherMessage{M: &wire.LauncherMessage_Heartbeat{Heartbeat: &wire.Heartbeat{Seq: seq}}})
			case <-stopBeat:
				return
			}
		}
	})
	defer func() { close(stopBeat); beats.Wait() }()
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		if m.GetGone() != nil {
			close(s.gone)
			return nil // the agent is waiting for it
		}
		if r := m.GetFileReply(); r != nil {
			s.files.answer(r)
			continue
		}
		if u := m.GetUsage(); u != nil {
			f.keepUsage(h.node, u, time.Now())
			continue
		}
		if err := f.handle(h.node.name, m); err != nil {
			return err
		}
	}
}

// Want brings the node's session, if there is one, to the parts.
func (f *Fleet) Want(name string, parts []state.Part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	if n == nil || n.session == nil {
		return // the next session begins with everything
	}
	var old []state.Part
	if n.told {
		old = n.parts
	}
	n.session.bring(old, parts, !n.told, f.cfg)
	n.parts, n.told = parts, true
}

// Look asks the node's agent to look at its GPUs again; without a session it does
// so with the next.
func (f *Fleet) Look(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[name]; n != nil && n.session != nil {
		n.session.put(&wire.LauncherMessage{M: &wire.LauncherMessage_Look{Look: &wire.Look{}}})
	}
}

// Send carries a message to a shim; it is lost when the node has no session,
// as everything that matters is said again.
func (f *Fleet) Send(name string, m *wire.ToShim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[name]; n != nil && n.session != nil {
		n.session.put(&wire.LauncherMessage{M: &wire.LauncherMessage_ToShim{ToShim: m}})
	}
}
