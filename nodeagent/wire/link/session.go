package link

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// sharedSession is the TLS 1.3 session that both sides of a connection derive from
// their shared key, as a pre-shared key (RFC 8446, section 2.2, with its exchange of
// ephemeral keys). A handshake by it shows that the other side holds the key, as the
// certificates do, without any signature: half of what a handshake computes. Where
// only one side knows of it, or they hold different keys, the certificates decide.
type sharedSession struct {
	secret []byte
	// ticket names the session on the wire: who sees it learns nothing but that two
	// connections have the same key.
	ticket []byte
	cert   []byte // which crypto/tls wants of a session's peer
}

func newSharedSession(key, cert []byte) (*sharedSession, error) {
	b, err := hkdf.Key(sha256.New, key, nil, "gangway link session 1", sha256.Size+16)
	if err != nil {
		return nil, err
	}
	return &sharedSession{secret: b[:sha256.Size], ticket: b[sha256.Size:], cert: cert}, nil
}

// state encodes the session in the language of crypto/tls's SessionState, which
// ParseSessionState reads.
func (s *sharedSession) state(client bool, now time.Time) (*tls.SessionState, error) {
	const server, clientType = 1, 2
	var b cryptobyte.Builder
	b.AddUint16(tls.VersionTLS13)
	if client {
		b.AddUint8(clientType)
	} else {
		b.AddUint8(server)
	}
	b.AddUint16(tls.TLS_AES_128_GCM_SHA256) // its hash counts, which ChaCha20's suite shares
	b.AddUint64(uint64(now.Unix()))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.secret) })
	b.AddUint24(0) // extra
	b.AddUint8(0)  // no extended master secret
	b.AddUint8(0)  // no early data
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.cert) })
		b.AddUint16(0) // its extensions
	})
	b.AddUint24(0) // verified chains
	if client {
		b.AddUint64(uint64(notAfter.Unix())) // use by
		b.AddUint32(0)                       // added to its age
	}
	enc, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return tls.ParseSessionState(enc)
}

// offer makes client begin its handshakes with the session. A crypto/tls that does
// not read its encoding leaves the certificates.
func (s *sharedSession) offer(client *tls.Config) {
	st, err := s.state(true, time.Now())
	if err != nil {
		return
	}
	if cs, err := tls.NewResumptionState(s.ticket, st); err == nil {
		client.ClientSessionCache = oneSession{cs}
	}
}

// accept makes server know the session when it is offered.
func (s *sharedSession) accept(server *tls.Config) {
	server.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		if string(ticket) != string(s.ticket) {
			return nil, nil
		}
		// Sessions get old by their server's clock; this one is always new.
		st, err := s.state(false, time.Now())
		if err != nil {
			return nil, nil
		}
		return st, nil
	}
	// A server always gives the client a ticket for the next time; ours says nothing.
	server.WrapSession = func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { return []byte{0}, nil }
}

// oneSession is a cache that holds one session for ever.
type oneSession struct{ s *tls.ClientSessionState }

// Get implements tls.ClientSessionCache.
func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.s, true }

// Put implements tls.ClientSessionCache.
func (oneSession) Put(string, *tls.ClientSessionState) {}
