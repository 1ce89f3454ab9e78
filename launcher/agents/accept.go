package agents

import (
	"context"
	"errors"
	"io"
	"sync"

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
		_, err := f.serve(ctx, n, conn, errors.New("the launcher connects to a node of this name by itself: take it out of the launcher's --hosts, or join with another --name"))
		return err
	}
	if n.hangUp != nil {
		n.hangUp()
	}
	n.hangUp = cancel
	turn := f.turns[name]
	if turn == nil {
		turn = new(sync.Mutex)
		f.turns[name] = turn
	}
	f.mu.Unlock()
	// Also after the connection of a node of this name that was removed: the
	// news of its end must not come behind that of this one's beginning.
	turn.Lock()
	defer turn.Unlock()
	if ctx.Err() != nil { // a still newer one came
		_ = conn.Close()
		return ctx.Err()
	}
	up, err := f.serve(ctx, n, conn, nil)
	f.mu.Lock()
	up = up && f.nodes[name] == n // a node that was removed is not one that is down
	f.mu.Unlock()
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
