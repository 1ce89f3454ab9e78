package state

import (
	"fmt"
	"slices"

	"gangway/launcher/job"
	"gangway/launcher/sched"
)

func (e Restarted) apply(c *Cluster, t *change) error {
	if e.Epoch <= c.meta.Epoch {
		return fmt.Errorf("epoch %d is not above %d: another launcher has taken over", e.Epoch, c.meta.Epoch)
	}
	c.meta.Epoch = e.Epoch
	for _, n := range c.order {
		if sched.NodeState(n.row.State) == sched.NodeUp {
			t.setState(n, sched.NodeConnecting, "the launcher was restarted")
		}
	}
	return nil
}

func (e NodeAdded) apply(c *Cluster, t *change) error {
	if e.Node == "" {
		return fmt.Errorf("a node needs a name")
	}
	if _, ok := c.nodes[e.Node]; ok && e.Again {
		return nil
	} else if ok {
		return fmt.Errorf("node %s is there already", e.Node)
	}
	n := &node{row: job.NodeRow{Name: e.Node, Seq: t.next(), State: string(sched.NodeConnecting), Since: t.at}}
	c.nodes[e.Node] = n
	c.order = append(c.order, n)
	t.nodeChanged(n)
	return nil
}

func (t *change) setState(n *node, s sched.NodeState, why string) {
	t.nodeChanged(n)
	if n.row.State != string(s) {
		n.row.State, n.row.Since = string(s), t.at
		t.notice(Notice{Kind: NodeChanged, Node: n.row.Name, Up: s == sched.NodeUp})
	}
	n.row.Why = why
}

func (e NodeUp) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	if n.row.Boot != "" && e.Boot != "" && n.row.Boot != e.Boot {
		// Also what was never heard of: it may have been sent, and begun.
		for _, a := range slices.Clone(n.live) {
			i, _ := a.part(e.Node)
			t.gone(a, i, nodeLost(e.Node, "it was booted again"))
		}
	}
	topo := e.Topology
	n.setTopology(&topo)
	n.row.Agent, n.row.Boot, n.row.Lease, n.row.GPUs = e.Agent, e.Boot, e.Lease, slices.Clone(e.GPUs)
	n.row.NoCrews = e.NoCrews
	mark(&t.topologies, e.Node)
	mark(&t.touched, e.Node)
	// What else is on the node is not known before the inventory.
	t.setState(n, sched.NodeConnecting, "")
	return nil
}

func (e NodeDown) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	s := sched.NodeConnecting
	if sched.NodeState(n.row.State) == sched.NodeLost {
		s = sched.NodeLost
	}
	t.setState(n, s, e.Why)
	return nil
}

func (e NodeLost) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	t.setState(n, sched.NodeLost, e.Why)
	for _, a := range slices.Clone(n.live) {
		i, _ := a.part(e.Node)
		a.Parts[i].Cut = true
		t.part(a, i)
		if a.task.spec.OnNodeLoss != job.NodeLossWait && !a.recorded(i) {
			why := nodeLost(e.Node, e.Why)
			if a.Parts[i].Failure == nil {
				a.Parts[i].Failure = &why
			}
			t.end(a, why, true)
		}
		t.settle(a)
	}
	return nil
}

func nodeLost(name, why string) job.Reason {
	detail := "node " + name + " was lost"
	if why != "" {
		detail += ": " + why
	}
	return job.Reason{Code: job.FailNodeLost, Detail: detail, Nodes: []job.NodeShort{{Node: name}}}
}

func (e NodeGone) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	for _, a := range slices.Clone(n.live) {
		session := a.task.job.row.Spec.Session
		switch e.Leases {
		case SessionLeases:
			if !session {
				continue
			}
		case RequeuedLeases:
			if !session && a.task.spec.OnNodeLoss == job.NodeLossWait {
				continue
			}
		}
		i, _ := a.part(e.Node)
		t.gone(a, i, nodeLost(e.Node, e.Why))
	}
	return nil
}

func (e NodeDrained) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	if leaving := e.On && (e.Leave || n.row.Leaving); n.row.Draining != e.On || n.row.Leaving != leaving {
		n.row.Draining, n.row.Leaving = e.On, leaving
		if !e.On {
			n.absolve()
		}
		t.nodeChanged(n)
		t.notice(Notice{Kind: NodeChanged, Node: e.Node, Up: sched.NodeState(n.row.State) == sched.NodeUp})
	}
	if e.On {
		for _, a := range slices.Clone(n.live) {
			t.evict(a, e.Running, "node "+e.Node+" is drained")
			t.windDown(a)
		}
	}
	return nil
}

func (e NodeRemoved) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	for _, a := range c.attempts { // parts that are gone need the name too
		if _, ok := a.part(e.Node); ok && !n.abandons(a) {
			return fmt.Errorf("node %s still has work: drain it, or end the jobs that use it", e.Node)
		}
	}
	for _, a := range slices.Clone(n.live) {
		i, _ := a.part(e.Node)
		t.gone(a, i, nodeLost(e.Node, "it was removed"))
	}
	t.nodeChanged(n)
	if n.topo != nil {
		mark(&t.topologies, e.Node)
	}
	delete(c.nodes, e.Node)
	c.order = slices.DeleteFunc(c.order, func(x *node) bool { return x == n })
	t.notice(Notice{Kind: NodeChanged, Node: e.Node})
	return nil
}

// abandons reports whether an attempt need not be waited for when the node is
// removed: the node is lost, the attempt was cancelled, so that it never runs
// again, and nothing of it is left elsewhere. A destroyed node would otherwise keep
// what has no lease for ever, and the attempt its job.
func (n *node) abandons(a *attempt) bool {
	return sched.NodeState(n.row.State) == sched.NodeLost && a.Cancel != nil &&
		!slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return !p.Gone && p.Node != n.row.Name })
}

func (e NodeClaims) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	n.row.Claims = slices.Clone(e.Claims)
	t.nodeChanged(n)
	return nil
}

func (e Inventory) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	if n.topo == nil {
		return fmt.Errorf("node %s sent an inventory before its topology", e.Node)
	}
	n.row.Claims = slices.Clone(e.Claims)
	t.setState(n, sched.NodeUp, "")
	mark(&t.touched, e.Node)
	for _, a := range slices.Clone(n.live) {
		i, _ := a.part(e.Node)
		p := &a.Parts[i]
		k := slices.IndexFunc(e.Shims, func(s Shim) bool { return s.ID == a.ID })
		if k < 0 {
			// Never seen and still wanted: the node has yet to be told.
			if p.Seen || a.State == job.AttemptEnding {
				t.gone(a, i, shimLost(e.Node, "it was not there when the node came back"))
			} else if p.Cut {
				p.Cut = false
				t.part(a, i)
				t.settle(a)
			}
			continue
		}
		p.Seen, p.Cut = true, false
		if e.Shims[k].Phase == ShimRunning {
			p.Started = true
			t.ready(a, i)
		}
		t.part(a, i)
		t.settle(a)
	}
	return nil
}
