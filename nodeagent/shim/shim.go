// Package shim is the process that holds what one job does on one node: it
// prepares the node, starts the ranks or lets mpirun start them, binds, limits
// and logs them, and keeps the result until the launcher has it. Neither the
// launcher nor the agent is on the job's path: both may be killed and come
// back.
//
// One goroutine owns the attempt's state; everything else posts functions to
// it. The life of an attempt:
//
//	prepare.go  directory, set-up script, program, binding
//	detect.go   which MPI, by what the program links and what is on PATH
//	launch.go   mesh, mpirun or the ranks themselves
//	ranks.go    the ranks' side of the socket; rank.go is the wrapper
//	spawn.go    what ranks spawn
//	preflight*.go  checks of the gang before it starts
//	gang.go     what the members of a gang tell each other
//	end.go      kill, verdict, result
//	crew.go     what makes an attempt the worker of an array, see package crew
//
// Beside it: outbox.go keeps what the launcher has not acknowledged, output.go
// and stdin.go carry the ranks' streams, taskdir.go takes a kept task's output to
// files, rsh.go is the remote shell.
package shim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gangway/nodeagent/mesh"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
)

// shim's fields belong to the goroutine of run, but for those that are set
// before it starts and never again.
type shim struct {
	start    *wire.ShimStart
	a        *wire.Assignment
	node     topology.Node
	nodeJSON []byte // that node is

	box    *outbox
	in     *stdin
	files  *receiver
	forker *proc.Forker
	events chan func()
	done   chan struct{} // closed when run has returned
	wg     sync.WaitGroup
	agent  *agentConn
	cancel context.CancelFunc // of what prepares

	ownsDir bool   // the gang's directory was made here
	shm     string // the gang's directory in shared memory; "": none
	spool   *spool.Spool
	task    *taskDir // nil: output is streamed
	crew    crewState
	mesh    *mesh.Mesh
	phase   wire.Phase
	prep    *prepared
	peers   []*wire.Peer
	via     string // how the ranks start; known once the primary has said it

	attempt
}

// attempt is what runs.
type attempt struct {
	ranks      []*rank // of this node
	main       *mainProcess
	pmi        *pmiServer // nil: an mpirun has one, or nobody needs it
	memory     *proc.MemoryGroup
	cpuset     *proc.CPUGroup // nil: affinity alone binds
	spawns     spawns
	gang       gang
	checks     checks
	found      findings // for the autopsy
	started    time.Time
	ending     bool
	killing    bool
	swept      bool
	lingered   bool          // the grace for leftovers is over
	cause      *wire.Failure // of the end; nil: all went well
	verdict    verdict
	finished   bool // the result is being put together
	ended      bool // the result was said
	saidPolicy bool // see notPreferred
	forget     bool // nobody waits for the result (any more)
	leaseEnd   time.Time
	lease      *time.Timer
	timers     []*time.Timer
	over       bool // run returns
}

// Main is `gangway shim`. first is the connection of the agent that started it;
// the first frame on it says what to do. Main returns when the attempt is over
// and the launcher has its result, or nobody is left who wants it; then nothing
// of the attempt is left on the node. An error says that something is.
func Main(ctx context.Context, first net.Conn) error {
	f, err := link.ReadFrame(first)
	if err != nil {
		_ = first.Close()
		return fmt.Errorf("reading the assignment: %w", err)
	}
	return new(shim).serve(ctx, first, f)
}

// serve is Main once its first frame is there.
func (s *shim) serve(ctx context.Context, first net.Conn, f *wire.Frame) error {
	start := f.GetStart()
	a := start.GetAssignment()
	if a == nil {
		_ = first.Close()
		return errors.New("the agent's first frame is not an assignment")
	}
	s.start, s.a, s.box = start, a, newOutbox(a.GetId(), a.GetName())
	if s.forker == nil { // a spare has it
		s.forker = proc.NewForker()
	}
	s.events, s.done, s.phase = make(chan func(), 64), make(chan struct{}), wire.Phase_PHASE_PREPARING
	s.box.most = windowFor(a.GetNodeCount())
	s.in = newStdin(s.box)
	s.files = newReceiver(filepath.Join(a.GetNodeDir(), "bin"), s.box)
	s.verdict.first = -1
	return s.live(ctx, first)
}

