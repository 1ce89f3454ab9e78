package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Trust is how a client of the API knows the launcher: by its authority's
// certificate, or by that certificate's fingerprint. One of them is enough.
type Trust struct {
	CA          []byte // PEM, as [CA.Certificate] returns it
	Fingerprint string // SHA-256 of the certificate in DER, as hexadecimal digits; colons between them are allowed
}

// ClientTLS is for connections of a client without a certificate to a launcher
// that t knows, at whatever address.
func (t Trust) ClientTLS() (*tls.Config, error) {
	var want [sha256.Size]byte
	switch {
	case len(t.CA) > 0:
		block, _ := pem.Decode(t.CA)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("the launcher's authority: this is no certificate in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the launcher's authority: %w", err)
		}
		return launcherTLS(time.Now, func([]*x509.Certificate) (*x509.Certificate, error) { return cert, nil }), nil
	case t.Fingerprint == "":
		return nil, errors.New("there is nothing to know the launcher by: give its authority's certificate or that certificate's fingerprint")
	}
	b, err := hex.DecodeString(strings.ReplaceAll(t.Fingerprint, ":", ""))
	if err != nil || len(b) != len(want) {
		return nil, fmt.Errorf("the launcher's fingerprint %q is not %d hexadecimal digits", t.Fingerprint, 2*len(want))
	}
	copy(want[:], b)
	return launcherTLS(time.Now, func(chain []*x509.Certificate) (*x509.Certificate, error) {
		for _, c := range chain {
			if c.IsCA && fingerprint(c) == want {
				return c, nil
			}
		}
		return nil, errors.New("the launcher is not the one with this fingerprint")
	}), nil
}

// Fingerprint returns what [Trust.Fingerprint] takes for this authority.
func (ca *CA) Fingerprint() string {
	f := fingerprint(ca.cert)
	return hex.EncodeToString(f[:])
}
