package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
)

func newPoolCommand(a *app) *cobra.Command {
	l := &launcherFlags{}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the pools", Args: noArgs,
		RunE: l.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			pools, err := client.All(c.Pools(ctx, client.Query{}), 0)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(pools)
			}
			rows := make([][]string, len(pools))
			for i, p := range pools {
				rows[i] = []string{p.ID, p.State, fmt.Sprint(p.Nodes), p.Size, troubles(p.Errors)}
			}
			return a.table("POOL STATE NODES SIZE TROUBLE", rows)
		}),
	}
	show := &cobra.Command{
		Use: "show [POOL]", Short: "Show a pool", Args: wants(0, 1, "[POOL]"),
		RunE: l.asks(func(ctx context.Context, c *client.Client, args []string) error {
			name, err := poolOr(ctx, c, firstOf(args...))
			if err != nil {
				return err
			}
			p, err := c.Pool(ctx, name)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(p)
			}
			return a.facts("pool", p.ID, "state", p.State, "nodes", fmt.Sprint(p.Nodes), "size of nodes", p.Size, "launcher up since", moment(p.Created), "trouble", troubles(p.Errors))
		}),
	}
	c := group("pool", "See the pools of a launcher that stays", "See the pools of a launcher that stays: the machines that it was given, or that joined.", list, show)
	l.register(c.PersistentFlags())
	return c
}
