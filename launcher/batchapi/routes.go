package batchapi

import (
	"reflect"
	"strings"

	"gangway/launcher/job"
)

// route is one operation. The table of them is the only list of what there is:
// requests are matched, the OpenAPI document and docs/batch-operations.md are
// made from it.
type route struct {
	method string
	path   string // segments; "{name}" is one, "{name...}" the rest
	name   string // as Batch's reference calls the operation: "Task: add collection"
	role   Role   // 0: reader to read, submitter to change
	list   bool   // answers in pages, with $filter, $select and maxresults

	handle func(*call) error // nil: answered by 501
	why    string            // of what is not there, or what differs from Azure
	never  bool              // without handle: it has no meaning on one's own machines

	in, out any // example values of the bodies, for the OpenAPI document
}

// ours reports whether the route is gangway's, not Batch's.
func (r *route) ours() bool { return r != nil && strings.HasPrefix(r.path, "/gangway/") }

// match reports whether the route is for a path, and its parameters.
func (r *route) match(segments []string) (map[string]string, bool) {
	pattern := strings.Split(r.path[1:], "/")
	params := map[string]string{}
	for i, p := range pattern {
		if i >= len(segments) {
			return nil, false
		}
		name, isParam := strings.CutPrefix(p, "{")
		name = strings.TrimSuffix(name, "}")
		switch rest, isRest := strings.CutSuffix(name, "..."); {
		case isRest:
			params[rest] = strings.Join(segments[i:], "/")
			return params, params[rest] != ""
		case isParam && segments[i] != "":
			params[name] = segments[i]
		case p != segments[i]:
			return nil, false
		}
	}
	return params, len(segments) == len(pattern)
}

const (
	get, post, put, patch, del, head = "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"

	noSchedules    = "job schedules are not in this version"
	noApps         = "application packages are not in this version; let the command load what it needs"
	noCertificates = "nodes are the user's own: put certificates there"
	noUsers        = "nodes are the user's own: accounts on them are not gangway's to make"
	noPower        = "nodes are the user's own machines: restart them there; drain and resume are under /gangway/v1"
	noPools        = "pools are the machines that the launcher was given"
	noScale        = "pools of fixed machines do not scale; autoscale is not in this version"
)

