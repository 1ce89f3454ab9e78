package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gangway/launcher"
)

func newUpCommand(a *app) *cobra.Command {
	var (
		data, listen, socket, poolID, logLevel string
		names                                  []string
		lease, nodeLife                        time.Duration
		noNodes                                bool
		drainAfter                             int
		f                                      runFlags
	)
	c := &cobra.Command{
		Use:   "up [--hosts LIST] [--data DIR] [--listen ADDR]",
		Short: "Run a launcher that stays: durable jobs, and Azure Batch's API",
		Long: `Run a launcher that stays. Its jobs outlive it and the agents: started again on
the same data, it finds them where they are.

Nodes are this machine, those of --hosts (by ssh), or those that join by
themselves (gangway agent --join). Clients on this machine use its unix socket,
others --listen, which serves Azure Batch's REST API over TLS.`,
		Example: "  gangway up --hosts 'n[1-4]' --listen 0.0.0.0:7701\n  gangway submit -N 4 --ppn 8 -- ./solver",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				var err error
				if data, err = dataDir(); err != nil {
					return err
				}
				// A machine's launcher is for all its users, and they can't
				// enter its data.
				if socket == "" && os.Geteuid() == 0 && os.Getenv("GANGWAY_DATA_DIR") == "" {
					if err := os.MkdirAll(filepath.Dir(systemSocket), 0o755); err != nil {
						return fmt.Errorf("the directory of the launcher's socket: %w", err)
					}
					socket = systemSocket
				}
			}
			level := slog.LevelInfo
			if err := level.UnmarshalText([]byte(logLevel)); err != nil {
				return usagef("debug, info, warn or error", "--log-level %q is none", logLevel)
			}
			var h slog.Handler = slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level})
			if a.json {
				h = slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level})
			}
			log := slog.New(h)
			cfg := launcher.UpConfig{Data: data, Pool: poolID, Base: f.base, Who: who(), Listen: listen, Names: names,
				Socket: socket, Lease: lease, NodeLife: nodeLife, DrainAfter: drainAfter, Version: versionString(), Log: log}
			f.given = cmd.Flags().Changed
			entries, err := f.hostEntries()
			if err != nil {
				return err
			}
			switch {
			case noNodes && len(entries) > 0:
				return usagef("give one of them", "--no-nodes with hosts")
			case noNodes && listen == "":
				return usagef("give --listen ADDR for nodes to join", "with --no-nodes nodes can only join, and there is no address to join at")
			case !noNodes:
				if cfg.Provider, err = f.provider(entries, func(s string) { log.Warn(s) }); err != nil {
					return err
				}
				defer cfg.Provider.Close()
			}
			if cfg.Fabric, err = readFabric(f.fabric, entries, func(s string) { log.Warn(s) }); err != nil {
				return err
			}
			cfg.Ready = func(i launcher.UpInfo) {
				log.Info("the launcher is up", "socket", i.Socket, "listen", i.Listen, "pool", poolID, "nodes", i.Nodes, "jobs", i.Jobs, "epoch", i.Epoch)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return launcher.Up(ctx, cfg)
		},
	}
	fl := c.Flags()
	f.given = fl.Changed
	fl.StringVar(&data, "data", "", "directory of the launcher's data, on a local disk (default $GANGWAY_DATA_DIR, ~/.local/share/gangway, root: /var/lib/gangway)")
	fl.StringVar(&listen, "listen", "", "serve the API and nodes that join on this TCP address, with TLS, for example 0.0.0.0:7701")
	fl.StringArrayVar(&names, "name", nil, "further host name or address of this machine in its certificate (repeatable)")
	fl.StringVar(&socket, "socket", "", "unix socket for clients on this machine (default DATA/launcher.sock; root's, without --data: "+systemSocket+")")
	fl.StringVar(&poolID, "pool", "default", "id of the pool of its nodes")
	fl.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	fl.DurationVar(&lease, "lease", launcher.KeptLease, "how long work outlives the contact with its node before it is started elsewhere")
	fl.BoolVar(&noNodes, "no-nodes", false, "no node of its own: only those that join")
	fl.StringVar(&f.hosts, "hosts", "", "nodes by ssh, for example 'n[1-4,7]' (default: this machine)")
	fl.StringVar(&f.hostfile, "hostfile", "", "file with the nodes, one a line")
	fl.StringVar(&f.agents, "agents", "", "nodes of standing agents, for example 'n[1-4]:7700'; needs --key")
	fl.StringVar(&f.key, "key", "", "file with the key of standing agents")
	fl.StringVar(&f.base, "tmpdir", "", "local directory on the nodes for sockets and scratch files (default /tmp)")
	fl.StringVarP(&f.sshConfig, "ssh-config", "F", "", "ssh configuration to use in place of ~/.ssh/config")
	fl.StringVar(&f.agentBinary, "agent-binary", "", "gangway built for the nodes' architecture, if it differs")
	fl.StringVar(&f.fabric, "fabric", "", "file that describes the network's switches: ibnetdiscover's output, topology.conf or YAML")
	fl.IntVar(&drainAfter, "drain-after", 3, "drain a node after this many attempts within a day that speak against it, up to 16, though never more than half of all; 0: never")
	fl.DurationVar(&nodeLife, "node-certificates", 0, "")
	_ = fl.MarkHidden("node-certificates") // how long they are valid; for tests of their renewal
	c.MarkFlagsMutuallyExclusive("hosts", "hostfile", "agents")
	return c
}

// systemSocket is where the machine's own launcher, root's, is found.
const systemSocket = "/run/gangway/launcher.sock"

// dataDir is where a launcher of this user keeps its data unless it is told.
func dataDir() (string, error) {
	if d := os.Getenv("GANGWAY_DATA_DIR"); d != "" {
		return d, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/gangway", nil
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "gangway"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.Join(err, usagef("give --data DIR or set GANGWAY_DATA_DIR", "there is no home directory for the data"))
	}
	return filepath.Join(home, ".local", "share", "gangway"), nil
}
