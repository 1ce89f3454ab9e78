package nodeagent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"gangway/nodeagent/wire"
)

// testClock is a clock that is moved by hand.
type testClock struct{ ns atomic.Int64 }

func newTestClock() *testClock {
	c := new(testClock)
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *testClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *testClock) advance(d time.Duration) { c.ns.Add(int64(d)) }
func exists(p string) bool                   { _, err := os.Lstat(p); return err == nil }
func taskPath(base, rel string) string       { return filepath.Join(dirOf(base).tasks(), rel) }
func markerPath(base, rel string) string     { return filepath.Join(dirOf(base).expiry(), expiryKey(rel)) }
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// keptTask is an assignment with a directory that is kept for a time.
func (l *launcher) keptTask(id, command, dir string, keep time.Duration) *wire.Assignment {
	as := l.assignment(id, command, "0")
	as.Session, as.Shared, as.TaskDir, as.RetentionMs = false, true, dir, uint64(keep.Milliseconds())
	return as
}

// TestRetention: directories go when their time is over, and only then; never
// under a shim that lives.
func TestRetention(t *testing.T) {
	base, clock := tempBase(t), newTestClock()
	cfg := agentConfig(base)
	cfg.Now = clock.now
	startTestAgent(t, cfg)
	l, _ := dial(t, base, "c1", 1)
	const short, long, again, ever = "workitems/a/job-1/short", "workitems/b/job-2/long", "workitems/b/job-2/again", "workitems/b/job-2/ever"
	for id, as := range map[string]*wire.Assignment{
		"short": l.keptTask("short", "done", short, time.Minute),
		"long":  l.keptTask("long", "done", long, 3*time.Hour),
		"again": l.keptTask("again", "done", again, time.Minute),
		"ever":  l.keptTask("ever", "done", ever, 0),
	} {
		l.set(as)
		l.result(id)
		if has := exists(markerPath(base, as.GetTaskDir())); has != (id != "ever") {
			t.Errorf("marker of %s: %t", id, has)
		}
		l.forget(id)
		l.gone(id)
	}
	locked := filepath.Join(taskPath(base, short), "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(locked, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{locked, taskPath(base, short)} {
		if err := os.Chmod(p, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	l.set(l.keptTask("again2", "stay", again, time.Minute)) // its next attempt
	l.ready("again2")
	clock.advance(expireEvery)
	eventually(t, "short is deleted", func() bool { return !exists(taskPath(base, "workitems/a")) && !exists(markerPath(base, short)) })
	for _, rel := range []string{long, again, ever} {
		if !exists(taskPath(base, rel)) {
			t.Errorf("%s is gone", rel)
		}
	}
	l.end("again2")
	l.result("again2")
	l.forget("again2")
	l.gone("again2")
	clock.advance(2 * expireEvery)
	eventually(t, "the others are deleted", func() bool { return !exists(taskPath(base, again)) && !exists(taskPath(base, long)) })
	if !exists(taskPath(base, ever)) {
		t.Error("what is kept for ever is gone")
	}
}

// TestRetentionAtStart: what expired while no agent was there, and what a killed
// one had begun to delete.
func TestRetentionAtStart(t *testing.T) {
	base, clock := tempBase(t), newTestClock()
	dir, err := OpenDir(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, rel := range []string{"workitems/a/job-1/old", expiredPrefix + "begun/x", "workitems/a/job-1/fresh", "workitems/a/job-1/other"} {
		if err := os.MkdirAll(taskPath(base, rel), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for rel, end := range map[string]time.Time{
		"workitems/a/job-1/old":   clock.now().Add(-2 * time.Hour),
		"workitems/a/job-1/fresh": clock.now().Add(-time.Minute),
		"workitems/a/job-1/none":  clock.now().Add(-2 * time.Hour),
	} {
		if err := dir.expireAt(rel, time.Hour, end); err != nil {
			t.Fatal(err)
		}
	}
	// A marker that says something else than it is named for is no marker.
	wrong := filepath.Join(dir.expiry(), expiryKey("wrong"))
	for p, text := range map[string]string{wrong: "workitems/a/job-1/other", filepath.Join(dir.expiry(), expiryKey("../x")): "../x"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, clock.now(), clock.now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cfg := agentConfig(base)
	cfg.Now = clock.now
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	eventually(t, "old is deleted", func() bool {
		return !exists(taskPath(base, "workitems/a/job-1/old")) && !exists(markerPath(base, "workitems/a/job-1/none")) && !exists(wrong) &&
			!exists(taskPath(base, expiredPrefix+"begun"))
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, rel := range []string{"workitems/a/job-1/fresh", "workitems/a/job-1/other"} {
		if !exists(taskPath(base, rel)) {
			t.Errorf("%s is gone", rel)
		}
	}
	names, err := os.ReadDir(dir.expiry())
	if err != nil || len(names) != 1 {
		t.Errorf("markers left: %v (%v), want that of fresh", names, err)
	}
	if err := dir.expireAt("workitems/a/job-1/fresh", 0, clock.now()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(markerPath(base, "workitems/a/job-1/fresh")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the marker of what is kept for ever now is there (%v)", err)
	}
}
