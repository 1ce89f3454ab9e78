package crew

import (
	"bytes"
	"strconv"

	"gangway/nodeagent/proc"
)

// killStrays kills those of pids, children of this process, that belong to an
// element which has ended: they left its process group, or they would be gone.
// What they have started becomes this process's, and is found the next time.
// One that hides its environment too lives until the crew ends.
func (w *Crew) killStrays(pids []int) {
	if len(pids) == 0 {
		return
	}
	runs := make(map[[2]uint64]bool, len(w.slots))
	for _, e := range w.flight {
		runs[[2]uint64{e.index, uint64(e.attempt)}] = true
	}
	var stray []int
	for _, pid := range pids {
		if key, ok := elementOf(proc.Environ(pid)); ok && !runs[key] {
			stray = append(stray, pid)
		}
	}
	proc.Kill(stray)
}

// elementOf reads from a process's environment whose it is.
func elementOf(environ []byte) (key [2]uint64, ok bool) {
	found := 0
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		for i, name := range []string{"GANGWAY_ARRAY_INDEX=", "GANGWAY_ATTEMPT="} {
			if v, has := bytes.CutPrefix(kv, []byte(name)); has {
				n, err := strconv.ParseUint(string(v), 10, 64)
				if err != nil {
					return key, false
				}
				key[i] = n
				found |= 1 << i
			}
		}
	}
	return key, found == 3
}
