package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"gangway/launcher/auth"
)

func newAccountCommand(a *app) *cobra.Command {
	d := &dataFlags{}
	c := group("account", "Make, renew, list and revoke accounts with a key, as Azure Batch's clients use them",
		`Make, renew, list and revoke accounts: a name with a key that signs requests
(SharedKey), as Azure Batch's clients use them. Run it on the launcher's machine,
as its user: it works on the launcher's files, whether the launcher runs or not.`,
		newAccountAdd(a, d), newAccountRenew(a, d), newAccountList(a, d), newAccountRevoke(a, d))
	d.register(c.PersistentFlags())
	return c
}

func newAccountAdd(a *app, d *dataFlags) *cobra.Command {
	p := &principalFlags{}
	c := &cobra.Command{
		Use: "add NAME --role ROLE", Short: "Make an account and print its key", Args: wants(1, 1, "NAME --role ROLE"),
		RunE: func(_ *cobra.Command, args []string) error {
			who, err := p.principal(args[0])
			if err != nil {
				return err
			}
			k, err := d.keyring(true)
			if err != nil {
				return err
			}
			s, err := k.AddAccount(who)
			if err != nil {
				return err
			}
			return a.secret(s, "key", fmt.Sprintf("the key of account %s (%s): keep it in a file of mode 0600", args[0], who.Role), accountFacts(auth.Account{Principal: who}))
		},
	}
	p.register(c.Flags())
	return c
}

func accountFacts(x auth.Account) map[string]any {
	f := map[string]any{"name": x.Principal.Name, "role": x.Principal.Role.String(), "nodeUser": x.Principal.NodeUser}
	if !x.Created.IsZero() {
		f["created"] = x.Created
	}
	return f
}

func newAccountRenew(a *app, d *dataFlags) *cobra.Command {
	return &cobra.Command{
		Use: "renew NAME", Short: "Give an account a new key and print it; the old one is void at once", Args: wants(1, 1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := d.keyring(false)
			if err != nil {
				return err
			}
			s, err := k.RenewAccount(args[0])
			if err != nil {
				return err
			}
			return a.secret(s, "key", "the new key of account "+args[0]+"; the old one is void", map[string]any{"name": args[0]})
		},
	}
}

func newAccountList(a *app, d *dataFlags) *cobra.Command {
	return keyList[auth.Account]{short: "List the accounts, without their keys", header: "ACCOUNT ROLE NODE-USER AGE", facts: accountFacts,
		all: func() ([]auth.Account, error) {
			k, err := d.keyring(false)
			if err != nil {
				return nil, err
			}
			return k.Accounts()
		},
		row: func(x auth.Account) []string {
			return []string{x.Principal.Name, x.Principal.Role.String(), x.Principal.NodeUser, ago(x.Created)}
		}}.command(a)
}

func newAccountRevoke(a *app, d *dataFlags) *cobra.Command {
	return revokeCommand(a, "NAME", "End accounts and their keys at once", func() (func(string) error, error) {
		k, err := d.keyring(false)
		if err != nil {
			return nil, err
		}
		return k.RevokeAccount, nil
	})
}
