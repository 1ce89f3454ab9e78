// Package pmi serves PMI-1, the protocol by which the MPIs of MPICH's family
// find each other at the start, to the ranks of one node: what mpiexec's proxies
// do otherwise. The wire is PMI-1.1 as Hydra speaks it (pmodels/mpich,
// src/pmi and src/pm/hydra): lines "cmd=NAME k=v …\n", one answer to each request
// over an inherited socket, whose number is in PMI_FD.
//
// Every node of a gang has a Server. Pairs that its ranks put are kept until all
// of them are in a barrier; then the nodes exchange them (Config.Exchange), and
// every get is answered here. Spawning and published names are Config's; groups
// of ranks are not offered, and a server of PMI 1.1 is not asked for them.
package pmi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Phase is where a rank is in the life of MPI, as far as PMI can tell.
//
// A library says init, puts, gets and passes barriers in MPI_Init, is silent while
// the program runs, and in MPI_Finalize passes a barrier, if it is MPICH, and says
// finalize. Nothing tells that MPI_Init is over, so silence must: a rank that has
// passed a barrier, waits in none and has asked nothing for 100 ms is taken to
// run (for 1 s without a barrier: MPICH 5 needs none on one node), and the next
// barrier is taken for that of MPI_Finalize until it puts or gets again or is
// silent for 1 s. A program's first 100 ms are told as its MPI_Init's therefore.
type Phase string

// The phases. A program without MPI stays in Start.
const (
	Start    Phase = "start"    // it has not called MPI_Init, or not got far in it
	Init     Phase = "init"     // in MPI_Init
	Running  Phase = "running"  // between MPI_Init and MPI_Finalize
	Finalize Phase = "finalize" // in MPI_Finalize
	Done     Phase = "done"     // MPI_Finalize is over
)

// Host is a node of the gang and the ranks on it, for get_ranks2hosts.
type Host struct {
	Name  string
	Ranks []int
}

// Config says whom a Server serves.
type Config struct {
	Size  int   // of the gang
	Ranks []int // on this node, by local index
	// Mapping is the value of PMI_process_mapping, see Mapping; "": the key is
	// absent.
	Mapping string
	// KVS names the dictionary, the same on all nodes: less than MaxKVS bytes,
	// without blanks. Every run needs one of its own: MPICH names its segments of
	// shared memory after it, which a killed run leaves behind.
	KVS string
	// Apps is every rank's number of its program among those that were started
	// together (MPI_APPNUM), by local index; nil: all 0.
	Apps []int
	// Universe is MPI_UNIVERSE_SIZE; 0: Size.
	Universe int
	// Preput are pairs that the dictionary has from the start, the same on all
	// nodes.
	Preput map[string]string
	Hosts  []Host // all nodes, for Intel MPI before 2019; nil: the request is refused
	// Exchange gives this node's part and returns all nodes' parts one after the
	// other, the same on every node. It is called once for each barrier, never
	// twice at a time, from a goroutine of the Server's. nil: there is one node.
	Exchange func(part []byte) ([]byte, error)
	// Abort is told that a rank called MPI_Abort, or whatever else of the library
	// gives up. Nothing is answered: the gang is to be killed. nil: nobody is told.
	Abort func(rank, code int, message string)
	// Spawn starts a rank's request's processes, which have a Server of their
	// own, and returns when they are started, or none of them. It may block: the
	// rank waits, others don't. nil: spawning is refused.
	Spawn func(rank int, r SpawnRequest) error
	// Refused is told of requests to spawn that did not get to Spawn; nil: nobody
	// is told.
	Refused func(rank int, why error)
	// Names keeps published names; nil: they are refused.
	Names Names
	// Began is told once, when the first of this node's ranks says init. nil: nobody
	// is told.
	Began func()
	// Now tells the time; nil: time.Now.
	Now func() time.Time
	// Failed is told of an exchange that failed: the ranks stay in the barrier,
	// and the gang is to be killed. nil: nobody is told.
	Failed func(error)
}

// A gang's dictionary is bounded, so that a rank that puts without end is told no
// in place of the node's memory running out.
const (
	maxPending = 4 << 20   // bytes put on this node between two barriers
	maxDict    = 256 << 20 // bytes in all
)

// Errors of Serve. The rank's own end says more than the first.
var (
	// ErrUnfinished is a connection that ended between init and finalize: the
	// rank has died, or left without MPI_Finalize.
	ErrUnfinished = errors.New("the connection ended between MPI_Init and MPI_Finalize")
	// ErrAborted is a rank that called MPI_Abort.
	ErrAborted = errors.New("MPI_Abort was called")
)

// RankError is what one rank did against the protocol.
type RankError struct {
	Rank int
	Line string // as received, clipped; "" when it is not about one
	Err  error
}

