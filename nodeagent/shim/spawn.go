package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gangway/mpi"
	"gangway/mpi/pmi"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// Processes that ranks spawn (MPI_Comm_spawn) are a world with a PMI server of its
// own. It runs where the rank is that spawned it, on the cores that the job has
// there; its output is that rank's, and so is its end: a rank has ended when what
// it spawned has, and the gang fails when a spawned process does.

// maxSpawned is how many spawned processes may run on a node at a time.
const maxSpawned = 4096

// listedWorlds is of how many worlds the segments are noted, which they leave in
// /dev/shm when they are killed: the list is bounded.
const listedWorlds = 64

var errEnding = errors.New("the job is ending")

// spawns is what this node's ranks have spawned.
type spawns struct {
	worlds int        // so far
	live   []*spawned // not ended
	names  pmi.NameTable
	asks   map[int64]chan<- record // of names, that the primary has not answered
	asked  int64
}

// world is what one request has started.
type world struct {
	of     *rank // of the gang: it, or a process that it spawned, asked
	path   string
	server *pmi.Server
	all    []*spawned
	off    bool // it did not start as a whole: its processes are being killed
}

// spawned is one process of a world.
type spawned struct {
	w    *world
	n    int // rank in its world
	p    *proc.Process
	conn net.Conn
}

// rankOf is a rank of this node that the PMI server knows, by its number.
func (s *shim) rankOf(n int) *rank {
	i, _ := s.localRank(int64(n))
	return s.ranks[i]
}

// spawner is pmi.Config's Spawn for a rank and what it spawns.
func (s *shim) spawner(of *rank) func(pmi.SpawnRequest) error {
	return func(req pmi.SpawnRequest) error {
		got := make(chan error, 1)
		if !s.post(func() {
			err := s.spawn(of, req)
			if err != nil && !errors.Is(err, errEnding) {
				s.refused(of, err)
			}
			got <- err
		}) {
			return errEnding
		}
		select {
		case err := <-got:
			return err
		case <-s.done:
			return errEnding
		}
	}
}

// refused tells why, for the MPI does not.
func (s *shim) refused(of *rank, why error) {
	s.notice(true, "rank %d on %s: MPI_Comm_spawn was refused: %v", of.n, s.nodeName(), why)
}

// spawn starts a request's processes, all or none.
func (s *shim) spawn(of *rank, req pmi.SpawnRequest) error {
	size := req.Size()
	switch {
	case s.ending || s.finished || of.ended:
		return errEnding
	case len(s.spawns.live)+size > maxSpawned:
		return fmt.Errorf("%d processes more would be over %d that may be spawned on a node", size, maxSpawned)
	}
	env := s.rankVars(of)
	var cmds []proc.Cmd
	for _, p := range req.Programs {
		c, err := s.spawnCommand(p, env)
		if err != nil {
			return err
		}
		cmds = append(cmds, c)
	}
	w := &world{of: of, path: cmds[0].Path}
	server, err := s.spawnServer(w, req)
	if err != nil {
		return err
	}
	w.server = server
	for n, app := range req.Apps() {
		if err = s.startSpawned(w, cmds[app], n, size); err != nil {
			break
		}
	}
	if err != nil {
		w.off = true
		for _, c := range w.all {
			s.signalTree(c.p.Pid(), int(syscall.SIGKILL))
		}
		return err
	}
	return nil
}

// spawnServer makes a world's PMI server.
func (s *shim) spawnServer(w *world, req pmi.SpawnRequest) (*pmi.Server, error) {
	size := req.Size()
	s.spawns.worlds++
	c := pmi.Config{
		Size: size, Mapping: pmi.Mapping(make([]int, size)), Apps: req.Apps(), Preput: req.Preput, Universe: int(s.a.GetTotalRanks()),
		KVS:   fmt.Sprintf("%s_%d_%d", s.dictName(), s.a.GetNodeIndex(), s.spawns.worlds),
		Hosts: []pmi.Host{{Name: s.node.Hostname}}, Names: gangNames{s},
		Spawn: func(_ int, req pmi.SpawnRequest) error { return s.spawner(w.of)(req) },
		Refused: func(_ int, why error) {
			s.post(func() { s.refused(w.of, why) })
		},
		Abort: func(n, code int, message string) {
			s.post(func() { s.spawnedAborted(w, n, code, message) })
		},
		Failed: func(err error) { s.post(func() { s.exchangeFailed(err) }) },
	}
	for n := range size {
		c.Ranks = append(c.Ranks, n)
	}
	c.Hosts[0].Ranks = c.Ranks
	if s.shm != "" && s.spawns.worlds <= listedWorlds {
		_ = proc.NoteSegments(s.shm, mpi.Segments(c.KVS))
	}
	return pmi.New(c)
}

