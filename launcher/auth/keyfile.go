package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// keyringVersion is of the file's format. 1: the first.
const keyringVersion = 1

// keys is the keyring's file.
type keys struct {
	Version       int             `json:"version"`
	LocalUsersOff bool            `json:"localUsersOff,omitempty"`
	Accounts      []*accountEntry `json:"accounts"`
	Tokens        []*tokenEntry   `json:"tokens"`

	accounts map[string]*accountEntry // by name
	tokens   map[string]*tokenEntry   // by id
}

type principalEntry struct {
	Name     string `json:"name"`
	Role     Role   `json:"role"`
	NodeUser string `json:"nodeUser,omitempty"`
}

type accountEntry struct {
	principalEntry
	Key     string    `json:"key"` // base64; a signature can't be proved with a hash
	Created time.Time `json:"created"`
}

type tokenEntry struct {
	principalEntry
	ID      string     `json:"id"`
	Hash    string     `json:"sha256"` // of the secret's text, in hex
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

func entryOf(p Principal) principalEntry      { return principalEntry(p) }
func (e principalEntry) principal() Principal { return Principal(e) }
func (t *tokenEntry) public() Token {
	return Token{t.ID, t.principal(), t.Created, zeroIfNil(t.Expires)}
}
func zeroIfNil(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func encodeKeys(v *keys) ([]byte, error) {
	v.Version = keyringVersion
	return json.MarshalIndent(v, "", " ")
}

// decodeKeys reads a keyring and refuses one that is not wholly right: half a
// keyring could let in whom the other half forbids. Errors hold no secret.
func decodeKeys(data []byte) (*keys, error) {
	v := &keys{accounts: map[string]*accountEntry{}, tokens: map[string]*tokenEntry{}}
	if err := decodeStrict(data, v); err != nil {
		return nil, err
	}
	if err := checkVersion(v.Version, keyringVersion); err != nil {
		return nil, err
	}
	for i, a := range v.Accounts {
		if a == nil {
			return nil, fmt.Errorf("account %d is null", i+1)
		}
		if err := checkAccount(a.principal()); err != nil {
			return nil, fmt.Errorf("account %d: %w", i+1, err)
		}
		if key, err := base64.StdEncoding.DecodeString(a.Key); err != nil || len(key) < 32 {
			return nil, fmt.Errorf("account %s: its key is not base64 of 32 bytes or more", a.Name)
		}
		if v.accounts[a.Name] != nil {
			return nil, fmt.Errorf("account %s is there twice", a.Name)
		}
		v.accounts[a.Name] = a
	}
	for i, t := range v.Tokens {
		if t == nil {
			return nil, fmt.Errorf("token %d is null", i+1)
		}
		if !isHex(t.ID, idSize) || !isHex(t.Hash, 32) {
			return nil, fmt.Errorf("token %d: its id or hash is not lower-case hex of the right length", i+1)
		}
		if err := t.principal().check(); err != nil {
			return nil, fmt.Errorf("token %s: %w", t.ID, err)
		}
		if v.tokens[t.ID] != nil {
			return nil, fmt.Errorf("token %s is there twice", t.ID)
		}
		v.tokens[t.ID] = t
	}
	return v, nil
}

// decodeStrict is json.Unmarshal that refuses unknown fields: they could be a later
// version's limits.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fmt.Errorf("byte %d: not JSON", syntax.Offset) // the message could quote a secret
		}
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return fmt.Errorf("byte %d: field %s has the wrong type", typ.Offset, typ.Field)
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("byte %d: there is more after the end", d.InputOffset())
	}
	return nil
}

func checkVersion(have, known int) error {
	if have > known {
		return fmt.Errorf("it has format %d, and this program knows %d: use the newer gangway that wrote it", have, known)
	}
	if have < 1 {
		return errors.New("it has no version")
	}
	return nil
}

// checkAccount returns an error unless p can be an account: the name is as Batch
// wants it, 3…24 lower-case letters and digits.
func checkAccount(p Principal) error {
	bad := strings.ContainsFunc(p.Name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	if len(p.Name) < 3 || len(p.Name) > 24 || bad {
		return fmt.Errorf("%q is not an account's name: 3 to 24 lower-case letters and digits", p.Name)
	}
	return p.check()
}

// isHex tells whether s is n bytes in lower-case hex.
func isHex(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*n && s == strings.ToLower(s)
}

// isSecret tells whether s is what random secrets look like: it must be the one
// way to write its bytes.
func isSecret(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == secretSize && !strings.ContainsAny(s, "\r\n")
}
