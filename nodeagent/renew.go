package nodeagent

import (
	"errors"
	"io/fs"
	"os"
)

// ErrRenewed reports a standing agent that ended so that the program which is now
// at its place on the disk is started instead.
var ErrRenewed = errors.New("this agent's program has been replaced")

// renewal is what an agent does when its launcher is of another version. One that a
// bridge started ends, as the next bridge brings the program that is to be; one that
// stands is started anew once its own file is another. Neither does it while anybody
// uses it: shims would outlive it, but what is asked of it meanwhile would not.
type renewal struct {
	began    os.FileInfo // the program's file at the start; nil: not known
	seen     os.FileInfo // at the last look
	replaced bool        // the file is another, and no longer being written
}

// look is for standing agents, now and then.
func (r *renewal) look(path string) {
	now, err := os.Stat(path)
	if err != nil || r.began == nil || !now.Mode().IsRegular() || now.Mode().Perm()&0o100 == 0 {
		r.seen, r.replaced = nil, false
		return
	}
	r.replaced = r.seen != nil && sameFile(r.seen, now) && !sameFile(r.began, now)
	r.seen = now
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// outdated says whether there are launchers and all want another version.
func (a *agent) outdated() bool {
	for s := range a.sessions {
		if !s.renew {
			return false
		}
	}
	return len(a.sessions) > 0
}

// givesWay says whether the agent is to end now, for a successor.
func (a *agent) givesWay() bool {
	if !a.outdated() || len(a.shims) > 0 || a.sweeping > 0 || a.gpus.waiting() || a.files.busy() {
		return false
	}
	return !a.cfg.Standing || a.renewal.replaced
}