// spawnCommand is the process of one program of a request.
func (s *shim) spawnCommand(p pmi.SpawnProgram, env []string) (proc.Cmd, error) {
	if host := p.Info["host"]; host != "" && !s.isHere(host) {
		return proc.Cmd{}, fmt.Errorf("host=%s: spawned processes stay on the node of the rank that spawns them, %s", cutText(host, 200), s.nodeName())
	}
	dir := s.prep.workdir
	if d := p.Info["wdir"]; d != "" {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		dir = d
	}
	look := env
	if path := p.Info["path"]; path != "" {
		look = []string{"PATH=" + path}
	}
	path, err := lookProgram(p.Path, dir, look)
	if err != nil && p.Info["path"] != "" {
		path, err = lookProgram(p.Path, dir, env)
	}
	if err != nil {
		// mpiexec takes it from the working directory too.
		if own := filepath.Join(dir, p.Path); checkProgram(own) == nil {
			path, err = own, nil
		}
	}
	if err == nil {
		err = checkProgram(path)
	}
	if err != nil {
		return proc.Cmd{}, err
	}
	c := s.command(path, append([]string{p.Path}, p.Args...), env)
	c.Dir, c.NewSession, c.NewGroup, c.ExtraFrom = dir, false, true, pmiFD
	if crowded(len(s.ranks)+len(s.spawns.live)+p.Ranks, s.prep.cpus) {
		c.Slice = wantedSlice(s.prep.env)
	}
	return c, nil
}

// isHere says whether a list of hosts, with or without numbers of processes,
// names this node.
func (s *shim) isHere(list string) bool {
	names := []string{"localhost", "127.0.0.1", s.nodeName(), s.node.Hostname, s.a.GetAddress()}
	for host := range strings.SplitSeq(list, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(host), ":")
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// startSpawned starts one process of a world.
func (s *shim) startSpawned(w *world, c proc.Cmd, n, size int) error {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return err
	}
	c.Env = mergeEnv(s.pmi.base.Environ(c.Env), append(pmiVars(n, size, n, size), "PMI_SPAWNED=1", "GANGWAY_SPAWNED="+strconv.Itoa(n)))
	c.Extra, c.Stdout, c.Stderr = []*os.File{theirs}, w.of.outs[0], w.of.outs[1]
	p, err := s.forker.Start(c)
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return err
	}
	k := &spawned{w: w, n: n, p: p, conn: ours}
	w.all, s.spawns.live = append(w.all, k), append(s.spawns.live, k)
	s.wg.Go(func() {
		err := w.server.Serve(n, ours)
		if err != nil && !errors.Is(err, pmi.ErrAborted) && !errors.Is(err, pmi.ErrUnfinished) {
			s.post(func() {
				if !w.off {
					s.pmiBroken(fmt.Errorf("a process that rank %d spawned: %w", w.of.n, err))
				}
			})
		}
	})
	s.wg.Go(func() {
		st, err := p.Wait()
		if err != nil {
			st = proc.Status{ExitCode: exitGangway}
		}
		s.post(func() { s.spawnedEnded(k, st) })
	})
	return nil
}

// spawnedEnded notes the end of a spawned process.
func (s *shim) spawnedEnded(k *spawned, st proc.Status) {
	w := k.w
	s.spawns.live = slices.DeleteFunc(s.spawns.live, func(o *spawned) bool { return o == k })
	w.of.used.rss = max(w.of.used.rss, st.MaxRSS)
	w.of.used.user += uint64(st.User.Microseconds())
	w.of.used.system += uint64(st.System.Microseconds())
	bad := st.ExitCode != 0 || st.Signal != 0
	switch phase := w.server.Phase(k.n); {
	case w.off || s.ending:
	case bad:
		e := spawnedEnd{code: int32(st.ExitCode), signal: int32(st.Signal)}
		if s.memory != nil {
			e.oom, _ = s.memory.OOMKilled()
		}
		s.spawnedFailed(k, e)
	case phase == pmi.Init || phase == pmi.Running || phase == pmi.Finalize:
		s.after(leftGrace, func() {
			if !s.ending && (s.spawnedLive(w.of) || !w.of.ended) {
				s.spawnedFailed(k, spawnedEnd{left: true})
			}
		})
	}
	if r := w.of; r.held != nil && !s.spawnedLive(r) {
		s.rankEnded(r, *r.held)
	}
	s.checkLocal()
}

// spawnedLive says whether something runs that a rank has spawned.
func (s *shim) spawnedLive(r *rank) bool {
	return slices.ContainsFunc(s.spawns.live, func(k *spawned) bool { return k.w.of == r && !k.w.off })
}

// hold keeps the news that a rank has ended well until what it spawned has ended.
func (s *shim) hold(r *rank, e gangExit) bool {
	if !e.ok() || s.leftMPI(r) || !s.spawnedLive(r) {
		return false
	}
	r.held = &e
	return true
}

// signalSpawned passes a signal on to what ranks have spawned.
func (s *shim) signalSpawned(n int) {
	for _, k := range s.spawns.live {
		s.signalTree(k.p.Pid(), n)
	}
}

// hangUp ends the connections of what runs still.
func (sp *spawns) hangUp() {
	for _, k := range sp.live {
		_ = k.conn.Close()
	}
}

