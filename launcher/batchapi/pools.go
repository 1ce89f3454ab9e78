package batchapi

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// poolEntity is a pool as clients see it. Its machines are the user's own, so
// vmSize names no product.
type poolEntity struct {
	ID           string         `json:"id"`
	URL          string         `json:"url"`
	ETag         string         `json:"eTag"`
	Modified     string         `json:"lastModified,omitempty"`
	Created      string         `json:"creationTime,omitempty"`
	State        string         `json:"state"`
	StateAt      string         `json:"stateTransitionTime,omitempty"`
	Alloc        string         `json:"allocationState"`
	AllocAt      string         `json:"allocationStateTransitionTime,omitempty"`
	VMSize       string         `json:"vmSize"`
	ResizeErrors []poolError    `json:"resizeErrors,omitempty"`
	Dedicated    int            `json:"currentDedicatedNodes"`
	Low          int            `json:"currentLowPriorityNodes"`
	Target       int            `json:"targetDedicatedNodes"`
	TargetLow    int            `json:"targetLowPriorityNodes"`
	AutoScale    bool           `json:"enableAutoScale"`
	InterNode    bool           `json:"enableInterNodeCommunication"`
	Slots        int            `json:"taskSlotsPerNode"`
	Policy       nodeFillPolicy `json:"taskSchedulingPolicy"`
}

type nodeFillPolicy struct {
	Fill string `json:"nodeFillType"`
}

type poolError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func poolErrors(all []Failure) []poolError {
	var r []poolError
	for _, f := range all {
		r = append(r, poolError(f))
	}
	return r
}

func (c *call) renderPool(p *Pool) any {
	size := fmt.Sprintf("%d-cores", p.Slots)
	if p.SlotsMax > p.Slots {
		size = fmt.Sprintf("%d-to-%d-cores", p.Slots, p.SlotsMax)
	}
	return poolEntity{
		ID: p.ID, URL: c.link("pools", p.ID), ETag: etag(p.Version), Modified: when(p.Times.Modified), Created: when(p.Times.Created),
		State: p.State, StateAt: when(p.Times.StateAt), Alloc: p.Alloc, AllocAt: when(p.AllocAt), VMSize: size, ResizeErrors: poolErrors(p.Errors),
		Dedicated: p.Nodes, Target: p.Target, InterNode: true, Slots: max(p.Slots, 1), Policy: nodeFillPolicy{"pack"},
	}
}

func poolFields() fields[Pool] {
	return fields[Pool]{
		"id":                            {text: func(p *Pool) (string, bool) { return p.ID, true }},
		"state":                         {text: func(p *Pool) (string, bool) { return p.State, true }, enum: []string{"active", "deleting"}},
		"allocationState":               {text: func(p *Pool) (string, bool) { return p.Alloc, true }, enum: []string{"steady", "resizing", "stopping"}},
		"creationTime":                  {time: func(p *Pool) time.Time { return p.Times.Created }},
		"lastModified":                  {time: func(p *Pool) time.Time { return p.Times.Modified }},
		"stateTransitionTime":           {time: func(p *Pool) time.Time { return p.Times.StateAt }},
		"allocationStateTransitionTime": {time: func(p *Pool) time.Time { return p.AllocAt }},
		"enableAutoScale":               {flag: func(*Pool) bool { return false }},
	}
}

func (c *call) pool() (Pool, error) {
	id := c.params["poolId"]
	if !goodID(id) {
		return Pool{}, &NotFound{KindPool, id}
	}
	return c.s.Backend.Pool(c.ctx(), id)
}

func (c *call) poolToChange() (Pool, Version, error) {
	p, err := c.pool()
	if err != nil {
		return p, 0, err
	}
	v, err := c.condition(p.Version, p.Times.Modified)
	return p, v, err
}

func (c *call) listPools() error {
	all, err := c.s.Backend.Pools(c.ctx())
	if err != nil {
		return err
	}
	id := func(p *Pool) string { return p.ID }
	return writeList(c, lister[Pool]{set: "pools", fields: poolFields(), shown: propertyNames(poolEntity{}), fetch: slicePage(all, id), cursor: id, render: c.renderPool})
}

func (c *call) getPool() error {
	p, _, err := c.poolToChange()
	if err != nil {
		return err
	}
	c.object(p.Version, p.Times.Modified)
	if c.Method == http.MethodHead {
		c.write(http.StatusOK, nil)
		return nil
	}
	return c.entity("pools", c.renderPool(&p), propertyNames(poolEntity{}))
}

