package state

import (
	"fmt"
	"strings"

	"gangway/launcher/job"
)

// maxNamed is how many tasks a reason names before it only counts them.
const maxNamed = 4

// Waits says what tasks a task waits for; nil: none.
func (c *Cluster) Waits(uid string) *job.Reason {
	t := c.tasks[uid]
	if t == nil || t.unmet == 0 || len(t.pending) == 0 {
		return nil
	}
	var names []string
	for i, l := range t.needs {
		if l.state == linkMet {
			continue
		}
		if len(names) == maxNamed {
			names = append(names, fmt.Sprintf("and %d more", t.unmet-maxNamed))
			break
		}
		names = append(names, t.spec.DependsOn[i].String()+" ("+l.stands()+")")
	}
	return &job.Reason{Code: job.WaitDepends, Want: uint64(len(t.needs)), Have: uint64(len(t.needs) - t.unmet),
		Detail: fmt.Sprintf("waits for %d of %d tasks: %s", t.unmet, len(t.needs), strings.Join(names, ", "))}
}

// stands says how far a parent is.
func (l *link) stands() string {
	if l.parent == nil {
		return "not in the job yet"
	}
	s := string(l.parent.status().State)
	if n := l.want.Len(); n > 1 {
		s += fmt.Sprintf(", %d of %d ended", l.parent.good.count(l.want)+l.parent.bad.count(l.want), n)
	}
	return s
}
