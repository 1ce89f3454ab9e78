package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Lives of certificates. Each starts certSkew before it is made, for clocks that
// are behind, and is renewed after two thirds.
const (
	caLife     = 20 * 365 * 24 * time.Hour
	serverLife = 90 * 24 * time.Hour
	nodeLife   = 30 * 24 * time.Hour
	certSkew   = time.Hour
)

const (
	caName = "ca.pem"
	// launcherName is in every server certificate. Agents ask for it, whatever
	// address they dial: forwarded ports and addresses of a second network are
	// the launcher too, and this CA certifies no other server.
	launcherName = "gangway-launcher"
)

// CA is the launcher's certificate authority: it certifies the launcher's listener
// and the nodes that joined. Its methods may be called at the same time; other
// processes may open the same CA, to make join tokens or to revoke.
type CA struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	clock   func() time.Time
	log     *slog.Logger
	members *file[members]
	life    time.Duration // of nodes' certificates

	mu     sync.Mutex
	names  []string
	server *tls.Certificate
}

// CAOptions has what a CA takes from outside; zero fields have defaults.
type CAOptions struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // of nodes that joined or were refused; default none
	// Names are the host names and addresses by which clients know the launcher,
	// with or without port. This machine's name and the loopback addresses are
	// added, and its interfaces' addresses if there is an unspecified one.
	Names []string
	// NodeLife is how long nodes' certificates are valid, from 1 s to 30 days;
	// default 30 days.
	NodeLife time.Duration
}

// OpenCA opens the authority in the data directory dir, and makes it if there is
// none.
func OpenCA(dir string, o CAOptions) (*CA, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.NodeLife == 0 {
		o.NodeLife = nodeLife
	}
	if o.NodeLife < time.Second || o.NodeLife > nodeLife {
		return nil, fmt.Errorf("a life of %v for nodes' certificates: from 1s to %v is possible", o.NodeLife, nodeLife)
	}
	if err := openDir(dir); err != nil {
		return nil, fmt.Errorf("opening the certificate authority: %w", err)
	}
	ca := &CA{clock: o.Now, log: o.Log, life: o.NodeLife, names: serverNames(o.Names), members: &file[members]{
		path: filepath.Join(dir, membersName), decode: decodeMembers, encode: encodeMembers, required: true,
	}}
	if err := ca.load(dir); err != nil {
		return nil, fmt.Errorf("opening the certificate authority: %w", err)
	}
	if now := ca.clock(); now.After(ca.cert.NotAfter) || now.Before(ca.cert.NotBefore) {
		return nil, fmt.Errorf("the certificate authority in %s is valid from %s to %s, and it is %s here: set this machine's clock",
			dir, clockText(ca.cert.NotBefore), clockText(ca.cert.NotAfter), clockText(now))
	}
	if _, err := ca.members.get(); err != nil {
		return nil, fmt.Errorf("opening the certificate authority: %w", err)
	}
	return ca, nil
}

// load reads the CA, or makes it.
func (ca *CA) load(dir string) error {
	path := filepath.Join(dir, caName)
	release, err := lockDir(dir) // of two processes, one makes it
	if err != nil {
		return err
	}
	defer release()
	data, _, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		// The list of the revoked comes first: a CA without one is not used.
		if data, err = encodeMembers(&members{}); err == nil {
			if _, serr := os.Stat(ca.members.path); errors.Is(serr, fs.ErrNotExist) {
				err = writePrivate(ca.members.path, data)
			}
		}
		if err == nil {
			data, err = newCA(ca.clock())
		}
		if err == nil {
			err = writePrivate(path, data)
		}
	}
	if err != nil {
		return err
	}
	ca.cert, ca.key, err = decodePair(data)
	if err == nil && !ca.cert.IsCA {
		err = errors.New("its certificate is not an authority's")
	}
	if err != nil {
		return fmt.Errorf("%s can't be used: %w; restore it from a backup", path, err)
	}
	return nil
}

// newCA makes a key and a certificate that it signs.
func newCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "gangway of " + hostname()},
		NotBefore:             now.Add(-certSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return encodePair(der, key)
}

// encodePair writes a certificate and its key as PEM.
func encodePair(cert []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})...), nil
}

// decodePair reads what encodePair writes.
func decodePair(data []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	first, rest := pem.Decode(data)
	if first == nil || first.Type != "CERTIFICATE" {
		return nil, nil, errors.New("it does not start with a certificate in PEM")
	}
	second, _ := pem.Decode(rest)
	if second == nil || second.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("it has no private key in PEM after the certificate")
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(second.Bytes)
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("its key is not its certificate's")
	}
	return cert, key, nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("its private key is not PKCS #8") // the error could quote it
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("its private key is not of the curve P-256")
	}
	return key, nil
}

// Certificate returns the authority's certificate in PEM, which is no secret:
// clients of the API need it to know the launcher.
func (ca *CA) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// ServerTLS is for the listener that clients and agents share: HTTP/2 and 1.1, with
// a certificate that is renewed by itself. Clients need no certificate; one that is
// shown must be a node's that is not revoked, or the connection is refused.
func (ca *CA) ServerTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		Time:       ca.clock,
		ClientCAs:  roots, // a hint for those with several certificates
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.serverCertificate()
		},
		// Unlike VerifyPeerCertificate this is asked for resumed sessions too.
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			// Whoever is refused here is told by TLS that it is for the
			// certificate, and gives up. What ails this launcher, all that ask
			// Node again will say.
			if _, err := ca.Node(&cs); errors.Is(err, ErrDenied) {
				return err
			}
			return nil
		},
	}
}

