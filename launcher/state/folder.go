package state

import "gangway/launcher/job"

// Owns reports whether the folder of the agents' task roots is a job's of this
// cluster, where uid is the job's that the folder names.
func (c *Cluster) Owns(folder, uid string) bool {
	j := c.jobs[uid]
	return j != nil && job.Folder(j.row.Spec.ID, uid) == folder
}
