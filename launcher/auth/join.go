package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Paths of the launcher's API on which nodes join and renew their certificates.
const (
	JoinPath  = "/gangway/v1/join"
	RenewPath = "/gangway/v1/renew"
)

const (
	maxJoin  = 16 << 10 // bytes of a request or an answer; a usual one has 1,500
	maxDaily = 20       // certificates of a node within 24 h: the list is bounded
)

// JoinRequest is what a node asks with. To renew its certificate it sends no token:
// the connection shows who it is.
type JoinRequest struct {
	Token Secret
	Node  string
	CSR   []byte // PKCS #10 in DER; of its subject only the key counts
}

// joinMessage is a JoinRequest as it travels, in JSON.
type joinMessage struct {
	Token string `json:"token,omitempty"`
	Node  string `json:"node"`
	CSR   []byte `json:"csr"`
}

// JoinResponse is what the node gets.
type JoinResponse struct {
	Certificate []byte    `json:"certificate"` // X.509 in DER
	CA          []byte    `json:"ca"`          // X.509 in DER
	Time        time.Time `json:"time"`        // by the launcher's clock
}

// joinError is the body of an answer that is no JoinResponse.
type joinError struct {
	Error string    `json:"error"`
	Time  time.Time `json:"time"`
}

// Join lets a node in for its token: the answer has a certificate with the node's
// name for 30 days. The same node may ask again with the same key, as the first
// answer may have been lost; anybody else finds the token used. Errors are an
// [ErrDenied] if the token is wrong, over, or for another node, or if a node of this
// name has joined already, unless the token is for exactly this one.
func (ca *CA) Join(req JoinRequest) (JoinResponse, error) {
	t, err := parseJoin(req.Token.Reveal())
	if err != nil {
		return JoinResponse{}, err
	}
	// Before anything that costs: whoever has no token gets no further.
	v, err := ca.members.get()
	if err != nil {
		return JoinResponse{}, err
	}
	if _, err := v.token(t, ca.clock()); err != nil {
		return JoinResponse{}, err
	}
	return ca.issue(req, func(v *members, key string, now time.Time) error {
		e, err := v.token(t, now)
		if err != nil {
			return err
		}
		return v.use(e, req.Node, key, now)
	})
}

// Renew gives the node at the other end of the connection a new certificate.
func (ca *CA) Renew(cs *tls.ConnectionState, req JoinRequest) (JoinResponse, error) {
	node, err := ca.Node(cs)
	if err != nil {
		return JoinResponse{}, err
	}
	if node == "" {
		return JoinResponse{}, deny("a node shows its certificate to renew it; this connection has none")
	}
	if node != req.Node {
		return JoinResponse{}, deny("node %s can't renew the certificate of %q", node, req.Node)
	}
	serial := serialText(cs.PeerCertificates[0].SerialNumber)
	return ca.issue(req, func(v *members, key string, now time.Time) error {
		if c := v.certs[serial]; c != nil && c.Revoked != nil {
			return deny("the certificate of node %s is revoked", node) // a moment ago
		}
		return nil
	})
}

