package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	keyringName = "keyring.json"
	keySize     = 64 // bytes, as Batch's account keys
	secretSize  = 32 // bytes
	idSize      = 6  // bytes, written as hex
	tokenPrefix = "gangway_"
)

// Keyring is who may use a launcher. Its methods may be called at the same time,
// also from several processes; each call sees what is in the file by then.
type Keyring struct {
	file  *file[keys]
	clock func() time.Time
	users Users
	self  int // the uid that is admin by itself
}

// KeyringOptions has what a Keyring takes from outside; zero fields have defaults.
type KeyringOptions struct {
	Now   func() time.Time // default time.Now
	Users Users            // default [SystemUsers]
	UID   *int             // the launcher's user; default this process's
}

// OpenKeyring opens the keyring in the data directory dir, which is made with mode
// 0700 if there is none. A keyring without a file is empty: nobody but local users
// may anything. A directory or a file that other users can get at is refused.
func OpenKeyring(dir string, o KeyringOptions) (*Keyring, error) {
	if err := openDir(dir); err != nil {
		return nil, fmt.Errorf("opening the keyring: %w", err)
	}
	k := &Keyring{
		file:  &file[keys]{path: filepath.Join(dir, keyringName), decode: decodeKeys, encode: encodeKeys},
		clock: o.Now, users: o.Users, self: ownUID(),
	}
	if k.clock == nil {
		k.clock = time.Now
	}
	if k.users == nil {
		k.users = &SystemUsers{}
	}
	if o.UID != nil {
		k.self = *o.UID
	}
	if _, err := k.file.get(); err != nil {
		return nil, fmt.Errorf("opening the keyring: %w", err)
	}
	return k, nil
}

// Token is what is known of a bearer token. Its secret is not: only a hash is kept.
type Token struct {
	ID        string // 12 hex digits, the part after "gangway_"
	Principal Principal
	Created   time.Time
	Expires   time.Time // zero: never
}

// Account is what is known of an account; its key is in [Keyring.SharedKey].
type Account struct {
	Principal Principal // its Name is the account's
	Created   time.Time
}

// AddToken makes a bearer token for a principal, valid for life; 0 is for ever. The
// secret is returned this once and never again.
func (k *Keyring) AddToken(p Principal, life time.Duration) (Token, Secret, error) {
	if err := errors.Join(p.check(), p.checkOwner()); err != nil {
		return Token{}, Secret{}, fmt.Errorf("new token: %w", err)
	}
	if life < 0 {
		return Token{}, Secret{}, fmt.Errorf("new token: a life of %v has ended", life)
	}
	secret := base64.RawURLEncoding.EncodeToString(random(secretSize))
	t := tokenEntry{ID: hex.EncodeToString(random(idSize)), Hash: hashOf(secret), principalEntry: entryOf(p), Created: k.clock().UTC().Truncate(time.Second)}
	if life > 0 {
		e := k.clock().Add(life).UTC()
		t.Expires = &e
	}
	err := k.file.change(func(v *keys) error {
		for v.tokens[t.ID] != nil {
			t.ID = hex.EncodeToString(random(idSize))
		}
		v.Tokens = append(v.Tokens, &t)
		return nil
	})
	if err != nil {
		return Token{}, Secret{}, fmt.Errorf("new token: %w", err)
	}
	return t.public(), NewSecret(tokenPrefix + t.ID + "_" + secret), nil
}

// Tokens lists the tokens, also expired ones, in the order they were made.
func (k *Keyring) Tokens() ([]Token, error) {
	v, err := k.file.get()
	if err != nil {
		return nil, err
	}
	list := make([]Token, 0, len(v.Tokens))
	for _, t := range v.Tokens {
		list = append(list, t.public())
	}
	return list, nil
}

// RevokeToken ends a token at once.
func (k *Keyring) RevokeToken(id string) error {
	return k.file.change(func(v *keys) error {
		n := len(v.Tokens)
		v.Tokens = slices.DeleteFunc(v.Tokens, func(t *tokenEntry) bool { return t.ID == id })
		if len(v.Tokens) == n {
			return fmt.Errorf("no token has the id %q: see the list of tokens", id)
		}
		return nil
	})
}

// Bearer returns whose token this is. The error is an [ErrDenied] if it is nobody's
// or no longer valid.
func (k *Keyring) Bearer(token string) (Principal, error) {
	id, secret, err := parseToken(token)
	if err != nil {
		return Principal{}, err
	}
	v, err := k.file.get()
	if err != nil {
		return Principal{}, err
	}
	t := v.tokens[id]
	if t == nil || !equal(t.Hash, hashOf(secret)) {
		return Principal{}, deny("unknown token")
	}
	if now := k.clock(); t.Expires != nil && !now.Before(*t.Expires) {
		return Principal{}, deny("token %s of %s expired at %s (it is %s here): ask an administrator for another", t.ID, t.Name, clockText(*t.Expires), clockText(now))
	}
	return t.principal(), nil
}

