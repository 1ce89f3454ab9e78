//go:build linux

package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
)

// TestPreflightOfManyNodes lets 64 shims of this machine, each with a loopback
// address of its own, check each other.
func TestPreflightOfManyNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 64 processes")
	}
	const n = 64
	key := link.NewKey()
	var ms []*member
	var peers []*wire.Peer
	for i := range n {
		a := assignment(t, "hostname")
		addr := netip.AddrFrom4([4]byte{127, 0, 7, byte(i + 1)})
		a.NodeIndex, a.NodeCount, a.Node = uint32(i), n, fmt.Sprintf("m%02d", i)
		a.FirstRank, a.NodeRanks, a.TotalRanks = uint32(i), 1, n
		a.Address, a.Interface, a.MeshKey, a.LaunchDeadlineMs = addr.String(), "eth0", key, 120000
		node := liveNode(t)
		node.Hostname = a.Node
		node.Interfaces = []topology.Interface{{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}
		ms = append(ms, startOn(t, a, 0, node))
		peers = append(peers, &wire.Peer{Index: uint32(i), Name: a.Node, Hostname: a.Node, Address: addr.String(), Interface: "eth0", FirstRank: uint32(i), Ranks: 1})
	}
	for i, m := range ms {
		m.until("ready", 2*time.Minute, func() bool { return m.ready != nil })
		if f := m.ready.GetFailure(); f != nil {
			t.Fatal(f)
		}
		peers[i].Port = m.ready.GetMeshPort()
	}
	for _, m := range ms {
		m.launch(peers...)
	}
	ms[0].until("the end of the checks", 2*time.Minute, func() bool {
		return strings.Contains(strings.Join(ms[0].notices, "\n"), "preflight: nodes checked: 64, findings: ")
	})
	ms[0].mu.Lock()
	t.Log(strings.Join(ms[0].notices, "\n"))
	ms[0].mu.Unlock()
	if r := ms[0].awaitResult(); r.GetFailure() != nil {
		t.Error(r.GetFailure())
	}
}

// TestPreflightMemlock takes away what lets root raise the limit or ignore it, and
// gives the node an adapter.
func TestPreflightMemlock(t *testing.T) {
	for _, tool := range []string{"setpriv", "prlimit"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	a := ranks(assignment(t, hello(t, "mpicc.mpich")), 2)
	node := liveNode(t)
	node.HCAs = []topology.HCA{{Name: "mlx5_0", Ports: []topology.HCAPort{{Number: 1, State: "ACTIVE", LinkLayer: "InfiniBand"}}}}
	cmd := exec.Command("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-sys_resource,-ipc_lock", "--inh-caps=-sys_resource,-ipc_lock", executable(t), "shim")
	cmd.Env, cmd.Dir = os.Environ(), "/"
	m := startWith(t, a, 0, node, "", cmd, cmd.Start)
	m.launch()
	r := m.awaitResult()
	f := r.GetFailure()
	if f.GetCode() != wire.FailureCode_FAILURE_PREFLIGHT || !strings.Contains(f.GetMessage(), "64 KiB of memory") || !strings.Contains(f.GetHint(), "limits.conf") || f.GetNode() != "here" {
		t.Errorf("got %v", r)
	}
	m.forget()
}

func TestStaleFiles(t *testing.T) {
	shm, tmp := t.TempDir(), t.TempDir()
	now := time.Now()
	old := now.Add(-time.Hour)
	make := func(path string, size int, dir bool, when time.Time) {
		t.Helper()
		var err error
		if dir {
			err = os.MkdirAll(path, 0o700)
		} else {
			err = os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600)
		}
		if err == nil {
			err = os.Chtimes(path, when, when)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := staleFiles(shm, tmp, now); got != nil {
		t.Errorf("nothing is there: %v", got)
	}
	make(filepath.Join(shm, "vader_segment.n1.1"), 10, false, old)
	make(filepath.Join(shm, "vader_segment.n1.2"), 20, false, old)
	make(filepath.Join(shm, "vader_segment.n1.3"), 20, false, now)
	make(filepath.Join(shm, "somebody's"), 20, false, old)
	make(filepath.Join(tmp, "ompi.n1.0", "pid.1"), 0, true, old) // this process's parent of all lives
	make(filepath.Join(tmp, "ompi.n1.0"), 0, true, old)
	got := staleFiles(shm, tmp, now)
	if len(got) != 1 || got[0].Count != 2 || got[0].Bytes != 30 || got[0].Path != filepath.Join(shm, "vader_segment.n1.2") {
		t.Errorf("got %+v", got)
	}
}

func TestMeasure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serveMeasure(c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	latency, rate, err := measureOver(c)
	if err != nil || latency <= 0 || rate <= 0 {
		t.Errorf("round trip %v, %v bytes a second, %v", latency, rate, err)
	}
	_ = c.Close()
	<-done
}

func FuzzPreflightMsg(f *testing.F) {
	f.Add([]byte(`{"ask":{"helpers":["/x"]}}`))
	f.Add([]byte(`{"facts":{"node":"n1","granted":"0-3","address":"10.0.0.1"}}`))
	f.Add([]byte(`{"pair":{"a":1,"b":2}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m preflightMsg
		_ = json.Unmarshal(b, &m) // the mesh's peers hold the gang's key, yet nothing they say may panic
	})
}
