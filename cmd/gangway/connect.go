package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gangway/launcher/auth"
	"gangway/launcher/client"
)

// launcherFlags say which standing launcher is asked.
type launcherFlags struct {
	address, ca, fingerprint string
}

func (l *launcherFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&l.address, "launcher", "", "the launcher to ask: https://HOST:PORT or unix:PATH (default $GANGWAY_LAUNCHER, or the socket of this user's on this machine, or of the machine's)")
	fl.StringVar(&l.ca, "ca", "", "file with the certificate that \"gangway ca\" prints, to know the launcher at an https address by (default $GANGWAY_CA)")
	fl.StringVar(&l.fingerprint, "fingerprint", "", "that certificate's SHA-256, in place of --ca (default $GANGWAY_FINGERPRINT)")
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// dial returns a client of the launcher that the flags and the environment name.
func (l *launcherFlags) dial() (*client.Client, error) {
	o := client.Options{Address: firstOf(l.address, os.Getenv("GANGWAY_LAUNCHER"))}
	if o.Address == "" {
		dir, err := dataDir()
		if err != nil {
			return nil, err
		}
		own := filepath.Join(dir, "launcher.sock")
		o.Address = "unix:" + own
		if _, err := os.Stat(own); err != nil && os.Getenv("GANGWAY_DATA_DIR") == "" {
			if _, err := os.Stat(systemSocket); err == nil {
				o.Address = "unix:" + systemSocket
			}
		}
	}
	if strings.HasPrefix(o.Address, "https:") {
		var err error
		if o.Token, err = readToken(); err != nil {
			return nil, err
		}
		switch file := firstOf(l.ca, os.Getenv("GANGWAY_CA")); {
		case l.fingerprint != "" && l.ca != "":
			return nil, usagef("give one of them", "--ca and --fingerprint both say what the launcher is known by")
		case l.fingerprint != "":
			o.Trust.Fingerprint = l.fingerprint
		case file != "":
			if o.Trust.CA, err = os.ReadFile(file); err != nil {
				return nil, usagef("get it on the launcher's machine with: gangway ca > ca.crt", "the launcher's certificate: %v", err)
			}
		default:
			o.Trust.Fingerprint = os.Getenv("GANGWAY_FINGERPRINT")
		}
		if len(o.Trust.CA) == 0 && o.Trust.Fingerprint == "" {
			return nil, usagef("give --ca FILE or --fingerprint HEX: on the launcher's machine, gangway ca prints both", "nothing says by what the launcher at %s is known", o.Address)
		}
	}
	c, err := client.Dial(o)
	if err != nil {
		return nil, usagef("see --launcher, --ca and --fingerprint in gangway job --help", "%v", err)
	}
	return c, nil
}

// readToken reads the bearer token, which never stands on a command line.
func readToken() (auth.Secret, error) {
	path := os.Getenv("GANGWAY_TOKEN_FILE")
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return auth.Secret{}, usagef("set GANGWAY_TOKEN_FILE", "there is no directory for the token: %v", err)
		}
		path = filepath.Join(dir, "gangway", "token")
	}
	s, err := auth.ReadSecret(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return s, usagef("put there what \"gangway token add\" printed on the launcher's machine, mode 0600, or name another file in GANGWAY_TOKEN_FILE",
			"a launcher at an https address wants a token, and there is no file %s", path)
	}
	if err != nil {
		return s, usagef("chmod 600 "+path, "the token: %v", err)
	}
	return s, nil
}

// refusal words what a launcher, or none, answered for the person at the terminal.
func refusal(err error) error {
	var away *client.Unreachable
	var no *client.Error
	var said *userError
	switch {
	case errors.As(err, &said):
	case errors.As(err, &away):
		hint := "start one with: gangway up"
		switch {
		case errors.Is(err, syscall.EACCES):
			hint = "it is another user's: ask them to give gangway up a --socket that you can reach, or for its https address and a token"
		case strings.HasPrefix(away.Address, "https:"):
			hint = "check the address; a launcher is started there with: gangway up --listen ADDR"
		}
		return &userError{msg: away.Error(), hint: hint, code: exitFailed, err: err}
	case errors.As(err, &no):
		u := &userError{msg: no.Error(), code: exitFailed, err: err}
		switch no.Status {
		case http.StatusBadRequest:
			u.code = exitUsage
		case http.StatusUnauthorized:
			u.hint = "ask the launcher's administrator for a token (gangway token add), or use the launcher's socket on its machine"
		case http.StatusServiceUnavailable:
			u.hint = "try again"
		}
		return u
	}
	return err
}

// asks is the RunE of a command that asks a launcher.
func (l *launcherFlags) asks(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := l.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		return refusal(f(ctx, c, args))
	}
}

// interruptible ends the context when this process is to end, with the status
// that the signal stands for: what the launcher does goes on.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-ch:
			code := exitSignal + 2
			if n, ok := s.(syscall.Signal); ok {
				code = exitSignal + int(n)
			}
			cancel(&userError{msg: "interrupted; what was submitted goes on", hint: "see gangway job list", code: code})
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(ch); close(done); cancel(nil) }
}

// wants is an Args of a command that takes lo to hi arguments; hi 0 is no limit.
func wants(lo, hi int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < lo:
			return usagef(cmd.CommandPath()+" "+usage, "%s: too few arguments", cmd.CommandPath())
		case hi > 0 && len(args) > hi:
			return usagef(cmd.CommandPath()+" "+usage, "%s: too many arguments: %q", cmd.CommandPath(), args[hi])
		}
		return nil
	}
}

// group is a command that only has subcommands.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see " + cmd.CommandPath() + " --help"
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = "did you mean " + strings.Join(s, " or ") + "?"
			}
			return usagef(hint, "unknown command %q", cmd.CommandPath()+" "+args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(subs...)
	return c
}

// forEach does something to each of several, reports what fails, and goes on.
func (a *app) forEach(names []string, f func(name string) error) error {
	status := 0
	for _, n := range names {
		err := f(n)
		if err == nil {
			continue
		}
		var u *userError
		if errors.As(err, &u) && u.code > exitSignal { // interrupted
			return err
		}
		status = max(status, report(a.stderr, a.json, refusal(err)))
	}
	if status != 0 {
		return &statusError{status}
	}
	return nil
}

// did says what was done, to people on stderr, as JSON on stdout.
func (a *app) did(id, what string) error {
	if a.json {
		return a.encode(map[string]string{"id": id, "done": what})
	}
	_, err := fmt.Fprintf(a.stderr, "%s: %s\n", id, what)
	return err
}
