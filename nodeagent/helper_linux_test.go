package nodeagent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	shimmain "gangway/nodeagent/shim"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
)

// The tests' own program plays the shims, and the agents that are killed.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == shimmain.RankName {
		os.Exit(shimmain.RankMain(os.Args, os.Environ()))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "shim":
			if os.Getenv(realShims) != "" {
				realShim()
				return
			}
			fakeShim()
			return
		case "agent":
			cfg := agentConfig(os.Args[2])
			cfg.Ready = func() { f := os.NewFile(3, "ready"); _, _ = f.WriteString("x"); _ = f.Close() }
			fatal(Run(context.Background(), cfg))
			return
		}
	}
	goleak.VerifyTestMain(m)
}

func agentConfig(base string) Config {
	return Config{Base: base, Executable: os.Args[0], Version: "test", Log: slog.New(slog.DiscardHandler), Ready: func() {}}
}

// fakeShim speaks as a shim does. Its command says what becomes of it: "stay"
// waits for the launcher, "orphan" starts a program that hides, "done" leaves a
// result in the spool and is killed; "garbled" and "unspooled" run until they are
// launched, then are killed and leave a spool that is none, or no spool.
func fakeShim() {
	conn, err := net.FileConn(os.NewFile(3, "agent"))
	fatal(err)
	f, err := link.ReadFrame(conn)
	fatal(err)
	a := f.GetStart().GetAssignment()
	fatal(os.Mkdir(a.GetNodeDir(), 0o700))
	l, err := net.Listen("unix", filepath.Join(a.GetNodeDir(), "shim.sock"))
	fatal(err)
	s := &fake{id: a.GetId(), name: a.GetName(), dir: a.GetNodeDir()}
	s.say(&wire.FromShim{M: &wire.FromShim_Ready{Ready: &wire.Ready{}}})
	switch a.GetCommand()[0] {
	case "orphan":
		c := exec.Command("sleep", "300")
		c.Env, c.SysProcAttr = []string{}, &syscall.SysProcAttr{Setsid: true}
		fatal(c.Start())
		s.say(&wire.FromShim{M: &wire.FromShim_Notice{Notice: &wire.Notice{Text: strconv.Itoa(c.Process.Pid)}}})
	case "garbled", "unspooled":
		s.phase(wire.Phase_PHASE_RUNNING, conn)
		if a.GetCommand()[0] == "garbled" {
			fatal(os.WriteFile(filepath.Join(f.GetStart().GetSpoolDir(), a.GetId()+".spool"), []byte("no spool begins so"), 0o600))
		}
		go func() { // once the agent has read that it runs
			for {
				if f, err := link.ReadFrame(conn); err != nil || f.GetTo().GetLaunch() != nil {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
			}
		}()
		select {}
	case "done":
		sp, err := spool.Open(f.GetStart().GetSpoolDir(), a.GetId())
		fatal(err)
		fatal(sp.Append(&wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: s.id, Name: s.name,
			M: &wire.FromShim_Result{Result: &wire.Result{ExitCode: 7}}}}}))
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	go s.serve(conn)
	for {
		c, err := l.Accept()
		fatal(err)
		go s.serve(c)
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1], err)
		os.Exit(99)
	}
}

type fake struct {
	id, dir string
	name    *wire.AttemptName
	mu      sync.Mutex
	said    []*wire.Frame
	conns   []net.Conn
}

func (s *fake) say(m *wire.FromShim) {
	m.Id, m.Name = s.id, s.name
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &wire.Frame{M: &wire.Frame_From{From: m}}
	s.said = append(s.said, f)
	for _, c := range s.conns {
		_ = link.WriteFrame(c, f)
	}
}

func (s *fake) phase(p wire.Phase, c net.Conn) {
	_ = link.WriteFrame(c, &wire.Frame{M: &wire.Frame_State{State: &wire.ShimState{Id: s.id, Name: s.name, Phase: p}}})
	_ = link.WriteFrame(c, &wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: s.id, Name: s.name, M: &wire.FromShim_Started{Started: &wire.Started{}}}}})
}

func (s *fake) serve(c net.Conn) {
	s.mu.Lock()
	_ = link.WriteFrame(c, &wire.Frame{M: &wire.Frame_State{State: &wire.ShimState{Id: s.id, Name: s.name, Phase: wire.Phase_PHASE_READY}}})
	for _, f := range s.said {
		_ = link.WriteFrame(c, f)
	}
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	for {
		f, err := link.ReadFrame(c)
		if err != nil {
			return
		}
		switch {
		case f.GetTo().GetEnd() != nil:
			s.say(&wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{Signal: 15}}})
		case f.GetTo().GetForget() != nil:
			_ = os.RemoveAll(s.dir)
			os.Exit(0)
		}
	}
}

// tempBase is short: it becomes part of a unix socket's path.
func tempBase(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("/tmp", "gwa")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

// startTestAgent runs an agent in this process until the test ends; the channel
// says that it has returned.
func startTestAgent(t *testing.T, cfg Config) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	cfg.Ready = func() { close(ready) }
	go func() { done <- Run(ctx, cfg); close(done) }()
	t.Cleanup(func() { cancel(); <-done; endShims(t, cfg.Base) })
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("the agent ended at its start: %v", err)
	}
	return done
}

func dirOf(base string) Dir {
	return Dir(filepath.Join(base, fmt.Sprintf("gangway-agent-%d", os.Getuid())))
}

