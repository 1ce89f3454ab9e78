package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"gangway/nodeagent/wire/link"
)

// cable passes bytes on until it is cut; then the connections stay and nothing
// moves.
func cable(t *testing.T, to string) (port uint16, cut func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	severed := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := []io.Closer{l}
	keep := func(c net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
		return c
	}
	pump := func(dst, src net.Conn) {
		b := make([]byte, 32<<10)
		for {
			n, err := src.Read(b)
			select {
			case <-severed:
				return
			default:
			}
			if err != nil {
				_ = dst.Close()
				return
			}
			_, _ = dst.Write(b[:n])
		}
	}
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			keep(a)
			keep(b)
			wg.Go(func() { pump(a, b) })
			wg.Go(func() { pump(b, a) })
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return uint16(l.Addr().(*net.TCPAddr).Port), sync.OnceFunc(func() { close(severed) })
}

func TestCutOff(t *testing.T) {
	g := listen(t, 3, link.NewKey())
	port, cut := cable(t, netip.AddrPortFrom(addr(0), g.m[0].Port()).String())
	for _, m := range g.m {
		m.Silence, m.Heartbeat = 600*time.Millisecond, 100*time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range g.m {
		peers := append([]Peer(nil), g.p...)
		if i == 1 {
			peers[0].Addr, peers[0].Port = netip.MustParseAddr("127.0.0.1"), port
		}
		wg.Go(func() {
			if err := m.Join(ctx, peers, g.r[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := g.m[2].Open(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	cut()
	for i, lost := range map[int]int{0: 1, 2: 1, 1: 0} {
		if n := g.r[i].next(t); n.Kind != "down" || n.Peer != lost || !errors.Is(n.Err, ErrSilent) {
			t.Errorf("member %d: %+v", i, n)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("noticed after %v", d)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("the stream to the lost member still works")
	}
}

func TestSlowReader(t *testing.T) {
	g := listen(t, 3, link.NewKey())
	for _, m := range g.m {
		m.Queue = 8 << 20
	}
	g.r[1].block = make(chan struct{})
	g.join(t)
	msg := make([]byte, 1<<20)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = g.m[0].Send(1, msg)
	}
	if n := g.r[0].next(t); n.Kind != "down" || n.Peer != 1 || !errors.Is(n.Err, ErrSlow) {
		t.Errorf("primary: %+v", n)
	}
	if n := g.r[2].next(t); n.Kind != "down" || n.Peer != 1 || !errors.Is(n.Err, ErrSlow) {
		t.Errorf("member 2: %+v", n)
	}
	close(g.r[1].block)
}

// memberMain is a member in a process of its own.
func memberMain(spec string) {
	var s struct {
		Key   []byte
		Self  int
		Peers []Peer
	}
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		panic(err)
	}
	m, err := Listen(s.Peers[s.Self].Addr, s.Key, s.Self)
	if err != nil {
		panic(err)
	}
	if err := m.Join(context.Background(), s.Peers, newRecorder()); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestStoppedAndKilledProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs signals")
	}
	for _, tc := range []struct {
		sig  string
		want error
		max  time.Duration
	}{{"STOP", ErrSilent, 8 * time.Second}, {"KILL", ErrClosed, time.Second}} {
		t.Run(tc.sig, func(t *testing.T) {
			key := link.NewKey()
			g := listen(t, 2, key)
			g.p = append(g.p, Peer{Index: 2, Name: "n2", Addr: addr(2), Port: 1}) // nobody dials it
			spec, err := json.Marshal(map[string]any{"Key": key, "Self": 2, "Peers": g.p})
			if err != nil {
				t.Fatal(err)
			}
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), "MESH_TEST_MEMBER="+string(spec))
			c.Stderr = os.Stderr
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close(); _ = c.Process.Kill(); _ = c.Wait() }()
			g.join(t)
			start := time.Now()
			if out, err := exec.Command("kill", "-"+tc.sig, strconv.Itoa(c.Process.Pid)).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			for i, r := range g.r {
				if n := r.next(t); n.Kind != "down" || n.Peer != 2 || !errors.Is(n.Err, tc.want) {
					t.Errorf("member %d: %+v", i, n)
				}
			}
			if d := time.Since(start); d > tc.max {
				t.Errorf("noticed after %v, want at most %v", d, tc.max)
			}
		})
	}
}
