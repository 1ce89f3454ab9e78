package pool

import (
	"net"
	"os/exec"
	"time"
)

// proxyCommand runs a ProxyCommand: a shell command whose standard input and
// output are the stream to the host.
func (p *sshPool) proxyCommand(command string) (net.Conn, error) {
	c, err := startChild(exec.Command("sh", "-c", "exec "+command), "ProxyCommand")
	if err != nil {
		return nil, err
	}
	return proxyConn{c}, nil
}

// proxyConn makes a net.Conn of a child; there are no deadlines on it.
type proxyConn struct{ *childConn }

// proxyAddr is the address of either end, which nobody knows.
type proxyAddr struct{}

func (proxyAddr) Network() string { return "proxy" }
func (proxyAddr) String() string  { return "proxy:0" }

func (proxyConn) LocalAddr() net.Addr              { return proxyAddr{} }
func (proxyConn) RemoteAddr() net.Addr             { return proxyAddr{} }
func (proxyConn) SetDeadline(time.Time) error      { return nil }
func (proxyConn) SetReadDeadline(time.Time) error  { return nil }
func (proxyConn) SetWriteDeadline(time.Time) error { return nil }
