package launcher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
	"gangway/launcher/control"
	"gangway/launcher/history"
	"gangway/launcher/job"
	"gangway/launcher/pool"
	"gangway/launcher/sched"
	"gangway/launcher/state"
	"gangway/launcher/store"
	"gangway/nodeagent/wire"
)

// KeptLease is how long kept work outlives the contact with its launcher.
const KeptLease = 5 * time.Minute

// UsageEvery is how often nodes tell what they are used for.
const UsageEvery = 15 * time.Second

// AgentProtocol is what an agent asks for by ALPN on the launcher's listener.
const AgentProtocol = "gangway-agent/1"

// UpConfig is one `gangway up`.
type UpConfig struct {
	Data     string        // directory of the rows, keys and certificates; one launcher at a time
	Pool     string        // id of the launcher's pool; "": "default"
	Provider pool.Provider // nodes that the launcher connects to; nil: only those that join
	Fabric   *sched.Fabric // the network between the nodes; nil: not known
	Base     string        // of the directories on the nodes; "": /tmp
	Who      string        // for messages on the nodes
	Listen   string        // TCP address of the API and for agents; "": none
	Names    []string      // by which clients know the launcher, for its certificate
	Socket   string        // path of the unix socket; "": in Data
	Lease    time.Duration // 0: KeptLease
	NodeLife time.Duration // of the certificates of nodes that join; 0: 30 days
	// DrainAfter is how many attempts within a day, up to 16, that speak against
	// a node drain it; 0: never.
	DrainAfter int
	Version    string
	Log        *slog.Logger
	// Ready, if set, is called once when both listeners accept.
	Ready func(UpInfo)
}

// UpInfo says where a launcher is reached.
type UpInfo struct {
	Socket string
	Listen string // host:port; "": no TCP
	Epoch  uint64
	Nodes  int // known
	Jobs   int // known
}

// up is the state of one Up.
type up struct {
	cfg     UpConfig
	ctl     *control.Control
	fleet   *agents.Fleet
	api     *backend
	keys    *auth.Keyring
	ca      *auth.CA
	metrics *metrics
	merger  *merger
	group   sync.WaitGroup
}

// Up serves until ctx is done, or the data can't be written. Jobs go on without
// it.
func Up(ctx context.Context, cfg UpConfig) error {
	if cfg.Lease <= 0 {
		cfg.Lease = KeptLease
	}
	if cfg.Pool == "" {
		cfg.Pool = "default"
	}
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(cfg.Data, "launcher.sock")
	}
	st, err := store.Open(cfg.Data, store.Options{Version: cfg.Version})
	if err != nil {
		return err
	}
	defer st.Close()
	u := &up{cfg: cfg}
	if u.keys, err = auth.OpenKeyring(cfg.Data, auth.KeyringOptions{}); err != nil {
		return err
	}
	names := cfg.Names
	if cfg.Listen != "" {
		names = append(names[:len(names):len(names)], cfg.Listen)
	}
	if u.ca, err = auth.OpenCA(cfg.Data, auth.CAOptions{Log: cfg.Log, Names: names, NodeLife: cfg.NodeLife}); err != nil {
		return err
	}
	cluster, err := load(st)
	if err != nil {
		return err
	}
	// The store's may be the later one: a launcher that was killed between its
	// Begin and its first commit has left it above the rows'.
	begun, err := st.Epoch()
	if err != nil {
		return err
	}
	epoch := max(cluster.Epoch(), begun) + 1
	if err := st.Begin(epoch); err != nil {
		return err
	}
	return u.run(ctx, st, cluster, epoch)
}

// load restores the cluster from its rows.
func load(st store.Store) (*state.Cluster, error) {
	rows, err := st.Load(job.TableAutopsy)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return state.New(randomID(8), 0), nil
	}
	return state.Load(rows)
}

