package batchapi

import (
	"net/http"
	"time"

	"gangway/launcher/job"
	"gangway/topology"
)

// nodeEntity is a node as clients see it.
type nodeEntity struct {
	ID         string      `json:"id"`
	URL        string      `json:"url"`
	State      string      `json:"state"`
	Scheduling string      `json:"schedulingState"`
	StateAt    string      `json:"stateTransitionTime,omitempty"`
	BootedAt   string      `json:"lastBootTime,omitempty"`
	JoinedAt   string      `json:"allocationTime,omitempty"`
	Address    string      `json:"ipAddress,omitempty"`
	Affinity   string      `json:"affinityId"`
	VMSize     string      `json:"vmSize"`
	TotalRun   int         `json:"totalTasksRun"`
	Running    int         `json:"runningTasksCount"`
	RunSlots   int         `json:"runningTaskSlotsCount"`
	TotalOK    int         `json:"totalTasksSucceeded"`
	Recent     []nodeTask  `json:"recentTasks,omitempty"`
	Errors     []poolError `json:"errors,omitempty"`
	Dedicated  bool        `json:"isDedicated"`
	Agent      *agentInfo  `json:"nodeAgentInfo,omitempty"`
	Gangway    nodeFacts   `json:"gangway"`
}

type agentInfo struct {
	Version string `json:"version"`
	At      string `json:"lastUpdateTime,omitempty"`
}

type nodeFacts struct {
	Cores    int            `json:"cores"`
	Memory   uint64         `json:"memory,omitempty"` // bytes
	Usage    *nodeUsage     `json:"usage,omitempty"`
	Topology *topology.Node `json:"topology,omitempty"` // the node as gangway probe --json prints it
}

type nodeTask struct {
	URL       string        `json:"taskUrl,omitempty"`
	Job       string        `json:"jobId,omitempty"`
	Task      string        `json:"taskId,omitempty"`
	Subtask   int           `json:"subtaskId,omitempty"`
	State     string        `json:"taskState"`
	Execution executionInfo `json:"executionInfo"`
}

// renderNode shows a node. Which tasks run there is for those who may see every job.
func (c *call) renderNode(pool string, n *Node) any {
	e := nodeEntity{
		ID: n.ID, URL: c.link("pools", pool, "nodes", n.ID), State: n.State, Scheduling: "enabled", StateAt: when(n.StateAt), BootedAt: when(n.BootedAt), JoinedAt: when(n.JoinedAt),
		Address: n.Address, Affinity: n.ID, VMSize: "own", TotalRun: n.TotalRun, Running: n.Running, RunSlots: n.RunSlots, TotalOK: n.TotalOK,
		Errors: poolErrors(n.Errors), Dedicated: true, Gangway: nodeFacts{n.Cores, n.Memory, usageOf(n.Usage), n.Topology},
	}
	if !n.Scheduling {
		e.Scheduling = "disabled"
	}
	if n.Agent != "" {
		e.Agent = &agentInfo{n.Agent, when(n.JoinedAt)}
	}
	if c.who.Role < Admin {
		return e
	}
	for _, t := range n.Recent {
		e.Recent = append(e.Recent, nodeTask{c.link("jobs", t.Job, "tasks", t.Task), t.Job, t.Task, t.Subtask, string(t.State), execution(t.Run, t.State == job.TaskCompleted)})
	}
	return e
}

