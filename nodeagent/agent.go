package nodeagent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
	"gangway/topology/probe"
)

// Config of an agent.
type Config struct {
	Base       string       // see OpenDir
	Executable string       // this program, started again as shim
	Version    string       // sent to launchers
	Spare      bool         // keeps a shim ready, see spare
	Standing   bool         // stays without launchers; otherwise it ends when idle
	Listener   net.Listener // further connections, already authenticated (nil: none)
	// Dial opens a connection to a launcher, already authenticated, and is
	// called again, with a pause, whenever it has ended (nil: none). An error
	// that wraps ErrRefused ends the agent.
	Dial  func(ctx context.Context) (net.Conn, error)
	Log   *slog.Logger
	Ready func() // called once when the socket accepts
	// GPUs says how the node's are found; its zero value is this machine's drivers.
	GPUs GPUSource
	// Now is the clock for how long task directories are kept (nil: time.Now).
	Now func() time.Time
}

const (
	// idleFirst is how long an agent waits for its first launcher, idleLater
	// how long it stays when the last one has vanished without a goodbye and
	// none of its shims is left: a launcher that comes back starts a new one.
	idleFirst = 10 * time.Second
	idleLater = time.Second
	// silence is how long a session may be without any message; launchers
	// send heartbeats every two seconds.
	silence = 12 * time.Second
	// partingWait is how long an agent that ends waits until the launchers
	// have taken its last word.
	partingWait = 2 * time.Second
)

// agent's fields belong to the goroutine of run; others reach it by events.
type agent struct {
	cfg      Config
	dir      Dir
	hello    *wire.Hello
	ctx      context.Context // of everything that works for run
	forker   *proc.Forker
	events   chan event
	done     chan struct{} // closed when run has returned: posters give up
	wg       sync.WaitGroup
	sessions map[*session]struct{}
	shims    map[string]*shim
	epochs   map[string]uint64 // highest seen, by cluster
	idle     time.Time         // since when there was nothing to do; zero: busy
	idleFor  time.Duration
	leaving  bool // a launcher said goodbye
	refused  error

	bystanders []int   // children that this process had before it was an agent
	sweeping   int     // sweeps under way
	held       []order // starts that wait for their end
	accounts   accounts
	files      files
	folders    map[string]string // jobs' folders in the task root → their cluster
	shared     string            // see forUsers
	expiring   bool              // a search for task directories to delete is under way
	expireNext time.Time
	gpus       gpus
	spares     spares
	renewal    renewal
	renewed    bool // ended for a successor
}

// event is something that happened to the agent.
type event func(a *agent)

