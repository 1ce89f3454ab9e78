package batchapi

import (
	"context"
	"errors"

	"gangway/launcher/auth"
)

// Role, Principal and the roles are package auth's.
type (
	Role      = auth.Role
	Principal = auth.Principal
)

// The roles: a later one may do all that an earlier one may.
const (
	Reader    = auth.Reader
	Submitter = auth.Submitter
	Admin     = auth.Admin
)

// ErrUnknown is the error of an Auth that does not know an account or token.
var ErrUnknown = errors.New("unknown account or token")

// Auth knows keys and tokens. Its methods may be called from many goroutines at
// once. Any error means that the caller is not let in; it is logged, not shown.
type Auth interface {
	// SharedKey returns an account's keys, any of which may sign, and who signs with them.
	SharedKey(account string) (keys [][]byte, p Principal, err error)
	Bearer(token string) (Principal, error)
}

type principalKey struct{}

// WithPrincipal returns a context for requests whose sender is known already,
// such as the peer of a unix socket: give it to http.Server.ConnContext.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns who asks: every context that a Backend gets from the API has
// it. What a path names may be another's by the time of a change: a Backend looks
// at the owner where it looks at the object.
func PrincipalOf(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}
