package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// get returns what the launcher at address answers to GET /.
func get(t testing.TB, address string, c *tls.Config) (string, error) {
	t.Helper()
	tr := transport(c)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("https://" + address + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func enrollWith(t testing.TB, c *clock, dir, address string, token Secret, node string) (*Identity, error) {
	t.Helper()
	return Enroll(t.Context(), dir, address, token, node, IdentityOptions{Now: c.now})
}

func TestJoinAndTalk(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	address, dir := serve(t, ca), t.TempDir()+"/agent"
	token := joinTokenOf(t, ca, JoinSpec{})
	id := must2(enrollWith(t, c, dir, address, token, "n1"))(t)
	if got := must2(get(t, address, id.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("the launcher sees %q", got)
	}
	for _, e := range must2(os.ReadDir(dir))(t) {
		if m := mode(t, filepath.Join(dir, e.Name())); m != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), m)
		}
		if e.Name() == joiningName {
			t.Error("the key of the joining is left over")
		}
	}
	// Restart, with and without the token; also when the launcher has moved.
	loaded := must2(LoadIdentity(dir, IdentityOptions{Now: c.now}))(t)
	if got := must2(get(t, address, loaded.ClientTLS()))(t); got != "node=n1" || loaded.URL() != "https://"+address {
		t.Errorf("after a restart the launcher at %s sees %q", loaded.URL(), got)
	}
	again := must2(enrollWith(t, c, dir, "https://192.0.2.1:9/", token, "n1"))(t)
	if again.URL() != "https://192.0.2.1:9" || !again.Expires().Equal(id.Expires()) {
		t.Errorf("joined again: %s until %v", again.URL(), again.Expires())
	}
	// A client of the API that knows the authority and has no certificate.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate())
	if got := must2(get(t, address, &tls.Config{RootCAs: roots, Time: c.now}))(t); got != "node=" {
		t.Errorf("without a certificate the launcher sees %q", got)
	}
	// The launcher restarts: the same authority, another server certificate.
	address = serve(t, openCA(t, filepath.Dir(ca.members.path), c))
	if got := must2(get(t, address, id.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("after its restart the launcher sees %q", got)
	}
}

func TestServerNames(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	cert := must2(ca.serverCertificate())(t)
	for _, n := range []string{"launcher.example", "192.0.2.7", "localhost", "127.0.0.1", "::1", launcherName, hostname()} {
		if err := cert.Leaf.VerifyHostname(n); err != nil {
			t.Error(err)
		}
	}
	if got := serverNames([]string{":8443", "0.0.0.0:1", "https://x.example:3/"}); !slices.Contains(got, "x.example") || slices.Contains(got, "0.0.0.0") || slices.Contains(got, "") {
		t.Errorf("names are %q", got)
	}
	c.add(59 * 24 * time.Hour)
	if must2(ca.serverCertificate())(t) != cert {
		t.Error("renewed before two thirds of its life")
	}
	c.add(2 * 24 * time.Hour)
	if next := must2(ca.serverCertificate())(t); next == cert || next.Leaf.NotAfter.Before(c.now().Add(80*24*time.Hour)) {
		t.Error("not renewed after two thirds of its life")
	}
}

func TestRefusedTokens(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	address := serve(t, ca)
	try := func(token Secret, node string) error {
		_, err := enrollWith(t, c, t.TempDir()+"/agent", address, token, node)
		return err
	}
	once := joinTokenOf(t, ca, JoinSpec{})
	if err := try(once, "n1"); err != nil {
		t.Fatal(err)
	}
	wantError(t, try(once, "n2"), true, "is used up: it was for 1, and the last was n1")
	wantError(t, try(once, "n1"), true, "is used up") // a replay: the key is another
	wantError(t, try(joinTokenOf(t, ca, JoinSpec{}), "n1"), true, "a node named n1 has joined already")

	bound := joinTokenOf(t, ca, JoinSpec{Node: "n1"})
	wantError(t, try(bound, "n3"), true, "is for node n1, not for n3")
	if err := try(bound, "n1"); err != nil {
		t.Error(err)
	}
	three := joinTokenOf(t, ca, JoinSpec{Uses: 3, Life: time.Hour})
	for i := range 2 {
		if err := try(three, fmt.Sprintf("m%d", i)); err != nil {
			t.Error(err)
		}
	}
	c.add(time.Hour)
	wantError(t, try(three, "m2"), true, "expired at")

	info, gone, err := ca.AddJoinToken(JoinSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.RevokeJoinToken(info.ID); err != nil {
		t.Fatal(err)
	}
	wantError(t, try(gone, "n4"), true, "unknown join token")
	good := must2(parseJoin(joinTokenOf(t, ca, JoinSpec{}).Reveal()))(t)
	good.secret[0]++
	wantError(t, try(NewSecret(good.text()), "n4"), true, "unknown join token")
	wantError(t, try(NewSecret(good.text()[:40]), "n4"), true, "damaged")
	wantError(t, try(NewSecret("gangway_x"), "n4"), true, "not a join token")
	wantError(t, try(three, "n 4"), false, "is not a node's name")

	// The token of another launcher is not even sent here.
	other := openCA(t, t.TempDir()+"/data", c)
	wantError(t, try(joinTokenOf(t, other, JoinSpec{}), "n4"), true, "not the launcher that made the join token")
	for _, bad := range []string{"http://x:1", "https://x/y", "https://u:p@x", ""} {
		if _, err := enrollWith(t, c, t.TempDir()+"/agent", bad, three, "n4"); err == nil {
			t.Errorf("joined at %q", bad)
		}
	}
	for text, s := range map[string]JoinSpec{"uses": {Uses: -1}, "life": {Life: 31 * 24 * time.Hour}, "only": {Uses: 2, Node: "n1"}, "not a node's name": {Node: "-"}} {
		_, _, err := ca.AddJoinToken(s)
		wantError(t, err, false, text)
	}
}

// Of many that come with the same token at once, as many get in as it is for.
func TestTokenRace(t *testing.T) {
	c := newClock()
	dir := t.TempDir() + "/data"
	ca := openCA(t, dir, c)
	token := joinTokenOf(t, ca, JoinSpec{Uses: 2})
	var mu sync.Mutex
	in := 0
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Error(err)
				return
			}
			csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = openCA(t, dir, c).Join(JoinRequest{Token: token, Node: fmt.Sprintf("n%d", i), CSR: csr})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in++
			} else if !errors.Is(err, ErrDenied) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in != 2 {
		t.Errorf("%d nodes joined with a token for 2", in)
	}
}

