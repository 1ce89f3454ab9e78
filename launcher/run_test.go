package launcher

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/launcher/pool"
	"gangway/launcher/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sink that keeps everything.
type recorder struct {
	mu      sync.Mutex
	out     strings.Builder
	notices []string
	first   chan struct{} // closed at the first output
	once    sync.Once
}

func (r *recorder) Output(_ string, _ int, _ bool, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Write(data)
	r.once.Do(func() { close(r.first) })
	return nil
}

func (r *recorder) Notice(_, text string, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = append(r.notices, text)
}
func (r *recorder) Waiting(job.Reason)                   {}
func (r *recorder) Placed(job.AttemptRow)                {}
func (r *recorder) Planned(string, agents.Plan, []Place) {}

// config runs a command through real agents and shims of a gangway built here.
func config(t *testing.T, command ...string) (RunConfig, *recorder) {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "gwl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	exe := filepath.Join(base, "gangway")
	build := exec.Command("go", "build", "-o", exe, "gangway/cmd/gangway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	p := pool.Local(exe, "GANGWAY_TMPDIR="+base)
	t.Cleanup(func() { _ = p.Close() })
	rec := &recorder{first: make(chan struct{})}
	return RunConfig{
		Provider: p, Base: base, Who: "test", Out: rec, Log: slog.New(slog.DiscardHandler),
		Spec: job.Spec{ID: "test", Session: true, Tasks: []job.TaskSpec{{
			ID: "run", Kind: job.Gang, Ranks: 1, MPI: "none", Launch: job.LaunchRanks, Command: command,
			WorkDir: "/", EnvBase: os.Environ(), OnNodeLoss: job.NodeLossFail,
		}}},
	}, rec
}

func TestRun(t *testing.T) {
	cfg, rec := config(t, "echo", "hello")
	res, err := Run(context.Background(), cfg)
	if err != nil || !res.Outcome.Success || rec.out.String() != "hello\n" {
		t.Fatalf("%+v, %v, output %q, notices %q", res.Outcome, err, rec.out.String(), rec.notices)
	}
	left, _ := filepath.Glob(cfg.Base + "/gangway-*")
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	cfg, rec := config(t, "sh", "-c", "echo ready; sleep 300")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-rec.first
		cancel()
	}()
	from := time.Now()
	res, err := Run(ctx, cfg)
	if err != nil || res.Outcome.Success || res.Outcome.Reason == nil || res.Outcome.Reason.Code != job.FailCancelled {
		t.Fatalf("%+v, %v", res.Outcome, err)
	}
	if d := time.Since(from); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestRunRefusesTheImpossible(t *testing.T) {
	cfg, _ := config(t, "true")
	cfg.Spec.Tasks[0].Ranks = 1 << 19
	_, err := Run(context.Background(), cfg)
	if err == nil || !strings.Contains(err.Error(), "--oversubscribe") {
		t.Fatalf("%v", err)
	}
}

// A second try would run on what the first has left of the input.
func TestRetryNeedsTheInput(t *testing.T) {
	for _, c := range []struct {
		name, script, input string
		status              int
		code                job.Code
		out                 string
	}{
		{"read", `cat; exit 3`, "input", 3, job.FailInput, "input"},
		{"empty", `cat; echo try; exit 3`, "", 3, job.FailRank, "try\ntry\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, rec := config(t, "sh", "-c", c.script)
			cfg.Stdin = strings.NewReader(c.input)
			cfg.Spec.Tasks[0].Stdin = true
			cfg.Spec.Tasks[0].Retries = 1
			res, err := Run(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			o := res.Outcome
			if o.Success || o.ExitCode != c.status || o.Reason == nil || o.Reason.Code != c.code {
				t.Errorf("outcome %+v, reason %+v", o, o.Reason)
			}
			if got := rec.out.String(); got != c.out {
				t.Errorf("output %q, want %q; notices %q", got, c.out, rec.notices)
			}
			if c.code == job.FailInput && o.Reason != nil && !strings.Contains(o.Reason.Detail, "its input was already read") {
				t.Errorf("it says %q", o.Reason.Detail)
			}
		})
	}
}

// A node that went down while the others connected is not connected.
func TestConnectedCountsNodesThatAreUp(t *testing.T) {
	cfg, _ := config(t, "true")
	r := &run{cfg: cfg, notices: make(chan state.Notice, 8), failed: make(chan error, 1)}
	node := cfg.Provider.Nodes()[0].Name
	gone := errors.New("the node is gone")
	r.notices <- state.Notice{Kind: state.NodeChanged, Node: node}
	done := make(chan error)
	go func() { done <- r.connected(context.Background(), nil) }()
	for len(r.notices) > 0 {
		runtime.Gosched()
	}
	r.failed <- gone
	if err := <-done; !errors.Is(err, gone) {
		t.Fatalf("a node that is down counted as connected: %v", err)
	}
	r.notices <- state.Notice{Kind: state.NodeChanged, Node: node, Up: true}
	if err := r.connected(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
}