func (s *shim) live(ctx context.Context, first net.Conn) error {
	defer s.forker.Close()
	orphans := proc.SetSubreaper()
	s.forker.StartReaper()
	if _, err := proc.RaiseMemlock(); err != nil {
		s.notice(true, "%v", err)
	}
	if orphans != nil {
		s.notice(true, "%v", orphans)
	}
	prepCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.cancel = cancel
	s.leaseFor(time.Duration(s.start.GetLeaseMs()) * time.Millisecond)
	failure := s.open()
	s.attach(first)
	if failure != nil {
		s.notReady(failure)
	} else {
		s.wg.Go(func() { s.prepare(prepCtx) })
	}
	stop := context.AfterFunc(ctx, func() {
		s.post(func() {
			s.forget = true
			s.end(failed(wire.FailureCode_FAILURE_CANCELLED, s.nodeName(), "the shim was told to stop", ""), false)
			s.leaveIfDone()
		})
	})
	defer stop()
	for !s.over {
		f := <-s.events
		f()
	}
	return s.close()
}

// post hands f to the goroutine of run. It reports false when that has ended.
func (s *shim) post(f func()) bool {
	select {
	case s.events <- f:
		return true
	case <-s.done:
		return false
	}
}

// after posts f in d, unless the attempt is over by then.
func (s *shim) after(d time.Duration, f func()) *time.Timer {
	t := time.AfterFunc(d, func() { s.post(f) })
	s.timers = append(s.timers, t)
	return t
}

// close takes everything away that the attempt had on the node.
func (s *shim) close() error {
	close(s.done)
	s.cancel()
	s.lease.Stop()
	for _, t := range s.timers {
		t.Stop()
	}
	var errs []error
	if left, err := proc.KillTree(os.Getpid(), 5*time.Second); err != nil || len(left) > 0 {
		errs = append(errs, fmt.Errorf("processes %v could not be ended: %w", left, errors.Join(err, errSurvivors)))
	}
	s.box.close()
	errs = append(errs, s.closeCrew())
	s.in.close()
	s.files.close()
	if s.mesh != nil {
		_ = s.mesh.Close()
	}
	if s.agent != nil {
		s.agent.part()
	}
	if s.cpuset != nil {
		errs = append(errs, s.cpuset.Close())
	}
	if s.memory != nil {
		errs = append(errs, s.memory.Close())
	}
	if s.spool != nil {
		errs = append(errs, s.spool.Close(), spool.Remove(s.start.GetSpoolDir(), s.a.GetId()))
	}
	if s.ownsDir {
		errs = append(errs, os.RemoveAll(s.a.GetNodeDir()))
	}
	if s.shm != "" {
		errs = append(errs, proc.RemoveSharedMemory(s.shm))
	}
	for _, r := range s.ranks {
		r.hangUp()
	}
	s.wg.Wait()
	s.task.close()
	err := errors.Join(errs...)
	switch {
	case s.agent == nil:
	case err == nil:
		s.agent.lastWord(s.a.GetId())
	default:
		_ = s.agent.conn.Close()
	}
	return err
}

var errSurvivors = errors.New("they hang in the kernel")

// leaseFor gives the attempt d from now. Jobs without a session have none.
func (s *shim) leaseFor(d time.Duration) {
	if s.lease == nil {
		s.lease = time.AfterFunc(time.Hour, func() { s.post(s.leaseLapsed) })
		s.lease.Stop()
	}
	if !s.a.GetLeased() || d <= 0 {
		return
	}
	s.leaseEnd = time.Now().Add(d)
	s.lease.Reset(d)
}

