package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// rank is one of this node's ranks.
type rank struct {
	n     uint32 // in the gang
	local int    // among this node's
	tail  *tail  // of its stderr
	pumps []*pump

	conn       net.Conn      // of its wrapper
	p          *proc.Process // started by this shim, without a wrapper
	pid        int           // of the program; 0: not started
	pending    []int         // signals that came before the pid was known
	registered bool
	ended      bool
	termed     bool // it was sent a signal that ends, by gangway
	// Of one started over PMI, whose spawned processes write where it does:
	outs [2]*os.File                        // the pipes of its stdout and stderr; nil: closed
	held *gangExit                          // it has ended well, what it spawned has not
	used struct{ rss, user, system uint64 } // by what it spawned and has ended
	exit gangExit
}

// hangUp ends the conversation with the wrapper; it then kills the program.
func (r *rank) hangUp() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// closeOuts lets go of the pipes that were kept for what the rank might spawn.
func (r *rank) closeOuts() {
	for i, f := range r.outs {
		if f != nil {
			_ = f.Close()
			r.outs[i] = nil
		}
	}
}

// serveRank speaks with a wrapper or a remote shell.
func (s *shim) serveRank(c net.Conn) {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return
	}
	defer conn.Close()
	// A process that connects and says nothing must not hold up the end.
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		select {
		case <-s.done:
			_ = conn.Close()
		case <-gone:
		}
	}()
	kind, body, err := readMsg(conn)
	if err != nil {
		return
	}
	switch kind {
	case kindRank:
		if r, err := decodeRecord(body, 3, 0); err == nil {
			s.serveWrapper(conn, r.nums)
		}
	case kindShell:
		if r, err := decodeRecord(body, 0, 2); err == nil {
			s.shellRequest(conn, r.strs[0], r.strs[1])
		}
	}
}

// serveWrapper admits a rank and listens to its wrapper until the end.
func (s *shim) serveWrapper(conn *net.UnixConn, hello []int64) {
	type answer struct {
		r     *rank
		msg   []byte
		files []*os.File
	}
	got := make(chan answer, 1)
	if !s.post(func() {
		r, msg, files := s.register(conn, hello[0], hello[1])
		got <- answer{r, msg, files}
	}) {
		return
	}
	var a answer
	select {
	case a = <-got:
	case <-s.done:
		return
	}
	err := proc.SendFiles(conn, a.msg, a.files...)
	for _, f := range a.files {
		_ = f.Close()
	}
	r := a.r
	if r == nil {
		return
	}
	for err == nil {
		var kind byte
		var body []byte
		if kind, body, err = readMsg(conn); err != nil {
			break
		}
		err = s.heard(r, kind, body)
	}
	s.post(func() {
		// A wrapper that ends without a word was killed, and its program with it.
		s.rankEnded(r, gangExit{code: 0, signal: int32(syscall.SIGKILL)})
	})
}

// heard takes a message of a wrapper.
func (s *shim) heard(r *rank, kind byte, body []byte) error {
	switch kind {
	case kindStarted:
		m, err := decodeRecord(body, 1, 0)
		if err != nil {
			return err
		}
		s.post(func() {
			if len(m.strs) > 0 {
				s.notPreferred(errors.New(m.strs[0]))
			}
			s.rankStarted(r, int(m.nums[0]))
		})
	case kindFailed:
		m, err := decodeRecord(body, 1, 1)
		if err != nil {
			return err
		}
		s.post(func() { s.rankFailed(r, int32(m.nums[0]), m.strs[0]) })
	case kindExited:
		m, err := decodeRecord(body, 5, 0)
		if err != nil {
			return err
		}
		e := gangExit{code: int32(m.nums[0]), signal: int32(m.nums[1]), rss: uint64(m.nums[2]),
			user: uint64(m.nums[3]), system: uint64(m.nums[4])}
		s.post(func() { s.rankEnded(r, e) })
	default:
		return fmt.Errorf("a wrapper said %q", kind)
	}
	return nil
}

