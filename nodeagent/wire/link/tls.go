package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
// shared key of KeySize bytes. Both sides present a certificate of one P-256
// key pair, derived from the shared key with HKDF-SHA256, and accept only that
// public key: names and validity times play no part, so hosts with wrong
// clocks can talk. Sides that hold the same key don't come to that, see
// sharedSession. Session keys are ephemeral as in any TLS 1.3 connection.
//
// P-256 because every shim pays for its first use: Go computes ed25519's tables
// at run time (2 ms), P-256's are part of the program. The sessions' keys are
// agreed on with the same curve, without ML-KEM (docs/decisions/047-launch-cost.md).
func KeyTLS(key []byte) (server, client *tls.Config, err error) {
	if len(key) != KeySize {
		return nil, nil, fmt.Errorf("key has %d bytes, want %d", len(key), KeySize)
	}
	priv, err := keyPair(key)
	if err != nil {
		return nil, nil, err
	}
	pub := &priv.PublicKey
	der, err := certificate(pub)
	if err != nil {
		return nil, nil, err
	}
	session, err := newSharedSession(key, der)
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
		if p, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !p.Equal(pub) {
			return ErrStranger
		}
		return nil
	}
	curves := []tls.CurveID{tls.CurveP256}
	server = &tls.Config{
		MinVersion:            tls.VersionTLS13,
		CurvePreferences:      curves,
		Certificates:          []tls.Certificate{cert},
		ClientAuth:            tls.RequireAnyClientCert,
		VerifyPeerCertificate: verify,
	}
	client = &tls.Config{
		MinVersion:            tls.VersionTLS13,
		CurvePreferences:      curves,
		Certificates:          []tls.Certificate{cert},
		ServerName:            "gangway",
		InsecureSkipVerify:    true, // replaced by verify: the key is pinned
		VerifyPeerCertificate: verify,
	}
	session.accept(server)
	session.offer(client)
	return server, client, nil
}

// keyPair derives the private key. A draw of 32 bytes is outside of the curve's
// order once in 2^32 times; then the next draw counts.
func keyPair(key []byte) (*ecdsa.PrivateKey, error) {
	for i := 0; ; i++ {
		d, err := hkdf.Key(sha256.New, key, nil, fmt.Sprintf("gangway link 2.%d", i), 32)
		if err != nil {
			return nil, err
		}
		if priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d); err == nil || i == 9 {
			return priv, err
		}
	}
}