func (s *shim) leaseLapsed() {
	if time.Now().Before(s.leaseEnd) {
		return // renewed while this was under way
	}
	// A kept job's launcher comes back for the result.
	s.forget = s.forget || s.a.GetSession()
	s.end(failed(wire.FailureCode_FAILURE_LEASE, s.nodeName(), "nothing was heard of the launcher for the time of its lease", ""), false)
	s.leaveIfDone()
}

// leaveIfDone ends run when the attempt is over and nobody waits for it.
func (s *shim) leaveIfDone() {
	if s.ended && s.forget {
		s.over = true
	}
}

func (s *shim) setPhase(p wire.Phase) {
	s.phase = p
	s.box.setPhase(p)
}

func (s *shim) notice(warning bool, format string, args ...any) {
	s.box.say(&wire.FromShim{M: &wire.FromShim_Notice{Notice: &wire.Notice{Text: fmt.Sprintf(format, args...), Warning: warning}}})
}

func (s *shim) nodeName() string {
	if n := s.start.GetNodeName(); n != "" {
		return n
	}
	if n := s.a.GetNode(); n != "" {
		return n
	}
	return s.node.Hostname
}

func (s *shim) primary() bool { return s.a.GetNodeIndex() == 0 }

func failed(code wire.FailureCode, node, message, hint string) *wire.Failure {
	return &wire.Failure{Code: code, Node: node, Message: message, Hint: hint}
}

// agentConn is the connection of an agent: the latest that came.
type agentConn struct {
	conn    net.Conn
	cursor  *cursor
	parting atomic.Bool // the connection stays for the last word
	torn    atomic.Bool // a frame was not written whole
}

func (c *agentConn) close() {
	c.cursor.stop()
	if !c.parting.Load() {
		_ = c.conn.Close()
	}
}

// part ends what reads and writes the connection, as close does, and leaves it for
// lastWord, which is called when they have ended.
func (c *agentConn) part() {
	c.parting.Store(true)
	c.cursor.stop()
	_ = c.conn.SetDeadline(time.Unix(1, 0))
}

// lastWordWait is how long an agent may take to read the last word.
const lastWordWait = time.Second

// lastWord tells the agent that nothing of the attempt is left on the node but this
// process, which now ends: nobody has to wait until the kernel has taken it apart.
// It is the order to forget, said back. An agent that does not know it waits for
// the process.
func (c *agentConn) lastWord(id string) {
	defer c.conn.Close()
	if c.torn.Load() || c.conn.SetDeadline(time.Now().Add(lastWordWait)) != nil {
		return
	}
	_ = link.WriteFrame(c.conn, &wire.Frame{M: &wire.Frame_To{To: &wire.ToShim{Id: id, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}}}})
}

// attach makes conn the agent's connection; an older one is dropped, for its
// agent is dead or has made a new one.
func (s *shim) attach(conn net.Conn) {
	if s.agent != nil {
		s.agent.close()
	}
	c := &agentConn{conn: conn, cursor: s.box.cursor()}
	s.agent = c
	s.wg.Go(func() {
		defer c.close()
		for {
			f := c.cursor.next()
			if f == nil {
				return
			}
			if link.WriteFrame(conn, f) != nil {
				c.torn.Store(true)
				return
			}
		}
	})
	s.wg.Go(func() {
		defer c.close()
		r := bufio.NewReader(conn)
		for {
			f, err := link.ReadFrame(r)
			if err != nil {
				return
			}
			s.told(f.GetTo())
		}
	})
}