// Node returns which node is at the other end of a connection to ServerTLS, "" if
// it showed no certificate. The error is an [ErrDenied] if its certificate is another
// authority's, out of its time, or revoked. It costs a signature's check; long sessions
// ask [CA.Still] from time to time.
func (ca *CA) Node(cs *tls.ConnectionState) (string, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return "", nil
	}
	leaf := cs.PeerCertificates[0]
	if err := verify(leaf, ca.cert, x509.ExtKeyUsageClientAuth, ca.clock()); err != nil {
		return "", deny("the certificate of node %q: %v", leaf.Subject.CommonName, err)
	}
	v, err := ca.members.get()
	if err != nil {
		return "", err
	}
	if c := v.certs[serialText(leaf.SerialNumber)]; c != nil && c.Revoked != nil {
		return "", deny("the certificate of node %q was revoked at %s: the node must join again with a new token", leaf.Subject.CommonName, clockText(*c.Revoked))
	}
	return leaf.Subject.CommonName, nil
}

// Still returns an [ErrDenied] if the node at the other end of a connection that
// Node has named is no longer let in: its certificate was revoked, or has ended and
// the node has no newer one. A session outlives the certificate that it began with.
// It costs a look at a file's time.
func (ca *CA) Still(cs *tls.ConnectionState) error {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return deny("no certificate was shown")
	}
	v, err := ca.members.get()
	if err != nil {
		return err
	}
	leaf, now := cs.PeerCertificates[0], ca.clock()
	node := leaf.Subject.CommonName
	if c := v.certs[serialText(leaf.SerialNumber)]; c != nil && c.Revoked != nil {
		return deny("the certificate of node %q was revoked at %s: the node must join again with a new token", node, clockText(*c.Revoked))
	}
	if now.After(leaf.NotAfter) && !v.joined(node, now) {
		return deny("the certificate of node %q expired at %s, and the node has no newer one", node, clockText(leaf.NotAfter))
	}
	return nil
}

// verify checks that ca signed leaf for the use, and the time, with errors that say
// whose clock to look at.
func verify(leaf, ca *x509.Certificate, use x509.ExtKeyUsage, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	// The chain as of a moment when the leaf is valid for sure; the time after it,
	// as an error of its own.
	at := leaf.NotAfter
	if at.After(ca.NotAfter) {
		at = ca.NotAfter
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
		return deny("not one of the authority %q: %v", ca.Subject.CommonName, err)
	}
	switch {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("valid from %s only, and it is %s here: one of the two machines has a wrong clock", clockText(leaf.NotBefore), clockText(now))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired at %s, and it is %s here: join again, or set the clock if it is wrong", clockText(leaf.NotAfter), clockText(now))
	case now.Before(ca.NotBefore), now.After(ca.NotAfter):
		return fmt.Errorf("its authority is valid from %s to %s, and it is %s here: set the clock", clockText(ca.NotBefore), clockText(ca.NotAfter), clockText(now))
	}
	return nil
}

// serverCertificate returns the listener's certificate, a new one if two thirds of
// its life are over. It is not stored: a launcher that starts makes another.
func (ca *CA) serverCertificate() (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.clock()
	if ca.server != nil && !due(ca.server.Leaf, now) {
		return ca.server, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: ca.names[0]},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range ca.names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	leaf, err := ca.sign(t, key.Public(), now, serverLife)
	if err != nil {
		return nil, fmt.Errorf("making the launcher's certificate: %w", err)
	}
	// The authority goes along: a node that joins knows only its fingerprint.
	ca.server = &tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return ca.server, nil
}

// sign makes a certificate that ends with the authority at the latest.
func (ca *CA) sign(t *x509.Certificate, pub any, now time.Time, life time.Duration) (*x509.Certificate, error) {
	t.SerialNumber = newSerial()
	t.NotBefore, t.NotAfter = now.Add(-certSkew), now.Add(life)
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, pub, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// due tells whether two thirds of a certificate's life are over, or now is before it.
func due(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || !now.Before(renewAt(c))
}

func renewAt(c *x509.Certificate) time.Time {
	start := c.NotBefore.Add(certSkew)
	return start.Add(c.NotAfter.Sub(start) / 3 * 2)
}

// serverNames returns the names of the server's certificate, without doubles.
func serverNames(given []string) []string {
	names := []string{launcherName}
	all := false
	for _, n := range given {
		if u, err := url.Parse(n); err == nil && u.Host != "" {
			n = u.Host
		}
		if h, _, err := net.SplitHostPort(n); err == nil {
			n = h
		}
		if ip := net.ParseIP(n); n == "" || ip != nil && ip.IsUnspecified() {
			all = true
			continue
		}
		names = append(names, n)
	}
	names = append(names, hostname(), "localhost", "127.0.0.1", "::1")
	if all {
		addrs, _ := net.InterfaceAddrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				names = append(names, n.IP.String())
			}
		}
	}
	slices.Sort(names[1:])
	return slices.Compact(names)
}

// newSerial is 127 random bits: never negative and never used twice.
func newSerial() *big.Int {
	b := random(16)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func serialText(n *big.Int) string { return fmt.Sprintf("%032x", n) }

func fingerprint(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }
