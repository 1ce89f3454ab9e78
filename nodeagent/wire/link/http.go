package link

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// Conn makes a net.Conn of a byte stream such as a child's stdin and stdout.
// Close closes rwc, which must unblock its Read. Deadlines are accepted and
// ignored: HTTP/2 sets them only as a courtesy, the sessions' heartbeats notice
// a silent peer.
func Conn(rwc io.ReadWriteCloser) net.Conn {
	if c, ok := rwc.(net.Conn); ok {
		return c
	}
	return &streamConn{ReadWriteCloser: rwc}
}

type streamConn struct {
	io.ReadWriteCloser
	once sync.Once
	err  error
}

func (c *streamConn) Close() error {
	c.once.Do(func() { c.err = c.ReadWriteCloser.Close() })
	return c.err
}

func (c *streamConn) LocalAddr() net.Addr              { return streamAddr{} }
func (c *streamConn) RemoteAddr() net.Addr             { return streamAddr{} }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

type streamAddr struct{}

func (streamAddr) Network() string { return "stream" }
func (streamAddr) String() string  { return "stream" }

// Serve answers HTTP/2 without TLS (the stream below is private or already
// encrypted) on one connection until it ends or ctx is done, then closes it
// and waits for its handlers.
func Serve(ctx context.Context, conn net.Conn, h http.Handler) error {
	closed := make(chan struct{})
	cc := &closeNotify{Conn: conn, closed: closed}
	l := &oneListener{conn: cc, done: closed}
	var handlers sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			h.ServeHTTP(w, r)
		}),
		Protocols: h2cOnly(),
		HTTP2:     h2Config(),
	}
	srv.HTTP2.SendPingTimeout, srv.HTTP2.PingTimeout = pingAfter, pingWait
	stop := context.AfterFunc(ctx, func() { _ = cc.Close() })
	defer stop()
	err := srv.Serve(l)
	_ = srv.Close()
	handlers.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// Client returns an HTTP client whose every request goes over conn, as HTTP/2
// without TLS. When conn ends, requests fail; it is never dialled again.
func Client(conn net.Conn) (*http.Client, func()) {
	var once sync.Once
	t := &http.Transport{
		Protocols: h2cOnly(),
		HTTP2:     h2Config(),
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			c := net.Conn(nil)
			once.Do(func() { c = conn })
			if c == nil {
				return nil, net.ErrClosed
			}
			return c, nil
		},
	}
	return &http.Client{Transport: t}, func() { t.CloseIdleConnections(); _ = conn.Close() }
}

// Uncompressed turns off what a Connect handler does unasked: with gzip, each
// small message costs a compressor's 800 KiB, and output is compressed by the
// ranks' own tools if at all. Clients don't compress unless told to.
func Uncompressed() connect.HandlerOption { return connect.WithCompression("gzip", nil, nil) }

// A peer that has said nothing for pingAfter is asked for a sign of life; the
// connection ends when none comes within pingWait. Without it, a host that
// vanished would seem connected for as long as the kernel sends again what was
// not acknowledged: a quarter of an hour.
const (
	pingAfter = 5 * time.Second
	pingWait  = 15 * time.Second
)

func h2cOnly() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

func h2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		// Output of a whole gang flows through one stream: the default
		// window of 64 KiB would make it wait for every round trip.
		MaxReceiveBufferPerConnection: 8 << 20,
		MaxReceiveBufferPerStream:     4 << 20,
	}
}

// oneListener hands out one connection and then blocks until it is closed, as
// http.Server ends when Accept fails.
type oneListener struct {
	mu   sync.Mutex
	conn net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return streamAddr{} }

type closeNotify struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
	err    error
}

func (c *closeNotify) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		close(c.closed)
	})
	return c.err
}