// register admits the wrapper of a rank: the answer, and the rank's streams to
// go with it.
func (s *shim) register(conn net.Conn, n, size int64) (*rank, []byte, []*os.File) {
	no := func(code int, format string, args ...any) (*rank, []byte, []*os.File) {
		body := record{nums: []int64{int64(code)}, strs: []string{fmt.Sprintf(format, args...)}}.encode()
		return nil, frameOf(kindRefused, body), nil
	}
	if s.phase != wire.Phase_PHASE_RUNNING || s.ending || s.a.GetLaunch() != wire.LaunchMode_LAUNCH_RANKS {
		return no(exitGangway, "the job on %s is not waiting for ranks", s.nodeName())
	}
	i, here := s.localRank(n)
	switch {
	case size != int64(s.a.GetTotalRanks()):
		f := failed(wire.FailureCode_FAILURE_MPIRUN, s.nodeName(),
			fmt.Sprintf("mpirun started a gang of %d ranks, the plan has %d", size, s.a.GetTotalRanks()), "")
		s.end(f, false)
		return no(exitGangway, "%s", f.GetMessage())
	case !here:
		f := failed(wire.FailureCode_FAILURE_MPIRUN, s.nodeName(),
			fmt.Sprintf("mpirun started rank %d on %s, the plan has it on %s", n, s.nodeName(), s.placeOf(n)), "")
		s.end(f, false)
		return no(exitGangway, "%s", f.GetMessage())
	case s.ranks[i].registered:
		return no(exitGangway, "rank %d is there already", n)
	}
	r := s.ranks[i]
	files, err := s.streams(r)
	if err != nil {
		return no(exitGangway, "rank %d: %v", n, err)
	}
	r.conn = conn
	s.rankRegistered(r)
	place := s.prep.places[i]
	strs := append([]string{s.prep.program, s.prep.workdir, place.CPUs.String()}, s.rankVars(r)...)
	return r, frameOf(kindPlace, record{nums: numbers(place.MemNodes), strs: strs}.encode()), files[:]
}

func numbers(in []int) []int64 {
	var out []int64
	for _, n := range in {
		out = append(out, int64(n))
	}
	return out
}

// notPreferred says once that the ranks' memory does not come from their own
// NUMA nodes first; on a machine with one it is all the same.
func (s *shim) notPreferred(err error) {
	if err == nil || s.saidPolicy || len(s.node.NUMA) < 2 {
		return
	}
	s.saidPolicy = true
	s.notice(true, "%s: %v", s.nodeName(), err)
}

// placeOf names the node that the plan gives to a rank.
func (s *shim) placeOf(n int64) string {
	for _, p := range s.peers {
		for _, r := range peerRanks(p) {
			if int64(r) == n {
				return p.GetName()
			}
		}
	}
	return "no node"
}

// rankVars is a rank's environment.
func (s *shim) rankVars(r *rank) []string {
	vars := []string{
		"GANGWAY_RANK=" + strconv.Itoa(int(r.n)),
		"GANGWAY_LOCAL_RANK=" + strconv.Itoa(r.local),
		"GANGWAY_LOCAL_NRANKS=" + strconv.Itoa(len(s.ranks)),
	}
	return mergeEnv(s.taskEnv(), append(vars, s.placeVars(s.prep.places[r.local], s.prep.env)...))
}

// streams makes a rank's pipes and starts reading them. The files are the
// rank's stdin, stdout and stderr; the caller closes them.
func (s *shim) streams(r *rank) (files [3]*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				if f != nil {
					_ = f.Close()
				}
			}
		}
	}()
	if s.a.GetStdin() && r.n == 0 {
		rd, wr, err := proc.Pipe(0)
		if err != nil {
			return files, err
		}
		files[0] = rd
		s.feed(true, wr)
	} else if files[0], err = os.OpenFile(os.DevNull, os.O_RDONLY, 0); err != nil {
		return files, err
	}
	for i, stream := range []wire.Stream{wire.Stream_STREAM_STDOUT, wire.Stream_STREAM_STDERR} {
		rd, wr, err := proc.Pipe(pipeSize)
		if err != nil {
			return files, err
		}
		files[i+1] = wr
		var t *tail
		if stream == wire.Stream_STREAM_STDERR {
			t = r.tail
		}
		r.pumps = append(r.pumps, startPump(&s.wg, s.sink(), rd, int32(r.n), stream, t))
	}
	return files, nil
}

// pipeSize lets a rank write on while its output is being sent.
const pipeSize = 256 << 10

