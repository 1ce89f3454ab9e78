package main

import (
	"github.com/spf13/cobra"
)

// keyList is "list" of what the launcher's files hold of one kind: accounts,
// tokens, join tokens.
type keyList[T any] struct {
	short, header string
	all           func() ([]T, error)
	facts         func(T) map[string]any // as JSON
	row           func(T) []string       // in a table
}

func (l keyList[T]) command(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: l.short, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := l.all()
			if err != nil {
				return err
			}
			facts, rows := []map[string]any{}, [][]string{}
			for _, x := range all {
				facts = append(facts, l.facts(x))
				rows = append(rows, l.row(x))
			}
			if a.json {
				return a.encode(facts)
			}
			return a.table(l.header, rows)
		},
	}
}

// revokeCommand ends each of what it is given by what open returns.
func revokeCommand(a *app, what, short string, open func() (revoke func(string) error, err error)) *cobra.Command {
	return &cobra.Command{
		Use: "revoke " + what + "...", Short: short, Args: wants(1, 0, what+"..."),
		RunE: func(_ *cobra.Command, args []string) error {
			revoke, err := open()
			if err != nil {
				return err
			}
			return a.forEach(args, func(x string) error {
				if err := revoke(x); err != nil {
					return err
				}
				return a.did(x, "is revoked")
			})
		},
	}
}