// The node dies, or the connection, after the launcher signed and before the answer
// is kept: asking again with the same command works, once the token is used too.
func TestAnswerLost(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	lost := serveHandler(t, ca, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var w discard
		ca.JoinHandler().ServeHTTP(&w, r)
		panic(http.ErrAbortHandler)
	}))
	dir, token := t.TempDir()+"/agent", joinTokenOf(t, ca, JoinSpec{})
	if _, err := enrollWith(t, c, dir, lost, token, "n1"); err == nil {
		t.Fatal("the answer was not lost")
	}
	if _, err := LoadIdentity(dir, IdentityOptions{}); !errors.Is(err, ErrNotJoined) {
		t.Errorf("LoadIdentity: %v", err)
	}
	address := serve(t, ca)
	id := must2(enrollWith(t, c, dir, address, token, "n1"))(t)
	if got := must2(get(t, address, id.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("the launcher sees %q", got)
	}
	if used := must2(ca.JoinTokens())(t)[0].Used; len(used) != 1 {
		t.Errorf("used by %v", used)
	}
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header {
	if d.h == nil {
		d.h = http.Header{}
	}
	return d.h
}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func TestRevoked(t *testing.T) {
	c := newClock()
	dir := t.TempDir() + "/data"
	ca := openCA(t, dir, c)
	address, agent := serve(t, ca), t.TempDir()+"/agent"
	token := joinTokenOf(t, ca, JoinSpec{Life: 48 * time.Hour})
	n1 := must2(enrollWith(t, c, agent, address, token, "n1"))(t)
	n2 := join(t, ca, address, "n2", c)
	// A connection that is open when the node is revoked, by another process.
	tr := transport(n1.ClientTLS())
	defer tr.CloseIdleConnections()
	open := &http.Client{Transport: tr}
	read := func() (int, string) {
		resp, err := open.Get("https://" + address + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := must2(io.ReadAll(resp.Body))(t)
		return resp.StatusCode, string(b)
	}
	if code, body := read(); code != 200 || body != "node=n1" {
		t.Fatalf("%d %s", code, body)
	}
	if err := openCA(t, dir, c).RevokeNode("n1"); err != nil {
		t.Fatal(err)
	}
	if code, body := read(); code != 403 || !strings.Contains(body, "was revoked at") {
		t.Errorf("on the open connection: %d %s", code, body)
	}
	if err := n1.Renew(t.Context(), tr); err == nil || !errors.Is(err, ErrDenied) {
		t.Errorf("renewed a revoked certificate: %v", err)
	}
	if _, err := get(t, address, n1.ClientTLS()); err == nil {
		t.Error("a revoked node got in")
	}
	if got := must2(get(t, address, n2.ClientTLS()))(t); got != "node=n2" {
		t.Errorf("the other node: %q", got)
	}
	// Its old token and key don't bring it back, a new token does.
	if err := os.Rename(filepath.Join(agent, identityName), filepath.Join(agent, joiningName)); err != nil {
		t.Fatal(err)
	}
	data := must2(os.ReadFile(filepath.Join(agent, joiningName)))(t)
	f, _, _, _, err := decodeIdentity(data)
	if err != nil {
		t.Fatal(err)
	}
	f.Cert, f.CA = nil, nil
	if err := f.save(agent, joiningName); err != nil {
		t.Fatal(err)
	}
	_, err = enrollWith(t, c, agent, address, token, "n1")
	wantError(t, err, true, "the key of node n1 was revoked")
	back := must2(enrollWith(t, c, agent, address, joinTokenOf(t, ca, JoinSpec{}), "n1"))(t)
	if got := must2(get(t, address, back.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("joined again: %q", got)
	}
	list := must2(ca.Members())(t)
	if len(list) != 3 || list[0].Revoked.IsZero() || !list[1].Revoked.IsZero() {
		t.Errorf("Members = %+v", list)
	}
	if err := ca.RevokeSerial(list[1].Serial); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, address, n2.ClientTLS()); err == nil {
		t.Error("a revoked certificate was accepted")
	}
	if err := ca.RevokeNode("n2"); err != nil { // the token that was for it
		t.Error(err)
	}
	wantError(t, ca.RevokeNode("n2"), false, "has no certificate that is valid")
	// Without the list nobody is let in, rather than everybody.
	if err := os.Remove(filepath.Join(dir, membersName)); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, address, back.ClientTLS()); err != nil || strings.Contains(got, "node=") {
		t.Errorf("let a node in without knowing who is revoked: %q, %v", got, err)
	}
	_, err = OpenCA(dir, CAOptions{})
	wantError(t, err, false, "members.json is missing")
}

func TestOtherAuthority(t *testing.T) {
	c := newClock()
	ca, other := openCA(t, t.TempDir()+"/data", c), openCA(t, t.TempDir()+"/data", c)
	address, elsewhere := serve(t, ca), serve(t, other)
	id := join(t, ca, address, "n1", c)
	_, err := get(t, elsewhere, id.ClientTLS())
	wantError(t, err, true, "not one of the authority")
	// A client that accepts any server is refused all the same.
	conf := id.ClientTLS()
	conf.VerifyConnection = nil
	if got, err := get(t, elsewhere, conf); err == nil {
		t.Errorf("another launcher took the node for %q", got)
	}
	// A node's certificate is none for a server.
	l := must2(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*id.current.Load()}}))(t)
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	_, err = get(t, l.Addr().String(), id.ClientTLS())
	wantError(t, err, true, "the launcher's certificate")
}

