package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"gangway/nodeagent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFrameRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	in := &wire.Frame{M: &wire.Frame_From{From: &wire.FromShim{Id: "a",
		M: &wire.FromShim_Output{Output: &wire.Output{Offset: 7, Data: []byte("hello"), Rank: -1}}}}}
	for range 2 {
		if err := WriteFrame(&buf, in); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		out, err := ReadFrame(&buf)
		if err != nil {
			t.Fatal(err)
		}
		o := out.GetFrom().GetOutput()
		if o.GetRank() != -1 || string(o.GetData()) != "hello" || o.GetOffset() != 7 {
			t.Fatalf("got %v", out)
		}
	}
	if _, err := ReadFrame(&buf); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF", err)
	}
}

func TestFrameErrors(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"torn head": {"\x00\x00", io.ErrUnexpectedEOF},
		"torn body": {"\x00\x00\x00\x05ab", io.ErrUnexpectedEOF},
		"too long":  {"\xff\xff\xff\xff", ErrFrameSize},
	} {
		if _, err := ReadFrame(strings.NewReader(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	var buf bytes.Buffer
	_ = WriteFrame(&buf, &wire.Frame{M: &wire.Frame_State{State: &wire.ShimState{Id: "x", Phase: wire.Phase_PHASE_READY}}})
	f.Add(buf.Bytes())
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := ReadFrame(bytes.NewReader(b))
		if (fr == nil) == (err == nil) {
			t.Fatalf("frame %v with error %v", fr, err)
		}
	})
}

func handshake(t *testing.T, server, client *tls.Config) (error, error) {
	t.Helper()
	// Sockets, not net.Pipe: when both sides write at once, an alert among it,
	// a pipe without buffer keeps both for ever.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	serr := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		} else {
			a.Close()
		}
		serr <- err
	}()
	c := tls.Client(b, client)
	err = c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	b.Close()
	return <-serr, err
}

func TestKeyTLS(t *testing.T) {
	k1, k2 := NewKey(), NewKey()
	s1, c1, err := KeyTLS(k1)
	if err != nil {
		t.Fatal(err)
	}
	_, c2, err := KeyTLS(k2)
	if err != nil {
		t.Fatal(err)
	}
	if se, ce := handshake(t, s1, c1); se != nil || ce != nil {
		t.Errorf("same key: server %v, client %v", se, ce)
	}
	if se, ce := handshake(t, s1, c2); se == nil || ce == nil {
		t.Errorf("other key: server %v, client %v; want both refused", se, ce)
	}
	anon := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if se, _ := handshake(t, s1, anon); se == nil {
		t.Error("a client without a certificate was accepted")
	}
	if _, _, err := KeyTLS(k1[:5]); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestServeOverStream(t *testing.T) {
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Serve(context.Background(), a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, r.Body)
		}))
	}()
	c, closeClient := Client(b)
	for range 3 {
		resp, err := c.Post("http://launcher/echo", "text/plain", strings.NewReader("ping"))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || string(got) != "ping" {
			t.Fatalf("%s %q", resp.Proto, got)
		}
	}
	closeClient()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get("http://launcher/again"); err == nil {
		t.Fatal("a request after the end was answered")
	}
}

func TestServeEndsWithContext(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, a, http.NotFoundHandler()) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
