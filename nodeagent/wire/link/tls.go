package link

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// KeySize is the length of a shared key in bytes.
const KeySize = 32

// ErrStranger reports a TLS peer that does not hold the shared key.
var ErrStranger = errors.New("the other side does not hold the same key")

// NewKey draws a shared key.
func NewKey() []byte {
	k := make([]byte, KeySize)
	// Read of crypto/rand never fails: it ends the process instead.
	_, _ = rand.Read(k)
	return k
}

// KeyTLS derives TLS 1.3 configurations for both sides of a connection from a
// shared key of KeySize bytes. Both sides present a certificate of one ed25519
// key pair, derived from the shared key with HKDF-SHA256, and accept only that
// public key: names and validity times play no part, so hosts with wrong
// clocks can talk. Session keys are ephemeral as in any TLS 1.3 connection.
func KeyTLS(key []byte) (server, client *tls.Config, err error) {
	if len(key) != KeySize {
		return nil, nil, fmt.Errorf("key has %d bytes, want %d", len(key), KeySize)
	}
	seed, err := hkdf.Key(sha256.New, key, nil, "gangway link 1", ed25519.SeedSize)
	if err != nil {
		return nil, nil, err
	}
	priv := ed25519.NewKeyFromSeed(seed)
	pub := priv.Public().(ed25519.PublicKey)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "gangway"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<33, 0),
		DNSNames:     []string{"gangway"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, priv)
	if err != nil {
		return nil, nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
	verify := func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) != 1 {
			return ErrStranger
		}
		c, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return ErrStranger
		}
		// TLS itself proves that the peer holds the private half.
		if p, ok := c.PublicKey.(ed25519.PublicKey); !ok || !p.Equal(pub) {
			return ErrStranger
		}
		return nil
	}
	server = &tls.Config{
		MinVersion:            tls.VersionTLS13,
		Certificates:          []tls.Certificate{cert},
		ClientAuth:            tls.RequireAnyClientCert,
		VerifyPeerCertificate: verify,
		// Resumption would skip the verification and saves nothing on
		// connections that live as long as a job.
		SessionTicketsDisabled: true,
	}
	client = &tls.Config{
		MinVersion:            tls.VersionTLS13,
		Certificates:          []tls.Certificate{cert},
		ServerName:            "gangway",
		InsecureSkipVerify:    true, // replaced by verify: the key is pinned
		VerifyPeerCertificate: verify,
	}
	return server, client, nil
}
