package state

import (
	"fmt"
	"slices"

	"gangway/topology"
)

// NodeProbed reports that a node with a session has been probed again: GPUs came, went
// or are broken. GPUs are as in NodeUp. What runs goes on; it keeps GPUs that
// are no longer listed until it ends.
type NodeProbed struct {
	Node     string
	Topology topology.Node
	GPUs     []uint32
}

func (e NodeProbed) apply(c *Cluster, t *change) error {
	n, err := c.node(e.Node)
	if err != nil {
		return err
	}
	if n.topo == nil {
		return fmt.Errorf("node %s was probed again before it was up", e.Node)
	}
	topo := e.Topology
	n.setTopology(&topo)
	n.row.GPUs = slices.Clone(e.GPUs)
	mark(&t.topologies, e.Node)
	t.nodeChanged(n)
	return nil
}