func TestClocks(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	address := serve(t, ca)
	token := joinTokenOf(t, ca, JoinSpec{Uses: 2})
	dir := t.TempDir() + "/agent"
	node := &clock{t: c.now().Add(-50 * time.Minute)}
	id := must2(enrollWith(t, node, dir, address, token, "n1"))(t)
	if got := must2(get(t, address, id.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("50 minutes behind: %q", got)
	}
	node = &clock{t: c.now().Add(-3 * time.Hour)}
	behind := t.TempDir() + "/agent"
	_, err := enrollWith(t, node, behind, address, token, "n2")
	wantError(t, err, false, "it is "+clockText(node.now())+" here: one of the two machines has a wrong clock")
	// The launcher runs for a day: now its certificate is old enough, not the node's.
	c.add(24 * time.Hour)
	token = joinTokenOf(t, ca, JoinSpec{})
	node = &clock{t: c.now().Add(-3 * time.Hour)}
	_, err = enrollWith(t, node, behind, address, token, "n2")
	wantError(t, err, false, "this node's clock is 3h0m0s behind the launcher's: set it")
	node.add(3 * time.Hour)
	must2(enrollWith(t, node, behind, address, token, "n2"))(t) // the token is still good

	c.add(40 * 24 * time.Hour)
	_, err = LoadIdentity(dir, IdentityOptions{Now: c.now})
	wantError(t, err, false, "expired at")
	if _, err := get(t, address, id.ClientTLS()); err == nil {
		t.Error("an expired certificate was accepted")
	}
	leaf := id.current.Load().Leaf
	_, err = ca.Node(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	wantError(t, err, true, "expired at")
	c.add(-80 * 24 * time.Hour)
	_, err = OpenCA(filepath.Dir(ca.members.path), CAOptions{Now: c.now})
	wantError(t, err, false, "set this machine's clock")
}

// Keep renews when two thirds of the life are over; connections that are open stay
// open, new ones show the new certificate.
func TestRotation(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	address := serve(t, ca)
	id := join(t, ca, address, "n1", c)
	first := id.current.Load().Leaf
	tr := transport(id.ClientTLS())
	defer tr.CloseIdleConnections()
	var reused []bool
	read := func() string {
		req := must2(http.NewRequestWithContext(withReuse(t.Context(), &reused), "GET", "https://"+address+"/", nil))(t)
		resp := must2(tr.RoundTrip(req))(t)
		defer resp.Body.Close()
		return string(must2(io.ReadAll(resp.Body))(t))
	}
	read()
	c.add(21 * 24 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	renewed := make(chan time.Time, 1)
	id.log = onLog(func(string) { renewed <- id.Expires() })
	go func() { defer close(kept); id.Keep(ctx) }()
	if end := <-renewed; !end.After(first.NotAfter) {
		t.Errorf("renewed until %v, before until %v", end, first.NotAfter)
	}
	cancel()
	<-kept
	if got := read(); got != "node=n1" || !slices.Equal(reused, []bool{false, true}) {
		t.Errorf("on the open connection: %q, reused: %v", got, reused)
	}
	loaded := must2(LoadIdentity(id.dir, IdentityOptions{Now: c.now}))(t)
	if loaded.current.Load().Leaf.SerialNumber.Cmp(first.SerialNumber) == 0 || loaded.current.Load().Leaf.PublicKey.(*ecdsa.PublicKey).Equal(first.PublicKey) {
		t.Error("the new certificate was not kept, or has the old key")
	}
	c.add(10 * 24 * time.Hour) // the first has expired
	if got := must2(get(t, address, id.ClientTLS()))(t); got != "node=n1" {
		t.Errorf("after the first expired: %q", got)
	}
	if _, err := ca.Renew(nil, JoinRequest{Node: "n1"}); !errors.Is(err, ErrDenied) {
		t.Errorf("renewed without a certificate: %v", err)
	}
	cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{id.current.Load().Leaf}}
	_, err := ca.Renew(cs, JoinRequest{Node: "n2"})
	wantError(t, err, true, "can't renew the certificate of \"n2\"")
	for range maxDaily + 1 {
		err = id.Renew(t.Context(), nil)
	}
	wantError(t, err, true, "within a day")
}

func TestJoinHandlerBadRequests(t *testing.T) {
	c := newClock()
	ca := openCA(t, t.TempDir()+"/data", c)
	address, id := serve(t, ca), (*Identity)(nil)
	id = join(t, ca, address, "n1", c)
	token := joinTokenOf(t, ca, JoinSpec{}).Reveal()
	key := must2(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	p384 := must2(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(t)
	tr := transport(id.ClientTLS())
	defer tr.CloseIdleConnections()
	for _, c := range []struct {
		path, body string
		code       int
	}{
		{JoinPath, "", 400}, {JoinPath, "[]", 400}, {JoinPath, `{"x":1}`, 400}, {JoinPath, strings.Repeat(" ", maxJoin+1), 400},
		{JoinPath, `{"token":"x","node":"n2"}`, 403}, {JoinPath, `{"token":"` + token + `","node":"../x"}`, 400},
		{JoinPath, `{"token":"` + token + `","node":"n2","csr":"AAAA"}`, 400},
		{JoinPath, fmt.Sprintf(`{"token":%q,"node":"n2","csr":"%s"}`, token, base64Text(p384)), 400},
		{RenewPath, `{"node":"n2"}`, 403}, {RenewPath, `{"node":"n1"}`, 400},
	} {
		req := must2(http.NewRequestWithContext(t.Context(), "POST", "https://"+address+c.path, strings.NewReader(c.body)))(t)
		resp := must2(tr.RoundTrip(req))(t)
		b := must2(io.ReadAll(resp.Body))(t)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(b), `"error":`) || strings.Contains(string(b), token) {
			t.Errorf("%s %.60q: %d %s, want %d", c.path, c.body, resp.StatusCode, b, c.code)
		}
	}
	if used := must2(ca.JoinTokens())(t); len(used[len(used)-1].Used) != 0 {
		t.Error("a bad request used the token up")
	}
}
