package launcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/pool"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// Probe returns what the agent of a node says of it, and leaves nothing there.
func Probe(ctx context.Context, p pool.Provider, node, who string) (topology.Node, error) {
	in := &probeInbox{up: make(chan topology.Node, 1)}
	failed := make(chan error, 1)
	f := agents.New(agents.Config{
		Connector: connector{p}, Inbox: in, Traffic: in, Cluster: randomID(8), Epoch: 1, Who: who, Lease: Lease,
		Log:    slog.New(slog.DiscardHandler),
		Failed: func(_ string, err error, _ bool) bool { failed <- err; return false },
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	sctx, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { f.Keep(sctx, node) })
	select {
	case n := <-in.up:
		return n, f.Goodbye(ctx)
	case err := <-failed:
		return topology.Node{}, err
	case <-ctx.Done():
		return topology.Node{}, ctx.Err()
	}
}

type probeInbox struct{ up chan topology.Node }

func (p *probeInbox) Post(w state.What) {
	if u, ok := w.(state.NodeUp); ok {
		select {
		case p.up <- u.Topology:
		default: // a second session: the first answer stands
		}
	}
}

func (p *probeInbox) FromShim(string, *wire.FromShim) {}
