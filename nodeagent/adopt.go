package nodeagent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// socket is where a shim listens for agents.
func (e entry) socket() string { return filepath.Join(e.NodeDir, "shim.sock") }

// marker is in the environment of the shim and of what it starts.
func (e entry) marker() string { return "GANGWAY_ID=" + e.ID }

// user is whom the shim runs as; -1: unknown. The spool of another user's shim is
// that user's, in a directory of the agent's.
func (e entry) user() int {
	if e.Spool == "" {
		return os.Geteuid()
	}
	if fi, err := os.Lstat(e.Spool); err == nil {
		if uid, _, ok := proc.FileOwner(fi); ok {
			return uid
		}
	}
	return -1
}

// genuine returns an error unless the shim's user is at the other end. The
// directory of a shim that has ended is gone, and anybody may make one of its
// name and listen there.
func (e entry) genuine(conn net.Conn) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%s is no unix socket", e.socket())
	}
	uid, _, _, err := proc.PeerCred(c)
	if err != nil {
		return err
	}
	if want := e.user(); uid != want {
		return fmt.Errorf("user %d listens at %s, the shim is user %d's", uid, e.socket(), want)
	}
	return nil
}

// dialWait is how long a shim may take to open its socket.
const dialWait = 2 * time.Second

// reconnect opens a fresh connection, on which the shim repeats everything
// that is not acknowledged. It returns at once: a shim that does not answer
// must not keep the agent from the others.
func (sh *shim) reconnect(a *agent) {
	if sh.dialing || sh.exited {
		return // what is under way will do
	}
	sh.dialing = true
	e := sh.e
	a.wg.Go(func() {
		conn, err := dialShim(a.ctx, e)
		if !a.post(func(a *agent) { sh.dialled(a, conn, err) }) && conn != nil {
			_ = conn.Close()
		}
	})
}

// dialShim tries until the shim answers: one that is just being started has no
// socket yet.
func dialShim(ctx context.Context, e entry) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	var d net.Dialer
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		conn, err := d.DialContext(ctx, "unix", e.socket())
		if err == nil {
			if err := e.genuine(conn); err != nil {
				_ = conn.Close()
				return nil, err
			}
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

func (sh *shim) dialled(a *agent, conn net.Conn, err error) {
	sh.dialing = false
	switch {
	case err != nil:
		if !sh.exited {
			a.cfg.Log.Info("a shim does not answer", "id", sh.e.ID, "err", err)
		}
	case sh.exited:
		_ = conn.Close()
	default:
		sh.attach(a, conn)
	}
	if sh.out != nil { // else they wait for the next try
		sh.repeat()
	}
}

// adopt takes over the shims that an earlier agent started.
func (a *agent) adopt(ctx context.Context) {
	entries, err := a.dir.entries()
	if err != nil {
		a.cfg.Log.Error("reading the registry", "err", err)
	}
	for _, e := range entries {
		// How far it is, it says itself. A guess would make the launcher tell
		// one that still prepares to launch, which it would not do.
		sh := &shim{e: e, phase: wire.Phase_PHASE_UNSPECIFIED}
		a.shims[e.ID] = sh
		if e.Epoch > a.epochs[e.Cluster] {
			a.epochs[e.Cluster] = e.Epoch
		}
		sh.reconnect(a)
		a.wg.Go(func() { a.watch(ctx, sh, e) })
	}
}

// watch waits for the end of a shim that is not our child.
func (a *agent) watch(ctx context.Context, sh *shim, e entry) {
	pid, start := e.process()
	if pid != 0 && (pid != e.PID || start != e.Start) {
		a.post(func(a *agent) {
			sh.e.PID, sh.e.Start = pid, start
			if err := a.dir.save(sh.e); err != nil {
				a.cfg.Log.Warn("the shim's pid is not in the registry", "id", sh.e.ID, "err", err)
			}
		})
	}
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for alive(pid, start, e.marker()) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	a.post(func(a *agent) { a.exited(sh, false, fmt.Sprintf("process %d is gone", pid)) })
}

// process is the shim's pid and when it began; 0: it does not run. The registry
// may have none, or one that has been given to another process: then it is
// whoever listens on the shim's socket.
func (e entry) process() (pid int, start uint64) {
	// What the shim started has its marker too, and may get its number.
	if now := proc.StartTime(e.PID); e.PID > 0 && (e.Start == 0 || now == e.Start) && alive(e.PID, now, e.marker()) {
		return e.PID, now
	}
	conn, err := net.DialTimeout("unix", e.socket(), dialWait)
	if err != nil {
		return 0, 0
	}
	defer conn.Close()
	_, _, pid, err = proc.PeerCred(conn.(*net.UnixConn))
	if err != nil || e.genuine(conn) != nil {
		return 0, 0
	}
	if start = proc.StartTime(pid); !alive(pid, start, e.marker()) {
		return 0, 0
	}
	return pid, start
}

// alive says whether the process that began then still runs.
func alive(pid int, start uint64, marker string) bool {
	return pid > 0 && start != 0 && proc.StartTime(pid) == start && proc.Alive(pid, marker)
}
