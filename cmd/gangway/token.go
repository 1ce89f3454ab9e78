package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gangway/launcher/auth"
)

// dataFlags say whose keys and certificates a command is about. Such commands
// work on the launcher's files, whether it runs or not; it sees the change at once.
type dataFlags struct{ dir string }

func (d *dataFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&d.dir, "data", "", "the launcher's data directory (default $GANGWAY_DATA_DIR, ~/.local/share/gangway, root: /var/lib/gangway)")
}

// existing is the directory, which must be there already unless one is to be made.
func (d *dataFlags) existing(make bool) (string, error) {
	dir := d.dir
	if dir == "" {
		var err error
		if dir, err = dataDir(); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !make {
		return "", usagef("name the launcher's with --data", "there is no launcher's data in %s", dir)
	}
	return dir, nil
}

func (d *dataFlags) keyring(make bool) (*auth.Keyring, error) {
	dir, err := d.existing(make)
	if err != nil {
		return nil, err
	}
	return auth.OpenKeyring(dir, auth.KeyringOptions{})
}

func (d *dataFlags) authority(make bool) (*auth.CA, error) {
	dir, err := d.existing(make)
	if err != nil {
		return nil, err
	}
	return auth.OpenCA(dir, auth.CAOptions{})
}

// principalFlags say what a new principal may.
type principalFlags struct{ role, nodeUser string }

func (p *principalFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&p.role, "role", "", "what it may: reader (see its own jobs), submitter (submit them, too) or admin (everything)")
	fl.StringVar(&p.nodeUser, "node-user", "", "user that its tasks run as on the nodes (default: of its own name; this user where agents are not root's; an admin's: the agents' own)")
}

func (p *principalFlags) principal(name string) (auth.Principal, error) {
	if p.role == "" {
		return auth.Principal{}, usagef("--role reader, submitter or admin", "--role is missing")
	}
	r, err := auth.ParseRole(p.role)
	if err != nil {
		return auth.Principal{}, usagef("reader, submitter or admin", "--role: %v", err)
	}
	node := p.nodeUser
	if node == "" && r != auth.Admin && os.Geteuid() > 0 {
		// Agents of an ordinary user run tasks as that user alone.
		if u, err := user.Current(); err == nil {
			node = u.Username
		}
	}
	return auth.Principal{Name: name, Role: r, NodeUser: node}, nil
}

// secret prints a new secret, once: alone on stdout, so that it can go to a file.
func (a *app) secret(s auth.Secret, kind, note string, facts map[string]any) error {
	if a.json {
		facts[kind] = s.Reveal()
		return a.encode(facts)
	}
	if _, err := fmt.Fprintln(a.stdout, s.Reveal()); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stderr, note)
	return err
}

func newTokenCommand(a *app) *cobra.Command {
	d := &dataFlags{}
	c := group("token", "Make, list and revoke tokens for a launcher's clients",
		`Make, list and revoke the tokens by which clients that are not on the launcher's
machine show who they are. Run it on the launcher's machine, as its user: it works
on the launcher's files, whether the launcher runs or not.`,
		newTokenAdd(a, d), newTokenList(a, d), newTokenRevoke(a, d))
	d.register(c.PersistentFlags())
	return c
}

func newTokenAdd(a *app, d *dataFlags) *cobra.Command {
	p := &principalFlags{}
	var life time.Duration
	c := &cobra.Command{
		Use: "add NAME --role ROLE", Short: "Make a token and print it, this once", Args: wants(1, 1, "NAME --role ROLE"),
		Example: "  (umask 077; gangway token add alice --role submitter --node-user alice --for 720h > alice.token)",
		RunE: func(_ *cobra.Command, args []string) error {
			who, err := p.principal(args[0])
			if err != nil {
				return err
			}
			k, err := d.keyring(true)
			if err != nil {
				return err
			}
			t, s, err := k.AddToken(who, life)
			if err != nil {
				return err
			}
			note := fmt.Sprintf("token %s of %s (%s), valid %s; it is shown this once: keep it in a file of mode 0600", t.ID, args[0], who.Role, until(t.Expires))
			return a.secret(s, "token", note, tokenFacts(t))
		},
	}
	p.register(c.Flags())
	c.Flags().DurationVar(&life, "for", 0, "how long it is valid, for example 720h (default: for ever)")
	return c
}

func until(t time.Time) string {
	if t.IsZero() {
		return "for ever"
	}
	return "until " + moment(t)
}

func tokenFacts(t auth.Token) map[string]any {
	f := map[string]any{"id": t.ID, "name": t.Principal.Name, "role": t.Principal.Role.String(), "nodeUser": t.Principal.NodeUser, "created": t.Created}
	if !t.Expires.IsZero() {
		f["expires"] = t.Expires
	}
	return f
}

func newTokenList(a *app, d *dataFlags) *cobra.Command {
	return keyList[auth.Token]{short: "List the tokens, without their secrets", header: "TOKEN NAME ROLE NODE-USER AGE ENDS", facts: tokenFacts,
		all: func() ([]auth.Token, error) {
			k, err := d.keyring(false)
			if err != nil {
				return nil, err
			}
			return k.Tokens()
		},
		row: func(t auth.Token) []string {
			return []string{t.ID, t.Principal.Name, t.Principal.Role.String(), t.Principal.NodeUser, ago(t.Created), ends(t.Expires)}
		}}.command(a)
}

// ends is when something ends, in a table.
func ends(t time.Time) string {
	switch d := time.Until(t); {
	case t.IsZero():
		return "never"
	case d < 0:
		return "ended"
	default:
		return "in " + span(d)
	}
}

func newTokenRevoke(a *app, d *dataFlags) *cobra.Command {
	return revokeCommand(a, "ID", "End tokens at once", func() (func(string) error, error) {
		k, err := d.keyring(false)
		if err != nil {
			return nil, err
		}
		return func(id string) error {
			if strings.Contains(id, "_") {
				return usagef("gangway token list", "the token's id is wanted, not the token")
			}
			return k.RevokeToken(id)
		}, nil
	})
}
