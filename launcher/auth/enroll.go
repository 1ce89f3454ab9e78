package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Enroll joins a launcher: it makes a key, has it certified for the join token, and
// keeps both in the agent's directory dir (mode 0700). address is https://host:port
// or host:port. If dir has an identity for this token already, that one is returned
// and nothing is asked: an agent may start with the same command each time. The error
// is an [ErrDenied] if the token is refused or the launcher is another one; those that
// are [Temporary] may pass when tried again.
func Enroll(ctx context.Context, dir, address string, token Secret, node string, o IdentityOptions) (*Identity, error) {
	o.defaults()
	id, err := enroll(ctx, dir, address, token, node, o)
	if err != nil {
		return nil, fmt.Errorf("joining the launcher at %s as node %s: %w", address, node, err)
	}
	return id, nil
}

func enroll(ctx context.Context, dir, address string, token Secret, node string, o IdentityOptions) (*Identity, error) {
	base, err := launcherURL(address)
	if err != nil {
		return nil, err
	}
	if err := checkNode(node); err != nil {
		return nil, err
	}
	t, err := parseJoin(token.Reveal())
	if err != nil {
		return nil, err
	}
	if err := openDir(dir); err != nil {
		return nil, err
	}
	f, key, err := pending(dir, base, t, node, o)
	if err != nil {
		return nil, err
	}
	if len(f.Cert) > 0 {
		if f.URL != base { // the launcher has moved
			f.URL = base
			if err := f.save(dir, identityName); err != nil {
				return nil, err
			}
		}
		return LoadIdentity(dir, o)
	}
	rt := transport(launcherTLS(o.Now, t.authority))
	defer rt.CloseIdleConnections()
	got, cert, at, err := request(ctx, rt, base+JoinPath, token.Reveal(), node, key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(got.CA)
	if err != nil || sha256.Sum256(got.CA) != t.ca {
		return nil, deny("the launcher's answer has another authority than the token")
	}
	if err := verify(cert, ca, x509.ExtKeyUsageClientAuth, at); err != nil {
		return nil, fmt.Errorf("the launcher's answer: %w", err)
	}
	if skew := at.Sub(o.Now()).Round(time.Second); skew >= certSkew || -skew >= certSkew {
		return nil, fmt.Errorf("this node's clock is %s the launcher's: set it (%s here, %s there) and start again; the token stays good for that", aheadText(-skew), clockText(o.Now()), clockText(at))
	}
	got.URL, got.Token = base, t.id
	if err := got.save(dir, identityName); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, joiningName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return newIdentity(dir, got, key, cert, ca, o), nil
}

// pending returns what dir has for this token and node: an identity, or the key that
// was made for it; else a new key, after it was kept. An identity for another token
// stays until there is a new one.
func pending(dir, base string, t joinToken, node string, o IdentityOptions) (identityFile, *ecdsa.PrivateKey, error) {
	for _, name := range []string{identityName, joiningName} {
		path := filepath.Join(dir, name)
		data, _, err := readPrivate(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return identityFile{}, nil, err
		}
		f, key, cert, ca, err := decodeIdentity(data)
		if err != nil {
			return identityFile{}, nil, fmt.Errorf("%s can't be used: %w; remove it and join again", path, err)
		}
		if f.Token != t.id || f.Node != node {
			continue
		}
		if cert == nil || fingerprint(ca) != t.ca || o.Now().After(cert.NotAfter) {
			f.Cert, f.CA = nil, nil
		}
		return f, key, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identityFile{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identityFile{}, nil, err
	}
	f := identityFile{URL: base, Node: node, Token: t.id, Key: der}
	return f, key, f.save(dir, joiningName)
}

// authority finds the token's authority in what the launcher shows.
func (t joinToken) authority(chain []*x509.Certificate) (*x509.Certificate, error) {
	for _, c := range chain[1:] {
		if fingerprint(c) == t.ca && c.IsCA {
			return c, nil
		}
	}
	return nil, deny("this is not the launcher that made the join token: check the address, and whether something between takes TLS apart")
}

// request asks for a certificate of key. It returns the identity's new key,
// certificate and authority, not yet verified, and the launcher's time.
func request(ctx context.Context, rt http.RoundTripper, url, token, node string, key *ecdsa.PrivateKey) (identityFile, *x509.Certificate, time.Time, error) {
	fail := func(err error) (identityFile, *x509.Certificate, time.Time, error) {
		return identityFile{}, nil, time.Time{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, key)
	if err != nil {
		return fail(err)
	}
	body, err := json.Marshal(joinMessage{Token: token, Node: node, CSR: csr})
	if err != nil {
		return fail(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJoin))
	if err != nil {
		return fail(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fail(refusal(resp.StatusCode, data))
	}
	var r JoinResponse
	if err := json.Unmarshal(data, &r); err != nil { // a newer launcher may say more
		return fail(fmt.Errorf("the launcher's answer can't be read: %w", err))
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return fail(fmt.Errorf("the launcher's certificate for this node can't be read: %w", err))
	}
	if !key.PublicKey.Equal(cert.PublicKey) || cert.Subject.CommonName != node {
		return fail(errors.New("the launcher's certificate is for another node"))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	return identityFile{Node: node, Key: der, Cert: r.Certificate, CA: r.CA}, cert, r.Time, nil
}

// refusal is the error of an answer that is not 200.
func refusal(status int, data []byte) error {
	var e joinError
	if json.Unmarshal(data, &e) != nil || e.Error == "" {
		return fmt.Errorf("the launcher answered %d %s: is it a gangway of this version?", status, http.StatusText(status))
	}
	if status == http.StatusForbidden {
		return deny("%s", e.Error)
	}
	if status >= http.StatusInternalServerError {
		return trouble{errors.New(e.Error)}
	}
	return errors.New(e.Error)
}

// trouble is a launcher that can't do what it would.
type trouble struct{ error }

// Temporary reports whether an error of Enroll or of a connection with ClientTLS may
// pass when it is tried again: the launcher does not answer, or not as it should. All
// else is for people to mend.
func Temporary(err error) bool {
	var (
		op  *net.OpError
		ne  net.Error
		ill trouble
	)
	switch {
	case errors.Is(err, ErrDenied):
		return false
	case errors.As(err, &op) && op.Op == "remote error":
		return false // what the launcher's TLS objects to
	}
	return errors.As(err, &ill) || errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// transport has no proxy: what is set for the web is not on the way to a launcher.
func transport(c *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 30 * time.Second}
}

// launcherURL returns https://host:port for an address with or without the scheme.
func launcherURL(address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", errors.New("the launcher's address is not https://host:port")
	}
	if u.Scheme != "https" {
		return "", fmt.Errorf("the launcher's address starts with %s://: nodes join over https:// only", u.Scheme)
	}
	return "https://" + u.Host, nil
}

func aheadText(d time.Duration) string {
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead of"
}
