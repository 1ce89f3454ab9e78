// Package nodeagent is the agent: one process per node and user, which probes
// the node, starts shims, arbitrates cores between launchers and carries the
// shims' news. It is on no running job's path: killed, it is started again by
// the next bridge and finds its shims by their registry files.
package nodeagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gangway/nodeagent/proc"
)

// Dir is an agent's directory on its node. It holds sockets and locks, so it
// must be on a local file system: a home on NFS or Lustre won't do.
type Dir string

// DefaultBase is where the agent's and the gangs' directories are made.
const DefaultBase = "/tmp"

// OpenDir makes base/gangway-agent-UID, private to the user. An empty base
// means $GANGWAY_TMPDIR or DefaultBase.
func OpenDir(base string) (Dir, error) {
	if base == "" {
		base = os.Getenv("GANGWAY_TMPDIR")
	}
	if base == "" {
		base = DefaultBase
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return "", err
	}
	d := filepath.Join(base, fmt.Sprintf("gangway-agent-%d", os.Getuid()))
	// 107 bytes is the longest unix socket path on Linux.
	if len(d)+len("/agent.sock") > 100 {
		return "", fmt.Errorf("the directory %s is too long for a unix socket; give --tmpdir a shorter local directory", base)
	}
	// An agent that ends just now takes its directory away between two of
	// these steps.
	for range openTries {
		if err = makeDirs(d, filepath.Join(d, "shims"), filepath.Join(d, "spool")); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("the agent's directory: %w", err)
	}
	return Dir(d), nil
}

// openTries is how many ending agents an OpenDir outlasts.
const openTries = 20

func makeDirs(paths ...string) error {
	for _, p := range paths {
		if err := proc.PrivateDir(p); err != nil {
			return err
		}
	}
	return nil
}

func (d Dir) socket() string { return filepath.Join(string(d), "agent.sock") }
func (d Dir) lock() string   { return filepath.Join(string(d), "lock") }
func (d Dir) log() string    { return filepath.Join(string(d), "log") }
func (d Dir) spool() string  { return filepath.Join(string(d), "spool") }

func (d Dir) registry(id string) string { return filepath.Join(string(d), "shims", id+".json") }

// claimDir opens the directory and locks it, so that nobody takes it away.
func claimDir(base string) (Dir, io.Closer, error) {
	for try := 1; ; try++ {
		dir, err := OpenDir(base)
		if err != nil {
			return "", nil, err
		}
		lock, err := proc.Lock(dir.lock())
		switch {
		case errors.Is(err, fs.ErrNotExist) && try < openTries:
			continue // its last agent has just taken it away
		case errors.Is(err, proc.ErrLocked):
			return "", nil, ErrRunning
		case err != nil:
			return "", nil, err
		}
		// What the last agent took away before it left the lock.
		if _, err := OpenDir(base); err != nil {
			return "", nil, errors.Join(err, lock.Close())
		}
		return dir, lock, nil
	}
}

// remove takes the directory away when nothing of value is left in it, and
// gives up the lock. A new agent may have it from then on: all that may still
// go is the directory, and only if it is empty.
func (d Dir) remove(lock io.Closer) {
	for _, p := range []string{d.socket(), d.log(), filepath.Join(string(d), "shims"), d.spool(), d.expiry(), d.notes()} {
		// A directory that is not empty stays: it holds results that no
		// launcher has acknowledged, or when task directories are to be deleted
		// and whose they are.
		_ = os.Remove(p)
	}
	_ = lock.Close()
	_ = os.Remove(string(d))
}

// openLog opens the agent's log for appending.
func (d Dir) openLog() (*os.File, error) {
	for try := 1; ; try++ {
		f, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || try == openTries {
			return nil, diskHint(fmt.Errorf("the agent's log: %w", err), string(d))
		}
		if err := proc.PrivateDir(string(d)); err != nil {
			return nil, err
		}
	}
}

// entry is what the agent must know of a shim after its own death.
type entry struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	TaskUID string `json:"task_uid"`
	Lo      uint64 `json:"lo"`
	Hi      uint64 `json:"hi"`
	Attempt uint32 `json:"attempt"`
	Epoch   uint64 `json:"epoch"`
	NodeDir string `json:"node_dir"`
	PID     int    `json:"pid"`
	Start   uint64 `json:"start,omitempty"` // of PID, see proc.StartTime; 0: of an agent that did not write it
	CPUs    string `json:"cpus"`
	Memory  uint64 `json:"memory"`
	Shared  bool   `json:"shared"`
	Who     string `json:"who"`

	GPUs []uint32 `json:"gpus,omitempty"` // topology.GPUSlot.ID

	Session bool   `json:"session"`
	Leased  bool   `json:"leased"`
	Spool   string `json:"spool,omitempty"` // directory, of a user other than the agent's

	Crew     int    `json:"crew,omitempty"`     // slots; 0: it is none
	Returned []byte `json:"returned,omitempty"` // of a crew found dead: the block (wire.Block) that gives back what it never began

	TaskDir   string        `json:"task_dir,omitempty"`  // in the task root; "": none
	Retention time.Duration `json:"retention,omitempty"` // of TaskDir after the end; 0: for ever
}

// spoolOf is where e's spool is.
func (d Dir) spoolOf(e entry) string {
	if e.Spool != "" {
		return e.Spool
	}
	return d.spool()
}

// save writes e so that a crash leaves the old or the new file, never half.
func (d Dir) save(e entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	p := d.registry(e.ID)
	tmp := p + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, p)
}

// entries reads the registry. Files that can't be read are reported, not
// skipped in silence: a shim may stand behind them.
func (d Dir) entries() ([]entry, error) {
	names, err := os.ReadDir(filepath.Join(string(d), "shims"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []entry
	var errs []error
	for _, n := range names {
		p := filepath.Join(string(d), "shims", n.Name())
		if strings.HasSuffix(n.Name(), ".new") {
			_ = os.Remove(p) // half written by an agent that died
		}
		if !strings.HasSuffix(n.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(p)
		if err == nil {
			var e entry
			if err = json.Unmarshal(b, &e); err == nil {
				out = append(out, e)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("registry file %s: %w", p, err))
	}
	return out, errors.Join(errs...)
}
