package launcher

import (
	"context"
	"fmt"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/launcher/state"
)

func (b *backend) Pools(ctx context.Context) ([]batchapi.Pool, error) {
	p, err := b.Pool(ctx, b.pool)
	return []batchapi.Pool{p}, err
}

// Pool returns the launcher's one pool: the nodes that it was given or that
// joined it.
func (b *backend) Pool(ctx context.Context, id string) (batchapi.Pool, error) {
	if id != b.pool {
		return batchapi.Pool{}, &batchapi.NotFound{Kind: batchapi.KindPool, ID: id}
	}
	var p batchapi.Pool
	err := b.read(ctx, func(c *state.Cluster) error {
		p = b.poolOf(c)
		return nil
	})
	return p, err
}

func (b *backend) poolOf(c *state.Cluster) batchapi.Pool {
	p := batchapi.Pool{ID: b.pool, State: "active", Alloc: "steady", AllocAt: b.since,
		Times: batchapi.Times{Created: b.since, Modified: b.since, StateAt: b.since}}
	for _, n := range c.Nodes() {
		p.Nodes++
		cores := len(n.View.Cores)
		if cores > 0 && (p.Slots == 0 || cores < p.Slots) {
			p.Slots = cores
		}
		p.SlotsMax = max(p.SlotsMax, cores)
		if n.Row.State == string(sched.NodeLost) {
			p.Errors = append(p.Errors, batchapi.Failure{Code: "NodeLost", Message: "node " + n.Row.Name + ": " + n.Row.Why})
		}
	}
	p.Target = p.Nodes
	p.Version = newVersion().text(p.ID).number(uint64(p.Nodes)).number(uint64(p.Slots)).number(uint64(p.SlotsMax)).sum()
	return p
}

// fixed answers what would need machines to come from somewhere.
func fixed() error {
	return &batchapi.Conflict{Code: "PoolNotResizable",
		Message: "the pool's machines are the user's own: add one with gangway agent --join or --hosts, remove one with gangway node remove"}
}

func (b *backend) ResizePool(_ context.Context, pool string, _ batchapi.Version, _ batchapi.Resize) error {
	if err := b.checkPool(pool); err != nil {
		return err
	}
	return fixed()
}

func (b *backend) StopResize(_ context.Context, pool string, _ batchapi.Version) error {
	if err := b.checkPool(pool); err != nil {
		return err
	}
	return &batchapi.Conflict{Code: batchapi.CodeWrongState, Message: "the pool is not being resized"}
}