// Run is an agent's life. Children that the process has from before are left
// alone; whatever else becomes its child is the agent's to end. It returns nil when the agent ended because nothing
// was left to do or ctx was cancelled, and an error naming the place when it
// could not start. ErrRenewed asks for the same again with the program that is now
// at cfg.Executable. ErrRunning says that another agent serves this directory,
// ErrRefused that its launcher does not let it in.
func Run(ctx context.Context, cfg Config) error {
	dir, lock, err := claimDir(cfg.Base)
	if err != nil {
		return err
	}
	defer func() {
		if lock != nil {
			_ = lock.Close()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &agent{
		cfg: cfg, dir: dir, ctx: ctx, events: make(chan event, 64), done: make(chan struct{}),
		sessions: map[*session]struct{}{}, shims: map[string]*shim{}, epochs: map[string]uint64{},
		idleFor: idleFirst,
	}
	if fi, err := os.Stat(cfg.Executable); err == nil {
		a.renewal.began = fi
	}
	node, err := probe.Live()
	if err != nil {
		return fmt.Errorf("probing this node: %w", err)
	}
	if a.hello, err = HelloOf(node, cfg.Version); err != nil {
		return err
	}
	a.gpus.node = node
	if a.folders, err = dir.loadFolders(); err != nil {
		cfg.Log.Warn("looking for the folders of earlier jobs", "err", err)
	}
	a.bystanders = proc.Children()
	if os.Geteuid() == 0 {
		// Shims inherit it, and those of other users can't raise it themselves.
		if _, err := proc.RaiseMemlock(); err != nil {
			cfg.Log.Warn("programs may lock little memory", "err", err)
		}
	}
	// Shims' orphans become ours, so a shim's death leaves nobody behind.
	if err := proc.SetSubreaper(); err != nil {
		cfg.Log.Warn("orphans of killed shims will go to init", "err", err)
	}
	_ = os.Remove(dir.socket()) // a dead agent's: we hold the lock
	l, err := net.Listen("unix", dir.socket())
	if err != nil {
		return fmt.Errorf("the agent's socket: %w", err)
	}
	if err := os.Chmod(dir.socket(), 0o600); err != nil {
		_ = l.Close()
		return fmt.Errorf("the agent's socket: %w", err)
	}
	a.forker = proc.NewForker()
	defer a.forker.Close()
	a.forker.StartReaper()
	a.adopt(ctx)
	known := map[string]bool{}
	for id := range a.shims {
		known[id] = true
	}
	a.wg.Go(func() { sweepSharedMemory(known, cfg.Log) })
	a.gpus.begin(a)
	a.accept(ctx, l)
	if cfg.Listener != nil {
		a.accept(ctx, cfg.Listener)
	}
	if cfg.Dial != nil {
		a.wg.Go(func() { a.dial(ctx) })
	}
	if cfg.Ready != nil {
		cfg.Ready()
	}
	a.disturbed()
	a.run(ctx)
	// Order matters for a bridge that comes now: the socket goes while the
	// lock is held, so it starts a new agent, which tries for the lock. When
	// a launcher hears that nothing is left, nothing is.
	_ = l.Close()
	if cfg.Listener != nil {
		_ = cfg.Listener.Close()
	}
	if len(a.shims) == 0 {
		dir.remove(lock)
		lock = nil
	}
	close(a.done)
	a.endSpares()
	a.farewell()
	cancel()
	for s := range a.sessions {
		s.close()
	}
	for _, sh := range a.shims {
		sh.disconnect()
	}
	a.wg.Wait()
	if n := len(a.shims); a.refused != nil && n > 0 {
		return fmt.Errorf("%w (%d jobs are still on this node)", a.refused, n)
	}
	if a.renewed && a.refused == nil && cfg.Standing {
		return ErrRenewed
	}
	return a.refused
}

// ErrRunning reports that an agent already serves the directory.
var ErrRunning = errors.New("another agent of this user runs on this node")

// ErrRefused reports a launcher that will not have this node, however often it is
// asked.
var ErrRefused = errors.New("the launcher does not let this node in")

// HelloOf is an agent's first message for a probed node.
func HelloOf(node topology.Node, version string) (*wire.Hello, error) {
	b, err := json.Marshal(node)
	if err != nil {
		return nil, fmt.Errorf("encoding the probed node: %w", err)
	}
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails, see crypto/rand
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return &wire.Hello{
		Protocol: wire.Version, Agent: hex.EncodeToString(name[:]), Boot: node.BootID,
		Hostname: host, Version: version, NodeJson: b,
	}, nil
}

// post hands an event to run. It reports false, and drops it, when run has
// returned.
func (a *agent) post(e event) bool {
	select {
	case a.events <- e:
		return true
	case <-a.done:
		return false
	}
}

// dialFirst and dialPause are the shortest and the longest pause between two tries
// to reach the launcher. A connection on which no session was opened is a try that
// failed: a launcher that refuses is not to be asked ten times a second.
const (
	dialFirst = 100 * time.Millisecond
	dialPause = 5 * time.Second
)

// dial keeps a connection to the launcher. An outage is told once, not each try.
func (a *agent) dial(ctx context.Context) {
	told := ""
	for pause := dialFirst; ctx.Err() == nil; {
		c, err := a.cfg.Dial(ctx)
		if err == nil {
			var opened bool
			if opened, err = a.serve(ctx, c); opened {
				told, pause, err = "", dialFirst, nil
			}
			_ = c.Close()
		}
		if errors.Is(err, ErrRefused) {
			a.post(func(a *agent) { a.refused = err })
			return
		}
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			a.cfg.Log.Warn("there is no session with the launcher", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, dialPause)
	}
}

func (a *agent) accept(ctx context.Context, l net.Listener) {
	a.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
					a.cfg.Log.Warn("accepting launchers", "err", err)
				}
				return
			}
			a.wg.Go(func() {
				if opened, err := a.serve(ctx, c); !opened && err != nil {
					a.cfg.Log.Info("session not opened", "err", err)
				}
			})
		}
	})
}

func (a *agent) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	a.dropExpired()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-a.events:
			e(a)
		case <-tick.C:
			a.expire(time.Now())
			a.gpus.tick(a, time.Now())
			a.dropExpired()
			if a.cfg.Standing && a.outdated() {
				a.renewal.look(a.cfg.Executable)
			}
		}
		if a.refused != nil || a.finished(time.Now()) {
			return
		}
		if a.givesWay() {
			a.cfg.Log.Info("giving way to another version of this program")
			a.renewed = true
			return
		}
	}
}

// finished says whether nothing is left to do. After a goodbye that is at
// once; otherwise after a while, as a launcher may come back.
func (a *agent) finished(now time.Time) bool {
	live := 0
	for s := range a.sessions {
		if !s.bye {
			live++
		}
	}
	busy := a.cfg.Standing || a.gpus.waiting() || live > 0 || len(a.shims) > 0
	if busy {
		for s := range a.sessions {
			if s.bye && !a.holds(s.cluster) {
				s.gone()
			}
		}
		a.idle = time.Time{}
		return false
	}
	if a.leaving {
		return true
	}
	if a.idle.IsZero() {
		a.idle = now
	}
	return now.Sub(a.idle) >= a.idleFor
}

// farewell says to the launchers that said goodbye that nothing of theirs is left,
// and gives them the time to hear it. The agent's goroutine has returned.
func (a *agent) farewell() {
	late := time.NewTimer(partingWait)
	defer late.Stop()
	for s := range a.sessions {
		if s.bye && !a.holds(s.cluster) {
			s.gone()
		}
	}
	for s := range a.sessions {
		if !s.parted {
			continue
		}
		select {
		case <-s.over:
		case <-late.C:
			return
		}
	}
}

// holds says whether a session job's shim of the cluster is left; kept jobs
// outlive the goodbye.
func (a *agent) holds(cluster string) bool {
	for _, sh := range a.shims {
		if sh.e.Cluster == cluster && sh.e.Session {
			return true
		}
	}
	return false
}
