package state

import (
	"strings"

	"gangway/launcher/job"
)

// Owns reports whether the folder of the agents' task roots is a job's of this
// cluster, where uid is the job's that the folder names.
func (c *Cluster) Owns(folder, uid string) bool {
	j := c.jobs[uid]
	return j != nil && job.Folder(j.row.Spec.ID, uid) == folder
}

// Thinned reports whether tasks of the job were deleted: folders of theirs may be on
// nodes that were away.
func (c *Cluster) Thinned(uid string) bool {
	j := c.jobs[uid]
	return j != nil && len(j.tasks) < j.row.Next
}

// OwnsTask reports whether a folder of that name in the job's folder is a task's.
func (c *Cluster) OwnsTask(uid, name string) bool {
	j := c.jobs[uid]
	if j == nil {
		return false
	}
	t := j.byID[strings.ToLower(name)]
	return t != nil && t.spec.ID == name || j.ownsElement(name)
}
