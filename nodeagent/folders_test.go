//go:build linux

package nodeagent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/wire"
)

// ask sends a request for files and returns the reply.
func (l *launcher) ask(q *wire.FileRequest) *wire.FileReply {
	l.t.Helper()
	q.Seq = 1
	l.out.Put(&wire.LauncherMessage{M: &wire.LauncherMessage_FileRequest{FileRequest: q}})
	return l.wait("a reply", func(m *wire.AgentMessage) bool { return m.GetFileReply() != nil }).GetFileReply()
}

// TestFoldersOfJobs: a session begins with the folders of its own cluster, also
// of an agent before; and of a folder that is deleted nothing stays.
func TestFoldersOfJobs(t *testing.T) {
	base := tempBase(t)
	first := startAgentProcess(t, base)
	l, inv := dial(t, base, "c1", 1)
	if got := inv.GetFolders(); len(got) > 0 {
		t.Errorf("of an empty node: %q", got)
	}
	other, _ := dial(t, base, "c2", 1)
	for id, dir := range map[string]string{"a": "workitems/a/job-1/t", "a2": "workitems/a/job-1/u", "b": "workitems/b/job-2/t"} {
		l.set(l.keptTask(id, "done", dir, 0))
		l.result(id)
		l.forget(id)
		l.gone(id)
	}
	other.set(other.keptTask("c", "done", "workitems/a/job-3/t", 0))
	other.result("c")
	other.forget("c")
	other.gone("c")
	l.set(l.keptTask("busy", "stay", "workitems/busy/job-4/t", 0))
	l.ready("busy")
	_ = first.Process.Kill()
	_ = first.Wait()
	l.close()
	other.close()
	note := filepath.Join(dirOf(base).notes(), "bad")
	if err := os.WriteFile(note, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	startTestAgent(t, agentConfig(base))
	l, inv = dial(t, base, "c1", 1)
	if d := cmp.Diff([]string{"workitems/a/job-1", "workitems/b/job-2"}, inv.GetFolders()); d != "" {
		t.Error(d)
	}
	if exists(note) {
		t.Error("a note that says nothing is still there")
	}
	if r := l.ask(&wire.FileRequest{Op: opDelete, Path: "workitems/a/job-1/u", Recursive: true}); r.GetCode() != 0 {
		t.Errorf("a task's directory: %v", r)
	}
	if !exists(taskPath(base, "workitems/a/job-1/t")) {
		t.Error("another task's directory is gone")
	}
	for _, f := range inv.GetFolders() {
		if r := l.ask(&wire.FileRequest{Op: opDelete, Path: f, Recursive: true}); r.GetCode() != 0 {
			t.Errorf("%s: %v", f, r)
		}
	}
	eventually(t, "the job's directory is gone", func() bool { return !exists(taskPath(base, "workitems/b")) })
	if !exists(taskPath(base, "workitems/a/job-3/t")) || exists(taskPath(base, "workitems/a/job-1")) {
		t.Error("the other launcher's job of the same id is gone, or this one's is not")
	}
	l.end("busy")
	l.result("busy")
	l.forget("busy")
	l.gone("busy")
	l.close()
	_, inv = dial(t, base, "c1", 1)
	if d := cmp.Diff([]string{"workitems/busy/job-4"}, inv.GetFolders()); d != "" {
		t.Error(d)
	}
	_, inv = dial(t, base, "c2", 1)
	if d := cmp.Diff([]string{"workitems/a/job-3"}, inv.GetFolders()); d != "" {
		t.Error(d)
	}
}
