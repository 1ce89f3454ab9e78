package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// connect opens a connection as id and returns the error of the first read, with
// which a refusal comes.
func connect(t *testing.T, address string, id *Identity) error {
	t.Helper()
	conf := id.ClientTLS()
	conf.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", address, conf)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	if err == nil {
		_, err = io.ReadAll(c)
	}
	return err
}

func leafOf(id *Identity) []*x509.Certificate {
	return []*x509.Certificate{id.current.Load().Leaf}
}

// TestRefused: that its certificate is refused, the node learns for certain; that
// the launcher is ill is no refusal.
func TestRefused(t *testing.T) {
	c := newClock()
	dir := t.TempDir() + "/data"
	ca := openCA(t, dir, c)
	address := serve(t, ca)
	id := join(t, ca, address, "n1", c)
	if err := connect(t, address, id); id.Refused(err) != nil || err != nil {
		t.Errorf("one that is let in: %v", err)
	}
	members := filepath.Join(dir, membersName)
	if err := os.Rename(members, members+".away"); err != nil {
		t.Fatal(err)
	}
	if err := connect(t, address, id); id.Refused(err) != nil {
		t.Errorf("by a launcher that is ill: %v", err)
	}
	if err := os.Rename(members+".away", members); err != nil {
		t.Fatal(err)
	}
	if err := ca.RevokeNode("n1"); err != nil {
		t.Fatal(err)
	}
	err := connect(t, address, id)
	wantError(t, id.Refused(err), true, "refuses the certificate of node n1")
	if Temporary(err) || Temporary(id.Refused(err)) {
		t.Errorf("%v may pass", err)
	}
	for _, err := range []error{nil, io.EOF, errors.New("tls: bad certificate"), &net.OpError{Op: "read", Err: errors.New("reset")}} {
		if got := id.Refused(err); got != nil {
			t.Errorf("%v is taken for a refusal: %v", err, got)
		}
	}
}

// TestStill: a session outlives its certificate if the node has a newer one, and
// nobody's revocation.
func TestStill(t *testing.T) {
	c := newClock()
	ca, err := OpenCA(t.TempDir()+"/data", CAOptions{Now: c.now, NodeLife: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, ca)
	id := join(t, ca, address, "n1", c)
	if left := id.Expires().Sub(c.now()); left != time.Hour {
		t.Errorf("valid for %v, want 1h", left)
	}
	first := &tls.ConnectionState{PeerCertificates: leafOf(id)}
	if err := ca.Still(first); err != nil {
		t.Error(err)
	}
	c.add(50 * time.Minute)
	if err := id.Renew(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	second := &tls.ConnectionState{PeerCertificates: leafOf(id)}
	c.add(20 * time.Minute)
	if _, err := ca.Node(first); !errors.Is(err, ErrDenied) {
		t.Errorf("a new connection with the old certificate: %v", err)
	}
	for _, cs := range []*tls.ConnectionState{first, second} {
		if err := ca.Still(cs); err != nil {
			t.Errorf("a session: %v", err)
		}
	}
	c.add(time.Hour)
	wantError(t, ca.Still(first), true, "has no newer one")
	wantError(t, ca.Still(nil), true, "no certificate")

	id = join(t, ca, address, "n2", c)
	cs := &tls.ConnectionState{PeerCertificates: leafOf(id)}
	if err := id.Renew(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := ca.RevokeNode("n2"); err != nil {
		t.Fatal(err)
	}
	wantError(t, ca.Still(cs), true, "was revoked")
	for _, life := range []time.Duration{time.Millisecond, 31 * 24 * time.Hour, -1} {
		if _, err := OpenCA(t.TempDir()+"/data", CAOptions{NodeLife: life}); err == nil {
			t.Errorf("a life of %v is possible", life)
		}
	}
}

// TestTemporary: only what may pass by itself is tried again.
func TestTemporary(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	token := joinTokenOf(t, ca, JoinSpec{})
	try := func(address string) error {
		_, err := Enroll(t.Context(), t.TempDir()+"/agent", address, token, "n1", IdentityOptions{Now: c.now})
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangsUp.Close()
	go func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	answers := func(status int) string {
		return serveHandler(t, ca, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":"so it is"}`)
		}))
	}
	for what, x := range map[string]struct {
		address string
		want    bool
	}{
		"nobody listens":             {closed, true},
		"someone hangs up":           {hangsUp.Addr().String(), true},
		"a launcher that is ill":     {answers(500), true},
		"a launcher that is busy":    {answers(503), true},
		"no TLS there":               {strings.TrimPrefix(plain.URL, "http://"), false},
		"another server":             {strings.TrimPrefix(other.URL, "https://"), false},
		"another launcher":           {serve(t, openCA(t, t.TempDir()+"/data", c)), false},
		"a refusal":                  {answers(403), false},
		"a request that is not good": {answers(400), false},
		"no address":                 {"https://x/y", false},
	} {
		err := try(x.address)
		if err == nil || Temporary(err) != x.want {
			t.Errorf("%s: %v may pass: %v, want %v", what, err, !x.want, x.want)
		}
	}
	if Temporary(nil) || !Temporary(&net.DNSError{Err: "no such host", Name: "launcher"}) {
		t.Error("nothing may pass, or a name that nobody knows yet may not")
	}
}
