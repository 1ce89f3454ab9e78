package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	identityName = "identity.json"
	joiningName  = "joining.json"
	// identityVersion is of the file's format. 1: the first.
	identityVersion = 1
)

// How long Keep waits.
const (
	keepLook  = 10 * time.Minute // between looks at the clock, which may be set
	keepRetry = time.Minute      // after a failure, doubled up to an hour
)

// ErrNotJoined is in the error of LoadIdentity when the node never joined.
var ErrNotJoined = errors.New("this node has not joined a launcher")

// Identity is what a node is known by at the launcher that it joined.
type Identity struct {
	dir     string
	url     string // of the launcher, without a path
	node    string
	token   string // the id of the join token
	ca      *x509.Certificate
	clock   func() time.Time
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
	renewal sync.Mutex
}

// IdentityOptions has what an Identity takes from outside; zero fields have defaults.
type IdentityOptions struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default none
}

func (o *IdentityOptions) defaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// identityFile is the identity's file, and, with a key alone, the one of a node that
// is joining: if it dies before the launcher's answer reaches it, it asks with the
// same key again and does not find its token used up.
type identityFile struct {
	Version int    `json:"version"`
	URL     string `json:"url"`
	Node    string `json:"node"`
	Token   string `json:"token"` // the id, not the secret
	Key     []byte `json:"key"`   // PKCS #8
	Cert    []byte `json:"certificate,omitempty"`
	CA      []byte `json:"ca,omitempty"`
}

// decodeIdentity reads the file. Without a certificate, cert and ca are nil.
func decodeIdentity(data []byte) (f identityFile, key *ecdsa.PrivateKey, cert, ca *x509.Certificate, err error) {
	fail := func(err error) (identityFile, *ecdsa.PrivateKey, *x509.Certificate, *x509.Certificate, error) {
		return identityFile{}, nil, nil, nil, err
	}
	if err := decodeStrict(data, &f); err != nil {
		return fail(err)
	}
	if err := checkVersion(f.Version, identityVersion); err != nil {
		return fail(err)
	}
	if err := checkNode(f.Node); err != nil {
		return fail(err)
	}
	if key, err = parseKey(f.Key); err != nil {
		return fail(err)
	}
	if len(f.Cert) == 0 && len(f.CA) == 0 {
		return f, key, nil, nil, nil
	}
	if cert, err = x509.ParseCertificate(f.Cert); err != nil {
		return fail(fmt.Errorf("its certificate: %w", err))
	}
	if ca, err = x509.ParseCertificate(f.CA); err != nil {
		return fail(fmt.Errorf("its authority: %w", err))
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return fail(errors.New("its key is not its certificate's"))
	}
	return f, key, cert, ca, nil
}

func (f identityFile) save(dir, name string) error {
	f.Version = identityVersion
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	release, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer release()
	return writePrivate(filepath.Join(dir, name), data)
}

// LoadIdentity returns the identity that Enroll kept in the agent's directory dir.
// The error is [ErrNotJoined] if there is none, and says what to do if the
// certificate has expired.
func LoadIdentity(dir string, o IdentityOptions) (*Identity, error) {
	o.defaults()
	path := filepath.Join(dir, identityName)
	data, _, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotJoined
	}
	if err != nil {
		return nil, fmt.Errorf("loading the node's identity: %w", err)
	}
	f, key, cert, ca, err := decodeIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("%s can't be used: %w; remove it and join again", path, err)
	}
	if cert == nil {
		return nil, ErrNotJoined
	}
	if err := verify(cert, ca, x509.ExtKeyUsageClientAuth, o.Now()); err != nil {
		return nil, fmt.Errorf("the certificate of node %s in %s: %w", f.Node, path, err)
	}
	return newIdentity(dir, f, key, cert, ca, o), nil
}

func newIdentity(dir string, f identityFile, key *ecdsa.PrivateKey, cert, ca *x509.Certificate, o IdentityOptions) *Identity {
	id := &Identity{dir: dir, url: f.URL, node: f.Node, token: f.Token, ca: ca, clock: o.Now, log: o.Log}
	id.current.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
	return id
}