func (c *call) resizePool() error {
	return c.changePool(func(pool Pool, seen Version) error {
		p, err := c.body(false)
		if err != nil {
			return err
		}
		r := Resize{
			Dedicated: opt(p.number("targetDedicatedNodes", 0, math.MaxInt32)), LowPriority: opt(p.number("targetLowPriorityNodes", 0, math.MaxInt32)),
			Timeout: p.duration("resizeTimeout"), What: readDeallocation(p, "nodeDeallocationOption"),
		}
		if r.Dedicated == nil && r.LowPriority == nil {
			p.need("targetDedicatedNodes", false)
		}
		if err := p.finish(); err != nil {
			return err
		}
		return c.s.Backend.ResizePool(c.ctx(), pool.ID, seen, r)
	})
}

func readDeallocation(p *props, name string) Deallocation {
	v, ok := p.enum(name, string(DeallocateRequeue), string(DeallocateTerminate), string(DeallocateCompletion), "retaineddata")
	if !ok {
		return DeallocateRequeue
	}
	if v == "retaineddata" {
		p.add(notYet(p.path+name, " as retaineddata"))
	}
	return Deallocation(v)
}

func (c *call) stopResize() error {
	return c.changePool(func(pool Pool, seen Version) error {
		if err := c.emptyBody(); err != nil {
			return err
		}
		return c.s.Backend.StopResize(c.ctx(), pool.ID, seen)
	})
}

func (c *call) removeNodes() error {
	return c.changePool(func(pool Pool, seen Version) error {
		p, err := c.body(false)
		if err != nil {
			return err
		}
		nodes, ok := read[[]string](p, "nodeList", "a list of node ids")
		p.need("nodeList", ok)
		if ok && (len(nodes) < 1 || len(nodes) > 100) {
			p.bad("nodeList", "", fmt.Sprintf("it has %d entries: allowed is 1 to 100", len(nodes)))
		}
		p.duration("resizeTimeout")
		what := readDeallocation(p, "nodeDeallocationOption")
		if err := p.finish(); err != nil {
			return err
		}
		return c.s.Backend.RemoveNodes(c.ctx(), pool.ID, seen, nodes, what)
	})
}

// refusePool answers the request to make a pool: here pools are what the
// launcher was given.
func (c *call) refusePool() error {
	return newFault(http.StatusConflict, CodeWrongState,
		"Pools are the machines that this launcher was started with; create none. GET /pools lists them; set poolInfo.poolId of jobs to one of them.")
}

// nodeCountsBody counts a pool's nodes by state, under Batch's names.
type nodeCountsBody struct {
	Pool      string         `json:"poolId"`
	Dedicated map[string]int `json:"dedicated"`
	Low       map[string]int `json:"lowPriority"`
}

func (c *call) nodeCounts() error {
	pools, err := c.s.Backend.Pools(c.ctx())
	if err != nil {
		return err
	}
	id := func(p *Pool) string { return p.ID }
	only := fields[Pool]{"poolId": {text: func(p *Pool) (string, bool) { return p.ID, true }}}
	var failed error
	err = writeList(c, lister[Pool]{set: "poolnodecounts", fields: only, fetch: slicePage(pools, id), cursor: id, render: func(p *Pool) any {
		nodes, err := c.s.Backend.Nodes(c.ctx(), p.ID)
		if err != nil {
			failed = err
			return nil
		}
		dedicated := countNodes(nodes)
		return nodeCountsBody{p.ID, dedicated, countNodes(nil)}
	}, check: func() error { return failed }})
	return err
}

func countNodes(nodes []Node) map[string]int {
	n := map[string]int{"total": len(nodes)}
	names := map[string]string{"starttaskfailed": "startTaskFailed", "leavingpool": "leavingPool", "waitingforstarttask": "waitingForStartTask", "upgradingos": "upgradingOS"}
	for _, s := range nodeStates() {
		if names[s] != "" {
			s = names[s]
		}
		n[s] = 0
	}
	for _, x := range nodes {
		s := x.State
		if names[s] != "" {
			s = names[s]
		}
		n[s]++
	}
	return n
}

func nodeStates() []string {
	return []string{"idle", "rebooting", "reimaging", "running", "unusable", "creating", "starting", "waitingforstarttask", "starttaskfailed", "unknown",
		"leavingpool", "offline", "preempted", "upgradingos", "deallocated", "deallocating"}
}