func (e *RankError) Error() string {
	s := fmt.Sprintf("rank %d", e.Rank)
	if e.Line != "" {
		s += fmt.Sprintf(" said %q over PMI", e.Line)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *RankError) Unwrap() error { return e.Err }

// Server serves one node's ranks. Its methods may be called from any goroutine.
type Server struct {
	c  Config
	wg sync.WaitGroup // of the exchange

	mu       sync.Mutex
	dict     map[string]string // after the last barrier
	dictSize int
	unread   [][]byte          // what the last barriers have brought, encoded
	pending  encoder           // pairs put since
	fresh    map[string]string // the same
	in       int               // ranks in the barrier
	clients  []*client
	began    bool  // a rank has said init
	err      error // of an exchange
}

// client is one rank's connection.
type client struct {
	s     *Server
	local int
	rank  int

	w  io.Writer
	wm sync.Mutex // one answer at a time

	// under Server.mu
	phase     Phase
	connected bool
	inBarrier bool
	barriers  int
	last      time.Time // of its last request or release
}

// New makes a Server. It fails for a Config that no gang can have.
func New(c Config) (*Server, error) {
	if c.KVS == "" || len(c.KVS) >= MaxKVS || strings.ContainsAny(c.KVS, " \n=") {
		return nil, fmt.Errorf("pmi: %q can't name a dictionary: it must have 1 to %d bytes, without blanks", clip(c.KVS), MaxKVS-1)
	}
	if len(c.Mapping) >= MaxValue {
		return nil, fmt.Errorf("pmi: the process mapping has %d bytes, clients read less than %d", len(c.Mapping), MaxValue)
	}
	if len(c.Ranks) == 0 || len(c.Ranks) > c.Size {
		return nil, fmt.Errorf("pmi: %d ranks here of %d in all", len(c.Ranks), c.Size)
	}
	if c.Apps != nil && len(c.Apps) != len(c.Ranks) {
		return nil, fmt.Errorf("pmi: %d programs' numbers for %d ranks", len(c.Apps), len(c.Ranks))
	}
	if c.Universe == 0 {
		c.Universe = c.Size
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{c: c, dict: map[string]string{}, fresh: map[string]string{}}
	for k, v := range c.Preput {
		s.dict[k] = v
		s.dictSize += len(k) + len(v)
	}
	seen := map[int]bool{}
	for i, r := range c.Ranks {
		if r < 0 || r >= c.Size || seen[r] {
			return nil, fmt.Errorf("pmi: rank %d is not one of %d, or stands twice", r, c.Size)
		}
		seen[r] = true
		s.clients = append(s.clients, &client{s: s, local: i, rank: r, phase: Start})
	}
	return s, nil
}

// Phase tells where a rank is, by its local index.
func (s *Server) Phase(local int) Phase {
	if local < 0 || local >= len(s.clients) {
		return Start
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients[local].now()
}

// How long a rank that is taken to run has asked nothing: after a barrier of
// MPI_Init's; without one, and after one that was taken for MPI_Finalize's.
const (
	silent     = 100 * time.Millisecond
	longSilent = time.Second
)

// now is the rank's phase, under Server.mu.
func (c *client) now() Phase {
	if c.inBarrier || c.phase != Init && c.phase != Finalize {
		return c.phase
	}
	limit := silent
	if c.phase == Finalize || c.barriers == 0 {
		limit = longSilent
	}
	if c.s.c.Now().Sub(c.last) >= limit {
		return Running
	}
	return c.phase
}

// Serve serves one rank until its connection ends, and closes it: that of a rank
// that aborts stays open until the rank or the caller closes it. It returns nil
// after a regular end (finalize, or no init at all), ErrUnfinished, ErrAborted, or
// what the rank or its connection did wrong, as a *RankError.
func (s *Server) Serve(local int, conn io.ReadWriteCloser) error {
	defer conn.Close()
	if local < 0 || local >= len(s.clients) {
		return fmt.Errorf("pmi: no rank has the local index %d of %d", local, len(s.clients))
	}
	c := s.clients[local]
	s.mu.Lock()
	twice := c.connected
	if !twice {
		c.connected, c.w = true, conn
	}
	s.mu.Unlock()
	if twice {
		return &RankError{Rank: c.rank, Err: errors.New("it is connected already")}
	}
	r := bufio.NewReaderSize(conn, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return &RankError{c.rank, clip(string(line)), fmt.Errorf("the line is longer than %d bytes", maxLine)}
		case err != nil:
			return c.gone()
		}
		text := strings.TrimRight(string(line), "\r\n")
		req, err := parseLine(text)
		switch {
		case err != nil:
		case req.cmd == "mcmd spawn":
			err = c.spawn(r)
		default:
			err = c.answer(req)
		}
		if errors.Is(err, errWrite) {
			return c.gone()
		}
		if errors.Is(err, ErrAborted) {
			// MPI_Abort waits for an answer that never comes. With the connection
			// closed under it, it would return into the program.
			_, _ = io.Copy(io.Discard, r)
		}
		if err != nil {
			return &RankError{c.rank, clip(text), err}
		}
	}
}

// gone is what the end of a connection means.
func (c *client) gone() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.phase = c.now() // for good
	if c.phase == Start || c.phase == Done {
		return nil
	}
	return &RankError{Rank: c.rank, Err: ErrUnfinished}
}

// Wait blocks until no exchange is under way. A caller that gives up makes its
// Exchange return first.
func (s *Server) Wait() { s.wg.Wait() }
