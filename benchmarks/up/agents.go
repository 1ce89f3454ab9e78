package main

import (
	"archive/tar"
	"compress/bzip2"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	up "gangway/launcher"
	"gangway/launcher/auth"
	"gangway/nodeagent"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
	"gangway/topology"
	"gangway/topology/probe"
)

// machine is what the simulated nodes are.
func machine(recorded, dir string) (topology.Node, error) {
	if recorded == "" {
		return probe.Live()
	}
	if err := unpack(recorded, dir); err != nil {
		return topology.Node{}, fmt.Errorf("%s: %w", recorded, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "sys"))
	if err != nil || len(found) != 1 {
		return topology.Node{}, fmt.Errorf("%s holds no machine's /sys", recorded)
	}
	root := filepath.Dir(found[0])
	return probe.Node(probe.Source{Sys: os.DirFS(filepath.Join(root, "sys")), Proc: os.DirFS(filepath.Join(root, "proc")), Arch: runtime.GOARCH,
		Interfaces: []topology.Interface{{Name: "eth0", Up: true}}})
}

func unpack(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(bzip2.NewReader(f)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
		case tar.TypeReg:
			if err = root.MkdirAll(filepath.Dir(name), 0o700); err == nil {
				var b []byte
				if b, err = io.ReadAll(r); err == nil {
					err = root.WriteFile(name, b, 0o600)
				}
			}
		case tar.TypeSymlink:
			if err = root.MkdirAll(filepath.Dir(name), 0o700); err == nil {
				err = root.Symlink(h.Linkname, name)
			}
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
}

// fleet is the simulated nodes.
type fleet struct {
	l      *launcher
	node   topology.Node
	dir    string
	agents []*agent
	wg     sync.WaitGroup
}

// agent is one simulated node's. It has no shims: what it is told to run has
// ended at once and well.
type agent struct {
	id    *auth.Identity
	hello *wire.Hello
	addr  string
}

// enroll joins n nodes, a few at a time.
func (f *fleet) enroll(ctx context.Context, n int) error {
	ca, err := auth.OpenCA(f.l.data, auth.CAOptions{})
	if err != nil {
		return err
	}
	_, token, err := ca.AddJoinToken(auth.JoinSpec{Uses: n})
	if err != nil {
		return err
	}
	f.agents = make([]*agent, n)
	errs := make(chan error, 4)
	next := make(chan int)
	for range cap(errs) {
		go func() {
			var err error
			for i := range next {
				if err == nil {
					f.agents[i], err = f.join(ctx, token, i)
				}
			}
			errs <- err
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (f *fleet) join(ctx context.Context, token auth.Secret, i int) (*agent, error) {
	name := fmt.Sprintf("n%04d", i+1)
	id, err := auth.Enroll(ctx, filepath.Join(f.dir, name), "https://"+f.l.addr, token, name, auth.IdentityOptions{})
	if err != nil {
		return nil, err
	}
	node := f.node
	node.Hostname, node.BootID = name, "boot of "+name
	hello, err := nodeagent.HelloOf(node, "simulated")
	if err != nil {
		return nil, err
	}
	hello.Hostname = name
	return &agent{id: id, hello: hello, addr: f.l.addr}, nil
}

func (f *fleet) connect(ctx context.Context) {
	for _, a := range f.agents {
		f.wg.Go(func() { a.run(ctx) })
	}
}

// run keeps a session, with the pauses of a real agent.
func (a *agent) run(ctx context.Context) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		conf := a.id.ClientTLS().Clone()
		conf.NextProtos = []string{up.AgentProtocol}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: conf}
		if c, err := d.DialContext(ctx, "tcp", a.addr); err == nil {
			if a.serve(ctx, c) {
				pause = 100 * time.Millisecond
			}
			_ = c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// serve is a session; ok: it was welcomed.
func (a *agent) serve(ctx context.Context, conn net.Conn) (ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hc, closeConn := link.Client(conn)
	defer closeConn()
	defer context.AfterFunc(ctx, closeConn)()
	stream := wireconnect.NewLauncherClient(hc, "http://launcher", connect.WithGRPC(), connect.WithAcceptCompression("gzip", nil, nil)).Session(ctx)
	if stream.Send(&wire.AgentMessage{M: &wire.AgentMessage_Hello{Hello: a.hello}}) != nil {
		return false
	}
	m, err := stream.Receive()
	w := m.GetWelcome()
	if err != nil || w == nil || w.GetError() != "" {
		return false
	}
	out := link.NewQueue[*wire.AgentMessage]()
	out.Put(&wire.AgentMessage{M: &wire.AgentMessage_Inventory{Inventory: &wire.Inventory{}}})
	var sender sync.WaitGroup
	defer sender.Wait()
	defer out.Close()
	sender.Go(func() {
		for {
			m, ok := out.Take()
			if !ok || stream.Send(m) != nil {
				cancel()
				return
			}
		}
	})
	sample := func() {
		out.Put(&wire.AgentMessage{M: &wire.AgentMessage_Usage{Usage: &wire.Usage{UnixNs: time.Now().UnixNano(), CpuPercent: proto.Float64(50),
			Load1: proto.Float64(1), Load5: proto.Float64(1), Load15: proto.Float64(1), MemoryTotal: proto.Uint64(1 << 38), MemoryUsed: proto.Uint64(1 << 37),
			DiskTotal: proto.Uint64(1 << 40), DiskFree: proto.Uint64(1 << 39), NetReceived: proto.Uint64(1 << 40), NetSent: proto.Uint64(1 << 40), Processes: proto.Uint32(8)}}})
	}
	sample()
	if every := time.Duration(w.GetUsageMs()) * time.Millisecond; every > 0 {
		t := time.NewTicker(time.Duration(float64(every) * (0.9 + 0.2*rand.Float64())))
		defer t.Stop()
		sender.Go(func() {
			for {
				select {
				case <-t.C:
					sample()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	defer cancel() // before the sender is waited for
	names := map[string]*wire.Assignment{}
	crews := map[string]*crew{}
	for {
		m, err := stream.Receive()
		if err != nil {
			return true
		}
		if !work(out, names, crews, m) {
			a.answer(out, names, m)
		}
	}
}

// answer plays a shim's life.
func (a *agent) answer(out *link.Queue[*wire.AgentMessage], have map[string]*wire.Assignment, m *wire.LauncherMessage) {
	say := func(as *wire.Assignment, m *wire.FromShim) {
		m.Id, m.Name = as.GetId(), as.GetName()
		out.Put(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: m}})
	}
	for _, as := range m.GetDesired().GetSet() {
		if have[as.GetId()] == nil {
			have[as.GetId()] = as
			say(as, &wire.FromShim{M: &wire.FromShim_Ready{Ready: &wire.Ready{MeshPort: 1}}})
		}
	}
	t := m.GetToShim()
	as := have[t.GetId()]
	switch {
	case as == nil:
	case t.GetLaunch() != nil:
		now := time.Now().UnixNano()
		say(as, &wire.FromShim{M: &wire.FromShim_Started{Started: &wire.Started{Pid: 1, UnixNs: now}}})
		r := &wire.Result{Range: as.GetName().GetRange(), StartNs: now, EndNs: now, FirstRank: -1}
		if strings.HasSuffix(as.GetTask(), "7") {
			r.ExitCode, r.FirstRank = 1, 0
			r.Failure = &wire.Failure{Code: wire.FailureCode_FAILURE_RANK, Message: "rank 0 ended with status 1", Node: as.GetNode()}
		}
		say(as, &wire.FromShim{M: &wire.FromShim_Result{Result: r}})
	case t.GetForget() != nil:
		delete(have, as.GetId())
		out.Put(&wire.AgentMessage{M: &wire.AgentMessage_ShimGone{ShimGone: &wire.ShimGone{Id: as.GetId(), Name: as.GetName(), Reason: "ended"}}})
	}
}
