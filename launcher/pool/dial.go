package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// authTime bounds what follows the key exchange: an agent may ask its user to
// touch a token.
const authTime = 30 * time.Second

// entry is a connection, or the making of one, that callers share.
type entry struct {
	ready  chan struct{} // closed when client and err are set
	client *client
	err    error
}

// client returns a living connection to a destination, made now or before. via
// is the connection to go through; nil means what the configuration says.
func (p *sshPool) client(ctx context.Context, d destination, via *client, key string) (*client, error) {
	key += "/" + d.String()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errClosed("")
		}
		e := p.clients[key]
		if e != nil {
			select {
			case <-e.ready:
				if e.err == nil && !e.client.dead() {
					p.mu.Unlock()
					return e.client, nil
				}
				// Replaced, and cleaned up behind its back.
				if e.err == nil {
					old := e.client
					p.wg.Go(old.close)
				}
				e = nil
			default:
			}
		}
		if e == nil {
			e = &entry{ready: make(chan struct{})}
			p.clients[key] = e
			p.mu.Unlock()
			c, err := p.dialChain(ctx, d, via)
			p.settle(e, c, err)
			return e.client, e.err
		}
		p.mu.Unlock()
		select {
		case <-e.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err == nil {
			return e.client, nil
		}
		// Another caller's deadline is no reason to give up; its failure is.
		if !errors.Is(e.err, context.Canceled) && !errors.Is(e.err, context.DeadlineExceeded) {
			return nil, e.err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// settle publishes the outcome; a connection that came too late is closed.
func (p *sshPool) settle(e *entry, c *client, err error) {
	p.mu.Lock()
	closed := p.closed
	if closed && err == nil {
		err = errClosed("")
	}
	e.client, e.err = c, err
	p.mu.Unlock()
	if err != nil && c != nil {
		c.close()
		e.client = nil
	}
	close(e.ready)
}

// dialChain makes the connections to the jump hosts, shared by all nodes behind
// them, and then the one to the destination.
func (p *sshPool) dialChain(ctx context.Context, d destination, via *client) (*client, error) {
	h, err := p.config.resolve(d, p.timeout)
	if err != nil {
		return nil, &Error{Kind: Config, Msg: err.Error(), Fix: "correct the ssh configuration", Err: err}
	}
	if via == nil {
		// The first jump host is reached as its own configuration says, each
		// further one from the one before it.
		chain := ""
		for _, jump := range h.jumps {
			next, err := p.client(ctx, jump, via, chain)
			if err != nil {
				return nil, through(jump, err)
			}
			via, chain = next, chain+"/"+jump.String()
		}
	}
	return p.dial(ctx, h, via)
}

// checkJumps resolves a destination and all before it, and refuses a loop: each
// hop would wait for the other to be connected.
func (p *sshPool) checkJumps(d destination, behind []string) error {
	if slices.Contains(behind, d.String()) {
		return fmt.Errorf("ProxyJump goes in a circle: %s", strings.Join(append(behind, d.String()), " jumps through "))
	}
	h, err := p.config.resolve(d, p.timeout)
	if err != nil {
		return err
	}
	for i, jump := range h.jumps {
		if i == 0 { // further ones are reached from the one before, not as configured
			err = p.checkJumps(jump, append(slices.Clone(behind), d.String()))
		} else {
			_, err = p.config.resolve(jump, p.timeout)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// through says that an error is of a host on the way.
func through(jump destination, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	up := *e
	up.Msg = fmt.Sprintf("jump host %s: %s", jump.host, e.Msg)
	return &up
}

// dial makes one connection and authenticates.
func (p *sshPool) dial(ctx context.Context, h *hostConfig, via *client) (*client, error) {
	keys, err := loadHostKeys(h, p.hint(h), &p.write, p.warn)
	if err != nil {
		return nil, &Error{Kind: Config, Msg: err.Error(), Err: err}
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(h.timeout, func() { cancel(context.DeadlineExceeded) })
	defer timeout.Stop()

	raw, err := p.open(ctx, h, via)
	if err != nil {
		if err := gone(outer); err != nil {
			return nil, err
		}
		return nil, h.unreachable(err, context.Cause(ctx) != nil, via)
	}
	wire := watch(raw)
	// No deadlines: a connection through a jump host has none.
	defer context.AfterFunc(ctx, func() { wire.Close() })()

	cred := &credentials{h: h}
	defer cred.close()
	// The callback runs on a goroutine that may outlive a closed handshake.
	var verdict atomic.Pointer[error]
	var exchanged atomic.Bool
	config := &ssh.ClientConfig{
		User:              h.user,
		Auth:              cred.auth(ctx),
		AuthCallback:      cred.observe,
		HostKeyAlgorithms: keys.algorithms(),
		HostKeyCallback: func(name string, addr net.Addr, key ssh.PublicKey) error {
			exchanged.Store(true)
			timeout.Reset(max(authTime, h.timeout))
			err := keys.check(name, addr, key)
			if err != nil {
				verdict.Store(&err)
			}
			return err
		},
	}
	conn, chans, reqs, err := ssh.NewClientConn(wire, h.addr(), config)
	if err == nil {
		return newClient(ssh.NewClient(conn, chans, reqs), wire, h.label(), h.alive), nil
	}
	if child, ok := raw.(proxyConn); ok && !exchanged.Load() && gone(outer) == nil {
		child.Close() // for its last words
		return nil, &Error{Kind: Unreachable, Err: err, Msg: fmt.Sprintf("ProxyCommand `%s` gave no connection to sshd: %v (%s)",
			h.proxyCmd, plain(err), strings.TrimSpace(child.Stderr())), Fix: "try the command by itself"}
	}
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case gone(outer) != nil:
		return nil, gone(outer)
	case verdict.Load() != nil:
		return nil, *verdict.Load()
	case errors.As(err, &negotiation):
		if strings.Contains(negotiation.What, "host key") && len(config.HostKeyAlgorithms) > 0 {
			return nil, keys.noCommon(negotiation)
		}
		return nil, &Error{Kind: Unreachable, Err: err, Msg: fmt.Sprintf("can't agree with %s on how to encrypt: %v", h.label(), negotiation),
			Fix: "the host's sshd is too old or too restricted: ask its administrators for a current algorithm"}
	case context.Cause(ctx) != nil && exchanged.Load():
		return nil, &Error{Kind: Unreachable, Err: err, Msg: fmt.Sprintf("%s did not finish the login of %s in %v", h.addr(), h.user, max(authTime, h.timeout)),
			Fix: "is the host overloaded, or is an ssh-agent waiting for a confirmation?"}
	case context.Cause(ctx) != nil:
		return nil, &Error{Kind: Unreachable, Err: err, Msg: fmt.Sprintf("%s took the connection but did not speak ssh in %v", h.addr(), h.timeout),
			Fix: "is sshd overloaded or stopped? is the port right?"}
	case exchanged.Load():
		return nil, cred.refused(err)
	}
	return nil, &Error{Kind: Unreachable, Err: err, Msg: fmt.Sprintf("no ssh with %s: %v", h.addr(), plain(err)),
		Fix: "is that sshd's port? does sshd refuse this machine (MaxStartups, hosts.deny)?"}
}

// gone is ctx.Err, but does not depend on ctx's timer having run: a dialer with
// the same deadline may be ahead of it.
func gone(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}

// open makes the byte stream that ssh runs on.
func (p *sshPool) open(ctx context.Context, h *hostConfig, via *client) (net.Conn, error) {
	if via != nil {
		return via.DialContext(ctx, "tcp", h.addr())
	}
	if h.proxyCmd != "" {
		return p.proxyCommand(h.proxyCmd)
	}
	var d net.Dialer
	return d.DialContext(ctx, h.family, h.addr())
}

// unreachable words why no stream could be opened.
func (h *hostConfig) unreachable(err error, timedOut bool, via *client) error {
	e := &Error{Kind: Unreachable, Err: err}
	var dns *net.DNSError
	var refused *ssh.OpenChannelError
	from := ""
	if via != nil {
		from = " from jump host " + via.label
	}
	switch {
	case via != nil && via.dead():
		e.Msg = "the connection to jump host " + via.label + " broke"
	case via == nil && errors.As(err, &dns): // before timedOut: name servers may have taken all the time
		e.Kind, e.Msg, e.Fix = unresolved(dns, h.host)
		if e.Kind == Config {
			e.Fix += ", or give its address with HostName in ssh_config"
		}
	case timedOut:
		e.Msg = fmt.Sprintf("no answer from %s%s in %v", h.addr(), from, h.timeout)
		e.Fix = "is the host up? does a firewall drop port " + fmt.Sprint(h.port) + "?"
	case errors.As(err, &refused):
		e.Msg = fmt.Sprintf("can't reach %s%s: %s", h.addr(), from, strings.TrimSpace(refused.Message))
		if refused.Reason == ssh.Prohibited {
			e.Fix = "sshd on the jump host forbids forwarding: it needs AllowTcpForwarding"
		} else {
			e.Fix = "can the jump host resolve the name, and is sshd running there?"
		}
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Msg = fmt.Sprintf("can't connect to %s: connection refused", h.addr())
		e.Fix = "is sshd running there, on that port?"
	default:
		e.Msg = fmt.Sprintf("can't connect to %s: %s", h.addr(), plain(err))
		e.Fix = "is the host up, and is there a route to it?"
	}
	return e
}

// unresolved words why a name has no address: it is unknown only if somebody
// who should know it said so.
func unresolved(err *net.DNSError, host string) (kind Kind, msg, fix string) {
	if err.IsNotFound {
		return Config, fmt.Sprintf("unknown host: neither DNS nor the hosts file knows %q", host), "check the name"
	}
	why := err.Err
	if err.Server != "" && !strings.Contains(why, err.Server) {
		why += " (name server " + err.Server + ")"
	}
	return Unreachable, fmt.Sprintf("the name %q could not be resolved: %s", host, why),
		"check this machine's network and its name servers (/etc/resolv.conf), or give an address"
}

// plain drops the layers that a network error repeats its addresses in.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), "ssh: handshake failed: ")
}