func routes() []route {
	all := []route{
		{method: get, path: "/pools", name: "Pool: list", list: true, handle: (*call).listPools, out: poolEntity{}},
		{method: post, path: "/pools", name: "Pool: add", role: Admin, handle: (*call).refusePool, why: "refused with 409: " + noPools},
		{method: get, path: "/pools/{poolId}", name: "Pool: get", handle: (*call).getPool, out: poolEntity{}},
		{method: head, path: "/pools/{poolId}", name: "Pool: exists", handle: (*call).getPool},
		{method: patch, path: "/pools/{poolId}", name: "Pool: patch", never: true, why: noPools},
		{method: post, path: "/pools/{poolId}/updateproperties", name: "Pool: update properties", never: true, why: noPools},
		{method: del, path: "/pools/{poolId}", name: "Pool: delete", never: true, why: noPools},
		{method: post, path: "/pools/{poolId}/resize", name: "Pool: resize", role: Admin, handle: (*call).resizePool, why: "within the machines that the launcher was given"},
		{method: post, path: "/pools/{poolId}/stopresize", name: "Pool: stop resize", role: Admin, handle: (*call).stopResize},
		{method: post, path: "/pools/{poolId}/removenodes", name: "Pool: remove nodes", role: Admin, handle: (*call).removeNodes},
		{method: post, path: "/pools/{poolId}/enableautoscale", name: "Pool: enable autoscale", why: noScale},
		{method: post, path: "/pools/{poolId}/disableautoscale", name: "Pool: disable autoscale", why: noScale},
		{method: post, path: "/pools/{poolId}/evaluateautoscale", name: "Pool: evaluate autoscale", why: noScale},
		{method: get, path: "/poolusagemetrics", name: "Pool: list usage metrics", handle: func(c *call) error { return c.emptyList("poolusagemetrics") }, why: "always empty: nothing is billed"},
		{method: get, path: "/nodecounts", name: "Account: list pool node counts", list: true, handle: (*call).nodeCounts, out: nodeCountsBody{}},
		{method: get, path: "/supportedimages", name: "Account: list supported images", list: true, handle: func(c *call) error { return c.emptyList("supportedimages") }, why: "always empty: nodes are the user's own"},

		{method: get, path: "/pools/{poolId}/nodes", name: "Node: list", list: true, handle: (*call).listNodes, out: nodeEntity{}, why: "without `gangway.topology`, unless `$select` names `gangway/topology`"},
		{method: get, path: "/pools/{poolId}/nodes/{nodeId}", name: "Node: get", handle: (*call).getNode, out: nodeEntity{}, why: "`gangway.topology` is the machine ([node.md](node.md))"},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/disablescheduling", name: "Node: disable scheduling", role: Admin, handle: (*call).disableScheduling},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/enablescheduling", name: "Node: enable scheduling", role: Admin, handle: (*call).enableScheduling},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/reboot", name: "Node: reboot", never: true, why: noPower},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/start", name: "Node: start", never: true, why: noPower},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/reimage", name: "Node: reimage", never: true, why: noPower},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/deallocate", name: "Node: deallocate", never: true, why: noPower},
		{method: get, path: "/pools/{poolId}/nodes/{nodeId}/remoteloginsettings", name: "Node: get remote login settings", never: true, why: noUsers},
		{method: get, path: "/pools/{poolId}/nodes/{nodeId}/rdp", name: "Node: get remote desktop", never: true, why: noUsers},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/users", name: "Node: add user", never: true, why: noUsers},
		{method: put, path: "/pools/{poolId}/nodes/{nodeId}/users/{userName}", name: "Node: update user", never: true, why: noUsers},
		{method: del, path: "/pools/{poolId}/nodes/{nodeId}/users/{userName}", name: "Node: delete user", never: true, why: noUsers},
		{method: post, path: "/pools/{poolId}/nodes/{nodeId}/uploadbatchservicelogs", name: "Node: upload service logs", why: "there is no storage account to put them in; the agent's log is on the node"},
		{method: get, path: "/pools/{poolId}/nodes/{nodeId}/extensions", name: "Node: list extensions", list: true, handle: func(c *call) error {
			if _, _, err := c.node(); err != nil {
				return err
			}
			return c.emptyList("extensions")
		}, why: "always empty"},
		{method: get, path: "/pools/{poolId}/nodes/{nodeId}/extensions/{extensionName}", name: "Node: get extension", never: true, why: "nodes have none"},

		{method: get, path: "/jobs", name: "Job: list", list: true, handle: (*call).listJobs, out: jobEntity{}},
		{method: post, path: "/jobs", name: "Job: add", handle: (*call).addJob, in: jobEntity{}},
		{method: get, path: "/jobs/{jobId}", name: "Job: get", handle: (*call).getJob, out: jobEntity{}},
		{method: put, path: "/jobs/{jobId}", name: "Job: update", handle: (*call).updateJob, in: jobEntity{}},
		{method: patch, path: "/jobs/{jobId}", name: "Job: patch", handle: (*call).updateJob, in: jobEntity{}},
		{method: post, path: "/jobs/{jobId}/disable", name: "Job: disable", handle: (*call).disableJob},
		{method: post, path: "/jobs/{jobId}/enable", name: "Job: enable", handle: (*call).enableJob},
		{method: post, path: "/jobs/{jobId}/terminate", name: "Job: terminate", handle: (*call).terminateJob},
		{method: del, path: "/jobs/{jobId}", name: "Job: delete", handle: (*call).deleteJob},
		{method: get, path: "/jobs/{jobId}/taskcounts", name: "Job: get task counts", handle: (*call).taskCounts, out: taskCountsBody{}},
		{method: get, path: "/jobs/{jobId}/jobpreparationandreleasetaskstatus", name: "Job: list preparation and release task status", list: true, handle: (*call).noPreparation, why: "always empty: these tasks are not in this version"},
		{method: get, path: "/lifetimejobstats", name: "Job: get all lifetime statistics", never: true, why: "Azure has retired it"},
		{method: get, path: "/lifetimepoolstats", name: "Pool: get all lifetime statistics", never: true, why: "Azure has retired it"},

		{method: get, path: "/jobs/{jobId}/tasks", name: "Task: list", list: true, handle: (*call).listTasks, out: taskEntity{}},
		{method: post, path: "/jobs/{jobId}/tasks", name: "Task: add", handle: (*call).addTask, in: taskEntity{}},
		{method: post, path: "/jobs/{jobId}/addtaskcollection", name: "Task: add collection", handle: (*call).addTasks, out: taskAddResult{}},
		{method: get, path: "/jobs/{jobId}/tasks/{taskId}", name: "Task: get", handle: (*call).getTask, out: taskEntity{}},
		{method: put, path: "/jobs/{jobId}/tasks/{taskId}", name: "Task: update", handle: (*call).updateTask, in: taskEntity{}},
		{method: del, path: "/jobs/{jobId}/tasks/{taskId}", name: "Task: delete", handle: (*call).deleteTask},
		{method: post, path: "/jobs/{jobId}/tasks/{taskId}/terminate", name: "Task: terminate", handle: (*call).terminateTask},
		{method: post, path: "/jobs/{jobId}/tasks/{taskId}/reactivate", name: "Task: reactivate", handle: (*call).reactivateTask},
		{method: get, path: "/jobs/{jobId}/tasks/{taskId}/subtasksinfo", name: "Task: list subtasks", handle: (*call).subtasks, out: subtaskEntity{}},
	}
	for _, f := range []struct {
		path, noun string
		role       Role
	}{{"/jobs/{jobId}/tasks/{taskId}/files", "task", 0}, {"/pools/{poolId}/nodes/{nodeId}/files", "node", Admin}} {
		all = append(all,
			route{method: get, path: f.path, name: "File: list from " + f.noun, role: f.role, list: true, handle: (*call).listFiles, out: fileEntity{}},
			route{method: get, path: f.path + "/{filePath...}", name: "File: get from " + f.noun, role: f.role, handle: (*call).getFile},
			route{method: head, path: f.path + "/{filePath...}", name: "File: get properties from " + f.noun, role: f.role, handle: (*call).fileProperties},
			route{method: del, path: f.path + "/{filePath...}", name: "File: delete from " + f.noun, role: f.role, handle: (*call).deleteFile},
		)
	}
	for _, g := range []struct{ path, noun, why string }{{"/jobschedules", "Job schedule", noSchedules}, {"/applications", "Application", noApps}, {"/certificates", "Certificate", noCertificates}} {
		never := g.noun == "Certificate"
		all = append(all,
			route{method: get, path: g.path, name: g.noun + ": list", list: true, why: g.why, never: never},
			route{method: get, path: g.path + "/{id...}", name: g.noun + ": get", why: g.why, never: never})
		if g.noun == "Application" {
			continue
		}
		all = append(all, route{method: post, path: g.path, name: g.noun + ": add", why: g.why, never: never},
			route{method: del, path: g.path + "/{id...}", name: g.noun + ": delete", why: g.why, never: never})
	}
	for _, r := range [][3]string{
		{put, "", "update"}, {patch, "", "patch"}, {head, "", "exists"}, {post, "/disable", "disable"}, {post, "/enable", "enable"}, {post, "/terminate", "terminate"},
	} {
		all = append(all, route{method: r[0], path: "/jobschedules/{jobScheduleId}" + r[1], name: "Job schedule: " + r[2], why: noSchedules})
	}
	return append(all, gangwayRoutes()...)
}

