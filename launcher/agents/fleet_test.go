package agents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is the other end of one connection, driven by the test.
type agent struct {
	t      *testing.T
	stream *connect.BidiStreamForClient[wire.AgentMessage, wire.LauncherMessage]
	cut    func()
	life   string
	name   string // set by whose
}

func (a *agent) say(m *wire.AgentMessage) {
	a.t.Helper()
	if err := a.stream.Send(m); err != nil {
		a.t.Fatal(err)
	}
}

// hear returns the next message that is not a heartbeat, nor left from whose.
func (a *agent) hear() *wire.LauncherMessage {
	a.t.Helper()
	for {
		m, err := a.stream.Receive()
		if err != nil {
			a.t.Fatal(err)
		}
		if m.GetHeartbeat() == nil && (a.name == "" || m.GetToShim().GetId() != a.name) {
			return m
		}
	}
}

func (a *agent) hello() *wire.AgentMessage {
	return &wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: &wire.Hello{
		Protocol: wire.Version, Agent: a.life, Boot: "boot", Version: "test", NodeJson: []byte(`{"hostname":"h"}`)}}}
}

func inventory(ids ...string) *wire.AgentMessage {
	inv := &wire.Inventory{}
	for _, id := range ids {
		inv.Shims = append(inv.Shims, &wire.ShimState{Id: id, Phase: wire.Phase_PHASE_RUNNING})
	}
	return &wire.AgentMessage{M: &wire.AgentMessage_Inventory{Inventory: inv}}
}

// world is a fleet with its surroundings.
type world struct {
	t      *testing.T
	fleet  *Fleet
	conns  chan net.Conn
	posted chan state.What
	said   chan *wire.FromShim
	failed chan error
	stop   context.CancelFunc
	kept   sync.WaitGroup
	lives  int
}

func newWorld(t *testing.T, nodes ...string) *world {
	w := &world{t: t, conns: make(chan net.Conn), posted: make(chan state.What, 100),
		said: make(chan *wire.FromShim, 100), failed: make(chan error, 10)}
	w.fleet = New(Config{Connector: w, Inbox: w, Traffic: w, Cluster: "c", Epoch: 3, Who: "tester", Lease: 10 * time.Second,
		Log:    slog.New(slog.DiscardHandler),
		Failed: func(_ string, err error, _ bool) bool { w.failed <- err; return false }})
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	for _, n := range nodes {
		w.kept.Go(func() { w.fleet.Keep(ctx, n) })
	}
	t.Cleanup(func() { stop(); w.kept.Wait() })
	return w
}

func (w *world) Connect(ctx context.Context, _ string) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	select {
	case w.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *world) Post(what state.What)                { w.posted <- what }
func (w *world) FromShim(_ string, m *wire.FromShim) { w.said <- m }
func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// agent takes the fleet's next connection.
func (w *world) agent() *agent {
	w.t.Helper()
	hc, cut := link.Client(next(w.t, w.conns, "connection"))
	ctx, cancel := context.WithCancel(context.Background())
	w.lives++
	a := &agent{t: w.t, life: fmt.Sprint("life ", w.lives), stream: wireconnect.NewLauncherClient(hc, "http://launcher", connect.WithGRPC(),
		connect.WithAcceptCompression("gzip", nil, nil)).Session(ctx)}
	a.cut = sync.OnceFunc(func() { cut(); cancel() })
	w.t.Cleanup(a.cut)
	return a
}

// begin opens a session with the shims in the agent's inventory.
func (w *world) begin(shims ...string) *agent {
	w.t.Helper()
	a := w.agent()
	a.say(a.hello())
	if m := a.hear().GetWelcome(); m.GetError() != "" || m.GetProtocol() != wire.Version || m.GetEpoch() != 3 || m.GetLeaseMs() != 10_000 {
		w.t.Fatalf("welcome %v", m)
	}
	a.say(inventory(shims...))
	up, ok := next(w.t, w.posted, "news of the node").(state.NodeUp)
	if !ok || up.Agent != a.life || up.Boot != "boot" || up.Topology.Hostname != "h" {
		w.t.Fatalf("posted %+v, want the node's topology", up)
	}
	inv, ok := next(w.t, w.posted, "its inventory").(state.Inventory)
	if !ok || len(inv.Shims) != len(shims) {
		w.t.Fatalf("posted %+v, want its inventory of %v", inv, shims)
	}
	return a
}

func part(id string, p state.Phase) state.Part {
	return state.Part{ID: id, Cluster: "c", TaskUID: "t", Range: job.Range{Hi: 1}, Attempt: 1, Epoch: 3, Node: "n",
		JobID: "j", Session: true, Task: &job.TaskSpec{ID: "t", Command: []string{"x"}}, Phase: p}
}

