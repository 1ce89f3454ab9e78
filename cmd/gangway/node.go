package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
	"gangway/launcher/job"
	"gangway/topology"
)

func newNodeCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	var pool string
	c := group("node", "See, drain and remove the nodes of a launcher that stays",
		"See the nodes of a launcher that stays, keep work away from them, and take them\nout. All but list and show is for administrators.",
		newNodeList(a, l, &pool), newNodeShow(a, l, &pool), newNodeDrain(a, l, &pool), newNodeResume(a, l, &pool), newNodeRemove(a, l, &pool),
		newNodeRevoke(a))
	l.register(c.PersistentFlags())
	c.PersistentFlags().StringVar(&pool, "pool", "", "the nodes' pool (default: the launcher's only one)")
	return c
}

// poolOr is the pool that was named, or the launcher's only one.
func poolOr(ctx context.Context, c *client.Client, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	pools, err := client.All(c.Pools(ctx, client.Query{}), 2)
	switch {
	case err != nil:
		return "", err
	case len(pools) != 1:
		return "", usagef("name it with --pool: gangway pool list", "the launcher has %d pools", len(pools))
	}
	return pools[0].ID, nil
}

func newNodeList(a *app, l *launcherFlags, pool *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the nodes", Args: noArgs,
		RunE: l.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			p, err := poolOr(ctx, c, *pool)
			if err != nil {
				return err
			}
			nodes, err := client.All(c.Nodes(ctx, p, client.Query{}), 0)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(nodes)
			}
			rows := make([][]string, len(nodes))
			for i, n := range nodes {
				rows[i] = []string{n.ID, nodeState(n), fmt.Sprintf("%d/%d", n.RunSlots, n.Gangway.Cores), memory(n), fmt.Sprint(n.Running), n.Address, ago(n.StateAt), troubles(n.Errors)}
			}
			return a.table("NODE STATE CORES MEMORY TASKS ADDRESS SINCE TROUBLE", rows)
		}),
	}
}

// nodeState is a node's state in one word.
func nodeState(n client.Node) string {
	switch {
	case n.Scheduling != "disabled":
		return n.State
	case n.Running > 0:
		return "draining"
	case n.State == "idle":
		return "drained"
	}
	return n.State + ",drained"
}

func memory(n client.Node) string {
	if n.Gangway.Memory == 0 {
		return ""
	}
	return job.Bytes(n.Gangway.Memory)
}

func troubles(all []client.Trouble) string {
	parts := make([]string, len(all))
	for i, t := range all {
		parts[i] = t.Message
	}
	return strings.Join(parts, "; ")
}

func newNodeShow(a *app, l *launcherFlags, pool *string) *cobra.Command {
	return &cobra.Command{
		Use: "show NODE", Short: "Show a node and what runs there", Args: wants(1, 1, "NODE"),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := poolOr(ctx, c, *pool)
			if err != nil {
				return err
			}
			n, err := c.Node(ctx, p, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(n)
			}
			facts := []string{"node", n.ID, "pool", p, "state", nodeState(n) + since(n.StateAt), "trouble", troubles(n.Errors), "cores", fmt.Sprintf("%d, %d of them used", n.Gangway.Cores, n.RunSlots),
				"memory", memory(n), "topology", topologyWords(n.Gangway.Topology), "address", n.Address, "agent", n.Agent.Version, "tasks", fmt.Sprint(n.Running)}
			if err := a.facts(append(facts, usageFacts(n.Gangway.Usage)...)...); err != nil {
				return err
			}
			for _, t := range n.Recent {
				fmt.Fprintf(a.stdout, "  %s/%s %s\n", t.Job, t.Task, t.State)
			}
			return nil
		}),
	}
}

// topologyWords is a machine in a line.
func topologyWords(n *topology.Node) string {
	if n == nil {
		return ""
	}
	return topology.Summary(*n)
}

// fate is the flag --tasks of drain and remove.
func fate(c *cobra.Command) func() string {
	v := "completion"
	c.Flags().StringVar(&v, "tasks", v, "what becomes of the tasks there: completion lets them finish, requeue starts them elsewhere, terminate ends them")
	c.PreRunE = oneOf("--tasks", &v, "completion", "requeue", "terminate")
	return func() string {
		if v == "completion" {
			return "taskcompletion" // Batch's word
		}
		return v
	}
}

func newNodeDrain(a *app, l *launcherFlags, pool *string) *cobra.Command {
	var wait bool
	var timeout time.Duration
	c := &cobra.Command{Use: "drain NODE...", Short: "Place nothing more on nodes", Args: wants(1, 0, "NODE...")}
	tasks := fate(c)
	c.Flags().BoolVar(&wait, "wait", false, "wait until nothing runs there")
	c.Flags().DurationVar(&timeout, "timeout", 0, "with --wait: no longer than this")
	c.RunE = l.asks(func(ctx context.Context, c *client.Client, args []string) error {
		p, err := poolOr(ctx, c, *pool)
		if err != nil {
			return err
		}
		err = a.forEach(args, func(id string) error {
			_, err := c.Drain(ctx, p, id, tasks())
			if err == nil && !wait {
				return a.did(id, "takes no more tasks")
			}
			if client.Is(err, "NodeAlreadyInTargetSchedulingState") && wait {
				return nil
			}
			return err
		})
		if err != nil || !wait {
			return err
		}
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, timeout, &userError{msg: fmt.Sprintf("tasks still run there after %v", timeout), hint: "end them with --tasks requeue or terminate", code: exitFailed})
			defer cancel()
		}
		return a.forEach(args, func(id string) error {
			if err := c.WaitDrained(ctx, p, id); err != nil {
				return err
			}
			return a.did(id, "is drained")
		})
	})
	return c
}

func newNodeResume(a *app, l *launcherFlags, pool *string) *cobra.Command {
	return &cobra.Command{
		Use: "resume NODE...", Short: "Place tasks on drained nodes again", Args: wants(1, 0, "NODE..."),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := poolOr(ctx, c, *pool)
			if err != nil {
				return err
			}
			return a.forEach(args, func(id string) error {
				if _, err := c.Resume(ctx, p, id); err != nil {
					return err
				}
				return a.did(id, "takes tasks again")
			})
		}),
	}
}

func newNodeRemove(a *app, l *launcherFlags, pool *string) *cobra.Command {
	c := &cobra.Command{
		Use: "remove NODE...", Short: "Drain nodes and forget them once nothing runs there", Args: wants(1, 0, "NODE..."),
		Long: `Drain nodes and forget them once nothing runs there.

A node that joined by itself needs a new join token to come back; one of --hosts
is connected to again when the launcher is started with it.`,
	}
	tasks := fate(c)
	c.RunE = l.asks(func(ctx context.Context, c *client.Client, args []string) error {
		p, err := poolOr(ctx, c, *pool)
		if err != nil {
			return err
		}
		return a.forEach(args, func(id string) error {
			if err := c.RemoveNodes(ctx, p, tasks(), id); err != nil {
				return err
			}
			return a.did(id, "is being removed")
		})
	})
	return c
}
