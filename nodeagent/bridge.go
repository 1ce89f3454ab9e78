package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"gangway/nodeagent/proc"
)

// Bridge connects stdin and stdout to this node's agent and starts one when
// none answers. It is what an ssh session runs: the agent is detached, so a
// dropped session loses nothing. It returns when either side ends.
func Bridge(ctx context.Context, base, exe string, stdin io.ReadCloser, stdout io.WriteCloser) error {
	// A Ctrl-C is the launcher's to hear: it still has to see the job off.
	proc.LeaveTerminal()
	dir, err := OpenDir(base)
	if err != nil {
		return err
	}
	conn, err := dialAgent(ctx, dir, base, exe)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	up := make(chan struct{})
	go func() {
		// The launcher's end: nothing more will come, so the session is over.
		_, _ = io.Copy(conn, stdin)
		_ = conn.Close()
		close(up)
	}()
	_, _ = io.Copy(stdout, conn)
	_ = stdout.Close()
	_ = stdin.Close()
	// stdin may be a terminal or a file whose Read Close does not unblock;
	// the process ends with this return anyway.
	select {
	case <-up:
	case <-time.After(100 * time.Millisecond):
	}
	return nil
}

// startWait is how long a new agent may take until it answers; probing a large
// node and a slow disk included.
const startWait = 15 * time.Second

func dialAgent(ctx context.Context, dir Dir, base, exe string) (net.Conn, error) {
	deadline := time.Now().Add(startWait)
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", dir.socket())
		if err == nil {
			return conn, nil
		}
		if err := startAgent(dir, base, exe); err != nil && !errors.Is(err, ErrRunning) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the agent in %s does not answer: %w; see %s", dir, err, dir.log())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
			// An agent that ends just now holds the lock a little longer
			// than its socket, one that starts a little before.
		}
	}
}

// startAgent starts a detached agent and waits until it answers or says why it
// can't.
func startAgent(dir Dir, base, exe string) error {
	logf, err := dir.openLog()
	if err != nil {
		return err
	}
	defer logf.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	args := []string{exe, "agent", "--ready-fd", "3"}
	if base != "" {
		args = append(args, "--tmpdir", base)
	}
	p, err := proc.Start(proc.Cmd{
		Path: exe, Args: args, Env: os.Environ(), Dir: "/",
		Stdout: logf, Stderr: logf, Extra: []*os.File{w}, NewSession: true,
	})
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	go func() { _, _ = p.Wait() }() // no zombie while the bridge lives
	_ = r.SetReadDeadline(time.Now().Add(startWait))
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	switch msg := strings.TrimSpace(string(b)); {
	case msg == "ok":
		return nil
	case msg == ErrRunning.Error():
		return ErrRunning
	case msg != "":
		return errors.New(msg)
	case err != nil:
		return fmt.Errorf("the agent did not start within %v; see %s", startWait, dir.log())
	default:
		return fmt.Errorf("the agent ended at its start; see %s", dir.log())
	}
}