// told takes a message of the launcher. Streams go their own way, everything
// else to run.
func (s *shim) told(m *wire.ToShim) {
	switch m := m.GetM().(type) {
	case *wire.ToShim_OutputAck:
		s.box.ack(m.OutputAck.GetOffset())
	case *wire.ToShim_Stdin:
		s.in.put(m.Stdin)
	case *wire.ToShim_File:
		s.files.put(m.File)
	case *wire.ToShim_Launch:
		s.post(func() { s.launch(m.Launch) })
	case *wire.ToShim_End:
		s.post(func() {
			f := failed(wire.FailureCode_FAILURE_CANCELLED, s.nodeName(), m.End.GetReason(), "")
			s.end(f, !m.End.GetNow())
		})
	case *wire.ToShim_Signal:
		s.post(func() { s.signalRanks(int(m.Signal.GetNumber())) })
	case *wire.ToShim_Lease:
		s.post(func() { s.leaseFor(time.Duration(m.Lease.GetMs()) * time.Millisecond) })
	case *wire.ToShim_Work:
		s.post(func() { s.work(m.Work) })
	case *wire.ToShim_BlockAck:
		s.post(func() { s.blockAck(m.BlockAck.GetSeq()) })
	case *wire.ToShim_Forget:
		s.post(func() {
			s.forget = true
			s.leaveIfDone()
		})
	}
}

// open makes the gang's directory with what is in it from the start, and the
// spool.
func (s *shim) open() *wire.Failure {
	if err := s.readNode(); err != nil {
		return failed(wire.FailureCode_FAILURE_INTERNAL, s.nodeName(), "the agent's model of the node can't be read: "+err.Error(), "")
	}
	dir := s.a.GetNodeDir()
	if err := s.makeDir(dir); err != nil {
		return s.dirFailure(err)
	}
	if !s.isCrew() { // a crew has a spool of its own
		open := spool.Open
		if s.a.GetSession() { // when the node dies, its launcher looks for nothing here
			open = spool.OpenBrief
		}
		sp, err := open(s.start.GetSpoolDir(), s.a.GetId())
		if err != nil {
			return failed(wire.FailureCode_FAILURE_DISK, s.nodeName(), err.Error(), "")
		}
		s.spool = sp
	}
	for _, l := range []struct {
		name  string
		serve func(net.Conn)
	}{
		{agentSocket, func(c net.Conn) {
			if !s.post(func() { s.attach(c) }) {
				_ = c.Close()
			}
		}},
		{rankSocket, s.serveRank},
	} {
		if err := s.listen(filepath.Join(dir, l.name), l.serve); err != nil {
			return s.dirFailure(err)
		}
	}
	return nil
}

// readNode reads the agent's model of the node, unless it was read before.
func (s *shim) readNode() error {
	b := s.start.GetNodeJson()
	if len(b) > 0 && bytes.Equal(b, s.nodeJSON) {
		return nil
	}
	s.node, s.nodeJSON = topology.Node{}, nil
	if err := json.Unmarshal(b, &s.node); err != nil {
		return err
	}
	s.nodeJSON = b
	return nil
}

func (s *shim) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("the directory %s is there already: another node of this job shares it; give --tmpdir a directory that each node has for itself", dir)
		}
		return err
	}
	s.ownsDir = true
	if err := proc.PrivateDir(dir); err != nil {
		return err
	}
	// Without it the libraries do as they always do.
	if shm := proc.SharedMemoryDir(dir); os.Mkdir(shm, 0o700) == nil {
		s.shm = shm
	}
	for _, d := range []string{"bin", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{RankName, RshName} {
		if err := os.Symlink(s.start.GetExecutable(), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *shim) dirFailure(err error) *wire.Failure {
	code, hint := wire.FailureCode_FAILURE_INTERNAL, ""
	if isFull(err) {
		code, hint = wire.FailureCode_FAILURE_DISK, "free space there or give --tmpdir another local directory"
	}
	return failed(code, s.nodeName(), fmt.Sprintf("the job's directory on the node can't be made: %v", err), hint)
}

// listen serves a unix socket until run has ended, each connection on a
// goroutine of its own.
func (s *shim) listen(path string, serve func(net.Conn)) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return err
	}
	s.wg.Go(func() {
		<-s.done
		_ = l.Close()
	})
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { serve(c) })
		}
	})
	return nil
}