// startRanks starts this node's ranks without an mpirun.
func (s *shim) startRanks() {
	for i, r := range s.ranks {
		if s.ending {
			return
		}
		files, err := s.streams(r)
		if err != nil {
			s.rankFailed(r, exitGangway, err.Error())
			return
		}
		c := s.command(s.prep.program, s.a.GetCommand(), s.rankVars(r))
		if s.pmi != nil {
			end, vars, err := s.pmi.connect(s, r)
			if err != nil {
				s.rankFailed(r, exitGangway, err.Error())
				return
			}
			c.Env = mergeEnv(s.pmi.base.Environ(c.Env), vars)
			c.Extra, c.ExtraFrom = []*os.File{end}, pmiFD
		}
		c.NewSession, c.NewGroup = false, true
		c.CPUs, c.MemNodes = s.prep.places[i].CPUs, s.prep.places[i].MemNodes
		c.Stdin, c.Stdout, c.Stderr = files[0], files[1], files[2]
		p, err := s.forker.Start(c)
		closing := append(c.Extra, files[:]...)
		if s.pmi != nil {
			r.outs = [2]*os.File(files[1:])
			closing = append(c.Extra, files[0])
		}
		for _, f := range closing {
			_ = f.Close()
		}
		if err != nil {
			s.rankFailed(r, int32(startCode(err)), err.Error())
			return
		}
		r.p = p
		s.notPreferred(p.MemPolicy())
		s.rankRegistered(r)
		s.rankStarted(r, p.Pid())
		s.wg.Go(func() {
			st, err := p.Wait()
			if err != nil {
				st = proc.Status{ExitCode: exitGangway}
			}
			s.post(func() {
				s.rankEnded(r, gangExit{code: int32(st.ExitCode), signal: int32(st.Signal), rss: st.MaxRSS,
					user: uint64(st.User.Microseconds()), system: uint64(st.System.Microseconds())})
			})
		})
	}
}

func (s *shim) rankRegistered(r *rank) {
	r.registered = true
	for _, r := range s.ranks {
		if !r.registered {
			return
		}
	}
	s.tellPrimary(msgRegistered, nil)
}

func (s *shim) rankStarted(r *rank, pid int) {
	r.pid = pid
	s.saidStarted(r.n, pid)
	for _, n := range r.pending {
		s.kill(r, n)
	}
	r.pending = nil
}

// rankFailed ends a rank whose program did not start.
func (s *shim) rankFailed(r *rank, code int32, why string) {
	s.rankEnded(r, gangExit{code: code, why: fmt.Sprintf("rank %d on %s: %s", r.n, s.nodeName(), why)})
}

// rankEnded notes a rank's end; only the first report counts.
func (s *shim) rankEnded(r *rank, e gangExit) {
	if r.ended || r.held == nil && s.hold(r, e) {
		return
	}
	r.ended = true
	r.closeOuts()
	e.rss, e.user, e.system = max(e.rss, r.used.rss), e.user+r.used.user, e.system+r.used.system
	e.rank, e.node, e.phase = r.n, s.a.GetNodeIndex(), s.phaseOf(r)
	e.left = e.ok() && s.leftMPI(r)
	e.byUs = (s.killing || r.termed) && (e.signal != 0 || e.code != 0)
	e.at = time.Now()
	// A rank may be a script whose child was killed: any failure counts.
	if !e.ok() && s.memory != nil {
		if oom, err := s.memory.OOMKilled(); err == nil && oom {
			e.oom = true
		}
	}
	e.starved = e.signal == int32(syscall.SIGKILL) && !e.oom && !e.byUs && s.starved()
	r.exit = e
	if e.ok() {
		if s.pmi != nil && s.neverInMPI(r) && !s.ending {
			s.watchAbsent(r)
		}
		r.hangUp() // a failed rank's wrapper goes with the sweep, see RankMain
	}
	s.tellPrimary(msgExit, e.encode())
	s.checkLocal()
}

// signalRanks passes a signal of the user's on to the programs.
func (s *shim) signalRanks(n int) {
	if s.main != nil && s.via == viaPrimary && !s.main.ended {
		s.signalTree(s.main.p.Pid(), n)
	}
	for _, r := range s.ranks {
		s.kill(r, n)
	}
	s.signalSpawned(n)
}

// kill sends a signal to a rank's program. Those by which people end programs
// go to its children too, as from a terminal: a rank may be a script.
func (s *shim) kill(r *rank, n int) {
	switch {
	case r.ended || r.held != nil:
	case r.pid > 0:
		s.signalTree(r.pid, n)
	case r.registered:
		r.pending = append(r.pending, n)
	}
}

func (s *shim) signalTree(pid, n int) {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(syscall.Signal(n))
		_ = p.Release()
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.notice(true, "signal %d to process %d: %v", n, pid, err)
		return
	}
	switch syscall.Signal(n) {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		_ = proc.SignalTree(pid, n)
	}
}