func TestFullThenDelta(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin("kept", "stale")
	// "lost" was launched and is not there: to set it would start it again.
	w.fleet.Want("n", []state.Part{part("kept", state.PhaseLaunch), part("lost", state.PhaseLaunch), part("new", state.PhasePrepare)})
	d := a.hear().GetDesired()
	if !d.GetFull() || len(d.GetSet()) != 2 || d.GetSet()[0].GetId() != "kept" || d.GetSet()[1].GetId() != "new" {
		t.Fatalf("first wish %v, want kept and new, in full", d)
	}
	if as := d.GetSet()[1]; as.GetNodeDir() != "/tmp/gangway-new" || as.GetName().GetEpoch() != 3 || !as.GetSession() || as.GetKillGraceMs() != 5000 {
		t.Errorf("assignment %v", as)
	}
	for _, id := range []string{"kept", "lost"} {
		if m := a.hear().GetToShim(); m.GetId() != id || m.GetLaunch() == nil {
			t.Errorf("%v, want the launch of %s", m, id)
		}
	}
	w.fleet.Want("n", []state.Part{part("kept", state.PhaseEnd), part("new", state.PhasePrepare), part("next", state.PhasePrepare)})
	d = a.hear().GetDesired()
	if d.GetFull() || len(d.GetSet()) != 1 || d.GetSet()[0].GetId() != "next" || len(d.GetRemove()) != 1 || d.GetRemove()[0] != "lost" {
		t.Errorf("second wish %v, want next and without lost", d)
	}
	if m := a.hear().GetToShim(); m.GetId() != "kept" || m.GetEnd() == nil {
		t.Errorf("%v, want the end of kept", m)
	}
	// A new session begins with everything.
	a.cut()
	if down, ok := next(t, w.posted, "the node's loss").(state.NodeDown); !ok || down.Node != "n" {
		t.Errorf("posted %+v", down)
	}
	a = w.begin("kept")
	w.fleet.Want("n", []state.Part{part("kept", state.PhaseForget)})
	if d := a.hear().GetDesired(); !d.GetFull() || len(d.GetSet()) != 1 {
		t.Errorf("first wish of the second session: %v", d)
	}
	if m := a.hear().GetToShim(); m.GetForget() == nil {
		t.Errorf("%v, want forget", m)
	}
	// What was decided while it may still run is ended first.
	decided := part("alive", state.PhaseForget)
	decided.End.Code = job.FailCancelled
	w.fleet.Want("n", []state.Part{decided})
	if d := a.hear().GetDesired(); len(d.GetRemove()) != 1 {
		t.Errorf("third wish: %v", d)
	}
	if m := a.hear().GetToShim(); m.GetId() != "alive" || m.GetEnd() == nil {
		t.Errorf("%v, want the end of what is decided", m)
	}
	if m := a.hear().GetToShim(); m.GetForget() == nil {
		t.Errorf("%v, want forget after the end", m)
	}
}

func TestNews(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin("x")
	a.say(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{Id: "x",
		M: &wire.FromShim_Output{Output: &wire.Output{Data: []byte("hi")}}}}})
	if m := next(t, w.said, "traffic"); string(m.GetOutput().GetData()) != "hi" {
		t.Errorf("traffic %v", m)
	}
	a.say(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{Id: "x",
		M: &wire.FromShim_Result{Result: &wire.Result{ExitCode: 3, FirstRank: -1,
			Failure: &wire.Failure{Code: wire.FailureCode_FAILURE_RANK, Message: "m"}}}}}})
	r, ok := next(t, w.posted, "the result").(state.AttemptResult)
	if !ok || r.ID != "x" || r.Node != "n" || r.Result.ExitCode != 3 || r.Result.Failure.Code != job.FailRank {
		t.Errorf("posted %+v", r)
	}
	a.say(&wire.AgentMessage{M: &wire.AgentMessage_Error{Error: &wire.AgentError{Id: "y", Code: wire.ErrorCode_ERROR_CLAIMED, Message: "cores 2 are held"}}})
	f, ok := next(t, w.posted, "the refusal").(state.AttemptRefused)
	if !ok || !f.Claimed || f.Failure.Code != job.WaitClaimed || !strings.Contains(f.Failure.Detail, "node n: cores 2 are held") {
		t.Errorf("posted %+v", f)
	}
	a.say(&wire.AgentMessage{M: &wire.AgentMessage_ShimGone{ShimGone: &wire.ShimGone{Id: "x"}}})
	if g, ok := next(t, w.posted, "its end").(state.ShimGone); !ok || g.ID != "x" {
		t.Errorf("posted %+v", g)
	}
	a.say(a.hello()) // out of place: the session ends
	if d, ok := next(t, w.posted, "the session's end").(state.NodeDown); !ok || !strings.Contains(d.Why, "not for a running session") {
		t.Errorf("posted %+v", d)
	}
}