// gangwayRoutes are those that Batch has no words for; they need no api-version.
func gangwayRoutes() []route {
	return []route{
		{method: get, path: "/gangway/v1/openapi.json", name: "this document", handle: (*call).openAPI},
		{method: get, path: "/gangway/v1/metrics", name: "what Prometheus scrapes", handle: (*call).metrics},
		{method: post, path: "/gangway/v1/jobs", name: "submit a job with its tasks, all or nothing", handle: (*call).submit, in: job.Spec{}, out: submitBody{},
			why: "the body is the job that gangway submit makes of a job file"},
		{method: post, path: "/gangway/v1/preview", name: "what a job would be, without submitting it", handle: (*call).preview, in: job.Spec{}, out: job.Preview{},
			why: "elements, the first three and the last of each task, cores, and what would be refused; nothing changes"},
		{method: get, path: "/gangway/v1/jobs/{jobId}/summary", name: "what the ends of a job's tasks come to", handle: (*call).summary, out: summaryBody{},
			why: "counts, a histogram of run times, failures grouped by how they ended and their last line of stderr, rate and time left"},
		{method: get, path: "/gangway/v1/jobs/{jobId}/end", name: "wait until a job has ended", handle: (*call).jobEnd,
			why: "or until the duration of query wait, up to 1m, is over; the answer is 204 either way. A job that stays open has ended when all of its tasks have"},
		{method: get, path: "/gangway/v1/jobs/{jobId}/tasks/{taskId}/attempts", name: "all that ran of a task", handle: (*call).attempts, out: attemptsBody{}},
		{method: get, path: "/gangway/v1/jobs/{jobId}/tasks/{taskId}/explain", name: "why a task waits or failed", handle: (*call).explain, out: explainBody{}},
		{method: get, path: "/gangway/v1/jobs/{jobId}/tasks/{taskId}/autopsy", name: "why an attempt failed", handle: (*call).autopsy, out: autopsyBody{},
			why: "of the last attempt that failed, or of query attempt, a number from 1; 404 if there is none ([autopsy.md](autopsy.md))"},
		{method: get, path: "/gangway/v1/jobs/{jobId}/tasks/{taskId}/files/{filePath...}", name: "follow a file that a task writes", handle: (*call).follow,
			why: "query offset (bytes), wait (a duration up to 1m) and, of a gang, instance (which of its nodes, from 0); headers Gangway-Next-Offset, Gangway-Done and Gangway-Instances"},
		{method: post, path: "/gangway/v1/pools/{poolId}/nodes/{nodeId}/drain", name: "place nothing more on a node", role: Admin, handle: (*call).drain, out: nodeEntity{},
			why: "body {\"tasks\": \"taskcompletion\" (default), \"requeue\" or \"terminate\"}"},
		{method: post, path: "/gangway/v1/pools/{poolId}/nodes/{nodeId}/resume", name: "place tasks on a node again", role: Admin, handle: (*call).enableScheduling, out: nodeEntity{}},
	}
}

// propertyNames returns the JSON names of a struct's fields.
func propertyNames(v any) []string {
	t := reflect.TypeOf(v)
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			names = append(names, propertyNames(reflect.Zero(f.Type).Interface())...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}