// Node returns the name by which the launcher knows the node.
func (id *Identity) Node() string { return id.node }

// URL returns the launcher's address, as https://host:port.
func (id *Identity) URL() string { return id.url }

// Expires returns until when the present certificate is valid.
func (id *Identity) Expires() time.Time { return id.current.Load().Leaf.NotAfter }

// ClientTLS is for connections to the launcher, at whatever address. Each new
// connection shows the newest certificate; those that are open stay.
func (id *Identity) ClientTLS() *tls.Config {
	c := launcherTLS(id.clock, func([]*x509.Certificate) (*x509.Certificate, error) { return id.ca, nil })
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.current.Load(), nil }
	return c
}

// badCertificate is how crypto/tls words the alert with which ServerTLS answers a
// certificate that it refuses. Its type is not exported.
const badCertificate = "tls: bad certificate"

// Refused returns an [ErrDenied] that says what to do if err is how a connection with
// ClientTLS ends when the launcher refuses the node's certificate, and nil otherwise.
// As the launcher looks at it after its own part of the handshake, it is an error of
// the first read; and it is proof, as by then the launcher has shown who it is.
func (id *Identity) Refused(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err.Error() != badCertificate {
		return nil
	}
	return deny("the launcher at %s refuses the certificate of node %s: it was revoked, or the clocks differ (it is valid until %s, and it is %s here); with a new join token the node can join again",
		id.url, id.node, clockText(id.Expires()), clockText(id.clock()))
}

// launcherTLS accepts the launcher that the authority certified. The standard
// verification is replaced, as it knows no authority from its fingerprint and
// does not name the two clocks.
func launcherTLS(now func() time.Time, authority func([]*x509.Certificate) (*x509.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         launcherName,
		Time:               now,
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("the launcher shows no certificate")
			}
			ca, err := authority(cs.PeerCertificates)
			if err != nil {
				return err
			}
			leaf := cs.PeerCertificates[0]
			if err := verify(leaf, ca, x509.ExtKeyUsageServerAuth, now()); err != nil {
				return fmt.Errorf("the launcher's certificate: %w", err)
			}
			return leaf.VerifyHostname(launcherName)
		},
	}
}

// Renew gets a new certificate over rt, which must use ClientTLS; nil makes a
// connection for it.
func (id *Identity) Renew(ctx context.Context, rt http.RoundTripper) error {
	id.renewal.Lock()
	defer id.renewal.Unlock()
	if rt == nil {
		t := transport(id.ClientTLS())
		defer t.CloseIdleConnections()
		rt = t
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	f, cert, _, err := request(ctx, rt, id.url+RenewPath, "", id.node, key)
	if err != nil {
		return fmt.Errorf("renewing the certificate of node %s: %w", id.node, err)
	}
	if err := verify(cert, id.ca, x509.ExtKeyUsageClientAuth, id.clock()); err != nil {
		return fmt.Errorf("renewing the certificate of node %s: %w", id.node, err)
	}
	f.URL, f.Token = id.url, id.token
	if err := f.save(id.dir, identityName); err != nil {
		return fmt.Errorf("renewing the certificate of node %s: %w", id.node, err)
	}
	id.current.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
	return nil
}

// Keep renews the certificate whenever two thirds of its life are over, until ctx
// ends. Failures are logged and tried again.
func (id *Identity) Keep(ctx context.Context) {
	retry := keepRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if now := id.clock(); !due(id.current.Load().Leaf, now) {
			// The clock may be set and the machine may sleep: look again soon.
			timer.Reset(max(time.Second, min(keepLook, renewAt(id.current.Load().Leaf).Sub(now))))
			continue
		}
		once, cancel := context.WithTimeout(ctx, time.Minute)
		err := id.Renew(once, nil)
		cancel()
		if err == nil {
			id.log.Info("renewed the node's certificate", "node", id.node, "until", id.Expires())
			retry = keepRetry
			timer.Reset(time.Second)
			continue
		}
		if ctx.Err() == nil {
			id.log.Warn("could not renew the node's certificate", "node", id.node, "until", id.Expires(), "error", err, "again", retry)
		}
		timer.Reset(retry)
		retry = min(2*retry, time.Hour)
	}
}