func TestSessionRefused(t *testing.T) {
	for name, c := range map[string]struct {
		first *wire.AgentMessage
		want  string
	}{
		"no hello":         {inventory(), "was not a hello"},
		"newer protocol":   {&wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: &wire.Hello{Protocol: wire.Version + 1, NodeJson: []byte("{}")}}}, "use the same version on both sides"},
		"no protocol":      {&wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: &wire.Hello{NodeJson: []byte("{}")}}}, "speaks protocol 0"},
		"malformed probe":  {&wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: &wire.Hello{Protocol: wire.Version, NodeJson: []byte("{")}}}, "can't be read"},
		"empty first word": {&wire.AgentMessage{}, "was not a hello"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "n")
			a := w.agent()
			a.say(c.first)
			if m := a.hear().GetWelcome(); !strings.Contains(m.GetError(), c.want) {
				t.Errorf("welcome %v, want an error with %q", m, c.want)
			}
			a.cut()
			if err := next(t, w.failed, "failure"); err == nil || !strings.Contains(err.Error(), "node n: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("failed with %v, want %q", err, c.want)
			}
			w.kept.Wait() // Failed said not to try again
			if len(w.posted) > 0 {
				t.Errorf("posted %+v", <-w.posted)
			}
		})
	}
}

func TestAgentThatSaysNothing(t *testing.T) {
	w := newWorld(t, "n")
	for range 6 { // the first five may be agents that ended just then
		_ = next(t, w.conns, "connection").Close()
	}
	if err := next(t, w.failed, "failure"); !errors.Is(err, errNoHello) {
		t.Errorf("failed with %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	began := time.Now()
	for want := range uint64(2) { // at once, then every two seconds
		m, err := a.stream.Receive()
		if err != nil || m.GetHeartbeat() == nil || m.GetHeartbeat().GetSeq() != want {
			t.Fatalf("%v, %v; want heartbeat %d", m, err, want)
		}
	}
	if d := time.Since(began); d < heartbeat/2 {
		t.Errorf("second heartbeat after %v, want %v", d, heartbeat)
	}
}

func TestGoodbye(t *testing.T) {
	w := newWorld(t, "good", "broken", "mute", "away")
	agents := map[string]*agent{}
	// Which node a connection is for is seen by what is sent to it.
	for range 4 {
		a := w.begin()
		agents[w.whose(a)] = a
	}
	newcomer := &node{name: "never"}
	w.fleet.mu.Lock()
	w.fleet.nodes["never"] = newcomer
	w.fleet.mu.Unlock()
	agents["away"].cut()
	if down, ok := next(t, w.posted, "the loss").(state.NodeDown); !ok || down.Node != "away" {
		t.Fatalf("posted %+v", down)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.fleet.Goodbye(ctx) }()
	for _, name := range []string{"good", "broken", "mute"} {
		if m := agents[name].hear(); m.GetGoodbye() == nil {
			t.Fatalf("%s heard %v", name, m)
		}
	}
	agents["good"].say(&wire.AgentMessage{M: &wire.AgentMessage_Gone{Gone: &wire.Gone{}}})
	agents["broken"].cut()
	for range 2 {
		if d, ok := next(t, w.posted, "end of a session").(state.NodeDown); !ok || d.Node != "good" && d.Node != "broken" {
			t.Errorf("posted %+v", d)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait for mute: %v", err)
	default:
	}
	cancel()
	const want = "node away can't be reached: what runs there ends by itself within 10s\n" +
		"node broken went out of reach before everything there had ended: what runs there ends by itself within 10s\n" +
		"node mute did not confirm that everything there has ended"
	if err := next(t, done, "end of the goodbye"); err == nil || err.Error() != want {
		t.Errorf("goodbye: %v\nwant %s", err, want)
	}
}

// whose finds the node of a session.
func (w *world) whose(a *agent) string {
	w.t.Helper()
	w.fleet.mu.Lock()
	for name, n := range w.fleet.nodes {
		if n.session != nil {
			n.session.put(&wire.LauncherMessage{M: &wire.LauncherMessage_ToShim{ToShim: &wire.ToShim{Id: name}}})
		}
	}
	w.fleet.mu.Unlock()
	for {
		if m := a.hear(); m.GetToShim() != nil {
			a.name = m.GetToShim().GetId()
			return a.name
		}
	}
}

func TestGoodbyeOfAll(t *testing.T) {
	w := newWorld(t, "n")
	a := w.begin()
	done := make(chan error, 1)
	go func() { done <- w.fleet.Goodbye(t.Context()) }()
	if m := a.hear(); m.GetGoodbye() == nil {
		t.Fatalf("heard %v", m)
	}
	a.say(&wire.AgentMessage{M: &wire.AgentMessage_Gone{Gone: &wire.Gone{}}})
	if err := next(t, done, "end of the goodbye"); err != nil {
		t.Error(err)
	}
	w.kept.Wait() // and no session is opened again
}
