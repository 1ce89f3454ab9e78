package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"gangway/mpi"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// RshMain is the remote shell of any mpirun in the gang: `gangway-rsh
// [options] HOST words…` runs the words by sh -c on a node of the gang, through
// the shims and their mesh. Its streams are the command's; when it ends early,
// the command is killed. args is os.Args. It returns the command's exit status,
// 128+n if signal n ended it, 125 if it could not be run.
func RshMain(args []string) int {
	code, err := runRsh(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", RshName, err)
	}
	return code
}

func runRsh(args []string) (int, error) {
	host, command, err := mpi.ParseRsh(args[1:])
	if err != nil {
		return exitGangway, err
	}
	conn, err := dialShim(args[0])
	if err != nil {
		return exitGangway, err
	}
	defer conn.Close()
	if err := writeMsg(conn, kindShell, record{strs: []string{host, command}}.encode()); err != nil {
		return exitGangway, err
	}
	go func() {
		_, _ = io.Copy(frameWriter{conn, kindIn}, os.Stdin)
		_ = writeMsg(conn, kindInEnd, nil)
	}()
	for {
		kind, body, err := readMsg(conn)
		if err != nil {
			return exitGangway, fmt.Errorf("%s: the connection to the node has ended: %w", host, err)
		}
		switch kind {
		case kindOut:
			_, err = os.Stdout.Write(body)
		case kindErr:
			_, err = os.Stderr.Write(body)
		case kindDone:
			r, err := decodeRecord(body, 2, 0)
			if err != nil {
				return exitGangway, err
			}
			if r.nums[1] != 0 {
				return 128 + int(r.nums[1]), nil
			}
			return int(r.nums[0]), nil
		case kindRefused:
			r, err := decodeRecord(body, 1, 1)
			if err != nil {
				return exitGangway, err
			}
			if r.strs[0] == "" {
				return int(r.nums[0]), nil // the gang ends, and says why by itself
			}
			return int(r.nums[0]), fmt.Errorf("%s: %s", host, r.strs[0])
		}
		if err != nil {
			return exitGangway, err // nobody reads us: the command is not wanted
		}
	}
}

// frameWriter makes messages of one kind of what is written to it.
type frameWriter struct {
	w    io.Writer
	kind byte
}

func (f frameWriter) Write(b []byte) (int, error) {
	if err := writeMsg(f.w, f.kind, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// lockedWriter lets several streams share a connection.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// shellRequest is the shim's side of a gangway-rsh: conn has said host and
// command. The shim of another node gets the conversation as it is.
func (s *shim) shellRequest(conn *net.UnixConn, host, command string) {
	type answer struct {
		peer int
		err  error
	}
	got := make(chan answer, 1)
	if !s.post(func() {
		i, err := s.peerOf(host)
		got <- answer{i, err}
	}) {
		return
	}
	var a answer
	select {
	case a = <-got:
	case <-s.done:
		return
	}
	if a.err != nil {
		refuse(conn, exitGangway, a.err)
		return
	}
	if a.peer == int(s.a.GetNodeIndex()) {
		s.runShell(conn, command)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	far, err := s.mesh.Open(ctx, a.peer, []byte(command))
	if err != nil {
		refuse(conn, exitGangway, err)
		return
	}
	s.relay(conn, far)
}

// relay carries a remote shell's conversation with another node. At the end of
// the gang the nodes part in no order, and a lost connection is no news.
func (s *shim) relay(conn, far net.Conn) {
	defer conn.Close()
	splice(conn, far)
	if s.isEnding() {
		refuse(conn, exitGangway, errors.New(""))
	}
}

// isEnding says whether the attempt has come to its end, for better or worse.
func (s *shim) isEnding() bool {
	got := make(chan bool, 1)
	if !s.post(func() { got <- s.ending }) {
		return true
	}
	select {
	case yes := <-got:
		return yes
	case <-s.done:
		return true
	}
}

func refuse(w io.Writer, code int, err error) {
	_ = writeMsg(w, kindRefused, record{nums: []int64{int64(code)}, strs: []string{err.Error()}}.encode())
}

// splice copies both ways until one side has ended, then closes b.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(a, b)
		// What the far side said last must arrive: only the reading of a ends.
		_ = a.SetReadDeadline(time.Now())
	})
	_, _ = io.Copy(b, a)
	_ = b.Close()
	wg.Wait()
}

