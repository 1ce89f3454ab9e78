package launcher

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gangway/launcher/agents"
	"gangway/launcher/job"
	"gangway/launcher/pool"
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
func (r *recorder) Waiting(job.Reason)          {}
func (r *recorder) Placed(job.AttemptRow)       {}
func (r *recorder) Planned(string, agents.Plan) {}

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
