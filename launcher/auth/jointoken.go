package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	joinPrefix = "gangway-join_"
	joinIDSize = 6 // bytes
	joinSize   = joinIDSize + secretSize + sha256.Size
)

// joinToken is what a join token says: "gangway-join_" and, in unpadded URL base64,
// its id, its secret, and the SHA-256 of the authority's certificate (DER), by which
// the node knows the launcher.
type joinToken struct {
	id     string
	secret [secretSize]byte
	ca     [sha256.Size]byte
}

func (t joinToken) text() string {
	id, _ := hex.DecodeString(t.id) // made by us or by parseJoin
	return joinPrefix + base64.RawURLEncoding.EncodeToString(slices.Concat(id, t.secret[:], t.ca[:]))
}

func (t joinToken) hash() string {
	h := sha256.Sum256(t.secret[:])
	return hex.EncodeToString(h[:])
}

// parseJoin reads a join token. Errors don't quote it.
func parseJoin(s string) (joinToken, error) {
	rest, ok := strings.CutPrefix(s, joinPrefix)
	if !ok {
		return joinToken{}, deny("not a join token: they start with %s", joinPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(b) != joinSize || strings.ContainsAny(rest, "\r\n") {
		return joinToken{}, deny("the join token is damaged: it has %d characters instead of %d, or wrong ones", len(s), len(joinPrefix)+base64.RawURLEncoding.EncodedLen(joinSize))
	}
	t := joinToken{id: hex.EncodeToString(b[:joinIDSize])}
	copy(t.secret[:], b[joinIDSize:])
	copy(t.ca[:], b[joinIDSize+secretSize:])
	return t, nil
}

// JoinSpec is what a join token is for.
type JoinSpec struct {
	Node string        // the only node's name; empty: any that has not joined yet
	Uses int           // how many nodes; 0 is 1
	Life time.Duration // 0 is 24 h; at most nodeLife, 30 days
}

// JoinToken is what is known of a join token. Its secret is not.
type JoinToken struct {
	ID      string
	Node    string // empty: any
	Uses    int    // how many nodes may join with it
	Used    []string
	Created time.Time
	Expires time.Time
}

// AddJoinToken makes a token with which nodes can join. It is returned this once and
// never again.
func (ca *CA) AddJoinToken(s JoinSpec) (JoinToken, Secret, error) {
	if s.Uses == 0 {
		s.Uses = 1
	}
	if s.Life == 0 {
		s.Life = 24 * time.Hour
	}
	var err error
	switch {
	case s.Uses < 1 || s.Uses > 100000:
		err = fmt.Errorf("%d uses: from 1 to 100000 nodes can join with one", s.Uses)
	case s.Life < 0 || s.Life > nodeLife:
		err = fmt.Errorf("a life of %v: up to %v is possible", s.Life, nodeLife)
	case s.Node != "":
		if err = checkNode(s.Node); err == nil && s.Uses > 1 {
			err = fmt.Errorf("%d uses, but it is for the node %s only", s.Uses, s.Node)
		}
	}
	if err != nil {
		return JoinToken{}, Secret{}, fmt.Errorf("new join token: %w", err)
	}
	now := ca.clock().UTC()
	t := joinToken{secret: [secretSize]byte(random(secretSize)), ca: fingerprint(ca.cert)}
	e := &joinEntry{Hash: t.hash(), Node: s.Node, Uses: s.Uses, Created: now.Truncate(time.Second), Expires: now.Add(s.Life)}
	err = ca.members.change(func(v *members) error {
		v.prune(now)
		for e.ID == "" || v.tokens[e.ID] != nil {
			e.ID = hex.EncodeToString(random(joinIDSize))
		}
		v.Tokens = append(v.Tokens, e)
		return nil
	})
	if err != nil {
		return JoinToken{}, Secret{}, fmt.Errorf("new join token: %w", err)
	}
	t.id = e.ID
	return e.public(), NewSecret(t.text()), nil
}

func (e *joinEntry) public() JoinToken {
	t := JoinToken{ID: e.ID, Node: e.Node, Uses: e.Uses, Created: e.Created, Expires: e.Expires}
	for _, u := range e.Used {
		t.Used = append(t.Used, u.Node)
	}
	return t
}

// JoinTokens lists the join tokens; those that are over for a week too.
func (ca *CA) JoinTokens() ([]JoinToken, error) {
	v, err := ca.members.get()
	if err != nil {
		return nil, err
	}
	list := make([]JoinToken, 0, len(v.Tokens))
	for _, t := range v.Tokens {
		list = append(list, t.public())
	}
	return list, nil
}

// RevokeJoinToken ends a join token at once. Nodes that joined with it stay.
func (ca *CA) RevokeJoinToken(id string) error {
	return ca.members.change(func(v *members) error {
		n := len(v.Tokens)
		v.Tokens = slices.DeleteFunc(v.Tokens, func(t *joinEntry) bool { return t.ID == id })
		if len(v.Tokens) == n {
			return fmt.Errorf("no join token has the id %q", id)
		}
		return nil
	})
}
