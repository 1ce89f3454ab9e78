package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gangway/nodeagent/wire/link"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("MESH_TEST_MEMBER"); spec != "" {
		memberMain(spec)
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 20 * time.Second

// news is one call of a Handler.
type news struct {
	Kind string // message, down, stream
	Peer int
	Text string
	Err  error `json:"-"`
}

// recorder is a Handler that keeps what it is told.
type recorder struct {
	ch    chan news
	block chan struct{} // not nil: messages wait for it
}

func newRecorder() *recorder { return &recorder{ch: make(chan news, 10_000)} }

func (r *recorder) Message(from int, msg []byte) {
	if r.block != nil {
		<-r.block
	}
	r.ch <- news{Kind: "message", Peer: from, Text: string(msg)}
}
func (r *recorder) Down(peer int, err error) { r.ch <- news{Kind: "down", Peer: peer, Err: err} }

// Stream answers with what came, in capitals, and the meta.
func (r *recorder) Stream(from int, meta []byte, s Stream) {
	b, err := io.ReadAll(s)
	if err != nil {
		r.ch <- news{Kind: "stream", Peer: from, Text: "broken"}
		return
	}
	_, _ = s.Write(append(bytes.ToUpper(b), meta...))
	_ = s.CloseWrite()
}

func (r *recorder) next(t *testing.T) news {
	t.Helper()
	select {
	case n := <-r.ch:
		return n
	case <-time.After(patience):
		t.Fatal("nothing happened")
		return news{}
	}
}

type gang struct {
	m []*Mesh
	r []*recorder
	p []Peer
}

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 2)}) }

