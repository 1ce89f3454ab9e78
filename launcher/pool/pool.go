// Package pool says where nodes come from and opens the byte stream on which a
// node's agent talks: this machine (Local), or machines reachable by ssh (SSH).
// An ssh provider copies the program to a node when it is missing there or
// differs, and runs only a bridge to the detached agent, so a dropped
// connection loses nothing and connecting again is cheap.
package pool

import (
	"context"
	"io"
)

// Node is one machine of a pool.
type Node struct {
	// Name is the node as the user wrote it: a host name, an alias of
	// ssh_config, or user@host, host:port.
	Name string
	// Slots is the number of slots that a hostfile gives the node; 0 when
	// nothing was said.
	Slots int
}

// Conn is a raw byte stream to a node's agent. Read returns io.EOF when the
// remote side ended, and an *Error of kind Lost when the connection broke.
type Conn interface {
	io.ReadWriteCloser
	// Stderr is the tail (at most 8 KiB) of what the remote side said on its
	// standard error, with its exit status when it has ended badly.
	Stderr() string
}

// Provider hands out connections to nodes. It is safe for concurrent use;
// callers connect to several nodes at once.
type Provider interface {
	// Nodes lists the nodes in the order given by the user.
	Nodes() []Node
	// Connect opens a new stream to the node's agent, starting the agent when
	// it does not run. Its errors are *Error but for those of ctx. It is also
	// the way to reconnect: a connection to the node that still lives is used
	// again.
	Connect(ctx context.Context, node string) (Conn, error)
	// Close ends all connections and waits until nothing of the provider runs.
	Close() error
}

// Kind says what went wrong with a node, for callers that decide whether to try
// again.
type Kind int

const (
	// Config: a configuration file or an argument is wrong.
	Config Kind = iota
	// Unreachable: no connection: unknown name, refused, no route, no answer.
	Unreachable
	// HostKey: the host's key is unknown, changed or revoked.
	HostKey
	// Auth: the host refused the user or every key.
	Auth
	// Install: the program can't be brought to, or run on, the node.
	Install
	// Lost: a connection that had been made broke.
	Lost
)

// Error is what kept a node from being used.
type Error struct {
	// Node is the node as the user wrote it; empty when the error is of no
	// single node.
	Node string
	Kind Kind
	// Msg says what is wrong and where; Fix says what to do, and may be empty.
	Msg, Fix string
	// Err is the cause, when there is one below.
	Err error
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Node != "" {
		s = e.Node + ": " + s
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Retry reports whether the same attempt may succeed later without the user
// doing anything.
func (e *Error) Retry() bool { return e.Kind == Unreachable || e.Kind == Lost }
