package auth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	membersName = "members.json"
	// membersVersion is of the file's format. 1: the first.
	membersVersion = 1
	// tokenMemory is how long a join token that is over is kept, to say why it is
	// refused.
	tokenMemory = 7 * 24 * time.Hour
)

// members is the file of who may join and who has. The use of a token and the
// certificate given for it are one change.
type members struct {
	Version int          `json:"version"`
	Tokens  []*joinEntry `json:"joinTokens"`
	Certs   []*certEntry `json:"certificates"`

	tokens map[string]*joinEntry // by id
	certs  map[string]*certEntry // by serial
}

// joinEntry is a join token.
type joinEntry struct {
	ID      string     `json:"id"`
	Hash    string     `json:"sha256"`
	Node    string     `json:"node,omitempty"` // the only one it is for
	Uses    int        `json:"uses"`           // how many nodes it is for
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires"`
	Used    []useEntry `json:"used,omitempty"`
}

// useEntry is a node that joined with a token. The same node with the same key may
// ask again: the answer to its first request may not have reached it.
type useEntry struct {
	Node string    `json:"node"`
	Key  string    `json:"key"` // SHA-256 of the public key
	At   time.Time `json:"at"`
}

// certEntry is a node's certificate that has not expired yet.
type certEntry struct {
	Serial  string     `json:"serial"`
	Node    string     `json:"node"`
	Key     string     `json:"key"` // SHA-256 of the public key
	Made    time.Time  `json:"made"`
	Ends    time.Time  `json:"ends"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

func (c *certEntry) valid(now time.Time) bool { return c.Revoked == nil && now.Before(c.Ends) }

// prune forgets what has no meaning any more.
func (v *members) prune(now time.Time) {
	v.Tokens = slices.DeleteFunc(v.Tokens, func(t *joinEntry) bool { return now.After(t.Expires.Add(tokenMemory)) })
	// A clock that is ahead for a moment must not make a revoked certificate valid.
	v.Certs = slices.DeleteFunc(v.Certs, func(c *certEntry) bool { return now.After(c.Ends.Add(nodeLife)) })
}

func encodeMembers(v *members) ([]byte, error) {
	v.Version = membersVersion
	return json.MarshalIndent(v, "", " ")
}

// decodeMembers reads the file and refuses one that is not wholly right.
func decodeMembers(data []byte) (*members, error) {
	v := &members{tokens: map[string]*joinEntry{}, certs: map[string]*certEntry{}}
	if err := decodeStrict(data, v); err != nil {
		return nil, err
	}
	if err := checkVersion(v.Version, membersVersion); err != nil {
		return nil, err
	}
	for i, t := range v.Tokens {
		if t == nil || !isHex(t.ID, joinIDSize) || !isHex(t.Hash, 32) || t.Uses < 1 {
			return nil, fmt.Errorf("join token %d has a wrong id, hash or number of uses", i+1)
		}
		if t.Node != "" {
			if err := checkNode(t.Node); err != nil {
				return nil, fmt.Errorf("join token %s: %w", t.ID, err)
			}
		}
		if v.tokens[t.ID] != nil {
			return nil, fmt.Errorf("join token %s is there twice", t.ID)
		}
		v.tokens[t.ID] = t
	}
	for i, c := range v.Certs {
		if c == nil || !isHex(c.Serial, 16) {
			return nil, fmt.Errorf("certificate %d has a wrong serial number", i+1)
		}
		if err := checkNode(c.Node); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", c.Serial, err)
		}
		if v.certs[c.Serial] != nil {
			return nil, fmt.Errorf("certificate %s is there twice", c.Serial)
		}
		v.certs[c.Serial] = c
	}
	return v, nil
}

// checkNode returns an error unless s can be a node's name: 1…253 letters, digits,
// dots, hyphens and underscores, the first one a letter or digit.
func checkNode(s string) error {
	alnum := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	bad := strings.ContainsFunc(s, func(r rune) bool { return !alnum(r) && !strings.ContainsRune(".-_", r) })
	if s == "" || len(s) > 253 || bad || !alnum(rune(s[0])) {
		return fmt.Errorf("%q is not a node's name: letters, digits, dots, hyphens and underscores", s)
	}
	return nil
}

// Member is a node's certificate, as the launcher keeps it until it ends.
type Member struct {
	Node    string
	Serial  string // 32 hex digits
	Made    time.Time
	Ends    time.Time
	Revoked time.Time // zero: not revoked
}

// Members lists the nodes' certificates, revoked ones too, in the order they were made.
func (ca *CA) Members() ([]Member, error) {
	v, err := ca.members.get()
	if err != nil {
		return nil, err
	}
	list := make([]Member, 0, len(v.Certs))
	for _, c := range v.Certs {
		list = append(list, Member{c.Node, c.Serial, c.Made, c.Ends, zeroIfNil(c.Revoked)})
	}
	return list, nil
}

// Joined reports whether a node of this name has a certificate that is valid.
func (ca *CA) Joined(node string) (bool, error) {
	v, err := ca.members.get()
	if err != nil {
		return false, err
	}
	return v.joined(node, ca.clock()), nil
}

func (v *members) joined(node string, now time.Time) bool {
	return slices.ContainsFunc(v.Certs, func(c *certEntry) bool { return c.Node == node && c.valid(now) })
}

// RevokeNode revokes all certificates of a node, and the join tokens that are for
// this node only. It is an error if there was nothing to revoke.
func (ca *CA) RevokeNode(node string) error {
	return ca.revoke("node "+node, func(c *certEntry) bool { return c.Node == node }, func(t *joinEntry) bool { return t.Node == node })
}

// RevokeSerial revokes one certificate.
func (ca *CA) RevokeSerial(serial string) error {
	return ca.revoke("certificate "+serial, func(c *certEntry) bool { return c.Serial == strings.ToLower(serial) }, func(*joinEntry) bool { return false })
}

func (ca *CA) revoke(what string, cert func(*certEntry) bool, token func(*joinEntry) bool) error {
	now := ca.clock().UTC()
	return ca.members.change(func(v *members) error {
		n := 0
		for _, c := range v.Certs {
			if cert(c) && c.Revoked == nil {
				c.Revoked = &now
				n++
			}
		}
		before := len(v.Tokens)
		v.Tokens = slices.DeleteFunc(v.Tokens, token)
		if n == 0 && before == len(v.Tokens) {
			return fmt.Errorf("%s has no certificate that is valid", what)
		}
		v.prune(now)
		return nil
	})
}
