package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// closeGrace is how long a bridge that was told to end, by the end of its
// standard input, is waited for before it is killed.
const closeGrace = 2 * time.Second

// Local is the pool of this machine alone. Connect runs `exe bridge` as a child
// whose standard input and output are the stream; env is added to its
// environment as "NAME=value". The node is named as the host is.
func Local(exe string, env ...string) Provider {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	return &local{exe: exe, env: env, name: name, conns: map[*childConn]bool{}}
}

type local struct {
	exe  string
	env  []string
	name string

	mu     sync.Mutex
	conns  map[*childConn]bool
	closed bool
}

func (l *local) Nodes() []Node { return []Node{{Name: l.name}} }

func (l *local) Connect(ctx context.Context, node string) (Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if node != l.name {
		return nil, &Error{Node: node, Kind: Config, Msg: "is not in this pool, which has only " + l.name}
	}
	// Not CommandContext: ctx bounds the connecting, not the connection.
	cmd := exec.Command(l.exe, "bridge")
	cmd.Env = append(os.Environ(), l.env...)
	c, err := startChild(cmd, "bridge on "+node)
	if err != nil {
		return nil, &Error{Node: node, Kind: Install, Msg: "can't start the bridge to the agent: " + err.Error(),
			Fix: "check that " + l.exe + " exists and may be executed", Err: err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		go c.Close() // it has its own grace; the caller must not wait for it
		return nil, errClosed(node)
	}
	l.conns[c] = true
	c.forget = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}
	return c, nil
}

func (l *local) Close() error {
	l.mu.Lock()
	l.closed = true
	conns := make([]*childConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { c.Close() })
	}
	wg.Wait()
	return nil
}

func errClosed(node string) error {
	return &Error{Node: node, Kind: Config, Msg: "the pool is closed"}
}

// childConn is a stream that is a child's standard input and output.
type childConn struct {
	io.Reader
	in     io.WriteCloser
	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{} // closed when the child was waited for
	status string        // valid after ended
	forget func()
	once   sync.Once
}

func startChild(cmd *exec.Cmd, what string) (*childConn, error) {
	c := &childConn{cmd: cmd, stderr: &tail{}, ended: make(chan struct{}), forget: func() {}}
	// Pipes of our own: StdoutPipe would be closed by Wait under a reader that
	// has not read everything yet.
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, c.stderr
	// The agent, started by the bridge, may inherit the standard error; Wait
	// must not wait for it.
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	c.Reader, c.in = outR, inW
	go func() {
		err := cmd.Wait()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			c.status = fmt.Sprintf("%s: %v", what, err)
		}
		close(c.ended)
	}()
	return c, nil
}

func (c *childConn) Write(p []byte) (int, error) { return c.in.Write(p) }

func (c *childConn) Stderr() string {
	s := c.stderr.String()
	select {
	case <-c.ended:
		return join(s, c.status)
	default:
		return s
	}
}

// Close tells the child to end, by the end of its input, waits for it, and kills
// it when it does not end within the grace.
func (c *childConn) Close() error {
	c.once.Do(func() {
		c.in.Close()
		c.Reader.(io.Closer).Close()
		t := time.AfterFunc(closeGrace, func() { c.cmd.Process.Kill() })
		<-c.ended
		t.Stop()
		c.forget()
	})
	return nil
}

// ownWords begin what gangway itself says on standard error.
const ownWords = "gangway: "

// join puts how a command ended below what it said. The program's own message
// says it all: the status adds nothing to it.
func join(said, status string) string {
	switch {
	case said == "":
		return status
	case status == "" || strings.Contains("\n"+said, "\n"+ownWords):
		return said
	case said[len(said)-1] == '\n':
		return said + status
	}
	return said + "\n" + status
}
