package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// SSHConfig is how an ssh pool is reached. The zero value of every field but
// Binaries is usable.
type SSHConfig struct {
	// Binaries are the programs to run on the nodes: the first one built for a
	// node's architecture is copied there. Normally one: the running program. A
	// gangway-nvml beside it goes with it to nodes with NVIDIA's driver.
	Binaries []string
	// Args are the program's arguments on the node; nil means "bridge".
	Args []string
	// Env is added to its environment there, as "NAME=value".
	Env []string
	// ConfigFile replaces ~/.ssh/config and /etc/ssh/ssh_config, as ssh -F
	// does; "none" reads no file.
	ConfigFile string
	// Home replaces the user's home directory, where .ssh is; empty means the
	// one of the account, as for ssh.
	Home string
	// ConnectTimeout bounds one connection's set-up when ssh_config does not; 0
	// means 10 s.
	ConnectTimeout time.Duration
	// Warn gets one line for each thing that was passed over, at most once
	// each; nil drops them. It may be called from several goroutines at once.
	Warn func(string)
}

// SSH is a pool of hosts reached by ssh. It honours the user's ssh_config,
// known_hosts (strictly, unless StrictHostKeyChecking says otherwise), ssh-agent
// and key files. Errors, of type *Error and kind Config, are of the arguments and
// the configuration; nothing is dialed yet.
func SSH(cfg SSHConfig, nodes []Node) (Provider, error) {
	p := &sshPool{cfg: cfg, nodes: slices.Clone(nodes), clients: map[string]*entry{}, warned: map[string]bool{},
		timeout: cfg.ConnectTimeout, uploads: newUploads()}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	if p.cfg.Args == nil {
		p.cfg.Args = []string{"bridge"}
	}
	for _, kv := range cfg.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || !shellName(name) {
			return nil, &Error{Kind: Config, Msg: fmt.Sprintf("%q can't be set on the nodes", kv), Fix: "write NAME=value"}
		}
	}
	if p.config = newConfigReader(cfg, p.warn); p.config.home == "" {
		return nil, &Error{Kind: Config, Msg: "the home directory is unknown, and with it .ssh", Fix: "set HOME"}
	}
	seen := map[string]bool{}
	p.dests = map[string]destination{}
	for _, n := range nodes {
		d, err := parseDestination(n.Name)
		if err != nil {
			return nil, &Error{Node: n.Name, Kind: Config, Msg: err.Error(), Err: err}
		}
		if seen[n.Name] {
			return nil, &Error{Node: n.Name, Kind: Config, Msg: "is in the list of hosts twice", Fix: "name it once, with the sum of its slots"}
		}
		seen[n.Name] = true
		p.dests[n.Name] = d
		if err := p.checkJumps(d, nil); err != nil {
			return nil, &Error{Node: n.Name, Kind: Config, Msg: err.Error(), Fix: "correct the ssh configuration", Err: err}
		}
	}
	var err error
	if p.binaries, err = readBinaries(cfg.Binaries); err != nil {
		return nil, &Error{Kind: Config, Msg: err.Error(), Err: err}
	}
	p.helper = findHelper(cfg.Binaries)
	return p, nil
}

// newConfigReader finds the account's files.
func newConfigReader(cfg SSHConfig, warn func(string)) *configReader {
	r := &configReader{home: cfg.Home, warn: warn}
	// The account's entry wins over HOME and USER, as for ssh; where accounts
	// come from a directory service these are all there is.
	if u, err := user.Current(); err == nil {
		r.user = u.Username
		if r.home == "" {
			r.home = u.HomeDir
		}
	}
	if i := strings.LastIndexByte(r.user, '\\'); i >= 0 {
		r.user = r.user[i+1:] // DOMAIN\user
	}
	if r.home == "" {
		r.home, _ = os.UserHomeDir()
	}
	switch cfg.ConfigFile {
	case "":
		r.roots = []configRoot{
			{path: filepath.Join(r.home, ".ssh", "config")},
			{path: "/etc/ssh/ssh_config", system: true},
		}
	case "none":
	default:
		r.roots = []configRoot{{path: cfg.ConfigFile, required: true}}
	}
	return r
}

// sshPool is the provider for hosts reached by ssh.
type sshPool struct {
	cfg      SSHConfig
	nodes    []Node
	dests    map[string]destination
	config   *configReader
	timeout  time.Duration
	binaries []binary
	helper   *helper // nil: none
	uploads  *uploads
	write    sync.Mutex // additions to known_hosts

	mu      sync.Mutex
	closed  bool
	clients map[string]*entry
	warned  map[string]bool
	wg      sync.WaitGroup // clients being closed after they broke
}

func (p *sshPool) Nodes() []Node { return slices.Clone(p.nodes) }

func (p *sshPool) warn(line string) {
	p.mu.Lock()
	again := p.warned[line]
	p.warned[line] = true
	p.mu.Unlock()
	if !again && p.cfg.Warn != nil {
		p.cfg.Warn(line)
	}
}

// hint is the ssh command that reaches a host as this pool does.
func (p *sshPool) hint(h *hostConfig) string {
	words := []string{"ssh"}
	if p.cfg.ConfigFile != "" {
		words = append(words, "-F", p.cfg.ConfigFile)
	}
	return strings.Join(append(words, h.name), " ")
}

func (p *sshPool) Connect(ctx context.Context, node string) (Conn, error) {
	d, ok := p.dests[node]
	if !ok {
		return nil, &Error{Node: node, Kind: Config, Msg: "is not in this pool"}
	}
	for again := true; ; again = false {
		c, err := p.client(ctx, d, nil, "")
		if err != nil {
			return nil, named(node, err)
		}
		s, err := p.bridge(ctx, node, c)
		if err == nil {
			return s, nil
		}
		if err := gone(ctx); err != nil {
			return nil, err
		}
		if lost := c.lost(node); lost != nil {
			err = lost
		}
		// A connection from before may turn out to be broken only when it is
		// used.
		var e *Error
		if !again || !errors.As(err, &e) || e.Kind != Lost {
			return nil, named(node, err)
		}
	}
}

// named puts the node's name to an error that doesn't know it.
func named(node string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Node == "" {
		up := *e
		up.Node = node
		return &up
	}
	return err
}

func (p *sshPool) Close() error {
	p.mu.Lock()
	p.closed = true
	entries := make([]*entry, 0, len(p.clients))
	for _, e := range p.clients {
		entries = append(entries, e)
	}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range entries {
		select {
		case <-e.ready:
			if e.client != nil {
				wg.Go(e.client.close)
			}
		default: // its own caller closes it in settle
		}
	}
	wg.Wait()
	p.wg.Wait()
	return nil
}