// peerOf finds the member that a launcher calls host: by data-plane address,
// by the name the user gave the node or by the node's own name, whole or up to
// the first dot.
func (s *shim) peerOf(host string) (int, error) {
	if s.phase != wire.Phase_PHASE_RUNNING {
		return 0, errors.New("the gang is not running")
	}
	var names []string
	for _, p := range s.peers {
		if host == p.GetAddress() || host == p.GetName() || host == p.GetHostname() {
			return int(p.GetIndex()), nil
		}
		names = append(names, p.GetName())
	}
	short, _, _ := strings.Cut(host, ".")
	for _, p := range s.peers {
		if n, _, _ := strings.Cut(p.GetHostname(), "."); n == short && net.ParseIP(host) == nil {
			return int(p.GetIndex()), nil
		}
	}
	if len(s.peers) == 1 && (host == "localhost" || host == "127.0.0.1") {
		return int(s.peers[0].GetIndex()), nil
	}
	return 0, fmt.Errorf("not a node of this job's allocation, which is %s", strings.Join(names, ", "))
}

// runShell runs a remote shell's command on this node and speaks with the
// gangway-rsh at the other end of conn. It returns when the command has ended
// or the other end is gone; then the command is killed.
func (s *shim) runShell(conn net.Conn, command string) {
	defer conn.Close()
	out := &lockedWriter{w: conn}
	p, pipes, err := s.startShell(command)
	if err != nil {
		refuse(out, startCode(err), err)
		return
	}
	var readers sync.WaitGroup
	for i, kind := range []byte{kindOut, kindErr} {
		f := pipes[i+1]
		readers.Go(func() {
			defer f.Close()
			_, _ = io.Copy(frameWriter{out, kind}, f)
		})
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		stdin := pipes[0]
		defer func() { _ = stdin.Close() }()
		for {
			kind, body, err := readMsg(conn)
			if err != nil {
				return
			}
			switch kind {
			case kindIn:
				_, _ = stdin.Write(body) // a command that reads no more is its own affair
			case kindInEnd:
				_ = stdin.Close()
			}
		}
	}()
	type end struct {
		st  proc.Status
		err error
	}
	ended := make(chan end, 1)
	go func() {
		st, err := p.Wait()
		ended <- end{st, err}
	}()
	var e end
	select {
	case e = <-ended:
	case <-gone:
		_, _ = proc.KillTree(p.Pid(), 2*time.Second)
		e = <-ended
	}
	// A daemon that the command left behind may hold the pipes: what is in
	// them is read, its own later words are not waited for.
	_ = pipes[1].SetReadDeadline(time.Now().Add(quiet))
	_ = pipes[2].SetReadDeadline(time.Now().Add(quiet))
	readers.Wait()
	if e.err != nil {
		refuse(out, exitGangway, e.err)
	} else {
		_ = writeMsg(out, kindDone, record{nums: []int64{int64(e.st.ExitCode), int64(e.st.Signal)}}.encode())
	}
	_ = conn.Close()
	<-gone
}

// startShell starts the command with the task's environment on the cores
// granted, while the gang runs. The pipes are its stdin, stdout and stderr.
func (s *shim) startShell(command string) (*proc.Process, [3]*os.File, error) {
	type answer struct {
		cmd proc.Cmd
		err error
	}
	got := make(chan answer, 1)
	ok := s.post(func() {
		if s.phase != wire.Phase_PHASE_RUNNING {
			got <- answer{err: errors.New("the gang is not running")}
			return
		}
		cmd := s.command("/bin/sh", []string{"sh", "-c", command}, s.taskEnv())
		got <- answer{cmd: cmd}
	})
	var a answer
	if ok {
		select {
		case a = <-got:
		case <-s.done:
			ok = false
		}
	}
	if !ok {
		a.err = errors.New("the gang has ended")
	}
	if a.err != nil {
		return nil, [3]*os.File{}, a.err
	}
	return startPiped(s.forker, a.cmd)
}

// startPiped starts c with three pipes and returns our ends of them.
func startPiped(f *proc.Forker, c proc.Cmd) (p *proc.Process, ours [3]*os.File, err error) {
	var theirs [3]*os.File
	defer func() {
		for i := range theirs {
			if theirs[i] != nil {
				_ = theirs[i].Close()
			}
			if err != nil && ours[i] != nil {
				_ = ours[i].Close()
			}
		}
	}()
	for i := range theirs {
		r, w, err := proc.Pipe(0)
		if err != nil {
			return nil, ours, err
		}
		theirs[i], ours[i] = w, r
		if i == 0 {
			theirs[i], ours[i] = r, w
		}
	}
	c.Stdin, c.Stdout, c.Stderr = theirs[0], theirs[1], theirs[2]
	p, err = f.Start(c)
	return p, ours, err
}