// parseToken takes a bearer token apart: "gangway_", 12 hex digits, "_", and 32
// bytes in unpadded URL base64, in which "_" may be too.
func parseToken(s string) (id, secret string, err error) {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if ok {
		id, secret, ok = strings.Cut(rest, "_")
	}
	if !ok || !isHex(id, idSize) || !isSecret(secret) {
		return "", "", deny("not one of this launcher's tokens: they start with %s and have %d characters", tokenPrefix, len(tokenPrefix)+2*idSize+1+base64.RawURLEncoding.EncodedLen(secretSize))
	}
	return id, secret, nil
}

// AddAccount makes an account with a key of 64 random bytes in base64, as Batch's
// SharedKey clients want it. p.Name is the account's name: 3…24 lower-case letters
// and digits.
func (k *Keyring) AddAccount(p Principal) (Secret, error) {
	if err := errors.Join(checkAccount(p), p.checkOwner()); err != nil {
		return Secret{}, fmt.Errorf("new account: %w", err)
	}
	key := base64.StdEncoding.EncodeToString(random(keySize))
	err := k.file.change(func(v *keys) error {
		if v.accounts[p.Name] != nil {
			return fmt.Errorf("account %s exists: revoke it first, or give it a new key", p.Name)
		}
		v.Accounts = append(v.Accounts, &accountEntry{principalEntry: entryOf(p), Key: key, Created: k.clock().UTC().Truncate(time.Second)})
		return nil
	})
	if err != nil {
		return Secret{}, fmt.Errorf("new account: %w", err)
	}
	return NewSecret(key), nil
}

// RenewAccount gives an account a new key; the old one is void at once.
func (k *Keyring) RenewAccount(name string) (Secret, error) {
	key := base64.StdEncoding.EncodeToString(random(keySize))
	err := k.file.change(func(v *keys) error {
		a := v.accounts[name]
		if a == nil {
			return fmt.Errorf("no account is named %q", name)
		}
		a.Key = key // the pointer is also in v.Accounts
		return nil
	})
	if err != nil {
		return Secret{}, err
	}
	return NewSecret(key), nil
}

// Accounts lists the accounts in the order they were made.
func (k *Keyring) Accounts() ([]Account, error) {
	v, err := k.file.get()
	if err != nil {
		return nil, err
	}
	list := make([]Account, 0, len(v.Accounts))
	for _, a := range v.Accounts {
		list = append(list, Account{Principal: a.principal(), Created: a.Created})
	}
	return list, nil
}

// RevokeAccount ends an account and its key at once.
func (k *Keyring) RevokeAccount(name string) error {
	return k.file.change(func(v *keys) error {
		n := len(v.Accounts)
		v.Accounts = slices.DeleteFunc(v.Accounts, func(a *accountEntry) bool { return a.Name == name })
		if len(v.Accounts) == n {
			return fmt.Errorf("no account is named %q", name)
		}
		return nil
	})
}

// SharedKey returns an account's key, decoded, and whose it is. The caller proves
// the signature with it, in constant time (hmac.Equal). The error is an [ErrDenied]
// if there is no such account.
func (k *Keyring) SharedKey(account string) ([]byte, Principal, error) {
	v, err := k.file.get()
	if err != nil {
		return nil, Principal{}, err
	}
	a := v.accounts[account]
	if a == nil {
		return nil, Principal{}, deny("unknown account")
	}
	key, err := base64.StdEncoding.DecodeString(a.Key)
	if err != nil {
		return nil, Principal{}, fmt.Errorf("account %s has a key that is not base64: give it a new one", account)
	}
	return key, a.principal(), nil
}

// SetLocalUsers lets the users of the launcher's machine in, as submitters, or only
// root and the launcher's own user, who always are administrators. By default they
// are let in.
func (k *Keyring) SetLocalUsers(on bool) error {
	return k.file.change(func(v *keys) error { v.LocalUsersOff = !on; return nil })
}

// LocalUsers tells what SetLocalUsers set.
func (k *Keyring) LocalUsers() (bool, error) {
	v, err := k.file.get()
	return err == nil && !v.LocalUsersOff, err
}

// Local returns who the local user uid is, as [PeerUID] found it: an administrator
// if it is root or the launcher's own user, else a submitter whose work is run as
// that user. The error is an [ErrDenied] if local users are not let in or if the uid
// has no name.
func (k *Keyring) Local(uid int) (Principal, error) {
	if uid < 0 {
		return Principal{}, deny("the user at the other end of the socket is unknown")
	}
	v, err := k.file.get()
	if err != nil {
		return Principal{}, err
	}
	admin := uid == 0 || uid == k.self
	if v.LocalUsersOff && !admin {
		return Principal{}, deny("local users are not let in here: ask an administrator for a token")
	}
	u, err := k.users.ByUID(uid)
	switch {
	case err == nil:
	case admin: // a container without a passwd file must not lock its owner out
		return Principal{Name: fmt.Sprintf("uid-%d", uid), Role: Admin}, nil
	default:
		return Principal{}, err
	}
	p := Principal{Name: u.Name, Role: Submitter, NodeUser: u.Name}
	if admin {
		p.Role = Admin
	}
	if err := p.check(); err != nil { // as another name of uid 0 would be
		return Principal{}, deny("uid %d: %v", uid, err)
	}
	return p, nil
}

func hashOf(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// equal compares in a time that says nothing about where they differ.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