func (u *up) run(ctx context.Context, st store.Store, cluster *state.Cluster, epoch uint64) error {
	cfg := u.cfg
	life, stop := context.WithCancel(ctx)
	defer u.group.Wait()
	defer stop()
	u.metrics = newMetrics(cfg.Version)
	u.merger = newMerger()
	id := cluster.ID()
	cluster.SetFabric(cfg.Fabric)
	cluster.SetDrainAfter(cfg.DrainAfter)
	u.ctl = control.New(control.Config{
		Cluster: cluster, Store: u.metrics.store(st), Fleet: upFleet{u}, Log: cfg.Log,
		Notice: u.notice, NodeGrace: cfg.Lease, Lease: cfg.Lease, Leases: state.RequeuedLeases,
	})
	u.fleet = agents.New(agents.Config{
		Connector: connector{cfg.Provider}, Inbox: u.ctl, Traffic: silentTraffic{u}, Cluster: id, Epoch: epoch,
		Who: cfg.Who, Lease: cfg.Lease, Usage: UsageEvery, Base: cfg.Base, Pool: cfg.Pool, Version: cfg.Version, Log: cfg.Log, Failed: u.connectFailed,
		Folders: func(node string, folders []string) {
			u.group.Go(func() { u.api.clearUnknown(node, folders) })
		},
		Up: func(node string) { u.api.unreached.connected(node) },
	})
	u.api = &backend{ctl: u.ctl, history: st, elementsPast: history.New(st), fleet: u.fleet, pool: cfg.Pool, since: time.Now(), life: life,
		expel: u.expel}
	defer u.api.leaving.Wait()
	applied := make(chan error, 1)
	appCtx, stopApplier := context.WithCancel(context.WithoutCancel(ctx))
	defer stopApplier()
	u.group.Go(func() { applied <- u.ctl.Run(appCtx) })
	if err := u.ctl.Do(ctx, state.Restarted{Epoch: epoch}); err != nil {
		return err
	}
	info := UpInfo{Socket: cfg.Socket, Epoch: epoch}
	known := map[string]bool{}
	var leaving []string
	if err := u.ctl.Read(ctx, func(c *state.Cluster) {
		for _, n := range c.Nodes() {
			known[n.Row.Name] = true
			if n.Row.Leaving {
				leaving = append(leaving, n.Row.Name)
			}
		}
		info.Jobs = len(c.Jobs())
	}); err != nil {
		return err
	}
	u.group.Go(func() {
		if err := u.api.readAhead(life); err != nil && life.Err() == nil {
			cfg.Log.Warn("ended tasks can't be read ahead", "err", err)
		}
	})
	u.group.Go(func() {
		if err := u.api.mergeRows(life, u.merger); err != nil && life.Err() == nil {
			cfg.Log.Warn("the results of arrays are no longer merged into fewer rows", "err", err)
		}
	})
	if cfg.Provider != nil {
		for _, n := range cfg.Provider.Nodes() {
			if !known[n.Name] {
				if err := u.ctl.Do(ctx, state.NodeAdded{Node: n.Name}); err != nil {
					return err
				}
				known[n.Name] = true
			}
		}
		for _, n := range cfg.Provider.Nodes() {
			u.fleet.Reserve(n.Name)
			u.group.Go(func() { u.fleet.Keep(life, n.Name) })
		}
	}
	for _, n := range leaving { // an earlier launcher was told to
		u.api.leave(n)
	}
	info.Nodes = len(known)
	serveErr := make(chan error, 2)
	if err := u.listen(life, &info, serveErr); err != nil {
		return err
	}
	if cfg.Ready != nil {
		cfg.Ready(info)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-applied:
		if err == nil {
			err = control.ErrStopped
		}
		return err
	case err := <-serveErr:
		return err
	}
}

// listen opens both listeners and serves them until ctx is done.
func (u *up) listen(ctx context.Context, info *UpInfo, failed chan<- error) error {
	handler := patient(u.handler())
	if err := clearSocket(u.cfg.Socket); err != nil {
		return fmt.Errorf("the launcher's socket: %w", err)
	}
	ul, err := net.Listen("unix", u.cfg.Socket)
	if err != nil {
		return fmt.Errorf("the launcher's socket: %w", err)
	}
	// Everyone may connect; the kernel says who it is, the keyring what they may.
	if err := os.Chmod(u.cfg.Socket, 0o666); err != nil {
		_ = ul.Close()
		return fmt.Errorf("the launcher's socket: %w", err)
	}
	u.serve(ctx, u.localServer(handler), ul, failed)
	if u.cfg.Listen == "" {
		return nil
	}
	tl, err := net.Listen("tcp", u.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening for clients and agents: %w", err)
	}
	info.Listen = tl.Addr().String()
	conf := u.ca.ServerTLS()
	// TLSNextProto below takes HTTP/2 out of the server, so it must not be offered.
	conf.NextProtos = []string{AgentProtocol, "http/1.1"}
	remote := &http.Server{Handler: handler, DisableGeneralOptionsHandler: true, ReadHeaderTimeout: headPatience, IdleTimeout: idlePatience, ErrorLog: u.httpLog(),
		TLSConfig: conf,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			AgentProtocol: func(_ *http.Server, c *tls.Conn, _ http.Handler) { u.agent(ctx, c) },
		}}
	u.serve(ctx, remote, tls.NewListener(tl, conf), failed)
	return nil
}