// spawnedAborted is MPI_Abort in a spawned process: the rank's that spawned it.
func (s *shim) spawnedAborted(w *world, n, code int, message string) {
	if w.of.ended || w.off {
		return
	}
	text := fmt.Sprintf("in process %d of those that it spawned (%s)", n, w.path)
	if message != "" {
		text += ": " + message
	}
	s.aborted(int(w.of.n), code, text)
}

// spawnedEnd is how a spawned process ended that fails the gang.
type spawnedEnd struct {
	rank         uint32 // that spawned it
	code, signal int32
	left, oom    bool
	what         string
}

func (s *shim) spawnedFailed(k *spawned, e spawnedEnd) {
	what := fmt.Sprintf("process %d of %d that it spawned (%s)", k.n, len(k.w.all), k.w.path)
	flags := int64(0)
	if e.left {
		flags |= 1
	}
	if e.oom {
		flags |= 2
	}
	s.tellPrimary(msgSpawned, record{nums: []int64{int64(k.w.of.n), int64(e.code), int64(e.signal), flags}, strs: []string{cutText(what, 400)}}.encode())
}

// gangSpawned is the primary's note of a spawned process's bad end.
func (s *shim) gangSpawned(from uint32, body []byte) {
	r, err := decodeRecord(body, 4, 1)
	if err != nil || s.ending || s.finished {
		return
	}
	e := spawnedEnd{rank: uint32(r.nums[0]), code: int32(r.nums[1]), signal: int32(r.nums[2]), left: r.nums[3]&1 != 0, oom: r.nums[3]&2 != 0, what: r.strs[0]}
	node := s.nameOf(from)
	f := failed(wire.FailureCode_FAILURE_RANK, node, fmt.Sprintf("rank %d on %s: %s %s", e.rank, node, e.what, howEnded(e.code, e.signal)), "")
	switch {
	case e.left:
		e.code = 1
		f.Message += " without MPI_Finalize, others were still running"
		f.Hint = "let every process call MPI_Finalize, or MPI_Abort to end them all"
	case e.oom:
		f.Code = wire.FailureCode_FAILURE_MEMORY
		f.Message += ": the job reached its memory limit there"
		f.Hint = "ask for more with --mem-per-rank"
	}
	s.verdict = verdict{code: e.code, signal: e.signal, first: int32(e.rank), node: node, spawned: e.what}
	s.end(f, false)
}

// What is asked about published names.
const (
	opPublish int64 = iota
	opUnpublish
	opLookup
)

// namesLimit is how long the primary may take to answer.
const namesLimit = 30 * time.Second

// gangNames are the names published in the gang: the primary keeps them.
type gangNames struct{ s *shim }

// Publish implements pmi.Names.
func (g gangNames) Publish(name, port string) error {
	_, err := g.ask(opPublish, name, port)
	return err
}

// Unpublish implements pmi.Names.
func (g gangNames) Unpublish(name string) error {
	_, err := g.ask(opUnpublish, name, "")
	return err
}

// Lookup implements pmi.Names.
func (g gangNames) Lookup(name string) (string, error) { return g.ask(opLookup, name, "") }

func (g gangNames) ask(op int64, name, port string) (string, error) {
	s, got := g.s, make(chan record, 1)
	if !s.post(func() {
		sp := &s.spawns
		if sp.asks == nil {
			sp.asks = map[int64]chan<- record{}
		}
		sp.asked++
		sp.asks[sp.asked] = got
		s.tellPrimary(msgName, record{nums: []int64{sp.asked, op}, strs: []string{name, port}}.encode())
	}) {
		return "", errEnding
	}
	limit := time.NewTimer(namesLimit)
	defer limit.Stop()
	select {
	case r := <-got:
		if r.strs[1] != "" {
			return "", errors.New(r.strs[1])
		}
		return r.strs[0], nil
	case <-limit.C:
		return "", fmt.Errorf("the gang's first node has not answered for %v", namesLimit)
	case <-s.done:
		return "", errEnding
	}
}

// askedName answers a member, on the primary.
func (s *shim) askedName(from uint32, body []byte) {
	q, err := decodeRecord(body, 2, 2)
	if err != nil {
		return
	}
	var port string
	switch name := q.strs[0]; q.nums[1] {
	case opPublish:
		err = s.spawns.names.Publish(name, q.strs[1])
	case opUnpublish:
		err = s.spawns.names.Unpublish(name)
	default:
		port, err = s.spawns.names.Lookup(name)
	}
	a := record{nums: q.nums[:1], strs: []string{port, ""}}
	if err != nil {
		a.strs[1] = err.Error()
	}
	if from == s.a.GetNodeIndex() {
		s.answeredName(a.encode())
		return
	}
	_ = s.mesh.Send(int(from), append([]byte{msgNamed}, a.encode()...)) // who is gone waits no more
}

// answeredName passes the primary's answer on to who asked.
func (s *shim) answeredName(body []byte) {
	r, err := decodeRecord(body, 1, 2)
	if err != nil {
		return
	}
	if got, ok := s.spawns.asks[r.nums[0]]; ok {
		delete(s.spawns.asks, r.nums[0])
		got <- r
	}
}