func listen(t *testing.T, n int, key []byte) *gang {
	t.Helper()
	g := &gang{}
	for i := range n {
		m, err := Listen(addr(i), key, i)
		if err != nil {
			if runtime.GOOS != "linux" {
				t.Skipf("only Linux has all of 127/8: %v", err)
			}
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		g.m, g.r = append(g.m, m), append(g.r, newRecorder())
		g.p = append(g.p, Peer{Index: i, Name: fmt.Sprintf("n%d", i), Addr: addr(i), Port: m.Port()})
	}
	return g
}

func (g *gang) join(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	errs := make([]error, len(g.m))
	var wg sync.WaitGroup
	for i, m := range g.m {
		wg.Go(func() { errs[i] = m.Join(ctx, g.p, g.r[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestOneMember(t *testing.T) {
	m, err := Listen(netip.Addr{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Port() != 0 {
		t.Errorf("port %d without a network", m.Port())
	}
	if err := m.Join(context.Background(), []Peer{{Index: 0}}, newRecorder()); err != nil {
		t.Fatal(err)
	}
	if err := m.Broadcast([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := m.Send(0, nil); err == nil {
		t.Error("a message to oneself was accepted")
	}
	if err := m.Join(context.Background(), []Peer{{Index: 0}}, newRecorder()); err == nil {
		t.Error("joined twice")
	}
}

func TestMessagesStayInOrder(t *testing.T) {
	g := listen(t, 3, link.NewKey())
	g.join(t)
	const count = 2000
	for from := range 3 {
		for to := range 3 {
			if from == to {
				continue
			}
			for i := range count {
				if err := g.m[from].Send(to, fmt.Appendf(nil, "%d", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for to := range 3 {
		var seen [3]int
		for range 2 * count {
			n := g.r[to].next(t)
			if want := fmt.Sprint(seen[n.Peer]); n.Kind != "message" || n.Text != want {
				t.Fatalf("member %d got %+v from %d, want %s", to, n, n.Peer, want)
			}
			seen[n.Peer]++
		}
	}
	if err := g.m[0].Send(1, make([]byte, MaxMessage+1)); err == nil {
		t.Error("a message beyond the limit was accepted")
	}
}

func TestBroadcastAndBigMessages(t *testing.T) {
	g := listen(t, 4, link.NewKey())
	g.join(t)
	big := strings.Repeat("x", MaxMessage)
	for from := range 4 {
		if err := g.m[from].Broadcast([]byte(big)); err != nil {
			t.Fatal(err)
		}
		for to := range 4 {
			if to == from {
				continue
			}
			if n := g.r[to].next(t); n.Kind != "message" || n.Peer != from || n.Text != big {
				t.Errorf("member %d: %s from %d, %d bytes", to, n.Kind, n.Peer, len(n.Text))
			}
		}
	}
}

func TestStreams(t *testing.T) {
	g := listen(t, 3, link.NewKey())
	g.join(t)
	for from := range 3 {
		for to := range 3 {
			if from == to {
				continue
			}
			s, err := g.m[from].Open(context.Background(), to, []byte("meta"))
			if err != nil {
				t.Fatal(err)
			}
			body := strings.Repeat("abc", 100_000)
			_, _ = io.WriteString(s, body)
			_ = s.CloseWrite()
			b, err := io.ReadAll(s)
			if err != nil || string(b) != strings.ToUpper(body)+"meta" {
				t.Errorf("%d to %d: %d bytes, %v", from, to, len(b), err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := g.m[0].Open(context.Background(), 0, nil); err == nil {
		t.Error("a stream to oneself was opened")
	}
	// A stream ends with the mesh at its other end.
	s, err := g.m[1].Open(context.Background(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = g.m[2].Close()
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("read from a stream whose other end is gone")
	}
}

func TestDown(t *testing.T) {
	g := listen(t, 4, link.NewKey())
	g.join(t)
	// In order.
	_ = g.m[2].Send(1, []byte("last words"))
	_ = g.m[2].Close()
	if n := g.r[1].next(t); n.Text != "last words" {
		t.Errorf("got %+v before the goodbye", n)
	}
	for _, i := range []int{0, 1, 3} {
		if n := g.r[i].next(t); n.Kind != "down" || n.Peer != 2 || !errors.Is(n.Err, ErrLeft) {
			t.Errorf("member %d: %+v", i, n)
		}
	}
	// Without a word.
	g.m[3].mu.Lock()
	_ = g.m[3].peers[0].c.tc.NetConn().Close()
	g.m[3].mu.Unlock()
	for _, i := range []int{0, 1} {
		if n := g.r[i].next(t); n.Kind != "down" || n.Peer != 3 || !errors.Is(n.Err, ErrClosed) {
			t.Errorf("member %d: %+v", i, n)
		}
	}
	if err := g.m[0].Send(3, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("sending to a dead member: %v", err)
	}
	// The primary.
	_ = g.m[0].Close()
	if n := g.r[1].next(t); n.Kind != "down" || n.Peer != 0 || !errors.Is(n.Err, ErrLeft) {
		t.Errorf("member 1: %+v", n)
	}
	if err := g.m[1].Send(0, nil); !errors.Is(err, ErrLeft) {
		t.Errorf("sending to the gone primary: %v", err)
	}
}

func TestJoinNamesTheMissing(t *testing.T) {
	g := listen(t, 4, link.NewKey())
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	long, cancel2 := context.WithTimeout(context.Background(), patience)
	defer cancel2()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	wg.Go(func() { errs[0] = g.m[0].Join(ctx, g.p, g.r[0]) })
	wg.Go(func() { errs[2] = g.m[2].Join(long, g.p, g.r[2]) })
	wg.Wait()
	for _, i := range []int{0, 2} {
		if s := fmt.Sprint(errs[i]); !strings.Contains(s, "n1 (127.0.0.3), n3 (127.0.0.5) did not join") {
			t.Errorf("member %d: %s", i, s)
		}
	}
	if !errors.Is(errs[0], context.DeadlineExceeded) {
		t.Errorf("primary: %v", errs[0])
	}
	// A member without a primary.
	_ = g.m[0].Close()
	ctx3, cancel3 := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel3()
	if err := g.m[1].Join(ctx3, g.p, g.r[1]); err == nil || !strings.Contains(err.Error(), "the primary n0") {
		t.Errorf("without a primary: %v", err)
	}
}

func TestStrangers(t *testing.T) {
	g := listen(t, 3, link.NewKey())
	port := netip.AddrPortFrom(addr(0), g.m[0].Port()).String()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for range 2 * (maxPending + 6) { // half-open ones, more than are kept
		dial()
	}
	garbage := dial()
	_, _ = garbage.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100))
	g.join(t)
	_, wrong, err := link.KeyTLS(link.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(dial(), wrong)
	_, _ = c.Write([]byte(magic))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger with another key was answered")
	}
	// The right key and nonsense.
	for _, greeting := range []string{
		"\x16\x03\x01garbage-garbage",
		"GWM1\x01\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00", // no such member
		"GWM1\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", // ourselves
		"GWM1\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", // joined already
		"GWM1\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", // no such kind
	} {
		c := tls.Client(dial(), g.m[1].client)
		_, _ = io.WriteString(c, greeting)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 1)
		if n, err := c.Read(b); err == nil && n == 1 && b[0] == 0 {
			t.Errorf("greeting %q was accepted", greeting)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("greeting %q is kept waiting", greeting)
		}
	}
	if err := g.m[2].Send(1, []byte("undisturbed")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(news{Kind: "message", Peer: 2, Text: "undisturbed"}, g.r[1].next(t)); diff != "" {
		t.Error(diff)
	}
	for i, r := range g.r {
		select {
		case n := <-r.ch:
			t.Errorf("member %d was disturbed: %+v", i, n)
		default:
		}
	}
}

func TestSixtyFour(t *testing.T) {
	g := listen(t, 64, link.NewKey())
	start := time.Now()
	g.join(t)
	t.Logf("64 members joined in %v", time.Since(start))
	if err := g.m[63].Broadcast([]byte("all")); err != nil {
		t.Fatal(err)
	}
	for i := range 63 {
		if n := g.r[i].next(t); n.Peer != 63 || n.Text != "all" {
			t.Errorf("member %d: %+v", i, n)
		}
	}
	_ = g.m[31].Close()
	for i := range 64 {
		if i != 31 {
			if n := g.r[i].next(t); n.Kind != "down" || n.Peer != 31 {
				t.Errorf("member %d: %+v", i, n)
			}
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame(fData, 1, 2, []byte("hello")))
	f.Add(frame(fDown, 3, toAll, []byte{1}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, from, to, payload, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := frame(kind, from, to, payload); !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x reads as %x", b, again)
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	t := &testing.T{}
	g := listen(t, 2, link.NewKey())
	g.join(t)
	defer g.m[0].Close()
	defer g.m[1].Close()
	for b.Loop() {
		_ = g.m[0].Send(1, []byte("ping"))
		<-g.r[1].ch
		_ = g.m[1].Send(0, []byte("pong"))
		<-g.r[0].ch
	}
}
