package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSharedSession: who holds the same key agrees by the session, and by the
// certificates where one side does not know of it.
func TestSharedSession(t *testing.T) {
	key := NewKey()
	for name, c := range map[string]struct {
		plainServer, plainClient, resumed bool
	}{
		"both know of it":     {resumed: true},
		"the server does not": {plainServer: true},
		"the client does not": {plainClient: true},
	} {
		t.Run(name, func(t *testing.T) {
			server, client, err := KeyTLS(key)
			if err != nil {
				t.Fatal(err)
			}
			if c.plainServer {
				server.SessionTicketsDisabled, server.UnwrapSession, server.WrapSession = true, nil, nil
			}
			if c.plainClient {
				client.ClientSessionCache = nil
			}
			var did []bool
			seen := make(chan bool, 2)
			note := func(cs tls.ConnectionState) error { seen <- cs.DidResume; return nil }
			server.VerifyConnection, client.VerifyConnection = note, note
			for range 2 { // the second must not depend on what the first left
				if se, ce := handshake(t, server, client); se != nil || ce != nil {
					t.Fatalf("server %v, client %v", se, ce)
				}
				did = append(did, <-seen, <-seen)
			}
			if diff := cmp.Diff([]bool{c.resumed, c.resumed, c.resumed, c.resumed}, did); diff != "" {
				t.Error("by the session, on each side and each time:", diff)
			}
		})
	}
}

// TestSharedSessionWrongSecret: a peer that has learned the session's name, which
// is seen on the wire, has no use of it.
func TestSharedSessionWrongSecret(t *testing.T) {
	server, client, err := KeyTLS(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	cs, ok := client.ClientSessionCache.Get("")
	if !ok {
		t.Fatal("no session is offered")
	}
	ticket, _, err := cs.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := KeyTLS(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	theirs, _ := stranger.ClientSessionCache.Get("")
	_, own, err := theirs.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := tls.NewResumptionState(ticket, own)
	if err != nil {
		t.Fatal(err)
	}
	stranger.ClientSessionCache = oneSession{forged}
	if se, ce := handshake(t, server, stranger); se == nil || ce == nil {
		t.Errorf("server %v, client %v; want both refused", se, ce)
	}
}

func TestCertificate(t *testing.T) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := certificate(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !p.Equal(&priv.PublicKey) {
		t.Errorf("public key %v, want %v", c.PublicKey, priv.PublicKey)
	}
	if !c.NotBefore.Equal(time.Unix(0, 0)) || !c.NotAfter.Equal(notAfter) || c.Subject.CommonName != "gangway" || !cmp.Equal(c.DNSNames, []string{"gangway"}) {
		t.Errorf("valid %v to %v, of %v, for %v", c.NotBefore, c.NotAfter, c.Subject, c.DNSNames)
	}
}
