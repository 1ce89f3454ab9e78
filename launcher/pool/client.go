package pool

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// client is one living ssh connection and the watch over it.
type client struct {
	*ssh.Client
	label string
	wire  *watched

	stop  chan struct{} // closed to end the watch
	mu    sync.Mutex
	over  bool // no goroutine may be added to wg
	wg    sync.WaitGroup
	cause atomic.Pointer[error] // why the connection was given up
	ended chan struct{}         // closed when the connection is over
}

// watched is a connection that remembers when bytes last came in.
type watched struct {
	net.Conn
	last atomic.Int64 // nanoseconds since start
	from time.Time
}

func watch(c net.Conn) *watched { return &watched{Conn: c, from: time.Now()} }

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.last.Store(int64(time.Since(w.from)))
	}
	return n, err
}

// silence is for how long nothing came in.
func (w *watched) silence() time.Duration {
	return time.Since(w.from) - time.Duration(w.last.Load())
}

func newClient(c *ssh.Client, wire *watched, label string, interval time.Duration) *client {
	cl := &client{Client: c, label: label, wire: wire, stop: make(chan struct{}), ended: make(chan struct{})}
	cl.wg.Go(func() {
		cl.Client.Wait()
		close(cl.ended)
	})
	cl.wg.Go(func() { cl.keepAlive(interval) })
	return cl
}

// keepAlive asks the peer for a sign of life every interval and gives the
// connection up when nothing at all came for two of them. Any byte counts, not
// the answer alone: on a slow line it may queue behind an upload.
func (c *client) keepAlive(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.stop:
			return
		case <-c.ended:
			return
		}
		limit := 2 * interval
		var watchdog *time.Timer
		var mu sync.Mutex // watchdog is set before its function reads it
		mu.Lock()
		watchdog = time.AfterFunc(limit, func() {
			mu.Lock()
			defer mu.Unlock()
			quiet := c.wire.silence()
			if quiet < limit {
				watchdog.Reset(limit - quiet)
				return
			}
			c.giveUp(fmt.Errorf("no sign of life for %v", quiet.Round(100*time.Millisecond)))
		})
		mu.Unlock()
		// A host that does not know the request answers too.
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		watchdog.Stop()
		if err != nil {
			return
		}
	}
}

// giveUp closes the connection below ssh, so that nothing waits for a peer that
// does not answer.
func (c *client) giveUp(cause error) {
	c.cause.CompareAndSwap(nil, &cause)
	c.wire.Close()
}

// close ends the connection and waits for all that runs on it.
func (c *client) close() {
	c.mu.Lock()
	if !c.over {
		c.over = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.wire.Close()
	c.Client.Close()
	c.wg.Wait()
}

// spawn runs f as part of the connection: close waits for it. It reports false,
// and runs nothing, when the connection is being closed.
func (c *client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.wg.Go(f)
	return true
}

func (c *client) dead() bool {
	select {
	case <-c.ended:
		return true
	case <-c.stop:
		return true
	default:
		return c.cause.Load() != nil
	}
}

// lost is the error for what ran on the connection when it ended; nil while it
// lives.
func (c *client) lost(node string) error {
	if !c.dead() {
		return nil
	}
	e := &Error{Node: node, Kind: Lost, Msg: "the ssh connection to " + c.label + " broke"}
	if cause := c.cause.Load(); cause != nil {
		e.Err = *cause
		e.Msg = fmt.Sprintf("the ssh connection to %s broke: %v", c.label, *cause)
	}
	return e
}