func nodeFields() fields[Node] {
	return fields[Node]{
		"id":         {text: func(n *Node) (string, bool) { return n.ID, true }},
		"affinityId": {text: func(n *Node) (string, bool) { return n.ID, true }},
		"ipAddress":  {text: func(n *Node) (string, bool) { return n.Address, n.Address != "" }},
		"state":      {text: func(n *Node) (string, bool) { return n.State, true }, enum: nodeStates()},
		"schedulingState": {text: func(n *Node) (string, bool) {
			return map[bool]string{true: "enabled", false: "disabled"}[n.Scheduling], true
		}, enum: []string{"enabled", "disabled"}},
		"stateTransitionTime":   {time: func(n *Node) time.Time { return n.StateAt }},
		"lastBootTime":          {time: func(n *Node) time.Time { return n.BootedAt }},
		"allocationTime":        {time: func(n *Node) time.Time { return n.JoinedAt }},
		"totalTasksRun":         {number: func(n *Node) (float64, bool) { return float64(n.TotalRun), true }},
		"totalTasksSucceeded":   {number: func(n *Node) (float64, bool) { return float64(n.TotalOK), true }},
		"runningTasksCount":     {number: func(n *Node) (float64, bool) { return float64(n.Running), true }},
		"runningTaskSlotsCount": {number: func(n *Node) (float64, bool) { return float64(n.RunSlots), true }},
		"isDedicated":           {flag: func(*Node) bool { return true }},
	}
}

func (c *call) node() (Pool, Node, error) {
	p, err := c.pool()
	if err != nil {
		return p, Node{}, err
	}
	n, err := c.s.Backend.Node(c.ctx(), p.ID, c.params["nodeId"])
	return p, n, err
}

func (c *call) listNodes() error {
	p, err := c.pool()
	if err != nil {
		return err
	}
	all, err := c.s.Backend.Nodes(c.ctx(), p.ID)
	if err != nil {
		return err
	}
	// A topology is large, and a pool has many nodes: who wants all of them says so.
	if !c.selects("gangway/topology") {
		for i := range all {
			all[i].Topology = nil
		}
	}
	id := func(n *Node) string { return n.ID }
	return writeList(c, lister[Node]{
		set: "nodes", fields: nodeFields(), shown: propertyNames(nodeEntity{}), fetch: slicePage(all, id), cursor: id,
		render: func(n *Node) any { return c.renderNode(p.ID, n) },
	})
}

func (c *call) getNode() error {
	p, n, err := c.node()
	if err != nil {
		return err
	}
	return c.entity("nodes", c.renderNode(p.ID, &n), propertyNames(nodeEntity{}))
}

func (c *call) disableScheduling() error { return c.closeNode("nodeDisableSchedulingOption") }

// drain is disableScheduling in gangway's words; it lets tasks finish unless told
// otherwise, and says so.
func (c *call) drain() error { return c.closeNode("tasks") }

func (c *call) closeNode(property string) error {
	p, n, err := c.node()
	if err != nil {
		return err
	}
	b, err := c.body(true)
	if err != nil {
		return err
	}
	what := DeallocateRequeue
	if c.route.ours() {
		what = DeallocateCompletion
	}
	if v, ok := b.enum(property, string(DeallocateRequeue), string(DeallocateTerminate), string(DeallocateCompletion)); ok {
		what = Deallocation(v)
	}
	if err := b.finish(); err != nil {
		return err
	}
	if err := c.s.Backend.DisableScheduling(c.ctx(), p.ID, n.ID, what); err != nil {
		return err
	}
	return c.nodeAnswer(p, n)
}

func (c *call) enableScheduling() error {
	p, n, err := c.node()
	if err != nil {
		return err
	}
	if err := c.emptyBody(); err != nil {
		return err
	}
	if err := c.s.Backend.EnableScheduling(c.ctx(), p.ID, n.ID); err != nil {
		return err
	}
	return c.nodeAnswer(p, n)
}

// nodeAnswer is the node as it is now under /gangway/v1, an empty body in Batch.
func (c *call) nodeAnswer(p Pool, n Node) error {
	if !c.route.ours() {
		c.w.Header().Set("DataServiceId", c.link("pools", p.ID, "nodes", n.ID))
		c.write(http.StatusOK, nil)
		return nil
	}
	n, err := c.s.Backend.Node(c.ctx(), p.ID, n.ID)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, c.renderNode(p.ID, &n))
	return nil
}