// clearSocket removes the socket of a launcher that is dead. The data directory's
// lock says nothing of it: launchers on other data may have been given the same.
func clearSocket(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: remove it, or give another --socket", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("another launcher serves %s: stop it, or give another --socket", path)
	}
	return os.Remove(path)
}

// peerKey is the key of a local connection's uid in its context.
type peerKey struct{}

// localServer serves users of this machine as those that the kernel says they
// are. Who that is, is asked for each request, so that a change of the keyring
// holds at once; and not when the connection is accepted: until the machine's
// directory service had answered, nobody else would get in.
func (u *up) localServer(handler http.Handler) *http.Server {
	as := func(w http.ResponseWriter, r *http.Request) {
		if uid, ok := r.Context().Value(peerKey{}).(int); ok {
			p, err := u.keys.Local(uid)
			if err == nil {
				r = r.WithContext(batchapi.WithPrincipal(r.Context(), p))
			} else {
				u.cfg.Log.Info("a local user was turned away", "uid", uid, "err", err)
			}
		}
		handler.ServeHTTP(w, r)
	}
	return &http.Server{Handler: http.HandlerFunc(as), DisableGeneralOptionsHandler: true, ReadHeaderTimeout: headPatience, IdleTimeout: idlePatience, ErrorLog: u.httpLog(),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := auth.PeerUID(c)
			if err != nil {
				return ctx
			}
			return context.WithValue(ctx, peerKey{}, uid)
		}}
}

func (u *up) serve(ctx context.Context, s *http.Server, l net.Listener, failed chan<- error) {
	u.group.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	u.group.Go(func() {
		<-ctx.Done()
		brief, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(brief) != nil {
			_ = s.Close()
		}
	})
}

// httpLog is for what clients do wrong below HTTP: of no interest as a rule.
func (u *up) httpLog() *log.Logger { return slog.NewLogLogger(u.cfg.Log.Handler(), slog.LevelDebug) }

// agent serves a node that connected by itself.
func (u *up) agent(ctx context.Context, c *tls.Conn) {
	cs := c.ConnectionState()
	name, err := u.ca.Node(&cs)
	if err == nil && name == "" {
		err = errors.New("it shows no certificate")
	}
	if err != nil {
		u.cfg.Log.Warn("an agent was turned away", "from", c.RemoteAddr(), "err", err)
		_ = c.Close()
		return
	}
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	u.group.Go(func() { u.stillLetIn(watched, name, c, cs) })
	err = u.ctl.Do(ctx, state.NodeAdded{Node: name, Again: true})
	if err == nil {
		u.cfg.Log.Info("an agent has connected", "node", name, "from", c.RemoteAddr())
		err = u.fleet.Accept(ctx, name, c)
	}
	if errors.Is(err, agents.ErrTwice) {
		u.api.unreached.failed(name, err)
	}
	if err != nil && ctx.Err() == nil {
		u.cfg.Log.Info("an agent's connection has ended", "node", name, "err", err)
	}
	_ = c.Close()
}

// recheck is how often a connected node's certificate is looked at again.
const recheck = time.Second

// stillLetIn ends the connection of a node that is revoked meanwhile.
func (u *up) stillLetIn(ctx context.Context, name string, c *tls.Conn, cs tls.ConnectionState) {
	t := time.NewTicker(recheck)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := u.ca.Still(&cs); errors.Is(err, auth.ErrDenied) {
			u.cfg.Log.Warn("an agent is no longer let in", "node", name, "err", err)
			_ = c.Close()
			return
		}
	}
}

func (u *up) handler() http.Handler {
	api := batchapi.New(batchapi.Config{Backend: u.api, Auth: keyring{u.keys}, Log: u.cfg.Log, Version: u.cfg.Version,
		Submit: u.api.submitSpec, Preview: u.api.previewSpec, Metrics: u.metrics.handler(u.ctl, u.fleet)})
	return paths(u.ca.JoinHandler(), api)
}

