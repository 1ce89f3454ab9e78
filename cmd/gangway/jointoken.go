package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher/auth"
)

func newJoinTokenCommand(a *app) *cobra.Command {
	d := &dataFlags{}
	c := group("join-token", "Make, list and revoke tokens with which nodes join a launcher",
		`Make, list and revoke the tokens with which nodes join a launcher by themselves
(gangway agent --join). Run it on the launcher's machine, as its user: it works on
the launcher's files, whether the launcher runs or not.`,
		newJoinTokenAdd(a, d), newJoinTokenList(a, d), newJoinTokenRevoke(a, d))
	d.register(c.PersistentFlags())
	return c
}

func newJoinTokenAdd(a *app, d *dataFlags) *cobra.Command {
	var s auth.JoinSpec
	c := &cobra.Command{
		Use: "add", Short: "Make a token for nodes to join with and print it, this once", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if s.Uses < 1 || s.Life <= 0 {
				return usagef("give a number from 1 and a time above 0", "--uses %d, --for %v", s.Uses, s.Life)
			}
			ca, err := d.authority(true)
			if err != nil {
				return err
			}
			t, secret, err := ca.AddJoinToken(s)
			if err != nil {
				return err
			}
			who := fmt.Sprintf("up to %d nodes", t.Uses)
			if t.Uses == 1 {
				who = "one node"
			}
			note := fmt.Sprintf("join token %s for %s, valid %s; it is shown this once", t.ID, firstOf(t.Node, who), until(t.Expires))
			return a.secret(secret, "token", note, joinFacts(t))
		},
	}
	c.Flags().StringVar(&s.Node, "node", "", "only the node of this name may join with it")
	c.Flags().IntVar(&s.Uses, "uses", 1, "how many nodes may join with it")
	c.Flags().DurationVar(&s.Life, "for", time.Hour, "how long it is valid, up to 720h")
	return c
}

func joinFacts(t auth.JoinToken) map[string]any {
	used := t.Used
	if used == nil {
		used = []string{}
	}
	return map[string]any{"id": t.ID, "node": t.Node, "uses": t.Uses, "used": used, "created": t.Created, "expires": t.Expires}
}

func newJoinTokenList(a *app, d *dataFlags) *cobra.Command {
	return keyList[auth.JoinToken]{short: "List the join tokens, without their secrets", header: "TOKEN NODE USED ENDS BY", facts: joinFacts,
		all: func() ([]auth.JoinToken, error) {
			ca, err := d.authority(false)
			if err != nil {
				return nil, err
			}
			return ca.JoinTokens()
		},
		row: func(t auth.JoinToken) []string {
			return []string{t.ID, firstOf(t.Node, "any"), fmt.Sprintf("%d/%d", len(t.Used), t.Uses), ends(t.Expires), strings.Join(t.Used, ",")}
		}}.command(a)
}

func newJoinTokenRevoke(a *app, d *dataFlags) *cobra.Command {
	return revokeCommand(a, "ID", "End join tokens at once; nodes that joined with them stay", func() (func(string) error, error) {
		ca, err := d.authority(false)
		if err != nil {
			return nil, err
		}
		return ca.RevokeJoinToken, nil
	})
}

// newNodeRevoke is node revoke: unlike the other verbs of nodes it works on the
// launcher's files.
func newNodeRevoke(a *app) *cobra.Command {
	d := &dataFlags{}
	c := revokeCommand(a, "NODE", "Void the certificates of nodes that joined by themselves", func() (func(string) error, error) {
		ca, err := d.authority(false)
		if err != nil {
			return nil, err
		}
		return ca.RevokeNode, nil
	})
	c.Long = `Void the certificates of nodes that joined by themselves, and the join tokens that
are for them only: they can't connect any more. Run it on the launcher's machine,
as its user. "gangway node remove" takes the node out of the pool.`
	d.register(c.Flags())
	return c
}

func newCACommand(a *app) *cobra.Command {
	d := &dataFlags{}
	c := &cobra.Command{
		Use: "ca", Short: "Print the certificate by which clients know a launcher", Args: noArgs,
		Long: `Print the certificate of a launcher's own authority, by which clients know the
launcher at an https address (--ca FILE), and on stderr its fingerprint, which is
as good (--fingerprint). Neither is secret. Run it on the launcher's machine, as
its user.`,
		Example: "  gangway ca > ca.crt",
		RunE: func(*cobra.Command, []string) error {
			ca, err := d.authority(false)
			if err != nil {
				return err
			}
			if a.json {
				return a.encode(map[string]string{"certificate": string(ca.Certificate()), "fingerprint": ca.Fingerprint()})
			}
			if _, err := a.stdout.Write(ca.Certificate()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stderr, "fingerprint", ca.Fingerprint())
			return err
		},
	}
	d.register(c.Flags())
	return c
}