// RemoveNodes drains nodes and forgets them once nothing runs there.
func (b *backend) RemoveNodes(ctx context.Context, pool string, seen batchapi.Version, nodes []string, what batchapi.Deallocation) error {
	if err := b.checkPool(pool); err != nil {
		return err
	}
	// All are looked at before the first is drained.
	if err := b.read(ctx, func(c *state.Cluster) error {
		for _, n := range nodes {
			if _, ok := c.Node(n); !ok {
				return &batchapi.NotFound{Kind: batchapi.KindNode, ID: n}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := b.do(ctx, state.Decided(func(c *state.Cluster) (state.What, error) {
			if seen != 0 && seen != b.poolOf(c).Version {
				return nil, batchapi.Stale{}
			}
			return state.NodeDrained{Node: n, On: true, Leave: true, Running: runningOf(what)}, nil
		})); err != nil {
			return err
		}
		seen = 0 // what follows is the same change
		b.leave(n)
	}
	return nil
}

func runningOf(what batchapi.Deallocation) state.HeldRunning {
	switch what {
	case batchapi.DeallocateTerminate:
		return state.HeldTerminate
	case batchapi.DeallocateCompletion:
		return state.HeldWait
	}
	return state.HeldRequeue
}

func (b *backend) Nodes(ctx context.Context, pool string) (out []batchapi.Node, err error) {
	if err := b.checkPool(pool); err != nil {
		return nil, err
	}
	err = b.read(ctx, func(c *state.Cluster) error {
		for _, n := range c.Nodes() {
			out = append(out, nodeOf(c, n))
		}
		return nil
	})
	usage := b.fleet.Usage()
	for i := range out {
		b.unreached.tell(&out[i])
		out[i].Agent = b.fleet.Version(out[i].ID)
		if u, ok := usage[out[i].ID]; ok {
			out[i].Usage = &u
		}
	}
	return out, err
}

func (b *backend) Node(ctx context.Context, pool, name string) (out batchapi.Node, err error) {
	if err := b.checkPool(pool); err != nil {
		return out, err
	}
	err = b.read(ctx, func(c *state.Cluster) error {
		n, ok := c.Node(name)
		if !ok {
			return &batchapi.NotFound{Kind: batchapi.KindNode, ID: name}
		}
		out = nodeOf(c, n)
		return nil
	})
	b.unreached.tell(&out)
	out.Agent = b.fleet.Version(name)
	if u, ok := b.fleet.UsageOf(name); ok {
		out.Usage = &u
	}
	return out, err
}

func nodeOf(c *state.Cluster, n state.NodeStatus) batchapi.Node {
	out := batchapi.Node{ID: n.Row.Name, StateAt: n.Row.Since, Scheduling: !n.Row.Draining, JoinedAt: n.Row.Since,
		Cores: len(n.View.Cores), Memory: n.View.Memory, Topology: n.Topology}
	if n.Topology != nil {
		for _, i := range n.Topology.Interfaces {
			if !i.Loopback && i.Up && len(i.Addrs) > 0 {
				out.Address = i.Addrs[0].Addr().String()
				break
			}
		}
	}
	switch sched.NodeState(n.Row.State) {
	case sched.NodeUp:
		out.State = "idle"
		if len(n.Attempts) > 0 {
			out.State = "running"
		}
	case sched.NodeLost:
		out.State = "unknown"
	default:
		out.State = "starting"
		if n.Topology != nil { // it was here before
			out.State = "unknown"
		}
	}
	if out.State == "unknown" && n.Row.Why != "" {
		out.Errors = append(out.Errors, batchapi.Failure{Code: "NodeNotReady", Message: n.Row.Why})
	}
	if n.Row.DrainedFor != "" {
		out.Errors = append(out.Errors, batchapi.Failure{Code: "NodeSuspected", Message: n.Row.DrainedFor})
	}
	for _, id := range n.Attempts {
		a, ok := c.Attempt(id)
		if !ok {
			continue
		}
		t, ok := c.Task(a.Task)
		if !ok {
			continue
		}
		j, _, _ := c.Job(t.Job)
		for i, p := range a.Parts {
			if p.Node != n.Row.Name {
				continue
			}
			out.Running++
			for _, core := range n.View.Cores {
				if core.Overlaps(p.CPUs) {
					out.RunSlots++
				}
			}
			s := job.TaskPreparing
			if !a.Started.IsZero() {
				s = job.TaskRunning
			}
			out.Recent = append(out.Recent, batchapi.NodeTask{Job: j.Spec.ID, Task: t.Row.Spec.ID, Subtask: i, State: s,
				Run: batchapi.Run{Node: p.Node, Started: a.Started}})
		}
	}
	return out
}

func (b *backend) DisableScheduling(ctx context.Context, pool, node string, what batchapi.Deallocation) error {
	return b.schedule(ctx, pool, state.NodeDrained{Node: node, On: true, Running: runningOf(what)})
}

func (b *backend) EnableScheduling(ctx context.Context, pool, node string) error {
	return b.schedule(ctx, pool, state.NodeDrained{Node: node})
}

// schedule opens or closes a node for tasks, unless it is so already.
func (b *backend) schedule(ctx context.Context, pool string, what state.NodeDrained) error {
	if err := b.checkPool(pool); err != nil {
		return err
	}
	err := b.do(ctx, state.Decided(func(c *state.Cluster) (state.What, error) {
		n, ok := c.Node(what.Node)
		switch {
		case !ok:
			return nil, &batchapi.NotFound{Kind: batchapi.KindNode, ID: what.Node}
		case n.Row.Draining != what.On:
			return what, nil
		case what.On:
			return nil, &batchapi.Conflict{Code: batchapi.CodeNodeScheduling, Message: "nothing is scheduled to node " + what.Node + " already"}
		}
		return nil, &batchapi.Conflict{Code: batchapi.CodeNodeScheduling, Message: "tasks are scheduled to node " + what.Node + " already"}
	}))
	if err == nil {
		b.fleet.Look(what.Node) // it is drained because, and resumed as, something there was changed
	}
	return err
}

// leave forgets a drained node as soon as nothing is left there.
func (b *backend) leave(node string) {
	b.leaving.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			if err := b.do(b.life, state.NodeRemoved{Node: node}); err == nil {
				b.expel(node)
				b.fleet.Forget(node)
				return
			}
			select {
			case <-b.life.Done():
				return
			case <-t.C:
			}
			// Someone may have enabled it again, or it is gone already.
			if n, err := b.Node(b.life, b.pool, node); err != nil || n.Scheduling {
				return
			}
		}
	})
}

// nodeError is for what only the node could tell.
func nodeError(node string, err error) error {
	return &batchapi.Unavailable{Message: fmt.Sprintf("node %s can't be asked now: %v", node, err), RetryAfter: 2 * time.Second}
}
