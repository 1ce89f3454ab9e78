//go:build linux

package agents

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gangway/launcher/state"
	"gangway/nodeagent"
	"gangway/nodeagent/wire"
)

type discard struct{}

func (discard) Post(state.What)                 {}
func (discard) FromShim(string, *wire.FromShim) {}

type unixConnector string

func (c unixConnector) Connect(ctx context.Context, _ string) (io.ReadWriteCloser, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", string(c))
}

// TestFiles reads files through a session with a real agent, many at a time, and
// lets the session end under those who wait.
func TestFiles(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	uid := strconv.Itoa(os.Getuid())
	task := filepath.Join(base, "gangway-tasks-"+uid, "j/t")
	text := strings.Repeat("0123456789", 300000)
	if err := errors.Join(os.MkdirAll(task, 0o700), os.WriteFile(task+"/stdout.txt", []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ready := make(chan struct{})
	agentCtx, stopAgent := context.WithCancel(ctx)
	wg.Go(func() {
		if err := nodeagent.Run(agentCtx, nodeagent.Config{Base: base, Executable: "/bin/false", Version: "test", Standing: true,
			Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }}); err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	<-ready
	up := make(chan struct{}, 1)
	f := New(Config{Connector: unixConnector(filepath.Join(base, "gangway-agent-"+uid, "agent.sock")), Inbox: discard{}, Traffic: discard{},
		Cluster: "c", Epoch: 1, Who: "test", Lease: time.Minute, Log: slog.New(slog.DiscardHandler),
		Failed: func(string, error, bool) bool { return false }, Up: func(string) { up <- struct{}{} }})
	if _, err := f.Files(ctx, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_LIST}); !errors.Is(err, ErrNoSession) {
		t.Errorf("without a session: %v", err)
	}
	wg.Go(func() { f.Keep(ctx, "n1") })
	<-up
	r, err := f.Files(ctx, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_LIST, Recursive: true})
	if err != nil || len(r.GetEntries()) != 3 {
		t.Errorf("%v, %v", r, err)
	}
	var readers sync.WaitGroup
	for i := range 30 {
		readers.Go(func() {
			off := uint64(i * 100000)
			r, err := f.Files(ctx, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_READ, Path: "j/t/stdout.txt", Offset: off})
			if want := text[off:min(off+wire.FileReadLimit, uint64(len(text)))]; err != nil || string(r.GetData()) != want {
				t.Errorf("from %d: %d bytes, %v", off, len(r.GetData()), err)
			}
		})
	}
	readers.Wait()
	if r, err := f.Files(ctx, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_READ, Path: "j/t/none"}); err != nil || r.GetCode() != wire.FileError_FILE_ERROR_NOT_FOUND {
		t.Errorf("%v, %v", r, err)
	}
	past, end := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer end()
	if _, err := f.Files(past, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_LIST}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("out of time: %v", err)
	}
	stopAgent()
	for range 16 {
		readers.Go(func() {
			for {
				if _, err := f.Files(ctx, "n1", &wire.FileRequest{Op: wire.FileOp_FILE_OP_READ, Path: "j/t/stdout.txt"}); err != nil {
					if !errors.Is(err, ErrNoSession) {
						t.Errorf("after the end: %v", err)
					}
					return
				}
			}
		})
	}
	readers.Wait()
}
