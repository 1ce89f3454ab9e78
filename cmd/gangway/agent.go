package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"gangway/nodeagent"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire/link"
)

func newAgentCommand(a *app) *cobra.Command {
	var (
		base, listen, keyFile string
		join                  joinFlags
		readyFD               int
	)
	c := &cobra.Command{
		Use:   "agent [--join URL | --listen ADDR --key FILE]",
		Short: "Run this node's agent",
		Long: `Run this node's agent. gangway run starts agents by itself over ssh; start one
by hand, with --listen, to have it stand: launchers then reach it directly, by
"gangway run --agents HOST:PORT --key FILE", without an ssh handshake per node.
Both sides prove that they hold the key (see "gangway key").

With --join the agent connects to a launcher that stands (gangway up --listen):
the first time with a join token, from then on with the certificate it got.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ready := func(string) {}
			if readyFD > 0 {
				f := os.NewFile(uintptr(readyFD), "ready")
				ready = func(s string) { _, _ = f.WriteString(s); _ = f.Close() }
			}
			err := runAgent(cmd.Context(), base, listen, keyFile, join, func() { ready("ok") })
			if err != nil {
				ready(err.Error())
			}
			return err
		},
	}
	c.Flags().StringVar(&base, "tmpdir", "", "local directory for sockets and spool (default $GANGWAY_TMPDIR or /tmp)")
	c.Flags().StringVar(&listen, "listen", "", "accept launchers on this address, for example 0.0.0.0:7700, and stand")
	c.Flags().StringVar(&keyFile, "key", "", "file with the key that launchers must hold")
	c.Flags().StringVar(&join.url, "join", "", "connect to the launcher at this address (https://HOST:PORT), and stand")
	c.Flags().StringVar(&join.tokenFile, "token-file", "", "with --join, the first time: file with a join token, - for standard input (see gangway join-token)")
	c.Flags().StringVar(&join.name, "name", "", "with --join: the node's name in the pool (default: the host's)")
	c.Flags().StringVar(&join.dir, "identity", "", "with --join: directory of the node's certificate (default ~/.config/gangway/node, root: /etc/gangway/node)")
	c.Flags().IntVar(&readyFD, "ready-fd", 0, "")
	_ = c.Flags().MarkHidden("ready-fd")
	return c
}

func runAgent(ctx context.Context, base, listen, keyFile string, join joinFlags, ready func()) error {
	oneProcessor()
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoExecutable, err)
	}
	cfg := nodeagent.Config{
		Base: base, Executable: exe, Version: versionString(), Ready: ready,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if listen != "" {
		key, err := readKey(keyFile)
		if err != nil {
			return err
		}
		server, _, err := link.KeyTLS(key)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return fmt.Errorf("--listen %s: %w", listen, err)
		}
		cfg.Listener = tls.NewListener(l, server)
		cfg.Standing, cfg.Spare = true, true
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if join.url != "" {
		if cfg.Dial, err = join.dialer(ctx, cfg.Log); err != nil {
			return err
		}
		cfg.Standing, cfg.Spare = true, true
	}
	err = nodeagent.Run(ctx, cfg)
	if errors.Is(err, nodeagent.ErrRenewed) {
		// In place: whoever watches this process keeps it.
		err = fmt.Errorf("starting %s anew: %w", exe, syscall.Exec(exe, os.Args, os.Environ()))
	}
	return err
}

// oneProcessor keeps this process's Go code on one core at a time, unless the
// environment says how many it may use: what agents and shims do is mostly to
// wait, in short steps that cost more to spread over cores than to do in turn,
// and the cores are the ranks' (docs/decisions/047-launch-cost.md). System calls
// are not limited.
func oneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

func newBridgeCommand(_ *app) *cobra.Command {
	var base string
	c := &cobra.Command{
		Use:    "bridge",
		Short:  "Connect stdin and stdout to this node's agent, starting it when it does not run",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("%w: %w", errNoExecutable, err)
			}
			return nodeagent.Bridge(cmd.Context(), base, exe, os.Stdin, os.Stdout)
		},
	}
	c.Flags().StringVar(&base, "tmpdir", "", "see gangway agent")
	return c
}

// shimMain is a shim, which the agent starts with its connection for descriptor
// 3. It does without the command line's set-up: one is started for each node of
// each job.
func shimMain(life func(context.Context, net.Conn) error) int {
	oneProcessor()
	f := os.NewFile(3, "agent")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return report(os.Stderr, false, usagef("it is started by gangway agent", "descriptor 3 is not the agent's connection"))
	}
	err = life(context.Background(), conn)
	proc.StepBack() // nobody waits for what is still to do
	return report(os.Stderr, false, err)
}

func newKeyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key for standing agents and their launchers",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("gangway key ~/.config/gangway/key", "gangway key takes the file to make")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, os.ErrExist) {
				return usagef("remove it first if no agent uses it any more", "%s exists already", args[0])
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(f, hex.EncodeToString(link.NewKey()))
			return errors.Join(err, f.Close())
		},
	}
}

// readKey reads a key file: 64 hexadecimal digits, readable by its owner alone.
func readKey(path string) ([]byte, error) {
	if path == "" {
		return nil, usagef("make one with: gangway key FILE", "--key FILE is missing")
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, usagef("make one with: gangway key "+path, "--key: %v", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, usagef("chmod 600 "+path, "--key %s can be read by others (mode %04o)", path, fi.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != link.KeySize {
		return nil, usagef("make one with: gangway key FILE", "--key %s: want %d hexadecimal digits in one line", path, 2*link.KeySize)
	}
	return key, nil
}
