package nodeagent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// allProcesses is where /proc/self/ns/pid leads on a host: there every process is
// seen. Its number is the kernel's PROC_PID_INIT_INO.
const allProcesses = "pid:[4026531836]"

// sharedMemoryRest is how long nothing may have happened in a directory of shared
// memory before it can be stale: more than a start takes.
const sharedMemoryRest = 10 * time.Minute

// sweepSharedMemory removes the shared memory of shims that were killed together with
// their agent and whose registry is gone too: nobody else will, and it holds memory.
// In a container, which may have its host's shared memory and not see its processes,
// it does nothing.
func sweepSharedMemory(known map[string]bool, log *slog.Logger) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != allProcesses {
		return
	}
	for _, dir := range staleSharedMemory(proc.SharedMemoryRoot, known, time.Now()) {
		if err := proc.RemoveSharedMemory(dir); err != nil {
			log.Warn("shared memory of a job that is over stays", "err", err)
			continue
		}
		log.Info("removed the shared memory of a job that is over", "dir", dir)
	}
}

// staleSharedMemory lists the directories of this user's jobs in root, of all users'
// if this one is root, that no shim in known and no process belongs to.
func staleSharedMemory(root string, known map[string]bool, now time.Time) []string {
	// A shim is there before its directory: those are listed first.
	list, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, d := range list {
		id, ok := strings.CutPrefix(d.Name(), "gangway-")
		if !ok || id == "" || len(id) > wire.IDLimit || !d.IsDir() || known[id] {
			continue
		}
		fi, err := d.Info()
		if err != nil || now.Sub(fi.ModTime()) < sharedMemoryRest {
			continue
		}
		if uid, _, ok := proc.FileOwner(fi); !ok || (uid != os.Geteuid() && os.Geteuid() != 0) {
			continue
		}
		if len(proc.ByEnv(entry{ID: id}.marker())) == 0 {
			out = append(out, filepath.Join(root, d.Name()))
		}
	}
	return out
}