// endShims kills what a failed test left.
func endShims(t *testing.T, base string) {
	entries, err := dirOf(base).entries()
	if err != nil {
		t.Log(err)
	}
	for _, e := range entries {
		_ = sweep(e.marker(), nil)
	}
}

// launcher is the other end of a session.
type launcher struct {
	t     *testing.T
	hello *wire.Hello
	in    chan *wire.AgentMessage // closed when the agent has no more to say
	out   *link.Queue[*wire.LauncherMessage]
	close func()

	base, cluster string
	epoch         uint64
	usage         uint32
	renew         bool
}

// dial opens a session and waits for the agent's inventory.
func dial(t *testing.T, base, cluster string, epoch uint64) (*launcher, *wire.Inventory) {
	t.Helper()
	return dialUsage(t, base, cluster, epoch, 0)
}

// dialUsage is dial of a launcher that wants the node's usage each usage ms.
func dialUsage(t *testing.T, base, cluster string, epoch uint64, usage uint32) (*launcher, *wire.Inventory) {
	t.Helper()
	return dialAs(t, &launcher{base: base, cluster: cluster, epoch: epoch, usage: usage})
}

// dialAs is dial of a launcher that wants what its fields say.
func dialAs(t *testing.T, l *launcher) (*launcher, *wire.Inventory) {
	t.Helper()
	base := l.base
	l.t, l.in, l.out = t, make(chan *wire.AgentMessage, 1000), link.NewQueue[*wire.LauncherMessage]()
	conn, err := net.Dial("unix", dirOf(base).socket())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.Handle(wireconnect.NewLauncherHandler(l, link.Uncompressed()))
	over := make(chan struct{})
	go func() {
		_ = link.Serve(ctx, conn, mux)
		close(over)
	}()
	l.close = sync.OnceFunc(func() { cancel(); l.out.Close(); <-over })
	t.Cleanup(l.close)
	m := l.wait("hello", func(m *wire.AgentMessage) bool { return m.GetHello() != nil })
	l.hello = m.GetHello()
	m = l.wait("an inventory or an error", func(m *wire.AgentMessage) bool { return m.GetInventory() != nil || m.GetError() != nil })
	return l, m.GetInventory()
}

func (l *launcher) Session(_ context.Context, s *connect.BidiStream[wire.AgentMessage, wire.LauncherMessage]) error {
	defer close(l.in)
	first, err := s.Receive()
	if err != nil {
		return err
	}
	l.in <- first
	l.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_Welcome{Welcome: &wire.Welcome{
		Protocol: wire.Version, Cluster: l.cluster, Epoch: l.epoch, Who: "tester of " + l.cluster, LeaseMs: 120_000, UsageMs: l.usage, NodeUpdates: true, Renew: l.renew}}})
	var sender sync.WaitGroup
	defer sender.Wait()
	defer l.out.Close()
	sender.Go(func() {
		for {
			m, ok := l.out.Take()
			if !ok || s.Send(m) != nil {
				return
			}
		}
	})
	for {
		m, err := s.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		l.in <- m
	}
}

// wait returns the next message that is the one meant.
func (l *launcher) wait(what string, is func(*wire.AgentMessage) bool) *wire.AgentMessage {
	l.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case m, ok := <-l.in:
			if !ok {
				l.t.Fatalf("the session ended before %s", what)
			}
			if is(m) {
				return m
			}
		case <-late:
			l.t.Fatalf("no %s", what)
		}
	}
}

// ready waits until all of them are, in whatever order they say so.
func (l *launcher) ready(ids ...string) {
	l.t.Helper()
	open := map[string]bool{}
	for _, id := range ids {
		open[id] = true
	}
	l.wait(fmt.Sprint(ids, " ready"), func(m *wire.AgentMessage) bool {
		if m.GetFromShim().GetReady() != nil {
			delete(open, m.GetFromShim().GetId())
		}
		return len(open) == 0
	})
}

func (l *launcher) result(id string) *wire.Result {
	l.t.Helper()
	return l.wait("result of "+id, func(m *wire.AgentMessage) bool {
		return m.GetFromShim().GetId() == id && m.GetFromShim().GetResult() != nil
	}).GetFromShim().GetResult()
}

func (l *launcher) gone(id string) *wire.ShimGone {
	l.t.Helper()
	return l.wait("end of "+id, func(m *wire.AgentMessage) bool { return m.GetShimGone().GetId() == id }).GetShimGone()
}

func (l *launcher) set(as ...*wire.Assignment) {
	l.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_Desired{Desired: &wire.Desired{Set: as}}})
}

func (l *launcher) toShim(m *wire.ToShim) {
	l.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_ToShim{ToShim: m}})
}

func (l *launcher) end(id string) {
	l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_End{End: &wire.End{Now: true}}})
}

func (l *launcher) forget(id string) {
	l.toShim(&wire.ToShim{Id: id, M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
}

func (l *launcher) assignment(id, command, cpus string) *wire.Assignment {
	return &wire.Assignment{Id: id, Name: &wire.AttemptName{Cluster: l.cluster, TaskUid: "t", Attempt: 1, Epoch: l.epoch, Range: &wire.Range{Hi: 1}},
		Job: "j", Task: "t", Node: "n", Command: []string{command}, Cpus: cpus, NodeDir: filepath.Join(l.base, "gangway-"+id), Session: true}
}

// pidOf reads a shim's pid from the registry.
func pidOf(t *testing.T, base, id string) int {
	t.Helper()
	entries, err := dirOf(base).entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.ID == id {
			return e.PID
		}
	}
	t.Fatalf("no registry entry for %s", id)
	return 0
}