// issue signs the request if may says so, and keeps the certificate's number before
// anybody sees it.
func (ca *CA) issue(req JoinRequest, may func(v *members, key string, now time.Time) error) (JoinResponse, error) {
	if err := checkNode(req.Node); err != nil {
		return JoinResponse{}, invalid{err}
	}
	pub, key, err := parseCSR(req.CSR)
	if err != nil {
		return JoinResponse{}, invalid{err}
	}
	now := ca.clock().UTC()
	var leaf *x509.Certificate
	err = ca.members.change(func(v *members) error {
		if err := may(v, key, now); err != nil {
			return err
		}
		today := 0
		for _, c := range v.Certs {
			if c.Key == key && c.Revoked != nil {
				return deny("the key of node %s was revoked at %s: join with a new token", req.Node, clockText(*c.Revoked))
			}
			if c.Node == req.Node && now.Sub(c.Made) < 24*time.Hour {
				today++
			}
		}
		if today >= maxDaily {
			return deny("node %s has got %d certificates within a day: look at why its agent does not keep them", req.Node, today)
		}
		var err error
		leaf, err = ca.sign(&x509.Certificate{
			Subject:     pkix.Name{CommonName: req.Node},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, pub, now, ca.life)
		if err != nil {
			return err
		}
		v.prune(now)
		v.Certs = append(v.Certs, &certEntry{Serial: serialText(leaf.SerialNumber), Node: req.Node, Key: key, Made: now.Truncate(time.Second), Ends: leaf.NotAfter})
		return nil
	})
	if err != nil {
		return JoinResponse{}, err
	}
	ca.log.Info("certified a node", "node", req.Node, "serial", serialText(leaf.SerialNumber), "until", leaf.NotAfter)
	return JoinResponse{Certificate: leaf.Raw, CA: ca.cert.Raw, Time: now}, nil
}

// token finds a join token that is neither wrong nor expired.
func (v *members) token(t joinToken, now time.Time) (*joinEntry, error) {
	e := v.tokens[t.id]
	if e == nil || !equal(e.Hash, t.hash()) {
		return nil, deny("unknown join token: ask an administrator for another")
	}
	if !now.Before(e.Expires) {
		return nil, deny("join token %s expired at %s, and it is %s at the launcher: ask an administrator for another", e.ID, clockText(e.Expires), clockText(now))
	}
	return e, nil
}

// use writes down that node joins with e.
func (v *members) use(e *joinEntry, node, key string, now time.Time) error {
	if e.Node != "" && e.Node != node {
		return deny("join token %s is for node %s, not for %s", e.ID, e.Node, node)
	}
	for _, u := range e.Used {
		if u.Node == node && u.Key == key {
			return nil
		}
	}
	if len(e.Used) >= e.Uses {
		return deny("join token %s is used up: it was for %d, and the last was %s at %s", e.ID, e.Uses, e.Used[len(e.Used)-1].Node, clockText(e.Used[len(e.Used)-1].At))
	}
	// A token for any node must not make one node into another.
	for _, c := range v.Certs {
		if e.Node == "" && c.Node == node && c.valid(now) {
			return deny("a node named %s has joined already: revoke it first, or use a join token made for %s", node, node)
		}
	}
	e.Used = append(e.Used, useEntry{Node: node, Key: key, At: now.Truncate(time.Second)})
	return nil
}

// parseCSR returns the public key of a signing request, of which the asker has
// proved to have the private one, and the key's SHA-256.
func parseCSR(der []byte) (*ecdsa.PublicKey, string, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, "", fmt.Errorf("the certificate request can't be read: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, "", errors.New("the certificate request has a key that is not ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("the certificate request is not signed with its key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, "", fmt.Errorf("the certificate request's key: %w", err)
	}
	h := sha256.Sum256(spki)
	return pub, hex.EncodeToString(h[:]), nil
}

// invalid is an error of the request itself.
type invalid struct{ error }

func (i invalid) Unwrap() error { return i.error }

// JoinHandler serves [JoinPath] and [RenewPath], on a listener with [CA.ServerTLS].
// Joining needs no other proof than the token, so it stands before the API's own
// authentication.
func (ca *CA) JoinHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+JoinPath, ca.serve(func(_ *http.Request, req JoinRequest) (JoinResponse, error) { return ca.Join(req) }))
	mux.HandleFunc("POST "+RenewPath, ca.serve(func(r *http.Request, req JoinRequest) (JoinResponse, error) { return ca.Renew(r.TLS, req) }))
	return mux
}

func (ca *CA) serve(do func(*http.Request, JoinRequest) (JoinResponse, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		var msg joinMessage
		var resp JoinResponse
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoin))
		if err == nil {
			err = decodeStrict(data, &msg)
		}
		req := JoinRequest{Token: NewSecret(msg.Token), Node: msg.Node, CSR: msg.CSR}
		if err != nil {
			err = invalid{fmt.Errorf("the request can't be read: %w", err)}
		} else {
			resp, err = do(r, req)
		}
		var bad invalid
		answer := joinError{Time: ca.clock().UTC()}
		switch {
		case err == nil:
			_ = json.NewEncoder(w).Encode(resp) // a node that is gone asks again
			return
		case errors.Is(err, ErrDenied):
			ca.log.Warn("refused to certify a node", "from", r.RemoteAddr, "node", req.Node, "error", err)
			answer.Error = err.Error()
			w.WriteHeader(http.StatusForbidden)
		case errors.As(err, &bad):
			answer.Error = err.Error()
			w.WriteHeader(http.StatusBadRequest)
		default:
			// It names files of the launcher, which are not the asker's business.
			ca.log.Error("could not certify a node", "from", r.RemoteAddr, "node", req.Node, "error", err)
			answer.Error = "the launcher can't let nodes in at the moment: its log has more"
			w.WriteHeader(http.StatusInternalServerError)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}
