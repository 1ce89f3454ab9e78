package nodeagent

import (
	"net"
	"os"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// spare is a shim process that has no work yet: started, its runtime and tables
// set up, waiting for its first frame, so that a launch pays for none of that. It
// serves one attempt, as any shim. The next is started when the node has been at
// rest for spareRest, never beside a launch. It runs as the agent's own user from
// the program that the agent was started from: attempts of other users, and those
// that come when the program's file is another, get a process of their own
// (docs/decisions/045-spare-shims.md).
type spare struct {
	p     *proc.Process
	start uint64 // see proc.StartTime
	conn  net.Conn
	taken *shim // what it has become; nil: nothing yet
	ended chan struct{}
}

// spareRest is how long no shim may have been started or have ended before a
// spare is started.
const spareRest = 100 * time.Millisecond

// spares is the agent's. Its fields belong to the agent's run.
type spares struct {
	ready *spare      // nil: none
	rest  *time.Timer // until the next is started
	off   bool        // one ended by itself: this node has none
}

// disturbed puts the start of a spare off.
func (a *agent) disturbed() {
	if !a.cfg.Spare || a.spares.off {
		return
	}
	if a.spares.rest == nil {
		a.spares.rest = time.AfterFunc(spareRest, func() { a.post((*agent).prepareSpare) })
		return
	}
	a.spares.rest.Reset(spareRest)
}

// prepareSpare starts a spare unless there is one. A sweep ends children that it
// does not know, so there is none while one is under way.
func (a *agent) prepareSpare() {
	switch {
	case a.spares.ready != nil || a.spares.off:
		return
	case a.sweeping > 0:
		a.disturbed()
		return
	}
	sp, err := a.startSpare()
	if err != nil {
		a.spares.off = true
		a.cfg.Log.Warn("no shim is kept ready", "err", err)
		return
	}
	a.spares.ready = sp
	// The node's model is what most of the first frame is.
	node := &wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{NodeJson: a.hello.GetNodeJson()}}}
	a.wg.Go(func() { _ = link.WriteFrame(sp.conn, node) })
	// Nobody waits for this goroutine, see spawn.
	go func() {
		st, err := sp.p.Wait()
		clean := err == nil && st.ExitCode == 0 && st.Signal == 0
		close(sp.ended)
		a.post(func(a *agent) {
			switch {
			case sp.taken != nil:
				a.exited(sp.taken, clean, howEnded(st))
			case a.spares.ready == sp:
				_ = sp.conn.Close()
				a.spares.ready, a.spares.off = nil, true
				a.cfg.Log.Warn("the shim that was kept ready has ended; there will be none from now on", "how", howEnded(st))
			}
		})
	}()
}

func (a *agent) startSpare() (*spare, error) {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	logf, err := a.dir.openLog()
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer logf.Close()
	exe := a.cfg.Executable
	p, err := a.forker.Start(proc.Cmd{
		Path: exe, Args: []string{exe, wire.SpareArg}, Dir: "/", Env: append(os.Environ(), wire.SpareMark),
		Stdout: logf, Stderr: logf, Extra: []*os.File{theirs}, NewSession: true,
	})
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	return &spare{p: p, start: proc.StartTime(p.Pid()), conn: ours, ended: make(chan struct{})}, nil
}

// takeSpare returns the spare if there is one that can serve; it is then the
// caller's.
func (a *agent) takeSpare() *spare {
	sp := a.spares.ready
	if sp == nil {
		return nil
	}
	a.spares.ready = nil
	now, err := os.Stat(a.cfg.Executable)
	if err != nil || a.renewal.began == nil || !sameFile(a.renewal.began, now) {
		sp.drop()
		a.spares.off = true // the file will not be the old one again
		return nil
	}
	if sp.start == 0 || proc.StartTime(sp.p.Pid()) != sp.start { // it has just ended
		sp.drop()
		return nil
	}
	return sp
}

// drop ends a spare that nobody has taken.
func (sp *spare) drop() {
	_ = sp.conn.Close()
	_ = sp.p.Signal(int(syscall.SIGKILL))
}

// endSpares is the end of the agent: its goroutine has returned.
func (a *agent) endSpares() {
	if a.spares.rest != nil {
		a.spares.rest.Stop()
	}
	if sp := a.spares.ready; sp != nil {
		sp.drop()
		<-sp.ended
	}
}
