package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gangway/nodeagent/wire/link"
)

// Standing is a pool of agents that listen for launchers (gangway agent
// --listen). Nodes are named HOST:PORT; both sides prove that they hold key.
func Standing(nodes []Node, key []byte) (Provider, error) {
	_, client, err := link.KeyTLS(key)
	if err != nil {
		return nil, &Error{Kind: Config, Msg: "the key: " + err.Error(), Err: err}
	}
	return &standing{nodes: nodes, dialer: tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second, KeepAlive: time.Second}, Config: client,
	}}, nil
}

type standing struct {
	nodes  []Node
	dialer tls.Dialer
}

func (s *standing) Nodes() []Node { return s.nodes }
func (s *standing) Close() error  { return nil }

func (s *standing) Connect(ctx context.Context, node string) (Conn, error) {
	c, err := s.dialer.DialContext(ctx, "tcp", node)
	if err == nil {
		return &tcpConn{Conn: c}, nil
	}
	e := &Error{Node: node, Kind: Unreachable, Err: err, Msg: fmt.Sprintf("the agent can't be reached: %v", err),
		Fix: "start it there with: gangway agent --listen " + node + " --key FILE"}
	var dns *net.DNSError
	switch {
	case errors.Is(err, link.ErrStranger):
		e.Kind, e.Msg, e.Fix = Auth, "the agent holds another key", "give --key the file with which the agent was started"
	case errors.As(err, &dns):
		e.Kind, e.Msg, e.Fix = unresolved(dns, dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Msg = "no agent listens there"
	}
	return nil, e
}

// tcpConn is a Conn without a standard error of its own.
type tcpConn struct{ net.Conn }

func (*tcpConn) Stderr() string { return "" }
