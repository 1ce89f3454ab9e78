package nodeagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// A job's folder in the task root is its launcher's to clear, and the launcher
// may be away, or think the node away, when the job is deleted. So each folder
// is noted, with the cluster whose it is, in the agent's own directory; a session
// begins with the folders of its cluster, and the launcher has those deleted of
// whose jobs it knows nothing any more. No launcher hears of another's.

// folderNote is a note, in JSON.
type folderNote struct {
	Cluster string `json:"cluster"`
	Folder  string `json:"folder"` // in the task root
}

// foldersTold is how many folders an inventory has at most. The others are told
// when those are gone.
const foldersTold = 10_000

func (d Dir) notes() string { return filepath.Join(string(d), "folders") }

func (d Dir) note(folder string) string { return filepath.Join(d.notes(), expiryKey(folder)) }

// loadFolders reads the notes and drops those of folders that are gone. A note
// that can't be read is dropped too: what it spoke of goes when its time is over.
func (d Dir) loadFolders() (map[string]string, error) {
	out := map[string]string{}
	entries, err := os.ReadDir(d.notes())
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("the notes of jobs' folders: %w", err)
	}
	r, err := d.openTasks()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	if r != nil {
		defer r.Close()
	}
	var errs []error
	for _, e := range entries {
		p := filepath.Join(d.notes(), e.Name())
		var n folderNote
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && fi.Size() <= 4*maxMarker {
			if b, err := os.ReadFile(p); err == nil && json.Unmarshal(b, &n) != nil {
				n = folderNote{}
			}
		}
		if n.Folder != "" && validTaskDir(n.Folder) && d.note(n.Folder) == p && r != nil {
			if _, err := r.Lstat(n.Folder); err == nil {
				out[n.Folder] = n.Cluster
				continue
			}
		}
		errs = append(errs, os.Remove(p))
	}
	return out, errors.Join(errs...)
}

// noteFolder notes whose the folder of the task's directory rel is.
func (a *agent) noteFolder(cluster, rel string) error {
	folder := path.Dir(rel)
	if folder == "." || a.folders[folder] == cluster {
		return nil
	}
	b, err := json.Marshal(folderNote{cluster, folder})
	if err != nil {
		return err
	}
	if err := proc.PrivateDir(a.dir.notes()); err != nil {
		return err
	}
	p := a.dir.note(folder)
	err = os.WriteFile(p+".new", b, 0o600)
	if err == nil {
		err = os.Rename(p+".new", p)
	}
	if err != nil {
		_ = os.Remove(p + ".new")
		return diskHint(fmt.Errorf("noting whose the task's directory is: %w", err), string(a.dir))
	}
	if a.folders == nil {
		a.folders = map[string]string{}
	}
	a.folders[folder] = cluster
	return nil
}

// foldersOf lists a cluster's folders, but for those where shims are at work.
func (a *agent) foldersOf(cluster string) []string {
	busy := map[string]bool{}
	for _, sh := range a.shims {
		if sh.e.TaskDir != "" && sh.cleared.IsZero() {
			busy[path.Dir(sh.e.TaskDir)] = true
		}
	}
	var out []string
	for f, c := range a.folders {
		if c == cluster && !busy[f] {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out[:min(len(out), foldersTold)]
}

// tidy follows the removal of rel: of a folder that is gone the note goes, and
// what lies above it and is empty. It is the agent's goroutine that makes
// directories too, so none goes while a task's is made.
func (a *agent) tidy(rel string) {
	for _, folder := range []string{rel, path.Dir(rel)} {
		if _, ok := a.folders[folder]; !ok {
			continue
		}
		r, err := a.dir.openTasks()
		if err != nil {
			return
		}
		if _, err := r.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			removeEmpty(r, path.Dir(folder))
			delete(a.folders, folder)
			if err := os.Remove(a.dir.note(folder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.cfg.Log.Warn("the note of a job's folder stays", "folder", folder, "err", err)
			}
		}
		_ = r.Close()
	}
}

// removeEmpty removes rel and what is above it, as far as it is empty.
func removeEmpty(r *os.Root, rel string) {
	for ; rel != "." && r.Remove(rel) == nil; rel = path.Dir(rel) {
	}
}

// deleted reports whether a request has removed a whole directory.
func deleted(q *wire.FileRequest, r *wire.FileReply) bool {
	return q.GetOp() == wire.FileOp_FILE_OP_DELETE && q.GetRecursive() && r.GetCode() == wire.FileError_FILE_ERROR_NONE
}
