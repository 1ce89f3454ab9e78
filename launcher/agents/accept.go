package agents

import (
	"context"
	"fmt"
	"io"

	"gangway/launcher/state"
)

// Accept holds a session on a connection that the node's agent opened, until it
// ends or ctx is done, and returns why. The connection must be known to be the
// node's; one that Keep holds is refused, as two sessions would contradict each
// other and two machines of one name run the same attempts. A newer connection
// of a node ends the older one: that is a dead one of an agent that has come
// back.
func (f *Fleet) Accept(ctx context.Context, name string, conn io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	n := f.nodes[name]
	if n == nil {
		n = &node{name: name}
		f.nodes[name] = n
	}
	if n.kept {
		f.mu.Unlock()
		_ = conn.Close()
		return fmt.Errorf("node %s: the launcher connects to a node of this name itself: take it out of --hosts, or join under another name", name)
	}
	if n.hangUp != nil {
		n.hangUp()
	}
	n.hangUp = cancel
	f.mu.Unlock()
	n.turn.Lock()
	defer n.turn.Unlock()
	if ctx.Err() != nil { // a still newer one came
		_ = conn.Close()
		return ctx.Err()
	}
	up, err := f.serve(ctx, n, conn)
	if up {
		why := "the agent ended the session"
		if err != nil {
			why = err.Error()
		}
		f.cfg.Inbox.Post(state.NodeDown{Node: name, Why: why})
	}
	return err
}

// Forget ends the session with a node that is no longer one of the cluster.
func (f *Fleet) Forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	if n == nil {
		return
	}
	if n.hangUp != nil {
		n.hangUp()
	}
	delete(f.nodes, name)
}