// keyring is auth's as the API asks it.
type keyring struct{ keys *auth.Keyring }

func (k keyring) SharedKey(account string) ([][]byte, batchapi.Principal, error) {
	key, p, err := k.keys.SharedKey(account)
	return [][]byte{key}, withUser(p), err
}

func (k keyring) Bearer(token string) (batchapi.Principal, error) {
	p, err := k.keys.Bearer(token)
	return withUser(p), err
}

// withUser gives a principal without a node user one of its own name: no node user
// means the agents', which may be root, and only administrators' work may run as
// that.
func withUser(p auth.Principal) auth.Principal {
	if p.NodeUser == "" && p.Role != auth.Admin {
		p.NodeUser = p.Name
	}
	return p
}

// submitSpec takes a whole job of the command line.
func (b *backend) submitSpec(ctx context.Context, who batchapi.Principal, spec job.Spec) (string, error) {
	if err := b.acceptable(spec); err != nil {
		return "", err
	}
	spec.Owner, spec.User, spec.Session = who.Name, who.NodeUser, false
	_, err := b.submit(ctx, spec)
	return spec.ID, err
}

// acceptable checks what only a launcher that stays refuses.
func (b *backend) acceptable(spec job.Spec) error {
	if err := b.checkPool(spec.Pool); err != nil {
		return err
	}
	for i, t := range spec.Tasks {
		if t.Stdin || t.Bcast || t.PlanOnly {
			return &batchapi.Invalid{Property: fmt.Sprintf("tasks[%d]", i), Reason: "a kept job has no client that could send its input or its program: put them where the nodes find them"}
		}
	}
	return nil
}

// ofTask names the task, by its place in the job, of which a refusal is.
func ofTask(spec job.Spec, err error) error {
	var impossible *state.ImpossibleError
	if !errors.As(err, &impossible) {
		return err
	}
	i := slices.IndexFunc(spec.Tasks, func(t job.TaskSpec) bool { return t.ID == impossible.ID })
	if i < 0 {
		return err
	}
	return &batchapi.Invalid{Property: fmt.Sprintf("tasks[%d]", i), Reason: impossible.Error()}
}

// expel keeps a removed node out: one that joined would be back with its next
// connection, and take work.
func (u *up) expel(node string) {
	in, err := u.ca.Joined(node)
	if err == nil && in {
		err = u.ca.RevokeNode(node)
	}
	if err != nil {
		u.cfg.Log.Error("a removed node may join again", "node", node, "err", err)
		return
	}
	u.cfg.Log.Info("node removed", "node", node)
}

// connectFailed keeps trying: nodes of a launcher that stays come and go.
func (u *up) connectFailed(node string, err error, _ bool) bool {
	u.cfg.Log.Warn("a node can't be reached", "node", node, "err", err)
	u.api.unreached.failed(node, err)
	return true
}

// upFleet breaks the circle between control and fleet.
type upFleet struct{ u *up }

func (f upFleet) Want(node string, parts []state.Part) { f.u.fleet.Want(node, parts) }

// silentTraffic is the traffic of kept jobs: their output is in files on the
// nodes; what shims have to say besides is for the log.
type silentTraffic struct{ u *up }

func (t silentTraffic) FromShim(node string, m *wire.FromShim) {
	if n := m.GetNotice(); n != nil {
		level := slog.LevelInfo
		if n.GetWarning() {
			level = slog.LevelWarn
		}
		t.u.cfg.Log.Log(context.Background(), level, n.GetText(), "node", node, "attempt", m.GetId())
	}
}

// notice is called by the applier: it must not block.
func (u *up) notice(n state.Notice) {
	u.metrics.notice(n)
	u.merger.told(n)
	u.api.ended(n)
	switch n.Kind {
	case state.NodeChanged:
		u.cfg.Log.Info("node changed", "node", n.Node)
	case state.JobEnded:
		u.cfg.Log.Info("job ended", "job", n.Job)
	case state.TaskForgotten, state.JobForgotten:
		u.group.Go(func() { u.api.clear(n.Folder) })
		if n.Elements {
			u.group.Go(func() { u.api.clearElements(n) })
		}
	}
}
